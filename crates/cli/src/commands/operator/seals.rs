//! `operator seals …`: the seals whose keys are outside of the server.

use keepfast_client::{Method, Request};
use serde_json::{Map, Value, json};

use super::shares::{self, boolean, number};
use crate::args::{Command, Group, Node};
use crate::command_error::Outcome;
use crate::cx::Cx;
use crate::flags::{FORMAT, HTTP};
use crate::output::{plain, with_header};
use crate::terminal;

pub(super) const GROUP: Group = Group {
    name: "seals",
    about: "Work with the seals that unseal the server by themselves.",
    children: &[
        Node::Leaf(&ADD),
        Node::Group(&Group {
            name: "break-glass",
            about: "Let recovery keys unseal when no seal works, or forbid it.",
            children: &[Node::Leaf(&DISABLE), Node::Leaf(&ENABLE)],
        }),
        Node::Leaf(&CHECK),
        Node::Leaf(&LIST),
        Node::Leaf(&ORDER),
        Node::Leaf(&REMOVE),
    ],
};

const LIST: Command = Command {
    name: "list",
    usage: "",
    about: "List the seals of the configuration and of the storage.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[HTTP, FORMAT],
    run: list,
};

const ADD: Command = Command {
    name: "add",
    usage: "NAME",
    about: "Enroll a seal of the configuration: it unseals from now on.",
    details: "
Add its stanza to the configuration of every node and send them SIGHUP first. With
the first seal, the unseal keys become recovery keys.

    keepfast operator seals add kms-eu
",
    min: 1,
    max: Some(1),
    flags: &[HTTP],
    run: |cx| {
        change(cx, Method::Put, "Error adding the seal", &path(cx), "Success! The seal unseals the server from now on.")
    },
};

const REMOVE: Command = Command {
    name: "remove",
    usage: "NAME",
    about: "Remove a seal: it does not unseal any more. The root key is rotated.",
    details: "
Set disabled = \"true\" or enroll = \"manual\" in its stanza before: the leader would
enroll it again. Remove the stanza afterwards. In a cluster the leader removes a
disabled seal by itself as soon as every member can do without; this command does
not wait for that.
Without the last seal, the recovery keys become unseal keys.

    keepfast operator seals remove kms-us
",
    min: 1,
    max: Some(1),
    flags: &[HTTP],
    run: |cx| change(cx, Method::Delete, "Error removing the seal", &path(cx), "Success! The seal is removed."),
};

const ORDER: Command = Command {
    name: "order",
    usage: "NAME...",
    about: "Set the order in which the seals are tried.",
    details: "
    keepfast operator seals order kms-eu kms-us hsm
",
    min: 1,
    max: None,
    flags: &[HTTP],
    run: order,
};

const CHECK: Command = Command {
    name: "check",
    usage: "NAME",
    about: "Check whether a seal opens its slot, and renew the slot if that is due.",
    details: "
The exit code is 0 when the seal works, 2 when it does not, 1 on errors.
",
    min: 1,
    max: Some(1),
    flags: &[HTTP, FORMAT],
    run: check,
};

const ENABLE: Command = Command {
    name: "enable",
    usage: "[KEY]",
    about: "Submit a recovery key; a quorum lets recovery keys unseal.",
    details: "
Without an argument, the command prompts for the key.
",
    min: 0,
    max: Some(1),
    flags: &[HTTP, FORMAT],
    run: enable,
};

const DISABLE: Command = Command {
    name: "disable",
    usage: "",
    about: "Forbid that recovery keys unseal. They still authorize operations.",
    details: "",
    min: 0,
    max: Some(0),
    flags: &[HTTP],
    run: |cx| {
        let done = "Success! Recovery keys do not unseal any more.";
        change(cx, Method::Delete, "Error disabling break-glass", BREAK_GLASS, done)
    },
};

const BREAK_GLASS: &str = "sys/seals/break-glass";
/// The title and the field of each column.
const COLUMNS: [(&str, &str); 7] = [
    ("Name", "name"),
    ("Type", "type"),
    ("Priority", "priority"),
    ("Configured", "configured"),
    ("Enrolled", "enrolled"),
    ("Healthy", "healthy"),
    ("Error", "error"),
];

fn path(cx: &Cx) -> String {
    format!("sys/seals/{}", cx.argument(0))
}

fn change(cx: &Cx, method: Method, context: &str, path: &str, done: &str) -> Outcome {
    cx.session()?.call(context, &Request::new(method, path))?;
    terminal::success(done);
    Ok(0)
}

fn order(cx: &Cx) -> Outcome {
    let body = json!({ "names": cx.words.arguments });
    let request = Request::new(Method::Put, "sys/seals/order").with_body(body);
    cx.session()?.call("Error setting the order of the seals", &request)?;
    terminal::success("Success! The seals are tried in this order.");
    Ok(0)
}

fn row(seal: &Value) -> Vec<String> {
    COLUMNS.iter().map(|(_, field)| seal.get(field).map(plain).unwrap_or_default()).collect()
}

fn list(cx: &Cx) -> Outcome {
    let request = Request::new(Method::Get, "sys/seals");
    let secret = cx.session()?.require("Error listing the seals", request, "seals")?;
    let data = secret.data.unwrap_or_default();
    if !cx.output.is_table() {
        cx.output.document(Value::Object(data));
        return Ok(0);
    }
    let seals = data.get("seals").and_then(Value::as_array).cloned().unwrap_or_default();
    if seals.is_empty() {
        terminal::line("There are no seals: the unseal keys unseal this server.");
        return Ok(2);
    }
    let rows: Vec<Vec<String>> = seals.iter().map(row).collect();
    terminal::line(&with_header(&COLUMNS.map(|(title, _)| title), &rows));
    if let Some(migration) = data.get("migration") {
        show_migration(migration);
    }
    Ok(0)
}

fn show_migration(migration: &Value) {
    let goal = migration.get("goal").and_then(Value::as_str).unwrap_or_default();
    terminal::line(&format!("\nThe migration ({goal}) awaits:"));
    for awaited in migration.get("awaits").and_then(Value::as_array).into_iter().flatten() {
        terminal::line(&format!("  {}", plain(awaited)));
    }
}

fn check(cx: &Cx) -> Outcome {
    let request = Request::new(Method::Put, format!("{}/check", path(cx)));
    let seal = cx.session()?.require("Error checking the seal", request, "healthy")?.data.unwrap_or_default();
    let code = if boolean(&seal, "healthy") { 0 } else { 2 };
    let seal = Value::Object(seal);
    if cx.output.is_table() {
        terminal::line(&with_header(&COLUMNS.map(|(title, _)| title), &[row(&seal)]));
    } else {
        cx.output.document(seal);
    }
    Ok(code)
}

fn enable(cx: &Cx) -> Outcome {
    let session = cx.session()?;
    let body = shares::share(cx, &Map::new(), "nonce")?;
    let body = json!({ "key": body.get("key") });
    let data = shares::ask(&session, "Error posting recovery key", Method::Put, BREAK_GLASS, Some(body))?;
    if !cx.output.is_table() {
        cx.output.document(Value::Object(data));
    } else if boolean(&data, "complete") {
        terminal::success("Success! Recovery keys unseal from now on.");
    } else {
        terminal::line(&format!("Progress: {}/{}", number(&data, "progress"), number(&data, "required")));
    }
    Ok(0)
}
