//! cargo-fuzz target: see `keepfast_fuzz::keys_filter`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepfast_fuzz::keys_filter(data));
