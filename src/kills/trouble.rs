//! What goes wrong in a round, drawn without replacement, so that a short campaign has some of everything.

use super::load::Dice;
use super::tally::Met;
use std::time::Duration;

/// The mistake that can be planted: every batch is answered as durable and written this much later.
const EARLY_RULE: &str = "write.segment=late:80@1+";

/// Which troubles a campaign has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// All that the daemon's build and this host allow.
    #[default]
    All,
    /// kill -9 at any moment, pauses, second daemons, clean stops.
    Kill,
    /// Ends at named places.
    Points,
    /// Failing writes and syncs.
    Io,
    /// No more open files.
    Files,
    /// A full disk.
    Full,
}

/// A mistake to plant in the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// Appends are acknowledged before they are written.
    EarlyAcknowledgement,
}

/// What goes wrong in one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// kill -9 at a drawn moment.
    Kill,
    /// The same, and appends are acknowledged too early.
    Planted,
    /// It is stopped cleanly, while nobody works.
    Stop,
    /// It dies at a place while it works.
    Point {
        /// Which.
        place: String,
        /// At the how-manieth time.
        turn: u64,
    },
    /// It dies at a place while it starts.
    PointAtStart {
        /// Which.
        place: String,
        /// At the how-manieth time.
        turn: u64,
    },
    /// A file operation fails.
    Failure {
        /// What this is in the table.
        met: Met,
        /// The rule.
        rule: String,
        /// Whether the log must be poisoned by it.
        is_poison: bool,
    },
    /// It can open no more files than so many.
    Files {
        /// How many more than it has.
        more: u64,
    },
    /// The disk runs full.
    Full {
        /// Bytes that are left.
        left: u64,
        /// Whether there is room again while it runs.
        is_mended: bool,
        /// Whether the next start finds the disk full.
        is_left_full: bool,
    },
}

impl Trouble {
    /// The rules for the daemon, and whether they wait until everything was checked.
    pub fn rules(&self) -> Option<(String, bool)> {
        match self {
            Self::Planted => Some((EARLY_RULE.to_owned(), true)),
            Self::Point { place, turn } => Some((format!("{place}={}@{turn}", ending(place)), true)),
            Self::PointAtStart { place, turn } => Some((format!("{place}={}@{turn}", ending(place)), false)),
            Self::Failure { rule, .. } => Some((rule.clone(), true)),
            Self::Kill | Self::Stop | Self::Files { .. } | Self::Full { .. } => None,
        }
    }
}

/// Longest wait for what every batch passes: while clients work it comes, on a loaded machine too.
const REACH_OF_BATCHES: Duration = Duration::from_secs(10);
/// Longest wait for a place that not every round comes to.
const REACH_OF_OTHERS: Duration = Duration::from_millis(1_500);

/// How long a place, or the first part of a rule, may take to be passed while clients work.
pub fn reach_of(place: &str) -> Duration {
    let each_batch = ["batch.", "owner.appended", "instance.", "write.segment", "sync.segment"];
    if each_batch.iter().any(|known| place.starts_with(known)) { REACH_OF_BATCHES } else { REACH_OF_OTHERS }
}

/// A batch is torn where it can be.
fn ending(place: &str) -> &'static str {
    if place == "write.segment" { "torn" } else { "die" }
}

/// Places that are passed while a daemon works, and how many times a round may pass them before.
const WORKING: [(&str, u64); 14] = [
    ("batch.encoded", 60),
    ("batch.written", 60),
    ("batch.synced", 60),
    ("batch.published", 60),
    ("owner.appended", 60),
    ("owner.loaded", 3),
    ("instance.folded", 40),
    ("instance.derived", 40),
    ("write.segment", 60),
    ("sync.segment", 60),
    ("rename.segment", 1),
    ("checkpoint.written", 1),
    ("checkpoint.synced", 1),
    ("checkpoint.named", 1),
];

/// Places that every start passes, and how many times.
const STARTING: [(&str, u64); 3] = [("journal.repaired", 1), ("owner.loaded", 4), ("owner.appended", 1)];

/// Sorts of trouble, as often as each is in a full bag of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Kill,
    Planted,
    Stop,
    Point,
    PointAtStart,
    WriteNoSpace,
    WriteIo,
    WriteShort,
    SyncNoSpace,
    SyncIo,
    OtherIo,
    Files,
    Full,
}

const IO: [Sort; 6] =
    [Sort::WriteNoSpace, Sort::WriteIo, Sort::WriteShort, Sort::SyncNoSpace, Sort::SyncIo, Sort::OtherIo];

/// Troubles to come.
pub struct Bag {
    full: Vec<Sort>,
    left: Vec<Sort>,
    places: usize,
    others: usize,
}

