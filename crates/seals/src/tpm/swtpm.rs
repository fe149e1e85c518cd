//! A TPM in software for tests: the program `swtpm`, and an interposer between it and the seal.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;

use super::wire::Writer;

/// `TPM_RH_OWNER`, `TPM_RH_LOCKOUT`.
const OWNER: u32 = 0x4000_0001;
const LOCKOUT: u32 = 0x4000_000a;
/// `TPM_RS_PW`, an empty nonce, no attributes, an empty password.
const NO_PASSWORD: [u8; 9] = [0x40, 0, 0, 9, 0, 0, 0, 0, 0];

/// A running `swtpm` with a state of its own.
pub(super) struct Swtpm {
    directory: tempfile::TempDir,
    process: Child,
}

impl Swtpm {
    /// Starts one; `None`, with a message, where it is not installed and not required.
    pub(super) fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let process = run(directory.path());
        if process.is_none() {
            assert!(std::env::var_os("KEEPFAST_SERVERS").is_none(), "swtpm is not installed");
            eprintln!("skipped: swtpm is not installed");
        }
        Some(Swtpm { process: process?, directory })
    }

    /// The socket for commands.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("tpm")
    }

    /// Switches the TPM off and on.
    pub(super) fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::fs::remove_file(self.path()).unwrap();
        self.process = run(self.directory.path()).unwrap();
    }

    /// Runs a command with handles; returns the response after its header, which must have the code 0.
    fn command(&self, code: u32, handles: &[u32], with_password: bool, parameters: &[u8]) -> Vec<u8> {
        let mut body = handles.iter().fold(Writer::new(), |writer, handle| writer.u32(*handle));
        if with_password {
            body = body.u32(9).raw(&NO_PASSWORD);
        }
        let body = body.raw(parameters).finish();
        let size = u32::try_from(body.expose().len() + 10).unwrap();
        let tag = if with_password { 0x8002 } else { 0x8001 };
        let message = Writer::new().u16(tag).u32(size).u32(code).raw(body.expose()).finish();
        let mut stream = UnixStream::connect(self.path()).unwrap();
        let response = exchange(&mut stream, message.expose());
        assert_eq!(response[6..10], [0; 4], "{code:x}");
        response[10..].to_vec()
    }

    /// `TPM2_PCR_Extend`.
    pub(super) fn extend(&self, pcr: u32) {
        let digest = Writer::new().u32(1).u16(0x000b).raw(&[7; 32]).finish();
        self.command(0x0182, &[pcr], true, digest.expose());
    }

    /// `TPM2_Clear`: the owner hierarchy gets another seed.
    pub(super) fn clear(&self) {
        self.command(0x0126, &[LOCKOUT], true, &[]);
    }

    /// `TPM2_HierarchyChangeAuth` of the owner hierarchy.
    pub(super) fn set_owner_auth(&self, auth: &[u8]) {
        self.command(0x0129, &[OWNER], true, Writer::new().sized(auth).finish().expose());
    }

    /// `TPM2_DictionaryAttackParameters`: the number of refusals until the lockout, in which a day frees one.
    pub(super) fn set_max_tries(&self, tries: u32) {
        let parameters = Writer::new().u32(tries).u32(86_400).u32(86_400).finish();
        self.command(0x013a, &[LOCKOUT], true, parameters.expose());
    }

    /// `TPM_PT_LOCKOUT_COUNTER`.
    pub(super) fn refusals(&self) -> u32 {
        let read = self.command(0x017a, &[], false, Writer::new().u32(6).u32(0x20e).u32(1).finish().expose());
        u32::from_be_bytes(read[read.len() - 4..].try_into().unwrap())
    }

    /// The number of loaded objects and sessions.
    pub(super) fn loaded(&self) -> u32 {
        let of = |first: u32| {
            let read = self.command(0x017a, &[], false, Writer::new().u32(1).u32(first).u32(100).finish().expose());
            u32::from_be_bytes(read[5..9].try_into().unwrap())
        };
        of(0x8000_0000) + of(0x0200_0000) + of(0x0300_0000)
    }

    /// Creates a primary key with this authorization value and makes it persistent: an RSA key of 2048 bits.
    pub(super) fn persist_rsa_key(&self, handle: u32, auth: &[u8]) {
        let public = Writer::new().u16(0x0001).u16(0x000b).u32(0x0003_0472).sized(&[]).aes_128_cfb();
        let public = public.u16(0x0010).u16(2048).u32(0).sized(&[]).finish();
        let sensitive = Writer::new().sized(auth).sized(&[]).finish();
        let parameters = Writer::new().sized(sensitive.expose()).sized(public.expose()).sized(&[]).u32(0).finish();
        let created = self.command(0x0131, &[OWNER], true, parameters.expose());
        let transient = u32::from_be_bytes(created[..4].try_into().unwrap());
        self.command(0x0120, &[OWNER, transient], true, &handle.to_be_bytes());
        self.command(0x0165, &[transient], false, &[]);
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts `swtpm` and waits until it listens.
fn run(directory: &Path) -> Option<Child> {
    let mut command = Command::new("swtpm");
    command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"]);
    let path = directory.join("tpm");
    command.arg("--tpmstate").arg(format!("dir={}", directory.display()));
    command.arg("--server").arg(format!("type=unixio,path={}", path.display()));
    command.arg("--ctrl").arg(format!("type=unixio,path={}.ctrl", path.display()));
    let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut process = match process {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        other => other.unwrap(),
    };
    while UnixStream::connect(&path).is_err() {
        assert!(process.try_wait().unwrap().is_none(), "swtpm ended");
        std::thread::yield_now();
    }
    Some(process)
}

/// Sends a command and reads the response.
fn exchange(stream: &mut UnixStream, message: &[u8]) -> Vec<u8> {
    stream.write_all(message).unwrap();
    read_message(stream).unwrap()
}

fn read_message(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut message = vec![0; 10];
    stream.read_exact(&mut message).ok()?;
    let size = u32::from_be_bytes(message[2..6].try_into().unwrap()) as usize;
    message.resize(size, 0);
    stream.read_exact(&mut message[10..]).ok()?;
    Some(message)
}

/// What an interposer returns instead of a response: the code of the command and the response; `None` never responds.
type Change = Box<dyn Fn(u32, Vec<u8>) -> Option<Vec<u8>> + Send>;

/// Passes commands to a TPM, reads everything and changes responses. Its thread ends with the tests.
#[derive(Clone)]
pub(super) struct Interposer {
    directory: Arc<tempfile::TempDir>,
    state: Arc<Mutex<InterposerState>>,
}

struct InterposerState {
    tpm: PathBuf,
    change: Change,
    /// All commands and responses.
    seen: Vec<Vec<u8>>,
}

impl Interposer {
    pub(super) fn before(tpm: &Swtpm) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let state =
            InterposerState { tpm: tpm.path(), change: Box::new(|_, response| Some(response)), seen: Vec::new() };
        let interposer = Interposer { directory, state: Arc::new(Mutex::new(state)) };
        let (listener, state) = (UnixListener::bind(interposer.path()).unwrap(), interposer.state.clone());
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                pass(stream, &state);
            }
        });
        interposer
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("tpm")
    }

    /// Passes commands to another TPM from now on.
    pub(super) fn replace(&self, tpm: &Swtpm) {
        self.state.lock().tpm = tpm.path();
    }

    /// Changes the responses from now on.
    pub(super) fn change(&self, change: impl Fn(u32, Vec<u8>) -> Option<Vec<u8>> + Send + 'static) {
        self.state.lock().change = Box::new(change);
    }

    /// Whether these bytes were sent in either direction.
    pub(super) fn has_seen(&self, bytes: &[u8]) -> bool {
        self.state.lock().seen.iter().any(|message| message.windows(bytes.len()).any(|part| part == bytes))
    }

    /// The codes of the commands until now.
    pub(super) fn commands(&self) -> Vec<u32> {
        let state = self.state.lock();
        state.seen.iter().step_by(2).map(|message| u32::from_be_bytes(message[6..10].try_into().unwrap())).collect()
    }
}

/// Serves one connection.
fn pass(mut stream: UnixStream, state: &Mutex<InterposerState>) {
    let mut tpm = UnixStream::connect(&state.lock().tpm).unwrap();
    while let Some(command) = read_message(&mut stream) {
        let response = exchange(&mut tpm, &command);
        let code = u32::from_be_bytes(command[6..10].try_into().unwrap());
        let mut state = state.lock();
        state.seen.extend([command, response.clone()]);
        let changed = (state.change)(code, response);
        drop(state);
        // Without a response the caller ends the connection.
        let sent = changed.map_or(Ok(()), |changed| stream.write_all(&changed));
        if sent.is_err() {
            break;
        }
    }
}
