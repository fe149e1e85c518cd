//! `transit encrypt-file` and `transit decrypt-file`: files of any size, in constant memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use keepfast_client::{Method, Request, Secret};
use keepfast_crypto::aead::AeadKey;
use keepfast_crypto::locked::Key256;
use serde_json::{Value, json};

use super::{decode, envelope, split_key_path};
use crate::args::{Command, Flag, FlagSet, Kind};
use crate::command_error::{CommandError, Outcome};
use crate::cx::Cx;
use crate::data;
use crate::flags::HTTP;
use crate::terminal::{self, Progress};

/// The suffix of encrypted files.
const SUFFIX: &str = "kft";

const FILES: FlagSet = FlagSet {
    title: "Command",
    flags: &[
        Flag::new("out", Kind::Text, "The file to write."),
        Flag::new("force", Kind::Bool, "Overwrite an existing file."),
    ],
};

pub(super) const ENCRYPT: Command = Command {
    name: "encrypt-file",
    usage: "PATH FILE",
    about: "Encrypt a file with a new key that a transit key encrypts.",
    details: "
The server encrypts only the new data key; the file is not sent. The default
output is FILE.kft.

    keepfast transit encrypt-file transit/keys/backup dump.tar
",
    min: 2,
    max: Some(2),
    flags: &[HTTP, FILES],
    run: encrypt,
};

pub(super) const DECRYPT: Command = Command {
    name: "decrypt-file",
    usage: "PATH FILE",
    about: "Decrypt a file of encrypt-file.",
    details: "
The default output is FILE without its suffix .kft. It is created only when all
of the file is authentic.

    keepfast transit decrypt-file transit/keys/backup dump.tar.kft
",
    min: 2,
    max: Some(2),
    flags: &[HTTP, FILES],
    run: decrypt,
};

fn encrypt(cx: &Cx) -> Outcome {
    let path = cx.path(0);
    let (mount, name) = split_key_path(&path)?;
    let source = Path::new(cx.argument(1));
    let target = target(cx, || Some(PathBuf::from(format!("{}.{SUFFIX}", source.display()))))?;
    let mut from = reader(source)?;
    let request = Request::new(Method::Post, format!("{mount}/datakey/plaintext/{name}")).with_body(json!({}));
    let secret = cx.session()?.call(&format!("Error creating a data key with {path}"), &request)?;
    let key = data_key(secret.as_ref())?;
    let encrypted = field(secret.as_ref(), "ciphertext")?.to_owned();
    let mut progress = Progress::of(length(source));
    write_new(&target, |to| {
        let header = envelope::write_header(&encrypted, to)?;
        envelope::seal(&key, &header, &mut from, to, &mut |read| progress.advance(read))?;
        progress.finish();
        Ok(())
    })?;
    cx.output.success(&format!("Success! Encrypted to: {}", target.display()));
    Ok(0)
}

fn decrypt(cx: &Cx) -> Outcome {
    let path = cx.path(0);
    let (mount, name) = split_key_path(&path)?;
    let source = Path::new(cx.argument(1));
    let plain = || source.extension().is_some_and(|ending| ending == SUFFIX).then(|| source.with_extension(""));
    let target = target(cx, plain)?;
    let mut from = reader(source)?;
    let header = envelope::read_header(&mut from);
    let (encrypted, header) =
        header.map_err(|error| CommandError::usage(data::opening(&source.display().to_string(), &error)))?;
    let request =
        Request::new(Method::Post, format!("{mount}/decrypt/{name}")).with_body(json!({ "ciphertext": encrypted }));
    let secret = cx.session()?.call(&format!("Error decrypting the key with {path}"), &request)?;
    let key = data_key(secret.as_ref())?;
    let mut progress = Progress::of(length(source));
    write_new(&target, |to| {
        envelope::open(&key, &header, &mut from, to, &mut |read| progress.advance(read))?;
        progress.finish();
        Ok(())
    })?;
    cx.output.success(&format!("Success! Decrypted to: {}", target.display()));
    Ok(0)
}

/// The file to write, which must not exist without -force.
fn target(cx: &Cx, default: impl Fn() -> Option<PathBuf>) -> Result<PathBuf, CommandError> {
    let target = cx.words.text("out").map(PathBuf::from).or_else(default);
    let target = target.ok_or_else(|| CommandError::usage("Specify the file to write with -out"))?;
    if target.exists() && !cx.words.on("force") {
        return Err(CommandError::usage(format!("{} exists; -force overwrites it", target.display())));
    }
    Ok(target)
}

fn reader(path: &Path) -> Result<impl Read, CommandError> {
    let file =
        File::open(path).map_err(|error| CommandError::usage(data::opening(&path.display().to_string(), &error)))?;
    Ok(BufReader::new(file))
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Writes a temporary file that only its owner can read, and renames it when all data is written.
fn write_new(target: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), CommandError> {
    let unfinished = PathBuf::from(format!("{}.part", target.display()));
    let written = create(&unfinished).and_then(|file| {
        let mut to = BufWriter::new(file);
        fill(&mut to)?;
        to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&unfinished, target)
    });
    terminal::progress_done();
    written.map_err(|error| {
        let _ = fs::remove_file(&unfinished);
        CommandError::usage(format!("Error writing {}: {error}", target.display()))
    })
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn field<'a>(secret: Option<&'a Secret>, name: &str) -> Result<&'a str, CommandError> {
    let value = secret.and_then(|secret| secret.data_field(name)).and_then(Value::as_str);
    value.ok_or_else(|| CommandError::failed(format!("The server's response has no {name}")))
}

/// The plaintext data key in a response.
fn data_key(secret: Option<&Secret>) -> Result<AeadKey, CommandError> {
    let bytes = decode(field(secret, "plaintext")?);
    let key = bytes.and_then(|bytes| Key256::from_slice(&bytes));
    Ok(AeadKey::new(&key.ok_or_else(|| CommandError::failed("The server's response is not a key of 256 bits"))?))
}
