//! The timers: what they find and finish, and what they leave alone.

use crate::runner::{Scenario, Ways, whatever};
use crate::stage::{Diverged, Play, World, context, spec};
use actors::TimerName;
use actors::instance::Ask;
use futures::FutureExt;
use lifecycle::instance::TroubleCause;
use lifecycle::sled::SledCommand;
use lifecycle::{
    AutoRestartPolicy, FailureReason, InstanceEvent, InstanceId, Intent, RunState, SledId, Timestamp,
};
use sim_sled::faults::{Fault, Faults};
use sim_sled::machine::RequestKind;
use std::time::Duration;

type Script = for<'a> fn(&'a mut World) -> Play<'a>;

const fn once(name: &'static str, variants: usize, play: Script) -> Scenario {
    Scenario { name, sleds: 3, ways: Ways::Once, variants, play, after_failure: whatever }
}

/// The rows.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        once("t01_an_abandoned_vmm_is_reaped", 1, t01),
        once("t02_somebody_else_was_first", 1, t02),
        once("t03_what_lives_is_never_reaped", 1, t03),
        once("t04_an_inventory_is_compared", 4, t04),
        once("t05_a_sled_that_does_not_answer_kills_nothing", 3, t05),
        once("t06_expunged", 2, t06),
        once("t07_restarts", 4, t07),
        once("t08_a_stop_is_not_undone_by_a_restart", 1, t08),
        once("t09_reapers_find_nothing_but_what_was_lost", 2, t09),
        once("t10_drain", 2, t10),
    ]
}

fn found(w: &World, name: TimerName) -> u64 {
    w.control.timers().into_iter().find(|timer| timer.name == name).map_or(0, |timer| timer.found)
}

async fn cordon_all(w: &World, command: fn(String) -> SledCommand) -> Result<(), Diverged> {
    for host in &w.hosts {
        let done = w.control.ask_sled(host.id, command("the test".to_owned()), context()).await;
        w.must(done.is_ok(), "the sled is changed")?;
    }
    Ok(())
}

/// An instance with the policy, running.
async fn running(w: &mut World, policy: Option<AutoRestartPolicy>) -> Result<InstanceId, Diverged> {
    let mut spec = spec(w.project, "web");
    spec.auto_restart = policy;
    let id = w.create(spec, true).await?;
    w.until_state(id, RunState::Running).await?;
    Ok(id)
}

async fn force_stop(w: &mut World, id: InstanceId) -> Result<(), Diverged> {
    let ask = Ask::ForceStop { assert_dead: false, reason: "the test".to_owned() };
    w.want(id, &ask, |state| state.intent == Intent::Stopped).await
}

fn t01(w: &mut World) -> Play<'_> {
    async move {
        let id = running(w, Some(AutoRestartPolicy::Never)).await?;
        let (sled, vmm) = w.active(id).expect("it runs");
        w.cut(sled);
        force_stop(w, id).await?;
        w.control.activate_timer(TimerName::VmmReaper);
        w.until("the reaper finds it", |w| found(w, TimerName::VmmReaper) > 0).await?;
        w.must(w.state(id).vmms[&vmm].reservation.is_some(), "its room is held until it is gone")?;
        w.mend(sled);
        w.until("it is reaped, and its room free", |w| w.state(id).vmms.is_empty()).await?;
        let before = found(w, TimerName::VmmReaper);
        w.control.activate_timer(TimerName::VmmReaper);
        w.meanwhile(Duration::from_secs(1)).await;
        w.must(found(w, TimerName::VmmReaper) == before, "and not found again")?;
        w.settle().await
    }
    .boxed_local()
}

fn t02(w: &mut World) -> Play<'_> {
    async move {
        let id = running(w, Some(AutoRestartPolicy::Never)).await?;
        let (sled, vmm) = w.active(id).expect("it runs");
        w.cut(sled);
        force_stop(w, id).await?;
        w.forget_vmm(sled, vmm);
        for _ in 0..3 {
            w.control.activate_timer(TimerName::VmmReaper);
        }
        w.mend(sled);
        w.until("it is reaped all the same", |w| w.state(id).vmms.is_empty()).await?;
        w.settle().await?;
        let reaped = |event: &&InstanceEvent| matches!(event, InstanceEvent::VmmReaped { .. });
        let times = w.book().events_of(id).filter(reaped).count();
        w.must(times == 1, "once")
    }
    .boxed_local()
}

