//! `cargo +nightly fuzz run events fuzz/corpus/events fuzz/seeds/events`, from the directory above: records in any
//! shape and order, as events, states and answers.
#![no_main]

mod questions;

use bytes::Bytes;
use eventlog::journal::fuzz;
use eventlog::Position;
use eventlog::portable::unpack;
use questions::Held;

libfuzzer_sys::fuzz_target!(
    // The rules may assert on what no rule wrote: that is caught and told by place. What is not caught still ends
    // the run.
    init: std::panic::set_hook(Box::new(|_| {})),
    |bytes: &[u8]| {
        let Ok(mut records) = unpack(&Bytes::copy_from_slice(bytes)) else { return };
        for (nth, record) in records.iter_mut().enumerate() {
            record.position = Position::new(nth as u64 + 1);
        }
        questions::ask(&Held(records));
    }
);

// Records without right checksums say nothing about what is behind them.
libfuzzer_sys::fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = libfuzzer_sys::fuzzer_mutate(bytes, size, max_size);
    if seed % 8 != 0 {
        fuzz::sign_records(&mut bytes[..size]);
    }
    size
});
