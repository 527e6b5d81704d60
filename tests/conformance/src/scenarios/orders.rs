//! Orders and lives: stops that are not heard or not obeyed, creations, deletions, and what comes late.

use super::saga::{is_start, restartable, stopped};
use crate::stage::{Play, World, spec};
use actors::CommandError;
use actors::instance::Ask;
use futures::FutureExt;
use lifecycle::instance::TroubleCause;
use lifecycle::{InstanceEvent, Intent, RunState};
use std::time::Duration;

pub(super) fn s14(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create_running("web").await?;
        let (sled, vmm) = w.active(id).expect("it runs");
        w.ignore_stop(sled, vmm);
        w.arm();
        w.stop(id).await?;
        w.until_state(id, RunState::Stopping).await?;
        w.meanwhile(Duration::from_mins(5)).await;
        w.must(w.run_state(id) == RunState::Stopping, "the guest does not go by itself")?;
        w.grace_is_over(sled, vmm);
        w.until_state(id, RunState::Stopped).await?;
        w.settle().await
    }
    .boxed_local()
}

pub(super) fn s15(w: &mut World) -> Play<'_> {
    async move {
        let old = w.create_running("web").await?;
        w.stop(old).await?;
        w.until_state(old, RunState::Stopped).await?;
        w.want(old, &Ask::Delete, |state| state.deleted.is_some()).await?;
        let new = w.create_running("web").await?;
        w.must(new != old, "it is another instance")?;
        let before = w.state(new);
        let (said, intake) = (w.sent(), w.control.intake());
        for (sled, vmm, state) in said.iter().rev() {
            let (sled, vmm) = (
                sled_protocol::SledId::from_uuid(sled.uuid()),
                sled_protocol::PropolisId::from_uuid(vmm.uuid()),
            );
            // The log may have forgotten the VMM altogether: then the sled hears that nobody knows it.
            let taken = intake.report(sled, vmm, state.clone()).await;
            let is_final = taken.as_ref().err().is_none_or(sled_protocol::ControlPlaneError::is_definite);
            w.must(is_final, &format!("a late report is taken, or refused for good: {taken:?}"))?;
        }
        w.settle().await?;
        w.must(w.state(new) == before, "the new instance is unaffected")?;
        w.must(w.state(old).deleted.is_some(), "the old one stays deleted")
    }
    .boxed_local()
}

pub(super) fn s16(w: &mut World) -> Play<'_> {
    async move {
        let mut bad = spec(w.project, "web");
        bad.size.ncpus = 0;
        let before = w.book().position;
        let refused = w.try_create(bad, true).await;
        w.must(matches!(refused, Err(CommandError::Rejected(_))), "a bad one is refused")?;
        w.must(w.book().position == before, "and leaves nothing")?;
        w.arm();
        let id = w.create(spec(w.project, "web"), true).await?;
        w.until("what was created stays", |w| !w.run_state(id).is_transitional()).await?;
        w.settle().await?;
        let found = w.book().ledger.instance_by_name(w.project, "web");
        w.must(found == Some(id), "its name leads to it")?;
        w.must(w.book().instances.len() == 1, "there is one of it")
    }
    .boxed_local()
}

pub(super) fn s17(w: &mut World) -> Play<'_> {
    async move {
        w.arm();
        let id = w.create(spec(w.project, "web"), true).await?;
        w.until_state(id, RunState::Running).await?;
        w.settle().await?;
        let starts = w.book().events_of(id).filter(|event| is_start(event)).count();
        w.must(starts == 1, "its start is resumed, not repeated")
    }
    .boxed_local()
}

pub(super) fn s18(w: &mut World) -> Play<'_> {
    async move {
        let id = restartable(w).await?;
        w.start(id).await?;
        w.until_state(id, RunState::Running).await?;
        let (sled, vmm) = w.active(id).expect("it runs");
        w.forget_vmm(sled, vmm);
        let answer = w.ask(id, Ask::Stop).await;
        w.must(matches!(answer, Err(CommandError::VmmMissing)), &format!("503 says so: {answer:?}"))?;
        w.until("it has failed", |w| w.run_state(id) == RunState::Failed).await?;
        let cause = w.state(id).failed.map(|trouble| trouble.cause);
        let expected = TroubleCause::VmmFailed { vmm, reason: lifecycle::FailureReason::NoSuchVmm };
        w.must(cause == Some(expected), "failed{no_such_vmm}")?;
        w.meanwhile(Duration::from_hours(2)).await;
        w.settle().await?;
        w.must(w.run_state(id) == RunState::Failed, "it is not restarted: the user asked to stop")
    }
    .boxed_local()
}

