//! `sys/policies/acl` and its older form `sys/policy`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keepfast_framework::duration::parse_int;
use keepfast_framework::fields::{Flag, Int, Quoted, Seconds, Text, unless_null};
use keepfast_framework::reply::Flat;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Data, Error, Keys, Outcome, Page, Result, Routes, Timestamp};
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{System, unsealed};
use crate::policy::store::PolicyRecord;
use crate::policy::{self, builtin};
use crate::unsealed::Unsealed;

const ACL: Help = Help { synopsis: "Lists, reads, writes or deletes ACL policies.", description: "" };
const OLD: Help = Help { synopsis: "Lists, reads, writes or deletes ACL policies (older paths).", description: "" };

pub(super) fn routes(r: &mut Routes<System>) {
    r.path("policies/acl/{name...}/", ACL).name_may_end_in_slash().list(list);
    r.path("policies/acl/{name...}", ACL).name_may_end_in_slash().read(read).update(write).patch(patch).delete(delete);
    r.path("policies/detailed/acl/{name...}/", ACL).list(list_detailed);
    r.path("policy", OLD).name_may_end_in_slash().read(list_all_old).hidden();
    r.path("policy/{name...}/", OLD).name_may_end_in_slash().list(list_old);
    r.path("policy/{name...}", OLD).name_may_end_in_slash().read(read_old).update(write_old).delete(delete);
}

#[derive(Default, Deserialize, JsonSchema)]
struct Paged {
    /// Folder of the policy names; only names below it are listed.
    name: Text,
    /// Returns only names after this one.
    after: Option<Text>,
    /// Maximum number of names. Default: no limit.
    limit: Option<Int>,
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
    /// Check-and-set: the current version of the policy; 0 if it must not exist.
    cas: Option<Int>,
    /// Whether writes require `cas`. Default: unchanged; false for a new policy.
    cas_required: Option<Flag>,
    /// Time of expiry in RFC 3339. Default: no expiry.
    #[serde(default, deserialize_with = "unless_null")]
    expiration: Option<Moment>,
    /// Time to expiry in seconds, instead of `expiration`.
    #[serde(default, deserialize_with = "unless_null")]
    ttl: Option<Seconds>,
    /// Whether identity values in templates may contain slashes. Default: false at each write.
    allow_slashes_in_identity_templates: Option<Flag>,
    /// Whether identity values in templates may contain wildcards. Default: false at each write.
    allow_wildcards_in_identity_templates: Option<Flag>,
}

#[derive(Deserialize, JsonSchema)]
struct WriteOld {
    /// Name of the policy.
    name: Text,
    /// The policy in HCL or JSON, as plain text or in base64.
    policy: Option<Text>,
    /// Deprecated: use `policy`.
    rules: Option<Text>,
    /// Check-and-set: the current version of the policy; 0 if it must not exist.
    cas: Option<Int>,
    /// Whether writes require `cas`. Default: unchanged; false for a new policy.
    cas_required: Option<Flag>,
    /// Time of expiry in RFC 3339. Default: no expiry.
    #[serde(default, deserialize_with = "unless_null")]
    expiration: Option<Moment>,
    /// Time to expiry in seconds, instead of `expiration`.
    #[serde(default, deserialize_with = "unless_null")]
    ttl: Option<Seconds>,
    /// Whether identity values in templates may contain slashes. Default: false at each write.
    allow_slashes_in_identity_templates: Option<Flag>,
    /// Whether identity values in templates may contain wildcards. Default: false at each write.
    allow_wildcards_in_identity_templates: Option<Flag>,
}

#[derive(Serialize)]
struct PolicyResponse {
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<String>,
    policies: Option<Vec<String>>,
}

