//! Whatever comes in whatever order: nothing panics, and the machine's invariants hold after every call.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngSeed, TestRunner};
use sim_sled::machine::{Mode, Output, PeerMessage, Question, Request, Response, Sled};
use sled_protocol::{
    LeaseEpoch, MigrationState, PropolisId, RequestedState, SledError, SledLease, SledVmmState, limits,
};
use support::{EPOCH, S, T, addr, body, boot, config, migration, op, register, set_op, target_of, vmm};

/// One thing that happens to one of two sleds; numbers are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
enum Act {
    Register { vmm: u128, instance: u128, target: bool, large: bool },
    Set { vmm: u128, op: u128, state: u8 },
    Unregister { vmm: u128 },
    StaleRegister { vmm: u128 },
    Deliver { message: usize, copies: u8 },
    Accept { report: usize },
    Refuse { report: usize },
    Step { vmm: u128 },
    Shutdown { vmm: u128 },
    Crash { vmm: u128 },
    IgnoreStop { vmm: u128 },
    FailMigration { vmm: u128 },
    FailAt { vmm: u128, question: u8 },
    Dirty { vmm: u128, per_mille: u32 },
    AgentRestart,
    Reboot,
    Pass { millis: u64 },
}

const VMMS: u128 = 5;

fn act() -> impl Strategy<Value = (bool, Act)> {
    let n = 1..=VMMS;
    let acts = prop_oneof![
        6 => (n.clone(), 1..=2_u128, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(vmm, instance, target, large)| Act::Register { vmm, instance, target, large }),
        16 => (n.clone(), 0..40_u128, 0..5_u8).prop_map(|(vmm, op, state)| Act::Set { vmm, op, state }),
        1 => n.clone().prop_map(|vmm| Act::Unregister { vmm }),
        1 => n.clone().prop_map(|vmm| Act::StaleRegister { vmm }),
        30 => (0..8_usize, prop_oneof![1 => Just(0_u8), 8 => Just(1), 2 => Just(2)]).prop_map(|(message, copies)| Act::Deliver { message, copies }),
        4 => (0..30_usize).prop_map(|report| Act::Accept { report }),
        1 => (0..30_usize).prop_map(|report| Act::Refuse { report }),
        12 => n.clone().prop_map(|vmm| Act::Step { vmm }),
        1 => n.clone().prop_map(|vmm| Act::Shutdown { vmm }),
        1 => n.clone().prop_map(|vmm| Act::Crash { vmm }),
        1 => n.clone().prop_map(|vmm| Act::IgnoreStop { vmm }),
        1 => n.clone().prop_map(|vmm| Act::FailMigration { vmm }),
        1 => (n.clone(), 0..4_u8).prop_map(|(vmm, question)| Act::FailAt { vmm, question }),
        1 => (n, 0..1200_u32).prop_map(|(vmm, per_mille)| Act::Dirty { vmm, per_mille }),
        1 => Just(Act::AgentRestart),
        1 => prop::bool::weighted(0.2).prop_map(|reboot| if reboot { Act::Reboot } else { Act::AgentRestart }),
        12 => (0..2000_u64).prop_map(|millis| Act::Pass { millis }),
    ];
    (any::<bool>(), acts)
}

/// Two sleds, the messages under way between them, and what has been seen.
#[derive(Clone, Debug, PartialEq)]
struct World {
    sleds: [Sled; 2],
    boots: u128,
    now: u64,
    wire: Vec<PeerMessage>,
    reports: Vec<(usize, PropolisId, SledVmmState)>,
    answers: Vec<Response>,
    seen: BTreeMap<(usize, u128, PropolisId), SledVmmState>,
}

