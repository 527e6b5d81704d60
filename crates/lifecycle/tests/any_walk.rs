//! Properties over arbitrary walks: whatever is asked, reported or answered, in whatever order, the
//! invariants hold after every append, nothing panics, and the same inputs give the same events.

mod stage;

use lifecycle::input::{EffectResult, Refusal, SideReport};
use lifecycle::migration::SideState;
use lifecycle::vmm::Evidence;
use lifecycle::{
    Command, DeadlineKind, Generation, Input, Instance, InstanceEvent, Ledger, Policy, VmmState, deadlines,
    invariant,
};
use proptest::prelude::*;
use stage::{Stage, report, sled};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

#[derive(Clone, Debug)]
enum Move {
    Start(usize),
    Stop,
    Reboot,
    Delete,
    Migrate(usize),
    CancelMigration,
    CancelSaga,
    PauseSaga,
    ResumeSaga,
    RetrySaga,
    StepFailed(u32),
    ForceStop { assert_dead: bool },
    Resize(u16),
    Restart,
    Report { vmm: usize, generation: u64, state: usize, side: Option<(u64, usize)> },
    Answer { effect: usize, answer: usize },
    Gone { vmm: usize, evidence: usize },
    Absent { vmm: usize, asked_at: u64 },
    Deadline,
    Reconsider,
}

fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        3 => (0..2usize).prop_map(Move::Start),
        2 => Just(Move::Stop),
        1 => Just(Move::Reboot),
        1 => Just(Move::Delete),
        3 => (0..3usize).prop_map(Move::Migrate),
        1 => Just(Move::CancelMigration),
        1 => Just(Move::CancelSaga),
        2 => Just(Move::PauseSaga),
        1 => Just(Move::ResumeSaga),
        1 => Just(Move::RetrySaga),
        1 => (1..5u32).prop_map(Move::StepFailed),
        1 => any::<bool>().prop_map(|assert_dead| Move::ForceStop { assert_dead }),
        1 => (1..5u16).prop_map(Move::Resize),
        1 => Just(Move::Restart),
        8 => (0..4usize, 1..12u64, 0..VmmState::ALL.len(), prop::option::of((1..6u64, 0..4usize)))
            .prop_map(|(vmm, generation, state, side)| Move::Report { vmm, generation, state, side }),
        6 => (0..3usize, 0..10usize).prop_map(|(effect, answer)| Move::Answer { effect, answer }),
        1 => (0..4usize, 0..7usize).prop_map(|(vmm, evidence)| Move::Gone { vmm, evidence }),
        1 => (0..4usize, 0..40u64).prop_map(|(vmm, asked_at)| Move::Absent { vmm, asked_at }),
        1 => Just(Move::Deadline),
        1 => Just(Move::Reconsider),
    ]
}

fn answer(n: usize) -> EffectResult {
    match n {
        0..3 => EffectResult::Done(None),
        3 => EffectResult::Done(Some(report(1, VmmState::Starting))),
        4 => EffectResult::Done(Some(report(9, VmmState::Stopping))),
        5 => EffectResult::Refused(Refusal::NoSuchVmm),
        6 => EffectResult::Refused(Refusal::NoRoom),
        7 => EffectResult::Refused(Refusal::StaleEpoch),
        8 => EffectResult::Refused(Refusal::NotPossible),
        _ => EffectResult::Refused(Refusal::Tombstoned),
    }
}

const EVIDENCE: [Evidence; 7] = [
    Evidence::Unregistered,
    Evidence::AbsentFromInventory,
    Evidence::SledRebooted,
    Evidence::SledExpunged,
    Evidence::LeaseExpired,
    Evidence::Asserted,
    Evidence::Unregistered,
];

const SIDES: [SideState; 4] =
    [SideState::Pending, SideState::InProgress, SideState::Completed, SideState::Failed];

fn under_way(stage: &Stage) -> Option<lifecycle::SagaId> {
    stage.state.as_ref().and_then(|state| state.saga.as_ref()).map(|saga| saga.id)
}

