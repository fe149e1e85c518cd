//! Permits: an engine runs only with one, so that a reader finds every place that can run an engine.
//!
//! Each is created in only one file; `cargo xtask tidy` checks the list ("each permit is made in one file"):
//!
//! | permit | created by | for |
//! |---|---|---|
//! | [`ExistencePermit`] | `request/authorize.rs` | the existence check that authorizes an update |
//! | [`RequestPermit`] | `request/authorize.rs` | an authorized request, and the renewals that it requests |
//! | [`TickPermit`] | `background.rs` | the periodic work of an engine |
//! | [`RevocationPermit`] | `lease/revoke.rs` | the revocation of a lease |
//! | [`UsagePermit`] | `metrics/usage.rs` | the usage counts of an engine, for the metrics |

/// Lets an engine check whether an object exists.
pub(crate) struct ExistencePermit(());

/// Lets an engine run for an authorized request.
#[derive(Clone)]
pub(crate) struct RequestPermit(());

/// Lets an engine tick.
pub(crate) struct TickPermit(());

/// Lets an engine revoke a lease.
pub(crate) struct RevocationPermit(());

/// Lets an engine count its stored data.
pub(crate) struct UsagePermit(());

impl ExistencePermit {
    pub(crate) fn new() -> Self {
        ExistencePermit(())
    }
}

impl RequestPermit {
    pub(crate) fn new() -> Self {
        RequestPermit(())
    }
}

impl TickPermit {
    pub(crate) fn new() -> Self {
        TickPermit(())
    }
}

impl RevocationPermit {
    pub(crate) fn new() -> Self {
        RevocationPermit(())
    }
}

impl UsagePermit {
    pub(crate) fn new() -> Self {
        UsagePermit(())
    }
}