/// How the sled fails to answer a stop: 0: 500, 1: timeout, 2: transport, 3: transport, and a start in between.
pub(super) fn s19(w: &mut World) -> Play<'_> {
    async move {
        use actors::answer::SledFailure;
        let id = w.create_running("web").await?;
        let (error, failure) = match w.variant {
            0 => {
                let error = sled_protocol::SledError::ServerError { status: 500, message: "ouch".to_owned() };
                (error, SledFailure::Server)
            }
            1 => (sled_protocol::SledError::Timeout, SledFailure::Timeout),
            _ => (sled_protocol::SledError::Transport("cut".to_owned()), SledFailure::Transport),
        };
        w.answer("stop", error, 3);
        let answer = w.ask(id, Ask::Stop).await;
        let is_so =
            matches!(&answer, Err(CommandError::NotConfirmed { failure: said, .. }) if *said == failure);
        w.must(is_so, &format!("recorded, not confirmed: {answer:?}"))?;
        let state = w.state(id);
        w.must(state.run_state() == RunState::Running, "the state is unchanged")?;
        w.must(state.intent == Intent::Stopped, "the intent is kept")?;
        if w.variant == 3 {
            w.start(id).await?;
            w.meanwhile(Duration::from_mins(3)).await;
            w.settle().await?;
            return w.must(w.run_state(id) == RunState::Running, "a start in between supersedes it");
        }
        w.until_state(id, RunState::Stopped).await?;
        w.settle().await?;
        w.must(!w.book().seen[&id].contains(&RunState::Failed), "it never failed")
    }
    .boxed_local()
}

/// 0: the 404 arrives after the report of the end; 1: the report comes twice more, after the 404.
pub(super) fn s20(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create_running("web").await?;
        w.answer_when_forgotten("stop");
        w.stop(id).await?;
        w.until_state(id, RunState::Stopped).await?;
        if w.variant == 1 {
            let (said, intake) = (w.sent(), w.control.intake());
            for (sled, vmm, state) in said.iter().rev().take(2) {
                let sled = sled_protocol::SledId::from_uuid(sled.uuid());
                let vmm = sled_protocol::PropolisId::from_uuid(vmm.uuid());
                w.must(intake.report(sled, vmm, state.clone()).await.is_ok(), "taken")?;
            }
        }
        w.settle().await?;
        w.must(!w.book().seen[&id].contains(&RunState::Failed), "stopped, never failed")?;
        w.must(w.state(id).vmms.is_empty(), "and gone")
    }
    .boxed_local()
}

/// 0: inventories are asked for while a register is on its way; 1: the log holds dead what a sled lists.
pub(super) fn s22(w: &mut World) -> Play<'_> {
    async move {
        if w.variant == 0 {
            let id = stopped(w).await?;
            w.answer("register", sled_protocol::SledError::Timeout, 5);
            w.start(id).await?;
            for _ in 0..20 {
                w.control.activate_timer(actors::TimerName::SledWatch);
                w.meanwhile(Duration::from_millis(200)).await;
            }
            w.until_state(id, RunState::Running).await?;
            w.settle().await?;
            let starts = w.book().events_of(id).filter(|event| is_start(event)).count();
            w.must(starts == 1, "what is on its way is not missing")
        } else {
            let id = w.create_running("web").await?;
            let (sled, vmm) = w.active(id).expect("it runs");
            w.cut(sled);
            let ask = Ask::ForceStop { assert_dead: true, reason: "the operator errs".to_owned() };
            w.want(id, &ask, |state| state.active.is_none()).await?;
            w.until("the log holds it dead", |w| w.state(id).vmms.is_empty()).await?;
            let asserted = |event: &InstanceEvent| {
                matches!(event, InstanceEvent::ForceStopRequested { assert_dead: true, .. })
            };
            w.must(w.book().events_of(id).any(asserted), "that it was asserted is journaled")?;
            w.must(w.on_sled(sled, vmm, |_| ()).is_some(), "the sled does not know")?;
            w.mend(sled);
            w.until("it is unregistered", |w| w.on_sled(sled, vmm, |_| ()).is_none()).await?;
            w.settle().await
        }
    }
    .boxed_local()
}