fn input(stage: &mut Stage, step: &Move) -> Option<Input> {
    let vmms: Vec<_> = stage
        .history
        .iter()
        .filter_map(|event| match event {
            InstanceEvent::StartBegan { vmm, sled, .. } | InstanceEvent::MigrateBegan { vmm, sled, .. } => {
                Some((*vmm, *sled))
            }
            _ => None,
        })
        .collect();
    let newest = |n: usize| vmms.iter().rev().nth(n % 4).copied();
    Some(match step {
        Move::Start(on) => {
            let grant = stage.grant(*on);
            Input::Command(Command::Start { grant: Some(grant) })
        }
        Move::Stop => Input::Command(Command::Stop { op: lifecycle::OpId::new(stage.mint()) }),
        Move::Reboot => Input::Command(Command::Reboot { op: lifecycle::OpId::new(stage.mint()) }),
        Move::Delete => Input::Command(Command::Delete),
        Move::Migrate(on) => {
            let grant = stage.migrate_grant(*on);
            Input::Command(Command::Migrate { grant: Some(grant) })
        }
        Move::CancelMigration => Input::Command(Command::CancelMigration),
        Move::CancelSaga => Input::Command(Command::CancelSaga { saga: under_way(stage)? }),
        Move::PauseSaga => Input::Command(Command::PauseSaga { saga: under_way(stage)? }),
        Move::ResumeSaga => Input::Command(Command::ResumeSaga { saga: under_way(stage)? }),
        Move::RetrySaga => Input::Command(Command::RetrySaga { saga: under_way(stage)? }),
        Move::StepFailed(failures) => {
            Input::StepFailed { effect: *stage.effects().first()?, failures: *failures }
        }
        Move::ForceStop { assert_dead } => {
            let reason = "the test wants it so".to_owned();
            Input::Command(Command::ForceStop { assert_dead: *assert_dead, reason })
        }
        Move::Resize(ncpus) => {
            let mut change = stage::spec().changeable();
            change.size.ncpus = *ncpus;
            Input::Command(Command::Update { change: Box::new(change) })
        }
        Move::Restart => Input::Restart(Ok(stage.grant(1))),
        Move::Report { vmm, generation, state, side } => {
            let (vmm, sled) = newest(*vmm)?;
            let mut said = report(*generation, VmmState::ALL[*state]);
            if let Some((generation, state)) = side {
                let migration = stage.state.as_ref()?.migrations.keys().last().copied()?;
                let state = SIDES[*state];
                let part = SideReport { migration, state, generation: Generation::new(*generation) };
                said.migration_in = Some(part);
                said.migration_out = Some(part);
            }
            Input::Report { sled, vmm, report: said }
        }
        Move::Answer { effect, answer: n } => {
            let effect = *stage.effects().get(*effect)?;
            Input::Outcome { effect, result: answer(*n) }
        }
        Move::Gone { vmm, evidence } => Input::Gone { vmm: newest(*vmm)?.0, evidence: EVIDENCE[*evidence] },
        Move::Absent { vmm, asked_at } => Input::Absent {
            vmm: newest(*vmm)?.0,
            asked_at: *asked_at,
            evidence: Evidence::AbsentFromInventory,
        },
        Move::Deadline => {
            let kind = stage
                .state
                .as_ref()
                .and_then(|state| deadlines(state, &Policy::default()).first().map(|d| d.kind));
            Input::Deadline(kind.unwrap_or(DeadlineKind::Saga(lifecycle::SagaId::new(stage.mint()))))
        }
        Move::Reconsider => Input::Reconsider,
    })
}

fn ledger_of(history: &[InstanceEvent]) -> Ledger {
    use lifecycle::{ProjectEvent, SledEvent};
    let mut ledger = Ledger::default();
    let (name, description) = ("demo".to_owned(), String::new());
    let project = stage::spec().project;
    ledger.apply_project(project, &ProjectEvent::Created { id: project, name, description, vni: 1024 });
    for n in 0..3 {
        let registered = SledEvent::Registered {
            id: sled(n),
            name: format!("sim-{n}"),
            threads: 64,
            memory: 256 << 30,
            cpu_family: "sim".to_owned(),
            address: String::new(),
        };
        ledger.apply_sled(sled(n), &registered);
    }
    let id = lifecycle::InstanceId::new(uuid::Uuid::from_u128(1));
    for event in history {
        ledger.apply_instance(id, event);
    }
    ledger
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_on_every_walk(starts in any::<bool>(), walk in prop::collection::vec(any_move(), 1..60)) {
        let policy = Policy { pause_after_failures: NonZeroU32::new(2), ..Policy::default() };
        let mut stage = Stage { policy, ..Stage::default() };
        stage.create(starts);
        for step in &walk {
            if let Some(input) = input(&mut stage, step) {
                // A refusal is fine; what it may not do is leave a trace.
                let before = stage.state.clone();
                if stage.give(input).is_err() {
                    prop_assert_eq!(&stage.state, &before);
                }
            }
        }
        let instance: Instance = stage.state.clone().unwrap();
        let instances = BTreeMap::from([(instance.id, instance)]);
        let checked = invariant::check_ledger(&ledger_of(&stage.history), &instances);
        prop_assert_eq!(checked, Ok(()));
    }

    #[test]
    fn the_same_inputs_give_the_same_history(walk in prop::collection::vec(any_move(), 1..40)) {
        let run = || {
            let mut stage = Stage::created();
            for step in &walk {
                if let Some(input) = input(&mut stage, step) {
                    let _ = stage.give(input);
                }
            }
            (stage.history, stage.state)
        };
        prop_assert_eq!(run(), run());
    }
}
