//! Bounded exhaustive exploration: one instance, two sleds, and everything that may happen to them within a
//! budget, in every order.
//!
//! `EXPLORE_STATES` is how many situations each scenario looks at; without it, as many as a quick run can.

#![allow(clippy::unwrap_used, reason = "tests")]

mod explore {
    pub mod budget;
    pub mod fold;
    pub mod moves;
    pub mod search;
    pub mod sled;
    pub mod truth;
    pub mod wishes;
    pub mod world;
}

use explore::budget::Budget;
use explore::fold::Folds;
use explore::search::{Bounds, come_to_rest, explore as search, tell};
use explore::wishes::Wish;
use explore::world::{Step, World};
use lifecycle::{Address, Command, InstanceId, InstanceSpec, ProjectId, RunState, Size};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use uuid::Uuid;

/// Situations that each scenario looks at in a quick run.
const STATES: usize = 20_000;
/// In a quick run the way to rest is followed from one situation in so many; in a long one from fewer.
const REST_STRIDE: usize = 4;

fn bounds() -> Bounds {
    let asked = std::env::var("EXPLORE_STATES").ok().map(|text| text.parse().unwrap());
    let states = asked.unwrap_or(STATES);
    Bounds { states, rest_stride: REST_STRIDE * (states / 1_000_000).max(1) }
}

fn create() -> Command {
    let spec = InstanceSpec {
        project: ProjectId::new(Uuid::from_u128(9)),
        name: "web".to_owned(),
        description: String::new(),
        hostname: "web".to_owned(),
        size: Size { ncpus: 2, memory: 4 << 30 },
        auto_restart: None,
        cpu_platform: None,
        boot_disk: None,
        jumbo_frames: false,
    };
    let address =
        Address { virtual_ip: Ipv4Addr::new(172, 16, 0, 5), mac: [0xa8, 0x40, 172, 16, 0, 5], vni: 1024 };
    let id = InstanceId::new(Uuid::from_u128(1));
    Command::Create { id, spec: Box::new(spec), address, start: None }
}

fn stopped(folds: &mut Folds) -> World {
    let fold = folds.created(create());
    World::new(fold, Budget::default())
}

/// On the first sled, and at rest.
fn running(folds: &mut Folds) -> World {
    let mut world = stopped(folds);
    world.left = Budget { moves: 1, start: 1, ..Budget::default() };
    let mut world = world.take(folds, &Step::Ask(Wish::Start(0))).unwrap().unwrap();
    come_to_rest(&mut world, folds, &mut BTreeSet::new(), &mut Vec::new()).unwrap();
    assert_eq!(folds.state(world.fold).run_state(), RunState::Running);
    world
}

/// Moves together that are tried at most.
const MOVES_MAX: u8 = 6;

/// First everything that so few moves lead to, then one more; so what is broken is found by few moves.
fn run(name: &str, start: fn(&mut Folds) -> World, left: Budget) {
    let mut folds = Folds::new();
    let start = start(&mut folds);
    let mut states = bounds().states;
    for moves in 1..=MOVES_MAX {
        let world = World { left: Budget { moves, ..left }, ..start.clone() };
        match search(world, &mut folds, Bounds { states, ..bounds() }) {
            Ok(explored) => {
                println!("{name}, {moves} moves: {explored:?}");
                states = states.saturating_sub(explored.states);
                if states == 0 || explored.frontier > 0 {
                    return;
                }
            }
            Err(broken) => panic!("{name}, {moves} moves: {}", tell(&broken)),
        }
    }
}

#[test]
fn a_start_survives_faults() {
    let left = Budget {
        start: 2,
        stop: 1,
        crash: 1,
        sled_reboot: 1,
        restart: 1,
        deadline: 1,
        late_request: 2,
        late_answer: 1,
        late_report: 1,
        late_inventory: 1,
        ..Budget::default()
    };
    run("start", stopped, left);
}

#[test]
fn stops_race_with_starts_reboots_and_shutdowns() {
    let left = Budget {
        start: 2,
        stop: 2,
        reboot: 1,
        shutdown: 1,
        late_request: 2,
        late_answer: 1,
        late_report: 1,
        ..Budget::default()
    };
    run("stop", running, left);
}

#[test]
fn a_migration_survives_failures_of_either_side_and_cancels() {
    let left = Budget {
        migrate: 1,
        stop: 1,
        cancel: 1,
        crash: 1,
        fail_migration: 1,
        shutdown: 1,
        restart: 1,
        deadline: 2,
        late_request: 1,
        late_answer: 1,
        late_report: 2,
        ..Budget::default()
    };
    run("migrate", running, left);
}

#[test]
fn a_migration_survives_a_sleds_reboot() {
    let left = Budget {
        migrate: 1,
        stop: 1,
        sled_reboot: 1,
        fail_migration: 1,
        deadline: 2,
        late_request: 1,
        late_report: 1,
        late_inventory: 1,
        ..Budget::default()
    };
    run("migrate and boot", running, left);
}

#[test]
fn one_migration_after_another_survives_late_messages() {
    let left = Budget {
        migrate: 2,
        cancel: 1,
        fail_migration: 1,
        deadline: 1,
        late_request: 1,
        late_answer: 1,
        late_report: 2,
        ..Budget::default()
    };
    run("two migrations", running, left);
}

#[test]
fn what_was_forced_to_stop_starts_again_behind_the_fence() {
    let left = Budget {
        start: 1,
        migrate: 1,
        force_stop: 1,
        crash: 1,
        sled_reboot: 1,
        deadline: 1,
        late_request: 2,
        late_report: 1,
        ..Budget::default()
    };
    run("force-stop", running, left);
}

#[test]
fn a_deleted_instance_ends_whatever_comes_late() {
    let left = Budget {
        start: 2,
        stop: 1,
        delete: 1,
        force_stop: 1,
        deadline: 1,
        sled_reboot: 1,
        late_request: 2,
        late_answer: 1,
        late_report: 1,
        late_inventory: 1,
        ..Budget::default()
    };
    run("delete", stopped, left);
}
