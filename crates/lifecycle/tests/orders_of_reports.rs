//! The order in which two sides of a migration are heard does not matter: every permutation of their reports,
//! and every interleaving of what is left when any but the last of a VMM are lost, ends in the same state.
//! Enumerated, not sampled; the number is printed.

mod stage;

use lifecycle::migration::SideState::{self, Completed, Failed, InProgress};
use lifecycle::vmm::Reservation;
use lifecycle::{Input, Instance, RunState, VmmState};
use stage::Stage;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Source,
    Target,
}

/// What a VMM says: its state and that of its side. Generations are places in the list.
type Words = (VmmState, SideState);

struct Case {
    name: &'static str,
    source: &'static [Words],
    target: &'static [Words],
    then: End,
    /// End states that other orders may lead to, each with its reason.
    exceptions: &'static [(End, &'static str)],
}

/// What users and operators see once every report is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    run_state: RunState,
    active: Option<Role>,
    is_linked: bool,
    source: Option<Reservation>,
    target: Option<Reservation>,
    /// Whether the restart policy would start it again.
    is_wanted: bool,
}

const ON_TARGET: End = End {
    run_state: RunState::Running,
    active: Some(Role::Target),
    is_linked: false,
    source: Some(Reservation::Tombstoned),
    target: Some(Reservation::Active),
    is_wanted: true,
};
const ON_SOURCE: End = End {
    run_state: RunState::Running,
    active: Some(Role::Source),
    is_linked: false,
    source: Some(Reservation::Active),
    target: None,
    is_wanted: true,
};
const NOWHERE: End = End {
    run_state: RunState::Stopped,
    active: None,
    is_linked: false,
    source: None,
    target: None,
    is_wanted: false,
};

use VmmState::{Destroyed, Migrating, Running, Stopping};
const DEAD: VmmState = VmmState::Failed;

const CASES: &[Case] = &[
    Case {
        name: "u03 source completed and stopping, target in progress",
        source: &[(Migrating, InProgress), (Stopping, Completed)],
        target: &[(Migrating, InProgress)],
        then: End {
            run_state: RunState::Migrating,
            is_linked: true,
            source: Some(Reservation::Active),
            target: Some(Reservation::Target),
            ..ON_TARGET
        },
        exceptions: &[],
    },
    Case {
        name: "u04 target completed and running, source still in progress",
        source: &[(Migrating, InProgress)],
        target: &[(Migrating, InProgress), (Running, Completed)],
        then: ON_TARGET,
        exceptions: &[],
    },
    Case {
        name: "u05 both completed, source destroyed",
        source: &[(Migrating, InProgress), (Stopping, Completed), (Destroyed, Completed)],
        target: &[(Migrating, InProgress), (Running, Completed)],
        then: End { source: None, ..ON_TARGET },
        exceptions: &[],
    },
    Case {
        name: "u06 both failed, source runs, target failed",
        source: &[(Migrating, InProgress), (Running, Failed)],
        target: &[(Migrating, InProgress), (DEAD, Failed)],
        then: ON_SOURCE,
        exceptions: &[],
    },
    Case {
        name: "u07 both failed, source runs, target destroyed",
        source: &[(Migrating, InProgress), (Running, Failed)],
        target: &[(Migrating, InProgress), (Destroyed, Failed)],
        then: ON_SOURCE,
        exceptions: &[],
    },
    Case {
        name: "u08 source failed its side and was destroyed, target in progress",
        source: &[(Migrating, InProgress), (Destroyed, Failed)],
        target: &[(Migrating, InProgress), (Running, InProgress)],
        then: End { target: Some(Reservation::Tombstoned), ..NOWHERE },
        exceptions: &[],
    },
    Case {
        name: "u09 both failed and destroyed",
        source: &[(Migrating, InProgress), (Destroyed, Failed)],
        target: &[(Migrating, InProgress), (Destroyed, Failed)],
        then: NOWHERE,
        exceptions: &[],
    },
    Case {
        name: "u10 both completed, target destroyed, source stopping",
        source: &[(Migrating, InProgress), (Stopping, Completed)],
        target: &[(Migrating, InProgress), (Running, Completed), (Destroyed, Completed)],
        then: End { source: Some(Reservation::Tombstoned), ..NOWHERE },
        exceptions: &[],
    },
    Case {
        name: "u11 both completed, target failed",
        source: &[(Migrating, InProgress), (Stopping, Completed)],
        target: &[(Migrating, InProgress), (Running, Completed), (DEAD, Completed)],
        then: End {
            run_state: RunState::Failed,
            source: Some(Reservation::Tombstoned),
            is_wanted: true,
            ..NOWHERE
        },
        exceptions: &[],
    },
    Case {
        name: "u14 target lost before it heard the guest's arrival, source completed and destroyed",
        source: &[(Migrating, InProgress), (Stopping, Completed), (Destroyed, Completed)],
        target: &[(Migrating, InProgress), (DEAD, Failed)],
        then: End { run_state: RunState::Failed, is_wanted: true, ..NOWHERE },
        exceptions: &[],
    },
    Case {
        name: "the source crashes, the guest has arrived",
        source: &[(Migrating, InProgress), (DEAD, Failed)],
        target: &[(Migrating, InProgress), (Running, Completed)],
        then: End { source: None, ..ON_TARGET },
        exceptions: &[],
    },
    Case {
        name: "both crash",
        source: &[(Migrating, InProgress), (DEAD, Failed)],
        target: &[(Migrating, InProgress), (DEAD, Failed)],
        then: End { run_state: RunState::Failed, is_wanted: true, ..NOWHERE },
        exceptions: &[],
    },
];

