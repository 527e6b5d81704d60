//! Reports out of order, late, twice or together, and pushes that cannot be made.

use crate::runner::{Scenario, Ways, whatever};
use crate::stage::{Diverged, Pair, Phase, Play, World, context, spec};
use actors::instance::Ask;
use actors::{ControlPlane, RequestContext};
use eventlog::{AppendOutcome, Log};
use futures::FutureExt;
use futures::executor::block_on;
use journal::{Actor, Context, Event, StreamName};
use lifecycle::sled::SledCommand;
use lifecycle::vmm::Reservation;
use lifecycle::{Address, InstanceEvent, InstanceId, Intent, RunState, SledId, Step, VmmId};
use sled_protocol::{PropolisId, SledVmmState, Switch};
use std::time::Duration;

type Script = for<'a> fn(&'a mut World) -> Play<'a>;

const fn once(name: &'static str, variants: usize, play: Script) -> Scenario {
    Scenario { name, sleds: 3, ways: Ways::Once, variants, play, after_failure: whatever }
}

/// The rows.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        once("u16_every_order_of_reports_ends_alike", SUCCESS_ORDERS + FAILURE_ORDERS, u16_orders),
        once("u17_reports_doubled_reordered_and_late", 2, u17),
        once("u18_two_reports_that_need_an_update_together", 2, u18),
        once("u19_a_report_lands_while_a_push_is_under_way", 1, u19),
        once("u20_a_sled_or_the_switch_is_unreachable", 2, u20),
        once("u21_deleted_while_a_saga_is_under_way_elsewhere", 1, u21),
    ]
}

/// Interleavings of three reports with three.
const SUCCESS_ORDERS: usize = 20;
/// Interleavings of two with two.
const FAILURE_ORDERS: usize = 6;

type Said = (SledId, VmmId, SledVmmState);

async fn report(control: &ControlPlane, said: &Said) -> bool {
    let (sled, vmm, state) = said;
    let sled = sled_protocol::SledId::from_uuid(sled.uuid());
    control.intake().report(sled, PropolisId::from_uuid(vmm.uuid()), state.clone()).await.is_ok()
}

fn picture(w: &World, sled: SledId, vmm: VmmId) -> Said {
    (sled, vmm, w.on_sled(sled, vmm, |vmm| vmm.state().clone()).expect("it is there"))
}

/// The n-th interleaving of two sequences, in an order that counts them all.
fn interleaved(one: &[Said], other: &[Said], n: usize) -> Vec<Said> {
    match (one.split_first(), other.split_first()) {
        (None, _) => other.to_vec(),
        (_, None) => one.to_vec(),
        (Some((first, rest)), Some((second, more))) => {
            let with_first = orders(rest.len(), other.len());
            let (head, tail) = if n < with_first {
                (first, interleaved(rest, other, n))
            } else {
                (second, interleaved(one, more, n - with_first))
            };
            std::iter::once(head.clone()).chain(tail).collect()
        }
    }
}

fn orders(one: usize, other: usize) -> usize {
    if one == 0 || other == 0 { 1 } else { orders(one - 1, other) + orders(one, other - 1) }
}

async fn held_pair(w: &mut World) -> Result<Pair, Diverged> {
    let id = w.create_running("web").await?;
    let pair = w.migrate(id).await?;
    w.hold(pair.source_sled, pair.source);
    w.hold(pair.target_sled, pair.target);
    w.drive(pair, Phase::InProgress).await?;
    Ok(pair)
}

