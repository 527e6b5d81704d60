//! `musher chaos process`: the real daemon and a real sled, killed again and again under load.
//!
//! Round after round on one directory, so that damage adds up: start, let clients work, pause or disturb, kill -9, check
//! the directory offline, start again, and ask for everything that was acknowledged. Clients write a history to a file
//! that is synced before each request leaves, so that what they claim survives whatever happens to this process.
//!
//! It is not deterministic: the seed fixes what is asked and when it is killed, not what the machine does. A kill keeps
//! the page cache, so this tier says nothing about power loss; the log's own tests do.
//!
//! Invariants:
//! * whatever was acknowledged is there after every start (I6), and its key has one outcome for ever (I8);
//! * whatever was not answered is settled by asking again under the same key: done or not, wholly (I7);
//! * what is wished comes true once nothing is disturbed (I18);
//! * the log verifies offline between rounds, every byte and every decision (I9, I12, I17, I27);
//! * only processes that were started here are touched.

mod house;
mod load;
mod round;

use crate::exit::Failure;
use house::House;
use load::{Clients, Dice};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// Most kills of one campaign.
pub const KILLS_MAX: u64 = 1_000_000;
/// Most clients at work at once.
pub const CLIENTS_MAX: u64 = 64;

/// What was asked for on the command line.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Kills.
    pub kills: u64,
    /// When to stop, if earlier.
    pub span: Option<Duration>,
    /// Seed of what is asked, and of when it is killed.
    pub seed: u64,
    /// Clients at work.
    pub clients: u64,
    /// Where a failure's directory is kept.
    pub keep: PathBuf,
}

/// What was found, by the numbers of `docs/testing.md`.
#[derive(Debug)]
pub struct Found {
    invariant: &'static str,
    detail: String,
}

impl Found {
    fn new(invariant: &'static str, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }

    /// The exit code: something did not come to rest, or an invariant was broken.
    fn exit(&self) -> u8 {
        if self.invariant == "I18" { 11 } else { 10 }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    kills: u64,
    sled_kills: u64,
    pauses: u64,
    refused_seconds: u64,
    acknowledged: u64,
    settled: u64,
    verified: u64,
}

/// Runs the campaign; tells how it goes on stderr, and what came of it on stdout.
pub fn run(campaign: &Campaign) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(play(campaign)),
        Err(error) => Err(Failure::from(anyhow::Error::from(error))),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit)
        }
    }
}

async fn play(campaign: &Campaign) -> Result<u8, Failure> {
    let scratch = tempfile::tempdir().map_err(anyhow::Error::from)?;
    let mut house = House::new(scratch.path())?;
    let mut clients = Clients::new(campaign.seed, campaign.clients, &scratch.path().join("history.jsonl"))?;
    let (mut dice, mut done) = (Dice::new(campaign.seed, u64::MAX), Done::default());
    let until = campaign.span.map(|span| Instant::now() + span);
    let mut found = Ok(());
    while done.kills < campaign.kills && until.is_none_or(|until| Instant::now() < until) {
        found = round::play(&mut house, &mut clients, &mut dice, &mut done).await;
        if found.is_err() {
            break;
        }
        if done.kills.is_multiple_of(10) {
            eprintln!("{}", told(&done));
        }
    }
    if found.is_ok() {
        found = round::last(&mut house, &mut clients, &mut done).await;
    }
    house.end().await;
    println!("{}", told(&done));
    match found {
        Ok(()) => Ok(0),
        Err(found) => {
            let place = keep(campaign, scratch, &found)?;
            println!("{} {}\nkept: {}", found.invariant, found.detail, place.display());
            Ok(found.exit())
        }
    }
}

fn told(done: &Done) -> String {
    format!(
        "{} kills  {} sled kills  {} pauses  {} second daemons refused  {} acknowledged  {} settled by asking again  {} \
         times verified offline",
        done.kills,
        done.sled_kills,
        done.pauses,
        done.refused_seconds,
        done.acknowledged,
        done.settled,
        done.verified
    )
}

/// The directories as they are, the history, and what was found.
fn keep(campaign: &Campaign, scratch: tempfile::TempDir, found: &Found) -> Result<PathBuf, Failure> {
    let place = campaign.keep.join(format!("{}-process-{}", found.invariant, campaign.seed));
    std::fs::create_dir_all(&place).map_err(anyhow::Error::from)?;
    let from = scratch.keep();
    let text = format!(
        "seed {}  {} {}\ndata, sled and history: {}\n",
        campaign.seed,
        found.invariant,
        found.detail,
        from.display()
    );
    std::fs::write(place.join("summary.txt"), text).map_err(anyhow::Error::from)?;
    copy_history(&from, &place)?;
    Ok(place)
}

fn copy_history(from: &Path, place: &Path) -> Result<(), Failure> {
    std::fs::copy(from.join("history.jsonl"), place.join("history.jsonl")).map_err(anyhow::Error::from)?;
    Ok(())
}
