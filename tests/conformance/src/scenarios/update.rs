//! The update: what an instance becomes by what its VMMs and its migration have already done.

use crate::runner::{Scenario, Ways, whatever};
use crate::stage::{Pair, Phase, Play, World, spec};
use actors::instance::Ask;
use futures::FutureExt;
use lifecycle::migration::SideState;
use lifecycle::sled::SledCommand;
use lifecycle::vmm::Reservation;
use lifecycle::{
    AutoRestartPolicy, FailureReason, Instance, InstanceEvent, Intent, RunState, VmmId, VmmState,
};

const fn five(name: &'static str, variants: usize, play: for<'a> fn(&'a mut World) -> Play<'a>) -> Scenario {
    Scenario { name, sleds: 3, ways: Ways::Five, variants, play, after_failure: whatever }
}

/// The rows.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        five("u01_active_vmm_destroyed_without_a_migration", 1, u01),
        five("u02_active_vmm_failed_without_a_migration", 1, u02),
        five("u03_source_completed_and_stopping_target_not_heard", 1, u03),
        five("u04_target_completed_and_running_source_not_heard", 1, u04),
        five("u05_both_completed_source_destroyed", 1, u05),
        five("u06_both_failed_source_running_target_failed", 1, u06),
        five("u07_both_failed_source_running_target_destroyed", 1, u07),
        five("u08_source_failed_and_destroyed_target_in_progress", 1, u08),
        five("u09_both_failed_and_destroyed", 1, u09),
        five("u10_both_completed_target_destroyed_source_stopping", 1, u10),
        five("u11_both_completed_target_failed", 1, u11),
        five("u12_target_unwound_by_the_migrate_saga", 1, u12),
        five("u13_source_lost_while_the_target_is_in_progress", 4, u13),
        five("u14_target_lost_then_the_source_reports_completed", 1, u14),
        five("u15_guest_shuts_down_during_a_migration", 1, u15),
    ]
}

/// What a VMM of the instance holds.
fn holds(state: &Instance, vmm: VmmId) -> Option<Reservation> {
    state.vmms.get(&vmm).and_then(|vmm| vmm.reservation)
}

/// Nothing is charged, mapped, produced or held.
fn is_bare(state: &Instance) -> bool {
    state.active.is_none()
        && state.charge.is_none()
        && state.network.sled.is_none()
        && state.producer.is_none()
        && state.vmms.is_empty()
}

fn runs_on(state: &Instance, vmm: VmmId) -> bool {
    state.active == Some(vmm)
        && state.migration.is_none()
        && state.run_state() == RunState::Running
        && state.network.sled == state.vmms.get(&vmm).map(|vmm| vmm.sled)
        && holds(state, vmm) == Some(Reservation::Active)
}

fn u01(w: &mut World) -> Play<'_> {
    async move {
        w.arm();
        let id = w.create_running("web").await?;
        let (sled, vmm) = w.active(id).expect("it runs");
        w.guest_shuts_down(sled, vmm);
        w.until("it is stopped and holds nothing", |w| is_bare(&w.state(id))).await?;
        w.settle().await?;
        let state = w.state(id);
        w.must(state.run_state() == RunState::Stopped, "it is stopped")?;
        w.must(state.intent == Intent::GuestShutdown, "the guest wanted it so")
    }
    .boxed_local()
}

fn u02(w: &mut World) -> Play<'_> {
    async move {
        w.arm();
        let id = w.create_running("web").await?;
        let (sled, vmm) = w.active(id).expect("it runs");
        w.crash_vmm(sled, vmm);
        w.until("it has failed and holds nothing", |w| is_bare(&w.state(id))).await?;
        w.settle().await?;
        let state = w.state(id);
        w.must(state.run_state() == RunState::Failed, "it has failed")?;
        let reason = state.failed.as_ref().map(|trouble| trouble.cause.clone());
        let expected = lifecycle::instance::TroubleCause::VmmFailed { vmm, reason: FailureReason::FromSled };
        w.must(reason == Some(expected), "the reason is visible")
    }
    .boxed_local()
}

/// An instance that runs and is about to move: things go wrong from here on.
async fn moving(w: &mut World) -> Result<Pair, crate::stage::Diverged> {
    let id = w.create_running("web").await?;
    w.arm();
    w.migrate(id).await
}