fn u16_orders(w: &mut World) -> Play<'_> {
    async move {
        let pair = held_pair(w).await?;
        let source = |w: &World| picture(w, pair.source_sled, pair.source);
        let target = |w: &World| picture(w, pair.target_sled, pair.target);
        let (mut of_source, mut of_target) = (vec![source(w)], vec![target(w)]);
        let is_success = w.variant < SUCCESS_ORDERS;
        if is_success {
            w.drive(pair, Phase::Arrived).await?;
            of_source.push(source(w));
            of_target.push(target(w));
            w.drive(pair, Phase::Resumed).await?;
            w.step(pair.source_sled, pair.source);
        } else {
            w.crash_vmm(pair.target_sled, pair.target);
            w.meanwhile(Duration::from_millis(100)).await;
        }
        of_source.push(source(w));
        of_target.push(target(w));
        let nth = if is_success { w.variant } else { w.variant - SUCCESS_ORDERS };
        for said in interleaved(&of_source, &of_target, nth) {
            w.must(report(&w.control, &said).await, "a report is taken")?;
        }
        let state = w.state(pair.id);
        let holder = if is_success { pair.target } else { pair.source };
        w.must(state.active == Some(holder) && state.migration.is_none(), "the same end in every order")?;
        w.must(state.run_state() == RunState::Running, "it runs")?;
        let held = state.vmms.get(&pair.source).and_then(|vmm| vmm.reservation);
        let expected = if is_success { Reservation::Tombstoned } else { Reservation::Active };
        w.must(held == Some(expected), "the source holds what it must")?;
        w.settle().await?;
        w.must(w.state(pair.id).active == Some(holder), "and it stays so")
    }
    .boxed_local()
}

/// Everything that was ever said is said again, 0: of a VMM that runs, 1: after the end.
fn u17(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create_running("web").await?;
        let pair = w.migrate(id).await?;
        w.drive(pair, Phase::Resumed).await?;
        w.automatic();
        w.until("it has moved", |w| w.state(id).active == Some(pair.target)).await?;
        if w.variant == 1 {
            w.stop(id).await?;
            w.until_state(id, RunState::Stopped).await?;
        }
        w.settle().await?;
        let (said, before) = (w.sent(), w.book().position);
        for said in said.iter().rev().chain(said.iter()).chain(said.iter().rev()) {
            w.must(report(&w.control, said).await, "a late report is taken")?;
        }
        w.must(w.book().position == before, "and has no effect")
    }
    .boxed_local()
}

/// Both ends of a migration end, and are heard together, in either order; the user starts it at once.
fn u18(w: &mut World) -> Play<'_> {
    async move {
        let pair = held_pair(w).await?;
        w.drive(pair, Phase::Resumed).await?;
        w.step(pair.source_sled, pair.source);
        let (source, target) = (
            |w: &World| picture(w, pair.source_sled, pair.source),
            |w: &World| picture(w, pair.target_sled, pair.target),
        );
        w.run_down(pair.source_sled, pair.source);
        w.crash_vmm(pair.target_sled, pair.target);
        let (one, other) = (source(w), target(w));
        let (first, second) = if w.variant == 0 { (one, other) } else { (other, one) };
        let control = w.control.clone();
        let start = control.ask(pair.id, Ask::Start, context());
        let (a, b, started) = futures::join!(report(&control, &first), report(&control, &second), start);
        w.must(a && b, "both are taken")?;
        if started.is_err() {
            w.start(pair.id).await?;
        }
        w.automatic();
        w.until_state(pair.id, RunState::Running).await?;
        w.settle().await?;
        let began = |event: &&InstanceEvent| matches!(event, InstanceEvent::StartBegan { .. });
        let starts = w.book().events_of(pair.id).filter(began).count();
        w.must(starts == 2, "the new start is untouched")?;
        w.must(w.book().ledger.charged(w.project).cpus == 2, "what was held is released once")
    }
    .boxed_local()
}

fn u19(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create_running("web").await?;
        let is_mapped = w.network_mismatches().await;
        w.meanwhile(Duration::from_secs(2)).await;
        w.switch().set_delay(Duration::from_secs(8));
        let (sled, vmm) = w.active(id).expect("it runs");
        w.crash_vmm(sled, vmm);
        w.until("the update is made", |w| w.run_state(id) == RunState::Failed).await?;
        w.must(w.state(id).network.sled.is_none(), "at once, whatever the push does")?;
        w.start(id).await?;
        w.until_state(id, RunState::Running).await?;
        let late = w.state(id).network.generation;
        w.switch().set_delay(Duration::ZERO);
        w.settle().await?;
        let held = w.switch().list_nat().await.map_err(|error| Diverged(error.to_string()))?;
        let newest: Vec<u64> = held.iter().map(|entry| entry.generation.get()).collect();
        w.must(newest == [late], &format!("the newest wins: {newest:?}, before: {is_mapped:?}"))
    }
    .boxed_local()
}

