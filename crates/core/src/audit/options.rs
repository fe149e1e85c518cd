//! The options of an audit device, read and checked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use keepfast_framework::fields::truth;

use super::device_error::DeviceError;
use super::entry::Format;
use crate::settings::AuditSettings;

/// The options of a file device, as in Vault.
/// <https://developer.hashicorp.com/vault/docs/audit/file>
const KNOWN: &[&str] =
    &["file_path", "path", "mode", "format", "log_raw", "hmac_accessor", "prefix", "elide_list_responses"];

/// The default permissions of a log.
const PRIVATE: u32 = 0o600;

/// The options of one device, checked.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// The target of entries.
    pub(crate) target: Target,
    /// The permissions that the file gets at each open; `None` leaves those of an existing file (`mode = "0000"`).
    pub(crate) mode: Option<u32>,
    /// The format of entries.
    pub(crate) format: Format,
}

/// The target of a file device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Standard output.
    Stdout,
    /// No target: entries are discarded.
    Discard,
    /// A file, a named pipe or a character device.
    Path(PathBuf),
}

impl DeviceOptions {
    /// Parses the options of a device of this type.
    ///
    /// # Errors
    /// The reason, as a text for the operator, in OpenBao's wording where it refuses the same.
    pub fn read(device: &str, options: &BTreeMap<String, String>) -> Result<Self, String> {
        if device != "file" {
            return Err(format!("unknown backend type: {device:?}"));
        }
        let text = |name: &str| options.get(name).map(String::as_str);
        let flag = |name: &str, default: bool| match text(name) {
            None => Ok(default),
            Some(given) => truth(given).filter(|_| !given.is_empty()).ok_or_else(|| not_a_flag(name)),
        };
        let target = match text("file_path").or_else(|| text("path")) {
            None | Some("") => return Err("file_path is required".into()),
            Some("stdout" | "/dev/stdout") => Target::Stdout,
            Some("discard") => Target::Discard,
            Some(path) if path.contains('\0') => return Err("file_path contains a NUL character".into()),
            Some(path) => Target::Path(path.into()),
        };
        match text("format") {
            None | Some("" | "json") => {}
            Some("jsonx") => {
                return Err("jsonx formatting has been removed, consider switching to json by omitting \"format\" or \
                            setting it to \"json\""
                    .into());
            }
            Some(other) => return Err(format!("unknown format type {other:?}")),
        }
        let prefix = text("prefix").unwrap_or_default().to_owned();
        if prefix.chars().any(char::is_control) {
            return Err("prefix contains a control character".into());
        }
        let format = Format {
            log_raw: flag("log_raw", false)?,
            hmac_accessor: flag("hmac_accessor", true)?,
            elide_list_responses: flag("elide_list_responses", false)?,
            prefix,
        };
        Ok(DeviceOptions { target, mode: mode(text("mode"))?, format })
    }

    /// The options of a declared device.
    pub(crate) fn of(settings: &AuditSettings) -> Result<Self, DeviceError> {
        let refused = |reason| DeviceError { device: settings.name.clone(), reason };
        Self::read(&settings.device, &settings.options).map_err(refused)
    }

    /// The options of a device with invalid ones: it writes nothing.
    pub(super) fn unusable() -> Self {
        let format = Format { log_raw: false, hmac_accessor: true, elide_list_responses: false, prefix: String::new() };
        DeviceOptions { target: Target::Discard, mode: Some(PRIVATE), format }
    }

    /// Whether lines have a prefix.
    pub fn has_prefix(&self) -> bool {
        !self.format.prefix.is_empty()
    }

    /// The names of options that no device has.
    pub fn unknown(options: &BTreeMap<String, String>) -> Vec<&str> {
        options.keys().map(String::as_str).filter(|name| !KNOWN.contains(name)).collect()
    }
}

fn not_a_flag(name: &str) -> String {
    format!("{name} is neither true nor false")
}

/// The permissions: 0600 by default, never executable.
fn mode(text: Option<&str>) -> Result<Option<u32>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Some(PRIVATE)) };
    let mode = u32::from_str_radix(text, 8).map_err(|_| "mode is not an octal number".to_owned())?;
    match mode {
        0 => Ok(None),
        _ if mode & 0o111 != 0 => Err("mode must not make the audit log executable".into()),
        _ if mode > 0o666 => Err("mode must be at most 0666".into()),
        _ => Ok(Some(mode)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<DeviceOptions, String> {
        let all = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        DeviceOptions::read("file", &all)
    }

    #[test]
    fn options_that_cannot_be_honoured_are_refused() {
        for (option, value, text) in [
            ("format", "jsonx", "jsonx formatting has been removed"),
            ("format", "xml", "unknown format type \"xml\""),
            ("mode", "abc", "not an octal number"),
            ("mode", "0755", "executable"),
            ("mode", "4600", "at most 0666"),
            ("log_raw", "maybe", "log_raw is neither"),
            ("log_raw", "", "log_raw is neither"),
            ("hmac_accessor", "2", "hmac_accessor is neither"),
            ("elide_list_responses", "y", "elide_list_responses is neither"),
            ("prefix", "a\nb", "control character"),
        ] {
            let refused = read(&[("file_path", "/x"), (option, value)]).unwrap_err();
            assert!(refused.contains(text), "{option}={value}: {refused}");
        }
        assert_eq!(read(&[]).unwrap_err(), "file_path is required");
        assert!(DeviceOptions::read("socket", &BTreeMap::new()).unwrap_err().contains("unknown backend type"));
    }

    #[test]
    fn options_have_the_defaults_of_vault() {
        let plain = read(&[("path", "/x")]).unwrap();
        assert_eq!((plain.target, plain.mode), (Target::Path("/x".into()), Some(0o600)));
        assert!(!plain.format.log_raw && plain.format.hmac_accessor && !plain.format.elide_list_responses);
        let set = read(&[("file_path", "stdout"), ("mode", "0000"), ("log_raw", "T"), ("format", "json")]).unwrap();
        assert_eq!((set.target, set.mode, set.format.log_raw), (Target::Stdout, None, true));
        assert_eq!(read(&[("file_path", "discard"), ("mode", "0640")]).unwrap().mode, Some(0o640));
        let options = BTreeMap::from([("file_path".to_owned(), String::new()), ("mod".to_owned(), String::new())]);
        assert_eq!(DeviceOptions::unknown(&options), ["mod"]);
    }
}
