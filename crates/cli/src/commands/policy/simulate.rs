//! `policy simulate`: prints which requests of an audit log a proposed policy would decide differently.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use keepfast_client::{Method, Request};
use keepfast_server::engine_tables;
use keepfast_server::policy_analysis::{PastRequest, PolicySource, Simulated, Simulation};
use serde_json::{Value, json};

use super::known_mounts::known_mounts;
use super::lint::OFFLINE;
use super::source;
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::data;
use crate::flags::{FORMAT, HTTP};
use crate::output::with_header;
use crate::session::Session;
use crate::terminal;

pub(crate) const COMMAND: Command = Command {
    name: "simulate",
    usage: "POLICY.hcl...",
    about: "Print which requests of an audit log a proposed policy would decide differently.",
    details: "
Each file is the proposed text of the policy that has the name of the file
without its extension. Other policies of the tokens in the log are read from
the server, unless -offline is set. A request is undecidable where a rule
compares the value of a parameter, because the log has only its HMAC, and
where a policy cannot be read. The exit code is 0 when no request changes,
1 when one does.

    keepfast policy simulate -audit-log=audit.log app.hcl
",
    min: 1,
    max: None,
    flags: &[
        HTTP,
        FORMAT,
        FlagSet {
            title: "Command",
            flags: &[Flag::new("audit-log", Kind::Text, "File of an audit device; - is stdin. Required."), OFFLINE],
        },
    ],
    run,
};

/// The most bytes of a line; a longer one is not read.
const MOST_BYTES: u64 = 64 << 20;
/// The most groups of equal requests in memory; requests beyond them are only counted.
const MOST_GROUPS: usize = 10_000;

/// Requests with the same result, path and operation.
struct Group {
    count: u64,
    first: PastRequest,
}

/// Results, operations and paths.
type Groups = BTreeMap<(&'static str, String, String), Group>;

/// The results of a log.
#[derive(Default)]
struct Counts {
    unreadable: u64,
    other: u64,
    unaffected: u64,
    unchanged: u64,
    changed: u64,
    undecidable: u64,
    ungrouped: u64,
    groups: Groups,
}

fn run(cx: &Cx) -> Outcome {
    let log = cx.words.text("audit-log").ok_or_else(|| CommandError::usage("Must supply -audit-log"))?;
    let is_offline = cx.words.on("offline");
    let mounts = if is_offline { None } else { known_mounts(cx)? };
    let mut simulation = Simulation::new(engine_tables(mounts));
    for path in cx.arguments_from(0) {
        let name = Path::new(path).file_stem().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        simulation.propose(&name, &source(path)?).map_err(|error| CommandError::usage(format!("{path}: {error}")))?;
    }
    let session = if is_offline { None } else { Some(cx.session()?) };
    let counts = simulate(log, &mut simulation, session.as_ref())
        .map_err(|error| CommandError::usage(format!("Error reading audit log: {}", data::opening(log, &error))))?;
    if cx.output.is_table() {
        print(&counts);
    } else {
        cx.output.document(document(&counts));
    }
    Ok(u8::from(counts.changed > 0))
}

fn simulate(log: &str, simulation: &mut Simulation, session: Option<&Session>) -> io::Result<Counts> {
    let input: Box<dyn Read> = if log == "-" { Box::new(io::stdin()) } else { Box::new(File::open(log)?) };
    let mut input = BufReader::new(input);
    let mut fetch = |name: &str| session.map_or(PolicySource::Unknown, |session| fetched(session, name));
    let (mut counts, mut line) = (Counts::default(), Vec::new());
    while read_line(&mut input, &mut line)? {
        let text = std::str::from_utf8(&line).unwrap_or_default();
        if !text.trim().is_empty() || line.is_empty() {
            counts.add(simulation.line(text, &mut fetch));
        }
    }
    Ok(counts)
}

/// Reads a line; one that is longer than [`MOST_BYTES`] is empty. Returns false at the end.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    if input.by_ref().take(MOST_BYTES).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    let mut is_whole = line.ends_with(b"\n") || (line.len() as u64) < MOST_BYTES;
    while !is_whole {
        line.clear();
        let read = input.by_ref().take(MOST_BYTES).read_until(b'\n', line)?;
        is_whole = read == 0 || line.ends_with(b"\n");
        if is_whole {
            line.clear();
        }
    }
    Ok(true)
}

