//! Secret ids: make, list, look up, destroy; by themselves and by accessor.

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

/// A secret id to be made.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Create {
    /// Name of the role.
    role_name: Text,
    /// What the tokens carry: an object of texts as JSON text, or `name=value` pairs.
    metadata: Option<Text>,
    /// Comma-separated networks from which a login may come; within the role's.
    cidr_list: Option<CommaList>,
    /// Comma-separated networks from which the tokens may be used; within the role's.
    token_bound_cidrs: Option<CommaList>,
    /// How often it can log in; at most the role's `secret_id_num_uses`.
    num_uses: Option<Int>,
    /// How long it is good; at most the role's `secret_id_ttl`.
    ttl: Option<Seconds>,
    /// For lists, which stand at the same path.
    #[allow(dead_code, reason = "named so that it is known and checked")]
    after: Option<Text>,
    /// For lists.
    #[allow(dead_code, reason = "named so that it is known and checked")]
    limit: Option<Int>,
}

/// A secret id that the caller has chosen.
#[derive(Deserialize, JsonSchema)]
pub(super) struct CreateCustom {
    /// Name of the role.
    role_name: Text,
    /// The secret id.
    secret_id: Option<SecretText>,
    /// What the tokens carry: an object of texts as JSON text, or `name=value` pairs.
    metadata: Option<Text>,
    /// Comma-separated networks from which a login may come; within the role's.
    cidr_list: Option<CommaList>,
    /// Comma-separated networks from which the tokens may be used; within the role's.
    token_bound_cidrs: Option<CommaList>,
    /// How often it can log in; at most the role's `secret_id_num_uses`.
    num_uses: Option<Int>,
    /// How long it is good; at most the role's `secret_id_ttl`.
    ttl: Option<Seconds>,
}

/// A secret id just made: the only time that it is shown.
#[derive(Serialize)]
pub(super) struct Made {
    secret_id: String,
    secret_id_accessor: String,
    secret_id_num_uses: u64,
    secret_id_ttl: u64,
}

/// A secret id of a role.
#[derive(Deserialize, JsonSchema)]
pub(super) struct OfSecretId {
    /// Name of the role.
    role_name: Text,
    /// The secret id.
    secret_id: Option<SecretText>,
}

/// An accessor of a role's secret id.
#[derive(Deserialize, JsonSchema)]
pub(super) struct OfAccessor {
    /// Name of the role.
    role_name: Text,
    /// The accessor of the secret id.
    secret_id_accessor: Option<Text>,
}

/// A page of a role's accessors.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ListOfRole {
    /// Name of the role.
    role_name: Text,
    /// Only accessors that come after this one.
    after: Option<Text>,
    /// At most so many.
    limit: Option<Int>,
}