fn t03(w: &mut World) -> Play<'_> {
    async move {
        let id = running(w, Some(AutoRestartPolicy::Never)).await?;
        for _ in 0..10 {
            w.control.activate_timer(TimerName::VmmReaper);
            w.meanwhile(Duration::from_mins(2)).await;
        }
        w.must(found(w, TimerName::VmmReaper) == 0, "what is referred to is not found")?;
        w.must(w.run_state(id) == RunState::Running, "and runs on")?;
        // An abandoned live one: the source shut down while the target cannot hear.
        w.arm();
        let pair = w.migrate(id).await?;
        w.both_in_progress(pair).await?;
        w.sever(pair);
        w.hold(pair.target_sled, pair.target);
        w.guest_shuts_down(pair.source_sled, pair.source);
        w.until("it is stopped", |w| w.run_state(id) == RunState::Stopped).await?;
        w.settle().await?;
        let effects = w.plan().seen().effects;
        let first = effects.iter().find(|effect| ["stop", "unregister"].contains(effect));
        w.must(first == Some(&"stop"), "it is told to stop before anything else")
    }
    .boxed_local()
}

/// 0: a VMM is missing, 1: an unknown one is listed, 2: the boot is another, 3: only the agent restarted.
fn t04(w: &mut World) -> Play<'_> {
    async move {
        let id = running(w, Some(AutoRestartPolicy::Never)).await?;
        let (sled, vmm) = w.active(id).expect("it runs");
        let reason = |w: &World| match w.state(id).failed.map(|trouble| trouble.cause) {
            Some(TroubleCause::VmmFailed { reason, .. }) => Some(reason),
            _ => None,
        };
        match w.variant {
            0 => {
                w.forget_vmm(sled, vmm);
                w.until_state(id, RunState::Failed).await?;
                w.must(reason(w) == Some(FailureReason::NoSuchVmm), "it is missing")?;
            }
            1 => {
                let orphan = lifecycle::VmmId::new(uuid::Uuid::from_u128(0x0bad));
                w.register_orphan(sled, orphan);
                w.until("the orphan is unregistered", |w| w.on_sled(sled, orphan, |_| ()).is_none()).await?;
                w.must(w.run_state(id) == RunState::Running, "the other runs on")?;
            }
            2 => {
                w.reboot_sled(sled, 0xb00);
                w.until_state(id, RunState::Failed).await?;
                w.must(reason(w) == Some(FailureReason::SledRebooted), "its boot is over")?;
            }
            _ => {
                w.restart_agent(sled);
                w.meanwhile(Duration::from_mins(10)).await;
                w.must(w.run_state(id) == RunState::Running, "nothing restarts")?;
                w.must(w.active(id) == Some((sled, vmm)), "it is the same VMM")?;
            }
        }
        w.settle().await
    }
    .boxed_local()
}

/// The sled 0: answers 500, 1: refuses the connection, 2: hangs.
fn t05(w: &mut World) -> Play<'_> {
    async move {
        let id = running(w, Some(AutoRestartPolicy::Never)).await?;
        let (sled, _) = w.active(id).expect("it runs");
        let fault = match w.variant {
            0 => {
                let error = sled_protocol::SledError::ServerError { status: 500, message: "ouch".to_owned() };
                Fault::Answer(error)
            }
            1 => Fault::LoseRequest,
            _ => Fault::Hang,
        };
        let kinds = [RequestKind::Inventory, RequestKind::GetState, RequestKind::Register];
        let faults =
            kinds.into_iter().fold(Faults::default(), |faults, kind| faults.always(kind, fault.clone()));
        w.host_of(sled).sled.set_faults(faults);
        w.meanwhile(Duration::from_hours(1)).await;
        w.must(w.run_state(id) == RunState::Running, "nothing is declared dead")?;
        w.must(w.control.sleds().await.is_ok(), "the others are served")?;
        w.host_of(sled).sled.set_faults(Faults::default());
        w.settle().await?;
        w.must(w.run_state(id) == RunState::Running, "it runs on")
    }
    .boxed_local()
}

/// With 0: policy never, 1: best effort. The host is dead, as the operator says.
fn t06(w: &mut World) -> Play<'_> {
    async move {
        let policies = [AutoRestartPolicy::Never, AutoRestartPolicy::BestEffort];
        let id = running(w, Some(policies[w.variant])).await?;
        let (sled, vmm) = w.active(id).expect("it runs");
        w.power_off(sled);
        w.cut(sled);
        let expunge = SledCommand::Expunge("burnt".to_owned());
        w.must(w.control.ask_sled(sled, expunge, context()).await.is_ok(), "it is expunged")?;
        w.until("its VMM has failed, without asking", |w| w.book().seen[&id].contains(&RunState::Failed))
            .await?;
        let failed = |event: &InstanceEvent| {
            let expected = FailureReason::SledExpunged;
            matches!(event, InstanceEvent::VmmFailed { vmm: of, reason } if *of == vmm && *reason == expected)
        };
        w.must(w.book().events_of(id).any(failed), "failed{sled_expunged}")?;
        if w.variant == 0 {
            w.meanwhile(Duration::from_hours(2)).await;
            w.settle().await?;
            return w.must(w.run_state(id) == RunState::Failed, "it stays failed");
        }
        w.until_state(id, RunState::Running).await?;
        w.settle().await?;
        let (other, _) = w.active(id).expect("it runs");
        w.must(other != sled, "elsewhere")
    }
    .boxed_local()
}

