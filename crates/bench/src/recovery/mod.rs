//! How soon a daemon that was killed answers again: from a checkpoint, and by folding the whole log, in turns.
//!
//! Invariants:
//! * both ways start the same daemon on the same directory; they differ in `checkpoint.events` alone;
//! * a round kills the daemon with SIGKILL once it has answered.

mod daemon;
mod history;

use crate::Failure;
use crate::args::RecoveryOptions;
use crate::clock::now;
use crate::machine;
use crate::report::Report;
use crate::statistics::{median, range};
use daemon::{Started, start};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Starts compared per size.
const ROUNDS: usize = 7;
const ROUNDS_QUICK: usize = 3;
/// Longest wait for the first checkpoint, and how often it is looked for.
const CHECKPOINT_MAX: Duration = Duration::from_mins(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Instances that are measured.
const SIZES: [u32; 2] = [10_000, 100_000];
/// What starting with so many instances at most may take, milliseconds.
const GOALS: [(u32, f64); 2] = [(10_000, 150.0), (100_000, 1_000.0)];

/// How a daemon comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From its checkpoint.
    Checkpoint,
    /// By folding the log; the read model comes from the cache.
    Fold,
    /// By folding the log, with the cache gone.
    FoldWithoutCache,
}

impl Way {
    const ALL: [Self; 3] = [Self::Checkpoint, Self::Fold, Self::FoldWithoutCache];

    const fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Fold => "whole fold",
            Self::FoldWithoutCache => "whole fold, no cache",
        }
    }
}

/// Measures and prints.
pub fn run(options: &RecoveryOptions) -> Result<(), Failure> {
    let musher = match &options.musher {
        Some(path) => path.clone(),
        None => beside_this()?,
    };
    let dir = tempfile::tempdir_in(&options.dir)?;
    let mut report = Report::new(options.json);
    report.row(&machine::describe(dir.path()));
    let (rounds, sizes) = if options.quick { (ROUNDS_QUICK, &SIZES[..1]) } else { (ROUNDS, &SIZES[..]) };
    let sizes = if options.instances.is_empty() { sizes } else { &options.instances };
    for instances in sizes {
        let goal_ms = GOALS.iter().find(|(most, _)| instances <= most).map(|(_, goal_ms)| *goal_ms);
        let data = dir.path().join(format!("data-{instances}"));
        let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
        let events = runtime.block_on(history::write(&data.join("journal"), *instances))?;
        drop(runtime);
        measure(&musher, &data, (*instances, events), (rounds, goal_ms), &mut report)?;
    }
    Ok(())
}

/// The daemon's binary, built beside this one.
fn beside_this() -> Result<PathBuf, Failure> {
    let path = std::env::current_exe()?.with_file_name("musher");
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("{} is not there: build it in the same profile, or name it with --musher", path.display())
        .into())
}

/// Waits until a checkpoint is whole: then it has its name.
#[expect(clippy::disallowed_methods, reason = "another process is waited for, on the real clock")]
fn until_checkpoint(data: &Path) -> Result<(), Failure> {
    let began = now();
    while began.elapsed() < CHECKPOINT_MAX {
        let names = std::fs::read_dir(data.join("checkpoints")).into_iter().flatten().flatten();
        if names.map(|entry| entry.path()).any(|path| path.extension().is_none_or(|it| it != "tmp")) {
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(format!("there is no checkpoint after {} s", CHECKPOINT_MAX.as_secs()).into())
}

fn measure(
    musher: &Path,
    data: &Path,
    (instances, events): (u32, u64),
    (rounds, goal_ms): (usize, Option<f64>),
    report: &mut Report,
) -> Result<(), Failure> {
    // The first start fills the cache and makes the checkpoint. A stop would not wait for it for ever.
    let first = start(musher, data, true)?;
    until_checkpoint(data)?;
    first.stop()?;
    let mut took: [(Vec<f64>, Vec<f64>); 3] = Default::default();
    for _ in 0..rounds {
        for (way, (ready, answer)) in Way::ALL.into_iter().zip(&mut took) {
            let cache = data.join("cache");
            let aside = data.with_extension("cache");
            if way == Way::FoldWithoutCache {
                std::fs::rename(&cache, &aside)?;
            }
            let started = start(musher, data, way == Way::Checkpoint)?;
            let Started { ready_ms, answer_ms, is_from_checkpoint, .. } = started;
            started.kill()?;
            if way == Way::FoldWithoutCache {
                std::fs::remove_dir_all(&cache)?;
                std::fs::rename(&aside, &cache)?;
            }
            if is_from_checkpoint != (way == Way::Checkpoint) {
                return Err(format!("a start by {} went another way", way.name()).into());
            }
            ready.push(ready_ms);
            answer.push(answer_ms);
        }
    }
    for (way, (ready, answer)) in Way::ALL.into_iter().zip(&took) {
        let (fastest, slowest) = range(answer);
        report.row(&json!({
            "bench": "recovery", "instances": instances, "events": events, "way": way.name(),
            "ready_ms": median(ready), "answer_ms": median(answer), "fastest_ms": fastest, "slowest_ms": slowest,
        }));
    }
    let [checkpoint, fold, cold] = [0, 1, 2].map(|way| median(&took[way].1));
    report.row(&json!({
        "bench": "recovery", "instances": instances, "events": events, "goal_ms": goal_ms,
        "is_met": goal_ms.map(|goal_ms| checkpoint <= goal_ms), "fold_by_checkpoint": fold / checkpoint, "cold_by_checkpoint": cold / checkpoint,
    }));
    Ok(())
}
