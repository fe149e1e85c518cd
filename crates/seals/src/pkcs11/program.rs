//! The running program that loads the library: requests and responses over its standard input and output.

use std::io;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use keepfast_crypto::secret::SecretBytes;

use super::protocol::{read_frame, write_frame};

/// A running program; killed when dropped.
pub(super) struct Program {
    /// `None` once it is dropped.
    child: Option<Child>,
    /// `None` while a request is running, and after one was abandoned.
    pipes: Option<(ChildStdin, ChildStdout)>,
}

/// Why there is no response.
pub(super) enum ExchangeError {
    Timeout,
    Ended,
}

impl Program {
    /// Starts the program with these variables only.
    pub(super) fn start(path: &Path, variables: &[(String, String)]) -> io::Result<Self> {
        let mut command = Command::new(path);
        command.env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        Ok(Program { child: Some(child), pipes })
    }

    /// Sends a frame and receives one. After an error the program is killed.
    pub(super) async fn exchange(&mut self, frame: SecretBytes, limit: Duration) -> Result<SecretBytes, ExchangeError> {
        let Some((mut input, mut output)) = self.pipes.take() else { return Err(ExchangeError::Ended) };
        let exchange = tokio::task::spawn_blocking(move || {
            write_frame(&mut input, frame.expose())?;
            let reply = SecretBytes::new(read_frame(&mut output)?);
            Ok::<_, io::Error>((input, output, reply))
        });
        match tokio::time::timeout(limit, exchange).await {
            Ok(Ok(Ok((input, output, reply)))) => {
                self.pipes = Some((input, output));
                Ok(reply)
            }
            Ok(_) => Err(ExchangeError::Ended),
            Err(_) => {
                // The blocked thread then reads the end of the output.
                if let Some(child) = &mut self.child {
                    let _ = child.kill();
                }
                Err(ExchangeError::Timeout)
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        if !matches!(child.try_wait(), Ok(Some(_))) {
            // A driver may keep the process for a while.
            std::thread::spawn(move || child.wait());
        }
    }
}
