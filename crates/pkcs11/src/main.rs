//! Loads the PKCS#11 library of an HSM for the seal pkcs11 and the external keys of the server, as a process of its own: an error in the library
//! ends this process and not the server. It serves the requests on standard input until that is closed.
//!
//! The server logs the exit status: 0 at the end of standard input, [`NO_OUTPUT`], [`NOT_WRITTEN`], 101 for a panic.

mod external;
mod hsm;
#[path = "../../seals/src/pkcs11/protocol.rs"]
mod protocol;

use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use zeroize::Zeroizing;

use hsm::{Failure, Hsm};
use protocol::{Class, MAX_FRAME, Request, Response, read_frame, write_frame};

/// The exit status when standard output cannot be taken for the responses.
const NO_OUTPUT: u8 = 2;
/// The exit status when a response cannot be written.
const NOT_WRITTEN: u8 = 3;

fn main() -> ExitCode {
    forbid_dumps();
    match take_output() {
        Ok(output) => serve(output, &frames()),
        Err(error) => {
            let _ = writeln!(io::stderr(), "keepfast-pkcs11: {error}");
            ExitCode::from(NO_OUTPUT)
        }
    }
}

/// Forbids core dumps and debuggers of the same user: the process has the PIN.
fn forbid_dumps() {
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Takes standard output for the responses. What the library prints goes nowhere.
fn take_output() -> io::Result<File> {
    let output = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    let nowhere = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&nowhere)?;
    Ok(File::from(output))
}

/// The frames of standard input, read by a thread: when the server ends, the process ends even while the library hangs.
fn frames() -> Receiver<Zeroizing<Vec<u8>>> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        while let Ok(frame) = read_frame(&mut input) {
            if sender.send(Zeroizing::new(frame)).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    receiver
}

fn serve(mut output: File, frames: &Receiver<Zeroizing<Vec<u8>>>) -> ExitCode {
    let mut hsm = None;
    while let Ok(frame) = frames.recv() {
        let response = respond(&mut hsm, &frame).unwrap_or_else(Failure::response);
        // The buffer does not grow: growing would leave a copy.
        let mut written = Zeroizing::new(Vec::with_capacity(2 * MAX_FRAME));
        let is_written = serde_json::to_writer(&mut *written, &response).is_ok();
        if let Response::Unwrapped(key) | Response::Decrypted(key) = response {
            drop(Zeroizing::new(key));
        }
        if !is_written || write_frame(&mut output, &written).is_err() {
            return ExitCode::from(NOT_WRITTEN);
        }
    }
    ExitCode::SUCCESS
}

fn respond(hsm: &mut Option<Hsm>, frame: &[u8]) -> Result<Response<String>, Failure> {
    let malformed = |_| Failure::new(Class::Misconfigured, "a malformed request");
    match serde_json::from_slice(frame).map_err(malformed)? {
        Request::Open(open) => {
            let (opened, found) = Hsm::open(open)?;
            *hsm = Some(opened);
            Ok(Response::Found(found))
        }
        Request::Login(pin) => opened(hsm)?.log_in(pin).map(|()| Response::LoggedIn),
        Request::Wrap(key) => {
            let key: Zeroizing<String> = Zeroizing::new(key);
            let key = STANDARD.decode(&*key).map(Zeroizing::new);
            let key = key.map_err(|_| Failure::new(Class::Misconfigured, "the key is not base64"))?;
            opened(hsm)?.wrap(&key).map(Response::Wrapped)
        }
        Request::Unwrap(stored) => {
            let key = opened(hsm)?.unwrap(&stored)?;
            Ok(Response::Unwrapped(STANDARD.encode(&*key)))
        }
        Request::CurrentKey => opened(hsm)?.current_key().map(Response::CurrentKey),
        Request::Describe(name) => external::describe(opened(hsm)?, &name).map(Response::Described),
        Request::Sign(name, with, input) => {
            let signature = external::sign(opened(hsm)?, &name, with, &bytes_of(input)?)?;
            Ok(Response::Bytes(STANDARD.encode(signature)))
        }
        Request::Encrypt(name, with, input) => {
            let ciphertext = external::encrypt(opened(hsm)?, &name, &with, &bytes_of(input)?)?;
            Ok(Response::Bytes(STANDARD.encode(ciphertext)))
        }
        Request::Decrypt(name, with, input) => {
            let plaintext = external::decrypt(opened(hsm)?, &name, &with, &bytes_of(input)?)?;
            Ok(Response::Decrypted(STANDARD.encode(&*plaintext)))
        }
    }
}

/// The bytes of an input in base64.
fn bytes_of(input: String) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let input: Zeroizing<String> = Zeroizing::new(input);
    let bytes = STANDARD.decode(&*input).map(Zeroizing::new);
    bytes.map_err(|_| Failure::new(Class::Misconfigured, "the input is not base64"))
}

fn opened(hsm: &Option<Hsm>) -> Result<&Hsm, Failure> {
    hsm.as_ref().ok_or_else(|| Failure::new(Class::Misconfigured, "the library is not loaded"))
}
