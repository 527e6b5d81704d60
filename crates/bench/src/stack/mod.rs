//! The whole daemon, driven over HTTP as its users and sleds drive it: a process of its own on a directory of its
//! own, real routes only.
//!
//! ```text
//! clients (this process) ── HTTP/1.1, keep-alive ──▶ musher serve ──▶ journal
//! ```
//!
//! Invariants:
//! * an answer counts only if it is 2xx, and every other answer ends the measurement;
//! * what was counted is compared with the appends that the daemon says it has made durable meanwhile;
//! * processor time of daemon and clients is told apart: both share the machine.

mod daemon;
mod fleet;
mod herd;
mod http;
mod inprocess;
mod live;
mod load;
mod memory;
mod peers;
mod reports;
mod sagas;
mod sleds;
mod transitions;

use crate::Failure;
use crate::args::{FleetOptions, LiveOptions, PeersOptions, ReportsOptions, SledsOptions, StackOptions};
use crate::machine;
use crate::report::Report;
use daemon::Daemon;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    round: Duration,
}

impl Plan {
    const FULL: Self = Self { rounds: 5, round: Duration::from_secs(2) };
    const QUICK: Self = Self { rounds: 3, round: Duration::from_millis(700) };
}

/// What is measured on a daemon that is started as for everything.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// One durable transition per request.
    Transitions,
    /// Complete starts.
    Sagas,
}

/// How many reports of sleds one core takes in.
pub fn reports(options: &ReportsOptions) -> Result<(), Failure> {
    let mut alone = Alone::new(options.json, &options.dir)?;
    alone.runtime.block_on(reports::measure(options, alone.scratch.path(), &mut alone.report))
}

/// What many sleds cost a daemon.
pub fn sleds(options: &SledsOptions) -> Result<(), Failure> {
    let mut alone = Alone::new(options.json, &options.dir)?;
    alone.runtime.block_on(sleds::measure(options, alone.scratch.path(), &mut alone.report))
}

/// How others that do the same fare in the same run.
pub fn peers(options: &PeersOptions) -> Result<(), Failure> {
    let mut report = Report::new(options.json);
    let scratch = tempfile::tempdir_in(&options.dir)?;
    report.row(&machine::describe(scratch.path()));
    peers::measure(options, scratch.path(), &mut report)
}

/// What many instances cost a daemon.
pub fn fleet(options: &FleetOptions) -> Result<(), Failure> {
    let mut alone = Alone::new(options.json, &options.dir)?;
    alone.runtime.block_on(memory::measure(options, alone.scratch.path(), &mut alone.report))
}

/// What a measurement needs that starts its own daemons.
struct Alone {
    report: Report,
    runtime: Runtime,
    /// Goes away at the end.
    scratch: TempDir,
}

impl Alone {
    fn new(is_json: bool, dir: &Path) -> Result<Self, Failure> {
        let mut report = Report::new(is_json);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let scratch = tempfile::tempdir_in(dir)?;
        report.row(&machine::describe(scratch.path()));
        Ok(Self { report, runtime, scratch })
    }
}

/// Starts a daemon, measures and prints.
pub fn run(question: Question, options: &StackOptions) -> Result<(), Failure> {
    let plan = if options.quick { Plan::QUICK } else { Plan::FULL };
    let mut report = Report::new(options.json);
    // One thread: the clients are to leave the machine to the daemon.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let scratch = tempfile::tempdir_in(&options.dir)?;
    report.row(&machine::describe(scratch.path()));
    let daemon = Daemon::start(options.musher.as_deref(), &scratch.path().join("data"))?;
    runtime.block_on(async {
        match question {
            Question::Transitions => transitions::measure(&daemon, options, plan, &mut report).await,
            Question::Sagas => sagas::measure(&daemon, options, plan, &mut report).await,
        }
    })?;
    drop((daemon, runtime));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let dir = scratch.path().join("in-process");
    runtime.block_on(inprocess::measure(question, options, plan, (&dir, Some(&mut report)))).map(drop)
}

/// Starts a daemon, measures what its writers feel of those who look at its past, and prints.
pub fn run_live(options: &LiveOptions) -> Result<(), Failure> {
    let mut report = Report::new(options.json);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let scratch = tempfile::tempdir_in(&options.dir)?;
    report.row(&machine::describe(scratch.path()));
    let daemon = Daemon::start(options.musher.as_deref(), &scratch.path().join("data"))?;
    runtime.block_on(live::measure(&daemon, options, &mut report))
}