/// 0: the switch is away, 1: a sled is, while an address changes hands.
fn u20(w: &mut World) -> Play<'_> {
    async move {
        let old = w.create_running("old").await?;
        w.meanwhile(Duration::from_secs(2)).await;
        let (home, _) = w.active(old).expect("it runs");
        let away = w.hosts.iter().map(|host| host.id).find(|id| *id != home).expect("there are three");
        if w.variant == 0 {
            w.switch().set_away(true);
        } else {
            w.want_sled(away, &SledCommand::Cordon("it is to be away".to_owned())).await?;
            w.cut(away);
        }
        let address = w.state(old).address;
        w.stop(old).await?;
        w.until_state(old, RunState::Stopped).await?;
        w.must(w.state(old).network.sled.is_none(), "the update is made at once")?;
        w.want(old, &Ask::Delete, |state| state.deleted.is_some()).await?;
        let new = reuse(w, address)?;
        w.tick().await;
        w.start(new).await?;
        w.until_state(new, RunState::Running).await?;
        w.must(!w.network_mismatches().await.is_empty(), "who is away does not know")?;
        w.settle().await?;
        w.must(w.state(new).address.virtual_ip == address.virtual_ip, "the address changed hands")
    }
    .boxed_local()
}

/// An instance that got the address, as the log has it once a project's million addresses have gone round.
fn reuse(w: &World, address: Address) -> Result<InstanceId, Diverged> {
    let id = InstanceId::new(uuid::Uuid::from_u128(0x2e05e));
    let spec = Box::new(spec(w.project, "new"));
    let created = Event::from(InstanceEvent::Created { id, spec, address, intent: Intent::Stopped });
    let stream = StreamName::Instance(id);
    let log = w.journal();
    let claim = block_on(log.claim(stream.id())).map_err(|error| Diverged(error.to_string()))?;
    let (version, now) = (claim.head.version, w.control.now());
    let context = Context::of(Actor::Daemon);
    let append = journal::append(stream, claim.epoch, version, &[created], &context, now, now, "conformance");
    let appended = block_on(log.append(append.map_err(|error| Diverged(error.to_string()))?));
    w.must(matches!(appended, AppendOutcome::Appended { .. }), "it is there")?;
    Ok(id)
}

fn u21(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create(spec(w.project, "web"), false).await?;
        w.answer("set_running", sled_protocol::SledError::ChannelFull, usize::MAX);
        w.start(id).await?;
        w.until("it is at its last step", |w| {
            w.state(id).saga.as_ref().is_some_and(|saga| saga.step == Step::SetRunning)
        })
        .await?;
        let (sled, vmm) = w.active(id).expect("it starts");
        w.cut(sled);
        let ask = Ask::ForceStop { assert_dead: false, reason: "it hangs".to_owned() };
        w.want(id, &ask, |_| false).await?;
        w.until("it is down", |w| !w.run_state(id).is_transitional()).await?;
        w.start(id).await?;
        let asked: RequestContext = context();
        let saga = w.state(id).saga.map(|saga| saga.id).expect("it waits at the fence");
        let cancelled = w.control.ask(id, Ask::CancelSaga { saga }, asked).await;
        w.must(cancelled.is_ok(), "the saga is taken back")?;
        w.want(id, &Ask::Delete, |state| state.deleted.is_some()).await?;
        w.meanwhile(Duration::from_mins(5)).await;
        w.must(w.state(id).vmms.contains_key(&vmm), "what may be on the sled is remembered")?;
        w.mend(sled);
        w.until("and ends", |w| w.state(id).vmms.is_empty()).await?;
        w.settle().await?;
        w.must(w.control.live_instances() == 0, "nobody tries for ever")
    }
    .boxed_local()
}
