//! `cargo +nightly fuzz run opened fuzz/corpus/opened fuzz/seeds/opened`, from the directory above: an export opened
//! and asked as `musher replay --file` does.
#![no_main]

mod questions;

use eventlog::journal::fuzz;
use eventlog::portable::ExportReader;

libfuzzer_sys::fuzz_target!(
    // The rules may assert on what no rule wrote: that is caught and told by place. What is not caught still ends
    // the run.
    init: std::panic::set_hook(Box::new(|_| {})),
    |bytes: &[u8]| {
        let file = std::env::temp_dir().join(format!("musher-fuzz-{}", std::process::id()));
        if std::fs::write(&file, bytes).is_err() {
            return;
        }
        if let Ok(reader) = ExportReader::open(&file) {
            questions::ask(&reader);
        }
    }
);

// Every other mutation gets right checksums: chance would not get behind them.
libfuzzer_sys::fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = libfuzzer_sys::fuzzer_mutate(bytes, size, max_size);
    if seed % 2 == 0 {
        fuzz::sign_export(&mut bytes[..size]);
    }
    size
});
