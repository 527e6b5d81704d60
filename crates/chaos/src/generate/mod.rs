//! Scenarios from seeds.
//!
//! Swarm: a seed first switches each kind of fault on or off as a whole, then draws how often and how hard.
//! Runs that have a few kinds find what runs that have all of them hide. Crashes are aimed: half of them name
//! an event of an instance that the scenario will use, and a window. Mishaps of migrations are aimed too: they
//! name a phase and a side.

mod profiles;
mod requests;
mod stories;

pub use profiles::{ACTORS_PROFILE, CORE_PROFILE, NoProfile, PROFILES, Profile, profile};

use crate::bug::Bug;
use crate::draws::{hash, within};
use crate::faults::{
    Direction, EffectKind, Entity, Fault, LoseUnsynced, Mishap, Phase, Refused, Side, Victim, Window,
};
use crate::scenario::{FORMAT, RestartShape, Scenario, SledShape, Tier};
use std::num::NonZeroU32;

/// Events at which crashes are aimed, with whether they are a sled's.
const CRASH_EVENTS: &[(&str, bool)] = &[
    ("Created", false),
    ("StartBegan", false),
    ("SagaAdvanced", false),
    ("SagaUnwound", false),
    ("SagaEnded", false),
    ("VmmReported", false),
    ("VmmFailed", false),
    ("VmmGone", false),
    ("VmmReaped", false),
    ("StopRequested", false),
    ("StopWithdrawn", false),
    ("RebootRequested", false),
    ("RebootAnswered", false),
    ("Updated", false),
    ("Deleted", false),
    ("MigrateBegan", false),
    ("SagaAdvanced/Register", false),
    ("SagaAdvanced/SetRunning", false),
    ("SagaAdvanced/MigrationTarget", false),
    ("VmmReported/side", false),
    ("Updated/migration", false),
    ("MigrationCancelled", false),
    ("MigrationGivenUp", false),
    ("RestartTried", false),
    ("ForceStopRequested", false),
    ("SagaPaused", false),
    ("SagaResumed", false),
    ("Archived", false),
    ("Reconfigured", false),
    ("StartNotPlaced", false),
    ("Registered", true),
    ("Booted", true),
    ("ProvisionableChanged", true),
    ("Expunged", true),
    ("QuotaSet", false),
    ("GroupJoined", false),
];

/// Those of [`CRASH_EVENTS`] that are the project's.
const PROJECT_EVENTS: &[&str] = &["QuotaSet", "GroupJoined"];

/// How fast guests dirty their memory, in thousandths of what is copied: those of the last never converge.
const DIRTY: &[u32] = &[0, 100, 250, 250, 250, 500, 800, 1_000];

/// Draws of the generator: keyed like the run's, so that one more kind of fault changes no other.
struct Dice {
    seed: u64,
}

impl Dice {
    fn draw(&self, purpose: &str, nth: u64, min: u64, max: u64) -> u64 {
        within(hash(self.seed, purpose, 0x6e6, nth), min, max)
    }

    fn chance(&self, purpose: &str, nth: u64, percent: u64) -> bool {
        self.draw(purpose, nth, 0, 99) < percent
    }

    fn pick<'a, T>(&self, purpose: &str, nth: u64, from: &'a [T]) -> &'a T {
        &from[self.draw(purpose, nth, 0, from.len() as u64 - 1) as usize]
    }
}