fn u03(w: &mut World) -> Play<'_> {
    async move {
        let pair = moving(w).await?;
        w.both_in_progress(pair).await?;
        w.hold(pair.target_sled, pair.target);
        w.drive(pair, Phase::Arrived).await?;
        w.step(pair.source_sled, pair.source);
        let kept = |w: &World| {
            let state = w.state(pair.id);
            state.active == Some(pair.target)
                && state.migration.is_some()
                && state.vmms.get(&pair.source).is_some_and(|vmm| vmm.state == VmmState::Stopping)
                && holds(&state, pair.source) == Some(Reservation::Active)
                && holds(&state, pair.target) == Some(Reservation::Target)
                && state.network.sled == Some(pair.target_sled)
                && state.run_state() == RunState::Migrating
        };
        w.until("T is active, the migration kept, both reservations held", kept).await?;
        w.settle().await?;
        w.must(runs_on(&w.state(pair.id), pair.target), "it runs on the target once that is heard")
    }
    .boxed_local()
}

fn u04(w: &mut World) -> Play<'_> {
    async move {
        let pair = moving(w).await?;
        w.both_in_progress(pair).await?;
        w.hold(pair.source_sled, pair.source);
        w.drive(pair, Phase::Resumed).await?;
        let there = |w: &World| {
            let state = w.state(pair.id);
            runs_on(&state, pair.target) && holds(&state, pair.source) == Some(Reservation::Tombstoned)
        };
        w.until("T is active and alone, S is tombstoned", there).await?;
        w.settle().await?;
        let state = w.state(pair.id);
        w.must(runs_on(&state, pair.target) && state.vmms.len() == 1, "only the target is left")
    }
    .boxed_local()
}

fn u05(w: &mut World) -> Play<'_> {
    async move {
        let pair = moving(w).await?;
        w.both_in_progress(pair).await?;
        w.hold(pair.target_sled, pair.target);
        w.drive(pair, Phase::Resumed).await?;
        w.run_down(pair.source_sled, pair.source);
        w.until("the source is heard to be destroyed", |w| {
            w.state(pair.id).vmms.get(&pair.source).is_none_or(|vmm| vmm.state == VmmState::Destroyed)
        })
        .await?;
        w.release(pair.target);
        w.until("it runs on the target and S holds nothing", |w| {
            let state = w.state(pair.id);
            runs_on(&state, pair.target) && holds(&state, pair.source).is_none()
        })
        .await?;
        w.settle().await?;
        w.must(w.state(pair.id).vmms.len() == 1, "only the target is left")
    }
    .boxed_local()
}

/// The guest stayed in the source: the target's reservation goes, the network points back.
async fn stays(w: &mut World, pair: Pair) -> Result<(), crate::stage::Diverged> {
    w.until("it runs on the source and T holds nothing", |w| {
        let state = w.state(pair.id);
        runs_on(&state, pair.source) && holds(&state, pair.target).is_none()
    })
    .await?;
    w.settle().await?;
    let state = w.state(pair.id);
    w.must(runs_on(&state, pair.source) && state.vmms.len() == 1, "only the source is left")
}

fn u06(w: &mut World) -> Play<'_> {
    async move {
        let pair = moving(w).await?;
        w.both_in_progress(pair).await?;
        w.crash_vmm(pair.target_sled, pair.target);
        stays(w, pair).await
    }
    .boxed_local()
}

fn u07(w: &mut World) -> Play<'_> {
    async move {
        let pair = moving(w).await?;
        w.both_in_progress(pair).await?;
        w.destroy_vmm(pair.target_sled, pair.target);
        stays(w, pair).await
    }
    .boxed_local()
}

fn u08(w: &mut World) -> Play<'_> {
    async move {
        let pair = moving(w).await?;
        w.both_in_progress(pair).await?;
        w.sever(pair);
        w.cut(pair.target_sled);
        w.guest_shuts_down(pair.source_sled, pair.source);
        w.until("it is stopped, and T is held until it is gone", |w| {
            let state = w.state(pair.id);
            state.run_state() == RunState::Stopped
                && state.intent == Intent::GuestShutdown
                && holds(&state, pair.target) == Some(Reservation::Tombstoned)
                && state.network.sled.is_none()
                && state.charge.is_none()
        })
        .await?;
        w.mend(pair.target_sled);
        w.until("T was told to stop, and holds nothing", |w| is_bare(&w.state(pair.id))).await?;
        w.settle().await?;
        w.must(w.run_state(pair.id) == RunState::Stopped, "it stays stopped")
    }
    .boxed_local()
}

