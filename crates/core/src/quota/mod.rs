//! Quotas: what they apply to. Rate quotas are checked before a request is read ([`crate::admission::quota`]), lease count
//! quotas when a lease is created ([`crate::lease::quotas`]).
//!
//! | file | contents |
//! |---|---|
//! | `target` | what a quota applies to, and the most specific quota of a path |
//! | `follow` | changes quotas with the mounts and namespaces that they apply to |

pub(crate) mod follow;
pub(crate) mod target;
#[cfg(test)]
mod tests;
