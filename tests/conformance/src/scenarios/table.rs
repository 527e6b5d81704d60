//! Every action in every visible state: the table of `docs/lifecycle.md`, cell by cell, and the operator's
//! override in each of them.

use crate::stage::{Diverged, Phase, Play, World, spec};
use actors::CommandError;
use actors::instance::Ask;
use futures::FutureExt;
use lifecycle::{Instance, InstanceEvent, InstanceId, Intent, Rejected, RunState, Step};

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    /// 202 or 204, and something is written.
    Do,
    /// 202, and nothing is written.
    NoOp,
    /// 400.
    Invalid,
    /// 409.
    Conflict,
    /// 404.
    NotFound,
}

use Cell::{Conflict, Do, Invalid, NoOp, NotFound};

/// State, then start, stop, reboot, delete, migrate.
const TABLE: [(RunState, [Cell; 5]); 8] = [
    (RunState::Starting, [NoOp, Do, Do, Invalid, Invalid]),
    (RunState::Running, [NoOp, Do, Do, Invalid, Do]),
    (RunState::Rebooting, [NoOp, Do, NoOp, Invalid, Invalid]),
    (RunState::Migrating, [NoOp, Do, Do, Invalid, Conflict]),
    (RunState::Stopping, [Conflict, NoOp, Invalid, Invalid, Invalid]),
    (RunState::Stopped, [Do, NoOp, Invalid, Do, Invalid]),
    (RunState::Failed, [Do, Do, Invalid, Do, Invalid]),
    (RunState::Destroyed, [NotFound; 5]),
];

fn actions() -> [Ask; 5] {
    [Ask::Start, Ask::Stop, Ask::Reboot, Ask::Delete, Ask::Migrate { to: None }]
}

/// An instance of the name in the state, with sleds that do nothing by themselves.
async fn bring(w: &mut World, name: &str, state: RunState) -> Result<InstanceId, Diverged> {
    w.automatic();
    let id = w.create(spec(w.project, name), false).await?;
    let runs_first = !matches!(state, RunState::Stopped | RunState::Starting);
    if runs_first {
        w.start(id).await?;
        w.until_state(id, RunState::Running).await?;
    }
    w.manual();
    match state {
        RunState::Starting => w.start(id).await?,
        RunState::Rebooting => w.want(id, &Ask::Reboot, |_| false).await?,
        RunState::Migrating => {
            let pair = w.migrate(id).await?;
            w.drive(pair, Phase::InProgress).await?;
        }
        RunState::Stopping | RunState::Destroyed => w.stop(id).await?,
        RunState::Failed => {
            let (sled, vmm) = w.active(id).expect("it runs");
            w.crash_vmm(sled, vmm);
        }
        _ => {}
    }
    if state == RunState::Destroyed {
        w.automatic();
        w.until_state(id, RunState::Stopped).await?;
        w.want(id, &Ask::Delete, |state| state.deleted.is_some()).await?;
    }
    w.until_state(id, state).await?;
    w.meanwhile(std::time::Duration::from_millis(300)).await;
    Ok(id)
}

/// The row of this variant, each cell on an instance of its own.
pub(super) fn s12(w: &mut World) -> Play<'_> {
    async move {
        let (state, cells) = TABLE[w.variant];
        for (n, (ask, cell)) in actions().into_iter().zip(cells).enumerate() {
            let id = bring(w, &format!("web-{n}"), state).await?;
            let before = w.state(id);
            let answer = w.ask(id, ask.clone()).await;
            judge(w, &before, cell, &answer.map(drop))
                .map_err(|Diverged(what)| Diverged(format!("{ask:?} of what is {state}: {what}")))?;
            w.automatic();
            end(w, id).await?;
        }
        Ok(())
    }
    .boxed_local()
}

fn judge(
    w: &World,
    before: &Instance,
    cell: Cell,
    answer: &Result<(), CommandError>,
) -> Result<(), Diverged> {
    let after = w.state(before.id);
    let is_told = match (cell, answer) {
        (Do | NoOp, Ok(())) => true,
        (Invalid, Err(CommandError::Rejected(Rejected::NotPossible { is_conflict, .. }))) => !is_conflict,
        (Conflict, Err(CommandError::Rejected(Rejected::NotPossible { is_conflict, .. }))) => *is_conflict,
        (NotFound, Err(CommandError::Rejected(Rejected::NoSuchInstance(_)))) => true,
        _ => false,
    };
    w.must(is_told, &format!("{cell:?} was answered {answer:?}"))?;
    if cell == Do {
        return w.must(after.head.version > before.head.version, "it is written");
    }
    w.must(after.intent == before.intent && after.network == before.network, "it leaves no trace")?;
    let moved = after.time_run_state_updated != before.time_run_state_updated;
    w.must(!moved, "the time of the visible state stays")?;
    w.must(after.head == before.head, "nothing is written")
}

/// Ends the instance, so that the next has room.
async fn end(w: &mut World, id: InstanceId) -> Result<(), Diverged> {
    if w.state(id).deleted.is_none() {
        let ask = Ask::ForceStop { assert_dead: false, reason: "the next cell".to_owned() };
        w.want(id, &ask, |_| false).await?;
        w.until("it is down", |w| matches!(w.run_state(id), RunState::Stopped | RunState::Failed)).await?;
        w.want(id, &Ask::Delete, |state| state.deleted.is_some()).await?;
    }
    w.until("it holds nothing", |w| w.state(id).vmms.is_empty()).await
}

const FORCED: [RunState; 6] = [
    RunState::Starting,
    RunState::Running,
    RunState::Rebooting,
    RunState::Migrating,
    RunState::Stopping,
    RunState::Failed,
];

/// In each state, the first half with its sleds in reach, the second without.
pub(super) fn s21(w: &mut World) -> Play<'_> {
    async move {
        let (state, is_cut) = (FORCED[w.variant % 6], w.variant >= 6);
        let id = bring(w, "web", state).await?;
        let before = w.state(id);
        let sleds: Vec<_> = before.vmms.values().map(|vmm| vmm.sled).collect();
        if is_cut {
            for sled in &sleds {
                w.cut(*sled);
            }
        }
        let ask = Ask::ForceStop { assert_dead: false, reason: "it hangs".to_owned() };
        w.want(id, &ask, |state| state.intent == Intent::Stopped).await?;
        if state == RunState::Failed {
            w.must(w.state(id).head == before.head, "what has failed is left alone")?;
        } else {
            let asked = |event: &InstanceEvent| matches!(event, InstanceEvent::ForceStopRequested { .. });
            w.must(w.book().events_of(id).any(asked), "it is journaled")?;
        }
        w.until("it is down", |w| matches!(w.run_state(id), RunState::Stopped | RunState::Failed)).await?;
        w.start(id).await?;
        if is_cut && before.vmms.values().any(lifecycle::Vmm::may_run) {
            w.meanwhile(std::time::Duration::from_secs(30)).await;
            let waits = w.state(id).saga.as_ref().is_some_and(|saga| saga.step == Step::Fence);
            w.must(waits, "a start right after it waits at the fence")?;
            for sled in &sleds {
                w.mend(*sled);
            }
        }
        w.automatic();
        w.until_state(id, RunState::Running).await?;
        w.settle().await?;
        w.must(w.guests_of(id) == 1 && w.state(id).vmms.len() == 1, "one VMM is left")
    }
    .boxed_local()
}
