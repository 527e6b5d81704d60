//! A checkpoint is the fold, or it is not used; and writing one never costs the one before it.

#![allow(clippy::unwrap_used, reason = "tests; helpers outside of test functions too")]

#[path = "../../projections/tests/fleet/mod.rs"]
mod fleet;

use checkpoint::file::{SHARED_VERSION, read, write};
use checkpoint::make::advance_stepwise;
use checkpoint::{Past, State, Step, Unusable, Verdict, advance, beyond_end, compare, newest};
use eventlog::{Position, ReadError, Record, StoreId};
use fleet::{Fleet, Move, any_move, name};
use lifecycle::{Quota, QuotaScope, SystemEvent, VmmState};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

const STORE: StoreId = StoreId([7; 16]);

/// The first records of a log.
struct Records(Vec<Record>);

impl Past for Records {
    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        Ok(self.0.iter().filter(|record| record.position >= from).take(limit).cloned().collect())
    }

    fn durable(&self) -> Position {
        self.0.last().map_or(Position::ZERO, |record| record.position)
    }
}

impl Records {
    fn first(&self, count: usize) -> Self {
        Self(self.0[..count.min(self.0.len())].to_vec())
    }

    fn folded(&self) -> State {
        let mut state = State::default();
        for record in &self.0 {
            state.apply(record).unwrap();
        }
        state
    }
}

