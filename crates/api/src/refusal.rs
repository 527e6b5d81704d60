//! What the control plane answers instead of doing it, in the words and numbers of the contract
//! (`docs/external-api.md`, errors): one total match, so that a new refusal breaks the build.

use crate::error::ApiError;
use actors::CommandError;
use actors::answer::SledFailure;
use axum::http::StatusCode;
use lifecycle::Rejected;

/// The answer to a command about an object; `not_found` says that there is none, as the caller addressed it.
pub(crate) fn command_error(error: CommandError, not_found: impl FnOnce() -> ApiError) -> ApiError {
    match error {
        CommandError::Rejected(rejected) => rejection(rejected, not_found),
        CommandError::Rehearsed(events) => ApiError::rehearsed(events),
        CommandError::Unavailable(why) => ApiError::unavailable(why),
        error @ CommandError::Unknown(_) => ApiError::unavailable(error.to_string()),
        CommandError::NotConfirmed { failure, reason } => {
            let status = match failure {
                SledFailure::Timeout => StatusCode::GATEWAY_TIMEOUT,
                SledFailure::Transport | SledFailure::NotSent => StatusCode::BAD_GATEWAY,
                SledFailure::Busy => {
                    return ApiError::unavailable(format!("recorded, not confirmed: {reason}"));
                }
                SledFailure::Server => StatusCode::INTERNAL_SERVER_ERROR,
            };
            if failure == SledFailure::Server {
                return ApiError::internal(format!("recorded, not confirmed: {reason}"));
            }
            ApiError::new(status, "Internal", format!("recorded, not confirmed: {reason}"))
        }
        error @ CommandError::VmmMissing => ApiError::unavailable(error.to_string()),
    }
}

fn rejection(rejected: Rejected, not_found: impl FnOnce() -> ApiError) -> ApiError {
    let text = rejected.to_string();
    match rejected {
        Rejected::NoSuchInstance(_) | Rejected::NoSuchProject(_) => not_found(),
        Rejected::NoSuchSaga(id) => ApiError::not_found("saga", &format!("id \"{id}\"")),
        Rejected::NoSuchGroup(id) => ApiError::not_found("anti-affinity-group", &format!("id \"{id}\"")),
        Rejected::NoSuchSled(id) => ApiError::not_found("sled", &format!("id \"{id}\"")),
        Rejected::NotPossible { is_conflict: true, .. }
        | Rejected::MustBeStopped
        | Rejected::OtherVmm { .. }
        | Rejected::PastReturn
        | Rejected::SledNotPossible { .. } => ApiError::new(StatusCode::CONFLICT, "Conflict", text),
        Rejected::NotPossible { is_conflict: false, .. }
        | Rejected::ProjectNotEmpty { .. }
        | Rejected::NoMigration
        | Rejected::TooMany { .. } => ApiError::invalid_request(text),
        Rejected::Invalid(_) => ApiError::invalid_value(text),
        Rejected::NameTaken { .. } => ApiError::new(StatusCode::BAD_REQUEST, "ObjectAlreadyExists", text),
        Rejected::Short(_) => ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "InsufficientCapacity", text),
        // Ids are minted here, and users do not report for sleds: none of these is the caller's doing.
        Rejected::IdTaken(_) | Rejected::WrongSled | Rejected::NoSuchVmm => ApiError::internal(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::spec::InvalidValue;
    use lifecycle::{Action, InstanceId, RunState, Shortage};
    use uuid::Uuid;

    #[test]
    fn every_refusal_has_its_status_and_code() {
        let id = InstanceId::new(Uuid::from_u128(1));
        let not_possible = |action, state, is_conflict| {
            CommandError::from(Rejected::NotPossible { action, state, is_conflict })
        };
        let not_confirmed =
            |failure| CommandError::NotConfirmed { failure, reason: "the sled is away".to_owned() };
        let taken = Rejected::NameTaken { what: "instance", name: "web".to_owned() };
        let invalid = InvalidValue { field: "ncpus", problem: "ncpus must be between 1 and 254".to_owned() };
        let table: Vec<(CommandError, u16, &str, &str)> = vec![
            (
                Rejected::NoSuchInstance(id).into(),
                404,
                "ObjectNotFound",
                "not found: instance with name \"x\"",
            ),
            (
                not_possible(Action::Delete, RunState::Running, false),
                400,
                "InvalidRequest",
                "cannot delete instance: instance is running or has not yet fully stopped",
            ),
            (
                not_possible(Action::Start, RunState::Stopping, true),
                409,
                "Conflict",
                "instance must finish stopping before it can be started",
            ),
            (Rejected::from(invalid).into(), 400, "InvalidValue", "ncpus: ncpus must be between 1 and 254"),
            (taken.into(), 400, "ObjectAlreadyExists", "already exists: instance \"web\""),
            (
                Rejected::ProjectNotEmpty { instances: 2 }.into(),
                400,
                "InvalidRequest",
                "project to be deleted contains 2 instance(s); delete them first",
            ),
            (
                Rejected::Short(Shortage::NoSled).into(),
                507,
                "InsufficientCapacity",
                "insufficient capacity: no sled accepts new instances",
            ),
            (Rejected::IdTaken(id).into(), 500, "Internal", "Internal Server Error"),
            (CommandError::Unavailable("later".to_owned()), 503, "ServiceNotAvailable", "later"),
            (
                CommandError::Unknown("gone".to_owned()),
                503,
                "ServiceNotAvailable",
                "the outcome is unknown: gone",
            ),
            (
                not_confirmed(SledFailure::Timeout),
                504,
                "Internal",
                "recorded, not confirmed: the sled is away",
            ),
            (
                not_confirmed(SledFailure::Transport),
                502,
                "Internal",
                "recorded, not confirmed: the sled is away",
            ),
            (
                not_confirmed(SledFailure::NotSent),
                502,
                "Internal",
                "recorded, not confirmed: the sled is away",
            ),
            (
                not_confirmed(SledFailure::Busy),
                503,
                "ServiceNotAvailable",
                "recorded, not confirmed: the sled is away",
            ),
            (not_confirmed(SledFailure::Server), 500, "Internal", "Internal Server Error"),
            (
                CommandError::VmmMissing,
                503,
                "ServiceNotAvailable",
                "the sled no longer knows the instance's VMM; the instance has failed",
            ),
        ];
        for (error, status, code, message) in table {
            let shown = format!("{error:?}");
            let answer = command_error(error, || ApiError::not_found("instance", "name \"x\""));
            assert_eq!((answer.status.as_u16(), answer.code), (status, Some(code)), "{shown}");
            assert_eq!(answer.message, message, "{shown}");
        }
    }
}
