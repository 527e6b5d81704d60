//! What needs somebody to look at it, one line each.

use super::migrations::seconds;
use crate::error::ApiError;
use crate::fresh::Arrived;
use crate::refusal::command_error;
use crate::state::App;
use actors::network::PeerName;
use actors::sled::SledStatus;
use axum::Json;
use axum::extract::State;
use eventlog::StreamId;
use journal::StreamName;
use lifecycle::ledger::SledLoad;
use lifecycle::restart::{is_wanted, restart_due};
use lifecycle::saga::definition;
use lifecycle::{Instance, Policy, RunState, Span, Timestamp};
use projections::Projections;
use replay::time::rfc3339;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

/// Most lines of one answer; more is a fire, and the count says so.
const LINES_MAX: usize = 1_000;

#[derive(Serialize, ToSchema)]
#[schema(as = Attention)]
pub(super) struct AttentionView {
    items: Vec<LineView>,
    /// How many there are in all, shown or not.
    total: usize,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AttentionLine)]
struct LineView {
    kind: &'static str,
    /// The stream of what is meant, such as `instance/<id>`.
    subject: String,
    /// Its name, if it has one that is known.
    name: Option<String>,
    reason: String,
    since: Option<String>,
}

/// Lines as they are found: no more are written than fit, and all are counted.
struct Lines {
    items: Vec<LineView>,
    total: usize,
    max: usize,
}

impl Lines {
    fn at_most(max: usize) -> Self {
        Self { items: Vec::new(), total: 0, max }
    }

    fn push(&mut self, line: impl FnOnce() -> LineView) {
        self.total += 1;
        if self.items.len() < self.max {
            self.items.push(line());
        }
    }
}

/// Sleds with their load, as the control plane tells.
type Sleds = [(SledLoad, Option<SledStatus>)];

pub(super) async fn list(
    State(app): State<Arc<App>>,
    arrived: Arrived,
) -> Result<Json<AttentionView>, ApiError> {
    let model = arrived.fresh().await?;
    let never = || ApiError::internal("a list of sleds was not found");
    let sleds = app.control.sleds().await.map_err(|error| command_error(error, never))?;
    let mut lines = Lines::at_most(LINES_MAX);
    gather(&app, model, Some(&sleds), &mut lines);
    Ok(Json(AttentionView { items: lines.items, total: lines.total }))
}

/// How many lines there are at present; without those of sleds if they are not known.
pub(crate) fn count(app: &App, sleds: Option<&Sleds>) -> usize {
    let mut lines = Lines::at_most(0);
    gather(app, &app.projections, sleds, &mut lines);
    lines.total
}

fn gather(app: &App, model: &Projections, sleds: Option<&Sleds>, lines: &mut Lines) {
    for (stream, reason) in quarantined(app) {
        lines.push(|| {
            let name = match StreamName::parse(stream) {
                Some(StreamName::Instance(id)) => model.read(|model| name_of(model.instance_state(id))),
                _ => None,
            };
            LineView { kind: "quarantined", subject: subject(stream), name, reason, since: None }
        });
    }
    let (now, policy) = (app.control.now(), app.control.policy());
    model.read(|model| {
        for instance in model.instance_states().filter(|instance| instance.deleted.is_none()) {
            of_instance(instance, now, &policy, lines);
        }
    });
    let sleds = sleds.unwrap_or_default();
    for (load, status) in sleds.iter().filter(|(load, _)| !load.is_expunged) {
        of_sled(load, status.as_ref(), lines);
    }
    for peer in app.control.network().peers {
        let Some(trouble) = peer.trouble else {
            continue;
        };
        // A sled that holds VMMs and is away has its line.
        let known = sleds.iter().find(|(load, _)| peer.peer == PeerName::Sled(load.id));
        if known.is_some_and(|(load, status)| away(load, status.as_ref()).is_some()) {
            continue;
        }
        lines.push(|| LineView {
            kind: "network_peer",
            subject: match peer.peer {
                PeerName::Sled(id) => StreamName::Sled(id).to_string(),
                PeerName::Switch | PeerName::Producers => peer.peer.to_string(),
            },
            name: known.map(|(load, _)| load.name.clone()),
            reason: format!(
                "it cannot be pushed to, {} time(s) in a row: {}; it is {} change(s) behind",
                trouble.failures, trouble.why, peer.behind
            ),
            since: Some(rfc3339(trouble.since)),
        });
    }
}

