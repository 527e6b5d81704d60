//! What people and machines read: short form, campaign form, JSON lines, and the directory of a failure.

use crate::campaign::{FailedSeed, Findings, run_caught};
use crate::coverage::Sometimes;
use crate::scenario::Scenario;
use crate::shrink::Shrunk;
use crate::states::Point;
use serde_json::json;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What a trace line must be about to appear in the short form.
const SHORT: [&str; 10] =
    ["append", "FAULT", "CRASH", "crash", "recover", "poison", "FAIL", "refused", "HEAL", "rest"];

/// Whether a trace line belongs to the short form.
pub fn is_short(line: &str) -> bool {
    line.split_whitespace().nth(1).is_some_and(|what| SHORT.contains(&what))
}

/// The time of a trace line, milliseconds.
pub fn time_ms(line: &str) -> Option<u64> {
    let (seconds, millis) = line.split_whitespace().next()?.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000 + millis.parse::<u64>().ok()?)
}

/// Two lines that say how small a failure has become.
pub fn shrunk_line(before: &Scenario, shrunk: &Shrunk) -> String {
    format!(
        "shrunk {} faults {} requests -> {} faults {} requests in {} runs",
        before.faults.len(),
        before.requests.len(),
        shrunk.scenario.faults.len(),
        shrunk.scenario.requests.len(),
        shrunk.runs
    )
}

/// The shrunk failure in short form.
pub fn short_form(out: &mut dyn Write, failed: &FailedSeed, shrunk: &Shrunk) -> io::Result<()> {
    let Scenario { profile, .. } = &failed.scenario;
    writeln!(
        out,
        "seed {}  profile {profile}  {} {}",
        failed.seed, failed.failure.invariant, failed.failure.detail
    )?;
    for fault in &shrunk.scenario.faults {
        writeln!(out, "    fault      {} {}", fault.kind(), fault.describe())?;
    }
    for line in run_caught(&shrunk.scenario, true).trace.iter().filter(|line| is_short(line)) {
        writeln!(out, "  {line}")?;
    }
    writeln!(out, "  {}", shrunk_line(&failed.scenario, shrunk))
}

/// The directory of a failure: `scenario.json`, `shrunk.json`, `events.log`, `trace.txt`, `summary.txt`.
pub fn keep(dir: &Path, failed: &FailedSeed, shrunk: &Shrunk) -> io::Result<PathBuf> {
    let place = dir.join(format!("{}-{}", failed.failure.invariant, failed.seed));
    std::fs::create_dir_all(&place)?;
    let outcome = run_caught(&shrunk.scenario, true);
    std::fs::write(place.join("scenario.json"), failed.scenario.to_json())?;
    std::fs::write(place.join("shrunk.json"), shrunk.scenario.to_json())?;
    std::fs::write(place.join("events.log"), lines(&outcome.log))?;
    std::fs::write(place.join("trace.txt"), lines(&outcome.trace))?;
    let mut summary = Vec::new();
    short_form(&mut summary, failed, shrunk)?;
    writeln!(summary, "  repro: musher chaos replay {}", place.join("shrunk.json").display())?;
    std::fs::write(place.join("summary.txt"), summary)?;
    Ok(place)
}

fn lines(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

/// The campaign's numbers.
pub fn numbers(out: &mut dyn Write, findings: &Findings, elapsed_ms: u64) -> io::Result<()> {
    let per_second = findings.steps.saturating_mul(1_000) / elapsed_ms.max(1);
    let hours = findings.simulated_us / 360_000_000;
    writeln!(
        out,
        "seeds {}  steps {}  steps/s {per_second}  simulated {}.{} h  longest seed {} ({} steps)",
        findings.seeds,
        findings.steps,
        hours / 10,
        hours % 10,
        findings.longest.0,
        findings.longest.1
    )
}

/// How many distinct abstract states the first seeds met.
pub fn states(out: &mut dyn Write, findings: &Findings, first: u64) -> io::Result<()> {
    writeln!(out, "distinct abstract states by seeds")?;
    writeln!(out, "  {:>8} {:>16} {:>12} {:>10}", "seeds", "state and event", "instances", "fleets")?;
    for point in findings.states.curve(first, findings.seeds) {
        let Point { seeds, decided, instances, fleets } = point;
        writeln!(out, "  {seeds:>8} {decided:>16} {instances:>12} {fleets:>10}")?;
    }
    Ok(())
}

/// The coverage table; a state below its minimum is marked, if minima are asked for.
pub fn coverage(out: &mut dyn Write, findings: &Findings, with_minima: bool) -> io::Result<()> {
    let short = findings.coverage.short(findings.seeds);
    for &state in Sometimes::ALL {
        if !with_minima {
            writeln!(out, "  {:<44} {:>7}", state.name(), findings.coverage.count(state))?;
            continue;
        }
        let least = state.minimum() * findings.seeds / 1_000;
        let mark = if short.iter().any(|(short, _)| *short == state) { "TOO FEW" } else { "" };
        let line = format!(
            "  {:<44} {:>7} of {least:>5} wanted  {mark}",
            state.name(),
            findings.coverage.count(state)
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// One failure as a JSON line.
pub fn failure_json(failed: &FailedSeed, shrunk: Option<&Shrunk>) -> String {
    json!({
        "type": "failure",
        "seed": failed.seed,
        "profile": failed.scenario.profile,
        "failure": failed.failure,
        "items_before": failed.scenario.items(),
        "items_after": shrunk.map(|shrunk| shrunk.scenario.items()),
        "shrunk": shrunk.map(|shrunk| &shrunk.scenario),
    })
    .to_string()
}

/// The campaign as a JSON line.
pub fn summary_json(findings: &Findings, first: u64, elapsed_ms: u64, exit: u8) -> String {
    let point = |point: &Point| {
        json!({
            "seeds": point.seeds,
            "decided": point.decided,
            "instances": point.instances,
            "fleets": point.fleets,
        })
    };
    let curve: Vec<_> = findings.states.curve(first, findings.seeds).iter().map(point).collect();
    let coverage: serde_json::Map<String, serde_json::Value> = Sometimes::ALL
        .iter()
        .map(|state| (state.name().to_owned(), findings.coverage.count(*state).into()))
        .collect();
    json!({
        "type": "campaign",
        "seeds": findings.seeds,
        "steps": findings.steps,
        "elapsed_ms": elapsed_ms,
        "simulated_us": findings.simulated_us,
        "failed_seeds": findings.failures.iter().map(|failed| failed.seed).collect::<Vec<_>>(),
        "differing_seeds": findings.differing,
        "coverage": coverage,
        "states": curve,
        "exit": exit,
    })
    .to_string()
}
