//! `musher replay`: questions about the past, on the command line. What is answered is computed by the `replay`
//! crate; here it is asked for, and shown.

pub mod args;
mod edited;
mod live;
pub mod past;
pub mod show;
mod simulate;
mod step;
mod tui;
mod upgrade;
mod verify;
pub mod whatif;

use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::real::SystemClock;
use actors::Clock as _;
use args::ReplayArgs;
use lifecycle::{InstanceId, RequestId};
pub use live::stand_back;
use past::Past;
use replay::{At, Condition};
use std::io::{IsTerminal as _, Write as _};
pub use upgrade::check as check_upgrade;

/// Streams named by `--stats`.
const LARGEST: usize = 5;

/// Runs `replay`.
pub async fn run(args: &ReplayArgs) -> Outcome {
    let past = Past::open(&args.past).await?;
    let instance = args.instance.as_ref().map(|named| past.find(&args.project, named)).transpose()?;
    if args.verify {
        return verify::run(&past, instance, args.output);
    }
    if let Some(binary) = &args.with {
        return whatif::with_binary(&past, instance, binary, args.output).await;
    }
    if let Some(file) = &args.with_config {
        return whatif::with_config(&past, instance, file, args.output);
    }
    if let Some(request) = args.trace {
        return trace(&past, request, args);
    }
    if let Some(text) = &args.grep {
        let hits = replay::grep(past.source(), instance, text, args.limit, &mut progress("searched"));
        let hits = hits.map_err(|error| past.failure(error))?;
        show::hits(&hits, args.output);
        return Ok(());
    }
    if let Some(text) = &args.until {
        return until(&past, instance, text, args);
    }
    if args.fleet {
        let at = moment(args.at.as_deref())?;
        if matches!(at, At::Version(_)) {
            return Err(Failure::new(Exit::Usage, "a version belongs to one stream")
                .hint("name a position such as @1234, or a time"));
        }
        let fleet = replay::fleet_at(past.source(), at, &mut progress("folded"));
        show::fleet(&fleet.map_err(|error| past.failure(error))?, args.output);
        return Ok(());
    }
    if args.tui {
        return tui::run(&past, instance, args);
    }
    if args.stats {
        return stats(&past, instance, args);
    }
    let Some(id) = instance else {
        return Err(Failure::new(Exit::Usage, "which instance?")
            .hint("name one, or ask about all: --fleet, --verify, --grep, --stats, --tui; `musher replay --help` has examples"));
    };
    if args.step {
        return step::run(&past, id, args.at.as_deref());
    }
    if args.simulate {
        return simulate::run(&past, id, args);
    }
    if args.history {
        return history(&past, id, args);
    }
    if let Some(range) = &args.diff {
        let (from, to) = between(range)?;
        let diff = replay::state_diff(past.source(), id, from, to);
        show::diff(&diff.map_err(|error| past.failure(error))?, args.output);
        return Ok(());
    }
    let at = moment(args.at.as_deref())?;
    let state = replay::state_at(past.source(), id, at).map_err(|error| past.failure(error))?;
    show::state(&state, args.output);
    Ok(())
}

/// A moment as it is written; now if it is not.
pub fn moment(text: Option<&str>) -> Result<At, Failure> {
    let now = SystemClock.now();
    text.map_or(Ok(At::Now), |text| At::parse(text, now))
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}

/// Two moments: `A..B`; without A from the first event, without B until now.
fn between(range: &str) -> Result<(At, At), Failure> {
    let Some((from, to)) = range.split_once("..") else {
        return Err(Failure::new(Exit::Usage, format!("\"{range}\" is no pair of moments"))
            .hint("write A..B, such as '#7..#9', '-5m..now' or '#7..'"));
    };
    let filled = |text: &str, default: At| {
        if text.trim().is_empty() { Ok(default) } else { moment(Some(text)) }
    };
    Ok((filled(from, At::Version(1))?, filled(to, At::Now)?))
}

fn history(past: &Past, id: InstanceId, args: &ReplayArgs) -> Outcome {
    if args.lanes {
        let lanes = replay::lanes(past.source(), id).map_err(|error| past.failure(error))?;
        if !output::structured(args.output, &lanes) {
            output::line(lanes.text().trim_end());
        }
        return Ok(());
    }
    let entries = replay::history(past.source(), id, 0, usize::MAX).map_err(|error| past.failure(error))?;
    if !output::structured(args.output, &entries) {
        output::line(replay::history_table(&entries).trim_end());
    }
    Ok(())
}

fn trace(past: &Past, request: uuid::Uuid, args: &ReplayArgs) -> Outcome {
    let trace = replay::trace::trace(past.source(), RequestId::new(request));
    let trace = trace.map_err(|error| past.failure(error))?.ok_or_else(|| {
        Failure::new(Exit::Refused, format!("the log has no request {request}"))
            .hint("the request id stands in every answer (x-request-id) and in `--history -o json`")
    })?;
    if !output::structured(args.output, &trace) {
        output::line(trace.text().trim_end());
    }
    Ok(())
}

fn until(past: &Past, instance: Option<InstanceId>, text: &str, args: &ReplayArgs) -> Outcome {
    let wanted = Condition::parse(text).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let reached = match (instance, &wanted) {
        (Some(id), _) => replay::until(past.source(), id, &wanted),
        (None, Condition::Broken(number)) => {
            return verify::first_broken(past, *number, args.output);
        }
        (None, Condition::Field { .. }) => {
            replay::until_of_any(past.source(), &wanted, &mut progress("searched"))
        }
    };
    let Some(reached) = reached.map_err(|error| past.failure(error))? else {
        return Err(Failure::new(Exit::Refused, format!("\"{wanted}\" never comes true")));
    };
    show::reached(&reached, args.output);
    match wanted {
        Condition::Field { .. } => Ok(()),
        Condition::Broken(_) => Err(Failure::new(Exit::Refused, reached.detail)),
    }
}

fn stats(past: &Past, instance: Option<InstanceId>, args: &ReplayArgs) -> Outcome {
    let Some(id) = instance else {
        let stats = replay::stats(past.source(), LARGEST, &mut progress("counted"));
        show::stats(&stats.map_err(|error| past.failure(error))?, args.output);
        return Ok(());
    };
    let costs = replay::append_costs(past.source(), id).map_err(|error| past.failure(error))?;
    if output::structured(args.output, &costs) {
        return Ok(());
    }
    show::costs(&costs);
    Ok(())
}

/// Tells on a terminal how far something is that takes its time.
pub fn progress(doing: &'static str) -> impl FnMut(replay::Progress) {
    let is_told = std::io::stderr().is_terminal();
    let mut told = 0;
    move |progress| {
        let share = (progress.done * 100).checked_div(progress.total).unwrap_or(100);
        if !is_told || share == told {
            return;
        }
        told = share;
        let end = if progress.done >= progress.total { "\r\x1b[K" } else { "" };
        // Nobody reads it who could miss it.
        let _ = write!(std::io::stderr(), "\r{doing} {} of {}{end}", progress.done, progress.total);
    }
}
