//! What entries repeat of a token: kept with the token, so that it is written and hashed once.

/// What entries repeat of a token, by device.
pub(crate) struct Marks {
    /// The set of devices that it was written for.
    pub(super) generation: u64,
    /// In the order of the devices.
    pub(super) by_device: Vec<Mark>,
}

/// What one device's entries say of a token, written and hashed once and not with each entry.
pub(crate) struct Mark {
    /// Its text, a JSON string.
    pub(super) token: Box<[u8]>,
    /// Its accessor, a JSON string; empty if it has none.
    pub(super) accessor: Box<[u8]>,
    /// The members of `auth` before its policies.
    pub(super) who: Box<[u8]>,
    /// `policies` where no entity adds any.
    pub(super) policies: Box<[u8]>,
    /// The members of `auth` behind it.
    pub(super) life: Box<[u8]>,
    /// What counts as one client, a JSON string.
    pub(super) client: Box<[u8]>,
}
