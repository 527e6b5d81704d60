//! Why a sled is as it is: the cause, who sees to it, what is waited for and until when, what it holds, what follows
//! on each outcome, and what can be done.
//!
//! Invariants:
//! * every condition that a sled can be in is explained: there is a cause, an owner, and something that comes next;
//! * nothing is said of its VMMs that the log does not say: a sled that does not answer may be running them.

use super::sleds::{SledView, view_of};
use crate::error::ApiError;
use crate::refusal::command_error;
use crate::selector::{self, RawPath};
use crate::state::App;
use actors::sled::SledStatus;
use axum::Json;
use axum::extract::State;
use lifecycle::ledger::SledLoad;
use lifecycle::{Instance, InstanceId, SledId, Span};
use replay::time::rfc3339;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Instances that are named; more are counted.
const NAMED_MAX: usize = 100;

/// A sled, explained.
#[derive(Serialize, ToSchema)]
#[schema(as = SledExplanation)]
pub(super) struct ExplainedView {
    sled: SledView,
    /// In a word.
    state: &'static str,
    because: Vec<String>,
    owner: &'static str,
    waits: Vec<WaitView>,
    next: Vec<OutcomeView>,
    /// Instances that hold room on it, by name; at most 100 of them.
    holds: Vec<HeldView>,
    holds_in_all: usize,
    can: Vec<String>,
}

/// Something that is waited for.
#[derive(Serialize, ToSchema)]
#[schema(as = SledWait)]
struct WaitView {
    #[serde(rename = "for")]
    what: String,
    /// Until when, if not for ever.
    until: Option<String>,
}

/// What follows from an outcome.
#[derive(Serialize, ToSchema)]
#[schema(as = SledOutcome)]
struct OutcomeView {
    when: &'static str,
    then: &'static str,
}

/// An instance that holds room on it.
#[derive(Serialize, ToSchema)]
#[schema(as = SledHolds)]
struct HeldView {
    #[schema(value_type = uuid::Uuid)]
    instance_id: InstanceId,
    name: String,
    run_state: &'static str,
}

/// The condition of a sled that matters most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Expunged,
    LeaseExpired,
    Unreachable,
    NotHeard,
    Draining,
    Cordoned,
    InService,
}

impl Condition {
    fn of(load: &SledLoad, status: &SledStatus) -> Self {
        if load.is_expunged {
            Self::Expunged
        } else if load.is_lapsed {
            Self::LeaseExpired
        } else if status.unreachable.is_some() {
            Self::Unreachable
        } else if status.last_contact.is_none() {
            Self::NotHeard
        } else if status.drain.is_some() {
            Self::Draining
        } else if load.is_provisionable {
            Self::InService
        } else {
            Self::Cordoned
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Expunged => "expunged",
            Self::LeaseExpired => "lease expired",
            Self::Unreachable => "unreachable",
            Self::NotHeard => "not heard from",
            Self::Draining => "draining",
            Self::Cordoned => "cordoned",
            Self::InService => "in service",
        }
    }

    const fn owner(self) -> &'static str {
        match self {
            Self::Expunged => "nobody: it is out for good",
            Self::LeaseExpired => "the sled: it registers again by itself when it is back",
            Self::Unreachable | Self::NotHeard => {
                "the sled's actor: it asks for an inventory every sleds.probe_s until the sled answers"
            }
            Self::Draining => {
                "the sled's drain: it moves a few guests at a time, and looks again every timers.sled_drain_s"
            }
            Self::Cordoned | Self::InService => {
                "the sled's actor: it asks for an inventory every sleds.inventory_s"
            }
        }
    }

    const fn next(self, is_leased: bool) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Expunged => &[(
                "it registers",
                "it is refused; as another sled, with a directory of its own, it is welcome",
            )],
            Self::LeaseExpired => &[
                ("it registers again", "it gets a lease of a new epoch, and takes VMMs again"),
                ("it stays away", "what ran on it is over, and is started elsewhere as its policy says"),
            ],
            Self::Unreachable | Self::NotHeard if is_leased => &[
                ("it answers again", "what it says of its VMMs counts as reports, and everything goes on"),
                (
                    "it has booted anew",
                    "its earlier VMMs are gone for certain; what is to run is started elsewhere",
                ),
                ("its lease lapses first", "it has killed its VMMs; what is to run is started elsewhere"),
            ],
            Self::Unreachable | Self::NotHeard => &[
                ("it answers again", "what it says of its VMMs counts as reports, and everything goes on"),
                (
                    "it has booted anew",
                    "its earlier VMMs are gone for certain; what is to run is started elsewhere",
                ),
                (
                    "it stays away",
                    "nothing is declared dead, because its guests may run: they keep their room until an operator expunges it",
                ),
            ],
            Self::Draining => &[
                ("a guest can move", "its migration begins"),
                ("a guest cannot move", "it is named here, and tried again"),
                ("no guest is left", "the drain is done; it takes no new instances until it is uncordoned"),
            ],
            Self::Cordoned => &[
                ("it is uncordoned", "it takes new instances again"),
                ("nobody does anything", "its guests run on"),
            ],
            Self::InService => &[
                ("an instance is placed on it", "it is told to hold and run a VMM"),
                ("it stops answering", "it is asked again and again; nothing on it is declared dead"),
            ],
        }
    }

    fn can(self, name: &str) -> Vec<String> {
        let about = |verb: &str| format!("musher sled {verb} {name}");
        match self {
            Self::Expunged => vec!["musher sled list".to_owned()],
            Self::LeaseExpired | Self::Unreachable | Self::NotHeard => vec![
                "musher timer activate sled-watch".to_owned(),
                about("cordon"),
                format!("{} --reason TEXT", about("expunge")),
            ],
            Self::Draining => vec![about("uncordon"), "musher migration list --under-way".to_owned()],
            Self::Cordoned => vec![about("uncordon"), about("drain")],
            Self::InService => vec![about("cordon"), about("drain")],
        }
    }
}

