//! `musher upgrade check`: whether this build can go on from a history.

use super::args::UpgradeVerb;
use super::past::{Past, Stopped};
use super::progress;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::serve::BUILD;
use lifecycle::Policy;

/// Checks a stopped directory or an export.
pub fn check(verb: UpgradeVerb) -> Outcome {
    let UpgradeVerb::Check { data, from, output: format } = verb;
    let past = match from {
        Some(file) => Past::export(&file)?,
        None => Past::Directory(Stopped::open(&data)?, data),
    };
    let found = replay::check_upgrade(past.source(), Policy::default(), &mut progress("checked"));
    let found = found.map_err(|error| past.failure(error))?;
    let is_for_people = !output::structured(format, &found);
    if is_for_people {
        output::line(format!(
            "musher {BUILD}: {} events folded, {} instance(s), {} inputs tried on their newest states",
            found.events, found.instances, found.tried
        ));
        for saga in &found.sagas {
            output::line(format!("goes on with {:?} of {} at {:?}", saga.saga, saga.instance, saga.step));
        }
        if found.decided_differently > 0 {
            output::line(format!(
                "{} past decision(s) would be others by this build; `musher replay --verify` names them",
                found.decided_differently
            ));
        }
        for blocked in &found.blocked {
            output::line(format!("cannot go on: {blocked}"));
        }
    }
    let blocked = found.blocked.len() as u64 + found.blocked_dropped;
    if blocked == 0 {
        if is_for_people {
            output::line("this build can go on from here");
        }
        return Ok(());
    }
    let what = format!("musher {BUILD} cannot go on from here: {blocked} thing(s) stand in the way");
    Err(Failure::new(Exit::Refused, what).hint("keep the build that wrote it; nothing was changed"))
}