/// When the restart policy tried, and which attempt it was.
fn attempts(w: &World, id: InstanceId) -> Vec<(u32, Timestamp)> {
    let of = journal::StreamName::Instance(id);
    let book = w.book();
    let tried = book.history.iter().filter(|recorded| recorded.stream == of).filter_map(|recorded| {
        match &recorded.event {
            journal::Event::Instance(InstanceEvent::RestartTried { attempt }) => {
                Some((*attempt, recorded.meta.time))
            }
            _ => None,
        }
    });
    tried.collect()
}

async fn crash_and_return(w: &mut World, id: InstanceId) -> Result<(), Diverged> {
    let (sled, vmm) = w.active(id).expect("it runs");
    w.crash_vmm(sled, vmm);
    w.until("it runs anew", |w| w.run_state(id) == RunState::Running && w.state(id).active != Some(vmm)).await
}

/// 0: at once, then later and later, and anew after a stable run; 1: not by policy, stop or guest; 2: no
/// capacity counts as an attempt; 3: the budget.
fn t07(w: &mut World) -> Play<'_> {
    async move {
        match w.variant {
            0 => {
                let id = running(w, None).await?;
                for _ in 0..3 {
                    crash_and_return(w, id).await?;
                }
                let tried = attempts(w, id);
                let counted: Vec<u32> = tried.iter().map(|(attempt, _)| *attempt).collect();
                w.must(counted == [1, 2, 3], &format!("attempts are counted: {counted:?}"))?;
                let waits: Vec<u64> =
                    tried.windows(2).map(|two| two[1].1.since(two[0].1).micros() / 60_000_000).collect();
                w.must(waits == [5, 10], &format!("minutes between attempts grow: {waits:?}"))?;
                w.meanwhile(Duration::from_mins(11)).await;
                crash_and_return(w, id).await?;
                let last = attempts(w, id).last().map(|(attempt, _)| *attempt);
                w.must(last == Some(1), "a stable run begins the count anew")?;
            }
            1 => {
                let never = running(w, Some(AutoRestartPolicy::Never)).await?;
                let (sled, vmm) = w.active(never).expect("it runs");
                w.crash_vmm(sled, vmm);
                let best = restartable(w, "shut").await?;
                let (sled, vmm) = w.active(best).expect("it runs");
                w.guest_shuts_down(sled, vmm);
                w.until_state(never, RunState::Failed).await?;
                w.until_state(best, RunState::Stopped).await?;
                w.control.activate_timer(TimerName::Reincarnation);
                w.meanwhile(Duration::from_hours(2)).await;
                w.must(w.run_state(never) == RunState::Failed, "never means never")?;
                w.must(w.run_state(best) == RunState::Stopped, "the guest wanted it so")?;
                w.must(attempts(w, never).is_empty() && attempts(w, best).is_empty(), "nothing was tried")?;
            }
            2 => {
                let id = running(w, None).await?;
                cordon_all(w, SledCommand::Cordon).await?;
                let (sled, vmm) = w.active(id).expect("it runs");
                w.crash_vmm(sled, vmm);
                w.until("an attempt was made", |w| attempts(w, id).len() == 1).await?;
                w.must(w.run_state(id) == RunState::Failed, "it stays failed")?;
                cordon_all(w, SledCommand::Uncordon).await?;
                w.until_state(id, RunState::Running).await?;
                let tried = attempts(w, id);
                w.must(tried.len() == 2, "one more attempt was made")?;
                let wait = tried[1].1.since(tried[0].1).micros() / 1_000_000;
                w.must(wait.abs_diff(300) <= 1, &format!("no capacity backs off too: {wait} s"))?;
            }
            _ => {
                let id = running(w, None).await?;
                cordon_all(w, SledCommand::Cordon).await?;
                let (sled, vmm) = w.active(id).expect("it runs");
                w.crash_vmm(sled, vmm);
                w.meanwhile(Duration::from_hours(40)).await;
                let made = attempts(w, id).len();
                w.must(made == 16, &format!("the budget is kept: {made} attempts"))?;
                w.must(w.run_state(id) == RunState::Failed, "it stays failed")?;
            }
        }
        w.settle().await
    }
    .boxed_local()
}