/// The scenario of a seed.
pub fn scenario(seed: u64, profile: &Profile) -> Scenario {
    let dice = Dice { seed: hash(seed, &profile.name, 0, 0) };
    let sleds = *dice.pick("sleds", 0, &[1, 2, 2, 2, 3, 3, 3, 4, 4]);
    let shape = |nth| SledShape {
        threads: if profile.scarce || dice.chance("scarce", 0, 20) {
            dice.draw("threads", nth, 1, 4) as u32
        } else {
            dice.draw("threads", nth, 8, 32) as u32
        },
        memory_gib: 64,
        family: u8::from(dice.chance("family", nth, 12)),
        dirty_per_mille: *dice.pick("dirty", nth, DIRTY),
    };
    let safety_ms = dice.draw("safety", 0, 5_000, 40_000);
    let instances = dice.draw("instances", 0, 1, 6) as u16;
    let mut requests = requests::requests(&dice, profile, instances, sleds as u16, safety_ms);
    let world = Size { sleds: sleds as u16, instances, safety_ms, requests: requests.len() as u64 };
    let mut faults = Vec::new();
    for (nth, kind) in (0..).zip(Fault::KINDS) {
        if profile.has(kind) && dice.chance("switch", nth, profile.chance) {
            let most = match kind {
                "crash_at" => 6,
                "at_migration" | "refuse" | "lose_answer" => 5,
                _ => 3,
            };
            let count = dice.draw("count", nth, 1, most);
            faults.extend((0..count).map(|n| fault(&dice, kind, nth * 100 + n, &world)));
        }
    }
    let retain_ms =
        dice.chance("retention", 0, 50).then(|| *dice.pick("retain", 0, &[0, 500, 3_000, 15_000]));
    if retain_ms.is_some() && profile.has("crash_at") && dice.chance("crash_archive", 0, 15) {
        faults.push(stories::crash_at_archive(&dice, instances));
    }
    if profile.has("partition") {
        stories::swizzle(&dice, sleds as u16, safety_ms, &mut faults);
    }
    if profile.has("at_migration") {
        stories::tell(&dice, instances, safety_ms, &mut requests, &mut faults);
        requests.sort_by_key(|request| (request.at, request.id));
    }
    Scenario {
        format: FORMAT,
        seed,
        profile: profile.name.clone(),
        tier: Tier::Core,
        bug: profile.fails.then_some(Bug::Canary),
        sleds: (0..sleds).map(shape).collect(),
        sync_us: (dice.draw("sync_min", 0, 100, 1_000), dice.draw("sync_max", 0, 1_000, 12_000)),
        start_deadline_ms: *dice.pick("deadline", 0, &[500, 1_500, 3_000, 10_000, 30_000, 120_000]),
        migrate_deadline_ms: *dice.pick("migrate_deadline", 0, &[300, 1_000, 3_000, 8_000, 20_000, 60_000]),
        restart: dice.chance("restart", 0, 75).then(|| restart(&dice)),
        lease_s: dice.chance("lease", 0, profile.leases).then(|| dice.draw("lease_s", 0, 3, 12)),
        passivate_ms: dice
            .chance("passivation", 0, profile.passivation)
            .then(|| *dice.pick("passivate", 0, &[20, 500, 3_000])),
        pause_after_failures: dice
            .chance("pauses", 0, 20)
            .then(|| *dice.pick("pause_after", 0, &[1, 2, 3, 5]))
            .and_then(NonZeroU32::new),
        retain_ms,
        queue_max: dice.chance("narrow", 0, 40).then(|| dice.draw("queue", 0, 1, 16)),
        safety_ms,
        requests,
        faults,
    }
}

fn restart(dice: &Dice) -> RestartShape {
    RestartShape {
        base_ms: *dice.pick("restart_base", 0, &[100, 500, 2_000, 5_000]),
        cap_ms: *dice.pick("restart_cap", 0, &[1_000, 5_000, 20_000]),
        budget: dice.draw("restart_budget", 0, 1, 5) as u32,
        stable_ms: *dice.pick("restart_stable", 0, &[500, 3_000, 20_000]),
    }
}

struct Size {
    sleds: u16,
    instances: u16,
    safety_ms: u64,
    requests: u64,
}

fn lose(dice: &Dice, nth: u64) -> LoseUnsynced {
    match dice.draw("lose", nth, 0, 9) {
        0..5 => LoseUnsynced::All,
        5..7 => LoseUnsynced::None,
        7..9 => LoseUnsynced::AfterPrefix(dice.draw("prefix", nth, 0, 3) as u16),
        _ => LoseUnsynced::Torn(dice.draw("prefix", nth, 0, 2) as u16),
    }
}

fn crash_event(dice: &Dice, nth: u64, size: &Size) -> (String, Entity) {
    let (event, is_sled) = *dice.pick("crash_event", nth, CRASH_EVENTS);
    let entity = if PROJECT_EVENTS.contains(&event) {
        Entity::Project
    } else if is_sled {
        Entity::Sled(dice.draw("crash_sled", nth, 0, u64::from(size.sleds) - 1) as u16)
    } else {
        Entity::Instance(dice.draw("crash_instance", nth, 0, u64::from(size.instances) - 1) as u16)
    };
    (event.to_owned(), entity)
}

