//! The sagas: start, migrate, create, delete, stop, and what stands in their way.

use crate::runner::{Scenario, Ways, whatever};
use crate::stage::{Diverged, Phase, Play, World, spec};
use actors::CommandError;
use actors::instance::Ask;
use futures::FutureExt;
use lifecycle::instance::TroubleCause;
use lifecycle::vmm::Reservation;
use lifecycle::{AutoRestartPolicy, Instance, InstanceEvent, InstanceId, Intent, RunState, Step, VmmState};
use std::time::Duration;

type Script = for<'a> fn(&'a mut World) -> Play<'a>;

const fn five(name: &'static str, variants: usize, play: Script) -> Scenario {
    Scenario { name, sleds: 3, ways: Ways::Five, variants, play, after_failure: whatever }
}

const fn once(name: &'static str, variants: usize, play: Script) -> Scenario {
    Scenario { name, sleds: 3, ways: Ways::Once, variants, play, after_failure: whatever }
}

/// The rows.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario { after_failure: clean_failure, ..five("s01_start_of_a_stopped_instance", 1, s01) },
        Scenario { after_failure: clean_failure, ..five("s02_a_start_that_fails_definitely", 1, s02) },
        five("s03_an_answer_is_lost_and_the_vmm_runs", 2, s03),
        five("s04_sled_unreachable_during_undo", 2, s04),
        five("s05_vmm_fails_while_its_start_unwinds", 1, s05),
        once("s06_starts_that_meet", 3, s06),
        once("s07_no_capacity_and_no_quota", 4, super::limits::s07),
        five("s08_migrate_source_first", 1, s08),
        five("s09_migrate_target_first", 1, s09),
        five("s10_a_migrate_that_fails_leaves_it_where_it_was", 2, s10),
        five("s11_migrate_deadline_and_cancel", 3, s11),
        once("s12_every_action_in_every_visible_state", 8, super::table::s12),
        five("s13_stop_while_migrating_or_starting", 2, s13),
        five("s14_guest_ignores_stop", 1, super::orders::s14),
        once("s15_delete_then_the_same_name_again", 1, super::orders::s15),
        five("s16_create_is_whole_or_not_at_all", 1, super::orders::s16),
        five("s17_a_created_instance_starts_after_a_crash", 1, super::orders::s17),
        once("s18_sled_knows_no_such_vmm", 1, super::orders::s18),
        once("s19_stop_recorded_and_not_confirmed", 4, super::orders::s19),
        once("s20_404_races_the_report", 2, super::orders::s20),
        once("s21_force_stop_in_every_state", 12, super::table::s21),
        once("s22_inventory_races_a_register", 2, super::orders::s22),
        once("s23_the_ledger_grants_once", 5, super::limits::s23),
    ]
}

/// A start that failed leaves the instance stopped, wanted stopped, with the reason, and nothing held.
fn clean_failure(w: &World) -> Result<(), Diverged> {
    let book = w.book();
    for state in book.instances.values() {
        let is_clean = state.run_state() == RunState::Running
            || (state.run_state() == RunState::Stopped
                && state.intent == Intent::Stopped
                && state.vmms.is_empty()
                && state.charge.is_none()
                && matches!(
                    state.last_trouble.as_ref().map(|trouble| &trouble.cause),
                    Some(TroubleCause::StartUnwound { .. })
                ));
        if !is_clean {
            return Err(Diverged(format!("a failed start left {state:?}")));
        }
    }
    Ok(())
}

pub(super) async fn stopped(w: &mut World) -> Result<InstanceId, Diverged> {
    w.create(spec(w.project, "web"), false).await
}

pub(super) async fn restartable(w: &mut World) -> Result<InstanceId, Diverged> {
    let mut spec = spec(w.project, "web");
    spec.auto_restart = Some(AutoRestartPolicy::BestEffort);
    w.create(spec, false).await
}

fn s01(w: &mut World) -> Play<'_> {
    async move {
        let id = stopped(w).await?;
        w.arm();
        w.start(id).await?;
        w.until_state(id, RunState::Running).await?;
        w.settle().await?;
        let charged = w.book().ledger.charged(w.project);
        w.must(charged.cpus == 2 && charged.memory == 4 << 30, "the counters are charged")?;
        let mapped = w.book().network.mappings().count();
        w.must(mapped == 1, "it is mapped; that every sled and the switch hold it, rest has checked")
    }
    .boxed_local()
}

