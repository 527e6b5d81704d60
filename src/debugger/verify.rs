//! `replay --verify`: fold = live = snapshots = read models, and every invariant.

use super::past::Past;
use super::progress;
use crate::checkpoints;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Format};
use crate::store::open_failure;
use checkpoint::{Compared, Verdict};
use eventlog::cache::SledCache;
use eventlog::{Cache, JournalReader};
use lifecycle::InstanceId;
use replay::{Finding, FindingKind, Options, Scope, VerifyReport};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Memory for looking at the cache of a stopped directory.
const CACHE_BYTES: u64 = 16 << 20;
/// Rows of a list asked for at once: few, because a daemon makes a page without a pause.
const ROWS: &str = "100";

/// Verifies one instance, or all of the log and everything that is made from it.
pub fn run(past: &Past, instance: Option<InstanceId>, format: Format) -> Outcome {
    let report = verify(past, instance)?;
    show(&report, format);
    if let Some(first) = report.first() {
        return Err(Failure::new(Exit::Refused, format!("the history does not hold together: {first}")));
    }
    match (past, instance) {
        (Past::Directory(stopped, data), None) => compare_checkpoints(&stopped.reader, data, format),
        _ => Ok(()),
    }
}

/// Folds the log once more, and compares every checkpoint on the way. One that cannot be used is told, and no
/// failure: a start passes it over.
fn compare_checkpoints(reader: &JournalReader, data: &Path, format: Format) -> Outcome {
    let compared = checkpoint::compare(&checkpoints::directory(data), reader.store_id(), reader)
        .map_err(|error| Failure::new(Exit::Damaged, error.to_string()))?;
    let mut same = 0;
    for Compared { path, position, verdict } in &compared {
        match verdict {
            Verdict::Same => same += 1,
            Verdict::Unusable(why) => eprintln!("{} is not used: {why}", path.display()),
            Verdict::Differs(what) => {
                let problem = format!(
                    "the checkpoint at position {position} is not the fold of the log: {what} differs"
                );
                return Err(Failure::new(Exit::Refused, problem)
                    .hint(format!("remove {}: a start folds the log instead", path.display())));
            }
        }
    }
    if format == Format::Table && same > 0 {
        output::line(format!("{same} checkpoint(s) compared: each is the fold of the log at its position"));
    }
    Ok(())
}

/// The first event of the whole log that breaks an invariant.
pub fn first_broken(past: &Past, number: Option<u8>, format: Format) -> Outcome {
    let report = replay::verify(past.source(), Scope::All, &Options::default(), &mut progress("verified"));
    let report = report.map_err(|error| past.failure(error))?;
    let is_wanted = |finding: &&Finding| {
        finding.invariant.is_some() && number.is_none_or(|number| finding.invariant == Some(number))
    };
    match report.findings.iter().find(is_wanted) {
        None if report.is_clean() => {
            Err(Failure::new(Exit::Refused, "no invariant is broken anywhere in the log"))
        }
        None => {
            let found = report.findings.len() as u64 + report.findings_dropped;
            let what = format!("that invariant is not broken; {found} other thing(s) are wrong");
            Err(Failure::new(Exit::Refused, what).hint("`musher replay --verify` names them"))
        }
        Some(found) => {
            if !output::structured(format, found) {
                output::line(found.to_string());
            }
            Err(Failure::new(Exit::Refused, found.detail.clone()))
        }
    }
}

fn verify(past: &Past, instance: Option<InstanceId>) -> Result<VerifyReport, Failure> {
    let scope = instance.map_or(Scope::All, Scope::One);
    let cache = match past {
        Past::Directory(stopped, data) => {
            whole(&stopped.reader)?;
            cache(data, &stopped.reader)
        }
        Past::Backup(restored) => {
            whole(&restored.reader)?;
            None
        }
        Past::Export(_) | Past::Live(_) => None,
    };
    let cache = cache.as_ref().map(|cache| cache as &dyn Cache);
    let options = Options { cache, ..Options::default() };
    let report = replay::verify(past.source(), scope, &options, &mut progress("verified"));
    let mut report = report.map_err(|error| past.failure(error))?;
    // What is made from a log that does not hold together need not either.
    if scope == Scope::All && report.is_clean() {
        let stored = cache.and_then(|cache| projections::stored_model(cache, past.source().durable()));
        let mut told = progress("compared");
        replay::verify_read_model(past.source(), stored.as_ref(), &mut report, &mut told)
            .map_err(|error| past.failure(error))?;
        live(past, &mut report)?;
    }
    Ok(report)
}

