//! cargo-fuzz target: see `keepfast_fuzz::log_segment`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepfast_fuzz::log_segment(data));