fn u09(w: &mut World) -> Play<'_> {
    async move {
        let pair = moving(w).await?;
        w.both_in_progress(pair).await?;
        w.hold(pair.source_sled, pair.source);
        w.hold(pair.target_sled, pair.target);
        w.destroy_vmm(pair.target_sled, pair.target);
        w.tick().await;
        w.guest_shuts_down(pair.source_sled, pair.source);
        w.release(pair.target);
        w.release(pair.source);
        w.until("everything is gone", |w| is_bare(&w.state(pair.id))).await?;
        w.settle().await?;
        w.must(w.run_state(pair.id) == RunState::Stopped, "it is stopped")?;
        w.must(w.state(pair.id).intent == Intent::GuestShutdown, "the guest wanted it so")
    }
    .boxed_local()
}

/// The guest has arrived and runs, the source is stopping and goes no further.
async fn arrived(w: &mut World) -> Result<Pair, crate::stage::Diverged> {
    let pair = moving(w).await?;
    w.both_in_progress(pair).await?;
    w.drive(pair, Phase::Resumed).await?;
    w.step(pair.source_sled, pair.source);
    w.until("it runs on the target, the source stops", |w| {
        let state = w.state(pair.id);
        runs_on(&state, pair.target)
            && state.vmms.get(&pair.source).is_some_and(|vmm| vmm.state == VmmState::Stopping)
    })
    .await?;
    Ok(pair)
}

fn u10(w: &mut World) -> Play<'_> {
    async move {
        let pair = arrived(w).await?;
        w.guest_shuts_down(pair.target_sled, pair.target);
        w.until("it is stopped, and S is held until it ends", |w| {
            let state = w.state(pair.id);
            state.run_state() == RunState::Stopped
                && holds(&state, pair.source) == Some(Reservation::Tombstoned)
                && state.charge.is_none()
        })
        .await?;
        w.settle().await?;
        w.must(is_bare(&w.state(pair.id)), "nothing is held once S has ended")
    }
    .boxed_local()
}

fn u11(w: &mut World) -> Play<'_> {
    async move {
        let mut spec = spec(w.project, "web");
        spec.auto_restart = Some(AutoRestartPolicy::BestEffort);
        let id = w.create(spec, true).await?;
        w.until_state(id, RunState::Running).await?;
        w.arm();
        let pair = w.migrate(id).await?;
        w.both_in_progress(pair).await?;
        w.drive(pair, Phase::Resumed).await?;
        w.step(pair.source_sled, pair.source);
        w.until("it runs on the target, the source stops", |w| runs_on(&w.state(id), pair.target)).await?;
        w.crash_vmm(pair.target_sled, pair.target);
        let failed = |w: &World| w.book().seen[&id].contains(&RunState::Failed);
        w.until("it has failed", failed).await?;
        w.settle().await?;
        let tried = |event: &InstanceEvent| matches!(event, InstanceEvent::RestartTried { attempt: 1 });
        let is_tried = w.book().events_of(id).any(tried);
        w.must(is_tried, "it was eligible for a restart")?;
        w.must(w.run_state(id) == RunState::Running, "it runs again")
    }
    .boxed_local()
}

fn u12(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create_running("web").await?;
        let (_, source) = w.active(id).expect("it runs");
        w.refuse("register", usize::MAX);
        w.arm();
        let is_begun = |state: &Instance| !state.migrations.is_empty() || state.last_trouble.is_some();
        w.want(id, &Ask::Migrate { to: None }, is_begun).await?;
        w.until("the migrate saga is unwound", |w| {
            let state = w.state(id);
            state.last_trouble.is_some() && state.saga.is_none() && runs_on(&state, source)
        })
        .await?;
        w.refuse("register", 0);
        let pair = w.migrate(id).await?;
        w.drive(pair, Phase::Resumed).await?;
        w.until("a new migration may start at once", |w| runs_on(&w.state(id), pair.target)).await?;
        w.settle().await?;
        w.must(w.state(id).vmms.len() == 1, "only the target is left")
    }
    .boxed_local()
}

/// The source is lost while only the target knows where the guest is: 0: it arrived, and is found there;
/// 1: it did not; 2: nobody can ask until long after; 3: like 0, but the source's host is expunged.
fn u13(w: &mut World) -> Play<'_> {
    match w.variant {
        0 | 3 => u13_arrived(w),
        1 => u13_failed(w),
        _ => u13_silent(w),
    }
}

fn u13_arrived(w: &mut World) -> Play<'_> {
    async move {
        let pair = moving(w).await?;
        w.both_in_progress(pair).await?;
        w.hold(pair.source_sled, pair.source);
        w.hold(pair.target_sled, pair.target);
        w.drive(pair, Phase::Resumed).await?;
        if w.variant == 3 {
            w.power_off(pair.source_sled);
            w.want_sled(pair.source_sled, &SledCommand::Expunge("burnt".to_owned())).await?;
        } else {
            w.reboot_sled(pair.source_sled, 0xb00);
        }
        w.until("the target was asked, and nothing is lost", |w| {
            let state = w.state(pair.id);
            state.active == Some(pair.target) && state.migration.is_none()
        })
        .await?;
        w.settle().await?;
        w.must(runs_on(&w.state(pair.id), pair.target), "it runs on the target")
    }
    .boxed_local()
}

