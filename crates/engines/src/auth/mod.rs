//! Auth methods: who makes a request, and what that is worth.

pub mod approle;
pub mod userpass;