fn of_instance(instance: &Instance, now: Timestamp, policy: &Policy, lines: &mut Lines) {
    let line = |kind, reason, since| LineView {
        kind,
        subject: StreamName::Instance(instance.id).to_string(),
        name: name_of(Some(instance)),
        reason,
        since: Some(rfc3339(since)),
    };
    if instance.run_state() == RunState::Failed {
        lines.push(|| failed(instance, policy));
    }
    if let Some(saga) = &instance.saga {
        let is_late = is_late(saga.deadline_from, saga.deadline, now);
        let at = || {
            let def = definition(saga.kind);
            let step = def.steps.iter().find(|step| step.step == saga.step).map_or("?", |step| step.name);
            format!("saga {} {} is at \"{step}\"", def.name, saga.id)
        };
        match saga.pause {
            Some(pause) => lines.push(|| {
                let why = replay::explain::paused_because(pause.cause);
                line("saga_paused", format!("{}, and is paused because {why}", at()), pause.since)
            }),
            None if is_late => lines.push(|| {
                let deadline = seconds(saga.deadline);
                let reason = format!("{} and has taken longer than its deadline of {deadline} s", at());
                line("saga_overdue", reason, saga.started)
            }),
            None => {}
        }
    }
    // While its saga is under way, a migration is the saga's.
    let migration = instance.linked_migration().filter(|_| instance.saga.is_none());
    if let Some(migration) = migration.filter(|it| is_late(it.deadline_from, it.deadline, now)) {
        lines.push(|| {
            let reason = format!(
                "migration {} has taken longer than its deadline of {} s: its source is {:?}, its target {:?}",
                migration.id,
                seconds(migration.deadline),
                migration.source.state,
                migration.target.state
            );
            line("migration_overdue", reason, migration.started)
        });
    }
}

fn is_late(started: Timestamp, deadline: Span, now: Timestamp) -> bool {
    now.since(started) > deadline
}

/// Why a sled that holds VMMs cannot be reached, and since when.
fn away<'a>(load: &SledLoad, status: Option<&'a SledStatus>) -> Option<&'a (String, Timestamp)> {
    status?.unreachable.as_ref().filter(|_| load.held.threads > 0)
}

fn of_sled(load: &SledLoad, status: Option<&SledStatus>, lines: &mut Lines) {
    let line = |kind, reason, since| LineView {
        kind,
        subject: StreamName::Sled(load.id).to_string(),
        name: Some(load.name.clone()),
        reason,
        since: Some(rfc3339(since)),
    };
    if let Some((why, since)) = away(load, status) {
        let threads = load.held.threads;
        lines.push(|| {
            let held_back = status.and_then(|status| status.circuit).map(|circuit| {
                let next = circuit.next_probe.map_or_else(|| "now".to_owned(), rfc3339);
                format!(
                    "; requests are held back since {}, and it is asked again {next}",
                    rfc3339(circuit.since)
                )
            });
            let held_back = held_back.unwrap_or_default();
            let reason = format!(
                "it cannot be reached, and VMMs with {threads} thread(s) are on it: {why}{held_back}"
            );
            line("sled_unreachable", reason, *since)
        });
    }
    let drain = status.and_then(|status| status.drain.as_ref());
    if let Some((drain, (instance, why))) = drain.and_then(|drain| Some((drain, drain.blocked.first()?))) {
        lines.push(|| {
            let count = drain.blocked.len();
            let reason =
                format!("its drain waits for {count} guest(s) that cannot move: instance {instance}: {why}");
            line("drain_blocked", reason, drain.since)
        });
    }
}

/// One reason per stream, whoever noticed: the log, the read model, or the actor that keeps failing.
pub(super) fn quarantined(app: &App) -> BTreeMap<StreamId, String> {
    let failing = app.control.quarantined().into_iter().map(|(id, why)| (StreamName::Instance(id).id(), why));
    let noticed = app
        .control
        .log()
        .quarantined()
        .into_iter()
        .chain(app.projections.health().quarantined)
        .chain(failing);
    let mut quarantined = BTreeMap::new();
    for (stream, reason) in noticed {
        quarantined.entry(stream).or_insert(reason);
    }
    quarantined
}

