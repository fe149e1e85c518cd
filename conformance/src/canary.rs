//! The canary run (AL-01): every scenario is played on a durable, audited server. Afterwards no secret of a request or
//! response may be in its audit file, its log or its data directory, in any encoding in which it could leak.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::play::Play;
use crate::scenario::{Loaded, Needs};
use crate::seal_canary::sec_canary_seals;
use crate::servers::{Make, Server, Storage};

/// Plays the scenarios and searches; returns whether nothing was found.
pub fn run(make: Make, scenarios: &[Loaded]) -> Result<bool> {
    let mut server = Server::start_unsealed(make, Storage::Durable)?;
    let mut secrets = server.keys.clone();
    secrets.push(server.root.clone());
    let mut handles = Vec::new();
    for loaded in scenarios.iter().filter(|loaded| loaded.scenario.needs == Needs::Shared) {
        let mut client = server.client()?;
        let mut play = Play::begin(&mut client, &server.root, &loaded.scenario, false)?;
        for step in &loaded.scenario.steps {
            let response = play.send(step, |_, _| true)?;
            let _ = play.capture(step, &response);
        }
        secrets.append(&mut play.secrets);
        handles.append(&mut play.handles);
        play.end();
    }
    server.terminate()?;
    for list in [&mut secrets, &mut handles] {
        list.sort();
        list.dedup();
    }
    let mut files = Vec::new();
    collect(server.directory(), &mut files)?;
    let mut found = 0;
    let mut bytes = 0;
    for file in &files {
        let content = std::fs::read(file)?;
        bytes += content.len();
        // Accessors of secret ids are names of records; only the operator may see them anywhere else.
        let named =
            if file.starts_with(server.directory().join("data")) { Vec::new() } else { leaked(&content, &handles) };
        for secret in leaked(&content, &secrets).into_iter().chain(named) {
            found += 1;
            let name = file.strip_prefix(server.directory()).unwrap_or(file).display();
            println!(
                "FAIL {}… is in {name}: {}",
                secret.chars().take(24).collect::<String>(),
                context(&content, secret)
            );
        }
    }
    println!("{} secrets searched in {} files, {} KB", secrets.len(), files.len(), bytes / 1024);
    let mut passed = secrets.len() - found.min(secrets.len());
    if make == Make::Keepfast {
        let of_seals = sec_canary_seals()?;
        of_seals.failures.iter().for_each(|failure| println!("FAIL seals: {failure}"));
        passed += of_seals.passed;
        found += of_seals.failures.len();
    }
    println!("{passed} passed, {found} failed");
    Ok(found == 0 && bytes > 0)
}

/// The secrets that a content contains: raw, in hexadecimal, or in base64.
fn leaked<'a>(content: &[u8], secrets: &'a [String]) -> Vec<&'a str> {
    let all = secrets.iter().flat_map(|secret| forms(secret.as_bytes()).map(move |form| (form, secret.as_str())));
    contained(content, &all.collect::<Vec<_>>())
}

/// The names of the forms that a content contains. A name that is the form itself is a word: a longer one with this prefix
/// is another one.
pub(crate) fn contained<'a>(content: &[u8], forms: &[(Vec<u8>, &'a str)]) -> Vec<&'a str> {
    // One search for the first bytes of all forms.
    let mut by_start: std::collections::HashMap<[u8; 8], Vec<usize>> = std::collections::HashMap::new();
    for (index, (form, _)) in forms.iter().enumerate() {
        if let Some(start) = form.first_chunk::<8>() {
            by_start.entry(*start).or_default().push(index);
        }
    }
    let mut found: Vec<&'a str> = Vec::new();
    for (at, window) in content.windows(8).enumerate() {
        let Some(start) = window.first_chunk::<8>() else { continue };
        for index in by_start.get(start).into_iter().flatten() {
            let (form, secret) = &forms[*index];
            let next = content.get(at + form.len()).is_some_and(u8::is_ascii_alphanumeric);
            if content[at..].starts_with(form) && !(next && form == secret.as_bytes()) {
                found.push(secret);
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The text around a raw secret.
fn context(content: &[u8], secret: &str) -> String {
    let at = content.windows(secret.len()).position(|window| window == secret.as_bytes()).unwrap_or(0);
    String::from_utf8_lossy(&content[at.saturating_sub(120)..(at + secret.len() + 20).min(content.len())]).into_owned()
}

/// A secret raw, in hexadecimal and in base64.
pub(crate) fn forms(secret: &[u8]) -> [Vec<u8>; 3] {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    [secret.to_vec(), hex.into_bytes(), base64(secret)]
}

/// Base64 of the complete groups of three bytes, so that the bytes after the secret do not change it.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks_exact(3).map(|g| u32::from(g[0]) << 16 | u32::from(g[1]) << 8 | u32::from(g[2]));
    groups.flat_map(|group| [18, 12, 6, 0].map(|shift| ALPHABET[(group >> shift & 63) as usize])).collect()
}

/// All files below a folder.
///
/// # Errors
/// When a folder cannot be read.
pub(crate) fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { collect(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_secret_in_each_form_and_nothing_else() {
        let secrets = vec!["hvs.CAESIJ0123456789".to_owned(), "another-secret-of-length".to_owned()];
        for content in
            ["x hvs.CAESIJ0123456789 y", "6876732e43414553494a30313233343536373839", "aHZzLkNBRVNJSjAxMjM0NTY3ODk="]
        {
            assert_eq!(leaked(content.as_bytes(), &secrets), ["hvs.CAESIJ0123456789"], "{content}");
        }
        assert!(leaked(b"hmac-sha256:0123456789abcdef", &secrets).is_empty());
    }
}
