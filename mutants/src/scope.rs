//! The code whose mutants are tested: what decides about access and keeps secrets.

/// A crate and its files.
pub(crate) struct Scope {
    /// The package.
    pub(crate) package: &'static str,
    /// The folder of the crate, from the root of the repository.
    pub(crate) folder: &'static str,
    /// Its files, as patterns below the folder.
    pub(crate) files: &'static [&'static str],
}

/// All of it, the crate without dependencies first.
pub(crate) const SCOPES: [Scope; 3] = [
    Scope {
        package: "keepfast-crypto",
        folder: "crates/crypto",
        files: &["src/shamir.rs", "src/keys/*.rs", "src/aead.rs", "src/kdf.rs", "src/secret.rs", "src/compare.rs"],
    },
    Scope {
        package: "keepfast-storage",
        folder: "crates/storage",
        files: &["src/barrier/*.rs", "src/tx.rs", "src/transact.rs", "src/batch.rs"],
    },
    Scope {
        package: "keepfast-core",
        folder: "crates/core",
        files: &[
            "src/policy/*.rs",
            "src/token/*.rs",
            "src/lease/*.rs",
            "src/lockout.rs",
            "src/lockout/*.rs",
            "src/wrapping.rs",
            "src/request/*.rs",
            "src/seal/*.rs",
            "src/admission/*.rs",
        ],
    },
];

/// The part of the code that a file belongs to, for the report: `core/policy`, `storage/barrier`, `crypto/shamir`.
pub(crate) fn module(file: &str) -> String {
    let parts: Vec<&str> = file.trim_start_matches("crates/").trim_end_matches(".rs").split('/').collect();
    match parts.as_slice() {
        [krate, "src", module, ..] => format!("{krate}/{module}"),
        _ => file.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_the_crate_and_the_first_folder_or_file() {
        assert_eq!(module("crates/core/src/lease/revoke.rs"), "core/lease");
        assert_eq!(module("crates/core/src/lockout.rs"), "core/lockout");
    }
}
