//! The log: appends beside a plain file, and what reading and reopening cost.

mod appends;
mod engine;
mod group;
mod journal;
pub mod memory;
mod store;

use crate::Failure;
use crate::args::{LogOptions, Part};
use crate::machine;
use crate::report::Report;
use std::time::Duration;

/// Bytes of an event's payload: what a typical transition takes, generously.
const PAYLOAD_BYTES: usize = 256;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    round: Duration,
    /// Events of the stores that are read and reopened.
    stores: &'static [u64],
    streams: u32,
}

impl Plan {
    const FULL: Self = Self {
        rounds: 15,
        round: Duration::from_millis(600),
        stores: &[1_000_000, 5_000_000],
        streams: 10_000,
    };
    const QUICK: Self =
        Self { rounds: 5, round: Duration::from_millis(250), stores: &[1_000_000], streams: 10_000 };
}

/// Measures and prints.
pub fn run(options: &LogOptions) -> Result<(), Failure> {
    let plan = if options.quick { Plan::QUICK } else { Plan::FULL };
    let dir = tempfile::tempdir_in(&options.dir)?;
    let mut report = Report::new(options.json);
    report.row(&machine::describe(dir.path()));
    let is_wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    if is_wanted(Part::Append) {
        runtime.block_on(appends::beside_file(dir.path(), &options.writers, plan, &mut report))?;
    }
    if is_wanted(Part::Sled) {
        runtime.block_on(appends::embedded_database(dir.path(), plan, &mut report))?;
    }
    if is_wanted(Part::Memory) {
        runtime.block_on(memory::measure(dir.path(), &mut report))?;
    }
    if is_wanted(Part::Store) {
        for &events in plan.stores {
            runtime.block_on(store::measure(
                &dir.path().join(format!("store-{events}")),
                events,
                plan,
                &mut report,
            ))?;
        }
    }
    Ok(())
}
