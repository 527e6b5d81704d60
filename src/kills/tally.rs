//! What a campaign met, and how often it must have.
//!
//! A green result says nothing about what never happened: what is declared here with a minimum must have been
//! met, or the campaign ends with exit code 13.

use std::collections::BTreeMap;

/// Something that happens to a daemon, or that comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Met {
    /// SIGKILL at a drawn moment.
    Kill,
    /// Its own end at a named place, while it worked.
    Point,
    /// Its own end at a named place, while it started.
    PointAtStart,
    /// SIGKILL to the sled beside it.
    SledKill,
    /// SIGSTOP, and SIGCONT later.
    Pause,
    /// Another daemon on the same directory, refused.
    Second,
    /// A batch that did not fit.
    WriteNoSpace,
    /// A batch that the disk did not take.
    WriteIo,
    /// A batch of which the disk took half.
    WriteShort,
    /// A sync that found no space.
    SyncNoSpace,
    /// A sync that the disk did not do.
    SyncIo,
    /// A failure of any other operation on files.
    OtherIo,
    /// The end of a daemon whose log was poisoned, by itself and with an exit code.
    EndedPoisoned,
    /// A daemon that could open no more files.
    NoMoreFiles,
    /// A disk that was filled up while clients worked.
    DiskFilled,
    /// A start on a full disk.
    StartedFull,
    /// Requests that were put off while there was no space.
    PutOff,
    /// Work that went on when there was space again.
    WentOn,
    /// Requests whose outcome was open when the daemon died, settled by asking again.
    Settled,
    /// Accepted requests asked again long after, with the answer of the first time.
    Repeated,
    /// A clean stop, after which a start and another left only their marks.
    CleanStop,
    /// Both checks of the directory without a daemon.
    Verified,
}

impl Met {
    /// With what people read, and the least number in a thousand rounds of the sort that can meet it.
    const ALL: [(Self, &'static str, u64); 22] = [
        (Self::Kill, "killed with -9 at any moment", 300),
        (Self::Point, "died at a named place", 80),
        (Self::PointAtStart, "died at a named place while starting", 10),
        (Self::SledKill, "sled killed with -9", 80),
        (Self::Pause, "stopped and continued", 50),
        (Self::Second, "second daemon on the directory refused", 20),
        (Self::WriteNoSpace, "write of a batch: no space", 20),
        (Self::WriteIo, "write of a batch: I/O error", 20),
        (Self::WriteShort, "write of a batch: half of it, then I/O error", 20),
        (Self::SyncNoSpace, "sync of a batch: no space", 20),
        (Self::SyncIo, "sync of a batch: I/O error", 20),
        (Self::OtherIo, "another file operation failed", 5),
        (Self::EndedPoisoned, "ended by itself after a failed write or sync", 40),
        (Self::NoMoreFiles, "no more open files", 20),
        (Self::DiskFilled, "disk full under load", 500),
        (Self::StartedFull, "started on a full disk", 100),
        (Self::PutOff, "requests put off for want of space", 300),
        (Self::WentOn, "went on when there was space again", 100),
        (Self::Settled, "settled by asking again", 500),
        (Self::Repeated, "accepted long ago, asked again, same answer", 100),
        (Self::CleanStop, "stopped cleanly: only marks in the log", 20),
        (Self::Verified, "directory verified without a daemon", 1_000),
    ];

    /// Whether it takes a build with failpoints.
    const fn needs_points(self) -> bool {
        matches!(
            self,
            Self::Point
                | Self::PointAtStart
                | Self::WriteNoSpace
                | Self::WriteIo
                | Self::WriteShort
                | Self::SyncNoSpace
                | Self::SyncIo
                | Self::OtherIo
                | Self::EndedPoisoned
        )
    }

    /// Whether it takes a disk that can be filled.
    const fn needs_small_disk(self) -> bool {
        matches!(self, Self::DiskFilled | Self::StartedFull | Self::PutOff | Self::WentOn)
    }
}

/// How often each was met.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    met: BTreeMap<Met, u64>,
    /// Places at which it died, with how often.
    places: BTreeMap<String, u64>,
    /// Whether this host does not let a daemon's open files be limited.
    pub may_not_limit_files: bool,
    /// Rounds of each sort: with any failpoint, on a disk that can be filled, and all others.
    pub rounds: Rounds,
}

