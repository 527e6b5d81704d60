//! `replay --simulate`: an instance's history as a scenario of the chaos harness.

use super::args::ReplayArgs;
use super::past::Past;
use super::progress;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use chaos::{History, reenact};
use lifecycle::InstanceId;
use serde_json::json;
use std::io::Write as _;
use std::path::PathBuf;

/// Writes the scenario, and says how far a run of it follows the record.
pub fn run(past: &Past, id: InstanceId, args: &ReplayArgs) -> Outcome {
    let incident = replay::incident(past.source(), id, &mut progress("read"));
    let incident = incident.map_err(|error| past.failure(error))?;
    let made = reenact(&History { own: &incident.own, around: &incident.around, end: incident.end })
        .map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
    let named = args.instance.as_deref().unwrap_or("instance");
    let to = args.to.clone().unwrap_or_else(|| PathBuf::from(format!("{named}.scenario.json")));
    let written = std::fs::File::create_new(&to)
        .and_then(|mut file| file.write_all(made.scenario.to_json().as_bytes()));
    written.map_err(|error| {
        Failure::new(Exit::Refused, format!("{}: {error}", to.display())).hint("name a new file with --to")
    })?;
    let (requests, faults) = (made.scenario.requests.len(), made.scenario.faults.len());
    let document = json!({
        "file": to, "seed": made.scenario.seed, "requests": requests, "faults": faults,
        "recorded": made.recorded, "followed": made.followed,
        "parted": made.parted.as_ref().map(|(recorded, given)| json!({"recorded": recorded, "given": given})),
        "left_out": made.left_out,
    });
    if output::structured(args.output, &document) {
        return Ok(());
    }
    output::line(format!(
        "{}: {requests} request(s), {faults} fault(s), seed {}",
        to.display(),
        made.scenario.seed
    ));
    match made.parted {
        None => output::line(format!("a run gives the {} recorded events in their order", made.recorded)),
        Some((recorded, given)) => output::line(format!(
            "a run gives the first {} of {} recorded events; then \"{recorded}\" was recorded, and it gives \"{given}\"",
            made.followed, made.recorded
        )),
    }
    for what in made.left_out {
        output::line(format!("left out: {what}"));
    }
    output::line(format!("run it with `musher chaos replay {}`", to.display()));
    Ok(())
}
