//! cargo-fuzz target: see `keepfast_fuzz::body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepfast_fuzz::body(data));
