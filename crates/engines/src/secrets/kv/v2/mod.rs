//! Version 2: several versions of each secret, with metadata.
//!
//! | path | operations |
//! |---|---|
//! | `config` | reads and writes defaults and limits for all secrets of the mount |
//! | `data/PATH` | reads a version, writes or patches the next one, deletes the current one |
//! | `delete/PATH` `undelete/PATH` | marks versions deleted, removes the mark |
//! | `destroy/PATH` | permanently removes the data of versions |
//! | `metadata/PATH` | reads and writes settings of a secret; lists and scans; deletes it with all its versions |
//! | `detailed-metadata/PATH` | lists and scans with the metadata of each secret |
//! | `subkeys/PATH` | reads the names inside a secret without the values |
//!
//! `secret.rs` describes the stored records and why a read of the current version is one read of storage.
//!
//! **Upgrade from version 1.** The upgrade converts nothing at once. While the mount has secrets of version 1, a read
//! that finds no secret of version 2 looks among them, a write creates the next version as version 2, and each tick
//! converts a page of them. So an upgrade takes no downtime, survives a restart at any moment, and ends when none are
//! left.

mod config;
mod custom_metadata;
mod data;
mod metadata;
mod secret;
mod settings;
mod subkeys;
mod upgrade;
mod versions;

use keepfast_framework::engine::Gauge;
use keepfast_framework::fields::Text;
use keepfast_framework::reply::WithStatus;
use keepfast_framework::routes::{Help, Nothing};
use keepfast_framework::{Cx, Engine, Error, Kind, Operation, Result, Routes, Status};
use schemars::JsonSchema;
use serde::Deserialize;

use self::upgrade::Upgrade;
use crate::secrets::tree::Tree;

/// The engine `kv`, version 2.
pub struct V2 {
    upgrade: Upgrade,
}

impl Engine for V2 {
    const TYPE: &'static str = "kv";
    const KIND: Kind = Kind::Secrets;
    const VARIANT: Option<(&'static str, &'static str)> = Some(("version", "2"));
    const FORMER_TYPE: Option<&'static str> = Some("generic");

    fn routes(r: &mut Routes<Self>) {
        r.path("config", CONFIG_HELP).read(config::read).update(config::write);
        r.path("data/{path...}", DATA_HELP)
            .read(data::read)
            .update(data::write)
            .patch(data::patch)
            .delete(data::delete)
            .exists(data::exists)
            .nested("data");
        r.path("delete/{path...}", DELETE_HELP).update(versions::delete);
        r.path("undelete/{path...}", UNDELETE_HELP).update(versions::undelete);
        r.path("destroy/{path...}", DESTROY_HELP).update(versions::destroy);
        r.path("metadata/{path...}", METADATA_HELP)
            .read(metadata::read)
            .update(metadata::write)
            .patch(metadata::patch)
            .delete(metadata::delete)
            .exists(data::exists);
        r.path("metadata/{path...}/", LIST_HELP)
            .list(metadata::list)
            .scan(metadata::scan)
            .read(read_folder)
            .update(write_folder)
            .patch(write_folder)
            .delete(delete_folder);
        r.path("detailed-metadata/{path...}/", DETAILED_HELP)
            .list(metadata::list_detailed)
            .scan(metadata::scan_detailed);
        r.path("subkeys/{path...}", SUBKEYS_HELP).read(subkeys::read);
        routes_of_invalid_paths(r);
    }

    async fn open(cx: &mut Cx) -> Result<Self> {
        Ok(V2 { upgrade: Upgrade::open(cx).await? })
    }

    fn invalidate(&self, key: &str, exists: bool) {
        self.upgrade.invalidate(key, exists);
    }

    async fn tick(&self, cx: &mut Cx) -> Result<()> {
        self.upgrade.convert_page(cx).await
    }

    async fn usage(&self, cx: &mut Cx) -> Result<Vec<Gauge>> {
        Tree::under(self.upgrade.prefixes()).usage(cx).await
    }
}

