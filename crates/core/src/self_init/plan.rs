//! The requests of the `initialize` stanzas, in their order, and what is checked before the storage is initialized.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use keepfast_crypto::hash::Sha256Stream;
use keepfast_crypto::secret::{SecretBytes, SecretString};
use keepfast_framework::{Error, Status};

use super::state::SelfInitState;
use super::value::{PlannedValue, Source, SourceKind};
use crate::seal::SealShape;

/// The most requests. The progress is written after each one.
pub(super) const MAX_REQUESTS: usize = 1000;

/// One request of a stanza.
pub struct PlannedRequest {
    /// The names of the stanza and the request, with a dot between them.
    pub name: String,
    /// The operation: `create`, `update`, `read`, `delete`, `list`, `scan` or `patch`.
    pub operation: PlannedValue,
    /// The path, without `/v1/`.
    pub path: PlannedValue,
    /// The token; `None` for the root token.
    pub token: Option<PlannedValue>,
    /// The parameters, an object.
    pub data: Option<PlannedValue>,
    /// Whether the requests after it are sent although it fails.
    pub allow_failure: Option<PlannedValue>,
}

/// Reads the sources that are outside of the server.
pub trait Sources: Send + Sync {
    /// A variable of the environment; `None` when it is not set.
    ///
    /// # Errors
    /// When it is not UTF-8.
    fn variable(&self, name: &str) -> Result<Option<SecretString>, String>;

    /// Checks that a file can be read, without reading it.
    ///
    /// # Errors
    /// With the reason.
    fn check_file(&self, path: &str) -> Result<(), String>;

    /// The content of a file. Blocks.
    ///
    /// # Errors
    /// When it cannot be read, is too long or is not UTF-8.
    fn file(&self, path: &str) -> Result<SecretString, String>;

    /// Whether the content of a file is gone when it was read, as that of a pipe.
    fn is_read_once(&self, path: &str) -> bool;
}

/// The contents of files that can be read once, for the attempts of this process. Wiped when dropped.
pub(super) type ReadOnce = BTreeMap<String, SecretString>;

/// Writes the recovery keys to a file, which exists under its name only when they count.
pub trait RecoveryOutput: Send + Sync {
    /// The path of the file.
    fn path(&self) -> &Path;

    /// Checks that the file can be written, before anything is: `shares` is the number of keys. Blocks.
    ///
    /// # Errors
    /// With the reason.
    fn check(&self, shares: u8) -> Result<(), String>;

    /// Writes the keys to a new file with a temporary name; the files of earlier attempts stay, which may still come to
    /// count. Returns the digest of the file. Blocks.
    ///
    /// # Errors
    /// With the reason.
    fn write(&self, keys: &[SecretBytes], threshold: u8) -> Result<String, String>;

    /// Gives the file with this digest its name, then deletes those of other attempts. Does nothing when it has it. False
    /// when there is no such file. Blocks.
    ///
    /// # Errors
    /// With the reason.
    fn publish(&self, digest: &str) -> Result<bool, String>;
}

/// The `recovery` block: recovery keys that are written to a file.
#[derive(Clone)]
pub struct Recovery {
    pub(super) shape: SealShape,
    pub(super) output: Arc<dyn RecoveryOutput>,
}

impl Recovery {
    /// This number of recovery keys.
    ///
    /// # Errors
    /// When no such shares are possible.
    pub fn new(shares: i64, threshold: i64, output: Arc<dyn RecoveryOutput>) -> Result<Self, &'static str> {
        Ok(Recovery { shape: SealShape::check(shares, threshold)?, output })
    }
}

/// All `initialize` stanzas of a configuration, by default none.
#[derive(Default)]
pub struct SelfInitPlan {
    pub(super) requests: Vec<PlannedRequest>,
    pub(super) recovery: Option<Recovery>,
    /// `None` without stanzas.
    sources: Option<Arc<dyn Sources>>,
}

/// The number of requests: literals may be secrets.
impl fmt::Debug for SelfInitPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests", self.requests.len())
    }
}

/// An invalid stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// The index of the request.
    pub request: usize,
    /// The reason.
    pub reason: String,
}

