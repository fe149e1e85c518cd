//! A TPM: a character device such as `/dev/tpmrm0`, or the Unix socket of `swtpm`. Both take the bytes of one command and
//! return those of its response.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keepfast_crypto::secret::SecretBytes;
use keepfast_framework::seal::SealError;

use super::failure::Failure;
use super::wire::{Command, HEADER, MAX_MESSAGE, NO_SESSIONS, Reader, Writer};
use crate::call::{denied, misconfigured, unreachable_because};

/// How often a command is sent again that the TPM did not begin; the kernel has waited before it passes this on.
const REPETITIONS: usize = 3;
/// `TPM_RC_YIELDED`, `TPM_RC_TESTING`, `TPM_RC_RETRY`.
const NOT_STARTED: [u32; 3] = [0x908, 0x90a, 0x922];

/// An open TPM. The objects and sessions that it has loaded for its caller are flushed by [`close`](Self::close).
pub(super) struct Device {
    stream: Stream,
    loaded: Vec<u32>,
    is_abandoned: Arc<AtomicBool>,
    is_broken: bool,
}

enum Stream {
    Chip(File),
    Socket(UnixStream),
}

impl Device {
    /// Opens the TPM of this path. No other command begins once `is_abandoned` is set. A socket has the timeout; the driver of
    /// a chip has its own ones.
    pub(super) fn open(path: &Path, timeout: Duration, is_abandoned: Arc<AtomicBool>) -> Result<Self, SealError> {
        let failed = |error: std::io::Error| {
            let cause = format!("cannot open {}: {error}", path.display());
            match error.kind() {
                ErrorKind::PermissionDenied => denied(cause),
                _ => unreachable_because(cause),
            }
        };
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        let stream = if kind.is_socket() {
            let socket = UnixStream::connect(path).map_err(failed)?;
            socket
                .set_read_timeout(Some(timeout))
                .and_then(|()| socket.set_write_timeout(Some(timeout)))
                .map_err(failed)?;
            Stream::Socket(socket)
        } else if kind.is_char_device() {
            Stream::Chip(OpenOptions::new().read(true).write(true).open(path).map_err(failed)?)
        } else {
            return Err(misconfigured(format!("{} is neither a character device nor a Unix socket", path.display())));
        };
        Ok(Device { stream, loaded: Vec::new(), is_abandoned, is_broken: false })
    }

    /// Sends a command with this tag, from its handles on. Returns the response after its header.
    pub(super) fn call(&mut self, tag: u16, command: Command, body: &[u8]) -> Result<SecretBytes, Failure> {
        if self.is_abandoned.load(Ordering::SeqCst) {
            return Err(unreachable_because("the call was abandoned").into());
        }
        let mut repeated = 0;
        loop {
            match self.exchange(tag, command, body) {
                Err(Failure::Code(_, code)) if NOT_STARTED.contains(&code) && repeated < REPETITIONS => repeated += 1,
                outcome => return outcome,
            }
        }
    }

    fn exchange(&mut self, tag: u16, command: Command, body: &[u8]) -> Result<SecretBytes, Failure> {
        let length = HEADER + body.len();
        let size = u32::try_from(length).ok().filter(|_| length <= MAX_MESSAGE);
        let size = size.ok_or_else(|| misconfigured("the command is too long for a TPM"))?;
        let message = Writer::new().u16(tag).u32(size).u32(command.code()).raw(body).finish();
        // A response that belongs to an earlier command must not be read later.
        let was_broken = std::mem::replace(&mut self.is_broken, true);
        if was_broken {
            return Err(unreachable_because("the connection to the TPM failed").into());
        }
        let response = self.stream.exchange(message.expose())?;
        self.is_broken = false;
        let mut header = Reader::new(response.expose());
        let (Some(response_tag), Some(_), Some(code)) = (header.u16(), header.u32(), header.u32()) else {
            return Err(malformed(command).into());
        };
        match code {
            0 if response_tag == tag => Ok(SecretBytes::new(response.expose()[HEADER..].to_vec())),
            0 => Err(malformed(command).into()),
            _ => Err(Failure::Code(command, code)),
        }
    }

    /// Notes an object or a session that is flushed at the end.
    pub(super) fn has_loaded(&mut self, handle: u32) -> u32 {
        self.loaded.push(handle);
        handle
    }

    /// Flushes one session: some TPMs have room for three.
    pub(super) fn flush(&mut self, handle: u32) {
        self.loaded.retain(|loaded| *loaded != handle);
        // The handle is a parameter of this command.
        let _ = self.exchange(NO_SESSIONS, Command::FlushContext, &handle.to_be_bytes());
    }

    /// Flushes what is loaded: `swtpm` and `/dev/tpm0` have no resource manager, and room for three objects.
    pub(super) fn close(mut self) {
        while let Some(handle) = self.loaded.pop() {
            self.flush(handle);
        }
    }
}

impl Stream {
    /// Writes a command and reads the response, whose size is that of its header.
    fn exchange(&mut self, message: &[u8]) -> Result<SecretBytes, SealError> {
        let failed = |error: std::io::Error| unreachable_because(format!("the TPM does not respond: {error}"));
        let written = match self {
            Stream::Chip(file) => file.write_all(message),
            Stream::Socket(socket) => socket.write_all(message),
        };
        written.map_err(failed)?;
        let mut buffer = SecretBytes::new(vec![0; MAX_MESSAGE]);
        let mut read = 0;
        loop {
            // A device returns the response of one command by one read.
            let room = buffer.expose_mut().get_mut(read..).unwrap_or_default();
            let more = match self {
                Stream::Chip(file) => file.read(room),
                Stream::Socket(socket) => socket.read(room),
            };
            let more = match more {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.map_err(failed)?,
            };
            read += more;
            let invalid = || unreachable_because("the TPM sent a response of an invalid length");
            if more == 0 {
                return Err(invalid());
            }
            let received = buffer.expose().get(..read).unwrap_or_default();
            let Some(size) = received.get(2..6).and_then(|size| size.first_chunk::<4>()) else { continue };
            let size = usize::try_from(u32::from_be_bytes(*size)).unwrap_or(usize::MAX);
            if !(HEADER..=MAX_MESSAGE).contains(&size) || read > size {
                return Err(invalid());
            }
            if read == size {
                buffer.expose_mut().truncate(size);
                return Ok(buffer);
            }
        }
    }
}

/// A response that is not in the form of the specification.
pub(super) fn malformed(command: Command) -> SealError {
    unreachable_because(format!("the TPM sent an invalid response to {command:?}"))
}
