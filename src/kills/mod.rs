//! `musher chaos process`: the real daemon and a real sled, killed again and again under load.
//!
//! Round after round on one directory, so that damage adds up: start, ask for everything that was acknowledged,
//! let clients work, let something go wrong, kill -9, check the directory offline. Clients write a history to a
//! file that is synced before each request leaves, so that what they claim survives whatever happens to this
//! process. The last rounds are on a disk that can be filled, where this process may mount one.
//!
//! It is not deterministic: the seed fixes what is asked and what goes wrong, not what the machine does. A kill
//! keeps the page cache, so this tier says nothing about power loss; the log's own tests do.
//!
//! Invariants:
//! * whatever was acknowledged is there after every start (I6), and its key has one outcome for ever (I8);
//! * whatever was not answered is settled by asking again under the same key: done or not, wholly (I7);
//! * what is wished comes true once nothing is disturbed (I18);
//! * a daemon whose log failed ends by itself, with an exit code; nothing of it panics;
//! * the log verifies offline between rounds, every byte and every decision (I9, I12, I17, I27);
//! * a clean stop and a start leave two marks in the log and nothing else (I28);
//! * only processes that were started here are touched, and only a disk that was mounted here is filled.

mod disk;
mod house;
mod load;
mod round;
mod stopping;
mod tally;
mod trouble;

use crate::exit::{Exit, Failure};
use disk::SmallDisk;
use house::{House, failpoints};
use load::{Clients, Counts, Dice, check_history};
use round::Stage;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tally::Tally;
use tokio::time::Instant;
use trouble::Bag;

pub use trouble::{Mode, Plant};

/// Most kills of one campaign.
pub const KILLS_MAX: u64 = 1_000_000;
/// Most clients at work at once.
pub const CLIENTS_MAX: u64 = 64;
/// Where the daemon's disk is, in a campaign's directory.
const DISK: &str = "disk";
/// What the clients did, beside it: that disk may be full.
const HISTORY: &str = "history.jsonl";
/// Rounds on one directory: verifying what has grown for longer takes longer than it finds.
const ROUNDS_MAX: u64 = 250;
/// Rounds on one small disk: the log alone would fill it.
const SMALL_ROUNDS_MAX: u64 = 25;
/// One round in so many is on a small disk.
const SMALL_ONE_IN: u64 = 8;
/// Rounds between two lines on stderr.
const TELL_EVERY: u64 = 10;
/// Rounds from which on everything must have been met.
const TABLE_ROUNDS_MIN: u64 = 20;

/// What was asked for on the command line.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Rounds; each ends with a kill.
    pub kills: u64,
    /// When to stop, if earlier.
    pub span: Option<Duration>,
    /// Seed of what is asked, and of what goes wrong.
    pub seed: u64,
    /// Clients at work.
    pub clients: u64,
    /// The daemon's binary, if it is not this one.
    pub daemon: Option<PathBuf>,
    /// Which troubles.
    pub mode: Mode,
    /// A mistake to plant.
    pub plant: Option<Plant>,
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

    /// The exit code: something panicked, did not come to rest, or an invariant was broken.
    fn exit(&self) -> u8 {
        match self.invariant {
            "panic" => 12,
            "I18" => 11,
            _ => 10,
        }
    }
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

/// Everything that lasts longer than one directory.
struct Running<'a> {
    campaign: &'a Campaign,
    under_test: PathBuf,
    has_points: bool,
    until: Option<Instant>,
    dice: Dice,
    tally: Tally,
    played: u64,
    answered: u64,
    acknowledged: u64,
}

async fn play(campaign: &Campaign) -> Result<u8, Failure> {
    let under_test = match &campaign.daemon {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(anyhow::Error::from)?,
    };
    let has_points = !failpoints(&under_test)?.is_empty();
    let needs_points = campaign.plant.is_some() || matches!(campaign.mode, Mode::Points | Mode::Io);
    if needs_points && !has_points {
        let what = format!("{} has no failpoints", under_test.display());
        return Err(Failure::new(Exit::Usage, what)
            .hint("build one with `cargo build --features failpoints`, and name it with --daemon"));
    }
    let until = campaign.span.map(|span| Instant::now() + span);
    let mut running = Running {
        campaign,
        under_test,
        has_points,
        until,
        dice: Dice::new(campaign.seed, u64::MAX),
        tally: Tally::default(),
        played: 0,
        answered: 0,
        acknowledged: 0,
    };
    running.play().await
}

