//! The members of a token that entries repeat: kept with the token, so that they are written and hashed once.

/// The members of a token that entries repeat, by device.
pub(crate) struct TokenMembersByDevice {
    /// The generation of the devices for which they were written.
    pub(super) generation: u64,
    /// In the order of the devices.
    pub(super) by_device: Vec<TokenMembers>,
}

/// The members of a token for one device, written and hashed once and not with each entry.
pub(crate) struct TokenMembers {
    /// The token, a JSON string.
    pub(super) token: Box<[u8]>,
    /// The accessor, a JSON string; empty if there is none.
    pub(super) accessor: Box<[u8]>,
    /// The members of `auth` before its policies.
    pub(super) before_policies: Box<[u8]>,
    /// `policies` where no entity adds any.
    pub(super) policies: Box<[u8]>,
    /// The members of `auth` after its policies.
    pub(super) after_policies: Box<[u8]>,
    /// The client id, a JSON string.
    pub(super) client: Box<[u8]>,
}