fn end(state: &Instance, source: lifecycle::VmmId, target: lifecycle::VmmId) -> End {
    let role = |id| if id == source { Role::Source } else { Role::Target };
    let held = |id| state.vmms.get(&id).and_then(|vmm| vmm.reservation);
    let active = state.active.map(role);
    let points_at = state.active_vmm().map(|vmm| vmm.sled);
    assert_eq!(state.network.sled, points_at, "the network follows the guest");
    assert_eq!(state.producer, state.active, "so does the producer");
    assert_eq!(state.charge.is_some(), active.is_some(), "what has a VMM is charged");
    End {
        run_state: state.run_state(),
        active,
        is_linked: state.migration.is_some(),
        source: held(source),
        target: held(target),
        is_wanted: lifecycle::restart::is_wanted(state),
    }
}

/// One report, with the place in its VMM's list as generation.
type Line = (Role, usize);

fn play(case: &Case, order: &[Line]) -> End {
    let mut stage = Stage::migrating();
    let (source, target) = stage.sides();
    for (role, n) in order {
        let (vmm, words) =
            if *role == Role::Source { (source, case.source[*n]) } else { (target, case.target[*n]) };
        let generation = 10 + *n as u64;
        let input: Input = stage.words(vmm, generation, words.0, Some((generation, words.1)));
        stage.must(input);
    }
    end(stage.now(), source, target)
}

fn permutations(lines: &[Line]) -> Vec<Vec<Line>> {
    let Some((first, rest)) = lines.split_first() else {
        return vec![Vec::new()];
    };
    let mut all = Vec::new();
    for shorter in permutations(rest) {
        for place in 0..=shorter.len() {
            let mut longer = shorter.clone();
            longer.insert(place, *first);
            all.push(longer);
        }
    }
    all
}

/// Every choice of reports in which each VMM's last is heard.
fn choices(case: &Case) -> Vec<Vec<Line>> {
    let early: Vec<Line> = (0..case.source.len() - 1)
        .map(|n| (Role::Source, n))
        .chain((0..case.target.len() - 1).map(|n| (Role::Target, n)))
        .collect();
    let last = [(Role::Source, case.source.len() - 1), (Role::Target, case.target.len() - 1)];
    (0..1u32 << early.len())
        .map(|heard| {
            let kept = early.iter().enumerate().filter(|(bit, _)| heard & (1 << bit) != 0);
            kept.map(|(_, line)| *line).chain(last).collect()
        })
        .collect()
}

#[test]
fn u16_every_order_of_both_sides_reports_ends_the_same() {
    let mut played = 0;
    let mut wrong = Vec::new();
    for case in CASES {
        for choice in choices(case) {
            for order in permutations(&choice) {
                played += 1;
                let end = play(case, &order);
                let is_excepted = case.exceptions.iter().any(|(other, _)| *other == end);
                if end != case.then && !is_excepted {
                    wrong.push((case.name, order, end));
                }
            }
        }
    }
    println!("{played} orders of reports played over {} cases", CASES.len());
    for (name, order, end) in wrong.iter().take(10) {
        println!("{name}\n  {order:?}\n  {end:?}");
    }
    assert!(wrong.is_empty(), "{} of {played} orders end otherwise", wrong.len());
}
