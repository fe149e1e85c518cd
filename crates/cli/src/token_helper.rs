//! The token helper: a program of the user that stores the token, named by `token_helper` in `~/.bao` or `~/.vault`.
//!
//! A shell runs it with `get`, `store` (the token is on its standard input) or `erase` as its last argument.
//! Source: <https://developer.hashicorp.com/vault/docs/commands/token-helper>.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use keepfast_client::{Address, Error, SecretString, environment};
use keepfast_hcl::{Item, ValueKind};

/// The configuration files of the command line in the home directory; the first that exists applies.
const FILES: [&str; 2] = [".bao", ".vault"];
/// The maximum output of a helper in bytes.
const LONGEST: usize = 64 << 10;

/// A program that stores the token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TokenHelper {
    program: String,
}

impl TokenHelper {
    /// The configured helper, if any.
    ///
    /// # Errors
    /// When the configuration file is unreadable, has an unknown key, or does not name a program.
    pub(crate) fn configured() -> Result<Option<Self>, Error> {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        if let Some((name, path)) = environment::variable("CONFIG_PATH") {
            let path = expanded(&path, home.as_deref());
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Error::Config(format!("{name}: cannot read {}: {error}", path.display())))?;
            return Self::parse(&text, &path, home.as_deref());
        }
        let Some(home) = home else { return Ok(None) };
        let Some(path) = FILES.iter().map(|name| home.join(name)).find(|path| path.is_file()) else { return Ok(None) };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Error::Config(format!("cannot read {}: {error}", path.display())))?;
        Self::parse(&text, &path, Some(&home))
    }

    fn parse(text: &str, path: &Path, home: Option<&Path>) -> Result<Option<Self>, Error> {
        let refused = |why: &str| {
            let conflict = "Ansible Vault uses a file of the same name";
            Error::Config(format!("the command line's configuration {}: {why} ({conflict})", path.display()))
        };
        // Without the text of the error, which would quote the file: it may contain a password.
        let document = keepfast_hcl::parse(text).map_err(|error| {
            let at = error.position;
            refused(&format!("line {}, column {}: not HCL", at.line, at.column))
        })?;
        let mut program = None;
        for item in &document.body.items {
            match (item.name(), value_of(item)) {
                ("token_helper", Some(value)) => program = Some(value.trim().to_owned()),
                ("token_helper", None) => return Err(refused("token_helper is not a string")),
                (other, _) => return Err(refused(&format!("invalid key {other:?}"))),
            }
        }
        let Some(program) = program.filter(|program| !program.is_empty()) else { return Ok(None) };
        let program = expanded(&program, home).display().to_string();
        let file = Path::new(program.split_whitespace().next().unwrap_or_default());
        let exists = Path::new(&program).is_file() || (file.is_absolute() && file.is_file());
        if !exists {
            return Err(refused(&format!("token_helper: {program} is not the absolute path of a program")));
        }
        Ok(Some(Self { program }))
    }

    /// The token of the helper; `None` when it has none.
    ///
    /// # Errors
    /// When the helper cannot run, fails, or prints too much. The message contains its standard error.
    pub(crate) fn get(&self, address: &Address) -> Result<Option<SecretString>, Error> {
        let printed = self.finish("get", self.start("get", address)?)?;
        let text = String::from_utf8_lossy(&printed);
        if printed.len() > LONGEST {
            return Err(self.failed("get", &"its output is longer than a token"));
        }
        let token = text.trim();
        if token.chars().any(|c| !(' '..='~').contains(&c)) {
            return Err(self.failed("get", &"the token contains characters that are invalid in a header"));
        }
        Ok((!token.is_empty()).then(|| SecretString::new(token.to_owned())))
    }

    /// Passes a token to the helper.
    ///
    /// # Errors
    /// When the helper cannot run or fails.
    pub(crate) fn store(&self, address: &Address, token: &SecretString) -> Result<(), Error> {
        let mut child = self.start("store", address)?;
        if let Some(mut input) = child.stdin.take() {
            // A failing helper may not read its input; its exit code reports the failure.
            let _ = input.write_all(token.expose().as_bytes());
        }
        self.finish("store", child).map(drop)
    }

    fn start(&self, operation: &str, address: &Address) -> Result<Child, Error> {
        let address = match address {
            Address::Unix(path) => format!("unix://{}", path.display()),
            address @ Address::Http(_) => address.base(),
        };
        Command::new("/bin/sh")
            .arg("-c")
            .arg(format!("{} {operation}", self.program))
            .env("VAULT_ADDR", &address)
            .env("BAO_ADDR", &address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| self.failed(operation, &error))
    }

    /// Waits for the helper and returns its output.
    fn finish(&self, operation: &str, child: Child) -> Result<Vec<u8>, Error> {
        let done = child.wait_with_output().map_err(|error| self.failed(operation, &error))?;
        if done.status.success() {
            return Ok(done.stdout);
        }
        let printed = String::from_utf8_lossy(&done.stderr[..done.stderr.len().min(1024)]).trim().to_owned();
        Err(self.failed(operation, &format!("{printed:?}: {}", done.status)))
    }

    fn failed(&self, operation: &str, why: &dyn std::fmt::Display) -> Error {
        Error::Config(format!("token helper {} {operation}: {why}", self.program))
    }
}

fn value_of(item: &Item) -> Option<&str> {
    match &item.value.kind {
        ValueKind::String(text) if item.keys.len() == 1 => Some(text),
        _ => None,
    }
}

/// Expands `~/` to the home directory.
fn expanded(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn parsed(text: &str) -> Result<Option<TokenHelper>, String> {
        TokenHelper::parse(text, Path::new("/h/.vault"), Some(Path::new("/h"))).map_err(|error| error.to_string())
    }

    #[test]
    fn a_configuration_without_an_existing_program_is_refused() {
        assert_eq!(parsed(""), Ok(None));
        assert_eq!(parsed("token_helper = \"\""), Ok(None));
        let shell = parsed("token_helper = \"/bin/sh -x\"").unwrap().unwrap();
        assert_eq!(shell.program, "/bin/sh -x");
        assert!(!parsed("hunter2secret").unwrap_err().contains("hunter2"), "the file may hold a password");
        for (text, word) in [
            ("token_helper = \"/not/there\"", "/not/there"),
            ("token_helper = \"sh\"", "absolute path"),
            ("token_helper = 7", "not a string"),
            ("other = \"x\"", "invalid key \"other\""),
            ("$ANSIBLE_VAULT;1.1;AES256", "Ansible Vault"),
        ] {
            let message = parsed(text).unwrap_err();
            assert!(message.contains("/h/.vault") && message.contains(word), "{message}");
        }
    }
}
