//! Durable appends: journal and plain file in turns, and the embedded database for the record.

use crate::Failure;
use crate::log::engine::{Round, round};
use crate::log::group::{Database, Group, PlainFile};
use crate::log::journal::{JournalWriter, RECORD_BYTES};
use crate::log::{PAYLOAD_BYTES, Plan};
use crate::report::Report;
use crate::statistics::{count, median, range};
use eventlog::{Journal, JournalConfig, Log, StoreId};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// Larger than what a round writes into it matters to nobody; small enough to stay in the page cache.
const FILE_BYTES: usize = 256 << 20;

fn each(rounds: &[Round], field: impl Fn(&Round) -> f64) -> Vec<f64> {
    rounds.iter().map(field).collect()
}

/// A round of the plain file, and appends per sync in it.
async fn file_round(file: &Group, writers: u32, plan: Plan) -> Result<(Round, f64), Failure> {
    let before = file.commits();
    let round = round((0..writers).map(|_| file.writer(RECORD_BYTES)).collect(), plan.round).await?;
    Ok((round, round.appends / count((file.commits() - before).max(1))))
}

/// A round of the journal, and appends per sync in it.
async fn journal_round(log: &Arc<dyn Log>, writers: u32, plan: Plan) -> Result<(Round, f64), Failure> {
    let mut owners = Vec::new();
    for number in 0..writers {
        owners.push(JournalWriter::claim(log.clone(), number).await?);
    }
    let before = log.stats().syncs;
    let round = round(owners, plan.round).await?;
    Ok((round, round.appends / count((log.stats().syncs - before).max(1))))
}

/// Journal and plain file, round by round.
pub async fn beside_file(
    dir: &Path,
    writers: &[u32],
    plan: Plan,
    report: &mut Report,
) -> Result<(), Failure> {
    let file = Group::start(PlainFile::create(&dir.join("plain"), FILE_BYTES)?)?;
    let journal_dir = dir.join("journal");
    let (log, _) = Journal::open(&journal_dir, JournalConfig::new(StoreId([1; 16])))?;
    tokio::spawn(log.herald());
    let log: Arc<dyn Log> = Arc::new(log);
    for &writers in writers {
        let (mut files, mut journals) = (vec![], vec![]);
        for number in 0..plan.rounds {
            // Whoever comes second finds the disk's queue as the first left it: they take turns.
            let is_file_first = number % 2 == 0;
            if is_file_first {
                files.push(file_round(&file, writers, plan).await?);
            }
            journals.push(journal_round(&log, writers, plan).await?);
            if !is_file_first {
                files.push(file_round(&file, writers, plan).await?);
            }
        }
        let (journals, per_sync): (Vec<Round>, Vec<f64>) = journals.into_iter().unzip();
        let (files, file_per_sync): (Vec<Round>, Vec<f64>) = files.into_iter().unzip();
        let ratios: Vec<f64> =
            journals.iter().zip(&files).map(|(j, f)| j.per_second / f.per_second).collect();
        let latencies: Vec<f64> = journals.iter().zip(&files).map(|(j, f)| j.p50_us / f.p50_us).collect();
        let (lowest, highest) = range(&ratios);
        report.row(&json!({
            "bench": "log_append",
            "writers": writers,
            "rounds": plan.rounds,
            "per_second": median(&each(&journals, |it| it.per_second)),
            "file_per_second": median(&each(&files, |it| it.per_second)),
            "ratio_to_file": median(&ratios),
            "ratio_lowest": lowest,
            "ratio_highest": highest,
            "p50_us": median(&each(&journals, |it| it.p50_us)),
            "p99_us": median(&each(&journals, |it| it.p99_us)),
            "file_p50_us": median(&each(&files, |it| it.p50_us)),
            "file_p99_us": median(&each(&files, |it| it.p99_us)),
            "latency_ratio": median(&latencies),
            "cpu_us": median(&each(&journals, |it| it.cpu_us)),
            "file_cpu_us": median(&each(&files, |it| it.cpu_us)),
            "appends_per_sync": median(&per_sync),
            "file_appends_per_sync": median(&file_per_sync),
        }));
    }
    log.close().await;
    drop(file);
    std::fs::remove_file(dir.join("plain"))?;
    std::fs::remove_dir_all(journal_dir)?;
    Ok(())
}

/// The embedded database as the event store: same queue, one batch and one `flush` per group.
pub async fn embedded_database(dir: &Path, plan: Plan, report: &mut Report) -> Result<(), Failure> {
    for writers in [1, 64, 256] {
        let path = dir.join(format!("database-{writers}"));
        let group = Group::start(Database::create(&path)?)?;
        let mut rounds = vec![];
        for _ in 0..plan.rounds {
            let owners = (0..writers).map(|_| group.writer(RECORD_BYTES)).collect();
            rounds.push(round(owners, plan.round).await?);
        }
        drop(group);
        let stored = median(&each(&rounds, |it| it.per_second));
        report.row(&json!({
            "bench": "database_append",
            "writers": writers,
            "per_second": stored,
            "p50_us": median(&each(&rounds, |it| it.p50_us)),
            "p99_us": median(&each(&rounds, |it| it.p99_us)),
            "payload_bytes": PAYLOAD_BYTES,
            "note": "flush of this database does not sync the device",
        }));
        std::fs::remove_dir_all(path)?;
    }
    Ok(())
}
