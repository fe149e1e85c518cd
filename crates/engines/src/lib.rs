//! Secrets engines and auth methods: each is one folder and one line in [`all`].

pub mod auth;
#[doc(hidden)]
pub mod fuzzing;
pub mod secrets;

use keepfast_framework::engine::{Registered, Registry};

/// Every engine that the server is built with. Of several of one type the first is what is mounted without options.
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
mod peer;
#[cfg(test)]
mod tests;
