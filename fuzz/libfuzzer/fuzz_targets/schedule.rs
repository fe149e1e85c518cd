//! cargo-fuzz target: see `keepfast_fuzz::schedule`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepfast_fuzz::schedule(data));
