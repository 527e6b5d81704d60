//! One round: start, check what was before, let clients work, let something go wrong, kill, verify.

use super::Found;
use super::disk::SmallDisk;
use super::house::{House, Limited, Rules, Started};
use super::load::{Clients, Dice};
use super::tally::{Met, Tally};
use super::trouble::{Bag, Trouble, reach_of};
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;
use tokio::time::sleep;

/// One round in so many comes to rest before anybody works.
const REST_ONE_IN: u64 = 10;
/// One round in so many is paused before the kill.
const PAUSE_ONE_IN: u64 = 4;
/// One round in so many sees a second daemon on the same directory.
const SECOND_ONE_IN: u64 = 10;
/// One round in so many kills the sled too.
const SLED_ONE_IN: u64 = 3;
/// How often it is looked whether a rule has struck.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Longest wait for a daemon whose log is poisoned to end.
const POISONED_MAX: Duration = Duration::from_secs(30);
/// How long clients go on after something failed that ends nothing.
const AFTERWARDS: Duration = Duration::from_millis(150);

/// Whatever a round is played with.
pub struct Stage<'a> {
    /// The processes.
    pub house: House,
    /// Who works.
    pub clients: Clients,
    /// Draws.
    pub dice: &'a mut Dice,
    /// What was met.
    pub tally: &'a mut Tally,
    /// What goes wrong.
    pub bag: &'a mut Bag,
    /// The disk, if it can be filled.
    pub disk: Option<&'a SmallDisk>,
    /// Rounds on this directory so far.
    pub rounds: u64,
    /// Whether the disk was full when the daemon was killed last.
    pub is_left_full: bool,
}

impl Stage<'_> {
    /// Plays a round.
    pub async fn play(&mut self) -> Result<(), Found> {
        let mut trouble = self.bag.draw(self.dice);
        if let Trouble::PointAtStart { place, .. } = &trouble {
            self.dies_while_starting(place, &trouble.rules()).await?;
            trouble = Trouble::Kill;
        }
        self.house.start(&trouble.rules()).await?;
        let was_full = std::mem::take(&mut self.is_left_full);
        if let Some(disk) = self.disk {
            disk.give_back();
        }
        self.check().await?;
        if trouble == Trouble::Stop {
            self.stops_cleanly().await?;
            return self.ends().await;
        }
        // What a full disk has kept from being done at the start must be made up for.
        if was_full || self.rounds.is_multiple_of(REST_ONE_IN) {
            self.clients.come_to_rest(&self.house.http.clone(), &self.house.url()).await?;
        }
        self.is_left_full = matches!(trouble, Trouble::Full { is_left_full: true, .. });
        self.work(&trouble).await?;
        self.ends().await
    }

    /// However the daemon ended: its directory is whole.
    async fn ends(&mut self) -> Result<(), Found> {
        self.house.must_not_have_panicked()?;
        self.house.verify().await?;
        self.tally.note(Met::Verified);
        self.rounds += 1;
        Ok(())
    }

    /// A start that is to end at a place. Its rules count as long as it lives, so that it is given nothing to do: one
    /// that has not come to its place is killed.
    async fn dies_while_starting(&mut self, place: &str, rules: &Rules) -> Result<(), Found> {
        let started = self.house.start(rules).await?;
        let ended = self.house.wait_end(Duration::ZERO).await?;
        if started == Started::Ended || ended.is_some_and(|status| status.signal().is_some()) {
            self.tally.note(Met::PointAtStart);
            self.tally.died_at(place);
        } else {
            self.tally.note(Met::Kill);
        }
        self.house.kill_daemon().await;
        self.house.verify().await
    }

    /// After the last kill: one more start, and everything comes to rest.
    pub async fn last(&mut self) -> Result<(), Found> {
        if let Some(disk) = self.disk {
            disk.give_back();
        }
        self.house.start(&None).await?;
        self.check().await?;
        self.clients.come_to_rest(&self.house.http.clone(), &self.house.url()).await
    }

    async fn check(&mut self) -> Result<(), Found> {
        let checked = self.clients.check(&self.house.http.clone(), &self.house.url()).await?;
        self.tally.add(Met::Settled, checked.settled);
        self.tally.add(Met::Repeated, checked.repeated);
        Ok(())
    }

    /// Clients work while something goes wrong, until the daemon is gone.
    async fn work(&mut self, trouble: &Trouble) -> Result<(), Found> {
        let (http, url) = (self.house.http.clone(), self.house.url());
        let (house, counts) = (&mut self.house, self.clients.counts());
        let mut hand = Hand { house, dice: self.dice, tally: self.tally, disk: self.disk, counts };
        let disturb = async {
            let disturbed = hand.disturb(trouble).await;
            if hand.dice.roll(SLED_ONE_IN) == 0 {
                hand.house.kill_sled().await;
                hand.tally.note(Met::SledKill);
            }
            // Whatever came before, the clients work until it is gone.
            hand.house.kill_daemon().await;
            disturbed
        };
        self.clients.work(&http, &url, disturb).await
    }
}

