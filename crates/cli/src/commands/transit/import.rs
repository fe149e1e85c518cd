//! `transit import` and `transit import-version`: imports external keys.

use std::fs;
use std::io;

use keepfast_client::{Method, Request};
use keepfast_crypto::keys::digest::Hash;
use keepfast_crypto::keys::rsa::RsaKey;
use keepfast_crypto::keys::{pem, wrapping};
use serde_json::Value;

use super::{decode, split_key_path};
use crate::args::Command;
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::data;
use crate::flags::HTTP;
use crate::session::Session;
use crate::terminal;

pub(super) const IMPORT: Command = Command {
    name: "import",
    usage: "PATH KEY [DATA K=V...]",
    about: "Import an external key.",
    details: "
KEY is base64, or @ and the name of a file with base64: the key itself for
ciphers and HMAC, PKCS#8 for key pairs. The command wraps it with the
mount's wrapping key. The data are parameters of the import.

    keepfast transit import transit/keys/app @key.b64 type=rsa-2048
",
    min: 2,
    max: None,
    flags: &[HTTP],
    run: |cx| run(cx, "import"),
};

pub(super) const IMPORT_VERSION: Command = Command {
    name: "import-version",
    usage: "PATH KEY [DATA K=V...]",
    about: "Import a new version of an imported key.",
    details: "
Like transit import, for an existing key.

    keepfast transit import-version transit/keys/app @key.b64
",
    min: 2,
    max: None,
    flags: &[HTTP],
    run: |cx| run(cx, "import_version"),
};

fn run(cx: &Cx, operation: &str) -> Outcome {
    let path = cx.path(0);
    let (mount, name) = split_key_path(&path)?;
    let given = cx.argument(1);
    let text = match given.strip_prefix('@') {
        Some(file) => fs::read_to_string(file).map_err(|error| CommandError::usage(data::opening(file, &error)))?,
        None => given.to_owned(),
    };
    let key = decode(&text).ok_or_else(|| CommandError::usage("The key is not base64"))?;
    let mut body = data::parse(cx.arguments_from(2), &mut io::stdin())?;
    let session = cx.session()?;
    terminal::line("Retrieving wrapping key.");
    let wrapper = wrapping_key(&session, mount)?;
    terminal::line("Wrapping source key with ephemeral key.");
    let wrapped = wrapping::wrap_key(&wrapper, Hash::Sha256, &key);
    let wrapped = wrapped.map_err(|error| CommandError::usage(format!("The key cannot be wrapped: {error}")))?;
    body.insert("ciphertext".to_owned(), Value::String(encode(&wrapped)));
    terminal::line("Submitting wrapped key.");
    let target = format!("{mount}/keys/{name}/{operation}");
    let request = Request::new(Method::Post, &target).with_body(Value::Object(body));
    session.call(&format!("Error importing to {path}"), &request)?;
    terminal::success("Success!");
    Ok(0)
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The wrapping key of a mount.
fn wrapping_key(session: &Session, mount: &str) -> Result<RsaKey, CommandError> {
    let response = session.preflight(Request::new(Method::Get, format!("{mount}/wrapping_key")));
    let secret = response.map_err(|error| CommandError::failed(format!("Error reading the wrapping key: {error}")))?;
    let text = secret.as_ref().and_then(|secret| secret.data_field("public_key")).and_then(Value::as_str);
    let key = text.and_then(pem::decode).and_then(|(_, spki)| RsaKey::from_spki(&spki).ok());
    key.ok_or_else(|| CommandError::failed("The server's wrapping key is not an RSA key"))
}
