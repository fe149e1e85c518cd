//! What the nodes announce of their builds.

use keepfast_storage::Member;

use super::{Cluster, Shared, member};

impl Shared {
    /// A member as it announces itself.
    pub(super) fn announced(&self, name: &str) -> Member {
        let version = self.versions.lock().get(name).cloned();
        Member { version: version.unwrap_or_else(|| member(name).version), ..member(name) }
    }
}

impl Cluster {
    /// A node announces this version, as after a start of another build.
    pub(in crate::tests) fn announces(&self, name: &'static str, version: &str) {
        self.shared.versions.lock().insert(name, version.to_owned());
    }
}
