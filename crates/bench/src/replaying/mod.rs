//! The debugger: how fast a history is folded, looked at and verified, from an export file.

pub mod history;

use crate::Failure;
use crate::args::ReplayOptions;
use crate::clock;
use crate::machine;
use crate::report::Report;
use eventlog::Position;
use eventlog::portable::{ExportReader, export_file};
use history::History;
use replay::{At, Options, Scope};
use serde_json::json;

/// Measures and prints.
pub fn run(options: &ReplayOptions) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    let mut report = Report::new(options.json);
    report.row(&machine::describe(dir.path()));
    let path = dir.path().join("history.musher");
    let made = export_file(&History::of(options.events, options.instances), Position::new(1), &path)?;
    report.row(&json!({
        "bench": "replay", "what": "history", "events": made.records, "instances": options.instances,
        "export_bytes": made.bytes, "raw_bytes": made.raw_bytes,
    }));
    let events = f64::from(u32::try_from(made.records)?);
    let began = clock::now();
    let reader = ExportReader::open(&path)?;
    let seconds = began.elapsed().as_secs_f64();
    report.row(
        &json!({"bench": "replay", "what": "open", "seconds": seconds, "events_per_s": events / seconds}),
    );
    for round in 1..=options.rounds {
        let began = clock::now();
        let fleet = replay::fleet_at(&reader, At::Now, &mut |_| {})?;
        let seconds = began.elapsed().as_secs_f64();
        assert_eq!((fleet.position, fleet.unreadable.len()), (made.records, 0), "all of it is folded");
        report.row(&json!({
            "bench": "replay", "what": "fold", "round": round, "seconds": seconds, "events_per_s": events / seconds,
        }));
    }
    for part in [4, 2] {
        let position = made.records / part;
        let began = clock::now();
        replay::fleet_at(&reader, At::Position(position), &mut |_| {})?;
        let seconds = began.elapsed().as_secs_f64();
        report.row(&json!({"bench": "replay", "what": "fleet", "position": position, "seconds": seconds}));
    }
    let began = clock::now();
    let verified = replay::verify(&reader, Scope::All, &Options::default(), &mut |_| {})?;
    let seconds = began.elapsed().as_secs_f64();
    if let Some(first) = verified.first() {
        return Err(format!("the history does not hold together: {first}").into());
    }
    report.row(&json!({
        "bench": "replay", "what": "verify", "seconds": seconds, "events_per_s": events / seconds,
        "decided": verified.inputs_decided,
    }));
    let began = clock::now();
    let mut models = verified;
    replay::verify_read_model(&reader, None, &mut models, &mut |_| {})?;
    let seconds = began.elapsed().as_secs_f64();
    report.row(&json!({"bench": "replay", "what": "read model", "seconds": seconds, "rows": models.rows}));
    Ok(())
}
