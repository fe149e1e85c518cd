//! A secret value: wiped when dropped, without the traits that would print or copy it out.
//!
//! `Secret` cannot be printed:
//!
//! ```
//! fn print<T: std::fmt::Debug>(_: &T) {}
//! print(&String::from("not secret"));
//! ```
//! ```compile_fail,E0277
//! fn print<T: std::fmt::Debug>(_: &T) {}
//! print(&keepfast_crypto::secret::SecretString::new("secret".into()));
//! ```
//! ```
//! fn print<T: std::fmt::Display>(_: &T) {}
//! print(&String::from("not secret"));
//! ```
//! ```compile_fail,E0277
//! fn print<T: std::fmt::Display>(_: &T) {}
//! print(&keepfast_crypto::secret::SecretString::new("secret".into()));
//! ```
//!
//! nor serialised:
//!
//! ```
//! fn serialise<T: serde::Serialize>(_: &T) {}
//! serialise(&String::from("not secret"));
//! ```
//! ```compile_fail,E0277
//! fn serialise<T: serde::Serialize>(_: &T) {}
//! serialise(&keepfast_crypto::secret::SecretString::new("secret".into()));
//! ```
//!
//! nor compared with `==`, whose time reveals the position of the first difference
//! (use [`compare::equal`](crate::compare::equal)):
//!
//! ```
//! fn compare<T: PartialEq>(_: &T) {}
//! compare(&String::from("not secret"));
//! ```
//! ```compile_fail,E0277
//! fn compare<T: PartialEq>(_: &T) {}
//! compare(&keepfast_crypto::secret::SecretString::new("secret".into()));
//! ```

use zeroize::Zeroize;

/// A secret value, wiped when dropped. Reading it takes an explicit [`expose`](Secret::expose).
///
/// A `Vec` or `String` inside is wiped up to its capacity, but the buffers that it left when it grew are
/// not: fill it to its final size before wrapping it. Long-lived keys belong in
/// [`Locked`](crate::locked::Locked) memory.
pub struct Secret<T: Wipe>(T);

/// A value whose memory can be overwritten with zeros.
///
/// [`Zeroize`] of `Vec` and `String` writes byte by byte, which is slow for request and response bodies.
pub trait Wipe {
    /// Overwrites the value, up to its capacity, and leaves it empty.
    fn wipe(&mut self);
}

impl Wipe for Vec<u8> {
    fn wipe(&mut self) {
        self.as_mut_slice().zeroize();
        self.spare_capacity_mut().zeroize();
        self.clear();
    }
}

impl Wipe for String {
    fn wipe(&mut self) {
        std::mem::take(self).into_bytes().wipe();
    }
}

/// Secret text, such as a password or a token.
pub type SecretString = Secret<String>;

/// Secret bytes of any length.
pub type SecretBytes = Secret<Vec<u8>>;

impl<T: Wipe> Secret<T> {
    /// Wraps the value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, to use and not to store elsewhere.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// The value, to fill or change in place.
    pub fn expose_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Wipe + Clone> Clone for Secret<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Wipe + Default> Default for Secret<T> {
    fn default() -> Self {
        Self(T::default())
    }
}

impl<T: Wipe> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T: Wipe> Zeroize for Secret<T> {
    fn zeroize(&mut self) {
        self.0.wipe();
    }
}

impl<T: Wipe> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static WIPED: AtomicUsize = AtomicUsize::new(0);
    struct Probe;
    impl Wipe for Probe {
        fn wipe(&mut self) {
            WIPED.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn is_wiped_when_dropped() {
        let before = WIPED.load(Ordering::SeqCst);
        drop(Secret::new(Probe));
        assert_eq!(WIPED.load(Ordering::SeqCst), before + 1);
    }

    #[test]
    fn wiped_bytes_and_text_are_empty() {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(b"secret");
        let start = bytes.as_ptr();
        bytes.wipe();
        assert_eq!((bytes.len(), bytes.as_ptr()), (0, start));
        let mut text = "secret".to_owned();
        text.wipe();
        assert_eq!(text, "");
    }

    #[test]
    fn a_secret_can_be_wiped_before_its_end() {
        let mut secret = SecretBytes::new(vec![7; 4]);
        secret.zeroize();
        assert!(secret.expose().is_empty());
    }

    #[test]
    fn a_clone_is_wiped_separately() {
        let first = SecretBytes::new(vec![7; 4]);
        let mut second = first.clone();
        second.expose_mut()[0] = 1;
        drop(second);
        assert_eq!(first.expose(), &[7; 4]);
    }
}
