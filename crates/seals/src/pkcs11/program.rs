//! The running program that loads the library: requests and responses over its standard input and output.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keepfast_crypto::secret::SecretBytes;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::oneshot;

use super::protocol::{read_frame, write_frame};

/// The number of threads from which no other program is started.
const MAX_THREADS: usize = 4;

/// The threads of one seal that have not ended: a driver may keep a process, and the thread that waits for it.
#[derive(Clone, Default)]
pub(super) struct Threads(Arc<AtomicUsize>);

/// One such thread.
struct RunningThread(Threads);

impl Threads {
    /// Whether there are too many for another program.
    pub(super) fn are_full(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= MAX_THREADS
    }

    fn spawn(&self, work: impl FnOnce(RunningThread) + Send + 'static) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let running = RunningThread(self.clone());
        // When the thread cannot be created, the closure is dropped with `running`.
        std::thread::Builder::new().name("pkcs11".to_owned()).spawn(move || work(running)).map(|_| ())
    }
}

#[cfg(test)]
impl Threads {
    /// A thread that ends after this.
    pub(super) fn spawn_for_test(&self, work: impl FnOnce() + Send + 'static) {
        self.spawn(move |_running| work()).unwrap();
    }
}

impl Drop for RunningThread {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A running program; killed with all processes that it has started when dropped.
pub(super) struct Program {
    /// `None` once it is dropped.
    child: Option<Child>,
    /// `None` while a request is running, and after one was abandoned.
    pipes: Option<(ChildStdin, ChildStdout)>,
    threads: Threads,
}

/// Why there is no response.
pub(super) enum ExchangeError {
    Timeout,
    /// The program ended, or sent no frame; with its status, such as ` with status 2`.
    Ended(String),
}

impl Program {
    /// Starts the program with these variables only, in a process group of its own.
    pub(super) fn start(path: &Path, variables: &[(String, String)], threads: &Threads) -> io::Result<Self> {
        let mut command = Command::new(path);
        command.env_clear().envs(variables.iter().map(|(name, value)| (name, value))).process_group(0);
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        Ok(Program { child: Some(child), pipes, threads: threads.clone() })
    }

    /// Sends a frame and receives one. After an error the program is killed. The thread of the exchange is none of the
    /// runtime's, which a driver that hangs would use up.
    pub(super) async fn exchange(&mut self, frame: SecretBytes, limit: Duration) -> Result<SecretBytes, ExchangeError> {
        let ended = || ExchangeError::Ended(String::new());
        let (Some((mut input, mut output)), Some(child)) = (self.pipes.take(), &self.child) else {
            return Err(ended());
        };
        let pid = Pid::from_child(child);
        let (sender, receiver) = oneshot::channel();
        let exchange = move |running: RunningThread| {
            let reply = write_frame(&mut input, frame.expose()).and_then(|()| read_frame(&mut output));
            let reply = reply.map(SecretBytes::new);
            let outcome = match reply {
                Ok(reply) => Ok((input, output, reply)),
                Err(error) => Err(status_after(&error, pid)),
            };
            drop(running);
            // The caller may be gone.
            let _ = sender.send(outcome);
        };
        self.threads.spawn(exchange).map_err(|_| ended())?;
        match tokio::time::timeout(limit, receiver).await {
            Ok(Ok(Ok((input, output, reply)))) => {
                self.pipes = Some((input, output));
                Ok(reply)
            }
            Ok(Ok(Err(status))) => Err(ExchangeError::Ended(status)),
            Ok(Err(_)) => Err(ended()),
            Err(_) => {
                self.kill();
                Err(ExchangeError::Timeout)
            }
        }
    }

    /// Kills the process group. The thread of an exchange then reads the end of the output.
    fn kill(&self) {
        if let Some(child) = &self.child {
            // Its process is not awaited before it is dropped, so the id is no other group's.
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
        }
    }
}

/// How a program ended whose pipe is closed; empty where it runs. The process is left for the one that awaits it.
fn status_after(error: &io::Error, pid: Pid) -> String {
    if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) {
        return String::new();
    }
    let status = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).ok().flatten();
    let status = status.and_then(|status| match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(format!(" with status {code}")),
        (None, Some(signal)) => Some(format!(" by signal {signal}")),
        (None, None) => None,
    });
    status.unwrap_or_default()
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        let Some(mut child) = self.child.take() else { return };
        if !matches!(child.try_wait(), Ok(Some(_))) {
            // A driver may keep the process for a while.
            let _ = self.threads.spawn(move |running| {
                let _ = child.wait();
                drop(running);
            });
        }
    }
}
