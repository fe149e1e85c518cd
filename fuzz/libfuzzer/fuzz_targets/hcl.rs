//! cargo-fuzz target: see `keepfast_fuzz::hcl`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepfast_fuzz::hcl(data));
