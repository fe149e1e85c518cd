//! The stored role, and the index by role id.

use keepfast_crypto::random;
use keepfast_framework::reply::Alias;
use keepfast_framework::rows::is_name;
use keepfast_framework::token_params::TokenParams;
use keepfast_framework::{Cx, Error, Page, Records, Result};
use serde::{Deserialize, Serialize};

use super::AppRole;

/// Roles by name.
pub(super) const ROLES: Records<Role> = Records::at("role/");
/// Names of roles by keyed hash of the role id.
pub(super) const ROLE_IDS: Records<RoleOfId> = Records::at("role-id/");
/// Names of roles by keyed hash of the folded role id, of role ids that are not folded. Such a record may outlive its role.
const FOLDED_ROLE_IDS: Records<RoleOfId> = Records::at("role-id-folded/");
/// Whether [`FOLDED_ROLE_IDS`] has the roles of earlier versions.
const INDEXED: Records<bool> = Records::at("role-ids-folded");
/// The number of roles per read of all roles.
const PAGE: usize = 500;

/// A role. TTLs and periods are in seconds; zero means "not set".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Role {
    /// Its id in logins.
    pub(super) role_id: String,
    /// The random name of the storage folder of its secret ids. A deleted role leaves its folder to the tidy.
    pub(super) store: String,
    /// Whether a login needs a secret id.
    pub(super) bind_secret_id: bool,
    /// Whether secret ids stay in this cluster.
    #[serde(default)]
    pub(super) local_secret_ids: bool,
    /// The networks from which logins are allowed; an empty list was written, `None` never was.
    #[serde(default)]
    pub(super) secret_id_bound_cidrs: Option<Vec<String>>,
    /// The maximum uses of a secret id; zero means no limit.
    #[serde(default)]
    pub(super) secret_id_num_uses: u64,
    /// The maximum TTL of a secret id; zero means no limit.
    #[serde(default)]
    pub(super) secret_id_ttl: u64,
    /// The parameters of its tokens.
    #[serde(default)]
    pub(super) token: TokenParams,
    /// Whether the policies were written under their deprecated name, so that a read returns that too.
    #[serde(default)]
    pub(super) shows_policies: bool,
    /// Whether the period was written under its deprecated name, so that a read returns that too.
    #[serde(default)]
    pub(super) shows_period: bool,
}

/// The entry of the index by role id.
#[derive(Serialize, Deserialize)]
pub(super) struct RoleOfId {
    /// The role's name.
    pub(super) name: String,
}

impl Role {
    /// A role with a random role id that requires secret ids.
    pub(super) fn new() -> Self {
        Role {
            role_id: random::uuid(),
            store: random::base62(20),
            bind_secret_id: true,
            local_secret_ids: false,
            secret_id_bound_cidrs: None,
            secret_id_num_uses: 0,
            secret_id_ttl: 0,
            token: TokenParams::default(),
            shows_policies: false,
            shows_period: false,
        }
    }

    /// The networks from which logins are allowed.
    pub(super) fn cidrs(&self) -> &[String] {
        self.secret_id_bound_cidrs.as_deref().unwrap_or_default()
    }

    fn is_constrained(&self) -> bool {
        self.bind_secret_id || !self.cidrs().is_empty() || !self.token.token_bound_cidrs.is_empty()
    }
}

/// The canonical name of a role: lower case. Names are letters, digits and `_`, and between them also `-` and `.`.
///
/// # Errors
/// 404 for any other name, as no path of the method contains one.
pub(super) fn role_name(given: &str) -> Result<String> {
    if is_name(given) { Ok(given.to_ascii_lowercase()) } else { Err(Error::unsupported_path()) }
}

/// The role with the name in a path.
///
/// # Errors
/// As [`role_name`], and when storage fails.
pub(super) async fn find(cx: &mut Cx, given: &str) -> Result<Option<Role>> {
    let name = role_name(given)?;
    ROLES.get(cx, &name).await
}

