//! [`squall_fuzz::footer`] on what libFuzzer makes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| squall_fuzz::footer(data));
