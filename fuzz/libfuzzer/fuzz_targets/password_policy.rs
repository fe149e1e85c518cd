//! cargo-fuzz target: see `keepfast_fuzz::password_policy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepfast_fuzz::password_policy(data));
