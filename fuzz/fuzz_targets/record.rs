//! `cargo +nightly fuzz run record`, from the directory above.
#![no_main]

use eventlog::journal::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = fuzz::records(bytes);
});

// Every other mutation gets right checksums: chance would not get behind them.
libfuzzer_sys::fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = libfuzzer_sys::fuzzer_mutate(bytes, size, max_size);
    if seed % 2 == 0 {
        fuzz::sign_records(&mut bytes[..size]);
    }
    size
});
