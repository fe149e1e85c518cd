//! `kv metadata put`: sets the settings of a key.

use keepfast_client::Method;

use super::settings::{CAS_REQUIRED, CUSTOM_METADATA, DELETE_VERSION_AFTER, MAX_VERSIONS, send};
use crate::args::{Command, FlagSet};
use crate::flags::{FORMAT, HTTP, MOUNT};

pub(crate) const COMMAND: Command = Command {
    name: "put",
    usage: "KEY",
    about: "Set the metadata of a key. Custom metadata that is not given again is removed.",
    details: "
    keepfast kv metadata put -mount=secret -max-versions=5 app/db
    keepfast kv metadata put -mount=secret -custom-metadata=owner=sally app/db
",
    min: 1,
    max: Some(1),
    flags: &[
        HTTP,
        FORMAT,
        FlagSet {
            title: "Command",
            flags: &[MOUNT, CAS_REQUIRED, CUSTOM_METADATA, DELETE_VERSION_AFTER, MAX_VERSIONS],
        },
    ],
    run: |cx| send(cx, Method::Put),
};