fn fetched(session: &Session, name: &str) -> PolicySource {
    match session.preflight(Request::new(Method::Get, format!("sys/policies/acl/{name}"))) {
        Ok(Some(secret)) => match secret.text("policy") {
            Some(text) => PolicySource::Text(text.to_owned()),
            None => PolicySource::Unknown,
        },
        Ok(None) => PolicySource::Absent,
        Err(error) if error.status() == Some(404) => PolicySource::Absent,
        Err(_) => PolicySource::Unknown,
    }
}

impl Counts {
    fn add(&mut self, simulated: Simulated) {
        let (result, request) = match simulated {
            Simulated::Unreadable => return self.unreadable += 1,
            Simulated::Other => return self.other += 1,
            Simulated::Unaffected => return self.unaffected += 1,
            Simulated::Unchanged(_) => return self.unchanged += 1,
            Simulated::Changed(request, allowed) => {
                self.changed += 1;
                (if allowed { "denied, would be allowed" } else { "allowed, would be denied" }, request)
            }
            Simulated::Undecidable(request, reason) => {
                self.undecidable += 1;
                (reason, request)
            }
        };
        let key = (result, request.operation.clone(), request.path.clone());
        if let Some(group) = self.groups.get_mut(&key) {
            group.count += 1;
        } else if self.groups.len() < MOST_GROUPS {
            self.groups.insert(key, Group { count: 1, first: request });
        } else {
            self.ungrouped += 1;
        }
    }
}

fn print(counts: &Counts) {
    let row = |((result, operation, path), group): (&(&str, String, String), &Group)| {
        let count = group.count.to_string();
        vec![(*result).to_owned(), count, operation.clone(), path.clone(), group.first.id.clone()]
    };
    let rows: Vec<Vec<String>> = counts.groups.iter().map(row).collect();
    if !rows.is_empty() {
        terminal::line(&with_header(&["Result", "Count", "Operation", "Path", "First request"], &rows));
    }
    let Counts { unreadable, unaffected, unchanged, changed, undecidable, ungrouped, .. } = counts;
    terminal::line(&format!(
        "{changed} changed, {undecidable} undecidable, {unchanged} unchanged, {unaffected} by tokens without the policy"
    ));
    if *unreadable > 0 {
        terminal::warning(&format!("{unreadable} lines are no entries of an audit log."));
    }
    if *ungrouped > 0 {
        terminal::warning(&format!("{ungrouped} more requests are counted but not listed."));
    }
}

fn document(counts: &Counts) -> Value {
    let requests = counts.groups.iter().map(|((result, operation, path), group)| {
        json!({
            "result": result,
            "count": group.count,
            "operation": operation,
            "path": path,
            "first_request_id": group.first.id,
            "first_time": group.first.time,
        })
    });
    json!({
        "changed": counts.changed,
        "undecidable": counts.undecidable,
        "unchanged": counts.unchanged,
        "unaffected": counts.unaffected,
        "other": counts.other,
        "unreadable": counts.unreadable,
        "not_listed": counts.ungrouped,
        "requests": requests.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_to_the_end_of_the_log() {
        let mut input = io::Cursor::new(b"one\n\ntwo".to_vec());
        let (mut line, mut lines) = (Vec::new(), Vec::new());
        while read_line(&mut input, &mut line).is_ok_and(|more| more) {
            lines.push(String::from_utf8_lossy(&line).into_owned());
        }
        assert_eq!(lines, ["one\n", "\n", "two"]);
    }
}
