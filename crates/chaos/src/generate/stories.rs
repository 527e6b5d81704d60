//! Stories: a few requests and a fault that belong together, for states that chance alone meets too seldom.

use super::Dice;
use crate::faults::{Direction, Entity, Fault, Mishap, Phase, Side, Window};
use crate::scenario::Request;
use crate::verb::Verb;

/// Ids of a story's requests within its instance's hundred begin here.
const FIRST_ID: u32 = 90;

/// How many in a hundred seeds tell each story.
const CHANCE: u64 = 8;

/// Adds the stories that the seed tells.
pub(super) fn tell(
    dice: &Dice,
    instances: u16,
    safety_ms: u64,
    requests: &mut Vec<Request>,
    faults: &mut Vec<Fault>,
) {
    let begins = dice.draw("story_at", 0, 200, safety_ms / 3);
    if dice.chance("moved_again", 0, CHANCE) {
        let instance = dice.draw("moved_again_who", 0, 0, u64::from(instances) - 1) as u16;
        moved_again(instance, begins, safety_ms, requests);
        faults.push(aimed(instance, Phase::Copy, Side::Target, Mishap::Partition, 9_000));
    } else if dice.chance("source_vanishes", 0, CHANCE) {
        let instance = dice.draw("source_vanishes_who", 0, 0, u64::from(instances) - 1) as u16;
        let asked = [(0, Verb::Start), (3_000, Verb::Migrate { to: None })];
        ask(instance, begins, safety_ms, &asked, requests);
        let lasts = dice.draw("source_vanishes_for", 0, 0, 4_000);
        faults.push(aimed(instance, Phase::Pause, Side::Source, Mishap::Vanish, lasts));
    }
}

/// All sleds are cut off one by one, and come back in another order: each order of losing and finding them is a
/// chance for what was said last to be believed first.
pub(super) fn swizzle(dice: &Dice, sleds: u16, safety_ms: u64, faults: &mut Vec<Fault>) {
    if !dice.chance("swizzle", 0, CHANCE) {
        return;
    }
    let begins = dice.draw("swizzle_at", 0, 200, safety_ms / 2);
    let last_cut = begins + u64::from(sleds) * dice.draw("swizzle_gap", 0, 20, 800);
    for sled in 0..sleds {
        let at = begins + (last_cut - begins) * u64::from(sled) / u64::from(sleds);
        let healed_at = last_cut + dice.draw("swizzle_heals", sled.into(), 50, safety_ms / 3);
        faults.push(Fault::Partition { at, lasts: healed_at - at, sled, direction: Direction::Both });
    }
}

/// The control plane dies when the archive of an instance is to be recorded: few instances live to be archived, and
/// fewer are named by chance.
pub(super) fn crash_at_archive(dice: &Dice, instances: u16) -> Fault {
    let instance = dice.draw("crash_archive_of", 0, 0, u64::from(instances) - 1) as u16;
    Fault::CrashAt {
        event: "Archived".to_owned(),
        entity: Entity::Instance(instance),
        window: *dice.pick("crash_archive_at", 0, &Window::ALL),
        lose: super::lose(dice, 0),
    }
}

/// A migration is given up while its target is out of reach, and the guest is to move again: the second target
/// waits at its fence, and then nobody wants it any more.
fn moved_again(instance: u16, begins: u64, safety_ms: u64, requests: &mut Vec<Request>) {
    let asked = [
        (0, Verb::Start),
        (3_000, Verb::Migrate { to: None }),
        (5_000, Verb::Migrate { to: None }),
        (6_500, Verb::CancelSaga),
    ];
    ask(instance, begins, safety_ms, &asked, requests);
    let id = u32::from(instance) * 100 + FIRST_ID + asked.len() as u32;
    let phase = Some(Phase::Copy);
    requests.push(Request { id, at: begins, phase, instance, verb: Verb::CancelMigration });
}

fn ask(instance: u16, begins: u64, safety_ms: u64, asked: &[(u64, Verb)], requests: &mut Vec<Request>) {
    for (nth, (after, verb)) in (0..).zip(asked) {
        let (id, at) = (u32::from(instance) * 100 + FIRST_ID + nth, begins + after);
        if at < safety_ms {
            requests.push(Request { id, at, phase: None, instance, verb: *verb });
        }
    }
}

const fn aimed(instance: u16, phase: Phase, side: Side, mishap: Mishap, lasts: u64) -> Fault {
    Fault::AtMigration { instance, phase, side, mishap, lasts }
}