fn crash_at(dice: &Dice, nth: u64, size: &Size) -> Fault {
    let (event, entity) = crash_event(dice, nth, size);
    let window = *dice.pick("crash_window", nth, &Window::ALL);
    Fault::CrashAt { event, entity, window, lose: lose(dice, nth) }
}

fn victim(dice: &Dice, nth: u64, instance: u16, sled: u16) -> Victim {
    match dice.draw("victim", nth, 0, 9) {
        0..5 => Victim::Instance(instance),
        5..8 => Victim::Sled(sled),
        _ => *dice.pick(
            "supervisor",
            nth,
            &[Victim::Instances, Victim::Sleds, Victim::Ledger, Victim::Projects],
        ),
    }
}

fn fault(dice: &Dice, kind: &str, nth: u64, size: &Size) -> Fault {
    let at = dice.draw("at", nth, 0, size.safety_ms);
    let lasts = dice.draw("lasts", nth, 50, size.safety_ms / 3);
    let sled = dice.draw("sled", nth, 0, u64::from(size.sleds) - 1) as u16;
    let instance = dice.draw("instance", nth, 0, u64::from(size.instances) - 1) as u16;
    let per_mille = dice.draw("per_mille", nth, 20, 500) as u16;
    let by = dice.draw("by", nth, 1, 4_000);
    match kind {
        "crash_at" => crash_at(dice, nth, size),
        "crash_time" => Fault::CrashTime { at, lose: lose(dice, nth) },
        "disk_full" => Fault::DiskFull { at },
        "io_error" => Fault::IoError { at, lose: lose(dice, nth) },
        "disk_stall" => Fault::DiskStall { at, lasts, by: dice.draw("stall", nth, 300, 10_000) },
        "sled_reboot" => reboot(dice, nth, size),
        "agent_restart" => Fault::AgentRestart { at, sled },
        "slow_sled" => Fault::SlowSled { at, lasts, sled, by },
        "partition" => {
            let direction =
                *dice.pick("direction", nth, &[Direction::Both, Direction::ToSled, Direction::FromSled]);
            Fault::Partition { at, lasts, sled, direction }
        }
        "drop" => Fault::Drop { at, lasts, per_mille },
        "duplicate" => Fault::Duplicate { at, lasts, per_mille },
        "reorder" => Fault::Reorder { at, lasts, by },
        "delay_tail" => Fault::DelayTail { at, lasts, per_mille: per_mille / 4, by: by * 3 },
        "clock_jump" => {
            let days = dice.draw("jump", nth, 60_000, 3 * 86_400_000).cast_signed();
            Fault::ClockJump { at, by: if dice.chance("back", nth, 50) { -days } else { days } }
        }
        "duplicate_request" => Fault::DuplicateRequest {
            request: request_id(dice, nth, size),
            after: *dice.pick("after", nth, &[0, 1, 3, 20, 200, 3_000]),
            other_body: dice.chance("other_body", nth, 30),
        },
        "refuse" => Fault::Refuse {
            effect: *dice.pick("effect", nth, &EffectKind::ALL),
            instance,
            nth: dice.draw("effect_nth", nth, 0, 2) as u32,
            refused: *dice.pick("refused", nth, &Refused::ALL),
            is_lasting: dice.chance("refused_for_good", nth, 20),
        },
        "pause" => Fault::Pause { at, lasts },
        "guest_shutdown" => Fault::GuestShutdown { at, instance },
        "guest_crash" => Fault::GuestCrash { at, instance },
        "guest_hang" => Fault::GuestHang { at, instance },
        "peer_partition" => {
            let other = dice.draw("other_sled", nth, 0, u64::from(size.sleds) - 1) as u16;
            Fault::PeerPartition { at, lasts, one: sled, other }
        }
        "lose_answer" => Fault::LoseAnswer {
            effect: *dice.pick("effect", nth, &EffectKind::ALL),
            instance,
            nth: dice.draw("effect_nth", nth, 0, 2) as u32,
        },
        "actor_panic" => {
            let (event, entity) = crash_event(dice, nth, size);
            Fault::ActorPanic { event, entity, is_written: dice.chance("is_written", nth, 50) }
        }
        "unknown_append" => {
            let (event, entity) = crash_event(dice, nth, size);
            Fault::UnknownAppend { event, entity, is_written: dice.chance("is_written", nth, 50) }
        }
        "actor_kill" => Fault::ActorKill { at, victim: victim(dice, nth, instance, sled) },
        "client_gone" => {
            Fault::ClientGone { request: request_id(dice, nth, size), turns: dice.draw("turns", nth, 0, 40) }
        }
        "mailbox_flood" => {
            Fault::MailboxFlood { at, instance, count: *dice.pick("flood", nth, &[300, 1_500, 5_000]) }
        }
        _ => Fault::AtMigration {
            instance,
            phase: *dice.pick("phase", nth, &Phase::ALL),
            side: *dice.pick("side", nth, &[Side::Source, Side::Target]),
            mishap: match dice.draw("mishap", nth, 0, Mishap::ALL.len() as u64 + 2) {
                nth if (nth as usize) < Mishap::ALL.len() => Mishap::ALL[nth as usize],
                // The rarest state that a migration can be in: worth a larger share.
                _ => Mishap::Vanish,
            },
            lasts: dice.draw("mishap_lasts", nth, 50, 12_000),
        },
    }
}

