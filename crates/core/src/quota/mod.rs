//! Quotas: what they apply to, and the number of leases. Rate quotas are checked before a request is read
//! ([`crate::admission::quota`]).
//!
//! | file | contents |
//! |---|---|
//! | `target` | what a quota applies to, and the most specific quota of a path |
//! | `lease_count` | the lease count quotas, and the count of each new lease |
//! | `counter` | the stored counter of a lease count quota |
//! | `recount` | counts the existing leases after a change of the quotas |
//! | `follow` | changes quotas with the mounts and namespaces that they apply to |

pub(crate) mod counter;
pub(crate) mod follow;
pub(crate) mod lease_count;
pub(crate) mod recount;
pub(crate) mod target;
#[cfg(test)]
mod tests;