impl Running<'_> {
    async fn play(&mut self) -> Result<u8, Failure> {
        let kills = self.campaign.kills;
        let small = match (self.campaign.mode, self.campaign.plant) {
            (Mode::Full, None) => kills,
            (Mode::All, None) => kills / SMALL_ONE_IN,
            _ => 0,
        };
        let mut ended = self.part(kills - small, ROUNDS_MAX, false).await?;
        if ended.is_none() {
            ended = self.part(small, SMALL_ROUNDS_MAX, true).await?;
        }
        println!("{}", self.told());
        let with_minima = self.campaign.mode == Mode::All
            && self.campaign.plant.is_none()
            && self.played >= TABLE_ROUNDS_MIN;
        println!("{}", self.tally.table(with_minima));
        if let Some(code) = ended {
            return Ok(code);
        }
        Ok(if with_minima && !self.tally.short().is_empty() { 13 } else { 0 })
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// So many rounds, a few on each directory. Answers an exit code if something was found.
    async fn part(&mut self, rounds: u64, rounds_max: u64, is_small: bool) -> Result<Option<u8>, Failure> {
        let mut bag = if is_small {
            Bag::small_disk()
        } else {
            Bag::ordinary(self.campaign.mode, self.campaign.plant, self.has_points)
        };
        let mut left = rounds;
        while left > 0 && !self.is_over() {
            let scratch = tempfile::tempdir().map_err(anyhow::Error::from)?;
            let place = scratch.path().join(DISK);
            std::fs::create_dir(&place).map_err(anyhow::Error::from)?;
            let disk = if is_small {
                match SmallDisk::mount(&place) {
                    Ok(disk) => Some(disk),
                    Err(why) => {
                        eprintln!("no rounds on a full disk: a small one cannot be mounted here: {why}");
                        return Ok(None);
                    }
                }
            } else {
                None
            };
            let found = self.directory(left.min(rounds_max), scratch.path(), &mut bag, disk.as_ref()).await?;
            if let Some(found) = found {
                return self.keep(scratch, disk, &found).map(Some);
            }
            left = left.saturating_sub(rounds_max);
        }
        Ok(None)
    }

    /// Rounds on one directory.
    async fn directory(
        &mut self,
        rounds: u64,
        place: &Path,
        bag: &mut Bag,
        disk: Option<&SmallDisk>,
    ) -> Result<Option<Found>, Failure> {
        let house = House::new(&self.under_test, &place.join(DISK), place, disk.is_some())?;
        let history = place.join(HISTORY);
        let seed = self.campaign.seed.wrapping_add(self.played);
        let clients = Clients::new(seed, self.campaign.clients, &history)?;
        let counts = clients.counts();
        let (before, until) = (self.acknowledged, self.until);
        let (dice, tally) = (&mut self.dice, &mut self.tally);
        let mut stage = Stage { house, clients, dice, tally, bag, disk, rounds: 0, is_left_full: false };
        let mut found = Ok(());
        while found.is_ok() && stage.rounds < rounds && until.is_none_or(|until| Instant::now() < until) {
            let has_points = self.has_points && disk.is_none();
            let counted = &mut stage.tally.rounds;
            *(if disk.is_some() { &mut counted.small_disk } else { &mut counted.ordinary }) += 1;
            counted.with_points += u64::from(has_points);
            found = stage.play().await;
            self.played += 1;
            if self.played.is_multiple_of(TELL_EVERY) {
                eprintln!("{}", told(self.played, stage.tally, before + counts.acknowledged()));
            }
        }
        if found.is_ok() {
            found = stage.last().await;
        }
        stage.house.end().await;
        drop(stage);
        self.acknowledged += Counts::acknowledged(&Arc::clone(&counts));
        let checked = found.and_then(|()| check_history(&history));
        match checked {
            Ok(answered) => {
                self.answered += answered;
                Ok(None)
            }
            Err(found) => Ok(Some(found)),
        }
    }

    fn told(&self) -> String {
        let told = told(self.played, &self.tally, self.acknowledged);
        format!("{told}  {} request ids with one outcome each", self.answered)
    }

    /// The directory as it is, the history, and what was found.
    fn keep(
        &self,
        scratch: tempfile::TempDir,
        disk: Option<SmallDisk>,
        found: &Found,
    ) -> Result<u8, Failure> {
        let place = self.campaign.keep.join(format!("{}-process-{}", found.invariant, self.campaign.seed));
        std::fs::create_dir_all(&place).map_err(anyhow::Error::from)?;
        // The directory with all in it: the daemon's disk, the sled's data, the history.
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .arg(scratch.path())
            .arg(place.join("as-it-was"))
            .status();
        let is_copied = copied.is_ok_and(|status| status.success());
        let text = format!(
            "seed {}  round {}  {} {}\ndata of daemon and sled: {}\n",
            self.campaign.seed,
            self.played,
            found.invariant,
            found.detail,
            if is_copied { "as-it-was" } else { "could not be copied" }
        );
        std::fs::write(place.join("summary.txt"), text).map_err(anyhow::Error::from)?;
        std::fs::copy(scratch.path().join(HISTORY), place.join(HISTORY)).map_err(anyhow::Error::from)?;
        drop(disk);
        println!("{} {}\nkept: {}", found.invariant, found.detail, place.display());
        Ok(found.exit())
    }
}

fn told(played: u64, tally: &Tally, acknowledged: u64) -> String {
    format!("{played} rounds  {} ends of the daemon  {acknowledged} acknowledged", tally.kills())
}
