//! `sys/policies/acl` and its older form `sys/policy`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_framework::fields::{Flag, Int, Seconds, Text};
use keepfast_framework::reply::Flat;
use keepfast_framework::routes::{Exists, Help};
use keepfast_framework::{Cx, Data, Error, Keys, Page, Result, Routes, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::System;
use crate::policy::store::PolicyRecord;
use crate::policy::{self, builtin};
use crate::unsealed::Unsealed;

const ACL: Help = Help { synopsis: "Policies: what callers may do.", description: "" };
const OLD: Help = Help { synopsis: "Policies, in the older form of the API.", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("policies/acl/", ACL).list(list);
    r.path("policies/acl/{name...}", ACL).read(read).update(write).delete(delete).exists(exists);
    r.path("policies/detailed/acl/", ACL).list(list_detailed);
    r.path("policy", OLD).read(list_old).hidden();
    r.path("policy/", OLD).list(list_old);
    r.path("policy/{name...}", OLD).read(read_old).update(write).delete(delete).exists(exists);
}

#[derive(Deserialize, JsonSchema)]
struct Paged {
    /// Show names behind this one.
    after: Option<Text>,
    /// Show at most this many.
    limit: Option<Int>,
}

#[derive(Deserialize, JsonSchema)]
struct Named {
    /// Name of the policy.
    name: Text,
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Name of the policy.
    name: Text,
    /// Its text, HCL or JSON, plain or in base64.
    policy: Option<Text>,
    /// The oldest name of `policy`.
    rules: Option<Text>,
    /// Write only if this is the present version; 0 if there must be none.
    cas: Option<Int>,
    /// Whether later writes must name the present version.
    cas_required: Option<Flag>,
    /// When it ends, RFC 3339.
    expiration: Option<Text>,
    /// How long it holds.
    ttl: Option<Seconds>,
    /// Let identity values in its templates span several segments; each write says it anew.
    allow_slashes_in_identity_templates: Option<Flag>,
    /// Let identity values in its templates hold wildcards; each write says it anew.
    allow_wildcards_in_identity_templates: Option<Flag>,
}

#[derive(Serialize)]
struct Shown {
    allow_slashes_in_identity_templates: bool,
    allow_wildcards_in_identity_templates: bool,
    cas_required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<String>,
    version: u64,
}

#[derive(Serialize)]
struct OldList {
    keys: Vec<String>,
    policies: Vec<String>,
}

/// The stored names that callers see, with `root`, which is not stored.
async fn names(unsealed: &Unsealed, req: &Paged) -> Result<Vec<String>> {
    let mut tx = unsealed.barrier.begin_read();
    let mut names = unsealed.policies.list(&mut tx, "", &Page::all()).await?;
    names.retain(|n| n != builtin::RESPONSE_WRAPPING);
    names.push(builtin::ROOT.to_owned());
    names.sort();
    if let Some(after) = req.after.as_ref().filter(|a| !a.is_empty()) {
        names.retain(|n| n.as_str() > &**after);
    }
    if let Some(limit) = req.limit.filter(|l| l.0 > 0) {
        names.truncate(limit.0 as usize);
    }
    Ok(names)
}

async fn list(sys: &System, _: &mut Cx, req: Paged) -> Result<Keys> {
    Ok(Keys::of(names(&*sys.unsealed()?, &req).await?))
}

async fn list_old(sys: &System, _: &mut Cx, req: Paged) -> Result<Flat<OldList>> {
    let keys = names(&*sys.unsealed()?, &req).await?;
    Ok(Flat(OldList { policies: keys.clone(), keys }))
}

async fn list_detailed(sys: &System, _: &mut Cx, req: Paged) -> Result<Keys> {
    let unsealed = sys.unsealed()?;
    let keys = names(&unsealed, &req).await?;
    let mut tx = unsealed.barrier.begin_read();
    let mut info = BTreeMap::new();
    for name in &keys {
        let record = unsealed.policies.read(&mut tx, name).await?;
        info.insert(name.clone(), shown(record.unwrap_or_else(root), false));
    }
    Keys::with_info(keys, &info)
}

/// Root as it is shown: it has no text.
fn root() -> PolicyRecord {
    PolicyRecord { version: 0, ..PolicyRecord::new(builtin::ROOT, "", Timestamp::EPOCH) }
}

fn shown(record: PolicyRecord, old: bool) -> Shown {
    let modified = (record.version > 0).then(|| record.modified.rfc3339());
    let (policy, rules) = if old { (None, Some(record.text)) } else { (Some(record.text), None) };
    Shown {
        allow_slashes_in_identity_templates: record.allow_slashes_in_identity_templates,
        allow_wildcards_in_identity_templates: record.allow_wildcards_in_identity_templates,
        cas_required: record.cas_required,
        expiration: record.expiration.map(|t| t.rfc3339()),
        modified,
        name: record.name,
        policy,
        rules,
        version: record.version,
    }
}

async fn find(sys: &System, cx: &Cx, name: &str) -> Result<Option<PolicyRecord>> {
    let name = folded(name);
    if name == builtin::ROOT {
        return Ok(Some(root()));
    }
    let unsealed = sys.unsealed()?;
    let now = cx.now();
    let mut tx = unsealed.barrier.begin_read();
    let found = unsealed.policies.read(&mut tx, &name).await?;
    Ok(found.filter(|r| r.expiration.is_none_or(|end| now < end)))
}

/// The one folding of policy names.
fn folded(name: &str) -> String {
    name.trim().trim_end_matches('/').to_lowercase()
}

async fn exists(sys: &System, cx: &mut Cx, req: Named) -> Result<Exists> {
    Ok(Exists(find(sys, cx, &req.name).await?.is_some()))
}

async fn read(sys: &System, cx: &mut Cx, req: Named) -> Result<Option<Data<Shown>>> {
    Ok(find(sys, cx, &req.name).await?.map(|r| Data(shown(r, false))))
}

async fn read_old(sys: &System, cx: &mut Cx, req: Named) -> Result<Option<Flat<Shown>>> {
    Ok(find(sys, cx, &req.name).await?.map(|r| Flat(shown(r, true))))
}

async fn write(sys: &System, cx: &mut Cx, req: Write) -> Result<()> {
    let name = folded(&req.name);
    if builtin::reads_like_root(&name) {
        return Err(Error::invalid(format!("cannot update {name:?} policy")));
    }
    if name == builtin::RESPONSE_WRAPPING {
        return Err(Error::invalid(format!("cannot update {name:?} policy")));
    }
    let given = req.policy.or(req.rules).map(String::from).unwrap_or_default();
    if given.trim().is_empty() {
        return Err(Error::invalid("'policy' parameter not supplied or empty"));
    }
    let text = decoded(given);
    policy::parse(&name, &text).map_err(|e| Error::invalid(e.to_string()))?;
    let unsealed = sys.unsealed()?;
    let now = cx.now();
    let expiration = expiration(&req.expiration, req.ttl, now)?;
    let (tx, _) = cx.store();
    let before = unsealed.policies.read(tx, &name).await?;
    let version = before.as_ref().map_or(0, |r| r.version);
    let cas_required = before.as_ref().is_some_and(|r| r.cas_required);
    match req.cas {
        Some(cas) if u64::try_from(cas.0) != Ok(version) && !(cas.0 == -1 && version == 0) => {
            return Err(Error::invalid(format!(
                "check-and-set parameter {} did not match the current version {version}",
                cas.0
            )));
        }
        None if cas_required => return Err(Error::invalid("check-and-set parameter required for this call")),
        _ => {}
    }
    let record = PolicyRecord {
        name,
        text,
        version: version + 1,
        modified: now,
        expiration,
        cas_required: req.cas_required.map_or(cas_required, |f| f.0),
        allow_slashes_in_identity_templates: req.allow_slashes_in_identity_templates.is_some_and(|f| f.0),
        allow_wildcards_in_identity_templates: req.allow_wildcards_in_identity_templates.is_some_and(|f| f.0),
    };
    unsealed.policies.write(tx, &record)
}

/// Policies may come in base64; a text that decodes to UTF-8 was meant so.
fn decoded(text: String) -> String {
    match STANDARD.decode(text.trim()).ok().and_then(|b| String::from_utf8(b).ok()) {
        Some(decoded) => decoded,
        None => text,
    }
}

fn expiration(at: &Option<Text>, ttl: Option<Seconds>, now: Timestamp) -> Result<Option<Timestamp>> {
    match (at.as_ref().filter(|a| !a.is_empty()), ttl.filter(|t| t.0 > 0)) {
        (Some(_), Some(_)) => Err(Error::invalid("cannot specify both expiration and ttl")),
        (Some(at), None) => match Timestamp::parse_rfc3339(at) {
            Some(end) if end > now => Ok(Some(end)),
            Some(_) => Err(Error::invalid("expiration is in the past")),
            None => Err(Error::invalid("expiration is not a time in RFC 3339")),
        },
        (None, Some(ttl)) => Ok(Some(now.after(ttl.duration()))),
        (None, None) => Ok(None),
    }
}

async fn delete(sys: &System, cx: &mut Cx, req: Named) -> Result<()> {
    let name = folded(&req.name);
    match name.as_str() {
        builtin::DEFAULT => return Err(Error::invalid("cannot delete default policy")),
        builtin::ROOT | builtin::RESPONSE_WRAPPING => {
            return Err(Error::invalid(format!("cannot delete {name:?} policy")));
        }
        _ => {}
    }
    let unsealed = sys.unsealed()?;
    let (tx, _) = cx.store();
    unsealed.policies.delete(tx, &name);
    Ok(())
}
