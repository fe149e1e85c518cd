//! Pages of a listing.

/// A page of a listing. Names are ordered by bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Only names that come after this one; it need not exist.
    pub after: Option<String>,
    /// The largest number of names.
    pub limit: Option<usize>,
}

impl Page {
    /// The whole listing.
    pub const fn all() -> Self {
        Self { after: None, limit: None }
    }

    /// The first `limit` names.
    pub const fn first(limit: usize) -> Self {
        Self { after: None, limit: Some(limit) }
    }

    /// The names that come after `after`.
    pub fn after(after: impl Into<String>) -> Self {
        Self { after: Some(after.into()), limit: None }
    }
}
