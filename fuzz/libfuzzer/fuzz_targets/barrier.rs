//! cargo-fuzz target: see `keepfast_fuzz::barrier`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keepfast_fuzz::barrier(data));
