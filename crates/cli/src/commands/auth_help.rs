//! `auth help`: describes the login with an auth method.

use keepfast_client::{Method, Request};

use super::login::METHODS;
use crate::args::Command;
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::HTTP;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "help",
    usage: "TYPE | PATH",
    about: "Show the login parameters of an auth method.",
    details: "
    keepfast auth help userpass
",
    min: 1,
    max: Some(1),
    flags: &[HTTP],
    run,
};

fn run(cx: &Cx) -> Outcome {
    let requested = cx.path(0);
    let known = |name: &str| METHODS.iter().find(|method| method.name == name);
    let method = match known(&requested) {
        Some(method) => Some(method),
        None => {
            let request = Request::new(Method::Get, "sys/auth");
            let mounts = cx.session()?.require_map("Error listing auth methods", request)?;
            let mount = mounts.get(&format!("{requested}/")).cloned();
            let mount = mount.ok_or_else(|| {
                CommandError::usage(format!("No auth method available on the server at \"{requested}/\""))
            })?;
            mount.get("type").and_then(serde_json::Value::as_str).and_then(known)
        }
    };
    let method = method.ok_or_else(|| {
        CommandError::failed(format!("No login method for {requested} on the command line; use the HTTP API"))
    })?;
    terminal::line(method.help.trim());
    Ok(0)
}
