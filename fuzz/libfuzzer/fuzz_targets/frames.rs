//! cargo-fuzz target: see `keepfast_fuzz::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepfast_fuzz::frames(data));
