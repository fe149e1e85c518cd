//! GnuPG with a keyring of its own. Also used by the tests of the server and of the command line.

use std::cell::Cell;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// GnuPG with a keyring of its own.
pub(crate) struct Gpg {
    home: tempfile::TempDir,
    /// The second of the next command, if the clock is not the real one.
    second: Option<Cell<u32>>,
}

/// 2026-01-01T00:00:00Z; GnuPG starts here, and each command is a second later: signatures of one second conflict.
#[allow(dead_code, reason = "not all tests have a clock")]
pub(crate) const START: u64 = 1_767_225_600;

pub(crate) const RSA: &str =
    "Key-Type: RSA\nKey-Length: 3072\nKey-Usage: sign\nSubkey-Type: RSA\nSubkey-Length: 2048\nSubkey-Usage: encrypt";
pub(crate) const CURVE: &str = "Key-Type: EDDSA\nKey-Curve: Ed25519\nKey-Usage: sign\nSubkey-Type: ECDH\nSubkey-Curve: Cv25519\nSubkey-Usage: encrypt";
#[allow(dead_code, reason = "not all tests need it")]
pub(crate) const SIGN_ONLY: &str = "Key-Type: EDDSA\nKey-Curve: Ed25519\nKey-Usage: sign";

impl Gpg {
    /// A keyring from [`START`] on. `None`, with a message, where GnuPG is missing and not required.
    #[allow(dead_code, reason = "not all tests have a clock")]
    pub(crate) fn new() -> Option<Self> {
        let mut gpg = Self::of_today()?;
        gpg.second = Some(Cell::new(0));
        Some(gpg)
    }

    /// The same with the real clock.
    pub(crate) fn of_today() -> Option<Self> {
        if Command::new("gpg").arg("--version").output().is_err() {
            assert!(std::env::var_os("KEEPFAST_SERVERS").is_none(), "gpg is not installed");
            eprintln!("skipped: gpg is not installed");
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("gpg.conf"), "pinentry-mode loopback\npassphrase ''\nno-permission-warning\n")
            .unwrap();
        Some(Gpg { home, second: None })
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn run(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.output(arguments, input);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    pub(crate) fn output(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--yes", "--quiet", "--passphrase", ""]);
        if let Some(second) = &self.second {
            second.set(second.get() + 1);
            command.args(["--faked-system-time", &format!("20260101T0000{:02}!", second.get())]);
        }
        command.args(arguments).env("GNUPGHOME", self.home());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
        child.wait_with_output().unwrap()
    }

    /// A key with these parameters of GnuPG; returns its certificate.
    pub(crate) fn generate(&self, parameters: &str) -> Vec<u8> {
        let text =
            format!("%no-protection\n{parameters}\nName-Real: a\nName-Email: a@example.com\nExpire-Date: 0\n%commit\n");
        self.run(&["--generate-key"], text.as_bytes());
        self.run(&["--export", "a@example.com"], b"")
    }

    pub(crate) fn fingerprint(&self) -> String {
        let listing = self.run(&["--with-colons", "--fingerprint", "a@example.com"], b"");
        let listing = String::from_utf8(listing).unwrap();
        let line = listing.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_ascii_lowercase()
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").args(["--kill", "gpg-agent"]).env("GNUPGHOME", self.home()).output();
    }
}