impl SelfInitPlan {
    /// Checks the requests: their number, their names, and that references are to earlier requests.
    ///
    /// # Errors
    /// The first request that is invalid.
    pub fn new(
        requests: Vec<PlannedRequest>,
        recovery: Option<Recovery>,
        sources: Arc<dyn Sources>,
    ) -> Result<Self, PlanError> {
        let mut names = BTreeSet::new();
        for (at, request) in requests.iter().enumerate() {
            let error = |reason: String| PlanError { request: at, reason };
            if at >= MAX_REQUESTS {
                return Err(error(format!("there are more than {MAX_REQUESTS} requests")));
            }
            let mut missing = None;
            request.visit_sources(&mut |source| {
                if let SourceKind::Request { of, .. } | SourceKind::Response { of, .. } = &source.kind
                    && !names.contains(of)
                {
                    missing.get_or_insert(of);
                }
            });
            if let Some(of) = missing {
                return Err(error(format!("{of} is not an earlier request")));
            }
            if !names.insert(&request.name) {
                return Err(error(format!("two requests are named {}", request.name)));
            }
        }
        Ok(SelfInitPlan { requests, recovery, sources: Some(sources) })
    }

    /// The digest of the stanzas, not of the values of their sources.
    pub(super) fn digest(&self) -> String {
        let mut digest = Sha256Stream::default();
        let mut add = |text: &str| {
            // With its length: no two sequences of texts are the same bytes.
            digest.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
            digest.update(text.as_bytes());
        };
        for request in &self.requests {
            add(&request.name);
            for (key, value) in request.values() {
                add(key);
                value.describe(&mut add);
            }
        }
        hex::encode(digest.finish())
    }

    /// Whether a later request refers to the response of this one.
    pub(super) fn keeps_response(&self, name: &str) -> bool {
        let mut keeps = false;
        for request in &self.requests {
            request.visit_sources(&mut |source| {
                keeps |= matches!(&source.kind, SourceKind::Response { of, .. } if of == name);
            });
        }
        keeps
    }

    /// Removes from `done` what must be sent again: requests whose response has what was revoked with the root token, when
    /// one that is to be sent refers to it. Returns their names.
    pub(super) fn undo(&self, done: &mut BTreeSet<String>, is_revoked: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let (mut undone, mut wanted) = (BTreeSet::new(), BTreeSet::new());
        for request in self.requests.iter().rev() {
            let name = request.name.as_str();
            // One that is not done, and has such a response, an earlier attempt has undone.
            if (wanted.contains(name) || !done.contains(name)) && is_revoked(name) {
                done.remove(name);
                undone.insert(request.name.clone());
            }
            if !done.contains(name) {
                request.visit_sources(&mut |source| {
                    if let SourceKind::Response { of, .. } = &source.kind {
                        wanted.insert(of.as_str());
                    }
                });
            }
        }
        undone
    }

    /// The requests that are evaluated when those of `done` are not sent again: the others, and those that they refer to.
    pub(super) fn needed(&self, done: &BTreeSet<String>) -> BTreeSet<&str> {
        let mut needed = BTreeSet::new();
        for request in self.requests.iter().rev() {
            if done.contains(&request.name) && !needed.contains(request.name.as_str()) {
                continue;
            }
            needed.insert(request.name.as_str());
            request.visit_sources(&mut |source| {
                if let SourceKind::Request { of, .. } = &source.kind {
                    needed.insert(of);
                }
            });
        }
        needed
    }

    /// Reads the variables and files of these requests, each once; a file of `once` is not read again. Blocks.
    ///
    /// # Errors
    /// All that cannot be read, by request.
    pub(super) fn read_sources(
        &self,
        needed: &BTreeSet<&str>,
        once: &mut ReadOnce,
    ) -> Result<SourceValues, Vec<String>> {
        let (mut values, mut errors) = (SourceValues::default(), Vec::new());
        for request in self.requests.iter().filter(|request| needed.contains(request.name.as_str())) {
            request.visit_sources(&mut |source| {
                let sources = self.sources.as_deref();
                if let Some(Err(why)) = sources.map(|sources| values.read(&source.kind, sources, once)) {
                    errors.push(format!("{}: {why}", request.name));
                }
            });
        }
        if errors.is_empty() { Ok(values) } else { Err(errors) }
    }

