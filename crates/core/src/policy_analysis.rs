//! Tools for the authors of policies, without a server: [`lint`] and [`Simulation`].

pub use crate::policy::engine_tables::{EngineTables, KnownMount};
pub use crate::policy::lint::{LintFinding, LintReport, lint};
pub use crate::policy::simulate::{PastRequest, PolicySource, Simulated, Simulation};