/// What is shown of a secret id.
#[derive(Serialize)]
struct Shown {
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
pub(super) async fn create(method: &AppRole, cx: &mut Cx, req: Create) -> Result<Data<Made>> {
    register(method, cx, random::uuid(), req).await
}

/// POST `role/{role_name}/custom-secret-id`.
pub(super) async fn create_custom(method: &AppRole, cx: &mut Cx, req: CreateCustom) -> Result<Data<Made>> {
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

async fn register(method: &AppRole, cx: &mut Cx, secret_id: String, req: Create) -> Result<Data<Made>> {
    if secret_id.is_empty() {
        return Err(Error::invalid("missing secret_id"));
    }
    let role = role::require(cx, &req.role_name).await?;
    if !role.bind_secret_id {
        return Err(Error::invalid("bind_secret_id is not set on the role"));
    }
    let draft = draft(cx, &role, req)?;
    let hash = method.keys.secret_id(&role.store, &secret_id);
    if secret_id::get(cx, &role.store, &hash).await?.is_some() {
        return Err(Error::invalid("failed to store secret_id: SecretID is already registered"));
    }
    secret_id::add(cx, &role.store, &hash, &draft)?;
    let life = draft.expires.map_or(0, |expires| expires.since(draft.created).as_secs());
    Ok(Data(Made {
        secret_id,
        secret_id_accessor: draft.accessor,
        secret_id_num_uses: draft.num_uses,
        secret_id_ttl: life,
    }))
}

/// Judges what is asked for by what the role allows.
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
    let cidr_list = cidr::checked(req.cidr_list.unwrap_or_default().0, "CIDR blocks")?;
    cidr::check_subset(role.cidrs(), &cidr_list)?;
    let token_bound_cidrs = cidr::checked(req.token_bound_cidrs.unwrap_or_default().0, "token CIDR blocks")?;
    cidr::check_subset(&role.token.token_bound_cidrs, &token_bound_cidrs)?;
    let now = cx.now();
    let life = Seconds(ttl).duration().min(cx.mount().ttl.max);
    Ok(SecretId {
        accessor: random::uuid(),
        created: now,
        updated: now,
        expires: (ttl > 0).then(|| now.after(life)),
        ttl,
        num_uses,
        cidr_list,
        token_bound_cidrs,
        metadata: metadata::parse(req.metadata.as_deref().unwrap_or_default())?,
    })
}

/// Whether a bound, zero for none, is wider than the role's.
fn exceeds(asked: u64, role: u64) -> bool {
    role > 0 && (asked == 0 || asked > role)
}

/// LIST `role/{role_name}/secret-id`.
pub(super) async fn list(_: &AppRole, cx: &mut Cx, req: ListOfRole) -> Result<Keys> {
    let name = role::role_name(&req.role_name)?;
    let role = role::find(cx, &name).await?.ok_or_else(|| Error::invalid(role::absent(&name).public().to_owned()))?;
    let page = List::page(req.after, req.limit);
    ACCESSORS.list(cx, &format!("{}/", role.store), &page).await.map(Keys::of)
}

/// POST `role/{role_name}/secret-id/lookup`: 204 when there is no such secret id, or no more.
pub(super) async fn lookup(method: &AppRole, cx: &mut Cx, req: OfSecretId) -> Result<Outcome> {
    match find(method, cx, req).await? {
        Some((_, _, found)) if found.is_live(cx.now()) => Data(shown(found)).into_outcome(),
        _ => Ok(Outcome::Empty(None)),
    }
}

/// POST and DELETE `role/{role_name}/secret-id/destroy`.
pub(super) async fn destroy(method: &AppRole, cx: &mut Cx, req: OfSecretId) -> Result<()> {
    if let Some((role, hash, found)) = find(method, cx, req).await? {
        secret_id::remove(cx, &role.store, &hash, &found.accessor, found.expires);
    }
    Ok(())
}

async fn find(method: &AppRole, cx: &mut Cx, req: OfSecretId) -> Result<Option<(Role, String, SecretId)>> {
    let secret_id =
        req.secret_id.filter(|id| !id.expose().is_empty()).ok_or_else(|| Error::invalid("missing secret_id"))?;
    let role = role::require(cx, &req.role_name).await?;
    let hash = method.keys.secret_id(&role.store, secret_id.expose());
    let found = secret_id::get(cx, &role.store, &hash).await?;
    Ok(found.map(|found| (role, hash, found)))
}

/// POST `role/{role_name}/secret-id-accessor/lookup`.
///
/// An accessor of another role is answered as one that is nobody's (CVE-2023-24999): it is looked up within the role.
pub(super) async fn lookup_accessor(_: &AppRole, cx: &mut Cx, req: OfAccessor) -> Result<Outcome> {
    let (role, accessor) = role_and_accessor(cx, req).await?;
    let found = match secret_id::of_accessor(cx, &role.store, &accessor).await? {
        None => None,
        Some(means) => secret_id::get(cx, &role.store, &means.hash).await?,
    };
    if let Some(found) = found.filter(|found| found.is_live(cx.now())) {
        return Data(shown(found)).into_outcome();
    }
    let error = format!("failed to find accessor entry for secret_id_accessor: {}", Quoted(&accessor));
    WithStatus(Status::NOT_FOUND, Data(Fault { error })).into_outcome()
}

/// What the peer says under `data` of an accessor that leads nowhere.
#[derive(Serialize)]
struct Fault {
    error: String,
}

/// POST and DELETE `role/{role_name}/secret-id-accessor/destroy`. As above, whose accessor it is makes no difference.
pub(super) async fn destroy_accessor(_: &AppRole, cx: &mut Cx, req: OfAccessor) -> Result<()> {
    let (role, accessor) = role_and_accessor(cx, req).await?;
    match secret_id::of_accessor(cx, &role.store, &accessor).await? {
        None => Err(Error::new(Status::FORBIDDEN, "invalid secret id accessor")),
        Some(means) => {
            secret_id::remove(cx, &role.store, &means.hash, &accessor, means.expires);
            Ok(())
        }
    }
}

async fn role_and_accessor(cx: &mut Cx, req: OfAccessor) -> Result<(Role, String)> {
    let accessor = req.secret_id_accessor.map(String::from).filter(|a| !a.is_empty());
    let accessor = accessor.ok_or_else(|| Error::invalid("missing secret_id_accessor"))?;
    Ok((role::require(cx, &req.role_name).await?, accessor))
}

fn shown(found: SecretId) -> Shown {
    Shown {
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