fn whole(reader: &JournalReader) -> Outcome {
    let log = reader.verify().map_err(open_failure)?;
    log.problem.map_or(Ok(()), |problem| Err(Failure::new(Exit::Damaged, problem)))
}

fn cache(data: &Path, reader: &JournalReader) -> Option<SledCache> {
    let dir = data.join("cache");
    let opened =
        dir.is_dir().then(|| SledCache::open(&dir, reader.store_id(), reader.durable(), CACHE_BYTES));
    opened.and_then(Result::ok).map(|(cache, _)| cache)
}

/// Compares what a running daemon shows of every instance with the fold. What was changed meanwhile is left out:
/// it shows by its newest event in a second look at the log.
fn live(past: &Past, report: &mut VerifyReport) -> Outcome {
    let Past::Live(daemon) = past else {
        return Ok(());
    };
    let mut shown: BTreeMap<String, Value> = BTreeMap::new();
    for project in pages(daemon, "/v1/projects", &[])? {
        let project = output::text(&project, "id");
        for item in pages(daemon, "/v1/instances", &[("project", project.as_str())])? {
            shown.insert(output::text(&item, "id"), item);
        }
    }
    let fleet = replay::fleet_at(past.source(), replay::At::Now, &mut |_| {});
    let fleet = fleet.map_err(|error| past.failure(error))?;
    for folded in fleet.instances {
        let item = shown.remove(&folded.id.to_string());
        let says = item.as_ref().map_or("nothing", |item| item["run_state"].as_str().unwrap_or("nothing"));
        let is_same = says == folded.run_state.to_string()
            && item.as_ref().is_some_and(|item| item["name"] == folded.name.as_str());
        report.live += 1;
        if is_same || has_moved(daemon, folded.id, folded.version) {
            continue;
        }
        let detail = format!("the daemon shows {says}, the fold says {}", folded.run_state);
        let place = (folded.version, fleet.position);
        report.add(Finding::of_instance(FindingKind::LiveDiffers, folded.id, place, detail));
    }
    for (id, _) in shown {
        let id: InstanceId = match id.parse() {
            Ok(id) => InstanceId::new(id),
            Err(_) => continue,
        };
        if !has_moved(daemon, id, 0) {
            let detail = "the daemon shows it, and the log has no such instance";
            report.add(Finding::of_instance(FindingKind::LiveDiffers, id, (0, fleet.position), detail));
        }
    }
    Ok(())
}

/// Whether the instance has a newer event than this version, or is gone by now.
fn has_moved(daemon: &super::live::Live, id: InstanceId, version: u64) -> bool {
    let after = version.to_string();
    let query = [("after", after.as_str()), ("limit", "1")];
    let newer = daemon.ask(&format!("/ops/v1/instances/{id}/history"), &query);
    newer.map_or(true, |page| page["items"].as_array().is_some_and(|items| !items.is_empty()))
}

fn pages(daemon: &super::live::Live, path: &str, query: &[(&str, &str)]) -> Result<Vec<Value>, Failure> {
    let (mut items, mut token): (Vec<Value>, Option<String>) = (Vec::new(), None);
    loop {
        let mut asked = vec![("limit", ROWS)];
        asked.extend(token.as_deref().map(|token| ("page_token", token)));
        asked.extend(query);
        let page = daemon.ask(path, &asked)?;
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next_page"].as_str() {
            Some(next) => token = Some(next.to_owned()),
            None => return Ok(items),
        }
    }
}

fn show(report: &VerifyReport, format: Format) {
    if output::structured(format, report) {
        return;
    }
    output::line(format!(
        "{} events in {} appends on {} streams; {} instances folded twice; {} decisions repeated; {} snapshots compared",
        report.events,
        report.appends,
        report.streams,
        report.instances,
        report.inputs_decided,
        report.snapshots
    ));
    if report.rows > 0 {
        output::line(format!("{} rows of read models compared", report.rows));
    }
    if report.live > 0 {
        output::line(format!("{} live instances compared with what the daemon shows", report.live));
    }
    if report.is_clean() {
        output::line("log = state, and every invariant holds");
        return;
    }
    for finding in &report.findings {
        output::line(finding.to_string());
    }
    if report.findings_dropped > 0 {
        output::line(format!("and {} more", report.findings_dropped));
    }
}
