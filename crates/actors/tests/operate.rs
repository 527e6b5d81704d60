//! What operators and policies do, through the real actors: migrate, drain, expunge, force-stop, quotas,
//! groups, restarts, reapers.

mod fleet;

use actors::projects::ProjectAsk;
use actors::timers::{Census, TimerName};
use actors::{CommandError, instance::Ask};
use fleet::{Fleet, context, spec};
use lifecycle::project::GroupCommand;
use lifecycle::sled::SledCommand;
use lifecycle::{
    GroupId, GroupPolicy, Instance, InstanceEvent, InstanceId, Quota, QuotaScope, Rejected, RunState,
    Shortage, SledId, evolve,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

fn why() -> String {
    "the test wants it so".to_owned()
}

impl Fleet {
    async fn sled_of(&self, id: InstanceId) -> SledId {
        self.state(id).await.active_vmm().expect("it has an active VMM").sled
    }

    async fn running(&self, name: &str) -> InstanceId {
        let id = self.create(name, true).await;
        self.until_state(id, RunState::Running).await;
        id
    }

    async fn held_on(&self, sled: SledId) -> u32 {
        let sleds = self.control.sleds().await.expect("the ledger answers");
        sleds.iter().find(|(load, _)| load.id == sled).expect("it registered").0.held.threads
    }
}

/// Folds of the log, as a read model would have them.
struct Folds(Arc<eventlog::SimLog>);

impl Census for Folds {
    fn find(&self, wanted: &dyn Fn(&Instance) -> bool) -> Vec<InstanceId> {
        use eventlog::Log as _;
        let mut folds: BTreeMap<InstanceId, Option<Instance>> = BTreeMap::new();
        for record in self.0.read_all(eventlog::Position::new(1), 1_000_000).expect("the log can be read") {
            let recorded = journal::read(&record).expect("it is understood");
            if let (journal::StreamName::Instance(id), journal::Event::Instance(event)) =
                (recorded.stream, &recorded.event)
            {
                evolve(folds.entry(id).or_default(), event, recorded.meta);
            }
        }
        folds.into_iter().filter(|(_, fold)| fold.as_ref().is_some_and(wanted)).map(|(id, _)| id).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_migration_moves_the_guest_and_frees_the_source() {
    let fleet = Fleet::with_sleds(2).await;
    let id = fleet.running("web-1").await;
    let source = fleet.sled_of(id).await;
    let accepted = fleet.control.ask(id, Ask::Migrate { to: None }, context()).await.unwrap();
    assert_eq!(accepted.instance.run_state(), RunState::Migrating);
    fleet.until_state(id, RunState::Running).await;
    assert_ne!(fleet.sled_of(id).await, source);
    fleet.until("the source is free", async || fleet.held_on(source).await == 0).await;
    assert_eq!(fleet.state(id).await.vmms.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_migration_to_nowhere_is_refused_with_the_reason_and_leaves_nothing() {
    let fleet = Fleet::with_sleds(1).await;
    let id = fleet.running("web-1").await;
    let (before, here) = (fleet.events().len(), fleet.sled_of(id).await);
    for (to, short) in [
        (None, Shortage::NoOtherSled),
        (Some(here), Shortage::ThatSled { why: lifecycle::rejected::SledUnfit::IsSource }),
        (
            Some(SledId::new(Uuid::from_u128(5))),
            Shortage::ThatSled { why: lifecycle::rejected::SledUnfit::Unknown },
        ),
    ] {
        let refused = fleet.control.ask(id, Ask::Migrate { to }, context()).await.unwrap_err();
        assert!(matches!(refused, CommandError::Rejected(Rejected::Short(s)) if s == short), "{to:?}");
    }
    assert_eq!(fleet.events().len(), before);
}

#[tokio::test(start_paused = true)]
async fn t10_a_drain_moves_every_guest_and_says_what_it_cannot_move() {
    let fleet = Fleet::with_sleds(2).await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(fleet.running(&format!("web-{n}")).await);
    }
    let sled = fleet.sled_of(ids[0]).await;
    let (after, _) = fleet.control.ask_sled(sled, SledCommand::Drain(why()), context()).await.unwrap();
    assert!(!after.provisionable && after.draining.is_some());
    fleet.until("the sled is empty", async || fleet.held_on(sled).await == 0).await;
    let is_over = |event: &journal::Event| {
        matches!(event, journal::Event::Sled(lifecycle::SledEvent::DrainEnded { done: true }))
    };
    fleet.until("the drain is over", async || fleet.events().iter().any(|e| is_over(&e.event))).await;
    for id in &ids {
        assert_eq!(fleet.state(*id).await.run_state(), RunState::Running);
    }
    // The other way there is no room for all: 4 guests of 2 threads fill the 8 of a sled.
    let other = fleet.sled_of(ids[0]).await;
    fleet.control.ask_sled(sled, SledCommand::Uncordon(why()), context()).await.unwrap();
    let filler = fleet.running("filler").await;
    assert_eq!(fleet.sled_of(filler).await, sled);
    fleet.control.ask_sled(other, SledCommand::Drain(why()), context()).await.unwrap();
    fleet
        .until("one guest cannot move, and says why", async || {
            let sleds = fleet.control.sleds().await.unwrap();
            let status = sleds.into_iter().find(|(load, _)| load.id == other).unwrap().1.unwrap();
            status.drain.is_some_and(|drain| {
                drain.blocked.len() == 1 && drain.blocked[0].1.contains("insufficient capacity")
            })
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn t06_an_expunged_sled_loses_its_guests_at_once_and_they_restart_elsewhere() {
    let fleet = Fleet::with_sleds(2).await;
    let id = fleet.running("web-1").await;
    let sled = fleet.sled_of(id).await;
    fleet.control.ask_sled(sled, SledCommand::Expunge(why()), context()).await.unwrap();
    fleet
        .until("it runs elsewhere", async || {
            let state = fleet.state(id).await;
            state.run_state() == RunState::Running && state.active_vmm().is_some_and(|vmm| vmm.sled != sled)
        })
        .await;
    let failed = fleet.events().into_iter().any(|recorded| {
        matches!(
            recorded.event,
            journal::Event::Instance(InstanceEvent::VmmFailed {
                reason: lifecycle::FailureReason::SledExpunged,
                ..
            })
        )
    });
    assert!(failed);
    let again = fleet.control.ask_sled(sled, SledCommand::Cordon(why()), context()).await;
    assert!(matches!(again, Err(CommandError::Rejected(Rejected::SledNotPossible { .. }))));
}

#[tokio::test(start_paused = true)]
async fn s21_a_forced_stop_fails_the_vmm_and_the_next_start_waits_for_its_end() {
    let fleet = Fleet::with_sleds(1).await;
    let id = fleet.running("web-1").await;
    let ask = Ask::ForceStop { assert_dead: false, reason: why() };
    let accepted = fleet.control.ask(id, ask, context()).await.unwrap();
    assert_eq!(accepted.instance.run_state(), RunState::Failed);
    fleet.control.ask(id, Ask::Start, context()).await.unwrap();
    fleet.until_state(id, RunState::Running).await;
    assert_eq!(fleet.held_on(fleet.sled_of(id).await).await, 2, "the old VMM's room is free");
}

#[tokio::test(start_paused = true)]
async fn s07_a_quota_refuses_what_exceeds_it_and_names_itself() {
    let fleet = Fleet::with_sleds(2).await;
    let first = fleet.running("web-1").await;
    let second = fleet.create("web-2", false).await;
    let quota = Quota { cpus: Some(3), memory: None };
    let refusal = async |scope: QuotaScope| {
        let refused = fleet.control.ask(second, Ask::Start, context()).await.unwrap_err();
        let CommandError::Rejected(Rejected::Short(Shortage::Quota {
            scope: named,
            limit,
            used,
            wanted,
            ..
        })) = refused
        else {
            panic!("{refused}");
        };
        assert_eq!((named, limit, used, wanted), (scope, 3, 2, 2));
    };
    let set = ProjectAsk::SetQuota { quota };
    fleet.control.ask_project(Some(fleet.project), set, context()).await.unwrap();
    refusal(QuotaScope::Project).await;
    let none = ProjectAsk::SetQuota { quota: Quota::default() };
    fleet.control.ask_project(Some(fleet.project), none, context()).await.unwrap();
    for scope in [QuotaScope::Silo, QuotaScope::Fleet] {
        fleet.control.set_quota(scope, quota, context()).await.unwrap();
        refusal(scope).await;
        fleet.control.set_quota(scope, Quota::default(), context()).await.unwrap();
    }
    // Stopping releases what the quota counts.
    fleet.control.set_quota(QuotaScope::Fleet, quota, context()).await.unwrap();
    fleet.control.ask(first, Ask::Stop, context()).await.unwrap();
    fleet.until_state(first, RunState::Stopped).await;
    fleet.control.ask(second, Ask::Start, context()).await.unwrap();
    fleet.until_state(second, RunState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn members_of_a_hard_group_are_kept_apart_or_refused_and_of_a_soft_one_if_possible() {
    let fleet = Fleet::with_sleds(2).await;
    for (n, policy) in [GroupPolicy::Fail, GroupPolicy::Allow].into_iter().enumerate() {
        let group = GroupId::new(Uuid::from_u128(0x6000 + n as u128));
        let (name, description) = (format!("spread-{n}"), String::new());
        let create = GroupCommand::Create { group, name, description, policy };
        fleet.control.ask_project(Some(fleet.project), ProjectAsk::Group(create), context()).await.unwrap();
        let mut members = Vec::new();
        for m in 0..3 {
            let instance = fleet.create(&format!("m-{n}-{m}"), false).await;
            let join = ProjectAsk::Group(GroupCommand::Join { group, instance });
            fleet.control.ask_project(Some(fleet.project), join, context()).await.unwrap();
            members.push(instance);
        }
        for id in &members[..2] {
            fleet.control.ask(*id, Ask::Start, context()).await.unwrap();
            fleet.until_state(*id, RunState::Running).await;
        }
        assert_ne!(fleet.sled_of(members[0]).await, fleet.sled_of(members[1]).await);
        let third = fleet.control.ask(members[2], Ask::Start, context()).await;
        match policy {
            GroupPolicy::Allow => drop(third.unwrap()),
            GroupPolicy::Fail => {
                let refused = third.unwrap_err();
                let short = Shortage::Spread { group: "spread-0".to_owned() };
                assert!(
                    matches!(&refused, CommandError::Rejected(Rejected::Short(s)) if *s == short),
                    "{refused}"
                );
            }
        }
        for id in members {
            fleet.control.ask(id, Ask::Stop, context()).await.unwrap();
            fleet.until_state(id, RunState::Stopped).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_again_and_again_is_restarted_ever_later() {
    let fleet = Fleet::with_sleds(1).await;
    let id = fleet.running("web-1").await;
    let crash = async || {
        let vmm = fleet.state(id).await.active.expect("it runs");
        let vmm = sled_protocol::PropolisId::from_uuid(vmm.uuid());
        fleet.sleds[0].with_machine(|machine, now| machine.guest_crash(now, vmm)).unwrap();
    };
    crash().await;
    fleet.until("restarted at once", async || fleet.state(id).await.restarts.attempts == 1).await;
    fleet.until_state(id, RunState::Running).await;
    crash().await;
    fleet.until_state(id, RunState::Failed).await;
    tokio::time::sleep(Duration::from_secs(280)).await;
    assert_eq!(fleet.state(id).await.run_state(), RunState::Failed, "the second attempt waits five minutes");
    fleet.until_state(id, RunState::Running).await;
    assert_eq!(fleet.state(id).await.restarts.attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_alone_leaves_memory_and_comes_back_when_it_is_asked() {
    let fleet = Fleet::with_sleds(1).await;
    fleet.control.start_timers(Arc::new(Folds(Arc::clone(&fleet.log))));
    let id = fleet.running("web-1").await;
    // Its sled's inventories would wake it; nobody asks for it otherwise.
    fleet.until("it has left", async || fleet.control.live_instances() == 0).await;
    assert_eq!(fleet.state(id).await.run_state(), RunState::Running);
    assert_eq!(fleet.control.live_instances(), 1);
}

#[tokio::test(start_paused = true)]
async fn t09_the_updater_and_the_stuck_saga_watch_find_nothing_in_a_healthy_run() {
    let fleet = Fleet::with_sleds(2).await;
    fleet.control.start_timers(Arc::new(Folds(Arc::clone(&fleet.log))));
    for n in 0..3 {
        let id = fleet.running(&format!("web-{n}")).await;
        fleet.control.ask(id, Ask::Stop, context()).await.unwrap();
        fleet.until_state(id, RunState::Stopped).await;
    }
    fleet.control.activate_timer(TimerName::SledWatch);
    fleet
        .until("every timer ran", async || {
            let ran = |timer: &actors::TimerStatus| {
                timer.runs > 0 || timer.name == TimerName::SledDrain || !timer.is_on
            };
            fleet.control.timers().iter().all(ran)
        })
        .await;
    for timer in fleet.control.timers() {
        if matches!(timer.name, TimerName::InstanceUpdater | TimerName::StuckSaga | TimerName::Reincarnation)
        {
            assert_eq!(timer.found, 0, "{timer:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn size_changes_while_stopped_and_counts_at_the_next_start() {
    let fleet = Fleet::with_sleds(1).await;
    let id = fleet.create("web-1", false).await;
    let mut change = spec(fleet.project, "web-1").changeable();
    change.size.ncpus = 4;
    let update = |change: &lifecycle::SpecChange| Ask::Update { change: Box::new(change.clone()) };
    fleet.control.ask(id, update(&change), context()).await.unwrap();
    fleet.control.ask(id, Ask::Start, context()).await.unwrap();
    fleet.until_state(id, RunState::Running).await;
    assert_eq!(fleet.held_on(fleet.sled_of(id).await).await, 4);
    change.size.ncpus = 2;
    let refused = fleet.control.ask(id, update(&change), context()).await.unwrap_err();
    assert!(matches!(refused, CommandError::Rejected(Rejected::MustBeStopped)), "{refused}");
}
