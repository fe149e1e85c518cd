//! Secrets engines and auth methods. Each one is a folder and an entry in [`all`].

pub mod auth;
#[doc(hidden)]
pub mod fuzzing;
pub mod secrets;

use keepfast_framework::engine::{Registered, Registry};

/// Every engine of the server. Of several variants of one type, the first is the default for a mount without options.
pub fn all() -> Registry {
    Registry::new(vec![
        Registered::of::<auth::approle::AppRole>(),
        Registered::of::<auth::userpass::Userpass>(),
        Registered::of::<secrets::cubbyhole::Cubbyhole>(),
        Registered::of::<secrets::database::DatabaseEngine>(),
        Registered::of::<secrets::kv::V1>(),
        Registered::of::<secrets::kv::V2>(),
        Registered::of::<secrets::transit::Transit>(),
    ])
}

#[cfg(test)]
mod openbao;
#[cfg(test)]
mod tests;
