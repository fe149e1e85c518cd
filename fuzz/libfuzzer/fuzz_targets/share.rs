//! cargo-fuzz target: see `keepfast_fuzz::share`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepfast_fuzz::share(data));