/// An instance of the name that is restarted by itself, running.
async fn restartable(w: &mut World, name: &str) -> Result<InstanceId, Diverged> {
    let mut spec = spec(w.project, name);
    spec.auto_restart = Some(AutoRestartPolicy::BestEffort);
    let id = w.create(spec, true).await?;
    w.until_state(id, RunState::Running).await?;
    Ok(id)
}

fn t08(w: &mut World) -> Play<'_> {
    async move {
        let id = running(w, None).await?;
        let (sled, vmm) = w.active(id).expect("it runs");
        w.manual();
        w.stop(id).await?;
        w.crash_vmm(sled, vmm);
        w.automatic();
        w.until("it is down", |w| !w.run_state(id).is_transitional()).await?;
        w.meanwhile(Duration::from_hours(2)).await;
        w.must(attempts(w, id).is_empty(), "what was asked to stop is not restarted")?;
        w.start(id).await?;
        w.until_state(id, RunState::Running).await?;
        crash_and_return(w, id).await?;
        w.must(attempts(w, id).len() == 1, "a later failure is")?;
        w.settle().await
    }
    .boxed_local()
}

/// 0: a healthy run; 1: a start that nobody remembers after a death.
fn t09(w: &mut World) -> Play<'_> {
    async move {
        if w.variant == 0 {
            let id = w.create_running("web").await?;
            let pair = w.migrate(id).await?;
            w.automatic();
            w.until("it has moved", |w| w.state(id).active == Some(pair.target)).await?;
            for _ in 0..20 {
                w.control.activate_timer(TimerName::InstanceUpdater);
                w.control.activate_timer(TimerName::StuckSaga);
                w.meanwhile(Duration::from_secs(30)).await;
            }
            w.stop(id).await?;
            w.until_state(id, RunState::Stopped).await?;
            w.settle().await?;
            let all = found(w, TimerName::InstanceUpdater) + found(w, TimerName::StuckSaga);
            return w.must(all == 0, &format!("they find nothing: {all}"));
        }
        let id = w.create(spec(w.project, "web"), false).await?;
        w.manual();
        w.answer("register", sled_protocol::SledError::Timeout, usize::MAX);
        w.start(id).await?;
        let (sled, _) = w.active(id).expect("it starts");
        w.cut(sled);
        w.crash_and_forget().await;
        w.until("its saga ends", |w| w.state(id).saga.is_none()).await?;
        let state = w.state(id);
        let late = state.head.time.since(state.time_created).micros() / 1_000_000;
        w.must(late <= 120 + 30 + 1, &format!("within a period of its deadline, after {late} s"))?;
        w.settle().await
    }
    .boxed_local()
}

fn on(w: &World, sled: SledId) -> usize {
    w.book().instances.values().filter(|state| state.active_vmm().is_some_and(|vmm| vmm.sled == sled)).count()
}

/// 0: everything moves, and a death in the middle changes nothing; 1: there is no room elsewhere.
fn t10(w: &mut World) -> Play<'_> {
    async move {
        let count = if w.variant == 0 { 6 } else { 12 };
        for n in 0..count {
            w.create_running(&format!("web-{n}")).await?;
        }
        let sled = w.hosts[0].id;
        let here = on(w, sled);
        w.must(here > 0, "something is there to move")?;
        let drain = SledCommand::Drain("maintenance".to_owned());
        w.must(w.control.ask_sled(sled, drain, context()).await.is_ok(), "it drains")?;
        if w.variant == 0 {
            w.until("one has moved", |w| on(w, sled) < here).await?;
            w.crash().await;
            w.until("the drain is over", |w| w.book().sleds[&sled].draining.is_none()).await?;
            w.settle().await?;
            w.must(on(w, sled) == 0, "nothing is left there")?;
            return w.must(
                w.book().instances.values().all(|state| state.run_state() == RunState::Running),
                "all run",
            );
        }
        w.meanwhile(Duration::from_mins(5)).await;
        let sleds = w.control.sleds().await;
        let drain = sleds
            .into_iter()
            .flatten()
            .find(|(load, _)| load.id == sled)
            .and_then(|(_, status)| status?.drain);
        let blocked = drain.map(|drain| drain.blocked).unwrap_or_default();
        let is_said = blocked.iter().any(|(_, why)| why.contains("capacity"));
        w.must(is_said, &format!("it says why it cannot go on: {blocked:?}"))?;
        w.must(on(w, sled) == here, "and nothing is lost")?;
        let uncordon = SledCommand::Uncordon("later".to_owned());
        w.must(w.control.ask_sled(sled, uncordon, context()).await.is_ok(), "it is called off")?;
        w.settle().await
    }
    .boxed_local()
}
