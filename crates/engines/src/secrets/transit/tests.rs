//! The transit engine on the bench.
