//! The settings of one secret, and their effect together with those of the mount.

use std::collections::BTreeMap;
use std::time::Duration;

use keepfast_framework::Timestamp;
use serde::{Deserialize, Serialize};

use super::config::Config;

/// How many versions are kept if neither mount nor secret sets a number.
const DEFAULT_MAX_VERSIONS: u64 = 10;

/// The settings of one secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    /// How many versions are kept; 0 means the number of the mount.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_versions: u64,
    /// Whether each write must give the version that it replaces.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cas_required: bool,
    /// Whether each change of the settings must give their revision.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub metadata_cas_required: bool,
    /// The TTL of versions in seconds; 0 means that of the mount.
    #[serde(skip_serializing_if = "is_zero")]
    pub delete_version_after: u64,
    /// The custom metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<BTreeMap<String, String>>,
}

/// Whether serialization omits a number.
pub(super) fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Settings {
    /// Whether all settings have their defaults.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// How many versions are kept: the greater number of mount and secret, as in OpenBao.
    pub(super) fn versions_to_keep(&self, config: &Config) -> u64 {
        match self.max_versions.max(config.max_versions) {
            0 => DEFAULT_MAX_VERSIONS,
            n => n,
        }
    }

    /// The deletion time of a version that is created at `now`: the shorter TTL of mount and secret applies, and `None`
    /// if that of the mount is negative.
    pub(super) fn deletion(&self, config: &Config, now: Timestamp) -> Option<Timestamp> {
        let own = Some(self.delete_version_after).filter(|seconds| *seconds > 0);
        let ttl = match config.delete_version_after {
            never if never < 0 => return None,
            0 => own?,
            mount => own.map_or(mount.unsigned_abs(), |own| own.min(mount.unsigned_abs())),
        };
        Some(now.after(Duration::from_secs(ttl)))
    }
}

/// Formats seconds as a Go duration: `1h30m0s`, `0s`, `-1s`.
pub(super) fn format_duration(seconds: i64) -> String {
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
    fn the_shorter_version_ttl_of_mount_and_secret_applies() {
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
    fn durations_are_formatted_as_in_go() {
        for (seconds, text) in
            [(0, "0s"), (5400, "1h30m0s"), (-1, "-1s"), (61, "1m1s"), (90_060, "25h1m0s"), (59, "59s")]
        {
            assert_eq!(format_duration(seconds), text);
        }
    }
}