/// The role with the name in a path, which must exist.
///
/// # Errors
/// 404 when the role does not exist.
pub(super) async fn require(cx: &mut Cx, given: &str) -> Result<Role> {
    let name = role_name(given)?;
    ROLES.get(cx, &name).await?.ok_or_else(|| not_found_error(&name))
}

/// 404 with OpenBao's text.
pub(super) fn not_found_error(name: &str) -> Error {
    Error::new(
        keepfast_framework::Status::NOT_FOUND,
        format!("role {} does not exist", keepfast_framework::fields::Quoted(name)),
    )
}

/// Writes a role and updates the index by role id; `before` is its previous role id.
///
/// # Errors
/// 400 when the role has no constraint, or another role has the role id in any letter case.
pub(super) async fn save(method: &AppRole, cx: &mut Cx, name: &str, role: &Role, before: Option<&str>) -> Result<()> {
    if !role.is_constrained() {
        return Err(Error::invalid("at least one constraint should be enabled on the role"));
    }
    if before != Some(role.role_id.as_str()) {
        let key = method.id_hasher.role_id(&role.role_id);
        if ROLE_IDS.get(cx, &key).await?.is_some() || is_taken_folded(method, cx, name, &role.role_id).await? {
            return Err(Error::invalid("role_id already in use"));
        }
        if let Some(before) = before {
            ROLE_IDS.delete(cx, &method.id_hasher.role_id(before));
            delete_folded(method, cx, name, before).await?;
        }
        ROLE_IDS.put(cx, &key, &RoleOfId { name: name.to_owned() })?;
        put_folded(method, cx, name, &role.role_id)?;
    }
    ROLES.put(cx, name, role)
}

/// Whether another role has another spelling of this role id: its logins would have the entity of that role.
async fn is_taken_folded(method: &AppRole, cx: &mut Cx, name: &str, role_id: &str) -> Result<bool> {
    index_earlier_roles(method, cx).await?;
    let folded = Alias::fold(role_id);
    let key = method.id_hasher.role_id(&folded);
    let holders = [ROLE_IDS.get(cx, &key).await?, FOLDED_ROLE_IDS.get(cx, &key).await?];
    for holder in holders.into_iter().flatten().filter(|holder| holder.name != name) {
        if ROLES.get(cx, &holder.name).await?.is_some_and(|other| Alias::fold(&other.role_id) == folded) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn put_folded(method: &AppRole, cx: &mut Cx, name: &str, role_id: &str) -> Result<()> {
    let folded = Alias::fold(role_id);
    if folded == role_id {
        return Ok(());
    }
    FOLDED_ROLE_IDS.put(cx, &method.id_hasher.role_id(&folded), &RoleOfId { name: name.to_owned() })
}

async fn delete_folded(method: &AppRole, cx: &mut Cx, name: &str, role_id: &str) -> Result<()> {
    let key = method.id_hasher.role_id(&Alias::fold(role_id));
    if FOLDED_ROLE_IDS.get(cx, &key).await?.is_some_and(|holder| holder.name == name) {
        FOLDED_ROLE_IDS.delete(cx, &key);
    }
    Ok(())
}

/// Adds the roles of earlier versions to [`FOLDED_ROLE_IDS`], once for a mount.
async fn index_earlier_roles(method: &AppRole, cx: &mut Cx) -> Result<()> {
    if INDEXED.get(cx, "").await?.is_some() {
        return Ok(());
    }
    let mut page = Page::first(PAGE);
    loop {
        let names = ROLES.list(cx, "", &page).await?;
        for name in &names {
            if let Some(role) = ROLES.get(cx, name).await? {
                put_folded(method, cx, name, &role.role_id)?;
            }
        }
        if names.len() < PAGE {
            return INDEXED.put(cx, "", &true);
        }
        page.after = names.into_iter().next_back();
    }
}
