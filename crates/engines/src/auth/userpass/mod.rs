//! Userpass: people log in with a name and a password.
//!
//! Paths and responses are those of Vault's userpass (<https://developer.hashicorp.com/vault/api-docs/auth/userpass>).
//! Passwords are stored only as bcrypt hashes. One function folds names to lower case ([`user`]'s `username`), and
//! every refused login has the same text and costs the same work, whether the user exists or not.
//!
//! The stored records, relative to the mount's view:
//!
//! | record | content |
//! |---|---|
//! | `user/<name>` | the user |
//! | `cost` | the highest cost of a hash in the mount so far: each login does the work of such a hash |

mod login;
#[cfg(test)]
mod tests;
mod user;
mod users;

use std::sync::Arc;

use keepfast_framework::routes::Help;
use keepfast_framework::token_params::TokenTerms;
use keepfast_framework::{Cx, Engine, Error, Kind, Result, Routes};
use tokio::sync::Semaphore;

/// The auth method at one mount.
pub struct Userpass {
    /// Limits concurrent hashing: it is slow on purpose, and unauthenticated logins must not occupy every core.
    cores: Arc<Semaphore>,
}

impl Engine for Userpass {
    const TYPE: &'static str = "userpass";
    const KIND: Kind = Kind::Auth;
    const LOCKS_OUT: bool = true;

    fn routes(r: &mut Routes<Self>) {
        r.path("users/", USERS).list(users::list);
        r.path("users/{username}", USER)
            .names_only()
            .exists(users::exists)
            .read(users::read)
            .update(users::write)
            .delete(users::delete);
        r.path("users/{username}/password", PASSWORD).names_only().update(users::write_password);
        r.path("users/{username}/policies", POLICIES).names_only().update(users::write_policies);
        r.path("login/{username}", LOGIN).names_only().update(login::login).login();
    }

    async fn open(_: &mut Cx) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Userpass { cores: Arc::new(Semaphore::new(cores)) })
    }

    async fn renew_login(&self, cx: &mut Cx, internal: &serde_json::Value) -> Result<TokenTerms> {
        login::renew(cx, internal).await
    }
}

impl Userpass {
    /// Hashes outside the threads that serve requests.
    ///
    /// # Errors
    /// 500 when a shutdown interrupts the hashing.
    async fn hashing<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let core = self.cores.clone().acquire_owned().await.map_err(Error::internal)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(core);
            done
        });
        done.await.map_err(Error::internal)
    }
}

const USERS: Help = Help { synopsis: "Lists the names of the users.", description: "" };
const USER: Help = Help {
    synopsis: "Reads, writes or deletes a user: the password and the terms of its tokens.",
    description: "Names are letters, digits and `_`, and between them also `-` and `.`; they are not case-sensitive.",
};
const PASSWORD: Help = Help { synopsis: "Changes the password of a user.", description: "" };
const POLICIES: Help = Help { synopsis: "Changes the policies of a user's tokens.", description: "" };
const LOGIN: Help = Help {
    synopsis: "Logs in with a password.",
    description: "Every refusal has the same text, whether the name or the password was wrong.",
};
