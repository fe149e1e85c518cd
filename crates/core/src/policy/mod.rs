//! Policies: the capabilities of a caller, computed from values alone, without I/O and without a clock.
//!
//! A text is parsed once, when it is written ([`parse()`]). Per caller (or per set of policies, when none has
//! templates) the policies are compiled into an [`Acl`], whose [`Acl::allow`] decides on each request.
//!
//! The rule that decides (Vault's documented order, "Policies" → "Policy syntax" → "Priority matching"):
//!
//! 1. an exact path; for lists also the exact path without its trailing slash;
//! 2. otherwise, of the patterns that match, the one whose first `+` or final `*` comes latest; then the one that does
//!    not end in `*`; then the one with fewer `+` segments; then the longer; then the greater in byte order;
//! 3. rules for the same path are united, over all policies of the caller; `deny` among them wins;
//! 4. a `deny` that is more specific than the deciding rule, without regard to letter case and a list's trailing slash,
//!    still denies. (This goes beyond OpenBao 2.7, which denies only the spelling in the policy.)

pub(crate) mod acl;
pub(crate) mod builtin;
pub(crate) mod control_group;
pub(crate) mod grant;
pub(crate) mod list_filter;
pub(crate) mod parameters;
pub(crate) mod parse;
pub(crate) mod password;
pub(crate) mod store;
pub(crate) mod template;

pub(crate) mod denied_values;
pub(crate) mod engine_tables;
pub(crate) mod explain;
pub(crate) mod lint;
mod naive;
pub(crate) mod nested;
mod pattern;
mod pattern_table;
pub(crate) mod simulate;

#[cfg(test)]
mod tests;

pub(crate) use acl::{Acl, AclRequest, Decision};
pub(crate) use parse::{Policy, parse, parse_stored};
