//! The settings of one secret, and what they mean together with those of the mount.

use std::collections::BTreeMap;
use std::time::Duration;

use keepfast_framework::Timestamp;
use serde::{Deserialize, Serialize};

use super::config::Config;

/// How many versions are kept where neither mount nor secret says.
const VERSIONS_BY_DEFAULT: u64 = 10;

/// What an operator has set for one secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    /// How many versions are kept; 0 leaves it to the mount.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_versions: u64,
    /// Whether each write must name the version that it replaces.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cas_required: bool,
    /// Whether each change of settings must name their revision.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub metadata_cas_required: bool,
    /// How long versions live in seconds; 0 leaves it to the mount.
    #[serde(skip_serializing_if = "is_zero")]
    pub delete_version_after: u64,
    /// The operator's own pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<BTreeMap<String, String>>,
}

/// What records leave out.
pub(super) fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Settings {
    /// Whether nothing was set.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// How many versions are kept: the greater number of mount and secret, as the peer has it.
    pub(super) fn versions_to_keep(&self, config: &Config) -> u64 {
        match self.max_versions.max(config.max_versions) {
            0 => VERSIONS_BY_DEFAULT,
            n => n,
        }
    }

    /// When a version made now will be deleted: the shorter life of mount and secret, and never where the mount says so.
    pub(super) fn deletion(&self, config: &Config, now: Timestamp) -> Option<Timestamp> {
        let own = Some(self.delete_version_after).filter(|seconds| *seconds > 0);
        let life = match config.delete_version_after {
            never if never < 0 => return None,
            0 => own?,
            mount => own.map_or(mount.unsigned_abs(), |own| own.min(mount.unsigned_abs())),
        };
        Some(now.after(Duration::from_secs(life)))
    }
}

/// Seconds as Go prints a duration: `1h30m0s`, `0s`, `-1s`.
pub(super) fn shown_duration(seconds: i64) -> String {
    let sign = if seconds < 0 { "-" } else { "" };
    let all = seconds.unsigned_abs();
    let (h, m, s) = (all / 3600, all / 60 % 60, all % 60);
    if h > 0 {
        format!("{sign}{h}h{m}m{s}s")
    } else if m > 0 {
        format!("{sign}{m}m{s}s")
    } else {
        format!("{sign}{s}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_live_for_the_shorter_span_of_mount_and_secret() {
        let now = Timestamp::from_unix(1000);
        for (mount, own, expected) in [
            (0, 0, None),
            (60, 0, Some(60)),
            (0, 60, Some(60)),
            (60, 30, Some(30)),
            (30, 60, Some(30)),
            (-1, 60, None),
            (-1, 0, None),
        ] {
            let config = Config { delete_version_after: mount, ..Config::default() };
            let settings = Settings { delete_version_after: own, ..Settings::default() };
            assert_eq!(settings.deletion(&config, now).map(|t| t.unix() - 1000), expected, "{mount} {own}");
        }
    }

    #[test]
    fn the_greater_number_of_versions_is_kept() {
        for (mount, own, expected) in [(0, 0, 10), (5, 2, 5), (2, 9, 9), (0, 1, 1), (1, 0, 1)] {
            let config = Config { max_versions: mount, ..Config::default() };
            let settings = Settings { max_versions: own, ..Settings::default() };
            assert_eq!(settings.versions_to_keep(&config), expected, "{mount} {own}");
        }
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (seconds, text) in
            [(0, "0s"), (5400, "1h30m0s"), (-1, "-1s"), (61, "1m1s"), (90_060, "25h1m0s"), (59, "59s")]
        {
            assert_eq!(shown_duration(seconds), text);
        }
    }
}
