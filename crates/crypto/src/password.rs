//! Password hashes: bcrypt (Provos and Mazières, "A Future-Adaptable Password Scheme", 1999).
//!
//! A hash contains its cost. Each step doubles the work, from about 50 ms at [`COST`] to 200 ms at [`MAX_COST`]. All
//! functions here are slow on purpose; do not call them on a thread that serves requests.

use bcrypt::HashParts;

use crate::random;

/// The cost of the hashes that [`hash`] creates.
pub const COST: u32 = 10;
/// The highest accepted cost of an imported hash: a password check must not occupy the server.
pub const MAX_COST: u32 = 12;
/// The lowest accepted cost of an imported hash.
pub const MIN_COST: u32 = 5;
/// The longest password in bytes; bcrypt ignores the rest.
pub const MAX_LEN: usize = 72;

/// Why a password or a hash is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Longer than [`MAX_LEN`] bytes.
    #[error("password length exceeds {MAX_LEN} bytes")]
    TooLong,
    /// Not a bcrypt hash.
    #[error("not a valid bcrypt hash")]
    Malformed,
    /// A bcrypt hash with a cost below [`MIN_COST`].
    #[error("bcrypt cost of {0} is too low, want {MIN_COST} at minimum")]
    TooCheap(u32),
    /// A bcrypt hash with a cost above [`MAX_COST`].
    #[error("bcrypt cost of {0} exceeds maximum cost of {MAX_COST}")]
    TooCostly(u32),
}

/// Hashes a password with a new salt.
///
/// # Errors
/// [`PasswordError::TooLong`].
pub fn hash(password: &[u8]) -> Result<String, PasswordError> {
    if password.len() > MAX_LEN {
        return Err(PasswordError::TooLong);
    }
    let parts = bcrypt::hash_with_salt(password, COST, random::bytes()).map_err(|_| PasswordError::Malformed)?;
    Ok(parts.to_string())
}

/// The cost of a hash, after validation of the hash.
///
/// # Errors
/// [`PasswordError::Malformed`], [`PasswordError::TooCheap`], [`PasswordError::TooCostly`].
pub fn cost(hash: &str) -> Result<u32, PasswordError> {
    let parts: HashParts = hash.parse().map_err(|_| PasswordError::Malformed)?;
    match parts.get_cost() {
        // The range of costs that bcrypt defines.
        cost if !(4..=31).contains(&cost) => Err(PasswordError::Malformed),
        cost if cost < MIN_COST => Err(PasswordError::TooCheap(cost)),
        cost if cost > MAX_COST => Err(PasswordError::TooCostly(cost)),
        cost => Ok(cost),
    }
}

/// Whether `password` has this hash. `None` means that the user does not exist.
///
/// The work is always that of one hash of `cost`, which must be at least the highest cost in use. The time reveals
/// neither whether a hash exists nor its cost.
pub fn verify(password: &[u8], hash: Option<&str>, cost: u32) -> bool {
    let known = hash.and_then(|hash| Some((hash, self::cost(hash).ok()?)));
    let Some((hash, own)) = known else {
        spend(password, cost);
        return false;
    };
    let same = bcrypt::verify(password, hash).unwrap_or(false);
    // 2^own for the hash and 2^own + 2^(own+1) + … + 2^(cost-1) here make 2^cost.
    for step in own..cost {
        spend(password, step);
    }
    same && password.len() <= MAX_LEN
}

/// Does the work of one hash.
fn spend(password: &[u8], cost: u32) {
    let cost = cost.clamp(MIN_COST, MAX_COST);
    std::hint::black_box(bcrypt::hash_with_salt(password, cost, [0; 16]).is_ok());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Vectors of the reference implementation (Openwall's crypt_blowfish).
    const VECTORS: [(&str, &str); 4] = [
        ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
        ("U*U*", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"),
        ("U*U*U", "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a"),
        ("", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy"),
    ];

    #[test]
    fn agrees_with_the_reference_implementation() {
        for (password, hash) in VECTORS {
            assert_eq!(cost(hash), Ok(5));
            assert!(verify(password.as_bytes(), Some(hash), 5), "{password}");
            assert!(!verify(b"other", Some(hash), 6));
        }
    }

    #[test]
    fn a_hash_is_salted_and_verifies_one_password() {
        let made = hash(b"correct horse").unwrap();
        assert_eq!((made.len(), cost(&made)), (60, Ok(COST)));
        assert!(verify(b"correct horse", Some(&made), COST));
        for wrong in [&b"correct horsf"[..], b"", b"correct horse "] {
            assert!(!verify(wrong, Some(&made), COST));
        }
        assert_ne!(made, hash(b"correct horse").unwrap());
        assert!(!verify(b"correct horse", None, 4));
    }

    #[test]
    fn passwords_beyond_72_bytes_are_refused() {
        let full = [b'p'; MAX_LEN];
        let made = hash(&full).unwrap();
        assert!(verify(&full, Some(&made), COST));
        assert!(!verify(&[b'p'; MAX_LEN + 1], Some(&made), COST));
        assert_eq!(hash(&[b'p'; MAX_LEN + 1]), Err(PasswordError::TooLong));
    }

    #[test]
    fn sec_ds07_imported_hashes_are_validated_and_their_cost_bounded() {
        let body = "CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
        for (hash, expected) in [
            (format!("$2a$13${body}"), PasswordError::TooCostly(13)),
            (format!("$2a$31${body}"), PasswordError::TooCostly(31)),
            (format!("$2a$04${body}"), PasswordError::TooCheap(4)),
            (format!("$2a$03${body}"), PasswordError::Malformed),
            (format!("$2a$99${body}"), PasswordError::Malformed),
            (format!("$2c$05${body}"), PasswordError::Malformed),
            (format!("$2a$05${body}x"), PasswordError::Malformed),
            ("$2a$10$abc".to_owned(), PasswordError::Malformed),
            (String::new(), PasswordError::Malformed),
            ("ä".repeat(30), PasswordError::Malformed),
        ] {
            assert_eq!(cost(&hash), Err(expected), "{hash}");
        }
        assert_eq!(cost(&format!("$2y$12${body}")), Ok(12));
    }
}