/// Rounds, by what can be met in them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rounds {
    /// On an ordinary disk.
    pub ordinary: u64,
    /// Of these, with a build that has failpoints.
    pub with_points: u64,
    /// On a small disk.
    pub small_disk: u64,
}

impl Tally {
    /// Notes that something was met so often.
    pub fn add(&mut self, met: Met, count: u64) {
        *self.met.entry(met).or_default() += count;
    }

    /// Notes that something was met.
    pub fn note(&mut self, met: Met) {
        self.add(met, 1);
    }

    /// Notes that it died at a place.
    pub fn died_at(&mut self, place: &str) {
        *self.places.entry(place.to_owned()).or_default() += 1;
    }

    /// Ends of the daemon, by whatever kill.
    pub fn kills(&self) -> u64 {
        [Met::Kill, Met::Point, Met::PointAtStart, Met::EndedPoisoned].map(|met| self.count(met)).iter().sum()
    }

    /// How often something was met.
    pub fn count(&self, met: Met) -> u64 {
        self.met.get(&met).copied().unwrap_or(0)
    }

    fn least(&self, met: Met, per_mille: u64) -> u64 {
        let rounds = if met == Met::NoMoreFiles && self.may_not_limit_files {
            0
        } else if met.needs_small_disk() {
            self.rounds.small_disk
        } else if met.needs_points() {
            self.rounds.with_points
        } else {
            self.rounds.ordinary
        };
        per_mille * rounds / 1_000
    }

    /// What was met too seldom, in words. Only a campaign of every trouble has to meet them all.
    pub fn short(&self) -> Vec<&'static str> {
        let is_short =
            |(met, _, per_mille): &(Met, &str, u64)| self.count(*met) < self.least(*met, *per_mille);
        Met::ALL.iter().filter(|row| is_short(row)).map(|(_, name, _)| *name).collect()
    }

    /// The table, one row a line.
    pub fn table(&self, with_minima: bool) -> String {
        let mut lines: Vec<String> = Met::ALL
            .iter()
            .map(|(met, name, per_mille)| {
                let (count, least) = (self.count(*met), self.least(*met, *per_mille));
                let wanted = if with_minima { format!(" of {least:>5} wanted") } else { String::new() };
                let mark = if with_minima && count < least { "  TOO FEW" } else { "" };
                format!("  {name:<46} {count:>7}{wanted}{mark}")
            })
            .collect();
        lines.extend(self.places.iter().map(|(place, count)| format!("  died at {place:<38} {count:>7}")));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_met_is_named_and_a_short_campaign_asks_for_little() {
        let mut tally = Tally { rounds: Rounds { ordinary: 100, ..Rounds::default() }, ..Tally::default() };
        tally.add(Met::Kill, 99);
        tally.add(Met::Verified, 100);
        let short = tally.short();
        assert!(short.contains(&"sled killed with -9"), "{short:?}");
        assert!(!short.contains(&"killed with -9 at any moment"), "{short:?}");
        assert!(!short.contains(&"disk full under load"), "no small disk, nothing asked of it: {short:?}");
        assert!(tally.table(true).contains("TOO FEW"));
        assert_eq!(Tally::default().short(), Vec::<&str>::new());
    }

    #[test]
    fn every_row_is_about_something_else() {
        for (nth, (met, ..)) in Met::ALL.into_iter().enumerate() {
            assert_eq!(met as usize, nth);
        }
    }
}