fn u13_failed(w: &mut World) -> Play<'_> {
    async move {
        let pair = moving(w).await?;
        w.both_in_progress(pair).await?;
        w.sever(pair);
        w.hold(pair.target_sled, pair.target);
        w.crash_vmm(pair.source_sled, pair.source);
        w.heard(pair, pair.source, SideState::Failed).await?;
        w.crash_vmm(pair.target_sled, pair.target);
        w.release(pair.target);
        w.until("the guest is lost", |w| w.run_state(pair.id) == RunState::Failed).await?;
        w.settle().await?;
        w.must(is_bare(&w.state(pair.id)), "nothing is held")
    }
    .boxed_local()
}

fn u13_silent(w: &mut World) -> Play<'_> {
    async move {
        let mut spec = spec(w.project, "web");
        spec.auto_restart = Some(AutoRestartPolicy::BestEffort);
        let id = w.create(spec, true).await?;
        w.until_state(id, RunState::Running).await?;
        w.arm();
        let pair = w.migrate(id).await?;
        w.both_in_progress(pair).await?;
        w.cut(pair.target_sled);
        w.cut(pair.source_sled);
        w.drive(pair, Phase::Resumed).await?;
        w.reboot_sled(pair.source_sled, 0xb00);
        w.mend(pair.source_sled);
        let is_given_up = |event: &InstanceEvent| matches!(event, InstanceEvent::MigrationGivenUp { .. });
        w.until("the target was asked in vain until the deadline", |w| {
            w.book().events_of(id).any(is_given_up)
        })
        .await?;
        w.until("the restart waits for the target to be gone", |w| {
            let state = w.state(id);
            let waits = state.saga.as_ref().is_some_and(|saga| saga.step == lifecycle::Step::Fence);
            waits && holds(&state, pair.target) == Some(Reservation::Tombstoned)
        })
        .await?;
        w.must(w.guests_of(id) == 1, "the guest still runs on the target")?;
        w.automatic();
        w.mend(pair.target_sled);
        w.until("it runs anew once the target is gone", |w| {
            let state = w.state(id);
            state.run_state() == RunState::Running && !state.vmms.contains_key(&pair.target)
        })
        .await?;
        w.settle().await?;
        w.must(w.state(id).active != Some(pair.target), "the late `completed` changed nothing")
    }
    .boxed_local()
}

fn u14(w: &mut World) -> Play<'_> {
    async move {
        let pair = moving(w).await?;
        w.both_in_progress(pair).await?;
        w.hold(pair.source_sled, pair.source);
        w.hold(pair.target_sled, pair.target);
        w.drive(pair, Phase::Arrived).await?;
        w.reboot_sled(pair.target_sled, 0xb00);
        w.until("the target is lost", |w| {
            w.state(pair.id).vmms.get(&pair.target).is_none_or(|vmm| vmm.state == VmmState::Failed)
        })
        .await?;
        w.release(pair.source);
        w.until("the guest is gone", |w| w.run_state(pair.id) == RunState::Failed).await?;
        w.settle().await?;
        w.must(w.run_state(pair.id) == RunState::Failed, "it has failed, once and for all")?;
        w.must(is_bare(&w.state(pair.id)), "nothing is held")
    }
    .boxed_local()
}

fn u15(w: &mut World) -> Play<'_> {
    async move {
        let mut spec = spec(w.project, "web");
        spec.auto_restart = Some(AutoRestartPolicy::BestEffort);
        let id = w.create(spec, true).await?;
        w.until_state(id, RunState::Running).await?;
        w.arm();
        let pair = w.migrate(id).await?;
        w.both_in_progress(pair).await?;
        w.guest_shuts_down(pair.source_sled, pair.source);
        w.until("it is stopped and holds nothing", |w| is_bare(&w.state(id))).await?;
        w.settle().await?;
        let state = w.state(id);
        w.must(state.run_state() == RunState::Stopped, "it is stopped")?;
        w.must(state.intent == Intent::GuestShutdown, "the guest wanted it so")?;
        let is_tried = |event: &InstanceEvent| matches!(event, InstanceEvent::RestartTried { .. });
        let tried = w.book().events_of(id).any(is_tried);
        w.must(!tried, "it is not restarted")
    }
    .boxed_local()
}
