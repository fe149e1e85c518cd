//! Secret ids: issue, list, look up, destroy; by id and by accessor.

use std::collections::BTreeMap;

use keepfast_crypto::random;
use keepfast_framework::fields::{CommaList, Int, Quoted, Seconds, SecretText, Text};
use keepfast_framework::reply::WithStatus;
use keepfast_framework::{Cx, Data, Error, Keys, Outcome, Reply, Result, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::role::{self, Role};
use super::roles::List;
use super::secret_id::{self, ACCESSORS, SecretId};
use super::{AppRole, cidr, metadata};

/// The parameters of a new secret id.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Create {
    /// Name of the role.
    role_name: Text,
    /// Metadata of the tokens: a JSON object of strings as text, or `name=value` pairs.
    metadata: Option<Text>,
    /// Comma-separated networks from which logins are allowed; within those of the role.
    cidr_list: Option<CommaList>,
    /// Comma-separated networks from which the tokens can be used; within those of the role.
    token_bound_cidrs: Option<CommaList>,
    /// Number of logins, at most the role's `secret_id_num_uses`, which is the default; 0 for no limit.
    num_uses: Option<Int>,
    /// TTL of the secret id in seconds, at most the role's `secret_id_ttl`, which is the default; 0 for no expiry.
    ttl: Option<Seconds>,
    /// Ignored by writes; for lists, which have the same path.
    #[allow(dead_code, reason = "a known parameter is type-checked")]
    after: Option<Text>,
    /// Ignored by writes; for lists, which have the same path.
    #[allow(dead_code, reason = "a known parameter is type-checked")]
    limit: Option<Int>,
}

/// The parameters of a secret id that the caller chooses.
#[derive(Deserialize, JsonSchema)]
pub(super) struct CreateCustom {
    /// Name of the role.
    role_name: Text,
    /// The secret id.
    secret_id: Option<SecretText>,
    /// Metadata of the tokens: a JSON object of strings as text, or `name=value` pairs.
    metadata: Option<Text>,
    /// Comma-separated networks from which logins are allowed; within those of the role.
    cidr_list: Option<CommaList>,
    /// Comma-separated networks from which the tokens can be used; within those of the role.
    token_bound_cidrs: Option<CommaList>,
    /// Number of logins, at most the role's `secret_id_num_uses`, which is the default; 0 for no limit.
    num_uses: Option<Int>,
    /// TTL of the secret id in seconds, at most the role's `secret_id_ttl`, which is the default; 0 for no expiry.
    ttl: Option<Seconds>,
}

/// A new secret id; no other response contains it.
#[derive(Serialize)]
pub(super) struct NewSecretId {
    secret_id: String,
    secret_id_accessor: String,
    secret_id_num_uses: u64,
    secret_id_ttl: u64,
}

/// The parameters that identify a secret id of a role.
#[derive(Deserialize, JsonSchema)]
pub(super) struct SecretIdParams {
    /// Name of the role.
    role_name: Text,
    /// The secret id.
    secret_id: Option<SecretText>,
}

/// The parameters that identify a secret id by its accessor.
#[derive(Deserialize, JsonSchema)]
pub(super) struct AccessorParams {
    /// Name of the role.
    role_name: Text,
    /// The accessor of the secret id.
    secret_id_accessor: Option<Text>,
}

/// The page of a list of a role's accessors.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ListOfRole {
    /// Name of the role.
    role_name: Text,
    /// Returns only accessors after this one.
    after: Option<Text>,
    /// Maximum number of accessors. Default: no limit.
    limit: Option<Int>,
}

/// A secret id in responses.
#[derive(Serialize)]
struct SecretIdResponse {
    cidr_list: Vec<String>,
    creation_time: String,
    expiration_time: String,
    last_updated_time: String,
    metadata: BTreeMap<String, String>,
    secret_id_accessor: String,
    secret_id_num_uses: u64,
    secret_id_ttl: u64,
    token_bound_cidrs: Vec<String>,
}

