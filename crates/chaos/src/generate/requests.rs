//! What clients and operators ask, from a seed.
//!
//! Each instance is created early, and then asked for this and that until the safety phase ends. What follows
//! a migration often comes while it is under way: that is where the rules meet.

use super::{Dice, Profile};
use crate::faults::{Phase, Side};
use crate::scenario::Request;
use crate::verb::Verb;

/// Ids of what is not about one instance begin here; those below are an instance's hundred.
const ADMIN_IDS: u32 = 50_000;

/// Most requests of an instance after its creation; its ids are a hundred.
const ASKS_MAX: u64 = 14;

/// Ids of what is asked of a saga that is held begin here within its instance's hundred.
const HELD_IDS: u32 = 20;

/// How soon after what begins a saga it is to be held, milliseconds: each of its steps takes another time.
const HELD_AFTER: &[u64] = &[1, 2, 4, 8, 20, 60, 200, 500];

/// Groups of a scenario.
const GROUPS: u16 = 2;

pub(super) fn requests(
    dice: &Dice,
    profile: &Profile,
    instances: u16,
    sleds: u16,
    safety_ms: u64,
) -> Vec<Request> {
    let mut requests = Vec::new();
    for instance in 0..instances {
        of_instance(dice, profile, instance, sleds, safety_ms, &mut requests);
    }
    let mut admin = Admin { dice, safety_ms, next: ADMIN_IDS, requests };
    admin.quotas();
    admin.groups(instances);
    admin.sleds(sleds);
    let mut requests = admin.requests;
    requests.sort_by_key(|request| (request.at, request.id));
    requests
}

fn of_instance(
    dice: &Dice,
    profile: &Profile,
    instance: u16,
    sleds: u16,
    safety_ms: u64,
    requests: &mut Vec<Request>,
) {
    let key = u64::from(instance) * 1_000;
    let created_at = dice.draw("create_at", key, 20, safety_ms / 4);
    let start = dice.chance("create_start", key, 60);
    let ncpus = dice.draw("ncpus", key, 1, 3) as u16;
    let id = u32::from(instance) * 100;
    let verb = Verb::Create { start, ncpus };
    requests.push(Request { id, at: created_at, phase: None, instance, verb });
    let (mut at, mut follows_migrate) = (created_at, false);
    for nth in 1..=dice.draw("asks", key, 3, ASKS_MAX) {
        let is_soon = follows_migrate && dice.chance("soon", key + nth, 60);
        let longest = if is_soon { 1_500 } else { safety_ms / 6 };
        at += dice.draw("ask_after", key + nth, 1, longest);
        let verb = if is_soon {
            during_migration(dice, key + nth, sleds)
        } else {
            at_large(dice, profile, key + nth, sleds)
        };
        follows_migrate = matches!(verb, Verb::Migrate { .. });
        if matches!(verb, Verb::Start | Verb::Migrate { .. }) && dice.chance("held", key + nth, 22) {
            hold(dice, instance, key + nth, (at, safety_ms), id + HELD_IDS + 3 * nth as u32, requests);
        }
        if at < safety_ms {
            let is_aimed = is_soon && dice.chance("aimed", key + nth, 50);
            let phase = is_aimed.then(|| *dice.pick("aimed_at", key + nth, &Phase::ALL));
            requests.push(Request { id: id + nth as u32, at, phase, instance, verb });
        }
    }
}

/// A saga that begins is held, and then let go, hurried, taken back or overtaken; or nobody comes until all is healed.
fn hold(
    dice: &Dice,
    instance: u16,
    key: u64,
    (at, safety_ms): (u64, u64),
    id: u32,
    requests: &mut Vec<Request>,
) {
    let held_at = at + dice.pick("held_after", key, HELD_AFTER);
    let then = match dice.draw("held_then", key, 0, 99) {
        0..35 => Some(Verb::ResumeSaga),
        35..50 => Some(Verb::RetrySaga),
        50..70 => Some(Verb::CancelSaga),
        70..80 => Some(Verb::Stop),
        _ => None,
    };
    let then_at = held_at + dice.draw("held_for", key, 1, 6_000);
    let mut ask = |nth: u32, at: u64, verb: Verb| {
        if at < safety_ms {
            requests.push(Request { id: id + nth, at, phase: None, instance, verb });
        }
    };
    ask(0, held_at, Verb::PauseSaga);
    if let Some(verb) = then {
        ask(1, then_at, verb);
    }
    if dice.chance("hurried", key, 30) {
        ask(2, at + dice.pick("hurried_after", key, HELD_AFTER), Verb::RetrySaga);
    }
}

fn force_stop_of(dice: &Dice, key: u64) -> Verb {
    let side = *dice.pick("force_side", key, &[Side::Source, Side::Target]);
    Verb::ForceStopOf { side, assert_dead: dice.chance("assert_dead", key, 30) }
}