/// What disturbs, while the clients are at work.
struct Hand<'a> {
    house: &'a mut House,
    dice: &'a mut Dice,
    tally: &'a mut Tally,
    disk: Option<&'a SmallDisk>,
    counts: std::sync::Arc<super::load::Counts>,
}

impl Hand<'_> {
    async fn disturb(&mut self, trouble: &Trouble) -> Result<(), Found> {
        self.house.open_gate()?;
        match trouble {
            // A clean stop is not for while they work.
            Trouble::Kill | Trouble::Planted | Trouble::Stop => self.at_any_moment().await,
            Trouble::Point { place, .. } => self.at_a_place(place).await,
            // The start did not come there.
            Trouble::PointAtStart { .. } => self.at_any_moment().await,
            Trouble::Failure { met, rule, is_poison } => self.failing(*met, rule, *is_poison).await,
            Trouble::Files { more } => {
                match self.house.limit_files(*more)? {
                    Limited::Done => self.tally.note(Met::NoMoreFiles),
                    Limited::NotPermitted(why) => {
                        if !std::mem::replace(&mut self.tally.may_not_limit_files, true) {
                            eprintln!("no rounds without open files: {why}");
                        }
                    }
                }
                self.while_they_work(150, 500).await;
                self.killed();
                Ok(())
            }
            Trouble::Full { left, is_mended, is_left_full } => {
                self.full(*left, *is_mended, *is_left_full).await
            }
        }
    }

    async fn while_they_work(&mut self, min_ms: u64, more_ms: u64) {
        sleep(Duration::from_millis(min_ms + self.dice.roll(more_ms))).await;
    }

    fn killed(&mut self) {
        self.tally.note(Met::Kill);
    }

    async fn at_any_moment(&mut self) -> Result<(), Found> {
        self.while_they_work(40, 260).await;
        if self.dice.roll(SECOND_ONE_IN) == 0 {
            self.house.second_is_refused().await?;
            self.tally.note(Met::Second);
        }
        if self.dice.roll(PAUSE_ONE_IN) == 0 {
            let pause_ms = 50 + self.dice.roll(600);
            self.house.pause(Duration::from_millis(pause_ms)).await?;
            self.tally.note(Met::Pause);
            sleep(Duration::from_millis(pause_ms / 4)).await;
        }
        self.killed();
        Ok(())
    }

    async fn at_a_place(&mut self, place: &str) -> Result<(), Found> {
        match self.house.wait_end(reach_of(place)).await? {
            // abort() is how a failpoint dies.
            Some(status) if status.signal().is_some() => {
                self.tally.note(Met::Point);
                self.tally.died_at(place);
                Ok(())
            }
            Some(status) => Err(Found::new("I18", format!("the daemon ended by itself: {status}"))),
            None => {
                self.killed();
                Ok(())
            }
        }
    }

    async fn failing(&mut self, met: Met, rule: &str, is_poison: bool) -> Result<(), Found> {
        let looks = reach_of(rule).as_millis() / LOOK_EVERY.as_millis();
        for _ in 0..looks {
            if self.house.has_struck() {
                break;
            }
            sleep(LOOK_EVERY).await;
        }
        if !self.house.has_struck() {
            self.killed();
            return Ok(());
        }
        self.tally.note(met);
        let patience = if is_poison { POISONED_MAX } else { AFTERWARDS };
        match self.house.wait_end(patience).await? {
            Some(status) if status.code().is_some_and(|code| code != 0) => {
                self.tally.note(Met::EndedPoisoned);
                Ok(())
            }
            Some(status) => Err(Found::new("I18", format!("after {met:?} the daemon ended with {status}"))),
            None if is_poison => Err(Found::new(
                "I18",
                format!("after {met:?} the daemon goes on, although its log is poisoned"),
            )),
            None => {
                self.killed();
                Ok(())
            }
        }
    }

    async fn full(&mut self, left: u64, is_mended: bool, is_left_full: bool) -> Result<(), Found> {
        let failed = |error: std::io::Error| Found::new("I18", format!("the disk cannot be filled: {error}"));
        let Some(disk) = self.disk else {
            self.killed();
            return Ok(());
        };
        self.while_they_work(20, 100).await;
        disk.fill(left).map_err(failed)?;
        self.tally.note(Met::DiskFilled);
        let put_off = self.counts.put_off();
        self.while_they_work(100, 300).await;
        if self.counts.put_off() > put_off {
            self.tally.note(Met::PutOff);
        }
        if is_mended {
            disk.give_back();
            let acknowledged = self.counts.acknowledged();
            self.while_they_work(100, 200).await;
            if self.counts.acknowledged() > acknowledged {
                self.tally.note(Met::WentOn);
            }
            if is_left_full {
                disk.fill(left).map_err(failed)?;
            }
        }
        if is_left_full {
            self.tally.note(Met::StartedFull);
        } else {
            disk.give_back();
        }
        self.killed();
        Ok(())
    }
}
