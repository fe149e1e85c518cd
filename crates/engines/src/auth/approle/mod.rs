//! AppRole: machines log in with a role id and a secret id.
//!
//! A role sets the terms of the tokens and the constraints of logins. Its role id identifies the role; a secret id,
//! issued for it and limited in uses, TTL and networks, authenticates the client. Paths and responses are those of
//! Vault's AppRole (<https://developer.hashicorp.com/vault/api-docs/auth/approle>).
//!
//! The stored records, relative to the mount's view:
//!
//! | record | content |
//! |---|---|
//! | `hmac-key` | the key that turns ids into names of records |
//! | `role/<name>` | the role |
//! | `role-id/<keyed hash>` | the name of the role with this role id |
//! | `secret-id/<store>/<keyed hash>` | limits and metadata of a secret id; the id itself is not stored |
//! | `accessor/<store>/<accessor>` | the secret id of an accessor |
//! | `expiry/<moment>.<keyed hash>` | the secret ids in order of expiry |
//! | `doomed/<store>` | the store of a deleted role, whose secret ids a tick removes |
//!
//! `<store>` is a random name that a role gets at its creation. So an accessor can only be looked up within its role,
//! and the secret ids of a deleted role are unreachable at once, even for a new role of the same name.

mod cidr;
mod expiry;
mod id_hash;
mod login;
mod login_queue;
mod metadata;
mod role;
mod roles;
mod secret_id;
mod secret_ids;
mod settings;
#[cfg(test)]
mod tests;

use keepfast_framework::routes::Help;
use keepfast_framework::token_params::TokenTerms;
use keepfast_framework::{Cx, Engine, Kind, Result, Routes};

use id_hash::IdHasher;
use login::LoginRoles;
use login_queue::Queue;
use settings::{clear, read, write};

/// The auth method at one mount.
pub struct AppRole {
    id_hasher: IdHasher,
    /// The cache of roles.
    login_roles: LoginRoles,
    queue: Queue,
}

impl Engine for AppRole {
    const TYPE: &'static str = "approle";
    const KIND: Kind = Kind::Auth;
    const IN_BACKGROUND: bool = true;
    const LOCKS_OUT: bool = true;
    const WRAPPED: &'static [&'static str] = &[id_hash::KEY_NAME];

    fn routes(r: &mut Routes<Self>) {
        r.path("login", LOGIN).update(login::login).login();
        r.path("tidy/secret-id", TIDY).update(expiry::tidy);
        role_routes(r);
        setting_routes(r);
        secret_id_routes(r);
    }

    async fn open(cx: &mut Cx) -> Result<Self> {
        Ok(AppRole {
            id_hasher: IdHasher::open(cx).await?,
            login_roles: login::no_login_roles(),
            queue: Queue::default(),
        })
    }

    async fn tick(&self, cx: &mut Cx) -> Result<()> {
        expiry::collect(cx).await
    }

    fn invalidate(&self, key: &str, _exists: bool) {
        if key.starts_with("role") {
            self.login_roles.clear();
        }
    }

    async fn renew_login(&self, cx: &mut Cx, internal: &serde_json::Value) -> Result<TokenTerms> {
        login::renew(cx, internal).await
    }
}

fn role_routes(r: &mut Routes<AppRole>) {
    r.path("role/", ROLES).list(roles::list);
    r.path("role/{role_name}", ROLE)
        .names_only()
        .exists(roles::exists)
        .read(roles::read)
        .update(roles::write)
        .delete(roles::delete);
    r.path("role/{role_name}/role-id", ROLE_ID).names_only().read(roles::read_role_id).update(roles::write_role_id);
}