/// Paths without a secret, with OpenBao's errors.
fn routes_of_invalid_paths(r: &mut Routes<V2>) {
    r.path("data/{path...}/", FOLDER_HELP)
        .read(read_folder)
        .update(write_folder)
        .patch(write_folder)
        .delete(delete_folder)
        .hidden();
    r.paths(["delete/{path...}/", "undelete/{path...}/", "destroy/{path...}/"], FOLDER_HELP)
        .update(write_folder)
        .hidden();
    r.path("subkeys/{path...}/", FOLDER_HELP).read(read_folder).hidden();
    r.paths(["data", "delete", "undelete", "destroy", "metadata"], ROOT_HELP)
        .read(root)
        .update(root)
        .patch(root)
        .delete(root)
        .hidden();
    r.paths(["subkeys", "detailed-metadata"], ROOT_HELP)
        .read(unknown)
        .update(unknown)
        .patch(unknown)
        .delete(unknown)
        .hidden();
    r.path("{path...}/", UNKNOWN_HELP)
        .read(unknown)
        .update(unknown)
        .patch(unknown)
        .delete(unknown)
        .list(unknown)
        .scan(unknown)
        .fallback()
        .hidden();
}

/// The path parameter. In later handlers, `path` is the location of the secret.
#[derive(Deserialize, JsonSchema)]
struct SecretPath {
    /// Location of the secret.
    path: Text,
}

async fn read_folder(_: &V2, _: &mut Cx, _: SecretPath) -> Result<()> {
    Err(Error::not_found())
}

async fn write_folder(_: &V2, _: &mut Cx, _: SecretPath) -> Result<()> {
    Err(Error::invalid("cannot write to a path ending in '/'"))
}

/// Refused: policies treat a path with a final slash as another path, so it must not reach the secret without the
/// slash.
async fn delete_folder(_: &V2, _: &mut Cx, _: SecretPath) -> Result<()> {
    Err(Error::invalid("cannot delete a path ending in '/'"))
}

async fn root(_: &V2, cx: &mut Cx, _: Nothing) -> Result<WithStatus<()>> {
    cx.warn("Non-listing operations on the root of a K/V v2 mount are not supported.");
    Ok(WithStatus(Status::NOT_FOUND, ()))
}

async fn unknown(_: &V2, cx: &mut Cx, _: Nothing) -> Result<WithStatus<()>> {
    let command = match cx.request().operation {
        Operation::Read | Operation::Help | Operation::Head => "get",
        Operation::Update => "put",
        Operation::Patch => "patch",
        Operation::Delete => "delete",
        Operation::List => "list",
        Operation::Scan => "scan",
    };
    cx.warn(format!(
        "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use. \
         If using the Keepfast CLI, use 'keepfast kv {command}' for this operation."
    ));
    Ok(WithStatus(Status::NOT_FOUND, ()))
}

const CONFIG_HELP: Help =
    Help { synopsis: "Reads or changes the settings of the mount, which apply to every secret.", description: "" };
const DATA_HELP: Help = Help {
    synopsis: "Reads, writes, patches and deletes versions of a secret.",
    description: "A read returns the current version, or the one in `version`. A write creates the next version; with \
                  `options.cas` only if that is the current version (0: only if there is none). A patch is a JSON merge \
                  patch (RFC 7396) of the current version. A delete marks the current version deleted.",
};
const DELETE_HELP: Help = Help {
    synopsis: "Marks versions of a secret deleted.",
    description: "Their data is kept until they are destroyed or pruned, but reads no longer return it.",
};
const UNDELETE_HELP: Help = Help { synopsis: "Undeletes versions of a secret.", description: "" };
const DESTROY_HELP: Help = Help { synopsis: "Permanently removes the data of versions of a secret.", description: "" };
const METADATA_HELP: Help =
    Help { synopsis: "Reads and changes the settings of a secret; deletes it with all its versions.", description: "" };
const LIST_HELP: Help =
    Help { synopsis: "Lists the secrets of a folder, or scans those of all folders below it.", description: "" };
const DETAILED_HELP: Help = Help { synopsis: "Lists or scans secrets together with their metadata.", description: "" };
const SUBKEYS_HELP: Help = Help {
    synopsis: "Reads the names inside a secret without the values.",
    description: "A member that is an object is shown with its own names, down to `depth` levels; anything else is null.",
};
const FOLDER_HELP: Help = Help { synopsis: "A path with a final slash is never a secret.", description: "" };
const ROOT_HELP: Help = Help { synopsis: "The root of the mount has no secret.", description: "" };
const UNKNOWN_HELP: Help = Help { synopsis: "Refuses any other path and suggests a command.", description: "" };

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