    /// Why the first start could not run the stanzas now. Blocks.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for request in &self.requests {
            request.visit_sources(&mut |source| {
                let found = match (&source.kind, self.sources.as_deref()) {
                    // A file may be a pipe, which is read once.
                    (SourceKind::File { path }, Some(sources)) => sources.check_file(path),
                    (kind, Some(sources)) => SourceValues::default().read(kind, sources, &mut ReadOnce::new()),
                    (_, None) => Ok(()),
                };
                missing.extend(found.err().map(|why| format!("{}: {why}", request.name)));
            });
        }
        missing.extend(self.check_recovery().err());
        missing
    }

    /// The path of the file of the recovery keys.
    #[must_use]
    pub fn recovery_file(&self) -> Option<&Path> {
        self.recovery.as_ref().map(|recovery| recovery.output.path())
    }

    /// Checks the file of the recovery keys, before anything is written. Blocks.
    pub(super) fn check_recovery(&self) -> Result<(), String> {
        let Some(recovery) = &self.recovery else { return Ok(()) };
        recovery.output.check(recovery.shape.shares).map_err(|why| format!("recovery: {why}"))
    }

    /// The shape of the recovery keys; `None` for none.
    pub(crate) fn shape(&self) -> Option<SealShape> {
        self.recovery.as_ref().map(|recovery| recovery.shape)
    }

    /// The progress of a storage whose first root token has this accessor. Writes the recovery keys to their file before.
    pub(crate) async fn first_state(
        &self,
        accessor: &str,
        keys: &[SecretBytes],
    ) -> keepfast_framework::Result<SelfInitState> {
        let digest = match self.recovery.clone() {
            Some(Recovery { shape, output }) => {
                let keys = keys.to_vec();
                let written = tokio::task::spawn_blocking(move || output.write(&keys, shape.threshold)).await;
                let refused = |why| Error::new(Status::INTERNAL, format!("the recovery keys are not written: {why}"));
                Some(written.map_err(Error::internal)?.map_err(refused)?)
            }
            None => None,
        };
        Ok(SelfInitState::first(self.digest(), accessor, digest))
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.recovery.is_none()
    }
}

impl PlannedRequest {
    /// The values by their keys.
    fn values(&self) -> impl Iterator<Item = (&'static str, &PlannedValue)> {
        let optional = [("token", &self.token), ("data", &self.data), ("allow_failure", &self.allow_failure)];
        let optional = optional.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        [("operation", &self.operation), ("path", &self.path)].into_iter().chain(optional)
    }

    fn visit_sources<'a>(&'a self, visit: &mut dyn FnMut(&'a Source)) {
        self.values().for_each(|(_, value)| value.each_source(visit));
    }
}

/// The values of variables and files. Wiped when dropped.
#[derive(Default)]
pub(super) struct SourceValues {
    variables: BTreeMap<String, SecretString>,
    files: BTreeMap<String, SecretString>,
}

impl SourceValues {
    /// The value of a variable; empty when it is not set.
    pub(super) fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", |value| value.expose())
    }

    /// The content of a file that was read.
    pub(super) fn file(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(|content| content.expose().as_str())
    }

    fn read(&mut self, source: &SourceKind, from: &dyn Sources, once: &mut ReadOnce) -> Result<(), String> {
        match source {
            SourceKind::Env { variable, required } => match from.variable(variable)? {
                Some(value) => drop(self.variables.insert(variable.clone(), value)),
                None if *required => return Err(format!("the environment variable {variable} is not set")),
                None => {}
            },
            // Each file is read once: it may be a pipe.
            SourceKind::File { path } if !self.files.contains_key(path) => {
                let content = match once.get(path) {
                    Some(content) => content.clone(),
                    None => from.file(path)?,
                };
                if from.is_read_once(path) {
                    once.insert(path.clone(), content.clone());
                }
                self.files.insert(path.clone(), content);
            }
            SourceKind::File { .. } | SourceKind::Request { .. } | SourceKind::Response { .. } => {}
        }
        Ok(())
    }
}
