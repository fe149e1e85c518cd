//! A view: the part of the storage below a prefix.

use std::sync::Arc;

/// All records below a prefix. Only [`Barrier::view`](crate::Barrier::view) creates one, and it can only be narrowed,
/// so the holder of a view cannot access records outside it.
///
/// ```
/// # async fn example(backend: std::sync::Arc<dyn keepfast_storage::Backend>, root: &keepfast_storage::RootKey) {
/// use keepfast_storage::{Barrier, View};
/// let barrier = Barrier::open(backend, root).await.unwrap();
/// let view: View = barrier.view("logical").sub("mount");
/// # }
/// ```
///
/// ```compile_fail
/// use keepfast_storage::View;
/// let view: View = View { prefix: "logical/".into() };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    prefix: Arc<str>,
}

impl View {
    pub(crate) fn new(prefix: &str) -> Self {
        let slash = if prefix.is_empty() || prefix.ends_with('/') { "" } else { "/" };
        Self { prefix: format!("{prefix}{slash}").into() }
    }

    /// The view below `name` of this view. With an invalid name, every use of the view fails.
    #[must_use]
    pub fn sub(&self, name: &str) -> Self {
        let slash = if name.ends_with('/') { "" } else { "/" };
        Self { prefix: format!("{}{name}{slash}", self.prefix).into() }
    }

    /// The storage prefix of this view: empty, or ending in `/`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}
