//! Commands that were given before, with the same key: answered from what was recorded then.
//!
//! Invariant: the answer is the instance as it was when the command was recorded, whatever has become of it
//! since, its deletion included.
//!
//! A migration that was asked for without a sled is recorded with the one that was picked: a repeat may name
//! that sled, or none.

use super::unreadable;
use crate::error::ApiError;
use crate::fresh::Arrived;
use crate::keyed::used_otherwise;
use crate::query::Params;
use crate::selector::{RawPath, means};
use crate::state::App;
use actors::instance::Ask;
use actors::{Accepted, NewInstance};
use eventlog::Position;
use journal::{Recorded, StreamName};
use lifecycle::Input;
use lifecycle::input::Command;
use replay::At;

/// A command as it was recorded, and the instance right after it.
struct Before {
    command: Command,
    accepted: Accepted,
}

/// A create that was given before; refused if it asked for another instance.
pub(super) fn created(app: &App, position: Position, new: &NewInstance) -> Result<Accepted, ApiError> {
    let Before { command, accepted } = read(app, position)?;
    match command {
        Command::Create { spec, start, .. } if *spec == new.spec && start.is_some() == new.start => {
            Ok(accepted)
        }
        _ => Err(used_otherwise()),
    }
}

/// An order that was given before; refused if it was another one, or to another instance.
pub(super) async fn ordered(
    app: &App,
    position: Position,
    ask: &Ask,
    path: RawPath,
    params: &Params,
    arrived: &Arrived,
) -> Result<Accepted, ApiError> {
    let Before { command, accepted } = read(app, position)?;
    if is_same(&command, ask) && means(&accepted.instance, path, params, arrived).await? {
        Ok(accepted)
    } else {
        Err(used_otherwise())
    }
}

fn is_same(command: &Command, ask: &Ask) -> bool {
    match (command, ask) {
        (Command::Start { .. }, Ask::Start)
        | (Command::Stop { .. }, Ask::Stop)
        | (Command::Reboot { .. }, Ask::Reboot)
        | (Command::Delete, Ask::Delete)
        | (Command::CancelMigration, Ask::CancelMigration) => true,
        (Command::Migrate { grant: Some(grant) }, Ask::Migrate { to }) => {
            to.is_none_or(|to| to == grant.sled)
        }
        (Command::ForceStop { assert_dead, reason }, Ask::ForceStop { assert_dead: dead, reason: why }) => {
            assert_dead == dead && reason == why
        }
        (
            Command::ForceStopOf { vmm, assert_dead, reason },
            Ask::ForceStopOf { vmm: named, assert_dead: dead, reason: why },
        ) => vmm == named && assert_dead == dead && reason == why,
        (Command::CancelSaga { saga: was }, Ask::CancelSaga { saga })
        | (Command::PauseSaga { saga: was }, Ask::PauseSaga { saga })
        | (Command::ResumeSaga { saga: was }, Ask::ResumeSaga { saga })
        | (Command::RetrySaga { saga: was }, Ask::RetrySaga { saga }) => was == saga,
        _ => false,
    }
}

/// What was asked of a saga before; refused if something else was asked.
pub(crate) fn of_saga(app: &App, position: Position, ask: &Ask) -> Result<Accepted, ApiError> {
    let Before { command, accepted } = read(app, position)?;
    if is_same(&command, ask) { Ok(accepted) } else { Err(used_otherwise()) }
}

/// Everything that was recorded together with the event at a position.
pub(crate) fn together(app: &App, position: Position) -> Result<Vec<Recorded>, ApiError> {
    let read = |count| {
        let records = app.control.log().read_all(position, count).map_err(|error| unreadable(&error))?;
        let events = records.iter().map(|record| journal::read(record).map_err(|error| unreadable(&error)));
        events.collect::<Result<Vec<_>, _>>()
    };
    let first = read(1)?;
    let (index, count) = first.first().map_or((0, 0), |first| first.index);
    read(usize::from(count - index))
}

/// Reads the append that begins at a position.
fn read(app: &App, position: Position) -> Result<Before, ApiError> {
    let log = app.control.log();
    let records = log.read_all(position, 1).map_err(|error| unreadable(&error))?;
    let first = records.first().ok_or_else(|| ApiError::internal("a durable position cannot be read"))?;
    let recorded = journal::read(first).map_err(|error| unreadable(&error))?;
    let input = recorded.context.and_then(|context| context.input);
    let (StreamName::Instance(id), Some(Input::Command(command))) = (recorded.stream, input) else {
        return Err(used_otherwise());
    };
    let (index, count) = recorded.index;
    let last = recorded.meta.position + u64::from(count.saturating_sub(index + 1));
    let state = replay::state_at(log, id, At::Position(last)).map_err(|error| unreadable(&error))?;
    let accepted = Accepted { instance: Box::new(state.state), position: state.position };
    Ok(Before { command, accepted })
}
