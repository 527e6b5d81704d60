//! Measurements: what a component does per second, beside what the machine gives to the plainest program that
//! does the same work.
//!
//! `cargo run --release -p musher-bench -- log|recovery|transitions|sagas|reports|sleds|fleet|live|peers|replay [--json] [--quick]`, or `-- reads`
//!
//! Rates of a disk swing by half from minute to minute, ratios hold: whatever is compared runs in turns, in
//! short rounds of one run, and the median over the rounds is what counts.

mod args;
mod clock;
mod instructions;
mod log;
mod machine;
mod reads;
mod recovery;
mod replaying;
mod report;
mod stack;
mod statistics;

use args::{Args, What};
use clap::Parser;
use std::process::ExitCode;

/// Why a measurement ends without a result; only people read it.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let done = match Args::parse().what {
        What::Log(options) => log::run(&options),
        What::Recovery(options) => recovery::run(&options),
        What::Transitions(options) => stack::run(stack::Question::Transitions, &options),
        What::Sagas(options) => stack::run(stack::Question::Sagas, &options),
        What::Reports(options) => stack::reports(&options),
        What::Sleds(options) => stack::sleds(&options),
        What::Fleet(options) => stack::fleet(&options),
        What::Live(options) => stack::run_live(&options),
        What::Peers(options) => stack::peers(&options),
        What::Replay(options) => replaying::run(&options),
        What::Reads(options) => reads::run(options),
        What::Instructions(options) => instructions::run(&options),
        What::Work { what, rounds } => instructions::work(what, rounds),
        What::Hold { dir } => log::memory::hold(&dir),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("musher-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
