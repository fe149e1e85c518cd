//! Permits: an engine runs only with one, so that a reader finds every reason for which an engine can run.
//!
//! Each is made in one file alone; `cargo xtask tidy` holds the list ("each permit is made in one file"):
//!
//! | permit | made by | for |
//! |---|---|---|
//! | [`ExistencePermit`] | `request/authorize.rs` | whether a thing exists, while an update is authorized |
//! | [`RequestPermit`] | `request/authorize.rs` | the handler of an authorized request, and the renewals that it asks for |
//! | [`TickPermit`] | `duties.rs` | the periodic work of an engine |
//! | [`RevocationPermit`] | `lease/revoke.rs` | the revocation of a lease |
//! | [`UsagePermit`] | `metrics/usage.rs` | what an engine counts of its own data, for the metrics |

/// Lets an engine tell whether a thing exists.
pub(crate) struct ExistencePermit(());

/// Lets an engine run for an authorized request.
#[derive(Clone)]
pub(crate) struct RequestPermit(());

/// Lets an engine tick.
pub(crate) struct TickPermit(());

/// Lets an engine revoke a lease.
pub(crate) struct RevocationPermit(());

/// Lets an engine count what it stores.
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