/// POST `role/{role_name}/secret-id`.
pub(super) async fn create(method: &AppRole, cx: &mut Cx, req: Create) -> Result<Data<NewSecretId>> {
    register(method, cx, random::uuid(), req).await
}

/// POST `role/{role_name}/custom-secret-id`.
pub(super) async fn create_custom(method: &AppRole, cx: &mut Cx, req: CreateCustom) -> Result<Data<NewSecretId>> {
    let secret_id = req.secret_id.as_ref().map(SecretText::expose).unwrap_or_default().to_owned();
    let CreateCustom { role_name, metadata, cidr_list, token_bound_cidrs, num_uses, ttl, .. } = req;
    register(
        method,
        cx,
        secret_id,
        Create { role_name, metadata, cidr_list, token_bound_cidrs, num_uses, ttl, after: None, limit: None },
    )
    .await
}

async fn register(method: &AppRole, cx: &mut Cx, secret_id: String, req: Create) -> Result<Data<NewSecretId>> {
    if secret_id.is_empty() {
        return Err(Error::invalid("missing secret_id"));
    }
    let role = role::require(cx, &req.role_name).await?;
    if !role.bind_secret_id {
        return Err(Error::invalid("bind_secret_id is not set on the role"));
    }
    let draft = draft(cx, &role, req)?;
    let hash = method.id_hasher.secret_id(&role.store, &secret_id);
    if secret_id::get(cx, &role.store, &hash).await?.is_some() {
        return Err(Error::invalid("failed to store secret_id: SecretID is already registered"));
    }
    secret_id::add(cx, &role.store, &hash, &draft)?;
    let effective_ttl = draft.expires.map_or(0, |expires| expires.since(draft.created).as_secs());
    Ok(Data(NewSecretId {
        secret_id,
        secret_id_accessor: draft.accessor,
        secret_id_num_uses: draft.num_uses,
        secret_id_ttl: effective_ttl,
    }))
}

/// Checks the requested limits against those of the role.
fn draft(cx: &Cx, role: &Role, req: Create) -> Result<SecretId> {
    let num_uses = match req.num_uses {
        None => role.secret_id_num_uses,
        Some(Int(uses)) => u64::try_from(uses).map_err(|_| Error::invalid("num_uses cannot be negative"))?,
    };
    if exceeds(num_uses, role.secret_id_num_uses) {
        return Err(Error::invalid("num_uses cannot be higher than the role's secret_id_num_uses"));
    }
    let ttl = req.ttl.map_or(role.secret_id_ttl, |Seconds(ttl)| ttl);
    if exceeds(ttl, role.secret_id_ttl) {
        return Err(Error::invalid("ttl cannot be longer than the role's secret_id_ttl"));
    }
    let cidr_list = cidr::validated(req.cidr_list.unwrap_or_default().0, "CIDR blocks")?;
    cidr::check_subset(role.cidrs(), &cidr_list)?;
    let token_bound_cidrs = cidr::validated(req.token_bound_cidrs.unwrap_or_default().0, "token CIDR blocks")?;
    cidr::check_subset(&role.token.token_bound_cidrs, &token_bound_cidrs)?;
    let now = cx.now();
    let effective_ttl = Seconds(ttl).duration().min(cx.mount().ttl.max);
    Ok(SecretId {
        accessor: random::uuid(),
        created: now,
        updated: now,
        expires: (ttl > 0).then(|| now.after(effective_ttl)),
        ttl,
        num_uses,
        cidr_list,
        token_bound_cidrs,
        metadata: metadata::parse(req.metadata.as_deref().unwrap_or_default())?,
    })
}

/// Whether a limit exceeds that of the role; zero means no limit.
fn exceeds(requested: u64, role: u64) -> bool {
    role > 0 && (requested == 0 || requested > role)
}

/// LIST `role/{role_name}/secret-id`.
pub(super) async fn list(_: &AppRole, cx: &mut Cx, req: ListOfRole) -> Result<Keys> {
    let name = role::role_name(&req.role_name)?;
    let role =
        role::find(cx, &name).await?.ok_or_else(|| Error::invalid(role::not_found_error(&name).public().to_owned()))?;
    let page = List::page(req.after, req.limit);
    ACCESSORS.list(cx, &format!("{}/", role.store), &page).await.map(Keys::of)
}

