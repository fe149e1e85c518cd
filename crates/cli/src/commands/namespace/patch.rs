//! `namespace patch`: changes the custom metadata of a namespace.

use keepfast_client::{Method, Request};
use serde_json::{Value, json};

use super::{CUSTOM_METADATA, api_path, print_data};
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::{HTTP, OUTPUT};

pub(crate) const COMMAND: Command = Command {
    name: "patch",
    usage: "NAME",
    about: "Change some custom metadata of a namespace.",
    details: "
    keepfast namespace patch -custom-metadata=owner=bob team
    keepfast namespace patch -remove-custom-metadata=owner team
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, OUTPUT, FlagSet { title: "Command", flags: &[CUSTOM_METADATA, REMOVE] }],
    run,
};

const REMOVE: Flag =
    Flag::new("remove-custom-metadata", Kind::List, "A custom metadata key to remove; may be repeated.");

fn run(cx: &Cx) -> Outcome {
    let mut metadata = cx.words.pairs("custom-metadata");
    metadata.extend(cx.words.list("remove-custom-metadata").into_iter().map(|key| (key.to_owned(), Value::Null)));
    if metadata.is_empty() {
        return Err(CommandError::usage("Must supply at least one of -custom-metadata or -remove-custom-metadata"));
    }
    let context = "Error patching namespace";
    let body = json!({ "custom_metadata": metadata });
    let request = Request::new(Method::Patch, api_path(cx, context)?).with_body(body);
    print_data(cx, &cx.session()?.require(context, request, "path")?)
}
