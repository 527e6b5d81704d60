//! `cargo +nightly fuzz run packed`, from the directory above.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = eventlog::journal::fuzz::packed(bytes);
});
