//! cargo-fuzz target: see `keepfast_fuzz::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepfast_fuzz::token(data));
