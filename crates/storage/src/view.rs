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
    wrapping: Wrapping,
    /// The length of the prefix to which `wrapping` applies.
    base: usize,
}

/// Which values of a view are wrapped: encrypted under a wrap key as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wrapping {
    /// None.
    #[default]
    Never,
    /// All.
    Always,
    /// Those whose paths in the view begin with one of these.
    Below(&'static [&'static str]),
}

impl View {
    pub(crate) fn new(prefix: &str) -> Self {
        let slash = if prefix.is_empty() || prefix.ends_with('/') { "" } else { "/" };
        Self { prefix: format!("{prefix}{slash}").into(), wrapping: Wrapping::Never, base: 0 }
    }

    /// The same view, whose writes and those of its parts are wrapped so.
    #[must_use]
    pub fn wrapping(self, wrapping: Wrapping) -> Self {
        let base = self.prefix.len();
        Self { wrapping, base, ..self }
    }

    /// Whether the value at this storage path, which begins with the prefix of this view, must be wrapped.
    pub fn wraps(&self, path: &str) -> bool {
        match self.wrapping {
            Wrapping::Never => false,
            Wrapping::Always => true,
            Wrapping::Below(prefixes) => {
                let within = path.get(self.base..).unwrap_or_default();
                prefixes.iter().any(|prefix| within.starts_with(prefix))
            }
        }
    }

    /// The view below `name` of this view. With an invalid name, every use of the view fails.
    #[must_use]
    pub fn sub(&self, name: &str) -> Self {
        let slash = if name.ends_with('/') { "" } else { "/" };
        Self { prefix: format!("{}{name}{slash}", self.prefix).into(), ..*self }
    }

    /// The storage prefix of this view: empty, or ending in `/`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}
