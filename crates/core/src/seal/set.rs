//! The seals of the configuration, whose keys are outside of the server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use keepfast_framework::seal::Seal;

/// The most seals of a configuration.
pub const MAX_SEALS: usize = 16;
/// The longest name of a seal, in bytes.
pub(super) const MAX_NAME: usize = 128;

/// The seals of the configuration, by priority and then in the order of the file. Empty: the root key is under shares of
/// an unseal key only.
#[derive(Default)]
pub struct SealSet(Vec<ConfiguredSeal>);

/// One seal of the configuration.
pub struct ConfiguredSeal {
    /// The name, which the seal record has as well.
    pub name: String,
    /// The order in which seals are tried, the lowest first. Counts when the seal is enrolled.
    pub priority: u16,
    /// `disabled = "true"`: unwraps, and wraps nothing. A seal from which a migration is pending.
    pub disabled: bool,
    /// `enroll = "manual"`: the seal gets no slot by itself.
    pub enroll_manually: bool,
    /// Deadlines and intervals.
    pub timing: SealTiming,
    /// The seal.
    pub seal: Arc<dyn Seal>,
}

/// Deadlines and intervals of a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealTiming {
    /// The deadline of one call.
    pub timeout: Duration,
    /// The interval of health checks.
    pub health_check_interval: Duration,
    /// The interval after a failed check.
    pub health_check_interval_unhealthy: Duration,
    /// The deadline of one check.
    pub health_check_timeout: Duration,
    /// Whether the seal is checked in the background.
    pub health_check_enabled: bool,
}

impl Default for SealTiming {
    fn default() -> Self {
        SealTiming {
            timeout: Duration::from_secs(5),
            health_check_interval: Duration::from_secs(600),
            health_check_interval_unhealthy: Duration::from_secs(60),
            health_check_timeout: Duration::from_secs(60),
            health_check_enabled: true,
        }
    }
}

/// Why seals cannot be configured together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealSetError {
    /// There are more than [`MAX_SEALS`].
    #[error("more than {MAX_SEALS} seals")]
    TooMany,
    /// A name is empty, too long, or has other characters than letters, digits, `-`, `_` and `.`.
    #[error("the name of a seal has 1 to {MAX_NAME} letters, digits, '-', '_' and '.'")]
    Name,
    /// Two seals have one name.
    #[error("two seals are named {0:?}; set their \"name\"")]
    Duplicate(String),
}

impl SealSet {
    /// The seals in this order, sorted by priority.
    ///
    /// # Errors
    /// See [`SealSetError`].
    pub fn new(mut seals: Vec<ConfiguredSeal>) -> Result<Self, SealSetError> {
        if seals.len() > MAX_SEALS {
            return Err(SealSetError::TooMany);
        }
        let mut names = BTreeSet::new();
        for seal in &seals {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if !(1..=MAX_NAME).contains(&seal.name.len()) || !seal.name.bytes().all(is_plain) {
                return Err(SealSetError::Name);
            }
            if !names.insert(seal.name.clone()) {
                return Err(SealSetError::Duplicate(seal.name.clone()));
            }
        }
        seals.sort_by_key(|seal| seal.priority);
        Ok(SealSet(seals))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for SealSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|seal| &seal.name)).finish()
    }
}