/// The stored names that callers see, with `root`, which is not stored; below a folder only the stored names.
async fn names(unsealed: &Unsealed, req: &Paged) -> Result<Vec<String>> {
    let mut tx = unsealed.barrier.begin_read();
    let mut names = Vec::new();
    let top = req.name.trim_end_matches('/').to_lowercase();
    let mut folders = vec![if top.is_empty() { String::new() } else { format!("{top}/") }];
    while let Some(folder) = folders.pop() {
        for name in unsealed.access.policies.list(&mut tx, &folder, &Page::all()).await? {
            let name = format!("{folder}{name}");
            if name.ends_with('/') { folders.push(name) } else { names.push(name) }
        }
    }
    names.retain(|n| n != builtin::RESPONSE_WRAPPING);
    if top.is_empty() && unsealed.access.namespace.id.is_root() {
        names.push(builtin::ROOT.to_owned());
    }
    Ok(names)
}

/// The page of the names that a request selects.
fn page(mut names: Vec<String>, req: &Paged) -> Vec<String> {
    if let Some(after) = req.after.as_ref().filter(|a| !a.is_empty()) {
        names.retain(|n| n.as_str() > &**after);
    }
    if let Some(limit) = req.limit.filter(|l| l.0 > 0) {
        names.truncate(limit.0 as usize);
    }
    names
}

async fn list(_: &System, cx: &mut Cx, req: Paged) -> Result<Keys> {
    Ok(Keys::of(page(names(&*unsealed(cx)?, &req).await?, &req)))
}

async fn list_all_old(sys: &System, cx: &mut Cx, _: Nothing) -> Result<Flat<OldList>> {
    list_old(sys, cx, Paged::default()).await
}

async fn list_old(_: &System, cx: &mut Cx, req: Paged) -> Result<Flat<OldList>> {
    let keys = page(names(&*unsealed(cx)?, &req).await?, &req);
    let policies = Some(keys.clone()).filter(|names| !names.is_empty());
    Ok(Flat(OldList { policies, keys }))
}

/// OpenBao pages the names and not their details, and lists root below every folder.
async fn list_detailed(_: &System, cx: &mut Cx, req: Paged) -> Result<Keys> {
    let unsealed = unsealed(cx)?;
    let mut all = names(&unsealed, &req).await?;
    if !req.name.is_empty() {
        all.push(builtin::ROOT.to_owned());
    }
    let mut tx = unsealed.barrier.begin_read();
    let mut info = BTreeMap::new();
    for name in &all {
        let record = unsealed.access.policies.readable(&mut tx, name).await?;
        let named = || PolicyRecord { version: 0, ..PolicyRecord::new(name, "", Timestamp::EPOCH) };
        info.insert(name.clone(), shown(record.unwrap_or_else(named), false));
    }
    Keys::with_info(page(all, &req), &info)
}

/// The response for root, which has no text.
fn root() -> PolicyRecord {
    PolicyRecord { version: 0, ..PolicyRecord::new(builtin::ROOT, "", Timestamp::EPOCH) }
}

