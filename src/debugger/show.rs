//! Answers about the past as people read them.

use crate::output::{self, Format, Paint};
use replay::grep::Hits;
use replay::{AppendCosts, Fleet, InstanceState, Reached, StateDiff, Stats};
use serde_json::Value;

/// One instance at one moment.
pub fn state(state: &InstanceState, format: Format) {
    if output::structured(format, state) {
        return;
    }
    output::line(format!(
        "{} is {} at #{} (position {}, {})",
        state.state.spec.name, state.run_state, state.version, state.position, state.time
    ));
    if !state.effects.is_empty() {
        let wished: Vec<String> = state
            .effects
            .iter()
            .map(|effect| format!("{} VMM {} on sled {}", effect.name(), effect.vmm(), effect.sled()))
            .collect();
        output::line(format!("to be done: {}", wished.join("; ")));
    }
    output::json(&state.state);
}

/// What differs, a line per field: what was in red, what is in green.
pub fn diff(diff: &StateDiff, format: Format) {
    if output::structured(format, diff) {
        return;
    }
    let (from, to) = (&diff.from, &diff.to);
    output::line(format!(
        "#{} {} (position {}, {}) .. #{} {} (position {}, {})",
        from.version,
        from.run_state,
        from.position,
        from.time,
        to.version,
        to.run_state,
        to.position,
        to.time
    ));
    if diff.changes.is_empty() {
        output::line("nothing differs");
    }
    for change in &diff.changes {
        output::line(change_line(change));
    }
}

/// One field that differs.
pub fn change_line(change: &replay::Change) -> String {
    let was = change.before.as_ref().map(|value| output::painted(Paint::Red, &plain(value)));
    let is = change.after.as_ref().map(|value| output::painted(Paint::Green, &plain(value)));
    match (was, is) {
        (Some(was), Some(is)) => format!("  {}: {was} → {is}", change.field),
        (Some(was), None) => format!("- {}: {was}", change.field),
        (None, is) => format!("+ {}: {}", change.field, is.unwrap_or_default()),
    }
}

/// A value without the quotes of a text.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The fleet: instances, then sleds.
pub fn fleet(fleet: &Fleet, format: Format) {
    if output::structured(format, fleet) {
        return;
    }
    let time = fleet.time.as_deref().unwrap_or("the beginning");
    output::line(format!(
        "position {}, {time}: {} instance(s), {} deleted, {} sled(s)",
        fleet.position,
        fleet.instances.len(),
        fleet.deleted,
        fleet.sleds.len()
    ));
    output::line("");
    output::table(
        &["project", "name", "state", "sled", "saga", "since", "version"],
        fleet.instances.iter().map(|it| {
            let sled = match (&it.sled, &it.target) {
                (Some(sled), Some(target)) => format!("{sled} → {target}"),
                (Some(sled), None) => sled.clone(),
                (None, _) => "-".to_owned(),
            };
            let saga = it
                .saga
                .map_or_else(|| "-".to_owned(), |(kind, step)| format!("{} at {}", word(&kind), word(&step)));
            vec![
                it.project.clone(),
                it.name.clone(),
                it.run_state.to_string(),
                sled,
                saga,
                it.since.clone(),
                format!("#{}", it.version),
            ]
        }),
    );
    output::line("");
    output::table(
        &["sled", "state", "vmms", "threads", "memory"],
        fleet.sleds.iter().map(|it| {
            vec![
                it.name.clone(),
                it.state.to_owned(),
                it.vmms.to_string(),
                format!("{} of {}", it.threads_held, it.threads),
                format!("{} of {}", output::gib(it.memory_held), output::gib(it.memory)),
            ]
        }),
    );
    for broken in &fleet.unreadable {
        output::line(format!("{} cannot be folded: {}", broken.stream, broken.why));
    }
}

fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).map_or_else(|_| String::new(), |value| plain(&value))
}

/// Where a condition came true.
pub fn reached(reached: &Reached, format: Format) {
    if output::structured(format, reached) {
        return;
    }
    output::line(format!(
        "{} #{} (position {}, {}): {} by {}",
        reached.name, reached.version, reached.position, reached.time, reached.event, reached.actor
    ));
    output::line(format!("  {}", reached.detail));
    if let Some(cause) = reached.cause {
        output::line(format!("  caused by position {cause}"));
    }
}

/// Events that mention something.
pub fn hits(hits: &Hits, format: Format) {
    if output::structured(format, &hits.items) {
        return;
    }
    for hit in &hits.items {
        output::line(format!(
            "{:>8}  {}  {} #{}  {}  by {}: {}",
            hit.position, hit.time, hit.stream, hit.version, hit.event, hit.actor, hit.summary
        ));
    }
    let shown = hits.items.len() as u64;
    if shown < hits.total {
        eprintln!("{} of {} events; --limit shows more", shown, hits.total);
    }
}

/// The log in numbers.
pub fn stats(stats: &Stats, format: Format) {
    if output::structured(format, stats) {
        return;
    }
    for (key, value) in [
        ("durable", stats.durable.to_string()),
        ("events", stats.events.to_string()),
        ("appends", stats.appends.to_string()),
        ("streams", stats.streams.to_string()),
        ("bytes", stats.bytes.to_string()),
        ("first", stats.time_first.clone().unwrap_or_default()),
        ("last", stats.time_last.clone().unwrap_or_default()),
    ] {
        output::line(format!("{key:<12} {value}"));
    }
    costs(&stats.costs);
    output::table(
        &["event", "count", "bytes"],
        stats
            .kinds
            .iter()
            .map(|kind| vec![kind.event.clone(), kind.count.to_string(), kind.bytes.to_string()]),
    );
}

/// What starts and stops took.
pub fn costs(costs: &AppendCosts) {
    for (what, cost) in [("starts", costs.start), ("stops", costs.stop)] {
        let (runs, appends, most) = (cost.runs, cost.appends, cost.appends_max);
        output::line(format!("{what:<12} {runs}, in {appends} append(s), at most {most} each"));
    }
}