fn s02(w: &mut World) -> Play<'_> {
    async move {
        let id = restartable(w).await?;
        w.refuse("register", usize::MAX);
        w.arm();
        w.want(id, &Ask::Start, |state| state.last_trouble.is_some() || state.saga.is_some()).await?;
        w.until("the start is unwound", |w| {
            let state = w.state(id);
            state.saga.is_none() && state.last_trouble.is_some() && state.run_state() == RunState::Stopped
        })
        .await?;
        w.meanwhile(Duration::from_hours(2)).await;
        w.settle().await?;
        let starts = w.book().events_of(id).filter(|event| is_start(event)).count();
        w.must(starts == 1, "no timer starts it again")?;
        w.must(w.book().network.mappings().count() == 0, "nothing is mapped")?;
        clean_failure(w)
    }
    .boxed_local()
}

pub(super) const fn is_start(event: &InstanceEvent) -> bool {
    matches!(event, InstanceEvent::StartBegan { .. })
}

/// 0: set running arrived, and nothing was heard any more until after the deadline; 1: the answer to register
/// was lost, and the wire was cut until after the deadline.
fn s03(w: &mut World) -> Play<'_> {
    async move {
        let id = stopped(w).await?;
        w.manual();
        w.arm();
        w.start(id).await?;
        let variant = w.variant;
        w.until("the sled has been told", |w| {
            let Some((sled, vmm)) = w.active(id) else { return false };
            if variant == 0 {
                w.next_step(sled, vmm).is_some() && w.state(id).vmms[&vmm].run_may_be_sent
            } else {
                w.on_sled(sled, vmm, |_| ()).is_some()
            }
        })
        .await?;
        let (sled, vmm) = w.active(id).expect("it starts");
        w.cut(sled);
        w.step(sled, vmm);
        w.until("the deadline has passed", |w| w.state(id).active != Some(vmm)).await?;
        let held = w.state(id).vmms.get(&vmm).and_then(|vmm| vmm.reservation);
        w.must(held == Some(Reservation::Tombstoned), "what may run stays reserved")?;
        w.automatic();
        w.start(id).await?;
        let may_run = w.state(id).vmms[&vmm].may_run();
        if may_run {
            w.meanwhile(Duration::from_mins(1)).await;
            let waits = w.state(id).saga.as_ref().is_some_and(|saga| saga.step == Step::Fence);
            w.must(waits, "the new start waits at the fence")?;
        }
        w.mend(sled);
        w.until_state(id, RunState::Running).await?;
        w.settle().await?;
        w.must(w.guests_of(id) == 1 && w.state(id).vmms.len() == 1, "one VMM is left")
    }
    .boxed_local()
}

/// 0: stopped before set running could be sent; 1: forced to stop after it.
fn s04(w: &mut World) -> Play<'_> {
    async move {
        let id = stopped(w).await?;
        w.manual();
        if w.variant == 0 {
            w.answer("set_running", sled_protocol::SledError::ChannelFull, 0);
            w.answer("register", sled_protocol::SledError::Timeout, usize::MAX);
        }
        w.arm();
        w.start(id).await?;
        let variant = w.variant;
        w.until("the step is under way", |w| {
            let state = w.state(id);
            let step = state.saga.as_ref().map(|saga| saga.step);
            step == Some(if variant == 0 { Step::Register } else { Step::SetRunning })
        })
        .await?;
        let (sled, vmm) = w.active(id).expect("it starts");
        w.cut(sled);
        if variant == 0 {
            w.stop(id).await?;
        } else {
            let ask = Ask::ForceStop { assert_dead: false, reason: "the test".to_owned() };
            w.want(id, &ask, |state| state.intent == Intent::Stopped).await?;
        }
        w.until("it is down as far as users see", |w| {
            matches!(w.run_state(id), RunState::Stopped | RunState::Failed)
        })
        .await?;
        w.start(id).await?;
        w.tick().await;
        let state = w.state(id);
        let held = state.vmms.get(&vmm).and_then(|vmm| vmm.reservation);
        w.must(held == Some(Reservation::Tombstoned), "the reservation is held until it is gone")?;
        let blocker = state.saga.as_ref().and_then(|saga| state.blocks_fence(saga.vmm)).map(|vmm| vmm.id);
        w.must(
            blocker == (variant == 1).then_some(vmm),
            "a start waits for what may run, and for nothing else",
        )?;
        w.answer("register", sled_protocol::SledError::Timeout, 0);
        w.mend(sled);
        w.automatic();
        w.until_state(id, RunState::Running).await?;
        w.settle().await?;
        w.must(w.state(id).vmms.len() == 1, "the other is gone, and its reservation with it")
    }
    .boxed_local()
}