fn shown(record: PolicyRecord, old: bool) -> PolicyResponse {
    let modified = (record.version > 0).then(|| record.modified.rfc3339());
    let (policy, rules) = if old { (None, Some(record.text)) } else { (Some(record.text), None) };
    PolicyResponse {
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

async fn find(cx: &Cx, name: &str) -> Result<Option<PolicyRecord>> {
    let name = folded(name)?;
    if name == builtin::ROOT {
        return Ok(Some(root()));
    }
    let unsealed = unsealed(cx)?;
    let now = cx.now();
    let mut tx = unsealed.barrier.begin_read();
    let found = unsealed.access.policies.read(&mut tx, &name).await?;
    Ok(found.filter(|r| r.expiration.is_none_or(|end| now < end)))
}

/// The canonical form of a policy name.
///
/// # Errors
/// 400 for blanks at the ends: the ACL check sees the path with them, so that a denial of the name does not cover it.
fn folded(name: &str) -> Result<String> {
    if name.trim() != name {
        return Err(Error::invalid("a policy name cannot begin or end with a blank"));
    }
    Ok(name.trim_end_matches('/').to_lowercase())
}

async fn read(_: &System, cx: &mut Cx, req: PolicyPath) -> Result<Option<Data<PolicyResponse>>> {
    Ok(find(cx, &req.name).await?.map(|r| Data(shown(r, false))))
}

async fn read_old(_: &System, cx: &mut Cx, req: PolicyPath) -> Result<Option<Flat<PolicyResponse>>> {
    Ok(find(cx, &req.name).await?.map(|r| Flat(shown(r, true))))
}

/// The older form also accepts the text under its oldest parameter name.
async fn write_old(sys: &System, cx: &mut Cx, req: WriteOld) -> Result<()> {
    let WriteOld { name, policy, rules, cas, cas_required, expiration, ttl, .. } = req;
    let deprecated = policy.as_ref().is_none_or(|p| p.is_empty()) && rules.as_ref().is_some_and(|r| !r.is_empty());
    if deprecated {
        cx.warn("'rules' is deprecated, please use 'policy' instead");
    }
    let policy = if deprecated { rules } else { policy };
    let (slashes, wildcards) = (req.allow_slashes_in_identity_templates, req.allow_wildcards_in_identity_templates);
    let req = Write {
        name,
        policy,
        cas,
        cas_required,
        expiration,
        ttl,
        allow_slashes_in_identity_templates: slashes,
        allow_wildcards_in_identity_templates: wildcards,
    };
    write(sys, cx, req).await
}

async fn write(_: &System, cx: &mut Cx, req: Write) -> Result<()> {
    let name = folded(&req.name)?;
    let given = req.policy.clone().map(String::from).unwrap_or_default();
    let text = parsed(&name, given)?;
    expiration(&req.expiration, req.ttl, cx.now())?;
    writable(&name)?;
    let before = stored(cx, &name).await?;
    let record = PolicyRecord {
        text,
        cas_required: before.as_ref().is_some_and(|r| r.cas_required),
        version: before.map_or(0, |r| r.version),
        ..PolicyRecord::new(&name, "", cx.now())
    };
    save(cx, record, &req).await
}

/// Changes the fields in the request and keeps the others.
async fn patch(_: &System, cx: &mut Cx, mut req: Write) -> Result<Outcome> {
    let name = folded(&req.name)?;
    match &req.policy {
        Some(Text(given)) => drop(parsed(&name, given.clone())?),
        // Root is not stored, so there is no text to keep.
        None if name == builtin::ROOT => drop(parsed(&name, String::new())?),
        None => {}
    }
    writable(&name)?;
    let before = stored(cx, &name).await?.ok_or_else(|| Error::invalid("policy not found"))?;
    // A patch applies to the version that was just read, so the caller need not name it.
    req.cas = req.cas.or_else(|| i64::try_from(before.version).ok().map(Int));
    let text = match &req.policy {
        Some(Text(given)) => parsed(&name, given.clone())?,
        None => before.text.clone(),
    };
    save(cx, PolicyRecord { text, ..before }, &req).await?;
    // 200 with a null body.
    Ok(Outcome::of(RawValue::NULL.to_owned()))
}

/// Refuses the name of a policy that callers may not write; other errors have precedence.
fn writable(name: &str) -> Result<()> {
    if builtin::reads_like_root(name) || name == builtin::RESPONSE_WRAPPING {
        return Err(Error::invalid(format!("cannot update {} policy", Quoted(name))));
    }
    Ok(())
}

async fn stored(cx: &mut Cx, name: &str) -> Result<Option<PolicyRecord>> {
    unsealed(cx)?.access.policies.readable(cx.store().0, name).await
}

fn parsed(name: &str, given: String) -> Result<String> {
    if given.is_empty() {
        return Err(Error::invalid("'policy' parameter not supplied or empty"));
    }
    let text = decoded(given);
    policy::parse(name, &text).map_err(|e| Error::invalid(e.to_string()))?;
    Ok(text)
}

/// Writes the next version of `record`, which holds the current version.
async fn save(cx: &mut Cx, record: PolicyRecord, req: &Write) -> Result<()> {
    let now = cx.now();
    let version = record.version;
    let expiration = expiration(&req.expiration, req.ttl, now)?.or(record.expiration);
    let cas_required = req.cas_required.map_or(record.cas_required, |f| f.0);
    match req.cas.map(|cas| cas.0) {
        Some(-1) if version > 0 => {
            return Err(Error::invalid("check-and-set parameter set to -1 on existing entry"));
        }
        Some(cas) if cas != -1 && u64::try_from(cas) != Ok(version) => {
            return Err(Error::invalid(format!(
                "check-and-set parameter {cas} did not match the current version {version}"
            )));
        }
        None if cas_required => return Err(Error::invalid("check-and-set parameter required for this call")),
        _ => {}
    }
    let record = PolicyRecord {
        version: version + 1,
        modified: now,
        expiration,
        cas_required,
        allow_slashes_in_identity_templates: flag(
            req.allow_slashes_in_identity_templates,
            record.allow_slashes_in_identity_templates,
        ),
        allow_wildcards_in_identity_templates: flag(
            req.allow_wildcards_in_identity_templates,
            record.allow_wildcards_in_identity_templates,
        ),
        ..record
    };
    unsealed(cx)?.access.policies.write(cx.store().0, &record)
}

fn flag(given: Option<Flag>, present: bool) -> bool {
    given.map_or(present, |f| f.0)
}

/// Decodes a policy in base64; a text that decodes to UTF-8 counts as base64.
fn decoded(text: String) -> String {
    let decoded = STANDARD.decode(text.trim()).ok().and_then(|b| String::from_utf8(b).ok());
    decoded.filter(|decoded| !decoded.is_empty()).unwrap_or(text)
}

fn expiration(at: &Option<Moment>, ttl: Option<Seconds>, now: Timestamp) -> Result<Option<Timestamp>> {
    let end = match (at, ttl) {
        (Some(_), Some(_)) => return Err(Error::invalid("cannot specify both expiration and ttl")),
        (Some(at), None) => at.0,
        (None, Some(ttl)) => now.after(ttl.duration()),
        (None, None) => return Ok(None),
    };
    if end <= now {
        return Err(Error::invalid("refusing to update policy as expiration time has already elapsed"));
    }
    Ok(Some(end))
}

/// A moment: RFC 3339, or seconds since 1970 as number or text.
#[derive(Clone, Copy, JsonSchema)]
struct Moment(#[schemars(with = "Text")] Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let fault = D::Error::custom;
        let text = match serde_json::Value::deserialize(d)? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            _ => return Err(fault("could not parse time from input type")),
        };
        let unix = parse_int(&text, 10).ok().map(|seconds| Timestamp::from_unix(seconds.min(END_OF_TIME)));
        let moment = unix.or_else(|| Timestamp::parse_rfc3339(&text));
        moment.map(Moment).ok_or_else(|| fault("could not parse string as date and time"))
    }
}

/// The last second of the year 9999, the end of RFC 3339 times.
const END_OF_TIME: i64 = 253_402_300_799;

async fn delete(_: &System, cx: &mut Cx, req: PolicyPath) -> Result<()> {
    let name = folded(&req.name)?;
    match name.as_str() {
        builtin::DEFAULT => return Err(Error::invalid("cannot delete default policy")),
        builtin::ROOT | builtin::RESPONSE_WRAPPING => {
            return Err(Error::invalid(format!("cannot delete {name:?} policy")));
        }
        _ => {}
    }
    let unsealed = unsealed(cx)?;
    let (tx, _) = cx.store();
    unsealed.access.policies.delete(tx, &name);
    Ok(())
}
