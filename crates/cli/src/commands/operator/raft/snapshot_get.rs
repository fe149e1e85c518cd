//! `operator raft snapshot get`: reads a secret in a snapshot file, without a server.

use std::io::{self, BufRead, IsTerminal, Read as _};

use keepfast_client::{Secret, SecretString};
use keepfast_server::snapshots::SealedContents;
use keepfast_server::{read_kv, unseal_snapshot};

use super::snapshot::{MAX_EXPANSION, open};
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::commands::kv::get::show;
use crate::commands::kv::key_path::KeyPath;
use crate::cx::Cx;
use crate::flags::{MOUNT, OUTPUT};
use crate::prompt;

pub(super) const COMMAND: Command = Command {
    name: "get",
    usage: "FILE KEY",
    about: "Show the value of a key of a KV engine in a snapshot, without a server.",
    details: "
The command prompts for the key shares that unsealed the server when the
snapshot was saved. Without a terminal it reads them from standard input, one
in each line. Nothing of the snapshot is written anywhere but to the output.

    keepfast operator raft snapshot get -mount=secret backup.snap app/db
    keepfast operator raft snapshot get -field=password backup.snap secret/app/db
",
    min: 2,
    max: Some(2),
    flags: &[
        OUTPUT,
        FlagSet {
            title: "Command",
            flags: &[MOUNT, Flag::new("version", Kind::Int, "The version to show. Default: the newest.")],
        },
    ],
    run,
};

/// The longest line with a share in bytes.
const MAX_LINE: u64 = 4096;

fn run(cx: &Cx) -> Outcome {
    let (file, length) = open(cx.argument(0))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| CommandError::failed(format!("Cannot start: {error}")))?;
    let context = "Error reading the snapshot";
    let failed = |error: String| CommandError::failed(format!("{context}: {error}"));
    let sealed = runtime.block_on(SealedContents::open(file, length.saturating_mul(MAX_EXPANSION)));
    let sealed = sealed.map_err(|error| failed(error.to_string()))?;
    let shares = shares(sealed.threshold())?;
    let contents = runtime.block_on(unseal_snapshot(sealed, &shares)).map_err(failed)?;
    drop(shares);
    let mount_of = |path: &str| contents.mount(path).map(|mount| (mount.path, mount.version.as_deref() == Some("2")));
    let key_path = KeyPath::in_mount(cx, 1, mount_of);
    let key_path = key_path.ok_or_else(|| failed("the snapshot has no mount at this path".to_owned()))?;
    let path = key_path.api("data");
    let version = cx.words.int("version").filter(|version| key_path.versioned && *version > 0);
    let response = runtime.block_on(read_kv(&contents, &path, version)).map_err(failed)?;
    let none = || CommandError::failed(format!("No value found at {path}"));
    let secret = Secret::parse(response.ok_or_else(none)?.expose()).map_err(|error| failed(error.to_string()))?;
    show(cx, &key_path, &secret)
}

/// Reads this many shares, from prompts or from the lines of standard input.
fn shares(count: usize) -> Result<Vec<SecretString>, CommandError> {
    if io::stdin().is_terminal() {
        let ask = |number| prompt::hidden(&format!("Unseal Key {number} of {count}"), false);
        return (1..=count).map(ask).collect();
    }
    lines(&mut io::stdin().lock(), count)
}

fn lines(input: &mut impl BufRead, count: usize) -> Result<Vec<SecretString>, CommandError> {
    let mut shares = Vec::with_capacity(count);
    while shares.len() < count {
        let mut line = String::with_capacity(MAX_LINE as usize);
        let read = input.by_ref().take(MAX_LINE).read_line(&mut line);
        let length = read.map_err(|error| CommandError::usage(format!("Cannot read the key: {error}")))?;
        let line = SecretString::new(line);
        if length == 0 {
            let text = format!("{count} unseal keys are needed, one in each line; there are {}", shares.len());
            return Err(CommandError::usage(text));
        }
        let share = line.expose().trim();
        if !share.is_empty() {
            shares.push(SecretString::new(share.to_owned()));
        }
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn as_many_lines_are_read_as_the_threshold() {
        let read = |text: &str, count| {
            let shares = lines(&mut text.as_bytes(), count).ok()?;
            Some(shares.iter().map(|share| share.expose().clone()).collect::<Vec<_>>())
        };
        assert_eq!(read("a\n\n b \r\nc\n", 2), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(read("a\nb", 2), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(read("a\n", 2), None);
    }
}
