//! The number of shares and the threshold.

use keepfast_framework::{Error, Result};
use serde::{Deserialize, Serialize};

/// The number of shares and the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealShape {
    /// The number of shares.
    pub(crate) shares: u8,
    /// The threshold.
    pub(crate) threshold: u8,
}

impl SealShape {
    /// Checks the values of a request.
    pub(crate) fn new(shares: i64, threshold: i64) -> Result<Self> {
        Self::check(shares, threshold).map_err(|why| Error::invalid(format!("invalid seal configuration: {why}")))
    }

    /// Checks the values of a request; the error is the reason, in OpenBao's wording.
    ///
    /// Fails when no such shares are possible.
    pub(crate) fn check(shares: i64, threshold: i64) -> Result<Self, &'static str> {
        if shares < 1 {
            return Err("shares must be at least one");
        }
        if threshold < 1 {
            return Err("threshold must be at least one");
        }
        if shares > 1 && threshold == 1 {
            return Err("threshold must be greater than one for multiple shares");
        }
        if shares > 255 {
            return Err("shares must be less than 256");
        }
        if threshold > 255 {
            return Err("threshold must be less than 256");
        }
        if threshold > shares {
            return Err("threshold cannot be larger than shares");
        }
        Ok(SealShape { shares: shares as u8, threshold: threshold as u8 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_refused_as_openbao_refuses_them() {
        let text = |s, t| SealShape::new(s, t).err().map(|e| e.public().to_owned());
        assert_eq!(text(5, 3), None);
        assert_eq!(text(1, 0).as_deref(), Some("invalid seal configuration: threshold must be at least one"));
        assert_eq!(text(1, 2).as_deref(), Some("invalid seal configuration: threshold cannot be larger than shares"));
        assert_eq!(
            text(2, 1).as_deref(),
            Some("invalid seal configuration: threshold must be greater than one for multiple shares")
        );
    }

    #[test]
    fn shares_and_threshold_are_from_1_to_255() {
        let allowed = |shares, threshold| SealShape::check(shares, threshold).is_ok();
        for (shares, threshold) in [(1, 1), (2, 2), (255, 2), (255, 255), (5, 3)] {
            assert!(allowed(shares, threshold), "{shares} {threshold}");
        }
        for (shares, threshold) in [(0, 0), (0, 1), (-1, 1), (1, 0), (2, 1), (256, 2), (256, 256), (2, 3), (255, 256)] {
            assert!(!allowed(shares, threshold), "{shares} {threshold}");
        }
        assert_eq!(SealShape::check(256, 2), Err("shares must be less than 256"));
        assert_eq!(SealShape::check(255, 256), Err("threshold must be less than 256"));
        assert_eq!(SealShape::check(0, 0), Err("shares must be at least one"));
    }
}
