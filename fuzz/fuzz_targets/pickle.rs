//! [`squall_fuzz::pickle`] on what libFuzzer makes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| squall_fuzz::pickle(data));
