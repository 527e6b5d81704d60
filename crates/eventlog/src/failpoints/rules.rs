//! Rules: which place does what, from the how-manieth time on.
//!
//! ```text
//! batch.written=die@7, sync.segment=eio@20+, write.segment=late:60@1+
//! ```

use super::Point;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most rules of one process: a test has a few.
const RULES_MAX: usize = 64;

/// Longest stall or delay, milliseconds.
const DELAY_MS_MAX: u64 = 60_000;

/// What a place does when its turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The process ends at once, as by a kill: nothing is flushed, nothing is dropped.
    Die,
    /// Half of the bytes are written, and then it dies. Where nothing is written, it dies.
    Torn,
    /// There is no space.
    NoSpace,
    /// The disk is ill.
    Io,
    /// Half of the bytes are written, and then the disk is ill.
    Short,
    /// It takes so many milliseconds longer.
    Stall(u64),
    /// It is answered as done, and done so many milliseconds later: the mistake of answering too early.
    Late(u64),
}

/// Why rules were not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "failpoints: \"{rule}\" {why}; write NAME=ACTION@N or NAME=ACTION@N+, with a name that `musher chaos list` shows"
)]
pub struct Unclear {
    rule: String,
    why: &'static str,
}

impl Point {
    const ALL: [(Self, &'static str); 12] = [
        (Self::BatchEncoded, "batch.encoded"),
        (Self::BatchWritten, "batch.written"),
        (Self::BatchSynced, "batch.synced"),
        (Self::BatchPublished, "batch.published"),
        (Self::JournalRepaired, "journal.repaired"),
        (Self::OwnerLoaded, "owner.loaded"),
        (Self::OwnerAppended, "owner.appended"),
        (Self::InstanceFolded, "instance.folded"),
        (Self::InstanceDerived, "instance.derived"),
        (Self::CheckpointWritten, "checkpoint.written"),
        (Self::CheckpointSynced, "checkpoint.synced"),
        (Self::CheckpointNamed, "checkpoint.named"),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// File operations that have a name of their own: a verb, and the kind of file.
const FILE_NAMES: [&str; 16] = [
    "write.segment",
    "sync.segment",
    "rename.segment",
    "create.spare",
    "write.spare",
    "sync.spare",
    "create.heads",
    "write.heads",
    "sync.heads",
    "rename.heads",
    "create.witness",
    "write.witness",
    "sync.witness",
    "write.other",
    "sync.other",
    "sync.directory",
];

/// Every name that a rule can have: places first, then file operations.
pub fn names() -> impl Iterator<Item = &'static str> {
    Point::ALL.iter().map(|(_, name)| *name).chain(FILE_NAMES)
}

#[derive(Debug)]
struct Rule {
    name: &'static str,
    action: Action,
    from: u64,
    is_lasting: bool,
    passed: AtomicU64,
}

/// The rules of a process.
#[derive(Debug, Default)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    pub(crate) fn parse(text: &str) -> Result<Self, Unclear> {
        let rules: Result<Vec<Rule>, Unclear> = text
            .split(',')
            .map(str::trim)
            .filter(|rule| !rule.is_empty())
            .map(|rule| parse(rule).map_err(|why| Unclear { rule: rule.to_owned(), why }))
            .collect();
        let rules = rules?;
        if rules.len() > RULES_MAX {
            return Err(Unclear {
                rule: text.chars().take(40).collect(),
                why: "and more are too many rules",
            });
        }
        Ok(Self(rules))
    }

    /// Counts that a place is passed; answers what it does now.
    pub(crate) fn strike(&self, name: &str) -> Option<Action> {
        let mut struck = None;
        for rule in self.0.iter().filter(|rule| rule.name == name) {
            let turn = rule.passed.fetch_add(1, Ordering::SeqCst) + 1;
            if turn == rule.from || (rule.is_lasting && turn > rule.from) {
                struck = struck.or(Some(rule.action));
            }
        }
        struck
    }
}

fn parse(rule: &str) -> Result<Rule, &'static str> {
    let (name, rest) = rule.split_once('=').ok_or("has no action")?;
    let name = names().find(|known| *known == name).ok_or("names no place")?;
    let (action, turn) = rest.split_once('@').unwrap_or((rest, "1"));
    let (turn, is_lasting) = turn.strip_suffix('+').map_or((turn, false), |turn| (turn, true));
    let from = turn.parse().ok().filter(|from| *from > 0).ok_or("has no number from 1 after the @")?;
    let (action, delay) = action.split_once(':').unwrap_or((action, ""));
    let delay =
        || delay.parse().ok().filter(|ms| *ms <= DELAY_MS_MAX).ok_or("has no milliseconds up to 60000");
    let action = match action {
        "die" => Action::Die,
        "torn" => Action::Torn,
        "enospc" => Action::NoSpace,
        "eio" => Action::Io,
        "short" => Action::Short,
        "stall" => Action::Stall(delay()?),
        "late" => Action::Late(delay()?),
        _ => return Err("has an unknown action: die, torn, enospc, eio, short, stall:MS, late:MS"),
    };
    let is_of_files = FILE_NAMES.contains(&name);
    if !is_of_files && !matches!(action, Action::Die | Action::Stall(_)) {
        return Err("can only die or stall there");
    }
    Ok(Rule { name, action, from, is_lasting, passed: AtomicU64::new(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_strikes_at_its_turn_and_a_lasting_one_from_then_on() {
        let rules = Rules::parse("sync.segment=eio@2+, batch.written=die@3").unwrap();
        let struck: Vec<_> = (0..4).map(|_| rules.strike("sync.segment")).collect();
        assert_eq!(struck, [None, Some(Action::Io), Some(Action::Io), Some(Action::Io)]);
        let struck: Vec<_> = (0..4).map(|_| rules.strike("batch.written")).collect();
        assert_eq!(struck, [None, None, Some(Action::Die), None]);
        assert_eq!(rules.strike("batch.synced"), None);
    }

    #[test]
    fn every_point_has_its_own_name_at_its_own_place() {
        for (nth, (point, name)) in Point::ALL.into_iter().enumerate() {
            assert_eq!(point as usize, nth);
            assert_eq!(point.name(), name);
        }
        let mut all: Vec<_> = names().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_a_reason() {
        for (rule, why) in [
            ("batch.written", "has no action"),
            ("batch.wirtten=die", "names no place"),
            ("batch.written=eio", "can only die or stall there"),
            ("sync.segment=eio@0", "has no number"),
            ("sync.segment=oops@1", "unknown action"),
            ("sync.segment=stall:9999999", "milliseconds"),
        ] {
            let refused = Rules::parse(rule).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        assert!(Rules::parse(&"batch.written=die,".repeat(RULES_MAX + 1)).is_err());
    }
}
