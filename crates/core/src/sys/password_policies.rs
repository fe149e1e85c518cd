//! `sys/policies/password`: the policies of the passwords that engines generate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_framework::fields::Text;
use keepfast_framework::routes::{Exists, Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Keys, Page, Result, Routes, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::System;
use crate::policy::password::{PASSWORD_POLICIES, PasswordPolicyRecord, parse};

const POLICIES: Help = Help { synopsis: "Lists the names of the password policies.", description: "" };
const POLICY: Help = Help {
    synopsis: "Reads, writes or deletes a password policy: the length of passwords, and rules with a minimum number of characters from a character set.",
    description: "HCL or JSON, plain or in base64: length = 20, rule \"charset\" { charset = \"abc\" min-chars = 1 }.",
};
const GENERATE: Help = Help { synopsis: "Generates a password by a password policy.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("policies/password/", POLICIES).list(list);
    r.path("policies/password/{name...}/generate", GENERATE).found_by_lists().final_slash().read(generate);
    r.path("policies/password/{name...}", POLICY)
        .found_by_lists()
        .exists(exists)
        .read(read)
        .update(write)
        .delete(delete);
}

#[derive(Deserialize, JsonSchema)]
struct PolicyPath {
    /// Name of the policy.
    name: Text,
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Name of the policy.
    name: Text,
    /// The policy in HCL or JSON, as plain text or in base64.
    policy: Option<Text>,
}

#[derive(Serialize, JsonSchema)]
struct PolicyResponse {
    policy: String,
}

#[derive(Serialize, JsonSchema)]
struct GenerateResponse {
    password: String,
}

fn fault(status: Status, what: &str) -> Error {
    Error::new(status, format!("1 error occurred:\n\t* {what}\n\n"))
}

async fn named(cx: &mut Cx, name: &str) -> Result<PasswordPolicyRecord> {
    let found = PASSWORD_POLICIES.get(cx, name).await?;
    found.ok_or_else(|| fault(Status::NOT_FOUND, "policy does not exist"))
}

async fn list(_: &System, cx: &mut Cx, _: Nothing) -> Result<Keys> {
    Ok(Keys::of(PASSWORD_POLICIES.list(cx, "", &Page::all()).await?))
}

async fn exists(_: &System, cx: &mut Cx, req: PolicyPath) -> Result<Exists> {
    Ok(Exists(PASSWORD_POLICIES.get(cx, &req.name).await?.is_some()))
}

async fn read(_: &System, cx: &mut Cx, req: PolicyPath) -> Result<Data<PolicyResponse>> {
    Ok(Data(PolicyResponse { policy: named(cx, &req.name).await?.policy }))
}

async fn write(_: &System, cx: &mut Cx, req: Write) -> Result<()> {
    if req.name.ends_with("/generate") {
        return Err(Error::unsupported_operation());
    }
    let given = req.policy.map(String::from).unwrap_or_default();
    if given.is_empty() {
        return Err(fault(Status::BAD_REQUEST, "missing policy"));
    }
    let decoded = STANDARD.decode(given.trim()).ok().and_then(|b| String::from_utf8(b).ok());
    let policy = decoded.filter(|text| !text.is_empty()).unwrap_or(given);
    parse(&policy).map_err(|e| fault(Status::BAD_REQUEST, &e.to_string()))?;
    PASSWORD_POLICIES.put(cx, &req.name, &PasswordPolicyRecord { policy })
}

async fn delete(_: &System, cx: &mut Cx, req: PolicyPath) -> Result<()> {
    // The path that generates passwords names no policy.
    if req.name.ends_with("/generate") {
        return Err(Error::unsupported_operation());
    }
    PASSWORD_POLICIES.delete(cx, &req.name);
    Ok(())
}

async fn generate(_: &System, cx: &mut Cx, req: PolicyPath) -> Result<Data<GenerateResponse>> {
    let policy = parse(&named(cx, &req.name).await?.policy).map_err(|e| Error::internal(e.to_string()))?;
    Ok(Data(GenerateResponse { password: policy.generate().expose().clone() }))
}
