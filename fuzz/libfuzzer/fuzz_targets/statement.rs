//! cargo-fuzz target: see `keepfast_fuzz::statement`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepfast_fuzz::statement(data));