/// Instances in all states, a migration, groups and quotas.
fn busy() -> Records {
    let mut fleet = Fleet::founded();
    let mut ids = Vec::new();
    for n in 0..6 {
        let id = fleet.create(n % 2, &name(n), n.checked_sub(3));
        fleet.report(id, 1, VmmState::Starting);
        ids.push(id);
    }
    let running = fleet.running(0, "runs", 1);
    fleet.migrating(running, 2);
    for act in 0..3 {
        fleet.act(&Move::Group { project: 0, group: 0, act, instance: 1 });
    }
    fleet.set_quota(QuotaScope::Silo, Quota { cpus: Some(500), memory: None });
    fleet.act(&Move::Delete(0));
    fleet.delete(ids[1]);
    Records(fleet.records())
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn bytes(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = write(state, STORE, &mut bytes).unwrap();
    assert_eq!(written, bytes.len() as u64);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happened_a_checkpoint_is_the_fold_and_so_is_one_made_from_it(
        moves in prop::collection::vec(any_move(), 1..60),
        part in 0.0..1.0f64,
    ) {
        let mut fleet = Fleet::founded();
        for step in &moves {
            fleet.act(step);
        }
        let all = Records(fleet.records());
        #[expect(clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a part of a small number")]
        let first = all.first(1 + (part * (all.0.len() - 1) as f64) as usize);
        let dir = tempfile::tempdir().unwrap();
        let made = advance(dir.path(), STORE, &first).unwrap().unwrap();
        prop_assert_eq!((made.position, made.base), (first.durable(), Position::ZERO));
        let again = advance(dir.path(), STORE, &all).unwrap();
        prop_assert_eq!(again.is_some(), all.durable() > first.durable());
        let found = newest(dir.path(), STORE, &all);
        prop_assert!(found.refused.is_empty());
        prop_assert!(found.state.unwrap() == all.folded());
        for compared in compare(dir.path(), STORE, &all).unwrap() {
            prop_assert!(matches!(compared.verdict, Verdict::Same), "{:?}", compared.verdict);
        }
    }
}

#[test]
fn a_crash_before_any_step_of_writing_leaves_one_that_can_be_used() {
    let all = busy();
    let (first, second) = (all.first(20), all.first(40));
    let mut steps = Vec::new();
    let count_steps = tempfile::tempdir().unwrap();
    for past in [&first, &second, &all] {
        steps.clear();
        let note = &mut |step| {
            steps.push(step);
            Ok(())
        };
        advance_stepwise(count_steps.path(), STORE, past, note).unwrap().unwrap();
    }
    let expected = [Step::Create, Step::Write, Step::Sync, Step::Rename, Step::SyncDirectory, Step::Remove];
    assert_eq!(steps, expected);
    for crash in expected {
        let dir = tempfile::tempdir().unwrap();
        advance(dir.path(), STORE, &first).unwrap();
        advance(dir.path(), STORE, &second).unwrap();
        let die = &mut |step| if step == crash { Err(std::io::Error::other("dead")) } else { Ok(()) };
        advance_stepwise(dir.path(), STORE, &all, die).unwrap_err();
        let temporary = dir.path().join("checkpoint.tmp");
        if crash == Step::Sync || crash == Step::Rename {
            // What was not synced may be there in part only; what was synced may not have been at all.
            let whole = fs::read(&temporary).unwrap();
            fs::write(&temporary, &whole[..whole.len() / 2]).unwrap();
        }
        if crash == Step::SyncDirectory {
            fs::rename(dir.path().join(format!("{:020}.ckp", all.durable().get())), &temporary).unwrap();
        }
        let found = newest(dir.path(), STORE, &all);
        assert!(found.refused.is_empty(), "{crash:?}: {:?}", found.refused);
        let (state, expected) = (found.state.unwrap(), if crash == Step::Remove { &all } else { &second });
        assert!(state == expected.folded(), "{crash:?} leaves {}", state.position());
        let made = advance(dir.path(), STORE, &all).unwrap();
        assert_eq!(made.is_none(), crash == Step::Remove);
        assert!(newest(dir.path(), STORE, &all).state.unwrap() == all.folded());
        if made.is_some() {
            assert_eq!(
                files(dir.path()).len(),
                2,
                "{crash:?}: the new one and the one that it was made from"
            );
        }
    }
}

#[test]
fn one_that_cannot_be_written_leaves_nothing_behind() {
    let (all, dir) = (busy(), tempfile::tempdir().unwrap());
    let first = all.first(20);
    advance(dir.path(), STORE, &first).unwrap();
    // Something else has the name.
    let taken = dir.path().join(format!("{:020}.ckp", all.durable().get()));
    fs::create_dir_all(taken.join("in the way")).unwrap();
    advance(dir.path(), STORE, &all).unwrap_err();
    assert!(!dir.path().join("checkpoint.tmp").exists());
    let found = newest(dir.path(), STORE, &all);
    assert!(found.state.unwrap() == first.folded());
    assert!(matches!(&found.refused[..], [(path, _)] if *path == taken));
    fs::remove_dir_all(&taken).unwrap();
    advance(dir.path(), STORE, &all).unwrap().unwrap();
    assert!(newest(dir.path(), STORE, &all).state.unwrap() == all.folded());
}

#[test]
fn the_two_newest_are_kept() {
    let (all, dir) = (busy(), tempfile::tempdir().unwrap());
    for count in (10..=all.0.len()).step_by(7) {
        advance(dir.path(), STORE, &all.first(count)).unwrap();
        assert!(files(dir.path()).len() <= 2);
    }
    assert_eq!(files(dir.path()).len(), 2);
}

#[test]
fn a_changed_byte_and_a_missing_end_are_told_and_the_older_one_is_used() {
    let (all, dir) = (busy(), tempfile::tempdir().unwrap());
    let first = all.first(20);
    advance(dir.path(), STORE, &first).unwrap();
    advance(dir.path(), STORE, &all).unwrap();
    let newer = files(dir.path()).pop().unwrap();
    let whole = fs::read(&newer).unwrap();
    assert!(read(STORE, &whole[..]).unwrap() == all.folded());
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        assert!(read(STORE, &changed[..]).is_err(), "byte {at} changed");
        assert!(read(STORE, &whole[..at]).is_err(), "cut off at {at}");
    }
    let longer = [whole.clone(), vec![0]].concat();
    assert!(matches!(read(STORE, &longer[..]), Err(Unusable::Damaged(_))));
    fs::write(&newer, &whole[..whole.len() / 2]).unwrap();
    let found = newest(dir.path(), STORE, &all);
    assert!(matches!(&found.refused[..], [(path, Unusable::Damaged(_))] if *path == newer));
    assert!(found.state.unwrap() == first.folded());
    let compared = compare(dir.path(), STORE, &all).unwrap();
    let verdicts: Vec<&Verdict> = compared.iter().map(|compared| &compared.verdict).collect();
    assert!(matches!(verdicts[..], [Verdict::Same, Verdict::Unusable(Unusable::Damaged(_))]), "{verdicts:?}");
}

