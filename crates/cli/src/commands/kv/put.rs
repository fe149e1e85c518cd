//! `kv put`: writes the value of a key.

use std::io;

use keepfast_client::{Method, Request};
use serde_json::{Value, json};

use super::key_path::{KeyPath, show_written};
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::data;
use crate::flags::{HTTP, MOUNT, OUTPUT};

pub(crate) const COMMAND: Command = Command {
    name: "put",
    usage: "KEY [DATA K=V...]",
    about: "Write the value of a key, replacing the old one.",
    details: "
    keepfast kv put -mount=secret app/db user=app password=-
    keepfast kv put -mount=secret app/db @value.json
    keepfast kv put -mount=secret -cas=3 app/db user=app
",
    min: 1,
    max: None,
    flags: &[HTTP, OUTPUT, FlagSet { title: "Command", flags: &[MOUNT, CAS] }],
    run,
};

/// Check-and-set.
const CAS: Flag = Flag::new(
    "cas",
    Kind::Int,
    "Write only if this is the current version; 0 only if the key does not exist. Default: always.",
);

fn run(cx: &Cx) -> Outcome {
    let arguments = cx.arguments_from(1);
    if arguments.is_empty() {
        return Err(CommandError::usage("Must supply data"));
    }
    let data = Value::Object(data::parse(arguments, &mut io::stdin())?);
    let session = cx.session()?;
    let key_path = KeyPath::find(cx, &session)?;
    let body = if key_path.versioned {
        let cas = cx.words.int("cas").filter(|cas| *cas >= 0);
        json!({ "data": data, "options": cas.map_or(json!({}), |cas| json!({ "cas": cas })) })
    } else {
        data
    };
    let path = key_path.api("data");
    let response =
        session.call(&format!("Error writing data to {path}"), &Request::new(Method::Put, &path).with_body(body))?;
    show_written(cx, &key_path, response)
}
