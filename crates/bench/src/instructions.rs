//! Instructions that the rules and the codec take per event, counted under valgrind, beside what they took before.
//!
//! A count does not depend on what else the machine does, so it can fail a build where a time cannot.
//!
//! Invariants:
//! * what is counted is the difference between runs of few and of many rounds over the same history: the start of the
//!   process and the making of the history are in both;
//! * more than [`MORE_MAX`] above the recorded count fails; fewer is told, so that it can be recorded anew.

use crate::Failure;
use crate::args::{InstructionsOptions, Work};
use crate::replaying::history::History;
use crate::report::Report;
use crate::statistics::count;
use clap::ValueEnum;
use journal::{Event, Recorded, encode_event, read};
use lifecycle::{Decision, Instance, InstanceEvent, Policy, decide, effects, evolve};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::process::Command;

/// Events and instances of the history.
const EVENTS: usize = 2_000;
const INSTANCES: usize = 16;
/// Rounds of the two runs that are compared.
const FEW: u64 = 1;
const MANY: u64 = 5;
/// A tenth: what another version of the compiler may take.
const MORE_MAX: f64 = 1.10;

/// Counts, compares and prints.
pub fn run(options: &InstructionsOptions) -> Result<(), Failure> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("instructions are not counted: there is no valgrind");
        return Ok(());
    }
    let baseline = std::fs::read_to_string(&options.baseline).unwrap_or_default();
    let recorded: BTreeMap<&str, f64> = baseline
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, number)| Some((name, number.trim().parse().ok()?)))
        .collect();
    let (mut report, mut lines, mut worse) = (Report::new(options.json), String::new(), Vec::new());
    for work in Work::value_variants() {
        let name = format!("{work:?}").to_lowercase();
        let each =
            count(counted(*work, MANY)? - counted(*work, FEW)?) / count(MANY - FEW) / count(EVENTS as u64);
        let before = recorded.get(name.as_str()).copied();
        let ratio = before.map(|before| each / before);
        report.row(&json!({
            "bench": "instructions", "what": name, "per_event": each, "recorded": before, "ratio": ratio,
        }));
        if ratio.is_none_or(|ratio| ratio > MORE_MAX) {
            worse.push(name.clone());
        }
        writeln!(lines, "{name} {each:.0}")?;
    }
    if options.update {
        std::fs::write(&options.baseline, lines)?;
        return Ok(());
    }
    if worse.is_empty() {
        return Ok(());
    }
    let (worse, file) = (worse.join(", "), options.baseline.display());
    Err(format!("more than a tenth above {file}, or not in there: {worse}; if it has to be so, --update")
        .into())
}

/// Instructions of a process that does this so many times.
fn counted(work: Work, rounds: u64) -> Result<u64, Failure> {
    let name = format!("{work:?}").to_lowercase();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["work", &name, &rounds.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.ok_or_else(|| format!("valgrind did not count: {said}").into())
}

/// Does it so many times, and nothing else but what it needs for that.
pub fn work(work: Work, rounds: u64) -> Result<(), Failure> {
    let history = History::of(EVENTS, INSTANCES);
    let recorded: Vec<Recorded> = history.records.iter().take(EVENTS).map(read).collect::<Result<_, _>>()?;
    for _ in 0..rounds {
        match work {
            Work::Decode => {
                for record in history.records.iter().take(EVENTS) {
                    drop(black_box(read(black_box(record))?));
                }
            }
            Work::Encode => {
                for it in &recorded {
                    black_box(encode_event(black_box(&it.event)));
                }
            }
            Work::Evolve => folded(&recorded, &mut |_, _| Ok(()))?,
            Work::Decide => folded(&recorded, &mut |state, it| {
                let Some(input) = it.context.as_ref().and_then(|context| context.input.as_ref()) else {
                    return Ok(());
                };
                let decided = decide(state, black_box(input), &Policy::default())?;
                if matches!(decided, Decision::AskForRoom(_)) {
                    return Err("the rules ask for room that was given".into());
                }
                drop(black_box(decided));
                Ok(())
            })?,
            Work::Effects => folded(&recorded, &mut |state, _| {
                state.map(|state| black_box(effects(state)));
                Ok(())
            })?,
        }
    }
    Ok(())
}

type See<'a> = dyn FnMut(Option<&Instance>, &Recorded) -> Result<(), Failure> + 'a;

/// Folds every instance, and shows each state and the event that follows it.
fn folded(recorded: &[Recorded], see: &mut See<'_>) -> Result<(), Failure> {
    let mut states: BTreeMap<_, Option<Instance>> = BTreeMap::new();
    for it in recorded {
        let Event::Instance(event) = &it.event else { continue };
        let state = states.entry(it.stream).or_default();
        see(state.as_ref(), it)?;
        let event: &InstanceEvent = black_box(event);
        evolve(state, event, it.meta);
    }
    drop(black_box(states));
    Ok(())
}
