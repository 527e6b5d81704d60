//! A clean stop: the daemon ends by SIGTERM with exit code 0, and a start and a stop more leave nothing in the log but
//! their marks (I28).

use super::Found;
use super::house::House;
use super::round::Stage;
use super::tally::Met;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::sleep;

/// Most stops and starts until one pair leaves nothing but marks: what was still under way is made up for first.
const CYCLES_MAX: usize = 20;
/// How long a daemon that was started is left alone: its sleds are asked, its timers look once.
const LEFT_ALONE: Duration = Duration::from_millis(500);

/// What a start and a stop leave: how often each event was counted before and after.
const MARKS: [&str; 2] = ["system DaemonStarted", "system DaemonStopped"];

impl Stage<'_> {
    /// Comes to rest, stops, and stops and starts until that writes nothing but marks.
    pub(super) async fn stops_cleanly(&mut self) -> Result<(), Found> {
        self.clients.come_to_rest(&self.house.http.clone(), &self.house.url()).await?;
        let mut before = stopped(&mut self.house).await?;
        let mut extra = Vec::new();
        for _ in 0..CYCLES_MAX {
            self.house.start(&None).await?;
            sleep(LEFT_ALONE).await;
            let after = stopped(&mut self.house).await?;
            extra = more(&before, &after);
            if extra.is_empty() {
                self.tally.note(Met::CleanStop);
                return Ok(());
            }
            before = after;
        }
        Err(Found::new("I28", format!("every clean stop and start writes to the log: {extra:?}")))
    }
}

/// Stops the daemon and counts what its log holds.
async fn stopped(house: &mut House) -> Result<BTreeMap<String, u64>, Found> {
    house.stop_daemon().await?;
    Ok(counted(&house.stats().await?))
}

/// How often each event is in the log, by the table of `musher log stats`.
fn counted(stats: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let name = format!("{} {}", words.next()?, words.next()?);
        Some((name, words.next()?.parse().ok()?))
    };
    stats.lines().skip_while(|line| !line.starts_with("EVENT")).skip(1).filter_map(row).collect()
}

/// What there is more of than one mark of each sort, in words.
fn more(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Vec<String> {
    let count = |all: &BTreeMap<String, u64>, name: &str| all.get(name).copied().unwrap_or(0);
    let names = after.keys().map(String::as_str).chain(MARKS);
    let names: std::collections::BTreeSet<&str> = names.collect();
    let differs = |name: &&str| count(after, name) != count(before, name) + u64::from(MARKS.contains(name));
    let told = |name: &str| format!("{name}: {} -> {}", count(before, name), count(after, name));
    names.into_iter().filter(differs).map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "durable      12\nEVENT                  COUNT  BYTES\ninstance Created       2  40\n\
                          system DaemonStarted   1  10\nsystem DaemonStopped   1  0\n";

    #[test]
    fn one_mark_of_each_sort_is_no_news_and_anything_else_is() {
        let before = counted(BEFORE);
        assert_eq!(before["instance Created"], 2);
        let marked = BEFORE.replace("Started   1", "Started   2").replace("Stopped   1", "Stopped   2");
        assert!(more(&before, &counted(&marked)).is_empty());
        let written = marked.replace("Created       2", "Created       3");
        assert_eq!(more(&before, &counted(&written)), ["instance Created: 2 -> 3"]);
        assert_eq!(more(&before, &before).len(), 2, "both marks are missing");
    }
}