fn setting_routes(r: &mut Routes<AppRole>) {
    use settings as s;
    const fn one(synopsis: &'static str) -> Help {
        Help { synopsis, description: "Reads, sets or resets one property of a role." }
    }
    r.path("role/{role_name}/policies", one("The policies of the tokens."))
        .names_only()
        .read(read::<s::Policies>)
        .update(write::<s::Policies>)
        .delete(clear::<s::Policies>);
    r.path(
        "role/{role_name}/local-secret-ids",
        one("Whether secret ids stay in this cluster; set at the creation of the role."),
    )
    .names_only()
    .read(s::read_local_secret_ids);
    r.path("role/{role_name}/bound-cidr-list", one("The deprecated name of secret-id-bound-cidrs."))
        .names_only()
        .read(read::<s::BoundCidrList>)
        .update(write::<s::BoundCidrList>)
        .delete(clear::<s::BoundCidrList>);
    r.path("role/{role_name}/secret-id-bound-cidrs", one("The networks from which secret ids can log in."))
        .names_only()
        .read(read::<s::SecretIdBoundCidrs>)
        .update(write::<s::SecretIdBoundCidrs>)
        .delete(clear::<s::SecretIdBoundCidrs>);
    r.path("role/{role_name}/token-bound-cidrs", one("The networks from which the tokens can be used."))
        .names_only()
        .read(read::<s::TokenBoundCidrs>)
        .update(write::<s::TokenBoundCidrs>)
        .delete(clear::<s::TokenBoundCidrs>);
    r.path("role/{role_name}/bind-secret-id", one("Whether a login needs a secret id."))
        .names_only()
        .read(read::<s::BindSecretId>)
        .update(write::<s::BindSecretId>)
        .delete(clear::<s::BindSecretId>);
    r.path("role/{role_name}/secret-id-num-uses", one("How often a secret id can log in."))
        .names_only()
        .read(read::<s::SecretIdNumUses>)
        .update(write::<s::SecretIdNumUses>)
        .delete(clear::<s::SecretIdNumUses>);
    r.path("role/{role_name}/secret-id-ttl", one("The TTL of a secret id."))
        .names_only()
        .read(read::<s::SecretIdTtl>)
        .update(write::<s::SecretIdTtl>)
        .delete(clear::<s::SecretIdTtl>);
    r.path("role/{role_name}/period", one("The period of the tokens."))
        .names_only()
        .read(read::<s::Period>)
        .update(write::<s::Period>)
        .delete(clear::<s::Period>);
    r.path("role/{role_name}/token-num-uses", one("How often a token can be used."))
        .names_only()
        .read(read::<s::TokenNumUses>)
        .update(write::<s::TokenNumUses>)
        .delete(clear::<s::TokenNumUses>);
    r.path("role/{role_name}/token-ttl", one("The TTL of the tokens."))
        .names_only()
        .read(read::<s::TokenTtl>)
        .update(write::<s::TokenTtl>)
        .delete(clear::<s::TokenTtl>);
    r.path("role/{role_name}/token-max-ttl", one("The maximum TTL of the tokens."))
        .names_only()
        .read(read::<s::TokenMaxTtl>)
        .update(write::<s::TokenMaxTtl>)
        .delete(clear::<s::TokenMaxTtl>);
}

fn secret_id_routes(r: &mut Routes<AppRole>) {
    r.path("role/{role_name}/secret-id", SECRET_ID).names_only().update(secret_ids::create);
    r.path("role/{role_name}/secret-id/", SECRET_IDS).names_only().list(secret_ids::list);
    r.path("role/{role_name}/custom-secret-id", CUSTOM_SECRET_ID).names_only().update(secret_ids::create_custom);
    r.path("role/{role_name}/secret-id/lookup", LOOKUP).names_only().final_slash().update(secret_ids::lookup);
    r.path("role/{role_name}/secret-id/destroy", DESTROY)
        .names_only()
        .final_slash()
        .update(secret_ids::destroy)
        .delete(secret_ids::destroy);
    r.path("role/{role_name}/secret-id-accessor/lookup", LOOKUP_ACCESSOR)
        .names_only()
        .final_slash()
        .update(secret_ids::lookup_accessor);
    r.path("role/{role_name}/secret-id-accessor/destroy", DESTROY_ACCESSOR)
        .names_only()
        .final_slash()
        .update(secret_ids::destroy_accessor)
        .delete(secret_ids::destroy_accessor);
}

const LOGIN: Help = Help {
    synopsis: "Logs in with a role id and a secret id.",
    description: "Every refusal has the same text, whatever its cause.",
};
const TIDY: Help = Help {
    synopsis: "Removes expired secret ids now.",
    description: "Expired secret ids are refused at once. They are removed within minutes even without this request.",
};
const ROLES: Help = Help { synopsis: "Lists the names of the roles.", description: "" };
const ROLE: Help = Help {
    synopsis: "Reads, writes or deletes a role: the terms of its tokens and the constraints of its logins.",
    description: "A role needs at least one constraint: a secret id, networks of secret ids or networks of tokens.",
};
const ROLE_ID: Help = Help {
    synopsis: "Reads or sets the role id, which identifies the role in logins.",
    description: "It is unique among the roles.",
};
const SECRET_ID: Help = Help {
    synopsis: "Issues a secret id.",
    description: "Its uses, TTL and networks are within those of the role. The secret id is returned only once.",
};
const SECRET_IDS: Help = Help { synopsis: "Lists the accessors of a role's secret ids.", description: "" };
const CUSTOM_SECRET_ID: Help = Help { synopsis: "Registers a secret id that the caller chooses.", description: "" };
const LOOKUP: Help = Help { synopsis: "Looks up a secret id.", description: "" };
const DESTROY: Help = Help { synopsis: "Destroys a secret id.", description: "" };
const LOOKUP_ACCESSOR: Help = Help { synopsis: "Looks up the secret id of an accessor.", description: "" };
const DESTROY_ACCESSOR: Help = Help { synopsis: "Destroys the secret id of an accessor.", description: "" };