impl World {
    /// VMM 1 runs on the first sled, and VMM 2 on the second is to fetch its guest: whether it does is drawn.
    fn new(mode: Mode) -> Self {
        let mut sleds = [S, T].map(|n| {
            let mut sled = Sled::new(config(n, mode), boot(n));
            sled.registered(
                0,
                0,
                boot(n),
                SledLease { lease_epoch: EPOCH, lease_seconds: None, store_id: None },
            );
            sled
        });
        sleds[0].handle(0, register(vmm(S), body(1, None))).unwrap();
        sleds[0].handle(0, set_op(vmm(S), op(100), RequestedState::Running)).unwrap();
        sleds[0].step(0, vmm(S));
        sleds[1].handle(0, register(vmm(T), body(1, Some(migration(T))))).unwrap();
        sleds[1].handle(0, set_op(vmm(T), op(101), target_of(vmm(S), S))).unwrap();
        Self {
            sleds,
            boots: 100,
            now: 0,
            wire: Vec::new(),
            reports: Vec::new(),
            answers: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    fn ask(&mut self, at: usize, request: Request) {
        let answer = self.sleds[at].handle(self.now, request);
        self.answers.push(answer);
    }

    fn run(&mut self, is_second: bool, act: Act) {
        let at = usize::from(is_second);
        let now = self.now;
        let sled = &mut self.sleds[at];
        match act {
            Act::Register { vmm: n, instance, target, large } => {
                let mut body = body(instance, target.then(|| migration(n)));
                if large {
                    body.resources.ncpus = 40;
                }
                self.ask(at, register(vmm(n), body));
            }
            Act::StaleRegister { vmm: n } => {
                let mut body = body(1, None);
                body.lease_epoch = LeaseEpoch::new(EPOCH.get() - 1);
                let answer = sled.handle(now, register(vmm(n), body));
                assert_eq!(answer, Err(SledError::StaleEpoch));
            }
            Act::Set { vmm: n, op: op_n, state } => {
                let other = T - at as u128;
                let state = match state {
                    0 => RequestedState::Running,
                    1 => RequestedState::Stopped,
                    2 => RequestedState::Reboot,
                    3 => target_of(vmm(1 + (n + op_n) % VMMS), other),
                    _ => RequestedState::MigrationCancel,
                };
                // Stops are rarer than they are drawn, or nothing would live long enough to migrate.
                if !matches!(state, RequestedState::Stopped) || op_n % 4 == 0 {
                    self.ask(at, set_op(vmm(n), op(op_n), state));
                }
            }
            Act::Unregister { vmm: n } => {
                self.ask(at, Request::Unregister { vmm: vmm(n), lease_epoch: EPOCH });
            }
            Act::Deliver { message, copies } => {
                if self.wire.is_empty() {
                    return;
                }
                let message = self.wire.remove(message % self.wire.len());
                let to = usize::from(message.to_addr == addr(T));
                for _ in 0..copies {
                    self.sleds[to].handle_peer(now, message.clone());
                }
                if copies == 2 {
                    self.wire.push(message);
                }
            }
            Act::Accept { report } | Act::Refuse { report } => {
                if self.reports.is_empty() {
                    return;
                }
                let (of, id, state) = self.reports[report % self.reports.len()].clone();
                if matches!(act, Act::Accept { .. }) {
                    self.sleds[of].report_accepted(now, id, &state);
                } else {
                    self.sleds[of].report_refused(now, id, &state);
                }
            }
            Act::Step { vmm: n } => {
                sled.step(now, vmm(n));
            }
            Act::Shutdown { vmm: n } => {
                sled.guest_shutdown(now, vmm(n));
            }
            Act::Crash { vmm: n } => {
                sled.guest_crash(now, vmm(n));
            }
            Act::IgnoreStop { vmm: n } => sled.guest_ignores_stop(vmm(n)),
            Act::FailMigration { vmm: n } => {
                sled.fail_migration(now, vmm(n));
            }
            Act::FailAt { vmm: n, question } => {
                let question = match question {
                    0 => Question::Begin,
                    1 => Question::Copy { round: 2 },
                    2 => Question::Pause,
                    _ => Question::Finish,
                };
                sled.fail_migration_at(vmm(n), question);
            }
            Act::Dirty { vmm: n, per_mille } => sled.set_dirty_rate(vmm(n), per_mille),
            Act::AgentRestart => {
                let boot_id = sled.host().boot_id();
                sled.agent_restart(now);
                sled.registered(
                    now,
                    now,
                    boot_id,
                    SledLease { lease_epoch: EPOCH, lease_seconds: None, store_id: None },
                );
            }
            Act::Reboot => {
                self.boots += 1;
                sled.reboot(now, boot(self.boots));
                let lease = SledLease { lease_epoch: EPOCH, lease_seconds: None, store_id: None };
                sled.registered(now, now, boot(self.boots), lease);
            }
            Act::Pass { millis } => self.now += millis * 1000,
        }
    }

    fn poll(&mut self) {
        for at in 0..2 {
            for output in self.sleds[at].poll(self.now) {
                match output {
                    Output::Peer(message) => self.wire.push(message),
                    Output::Report { propolis_id, state } => self.reports.push((at, propolis_id, state)),
                }
            }
        }
    }

    fn check(&mut self) {
        for (at, sled) in self.sleds.iter().enumerate() {
            let inventory = sled.inventory();
            inventory.validate().unwrap();
            let live = || sled.vmms().filter(|vmm| vmm.is_live());
            let threads: u32 = live().map(|vmm| vmm.resources().ncpus).sum();
            let memory: u64 = live().map(|vmm| vmm.resources().memory).sum();
            assert!(threads <= inventory.resources.threads && memory <= inventory.resources.memory);
            assert!(sled.vmms().count() <= limits::VMMS_MAX);
            for vmm in sled.vmms() {
                assert!(vmm.is_live() || !vmm.guest_running(), "an ended VMM runs no guest");
                assert!(vmm.is_live() || vmm.next_step().is_none(), "an ended VMM does nothing");
                let boot_id = sled.host().boot_id().as_uuid().as_u128();
                let before = self.seen.insert((at, boot_id, vmm.propolis_id()), vmm.state().clone());
                if let Some(before) = before {
                    check_succession(&before, vmm.state());
                }
            }
        }
        self.check_guests();
    }

    /// Source and target of one migration never run the guest at the same time.
    fn check_guests(&self) {
        let running: Vec<&sim_sled::machine::Vmm> =
            self.sleds.iter().flat_map(Sled::vmms).filter(|vmm| vmm.guest_running()).collect();
        for arrived in &running {
            let Some(arrival) = &arrived.state().migration_in else { continue };
            for left in &running {
                let departure = &left.state().migration_out;
                let is_its_source = departure.as_ref().is_some_and(|side| {
                    side.migration_id == arrival.migration_id && left.instance_id() == arrived.instance_id()
                });
                assert!(
                    !is_its_source,
                    "the guest runs in {} and {}",
                    left.propolis_id(),
                    arrived.propolis_id()
                );
            }
        }
    }
}

fn check_succession(before: &SledVmmState, after: &SledVmmState) {
    let (old, new) = (&before.vmm_state, &after.vmm_state);
    assert!(new.time_updated >= old.time_updated);
    if old.state == new.state {
        assert!(new.generation >= old.generation);
    } else {
        assert!(new.generation > old.generation, "a change without a new generation");
        assert!(!old.state.is_terminal(), "{:?} became {:?}", old.state, new.state);
    }
    if old.state.is_terminal() {
        assert_eq!(before, after, "nothing changes after the end");
    }
    assert!(after.migration_in.is_some() == before.migration_in.is_some(), "an arrival is kept for life");
    for (old, new) in
        [(&before.migration_in, &after.migration_in), (&before.migration_out, &after.migration_out)]
    {
        let (Some(old), Some(new)) = (old, new) else { continue };
        if old.migration_id != new.migration_id {
            assert!(old.state.is_terminal(), "a guest leaves by one migration at a time");
            continue;
        }
        assert_eq!(
            old.state != new.state,
            old.generation < new.generation,
            "generations grow on change only"
        );
        assert!(old == new || !old.state.is_terminal(), "a migration that has ended changes no more");
    }
}

fn run(mode: Mode, acts: &[(bool, Act)]) -> World {
    let mut world = World::new(mode);
    for (is_second, act) in acts {
        world.run(*is_second, *act);
        world.check();
        world.poll();
        world.check();
    }
    world
}

/// Fixed, so that every run of the suite tries the same cases.
fn seeded() -> ProptestConfig {
    ProptestConfig {
        cases: 600,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::default()
    }
}

#[test]
fn the_cases_drawn_reach_every_end_of_a_migration() {
    let mut runner = TestRunner::new(seeded());
    let mut reached: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..600 {
        let acts = vec(act(), 1..250).new_tree(&mut runner).unwrap().current();
        let world = run(Mode::Auto, &acts);
        let sides = world
            .seen
            .values()
            .flat_map(|state| [("arrival", &state.migration_in), ("departure", &state.migration_out)]);
        for (side, runtime) in sides {
            let Some(runtime) = runtime else { continue };
            let end = match (side, runtime.state) {
                ("arrival", MigrationState::Completed) => "arrival completed",
                ("arrival", MigrationState::Failed) => "arrival failed",
                ("departure", MigrationState::Completed) => "departure completed",
                ("departure", MigrationState::Failed) => "departure failed",
                _ => continue,
            };
            *reached.entry(end).or_insert(0) += 1;
        }
    }
    for end in ["arrival completed", "arrival failed", "departure completed", "departure failed"] {
        assert!(reached.get(end).is_some_and(|cases| *cases >= 10), "{end}: {reached:?}");
    }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn the_invariants_hold_and_the_same_calls_give_the_same_world(
        is_auto in any::<bool>(),
        acts in vec(act(), 1..250),
    ) {
        let mode = if is_auto { Mode::Auto } else { Mode::Explicit };
        let world = run(mode, &acts);
        prop_assert_eq!(&world, &run(mode, &acts));
    }

    #[test]
    fn whatever_befell_it_a_sled_left_alone_comes_to_rest(acts in vec(act(), 1..120)) {
        let mut world = run(Mode::Auto, &acts);
        world.wire.clear();
        for _ in 0..10_000 {
            let Some(wake) = world.sleds.iter().filter_map(Sled::next_wake).min() else { break };
            world.now = world.now.max(wake);
            world.poll();
            world.check();
            world.wire.clear();
        }
        for sled in &world.sleds {
            prop_assert_eq!(sled.next_wake(), None);
            for vmm in sled.vmms() {
                let state = vmm.state();
                let is_open = |side: &Option<sled_protocol::MigrationRuntime>| {
                    side.as_ref().is_some_and(|side| !side.state.is_terminal())
                };
                prop_assert!(!is_open(&state.migration_out), "{:?}", state);
            }
        }
    }
}
