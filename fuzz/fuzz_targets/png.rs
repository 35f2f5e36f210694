//! [`squall_fuzz::png`] on what libFuzzer makes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| squall_fuzz::png(data));
