//! cargo-fuzz target: see `keepfast_fuzz::certificate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepfast_fuzz::certificate(data));
