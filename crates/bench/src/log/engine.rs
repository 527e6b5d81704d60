//! The load: many writers, each of which waits for its append before it makes the next.
//!
//! Invariants:
//! * every engine is driven by the same loop, on the same runtime;
//! * a round ends by the clock, and an append under way at its end still counts with its time.

use crate::Failure;
use crate::clock::now;
use crate::machine::processor_nanoseconds;
use crate::statistics::{count, percentile};
use futures::future::BoxFuture;
use std::time::{Duration, Instant};

/// One writer of an engine.
pub trait Writer: Send + 'static {
    /// Appends one event; resolves when the engine says that it is stored.
    fn append(&mut self) -> BoxFuture<'_, Result<(), Failure>>;
}

/// What one round of one engine gave.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Appends of the round.
    pub appends: f64,
    /// Appends per second.
    pub per_second: f64,
    /// Median time of an append, microseconds.
    pub p50_us: f64,
    /// Time that one append of a hundred exceeds, microseconds.
    pub p99_us: f64,
    /// Processor time of the whole process per append, microseconds; zero where the system does not tell.
    pub cpu_us: f64,
}

async fn write(mut writer: impl Writer, until: Instant) -> Result<Vec<u32>, Failure> {
    let mut nanoseconds = Vec::new();
    let mut before = now();
    while before < until {
        writer.append().await?;
        let after = now();
        nanoseconds.push(u32::try_from((after - before).as_nanos()).unwrap_or(u32::MAX));
        before = after;
    }
    Ok(nanoseconds)
}

/// Lets all writers work for one round.
pub async fn round<W: Writer>(writers: Vec<W>, length: Duration) -> Result<Round, Failure> {
    let started = now();
    let used = processor_nanoseconds("self");
    let tasks: Vec<_> =
        writers.into_iter().map(|writer| tokio::spawn(write(writer, started + length))).collect();
    let mut nanoseconds = Vec::new();
    for task in tasks {
        nanoseconds.extend(task.await??);
    }
    let seconds = started.elapsed().as_secs_f64();
    let appends = count(nanoseconds.len() as u64);
    let cpu =
        used.zip(processor_nanoseconds("self")).map_or(0, |(before, after)| after.saturating_sub(before));
    Ok(Round {
        appends,
        per_second: appends / seconds,
        cpu_us: count(cpu) / 1_000.0 / appends,
        p50_us: percentile(&mut nanoseconds, 500) / 1_000.0,
        p99_us: percentile(&mut nanoseconds, 990) / 1_000.0,
    })
}