fn s05(w: &mut World) -> Play<'_> {
    async move {
        let id = stopped(w).await?;
        w.manual();
        w.answer("set_running", sled_protocol::SledError::ChannelFull, usize::MAX);
        w.refuse("unregister", 3);
        w.arm();
        w.start(id).await?;
        w.until("it is registered", |w| {
            w.active(id).is_some_and(|(sled, vmm)| w.on_sled(sled, vmm, |_| ()).is_some())
        })
        .await?;
        let (sled, vmm) = w.active(id).expect("it starts");
        w.hold(sled, vmm);
        w.stop(id).await?;
        w.crash_vmm(sled, vmm);
        w.release(vmm);
        w.automatic();
        w.until("it is stopped and holds nothing", |w| {
            let state = w.state(id);
            !state.run_state().is_transitional() && state.vmms.is_empty()
        })
        .await?;
        w.settle().await?;
        w.must(w.state(id).intent == Intent::Stopped, "it ends, and is wanted stopped")
    }
    .boxed_local()
}

fn s06(w: &mut World) -> Play<'_> {
    async move {
        let id = stopped(w).await?;
        match w.variant {
            0 => {
                let control = w.control.clone();
                let context = crate::stage::context;
                let (one, other) = futures::join!(
                    control.ask(id, Ask::Start, context()),
                    control.ask(id, Ask::Start, context())
                );
                w.must(one.is_ok() && other.is_ok(), "both are accepted")?;
            }
            1 => {
                w.start(id).await?;
                w.until_state(id, RunState::Running).await?;
                w.manual();
                w.stop(id).await?;
                w.until_state(id, RunState::Stopping).await?;
                let before = w.book().position;
                let refused = w.ask(id, Ask::Start).await;
                let is_conflict = matches!(
                    refused,
                    Err(CommandError::Rejected(lifecycle::Rejected::NotPossible { is_conflict: true, .. }))
                );
                w.must(is_conflict, "409 while it stops")?;
                w.must(w.book().position == before, "and no trace")?;
                w.automatic();
                w.until_state(id, RunState::Stopped).await?;
                w.start(id).await?;
            }
            _ => {
                w.answer("unregister", sled_protocol::SledError::Timeout, usize::MAX);
                w.refuse("register", 1);
                w.start(id).await?;
                w.until_state(id, RunState::Stopped).await?;
                w.must(w.state(id).vmms.len() == 1, "the unwound VMM is still there")?;
                w.start(id).await?;
                w.until_state(id, RunState::Running).await?;
                w.answer("unregister", sled_protocol::SledError::Timeout, 0);
            }
        }
        w.until_state(id, RunState::Running).await?;
        w.settle().await?;
        let starts = w.book().events_of(id).filter(|event| is_start(event)).count();
        w.must(starts == if w.variant == 0 { 1 } else { 2 }, "one saga for two starts")?;
        w.must(w.state(id).vmms.len() == 1, "the reaper took the old one")
    }
    .boxed_local()
}

/// The counters do not move while the guest does.
fn must_be_charged_once(w: &World) -> Result<(), Diverged> {
    let charged = w.book().ledger.charged(w.project);
    w.must(charged.cpus == 2, "the counters stay as they were")
}

fn s08(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create_running("web").await?;
        w.arm();
        let pair = w.migrate(id).await?;
        w.both_in_progress(pair).await?;
        must_be_charged_once(w)?;
        w.hold(pair.target_sled, pair.target);
        w.drive(pair, Phase::Resumed).await?;
        w.until("the source has handed over", |w| w.state(id).active == Some(pair.target)).await?;
        w.must(w.run_state(id) == RunState::Migrating, "still migrating")?;
        must_be_charged_once(w)?;
        w.release(pair.target);
        w.until_state(id, RunState::Running).await?;
        must_be_charged_once(w)?;
        w.automatic();
        w.settle().await?;
        w.must(w.state(id).active == Some(pair.target) && w.state(id).vmms.len() == 1, "on T, S is reaped")?;
        must_be_charged_once(w)
    }
    .boxed_local()
}

