//! Sections of INI files, in which the command lines of clouds keep credentials.

use std::collections::BTreeMap;

use keepfast_crypto::secret::SecretString;

/// The settings of one section.
#[derive(Default)]
pub(crate) struct Profile(BTreeMap<String, SecretString>);

impl Profile {
    /// Adds the settings of a section; they replace those of the same name. Indented lines belong to a nested setting,
    /// which is not read.
    pub(crate) fn read(&mut self, text: &str, section: &str) {
        let mut is_inside = false;
        for line in text.lines() {
            let trimmed = line.trim();
            if let Some(title) = trimmed.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                is_inside = title.split_whitespace().collect::<Vec<_>>().join(" ") == section;
                continue;
            }
            let is_setting = is_inside && !line.starts_with([' ', '\t', '#', ';']);
            if let Some((key, value)) = trimmed.split_once('=').filter(|_| is_setting) {
                let value = value.trim().trim_matches('"');
                self.0.insert(key.trim().to_ascii_lowercase(), SecretString::new(value.to_owned()));
            }
        }
    }

    /// Whether there is no setting.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A setting; `None` when it is not set or empty.
    pub(crate) fn get(&self, key: &str) -> Option<&SecretString> {
        self.0.get(key).filter(|value| !value.expose().is_empty())
    }
}
