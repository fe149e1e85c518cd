//! Runs tests of a test program, each in its own process.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The memory of a test in KiB: a mutant may allocate in an endless loop.
const MEMORY: u32 = 6 * 1024 * 1024;

/// The time that a test has at least.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(8);

/// The result of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Passed,
    Failed,
    TimedOut,
}

/// The test program of a crate.
pub(crate) struct Program {
    /// The program.
    pub(crate) path: PathBuf,
    /// The folder of the crate, in which tests run.
    pub(crate) folder: PathBuf,
}

impl Program {
    /// The names of its tests, except ignored ones.
    pub(crate) fn tests(&self) -> Result<Vec<String>> {
        let list = |more: &[&str]| -> Result<Vec<String>> {
            let mut command = Command::new(&self.path);
            let output = command.args(["--list", "--format", "terse"]).args(more).current_dir(&self.folder).output()?;
            if !output.status.success() {
                bail!("{} --list fails", self.path.display());
            }
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
        };
        let ignored = list(&["--ignored"])?;
        Ok(list(&[])?.into_iter().filter(|name| !ignored.contains(name)).collect())
    }

    /// Runs one test with these variables.
    pub(crate) fn run(&self, test: &str, variables: &[(&str, &str)], expected: Duration) -> Result<Ended> {
        self.run_all(&["--exact", test], variables, SHORTEST_TIMEOUT.max(expected * 5))
    }

    /// Runs the tests that the arguments select.
    pub(crate) fn run_all(&self, arguments: &[&str], variables: &[(&str, &str)], timeout: Duration) -> Result<Ended> {
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -v {MEMORY}; exec \"$@\""), "sh"])
            .arg(&self.path)
            .args(arguments)
            .envs(variables.iter().copied())
            .env("CARGO_MANIFEST_DIR", &self.folder)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| self.path.display().to_string())?;
        let begun = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(ended(status));
            }
            if begun.elapsed() > timeout {
                child.kill()?;
                child.wait()?;
                return Ok(Ended::TimedOut);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

fn ended(status: ExitStatus) -> Ended {
    if status.success() { Ended::Passed } else { Ended::Failed }
}

/// Runs `work` on each item, in `jobs` threads; results are in the order of the items.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let results = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    let result = work(item);
                    if let Ok(mut results) = results.lock() {
                        results.push((at, result));
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_default();
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The numbers in a file, one per line; none if it does not exist.
pub(crate) fn numbers(path: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}
