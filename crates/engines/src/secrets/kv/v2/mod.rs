//! Version 2: each path keeps several versions of its secret, with metadata.
//!
//! | path | what it is |
//! |---|---|
//! | `config` | defaults and bounds for all secrets of the mount |
//! | `data/PATH` | reads a version, writes or patches the next one, deletes the current one |
//! | `delete/PATH` `undelete/PATH` | marks versions deleted, and takes that back |
//! | `destroy/PATH` | removes the data of versions for ever |
//! | `metadata/PATH` | settings and versions of a secret; lists and scans; deletes it with all its versions |
//! | `detailed-metadata/PATH` | lists and scans with the metadata of each secret |
//! | `subkeys/PATH` | the names inside a secret without the values |
//!
//! What is stored, and why a read of the current version is one read of storage, is told in `secret.rs`.
//!
//! **Upgrade from version 1.** Nothing is converted at once: while there are secrets of version 1 in the mount, a path
//! that is not found is looked for among them, a write to it makes the next version in the new place, and each tick moves
//! a page of them. So an upgrade costs no time, can be interrupted at any moment, and is finished when none are left.

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
            .exists(data::exists);
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
        routes_of_wrong_paths(r);
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

/// Paths that hold nothing, answered as the peer answers them.
fn routes_of_wrong_paths(r: &mut Routes<V2>) {
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

/// Below this, a handler's `path` is the location of the secret.
#[derive(Deserialize, JsonSchema)]
struct Named {
    /// Location of the secret.
    path: Text,
}

async fn read_folder(_: &V2, _: &mut Cx, _: Named) -> Result<()> {
    Err(Error::not_found())
}

async fn write_folder(_: &V2, _: &mut Cx, _: Named) -> Result<()> {
    Err(Error::invalid("cannot write to a path ending in '/'"))
}

/// Refused: a path with a final slash is another path to a policy, so it must not reach the secret without it.
async fn delete_folder(_: &V2, _: &mut Cx, _: Named) -> Result<()> {
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

const CONFIG_HELP: Help = Help { synopsis: "Settings that apply to every secret of the mount.", description: "" };
const DATA_HELP: Help = Help {
    synopsis: "Reads, writes, patches and deletes versions of a secret.",
    description: "A read answers the current version, or the one that `version` names. A write makes the next version; with \
                  `options.cas` only if the current version is that one (0: only if there is none). A patch is a JSON merge \
                  patch (RFC 7396) of the current version. A delete marks the current version deleted.",
};
const DELETE_HELP: Help = Help {
    synopsis: "Marks versions of a secret deleted.",
    description: "Their data is kept until they are destroyed or pruned, but reads no longer answer it.",
};
const UNDELETE_HELP: Help =
    Help { synopsis: "Takes back that versions of a secret were marked deleted.", description: "" };
const DESTROY_HELP: Help = Help { synopsis: "Removes the data of versions of a secret for ever.", description: "" };
const METADATA_HELP: Help =
    Help { synopsis: "Reads and changes the settings of a secret; deletes it with all its versions.", description: "" };
const LIST_HELP: Help =
    Help { synopsis: "Lists the secrets of a folder, or scans those of all folders below it.", description: "" };
const DETAILED_HELP: Help = Help { synopsis: "Lists or scans secrets together with their metadata.", description: "" };
const SUBKEYS_HELP: Help = Help {
    synopsis: "Reads the names inside a secret without the values.",
    description: "A member that is an object is shown with its own names, down to `depth` levels; anything else is null.",
};
const FOLDER_HELP: Help = Help { synopsis: "A path ending in a slash names no secret.", description: "" };
const ROOT_HELP: Help = Help { synopsis: "The root of the mount holds no secret.", description: "" };
const UNKNOWN_HELP: Help = Help { synopsis: "Any other path is explained and not served.", description: "" };

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
