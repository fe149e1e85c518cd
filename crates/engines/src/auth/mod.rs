//! Auth methods: they authenticate logins and set the terms of the tokens.

pub mod approle;
pub mod userpass;