fn migrate(dice: &Dice, key: u64, sleds: u16) -> Verb {
    let is_named = dice.chance("to_named", key, 35);
    let to = is_named.then(|| dice.draw("to", key, 0, u64::from(sleds) - 1) as u16);
    Verb::Migrate { to }
}

fn at_large(dice: &Dice, profile: &Profile, key: u64, sleds: u16) -> Verb {
    if dice.chance("moves", key, profile.moves) {
        return migrate(dice, key, sleds);
    }
    match dice.draw("verb", key, 0, 99) {
        0..40 => Verb::Start,
        40..60 => Verb::Stop,
        60..71 => Verb::Reboot,
        71..77 => Verb::Delete,
        77..81 => Verb::ForceStop { assert_dead: dice.chance("assert_dead", key, 50) },
        81..84 => force_stop_of(dice, key),
        84..90 => Verb::Resize { ncpus: dice.draw("resize", key, 1, 3) as u16 },
        90..95 => Verb::SetRestarts { on: dice.chance("restarts_on", key, 50) },
        95..98 => Verb::CancelSaga,
        98 => Verb::RetrySaga,
        _ => Verb::CancelMigration,
    }
}

fn during_migration(dice: &Dice, key: u64, sleds: u16) -> Verb {
    match dice.draw("during", key, 0, 99) {
        0..28 => Verb::CancelMigration,
        28..50 => Verb::Stop,
        50..60 => Verb::CancelSaga,
        60..70 => Verb::Reboot,
        70..76 => Verb::ForceStop { assert_dead: dice.chance("assert_dead", key, 30) },
        76..83 => force_stop_of(dice, key),
        83..87 => Verb::Start,
        87 => Verb::PauseSaga,
        88..92 => Verb::Delete,
        _ => migrate(dice, key, sleds),
    }
}

/// What is not about one instance. Its numbers are its ids.
struct Admin<'a> {
    dice: &'a Dice,
    safety_ms: u64,
    next: u32,
    requests: Vec<Request>,
}

impl Admin<'_> {
    fn add(&mut self, at: u64, instance: u16, verb: Verb) {
        if at < self.safety_ms {
            self.requests.push(Request { id: self.next, at, phase: None, instance, verb });
        }
        self.next += 1;
    }

    fn any_time(&self, nth: u64) -> u64 {
        self.dice.draw("admin_at", nth, 100, self.safety_ms)
    }

    fn quotas(&mut self) {
        if !self.dice.chance("quotas", 0, 30) {
            return;
        }
        for nth in 0..self.dice.draw("quota_count", 0, 1, 3) {
            let cpus = self.dice.chance("quota_is", nth, 75).then(|| self.dice.draw("quota", nth, 1, 8));
            let of_silo = self.dice.chance("quota_of_silo", nth, 40);
            self.add(self.any_time(nth), 0, Verb::SetQuota { of_silo, cpus });
        }
    }

    fn groups(&mut self, instances: u16) {
        for group in 0..GROUPS {
            let key = u64::from(group) * 100;
            if !self.dice.chance("groups", key, 25) {
                continue;
            }
            let is_hard = self.dice.chance("group_is_hard", key, 65);
            let at = self.dice.draw("group_at", key, 10, self.safety_ms / 4);
            self.add(at, 0, Verb::CreateGroup { group, is_hard });
            for instance in 0..instances {
                let nth = key + u64::from(instance);
                let joins_at = at + self.dice.draw("join_after", nth, 1, self.safety_ms / 4);
                if self.dice.chance("joins", nth, 70) {
                    self.add(joins_at, instance, Verb::JoinGroup { group });
                }
                if self.dice.chance("leaves", nth, 15) {
                    self.add(joins_at + self.any_time(50 + nth) / 2, instance, Verb::LeaveGroup { group });
                }
            }
            if self.dice.chance("group_ends", key, 15) {
                self.add(at + self.any_time(70 + key) / 2, 0, Verb::DeleteGroup { group });
            }
        }
    }

    fn sleds(&mut self, sleds: u16) {
        for sled in 0..sleds {
            let key = 1_000 + u64::from(sled);
            if self.dice.chance("cordons", key, 15) {
                let at = self.any_time(key);
                self.add(at, 0, Verb::Cordon { sled });
                if self.dice.chance("uncordons", key, 70) {
                    let after = self.dice.draw("uncordon_after", key, 100, 10_000);
                    self.add(at + after, 0, Verb::Uncordon { sled });
                }
            }
            if self.dice.chance("drains", key, 12) {
                let at = self.any_time(20 + key);
                self.add(at, 0, Verb::Drain { sled });
                if self.dice.chance("called_off", key, 50) {
                    self.add(
                        at + self.dice.draw("called_off_after", key, 100, 10_000),
                        0,
                        Verb::Uncordon { sled },
                    );
                }
            }
            // The last one stays, so that there is somewhere to go.
            if sled + 1 < sleds && self.dice.chance("expunges", key, 10) {
                self.add(self.any_time(10 + key), 0, Verb::Expunge { sled });
            }
        }
    }
}
