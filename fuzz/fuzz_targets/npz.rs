//! [`squall_fuzz::npz`] on what libFuzzer makes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| squall_fuzz::npz(data));