fn s09(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create_running("web").await?;
        w.arm();
        let pair = w.migrate(id).await?;
        w.both_in_progress(pair).await?;
        w.hold(pair.source_sled, pair.source);
        w.drive(pair, Phase::Resumed).await?;
        w.until("it runs on T while S is in progress", |w| {
            let state = w.state(id);
            state.active == Some(pair.target)
                && state.run_state() == RunState::Running
                && state.vmms.get(&pair.source).is_some_and(|vmm| vmm.state == VmmState::Migrating)
        })
        .await?;
        w.settle().await?;
        w.must(w.state(id).vmms.len() == 1, "S is reaped")
    }
    .boxed_local()
}

/// 0: register is refused; 1: migration_target is.
fn s10(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create_running("web").await?;
        let (_, source) = w.active(id).expect("it runs");
        let step = if w.variant == 0 { "register" } else { "migration_target" };
        w.refuse(step, usize::MAX);
        w.arm();
        let begun = |state: &Instance| !state.migrations.is_empty() || state.last_trouble.is_some();
        w.want(id, &Ask::Migrate { to: None }, begun).await?;
        w.until("it stays where it was", |w| {
            let state = w.state(id);
            let is_over = state.last_trouble.is_some() && state.saga.is_none() && state.migration.is_none();
            is_over && state.active == Some(source) && state.run_state() == RunState::Running
        })
        .await?;
        w.refuse(step, 0);
        let pair = w.migrate(id).await?;
        w.drive(pair, Phase::Resumed).await?;
        w.until("it can be migrated again at once", |w| w.state(id).active == Some(pair.target)).await?;
        w.automatic();
        w.stop(id).await?;
        w.until_state(id, RunState::Stopped).await?;
        w.settle().await?;
        w.must(w.state(id).vmms.is_empty(), "and stopped")
    }
    .boxed_local()
}

/// 0: the deadline passes; 1: it is cancelled while memory moves; 2: it is cancelled when the guest has left.
fn s11(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create_running("web").await?;
        w.arm();
        let pair = w.migrate(id).await?;
        w.both_in_progress(pair).await?;
        if w.variant == 2 {
            w.hold(pair.source_sled, pair.source);
            w.hold(pair.target_sled, pair.target);
            // The source lets the guest go; the target does not hear that it has.
            w.drive_to_finish(pair).await?;
            w.mute_source(pair);
            w.drive(pair, Phase::HandedOver).await?;
        }
        if w.variant > 0 {
            let is_over = |state: &Instance| {
                state.linked_migration().is_none_or(|migration| migration.cancelled.is_some())
            };
            w.want(id, &Ask::CancelMigration, is_over).await?;
        }
        if w.variant == 2 {
            w.settle().await?;
            w.must(w.state(id).active == Some(pair.target), "a cancel that comes too late changes nothing")?;
        } else {
            w.until("it stays on S", |w| {
                let state = w.state(id);
                state.active == Some(pair.source) && state.run_state() == RunState::Running
            })
            .await?;
            w.settle().await?;
            w.must(w.state(id).active == Some(pair.source), "it is on S")?;
        }
        w.must(w.guests_of(id) == 1 && w.state(id).vmms.len() == 1, "exactly one")
    }
    .boxed_local()
}

/// 0: while migrating; 1: while starting.
fn s13(w: &mut World) -> Play<'_> {
    async move {
        let id = if w.variant == 0 {
            let id = w.create_running("web").await?;
            w.arm();
            let pair = w.migrate(id).await?;
            w.both_in_progress(pair).await?;
            id
        } else {
            let id = stopped(w).await?;
            w.manual();
            w.arm();
            w.start(id).await?;
            w.until("it may have been told to run", |w| {
                let state = w.state(id);
                state.active_vmm().is_some_and(|vmm| vmm.run_may_be_sent)
            })
            .await?;
            id
        };
        w.stop(id).await?;
        w.automatic();
        w.until_state(id, RunState::Stopped).await?;
        w.settle().await?;
        let state = w.state(id);
        w.must(state.vmms.is_empty() && state.intent == Intent::Stopped, "it ends stopped")?;
        let times = w.book().seen[&id].iter().filter(|seen| **seen == RunState::Stopped).count();
        w.must(times == if w.variant == 0 { 1 } else { 2 }, "once")
    }
    .boxed_local()
}
