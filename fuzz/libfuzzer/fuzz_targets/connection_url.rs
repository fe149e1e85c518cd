//! cargo-fuzz target: see `keepfast_fuzz::connection_url`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepfast_fuzz::connection_url(data));