/// Reboots like company: one soon after another of the same sled meets messages of both.
fn reboot(dice: &Dice, nth: u64, size: &Size) -> Fault {
    let follows = !nth.is_multiple_of(100) && dice.chance("reboot_follows", nth, 60);
    let first = if follows { nth - nth % 100 } else { nth };
    let after = if follows { dice.draw("reboot_after", nth, 20, 3_000) } else { 0 };
    let at = dice.draw("at", first, 0, size.safety_ms) + after;
    let sled = dice.draw("sled", first, 0, u64::from(size.sleds) - 1) as u16;
    let longest = if dice.chance("reboot_quick", first, 50) { 100 } else { 8_000 };
    Fault::SledReboot { at, sled, lasts: dice.draw("down", nth, 10, longest) }
}

/// One of the first requests of an instance: those are sure to be carried out.
fn request_id(dice: &Dice, nth: u64, size: &Size) -> u32 {
    let instance = dice.draw("repeat_of", nth, 0, u64::from(size.instances) - 1);
    let most = (size.requests / u64::from(size.instances)).clamp(1, 5);
    (instance * 100 + dice.draw("repeat_nth", nth, 0, most - 1)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_profile_generates_valid_scenarios_that_survive_json() {
        for profile in PROFILES.iter() {
            for seed in 0..50 {
                let scenario = scenario(seed, profile);
                assert_eq!(Scenario::from_json(&scenario.to_json()).unwrap(), scenario);
            }
        }
    }

    #[test]
    fn the_swarm_uses_every_kind_of_fault_and_not_all_at_once() {
        let profile = &PROFILES[0];
        let kinds =
            |seed| -> BTreeSet<&str> { scenario(seed, profile).faults.iter().map(Fault::kind).collect() };
        let seen: BTreeSet<&str> = (0..200).flat_map(kinds).collect();
        assert_eq!(seen, Fault::core_kinds().collect());
        assert!((0..200).all(|seed| kinds(seed).len() < Fault::core_kinds().count()));
    }

    #[test]
    fn the_swarm_asks_everything_that_can_be_asked() {
        let verbs =
            |seed| scenario(seed, &PROFILES[0]).requests.into_iter().map(|request| request.verb.name());
        let seen: BTreeSet<&str> = (0..200).flat_map(verbs).collect();
        let all = [
            "cancel_migration",
            "cancel_saga",
            "cordon",
            "create",
            "create_group",
            "delete",
            "delete_group",
            "drain",
            "expunge",
            "force_stop",
            "join_group",
            "leave_group",
            "migrate",
            "pause_saga",
            "reboot",
            "resume_saga",
            "retry_saga",
            "set_quota",
            "start",
            "stop",
            "uncordon",
            "update",
        ];
        assert_eq!(seen, all.into_iter().collect());
    }

    #[test]
    fn crashes_name_events_that_the_journal_knows() {
        let known: BTreeSet<&str> = journal::event_kinds().map(|kind| kind.name).collect();
        for (event, _) in CRASH_EVENTS {
            let kind = event.split('/').next().unwrap();
            assert!(known.contains(kind), "{event}");
        }
    }
}