#[test]
fn one_of_another_store_build_or_history_is_not_used() {
    let (all, dir) = (busy(), tempfile::tempdir().unwrap());
    advance(dir.path(), STORE, &all).unwrap();
    let refused = |store, past: &Records| {
        let found = newest(dir.path(), store, past);
        assert!(found.state.is_none());
        found.refused.into_iter().next().unwrap().1
    };
    assert!(matches!(refused(StoreId([8; 16]), &all), Unusable::OtherStore));
    let shorter = all.first(all.0.len() - 1);
    assert!(matches!(refused(STORE, &shorter), Unusable::BeyondEnd { .. }));
    let mut other = all.first(all.0.len());
    other.0.last_mut().unwrap().time_us += 1;
    assert!(matches!(refused(STORE, &other), Unusable::OtherHistory));
    let compared = compare(dir.path(), STORE, &other).unwrap();
    assert!(matches!(compared[0].verdict, Verdict::Unusable(Unusable::OtherHistory)), "{compared:?}");
    let newer = files(dir.path()).pop().unwrap();
    let whole = fs::read(&newer).unwrap();
    for version_at in [8, 12, 16, 20] {
        let mut changed = whole.clone();
        changed[version_at] += 1;
        let crc = crc32c::crc32c(&changed[..60]);
        changed[60..64].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(read(STORE, &changed[..]), Err(Unusable::OtherBuild(_))), "at {version_at}");
    }
}

#[test]
fn one_beyond_the_end_of_the_log_testifies_whatever_build_made_it() {
    let (all, dir) = (busy(), tempfile::tempdir().unwrap());
    advance(dir.path(), STORE, &all).unwrap();
    let (durable, newer) = (all.durable(), files(dir.path()).pop().unwrap());
    let before = Position::new(durable.get() - 1);
    let whole = fs::read(&newer).unwrap();
    let told = |bytes: &[u8]| {
        fs::write(&newer, bytes).unwrap();
        beyond_end(dir.path(), STORE, before).unwrap()
    };
    let of_another_build = |version_at: usize| {
        let mut changed = whole.clone();
        changed[version_at] += 1;
        let crc = crc32c::crc32c(&changed[..60]);
        changed[60..64].copy_from_slice(&crc.to_le_bytes());
        changed
    };
    assert_eq!(told(&whole), Some(durable));
    for fold_or_model_or_shared in [12, 16, 20] {
        assert_eq!(told(&of_another_build(fold_or_model_or_shared)), Some(durable));
    }
    assert_eq!(told(&whole[..64]), Some(durable), "the header is enough");
    assert_eq!(told(&of_another_build(8)), None, "another layout says nothing");
    assert_eq!(told(&whole[..63]), None, "cut off");
    let mut changed = whole.clone();
    changed[40] ^= 1;
    assert_eq!(told(&changed), None, "damaged");
    fs::write(&newer, &whole).unwrap();
    assert_eq!(beyond_end(dir.path(), StoreId([8; 16]), before).unwrap(), None, "another store's");
    assert_eq!(beyond_end(dir.path(), STORE, durable).unwrap(), None, "not beyond");
    fs::remove_file(&newer).unwrap();
    fs::create_dir(&newer).unwrap();
    assert_eq!(beyond_end(dir.path(), STORE, before).unwrap(), None, "something else has the name");
}

#[test]
fn one_that_is_not_the_fold_is_told() {
    let (all, dir) = (busy(), tempfile::tempdir().unwrap());
    advance(dir.path(), STORE, &all).unwrap();
    let mut wrong = all.folded();
    let quota = Quota { cpus: Some(1), memory: None };
    wrong.ledger.apply_system(&SystemEvent::QuotaSet { scope: QuotaScope::Fleet, quota });
    fs::write(files(dir.path()).pop().unwrap(), bytes(&wrong)).unwrap();
    let compared = compare(dir.path(), STORE, &all).unwrap();
    assert!(matches!(compared[0].verdict, Verdict::Differs("the ledger")), "{:?}", compared[0].verdict);
}

#[test]
fn the_bytes_change_only_with_a_version() {
    // Other numbers mean that SHARED_VERSION has to rise, or FOLD_VERSION or MODEL_VERSION, and these with it.
    let bytes = bytes(&busy().folded());
    let found = (SHARED_VERSION, bytes.len(), crc32c::crc32c(&bytes));
    assert_eq!(found, (1, 5_498, 1_116_902_451));
}
