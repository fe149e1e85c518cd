//! `namespace create`: creates a namespace.

use keepfast_client::{Method, Request};
use serde_json::json;

use super::{CUSTOM_METADATA, api_path, print_data};
use crate::args::{Command, FlagSet};
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{HTTP, OUTPUT};

pub(crate) const COMMAND: Command = Command {
    name: "create",
    usage: "NAME",
    about: "Create a namespace below the current one.",
    details: "
-namespace or VAULT_NAMESPACE is the current namespace.

    keepfast namespace create team
    keepfast namespace create -namespace=team -custom-metadata=owner=sally app
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, OUTPUT, FlagSet { title: "Command", flags: &[CUSTOM_METADATA] }],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let context = "Error creating namespace";
    let body = json!({ "custom_metadata": cx.words.pairs("custom-metadata") });
    let request = Request::new(Method::Post, api_path(cx, context)?).with_body(body);
    print_data(cx, &cx.session()?.require(context, request, "path")?)
}
