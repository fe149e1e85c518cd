//! The stanza `snapshots`: automatic snapshots on the leader.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use keepfast_core::settings::SnapshotSettings;

use super::error::{ConfigError, Warning};
use super::stanza::Stanza;
use super::top_level::{Config, Storage};

/// The `interval` without one.
const INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// The shortest `interval`.
const LEAST_INTERVAL: Duration = Duration::from_secs(60);
/// The `retain` without one.
const RETAIN: usize = 7;
/// The largest `retain`.
const MAX_RETAIN: usize = 10_000;

/// Parses `snapshots { directory = … }`.
pub(super) fn read(mut stanza: Stanza<'_>, warnings: &mut Vec<Warning>) -> Result<SnapshotSettings, ConfigError> {
    let directory = stanza.text("directory")?.map(PathBuf::from);
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let directory =
        directory.filter(|path| path.is_absolute() && path.components().count() > 1 && path.components().all(is_plain));
    let Some(directory) = directory else {
        let text = "snapshots needs a directory: the absolute path of a directory below the root";
        return Err(stanza.fault(stanza.position("directory"), text));
    };
    let interval = stanza.duration("interval")?.filter(|interval| !interval.is_zero()).unwrap_or(INTERVAL);
    if interval < LEAST_INTERVAL {
        let text = format!("interval must be at least {} seconds", LEAST_INTERVAL.as_secs());
        return Err(stanza.fault(stanza.position("interval"), text));
    }
    let retain = stanza.integer("retain")?.map_or(Some(RETAIN), |count| usize::try_from(count).ok());
    let Some(retain) = retain.filter(|count| (1..=MAX_RETAIN).contains(count)) else {
        let text = format!("retain must be a number from 1 to {MAX_RETAIN}");
        return Err(stanza.fault(stanza.position("retain"), text));
    };
    stanza.finish(warnings);
    Ok(SnapshotSettings { directory, interval, retain })
}

/// Checks the rules between the stanza and the storage.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let Some(snapshots) = &config.snapshots else { return Ok(()) };
    let Storage::Raft { path, .. } = &config.storage else {
        return Err(ConfigError::Whole("snapshots needs storage \"raft\"".into()));
    };
    let is_within = |path: &Path, directory: &Path| path.starts_with(directory);
    if is_within(&snapshots.directory, path) || is_within(path, &snapshots.directory) {
        let text = "the directory of snapshots and the path of the storage must not contain each other";
        return Err(ConfigError::Whole(text.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::config::{Environment, load};

    fn read(storage: &str, text: &str) -> Result<Option<SnapshotSettings>, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.hcl");
        let whole = format!("storage {storage}\nlistener \"tcp\" {{ tls_disable = 1 }}\n{text}\n");
        std::fs::write(&file, whole).unwrap();
        let (config, warnings) = load(&[file], &Environment::of(&[])).map_err(|error| error.to_string())?;
        assert!(warnings.is_empty(), "{warnings:?}");
        Ok(config.snapshots)
    }

    const RAFT: &str = "\"raft\" { path = \"/data/raft\" }";

    #[test]
    fn the_stanza_has_a_directory_and_defaults() {
        assert_eq!(read(RAFT, ""), Ok(None));
        let found = read(RAFT, "snapshots { directory = \"/backup\" }").unwrap().unwrap();
        let day = Duration::from_secs(86_400);
        assert_eq!(found, SnapshotSettings { directory: "/backup".into(), interval: day, retain: 7 });
        let all = "snapshots {\n directory = \"/backup\"\n interval = \"1h\"\n retain = 48\n}";
        let found = read(RAFT, all).unwrap().unwrap();
        assert_eq!((found.interval.as_secs(), found.retain), (3600, 48));
    }

    #[test]
    fn a_stanza_that_cannot_be_followed_is_refused() {
        for (storage, text, expected) in [
            (RAFT, "", "needs a directory"),
            (RAFT, "directory = \"backup\"", "absolute path"),
            (RAFT, "directory = \"/\"", "below the root"),
            (RAFT, "directory = \"/a/../b\"", "absolute path"),
            (RAFT, "directory = \"/data/raft\"", "contain each other"),
            (RAFT, "directory = \"/data/raft/snapshots\"", "contain each other"),
            (RAFT, "directory = \"/data\"", "contain each other"),
            (RAFT, "directory = \"/b\"\n interval = \"59s\"", "at least 60 seconds"),
            (RAFT, "directory = \"/b\"\n retain = 0", "from 1 to 10000"),
            (RAFT, "directory = \"/b\"\n retain = -1", "from 1 to 10000"),
            ("\"file\" { path = \"/data\" }", "directory = \"/b\"", "needs storage \"raft\""),
            ("\"inmem\" {}", "directory = \"/b\"", "needs storage \"raft\""),
        ] {
            let refused = read(storage, &format!("snapshots {{\n {text}\n}}")).unwrap_err();
            assert!(refused.contains(expected), "{text}: {refused}");
        }
    }
}
