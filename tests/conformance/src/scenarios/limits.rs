//! What instances share: capacity, quotas, names, and that each is granted once.

use crate::stage::{Diverged, Play, Unanswered, World, context, spec};
use actors::CommandError;
use actors::instance::Ask;
use actors::projects::ProjectAsk;
use futures::FutureExt;
use lifecycle::{InstanceId, Quota, QuotaScope, Rejected, RunState, Shortage};

/// What is short: 0: room on the sleds, 1: the project's quota, 2: the silo's, 3: the fleet's.
pub(super) fn s07(w: &mut World) -> Play<'_> {
    async move {
        let quota = Quota { cpus: Some(3), memory: None };
        let expected = match w.variant {
            0 => None,
            1 => {
                let ask = ProjectAsk::SetQuota { quota };
                let set = w.control.ask_project(Some(w.project), ask, context()).await;
                w.must(set.is_ok(), "the project's quota is set")?;
                Some(QuotaScope::Project)
            }
            n => {
                let scope = if n == 2 { QuotaScope::Silo } else { QuotaScope::Fleet };
                let set = w.control.set_quota(scope, quota, context()).await;
                w.must(set.is_ok(), "the quota is set")?;
                Some(scope)
            }
        };
        let running = if expected.is_some() { 1 } else { 12 };
        for n in 0..running {
            w.create_running(&format!("full-{n}")).await?;
        }
        let id = w.create(spec(w.project, "more"), false).await?;
        let (position, state) = w.now(id);
        let refused = w.ask(id, Ask::Start).await;
        let is_said = match (&refused, expected) {
            (Err(CommandError::Rejected(Rejected::Short(Shortage::Room { .. }))), None) => true,
            (Err(CommandError::Rejected(Rejected::Short(Shortage::Quota { scope, .. }))), Some(expected)) => {
                *scope == expected
            }
            _ => false,
        };
        w.must(is_said, &format!("507 says which: {refused:?}"))?;
        w.must(w.now(id) == (position, state), "nothing is left")?;
        w.settle().await?;
        w.must(w.run_state(id) == RunState::Stopped, "it is as it was")
    }
    .boxed_local()
}

/// 0: two creates of one name, 1: two starts for the last room, 2: a project's end against a create, 3: an
/// actor dies between grant and append, 4: between append and answer.
pub(super) fn s23(w: &mut World) -> Play<'_> {
    match w.variant {
        0 => two_creates(w),
        1 => two_starts(w),
        2 => project_end(w),
        3 => actor_death(w, Unanswered::NotWritten),
        _ => actor_death(w, Unanswered::Written),
    }
}

fn two_creates(w: &mut World) -> Play<'_> {
    async move {
        let control = w.control.clone();
        let new = || actors::NewInstance { spec: spec(w.project, "web"), start: true };
        let (one, other) = futures::join!(
            control.create_instance(new(), context()),
            control.create_instance(new(), context())
        );
        w.must(one.is_ok() != other.is_ok(), "one wins")?;
        w.settle().await?;
        w.must(w.book().instances.len() == 1, "and nothing is left of the other")
    }
    .boxed_local()
}

fn two_starts(w: &mut World) -> Play<'_> {
    async move {
        for n in 0..11 {
            w.create_running(&format!("full-{n}")).await?;
        }
        let one = w.create(spec(w.project, "one"), false).await?;
        let other = w.create(spec(w.project, "other"), false).await?;
        let control = w.control.clone();
        let (first, second) = futures::join!(
            control.ask(one, Ask::Start, context()),
            control.ask(other, Ask::Start, context())
        );
        w.must(first.is_ok() != second.is_ok(), "one wins")?;
        w.settle().await?;
        let ran = [one, other].into_iter().filter(|id| w.run_state(*id) == RunState::Running).count();
        w.must(ran == 1, "the other is stopped, and holds nothing")
    }
    .boxed_local()
}

fn project_end(w: &mut World) -> Play<'_> {
    async move {
        let control = w.control.clone();
        let new = actors::NewInstance { spec: spec(w.project, "web"), start: false };
        let (created, ended) = futures::join!(
            control.create_instance(new, context()),
            control.ask_project(Some(w.project), ProjectAsk::Delete, context())
        );
        w.must(created.is_ok() != ended.is_ok(), &format!("one wins: {created:?}, {ended:?}"))?;
        w.settle().await?;
        w.must(w.book().instances.len() == usize::from(created.is_ok()), "no instance without a project")
    }
    .boxed_local()
}

fn actor_death(w: &mut World, outcome: Unanswered) -> Play<'_> {
    async move {
        for n in 0..11 {
            w.create_running(&format!("full-{n}")).await?;
        }
        let one = w.create(spec(w.project, "one"), false).await?;
        let other = w.create(spec(w.project, "other"), false).await?;
        w.plan().lose_next_append(outcome);
        let lost = w.ask(one, Ask::Start).await;
        w.must(matches!(lost, Err(CommandError::Unknown(_))), &format!("nobody knows: {lost:?}"))?;
        let is_written = outcome == Unanswered::Written;
        let (lucky, unlucky): (InstanceId, InstanceId) = if is_written { (one, other) } else { (other, one) };
        if !is_written {
            w.until("its successor has read that nothing was written", |_| true).await?;
            take_the_room(w, other).await?;
        }
        w.until_state(lucky, RunState::Running).await?;
        let refused = w.ask(unlucky, Ask::Start).await;
        let is_short = matches!(refused, Err(CommandError::Rejected(Rejected::Short(_))));
        w.must(is_short, &format!("there is no room for both: {refused:?}"))?;
        w.settle().await
    }
    .boxed_local()
}

/// The dead actor's grant is free once its successor has read the stream; until then the room is taken.
async fn take_the_room(w: &mut World, id: InstanceId) -> Result<(), Diverged> {
    for _ in 0..100 {
        if w.ask(id, Ask::Start).await.is_ok() {
            return Ok(());
        }
        w.meanwhile(std::time::Duration::from_millis(200)).await;
    }
    Err(Diverged("the grant of a dead actor was never taken back".to_owned()))
}
