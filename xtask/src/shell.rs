//! Runs other programs, with their output in the log of a step or on the terminal.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The log of a step.
pub(crate) struct Shell {
    log: PathBuf,
}

/// The result of a program.
pub(crate) struct Ran {
    /// Whether its exit code is 0.
    pub(crate) ok: bool,
    /// Its output, both streams.
    pub(crate) output: String,
}

impl Shell {
    /// An empty log for a step.
    pub(crate) fn for_step(name: &str) -> Result<Self> {
        let log = root().join(".cache/log").join(format!("{name}.log"));
        std::fs::create_dir_all(root().join(".cache/log"))?;
        File::create(&log)?;
        Ok(Self { log })
    }

    /// Runs a program in the root of the repository.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<Ran> {
        self.run_with(program, arguments, &[])
    }

    /// Runs a program with additional environment variables.
    pub(crate) fn run_with(&self, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Ran> {
        let mut out = OpenOptions::new().append(true).open(&self.log)?;
        writeln!(out, "$ {program} {}", arguments.join(" "))?;
        let before = out.metadata()?.len();
        let status = Command::new(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .env("CARGO_TERM_COLOR", "never")
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .status()
            .with_context(|| format!("running {program}"))?;
        let written = std::fs::read(&self.log)?;
        let output = String::from_utf8_lossy(&written[before as usize..]).into_owned();
        Ok(Ran { ok: status.success(), output })
    }

    /// Runs a program that must succeed.
    pub(crate) fn require(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let ran = self.run(program, arguments)?;
        if !ran.ok {
            bail!("{program} {} failed", arguments.join(" "));
        }
        Ok(ran.output)
    }

    /// Adds a line to the log.
    pub(crate) fn note(&self, line: &str) {
        if let Ok(mut out) = OpenOptions::new().append(true).open(&self.log) {
            let _ = writeln!(out, "{line}");
        }
    }

    /// The last lines of the log, indented.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}\n")).collect()
    }
}

/// Runs a program with its output on the terminal; returns whether it succeeded.
pub(crate) fn visible(program: &str, arguments: &[&str]) -> Result<bool> {
    let status = Command::new(program).args(arguments).current_dir(root()).status();
    Ok(status.with_context(|| format!("running {program}"))?.success())
}

/// Whether a program is in the PATH, or where Debian installs daemons.
pub(crate) fn has(program: &str) -> bool {
    let is_there = |folder: &Path| folder.join(program).is_file();
    is_there(Path::new("/usr/sbin"))
        || std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| is_there(&folder)))
}