/// POST `role/{role_name}/secret-id/lookup`: 204 when the secret id does not exist or has expired.
pub(super) async fn lookup(method: &AppRole, cx: &mut Cx, req: SecretIdParams) -> Result<Outcome> {
    match find(method, cx, req).await? {
        Some((_, _, found)) if found.is_live(cx.now()) => Data(response(found)).into_outcome(),
        _ => Ok(Outcome::Empty(None)),
    }
}

/// POST and DELETE `role/{role_name}/secret-id/destroy`.
pub(super) async fn destroy(method: &AppRole, cx: &mut Cx, req: SecretIdParams) -> Result<()> {
    if let Some((role, hash, found)) = find(method, cx, req).await? {
        secret_id::remove(cx, &role.store, &hash, &found.accessor, found.expires);
    }
    Ok(())
}

async fn find(method: &AppRole, cx: &mut Cx, req: SecretIdParams) -> Result<Option<(Role, String, SecretId)>> {
    let secret_id =
        req.secret_id.filter(|id| !id.expose().is_empty()).ok_or_else(|| Error::invalid("missing secret_id"))?;
    let role = role::require(cx, &req.role_name).await?;
    let hash = method.id_hasher.secret_id(&role.store, secret_id.expose());
    let found = secret_id::get(cx, &role.store, &hash).await?;
    Ok(found.map(|found| (role, hash, found)))
}

/// POST `role/{role_name}/secret-id-accessor/lookup`.
///
/// An accessor of another role gets the response of an unknown one (CVE-2023-24999): lookups are within the role.
pub(super) async fn lookup_accessor(_: &AppRole, cx: &mut Cx, req: AccessorParams) -> Result<Outcome> {
    let (role, accessor) = role_and_accessor(cx, req).await?;
    let found = match secret_id::of_accessor(cx, &role.store, &accessor).await? {
        None => None,
        Some(target) => secret_id::get(cx, &role.store, &target.hash).await?,
    };
    if let Some(found) = found.filter(|found| found.is_live(cx.now())) {
        return Data(response(found)).into_outcome();
    }
    let error = format!("failed to find accessor entry for secret_id_accessor: {}", Quoted(&accessor));
    WithStatus(Status::NOT_FOUND, Data(AccessorError { error })).into_outcome()
}

/// OpenBao's `data` for an unknown accessor.
#[derive(Serialize)]
struct AccessorError {
    error: String,
}

/// POST and DELETE `role/{role_name}/secret-id-accessor/destroy`. Here too, lookups are within the role.
pub(super) async fn destroy_accessor(_: &AppRole, cx: &mut Cx, req: AccessorParams) -> Result<()> {
    let (role, accessor) = role_and_accessor(cx, req).await?;
    match secret_id::of_accessor(cx, &role.store, &accessor).await? {
        None => Err(Error::new(Status::FORBIDDEN, "invalid secret id accessor")),
        Some(target) => {
            secret_id::remove(cx, &role.store, &target.hash, &accessor, target.expires);
            Ok(())
        }
    }
}

async fn role_and_accessor(cx: &mut Cx, req: AccessorParams) -> Result<(Role, String)> {
    let accessor = req.secret_id_accessor.map(String::from).filter(|a| !a.is_empty());
    let accessor = accessor.ok_or_else(|| Error::invalid("missing secret_id_accessor"))?;
    Ok((role::require(cx, &req.role_name).await?, accessor))
}

fn response(found: SecretId) -> SecretIdResponse {
    SecretIdResponse {
        cidr_list: found.cidr_list,
        creation_time: found.created.rfc3339(),
        expiration_time: found.expires.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |expires| expires.rfc3339()),
        last_updated_time: found.updated.rfc3339(),
        metadata: found.metadata,
        secret_id_accessor: found.accessor,
        secret_id_num_uses: found.num_uses,
        secret_id_ttl: found.ttl,
        token_bound_cidrs: found.token_bound_cidrs,
    }
}