pub(super) async fn view(
    State(app): State<Arc<App>>,
    path: RawPath,
) -> Result<Json<ExplainedView>, ApiError> {
    let id = selector::sled(path)?;
    let not_found = || ApiError::not_found("sled", &format!("id \"{id}\""));
    let load = app.control.sled(id).await.map_err(|error| command_error(error, not_found))?;
    let status = app.control.sled_status(id).await.unwrap_or_default();
    let (holds, holds_in_all) = app.projections.read(|model| held(id, model.instance_states()));
    Ok(Json(explained(load, status, holds, holds_in_all)))
}

fn explained(load: SledLoad, status: SledStatus, holds: Vec<HeldView>, holds_in_all: usize) -> ExplainedView {
    let condition = Condition::of(&load, &status);
    let is_leased = status.lease.is_some();
    let next = condition.next(is_leased).iter().map(|(when, then)| OutcomeView { when, then }).collect();
    ExplainedView {
        state: condition.as_str(),
        because: because(condition, &load, &status),
        owner: condition.owner(),
        waits: waits(condition, &status),
        next,
        can: condition.can(&load.name),
        sled: view_of(load, Some(status)),
        holds,
        holds_in_all,
    }
}

/// What is so, the weightiest first: a sled can be several things at once.
fn because(condition: Condition, load: &SledLoad, status: &SledStatus) -> Vec<String> {
    let mut because = Vec::new();
    if load.is_expunged {
        because.push("an operator declared it, and everything on it, gone for good".to_owned());
    }
    if let Some(expired) = status.lease.as_ref().and_then(|lease| lease.expired) {
        because.push(format!("its lease expired at {}, and it has not registered since", rfc3339(expired)));
    } else if load.is_lapsed {
        because.push("its lease has expired, and it has not registered since".to_owned());
    }
    if let Some((reason, since)) = &status.unreachable {
        because.push(format!("it cannot be reached since {}: {reason}", rfc3339(*since)));
    }
    if let Some(circuit) = &status.circuit {
        let next = circuit.next_probe.map_or_else(|| "now".to_owned(), rfc3339);
        because.push(format!(
            "requests to it are held back since {}, after {} in a row without an answer; it is asked again {next}",
            rfc3339(circuit.since),
            circuit.unanswered
        ));
    }
    match status.last_contact {
        Some(heard) => because.push(format!("it was last heard from at {}", rfc3339(heard))),
        None => because.push("it has not been heard from since this daemon started".to_owned()),
    }
    if let Some(drain) = &status.drain {
        let since = rfc3339(drain.since);
        because.push(format!(
            "it is being drained since {since}: {} instance(s) are left, {} of them moving",
            drain.left,
            drain.moving.len()
        ));
        let blocked = drain.blocked.iter().take(NAMED_MAX);
        because.extend(blocked.map(|(instance, reason)| format!("{instance} cannot move: {reason}")));
    }
    if !load.is_provisionable && !load.is_expunged {
        because.push("it takes no new instances: an operator has cordoned or drained it".to_owned());
    }
    if load.is_shrunk {
        because.push("it has registered with less room than is held on it".to_owned());
    }
    if condition == Condition::InService {
        because.push("it takes new instances".to_owned());
    }
    because
}

