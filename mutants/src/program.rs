//! Runs tests of a test program in processes of their own.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

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

/// A run of some tests.
pub(crate) struct Ran {
    /// The result of all of them.
    pub(crate) ended: Ended,
    /// The test that failed or did not end, if the output names it.
    pub(crate) failed: Option<String>,
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

    /// Runs these tests one after the other, with these variables.
    pub(crate) fn run(&self, tests: &[&str], variables: &[(&str, &str)], expected: Duration) -> Result<Ran> {
        let arguments: Vec<&str> = ["--exact", "--test-threads=1"].iter().chain(tests).copied().collect();
        self.run_all(&arguments, variables, SHORTEST_TIMEOUT.max(expected * 5))
    }

    /// Runs the tests that the arguments select.
    pub(crate) fn run_all(&self, arguments: &[&str], variables: &[(&str, &str)], timeout: Duration) -> Result<Ran> {
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -v {MEMORY}; exec \"$@\""), "sh"])
            .arg(&self.path)
            .args(arguments)
            .envs(variables.iter().copied())
            .env("CARGO_MANIFEST_DIR", &self.folder)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| self.path.display().to_string())?;
        let mut output = child.stdout.take().context("no output")?;
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was read before an error is enough.
            let _ = output.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let ended = wait(&mut child, timeout)?;
        let failed = failed_test(&reader.join().unwrap_or_default(), ended);
        Ok(Ran { ended, failed })
    }
}

/// Waits for a program, and kills it when it has used this much CPU time or was idle for as long: on a busy machine a
/// test takes longer without being slower.
fn wait(child: &mut Child, timeout: Duration) -> Result<Ended> {
    let stat = format!("/proc/{}/stat", child.id());
    let (mut used, mut idle, mut pause) = (Duration::ZERO, Duration::ZERO, Duration::from_millis(1));
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(if status.success() { Ended::Passed } else { Ended::Failed });
        }
        if used > timeout || idle > timeout {
            child.kill()?;
            child.wait()?;
            return Ok(Ended::TimedOut);
        }
        std::thread::sleep(pause);
        idle += pause;
        let now = cpu_time(&std::fs::read_to_string(&stat).unwrap_or_default()).unwrap_or(used);
        // A test that looks again and again whether something has happened is idle, too.
        if now.saturating_sub(used) * 200 > idle {
            (used, idle) = (now, Duration::ZERO);
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// The CPU time in the content of `/proc/<pid>/stat`, which counts in 1/100 s: the fields `utime` and `stime`, the 14th
/// and 15th. The name of the program before them may contain spaces and ends with a parenthesis.
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: Vec<u64> = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    Some(Duration::from_millis(10 * (ticks.first()? + ticks.get(1)?)))
}

/// The test that failed, or the last one that began.
fn failed_test(output: &str, ended: Ended) -> Option<String> {
    let mut tests = output.lines().filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "));
    let failed = match ended {
        Ended::Passed => None,
        Ended::Failed => tests.find(|(_, result)| !result.ends_with("ok")),
        Ended::TimedOut => tests.next_back(),
    };
    failed.map(|(name, _)| name.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_the_sum_of_user_and_system_time() {
        let stat = "4242 (a) b) S 1 4242 4242 0 -1 4194304 1 0 0 0 25 17 3 4 20 0 1 0 99 1 1";
        assert_eq!((cpu_time(stat), cpu_time("")), (Some(Duration::from_millis(420)), None));
    }

    #[test]
    fn the_output_names_the_test_that_failed_or_did_not_end() {
        let failed = |output: &str, ended| failed_test(output, ended);
        let output = "running 3 tests\ntest a::b ... ok\ntest a::c ... FAILED\ntest a::d ... ok\n";
        assert_eq!(failed(output, Ended::Failed).as_deref(), Some("a::c"));
        assert_eq!(failed("test a::b ... ok\ntest a::c ... ", Ended::TimedOut).as_deref(), Some("a::c"));
        assert_eq!((failed(output, Ended::Passed), failed("", Ended::Failed)), (None, None));
    }
}
