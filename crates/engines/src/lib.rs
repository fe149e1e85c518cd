//! The engines of Keepfast: secrets engines and auth methods.

pub mod auth;
