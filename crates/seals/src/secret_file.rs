//! The content of a file that holds a secret, read within a time: a pipe may have no writer, and a mount may be dead.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use keepfast_crypto::secret::{SecretBytes, SecretString};
use rustix::fs::OFlags;

/// The largest file.
const MAX_FILE: u64 = 64 * 1024;
/// The time of a read.
const WITHIN: Duration = Duration::from_secs(2);
/// The pause between two reads of a pipe without content.
const PIPE_PAUSE: Duration = Duration::from_millis(10);
/// The most reads that have not ended: each keeps a thread while its mount is dead.
const MAX_RUNNING: usize = 16;

/// The reads that have not ended.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// One of them.
struct Running;

impl Running {
    fn begin() -> Option<Self> {
        let before = RUNNING.fetch_add(1, Ordering::SeqCst);
        let running = Running;
        (before < MAX_RUNNING).then_some(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The content. The error names the file.
pub(crate) fn read_secret(path: &str) -> Result<SecretBytes, String> {
    let running = Running::begin().ok_or_else(|| format!("cannot read {path}: too many other reads hang"))?;
    let (sender, receiver) = sync_channel(1);
    let owned = path.to_owned();
    let read = move || {
        let content = read_to_end(&owned);
        drop(running);
        // After the time nobody waits, and the content is wiped.
        let _ = sender.send(content);
    };
    let thread = std::thread::Builder::new().name("secret file".to_owned()).spawn(read);
    thread.map_err(|error| format!("cannot read {path}: {error}"))?;
    // Twice the time of a pipe, which ends by itself.
    let content = receiver.recv_timeout(WITHIN * 2);
    let content = content.map_err(|_| format!("cannot read {path}: no content within {:?}", WITHIN * 2))?;
    let content = content.map_err(|error| format!("cannot read {path}: {error}"))?;
    if content.expose().len() as u64 > MAX_FILE {
        return Err(format!("{path} is longer than {MAX_FILE} bytes"));
    }
    Ok(content)
}

fn read_to_end(path: &str) -> io::Result<SecretBytes> {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mut content = SecretBytes::new(Vec::with_capacity(MAX_FILE as usize + 1));
    let kind = file.metadata()?.file_type();
    if kind.is_fifo() {
        return read_pipe(file, content);
    }
    file.take(MAX_FILE + 1).read_to_end(content.expose_mut())?;
    Ok(content)
}

/// Waits for the writer of a pipe, and for its end.
fn read_pipe(pipe: File, mut content: SecretBytes) -> io::Result<SecretBytes> {
    let mut pipe = pipe.take(MAX_FILE + 1);
    for _ in 0..WITHIN.as_millis() / PIPE_PAUSE.as_millis() {
        // Into the capacity that the content has: growing would leave copies.
        match pipe.read_to_end(content.expose_mut()) {
            Ok(_) if !content.expose().is_empty() => return Ok(content),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        std::thread::park_timeout(PIPE_PAUSE);
    }
    Err(io::Error::new(ErrorKind::TimedOut, "the pipe has no writer that ends"))
}

/// The text, without spaces and line breaks around it.
pub(crate) fn read_secret_text(path: &str) -> Result<SecretString, String> {
    let content = read_secret(path)?;
    let text = std::str::from_utf8(content.expose()).map_err(|_| format!("{path} is not text"))?;
    Ok(SecretString::new(text.trim().to_owned()))
}

/// As [`read_secret_text`], where other tasks of the thread must go on.
pub(crate) async fn read_secret_text_aside(path: &str) -> Result<SecretString, String> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_secret_text(&owned)).await;
    read.unwrap_or_else(|error| Err(format!("cannot read {path}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_a_pipe_without_a_writer_ends_a_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let shown = path.display().to_string();
        let error = read_secret(&shown).err().unwrap();
        assert!(error.contains("the pipe has no writer"), "{error}");
        let writer = std::thread::spawn(move || std::fs::write(path, "of a pipe\n").unwrap());
        assert_eq!(read_secret_text(&shown).unwrap().expose(), "of a pipe");
        writer.join().unwrap();
    }
}
