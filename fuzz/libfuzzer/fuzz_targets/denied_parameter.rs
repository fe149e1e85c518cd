//! cargo-fuzz target: see `keepfast_fuzz::denied_parameter`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepfast_fuzz::denied_parameter(data));
