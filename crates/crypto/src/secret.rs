//! A value that must not leak: wiped when dropped, and without the traits through which values escape.
//!
//! `Secret` cannot be printed:
//!
//! ```
//! fn shown<T: std::fmt::Debug>(_: &T) {}
//! shown(&String::from("not secret"));
//! ```
//! ```compile_fail,E0277
//! fn shown<T: std::fmt::Debug>(_: &T) {}
//! shown(&keepfast_crypto::secret::SecretString::new("secret".into()));
//! ```
//! ```
//! fn shown<T: std::fmt::Display>(_: &T) {}
//! shown(&String::from("not secret"));
//! ```
//! ```compile_fail,E0277
//! fn shown<T: std::fmt::Display>(_: &T) {}
//! shown(&keepfast_crypto::secret::SecretString::new("secret".into()));
//! ```
//!
//! nor serialised:
//!
//! ```
//! fn written<T: serde::Serialize>(_: &T) {}
//! written(&String::from("not secret"));
//! ```
//! ```compile_fail,E0277
//! fn written<T: serde::Serialize>(_: &T) {}
//! written(&keepfast_crypto::secret::SecretString::new("secret".into()));
//! ```
//!
//! nor compared with `==`, whose time tells where two values differ
//! (use [`compare::equal`](crate::compare::equal)):
//!
//! ```
//! fn compared<T: PartialEq>(_: &T) {}
//! compared(&String::from("not secret"));
//! ```
//! ```compile_fail,E0277
//! fn compared<T: PartialEq>(_: &T) {}
//! compared(&keepfast_crypto::secret::SecretString::new("secret".into()));
//! ```

use zeroize::Zeroize;

/// A secret value, wiped when it is dropped. Reading it takes an explicit [`expose`](Secret::expose).
///
/// A `Vec` or `String` inside is wiped up to its capacity, but what it left behind when it grew is
/// not: fill it to its final size before wrapping it. Keys that live long belong into
/// [`Locked`](crate::locked::Locked) memory.
pub struct Secret<T: Wipe>(T);

/// A value whose memory can be overwritten with zeros.
///
/// [`Zeroize`] of `Vec` and `String` writes byte by byte; answers and bodies of requests are long enough for that to count.
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
    /// Takes the value into custody.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, to be used and not to be stored elsewhere.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// The value, to be filled or changed in place.
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
    fn bytes_and_text_are_empty_when_they_are_wiped() {
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
    fn a_copy_has_its_own_life() {
        let first = SecretBytes::new(vec![7; 4]);
        let mut second = first.clone();
        second.expose_mut()[0] = 1;
        drop(second);
        assert_eq!(first.expose(), &[7; 4]);
    }
}
