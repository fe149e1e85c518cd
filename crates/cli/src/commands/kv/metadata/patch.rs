//! `kv metadata patch`: changes some settings of a key.

use keepfast_client::Method;

use super::settings::{CAS_REQUIRED, CUSTOM_METADATA, DELETE_VERSION_AFTER, MAX_VERSIONS, send};
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::flags::{FORMAT, HTTP, MOUNT};

pub(crate) const COMMAND: Command = Command {
    name: "patch",
    usage: "KEY",
    about: "Change some metadata of a key.",
    details: "
    keepfast kv metadata patch -mount=secret -custom-metadata=owner=bob app/db
    keepfast kv metadata patch -mount=secret -remove-custom-metadata=owner app/db
",
    min: 1,
    max: Some(1),
    flags: &[
        HTTP,
        FORMAT,
        FlagSet {
            title: "Command",
            flags: &[MOUNT, CAS_REQUIRED, CUSTOM_METADATA, DELETE_VERSION_AFTER, MAX_VERSIONS, REMOVE],
        },
    ],
    run: |cx| send(cx, Method::Patch),
};

const REMOVE: Flag =
    Flag::new("remove-custom-metadata", Kind::List, "A custom metadata key to remove; may be repeated.");
