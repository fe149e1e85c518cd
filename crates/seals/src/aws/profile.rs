//! The shared files of AWS: `~/.aws/credentials` and `~/.aws/config`.
//!
//! Source: <https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html>.

use keepfast_framework::seal::SealError;

use crate::call::misconfigured;
use crate::profile::Profile;
use crate::secret_file::read_secret_text;

/// Where the shared files are.
#[derive(Clone, Default)]
pub(super) struct SharedFiles {
    /// The file of credentials.
    pub(super) credentials: Option<String>,
    /// The file of settings.
    pub(super) config: Option<String>,
}

impl SharedFiles {
    /// As [`profile`](Self::profile), where other tasks of the thread must go on.
    pub(super) async fn profile_aside(&self, name: &str) -> Result<Option<Profile>, SealError> {
        let (files, name) = (self.clone(), name.to_owned());
        let read = tokio::task::spawn_blocking(move || files.profile(&name)).await;
        read.unwrap_or_else(|error| Err(misconfigured(error.to_string())))
    }

    /// A profile, with the settings of both files, those of the file of credentials first; `None` when no file has it. A file that is missing has no profiles.
    ///
    /// # Errors
    /// When a file exists and cannot be read.
    pub(super) fn profile(&self, name: &str) -> Result<Option<Profile>, SealError> {
        let mut profile = Profile::default();
        let in_config = if name == "default" { name.to_owned() } else { format!("profile {name}") };
        for (file, section) in [(&self.config, in_config.as_str()), (&self.credentials, name)] {
            let Some(path) = file.as_deref().filter(|path| std::path::Path::new(path).exists()) else { continue };
            let text = read_secret_text(path).map_err(misconfigured)?;
            profile.read(text.expose(), section);
        }
        Ok((!profile.is_empty()).then_some(profile))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(credentials: &str, config: &str) -> (tempfile::TempDir, SharedFiles) {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path.display().to_string())
        };
        let files = SharedFiles { credentials: write("credentials", credentials), config: write("config", config) };
        (directory, files)
    }

    fn value(files: &SharedFiles, profile: &str, key: &str) -> Option<String> {
        Some(files.profile(profile).unwrap()?.get(key)?.expose().clone())
    }

    #[test]
    fn profiles_are_read_from_both_files() {
        let (_directory, files) = files(
            "# a comment\n[default]\naws_access_key_id = A\naws_secret_access_key=\"s=1\"\n\n[ other ]\naws_access_key_id=B\n",
            "[default]\nregion = eu-west-1\naws_access_key_id = never\n[profile other]\nrole_arn = R\ns3 =\n  region = nested\nregion=\n",
        );
        assert_eq!(value(&files, "default", "aws_access_key_id").as_deref(), Some("A"));
        assert_eq!(value(&files, "default", "aws_secret_access_key").as_deref(), Some("s=1"));
        assert_eq!(value(&files, "default", "region").as_deref(), Some("eu-west-1"));
        assert_eq!(value(&files, "other", "aws_access_key_id").as_deref(), Some("B"));
        assert_eq!(value(&files, "other", "role_arn").as_deref(), Some("R"));
        assert_eq!(value(&files, "other", "region"), None);
        assert!(files.profile("none").unwrap().is_none());
    }

    #[test]
    fn missing_files_have_no_profiles() {
        let missing = SharedFiles { credentials: Some("/none/credentials".to_owned()), config: None };
        assert!(missing.profile("default").unwrap().is_none());
        assert!(SharedFiles::default().profile("default").unwrap().is_none());
    }
}