impl Bag {
    /// A bag for rounds on an ordinary disk.
    pub fn ordinary(mode: Mode, plant: Option<Plant>, has_points: bool) -> Self {
        let mut full = match (mode, plant) {
            (_, Some(Plant::EarlyAcknowledgement)) => vec![Sort::Planted],
            (Mode::All | Mode::Kill, None) => [vec![Sort::Kill; 8], vec![Sort::Stop]].concat(),
            (Mode::Points, None) => [vec![Sort::Point; 4], vec![Sort::PointAtStart]].concat(),
            (Mode::Io, None) => IO.to_vec(),
            (Mode::Files, None) => vec![Sort::Files],
            (Mode::Full, None) => vec![Sort::Full],
        };
        if mode == Mode::All && plant.is_none() {
            full.push(Sort::Files);
            if has_points {
                full.extend([Sort::Point; 4]);
                full.push(Sort::PointAtStart);
                full.extend(IO);
            }
        }
        Self { full, left: Vec::new(), places: 0, others: 0 }
    }

    /// A bag for rounds on a disk that can be filled.
    pub fn small_disk() -> Self {
        Self { full: vec![Sort::Full], left: Vec::new(), places: 0, others: 0 }
    }

    /// The next trouble.
    pub fn draw(&mut self, dice: &mut Dice) -> Trouble {
        if self.left.is_empty() {
            self.left.clone_from(&self.full);
        }
        let sort = self.left.swap_remove(dice.roll(self.left.len() as u64) as usize);
        let failure = |met, rule: &str, turn: u64, is_poison| Trouble::Failure {
            met,
            rule: format!("{rule}@{turn}"),
            is_poison,
        };
        let turn = 1 + dice.roll(40);
        match sort {
            Sort::Kill => Trouble::Kill,
            Sort::Planted => Trouble::Planted,
            Sort::Stop => Trouble::Stop,
            Sort::Point => {
                // By turns: chance alone leaves places out for long.
                let (place, most) = WORKING[self.places % WORKING.len()];
                self.places += 1;
                Trouble::Point { place: place.to_owned(), turn: 1 + dice.roll(most) }
            }
            Sort::PointAtStart => {
                let (place, most) = STARTING[self.places % STARTING.len()];
                Trouble::PointAtStart { place: place.to_owned(), turn: 1 + dice.roll(most) }
            }
            Sort::WriteNoSpace => failure(Met::WriteNoSpace, "write.segment=enospc", turn, false),
            Sort::WriteIo => failure(Met::WriteIo, "write.segment=eio", turn, true),
            Sort::WriteShort => failure(Met::WriteShort, "write.segment=short", turn, true),
            Sort::SyncNoSpace => failure(Met::SyncNoSpace, "sync.segment=enospc", turn, true),
            Sort::SyncIo => failure(Met::SyncIo, "sync.segment=eio", turn, true),
            Sort::OtherIo => {
                let others =
                    ["write.witness=eio", "create.spare=eio", "write.spare=enospc", "rename.segment=eio"];
                self.others += 1;
                failure(Met::OtherIo, others[self.others % others.len()], 1, false)
            }
            Sort::Files => Trouble::Files { more: dice.roll(4) },
            Sort::Full => Trouble::Full {
                left: dice.roll(4) * 4_096 * dice.roll(4),
                is_mended: dice.roll(2) == 0,
                is_left_full: dice.roll(3) == 0,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bag_gives_all_of_its_troubles_before_any_comes_again() {
        let (mut bag, mut dice) = (Bag::ordinary(Mode::All, None, true), Dice::new(7, 7));
        let drawn: Vec<Trouble> = (0..bag.full.len()).map(|_| bag.draw(&mut dice)).collect();
        assert_eq!(drawn.iter().filter(|trouble| **trouble == Trouble::Kill).count(), 8);
        let failures = drawn.iter().filter(|trouble| matches!(trouble, Trouble::Failure { .. })).count();
        assert_eq!(failures, IO.len());
    }

    #[test]
    fn a_build_without_failpoints_is_asked_for_none() {
        let (mut bag, mut dice) = (Bag::ordinary(Mode::All, None, false), Dice::new(1, 1));
        assert!((0..200).all(|_| bag.draw(&mut dice).rules().is_none()));
    }

    #[test]
    fn what_every_batch_passes_is_waited_for_longer_than_what_a_round_may_not_come_to() {
        let is_awaited = |place: &str| reach_of(place) == REACH_OF_BATCHES;
        let awaited: Vec<&str> =
            WORKING.iter().map(|(place, _)| *place).filter(|it| is_awaited(it)).collect();
        assert_eq!(awaited.len(), 9, "{awaited:?}");
        assert!(
            !is_awaited("checkpoint.named") && !is_awaited("rename.segment") && !is_awaited("owner.loaded")
        );
        assert!(is_awaited("sync.segment=eio@3"));
    }

    #[test]
    fn a_planted_mistake_is_in_every_round() {
        let plant = Some(Plant::EarlyAcknowledgement);
        let (mut bag, mut dice) = (Bag::ordinary(Mode::All, plant, true), Dice::new(1, 1));
        assert!((0..20).all(|_| bag.draw(&mut dice) == Trouble::Planted));
    }
}
