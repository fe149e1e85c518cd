//! `operator diagnose`: checks the start of a server on this machine, and calls its seals.

use std::path::PathBuf;

use keepfast_server::config::Environment;
use keepfast_server::diagnose::{Check, Part, Status, diagnose};
use serde_json::Value;

use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::flags::FORMAT;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "diagnose",
    usage: "",
    about: "Find out why a server does not start, or does not unseal itself.",
    details: "
Checks the configuration, the data directory and the free space, addresses and
certificates of listeners, files and audit devices, and each seal: it wraps and
unwraps a random key. Run it as the user of the server, with its environment.
Nothing is created, changed or served.

The exit code is 0 without warnings, 2 with warnings, 1 when a check fails, 3
without -config, 4 when the configuration cannot be read.

    keepfast operator diagnose -config=/etc/keepfast/keepfast.hcl
    keepfast operator diagnose -config=/etc/keepfast/keepfast.hcl -skip=listener
",
    min: 0,
    max: Some(0),
    flags: &[FLAGS, FORMAT],
    run,
};

const FLAGS: FlagSet = FlagSet {
    title: "Command",
    flags: &[
        Flag::new(
            "config",
            Kind::List,
            "A file, or a directory of .hcl and .json files; may be repeated. Variable: VAULT_CONFIG_PATH.",
        ),
        Flag::new("debug", Kind::Bool, "Show the details of each check, and the time that the seals took."),
        Flag::new("skip", Kind::List, "A check to leave out: listener, storage or autounseal; may be repeated."),
    ],
};

fn run(cx: &Cx) -> Outcome {
    let environment = Environment::of_process();
    let mut paths: Vec<PathBuf> = cx.words.list("config").into_iter().map(PathBuf::from).collect();
    if paths.is_empty() {
        paths.extend(environment.setting("CONFIG_PATH").map(PathBuf::from));
    }
    if paths.is_empty() {
        return Err(CommandError::usage("Must specify a configuration file using -config.").with_code(3));
    }
    let part = |name: &str| {
        let unknown = || CommandError::usage(format!("-skip must be listener, storage or autounseal, not {name:?}"));
        Part::parse(name).ok_or_else(unknown)
    };
    let names = cx.words.list("skip").into_iter().flat_map(|names| names.split(','));
    let skipped = names.map(|name| part(name.trim())).collect::<Result<Vec<_>, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::usage(error.to_string()))?;
    let diagnosis = runtime.block_on(diagnose(&paths, &environment, &skipped));
    if cx.output.is_table() {
        terminal::line("Results:");
        show(&diagnosis.root, 0, cx.words.on("debug"));
    } else {
        cx.output.document(serde_json::to_value(&diagnosis.root).unwrap_or(Value::Null));
    }
    Ok(match diagnosis.root.status {
        Status::Fail if diagnosis.has_configuration => 1,
        Status::Fail => 4,
        Status::Warn => 2,
        Status::Ok | Status::Skipped => 0,
    })
}

// recursion: bounded by the checks, which are of three levels.
fn show(check: &Check, depth: usize, has_details: bool) {
    let status = match check.status {
        Status::Ok => "success",
        Status::Warn => "warning",
        Status::Fail => "failure",
        Status::Skipped => "skipped",
    };
    let indent = "  ".repeat(depth);
    let message = if check.message.is_empty() { String::new() } else { format!(": {}", check.message) };
    terminal::line(&format!("{indent}[ {status} ] {}{message}", check.name));
    if !check.advice.is_empty() {
        terminal::line(&format!("{indent}  {}", check.advice));
    }
    if has_details {
        check.details.iter().for_each(|detail| terminal::line(&format!("{indent}  {detail}")));
        if check.millis > 0 {
            terminal::line(&format!("{indent}  {} ms", check.millis));
        }
    }
    check.children.iter().for_each(|child| show(child, depth + 1, has_details));
}
