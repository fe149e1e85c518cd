//! Leases: what ends when, on disk in the order of its end.

pub mod index;