fn waits(condition: Condition, status: &SledStatus) -> Vec<WaitView> {
    let wait = |what: String, until| vec![WaitView { what, until }];
    match condition {
        Condition::Unreachable | Condition::NotHeard => {
            let lapses =
                |lease: &actors::sled::LeaseStatus| rfc3339(lease.renewed + Span::from_secs(lease.seconds));
            wait("the sled, to answer or to register".to_owned(), status.lease.as_ref().map(lapses))
        }
        Condition::LeaseExpired => wait("the sled, to register again".to_owned(), None),
        Condition::Draining => {
            let left = status.drain.as_ref().map_or(0, |drain| drain.left);
            wait(format!("{left} instance(s), to move away"), None)
        }
        Condition::Expunged | Condition::Cordoned | Condition::InService => Vec::new(),
    }
}

/// Who holds room on the sled: the first by name, and how many in all.
fn held<'a>(sled: SledId, states: impl Iterator<Item = &'a Instance>) -> (Vec<HeldView>, usize) {
    let holds =
        |state: &&Instance| state.vmms.values().any(|vmm| vmm.sled == sled && vmm.reservation.is_some());
    let mut held: Vec<HeldView> = states
        .filter(holds)
        .map(|state| HeldView {
            instance_id: state.id,
            name: state.spec.name.clone(),
            run_state: state.run_state().as_str(),
        })
        .collect();
    let in_all = held.len();
    held.sort_by(|a, b| (&a.name, a.instance_id).cmp(&(&b.name, b.instance_id)));
    held.truncate(NAMED_MAX);
    (held, in_all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actors::sled::{CircuitStatus, DrainStatus, LeaseStatus};
    use lifecycle::Timestamp;
    use lifecycle::ledger::Room;
    use uuid::Uuid;

    fn load() -> SledLoad {
        let room = Room { threads: 32, memory: 1 << 37 };
        SledLoad {
            id: SledId::new(Uuid::from_u128(1)),
            name: "sim-0".to_owned(),
            room,
            held: room,
            is_shrunk: false,
            is_provisionable: true,
            is_expunged: false,
            cpu_family: "sim-x86".to_owned(),
            boot: None,
            is_lapsed: false,
        }
    }

    #[test]
    fn every_condition_of_a_sled_has_a_cause_an_owner_and_something_that_comes_next() {
        let at = Timestamp::from_micros(1_795_380_366_000_000);
        let heard = SledStatus { last_contact: Some(at), ..SledStatus::default() };
        let away = SledStatus { unreachable: Some(("no route".to_owned(), at)), ..heard.clone() };
        let lease = LeaseStatus { seconds: 30, renewed: at, expired: None };
        let circuit = CircuitStatus { since: at, unanswered: 5, next_probe: Some(at) };
        let blocked = vec![(InstanceId::new(Uuid::from_u128(2)), "no room".to_owned())];
        let drain = DrainStatus { since: at, left: 2, moving: Vec::new(), blocked };
        let cordoned = SledLoad { is_provisionable: false, ..load() };
        let table = [
            ("in service", load(), heard.clone(), "it takes new instances", false),
            ("not heard from", load(), SledStatus::default(), "since this daemon started", true),
            ("unreachable", load(), away.clone(), "no route", true),
            (
                "unreachable",
                load(),
                SledStatus { circuit: Some(circuit), ..away.clone() },
                "requests to it are held back",
                true,
            ),
            ("unreachable", load(), SledStatus { lease: Some(lease), ..away.clone() }, "no route", true),
            (
                "unreachable",
                cordoned.clone(),
                SledStatus { drain: Some(drain.clone()), ..away.clone() },
                "no room",
                true,
            ),
            (
                "draining",
                cordoned.clone(),
                SledStatus { drain: Some(drain), ..heard.clone() },
                "no room",
                true,
            ),
            ("cordoned", cordoned, heard.clone(), "takes no new instances", false),
            (
                "lease expired",
                SledLoad { is_lapsed: true, ..load() },
                SledStatus { lease: Some(LeaseStatus { expired: Some(at), ..lease }), ..away },
                "its lease expired at",
                true,
            ),
            ("expunged", SledLoad { is_expunged: true, ..load() }, heard, "gone for good", false),
        ];
        println!("explain coverage: sleds");
        for (state, load, status, cause, is_waited_for) in table {
            let is_leased = status.lease.is_some();
            let told = explained(load, status, Vec::new(), 0);
            println!(
                "{state:<15} causes {} waits {} next {} can {}",
                told.because.len(),
                told.waits.len(),
                told.next.len(),
                told.can.len()
            );
            assert_eq!(told.state, state);
            assert!(
                told.because.iter().any(|because| because.contains(cause)),
                "{state}: {:?}",
                told.because
            );
            assert!(!told.owner.is_empty() && !told.next.is_empty() && !told.can.is_empty(), "{state}");
            assert_eq!(!told.waits.is_empty(), is_waited_for, "{state}");
            if state == "unreachable" {
                assert_eq!(told.waits[0].until.is_some(), is_leased, "a lease is a deadline");
                assert!(told.can.iter().any(|can| can.contains("expunge sim-0")), "{:?}", told.can);
            }
        }
    }
}
