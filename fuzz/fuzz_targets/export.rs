//! `cargo +nightly fuzz run export`, from the directory above.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = eventlog::journal::fuzz::export(bytes);
});