fn subject(stream: StreamId) -> String {
    StreamName::parse(stream).map_or_else(|| stream.to_string(), |name| name.to_string())
}

fn name_of(instance: Option<&Instance>) -> Option<String> {
    instance.map(|instance| instance.spec.name.clone())
}

fn failed(instance: &Instance, policy: &Policy) -> LineView {
    let trouble = instance.failed.as_ref();
    let reason = trouble.map_or_else(|| "it has failed".to_owned(), replay::explain::trouble);
    let is_spent = is_wanted(instance) && instance.saga.is_none() && restart_due(instance, policy).is_none();
    let (kind, reason) = if is_spent {
        let made = instance.restarts.attempts;
        (
            "restarts_spent",
            format!("{reason}; it was restarted {made} time(s) in a row, and will not be again"),
        )
    } else {
        ("failed", reason)
    };
    LineView {
        kind,
        subject: StreamName::Instance(instance.id).to_string(),
        name: name_of(Some(instance)),
        reason,
        since: trouble.map(|trouble| rfc3339(trouble.at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::{
        Address, EventMeta, InstanceEvent, InstanceId, InstanceSpec, Intent, Origin, ProjectId, SagaId, Size,
        SledId, VmmId, evolve,
    };
    use uuid::Uuid;

    #[test]
    fn a_subject_is_a_stream_by_name_if_it_has_one() {
        let id = InstanceId::new(Uuid::from_u128(1));
        assert_eq!(subject(StreamName::Instance(id).id()), format!("instance/{id}"));
        let unknown = StreamId::new(eventlog::StreamKind(9), [0; 16]);
        assert_eq!(subject(unknown), unknown.to_string());
    }

    /// An instance that has been coming up since the first second.
    fn coming_up() -> Instance {
        let sized = Size { ncpus: 2, memory: 2 << 30 };
        let spec = InstanceSpec {
            project: ProjectId::new(Uuid::from_u128(2)),
            name: "web".to_owned(),
            description: String::new(),
            hostname: "web".to_owned(),
            size: sized,
            auto_restart: None,
            cpu_platform: None,
            boot_disk: None,
            jumbo_frames: false,
        };
        let id = InstanceId::new(Uuid::from_u128(1));
        let address = Address { virtual_ip: [172, 30, 0, 5].into(), mac: [0; 6], vni: 1 };
        let events = [
            InstanceEvent::Created { id, spec: Box::new(spec), address, intent: Intent::Running },
            InstanceEvent::StartBegan {
                saga: SagaId::new(Uuid::from_u128(3)),
                origin: Origin::Creation,
                vmm: VmmId::new(Uuid::from_u128(4)),
                sled: SledId::new(Uuid::from_u128(5)),
                size: sized,
                deadline: Span::from_secs(120),
            },
        ];
        let mut state = None;
        for (version, event) in (1..).zip(&events) {
            let meta = EventMeta { version, position: version, time: Timestamp::from_micros(1_000_000) };
            evolve(&mut state, event, meta);
        }
        state.unwrap()
    }

    #[test]
    fn a_saga_is_overdue_behind_its_deadline_and_not_at_it() {
        let (instance, policy) = (coming_up(), Policy::default());
        for (now_s, total) in [(1, 0), (121, 0), (122, 1)] {
            let mut lines = Lines::at_most(LINES_MAX);
            of_instance(&instance, Timestamp::from_micros(now_s * 1_000_000), &policy, &mut lines);
            assert_eq!(lines.total, total, "{now_s} s");
            for line in &lines.items {
                assert_eq!((line.kind, line.name.as_deref()), ("saga_overdue", Some("web")));
                assert!(
                    line.reason.ends_with("and has taken longer than its deadline of 120 s"),
                    "{}",
                    line.reason
                );
            }
        }
    }

    #[test]
    fn more_lines_than_fit_are_counted_and_not_written() {
        let mut lines = Lines::at_most(1);
        for _ in 0..3 {
            of_instance(&coming_up(), Timestamp::from_micros(u64::MAX), &Policy::default(), &mut lines);
        }
        assert_eq!((lines.items.len(), lines.total), (1, 3));
    }
}
