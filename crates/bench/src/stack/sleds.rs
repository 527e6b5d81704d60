//! Many sleds on one daemon, at the default periods: what they cost while nothing happens, with and without guests, and
//! how long a start takes meanwhile.
//!
//! Invariants:
//! * the sleds are simulated, and everything between them and the daemon is HTTP over connections of their own;
//! * both rests are measured alike: what a guest costs is their difference.

use crate::Failure;
use crate::args::SledsOptions;
use crate::clock::now;
use crate::machine::{open_files, processor_nanoseconds, resident_bytes};
use crate::report::Report;
use crate::stack::daemon::{Daemon, Start};
use crate::stack::fleet;
use crate::stack::herd::Herd;
use crate::stack::http::Connection;
use crate::statistics::{count, percentile};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// Seconds between two inventories of one sled, by default, and how many of them a rest is long.
const PERIOD_S: f64 = 30.0;
const PERIODS: f64 = 4.0;

/// How long everything is left alone before a rest is measured: every sled has been asked for what changed last, and
/// pushes have ended.
const SETTLE: Duration = Duration::from_secs(40);

/// Clients that start instances.
const STARTERS: usize = 4;

/// Measures and prints.
pub async fn measure(options: &SledsOptions, scratch: &Path, report: &mut Report) -> Result<(), Failure> {
    let musher = options.musher.as_deref();
    let start = Start { args: &["--no-embedded-sleds"], settings: Some(&[]), core: None };
    let daemon = Daemon::start_as(musher, &scratch.join("data"), &start)?;
    let empty = resident_bytes(&daemon.process());
    let began = now();
    let herd = Herd::start(musher, &daemon, options.count, &scratch.join("sleds")).await?;
    report.row(&json!({
        "bench": "sleds",
        "what": "all in service",
        "sleds": options.count,
        "seconds": began.elapsed().as_secs_f64(),
        "daemon_cpu_s": count(daemon.processor_nanoseconds().unwrap_or(0)) / 1e9,
        "daemon_rss_empty_mib": mib(empty),
    }));
    let periods = if options.quick { 1.0 } else { PERIODS };
    rest("at rest, no guests", (&daemon, &herd), (options.count, periods), report).await?;

    let began = now();
    let mut micros = starts(&daemon, options.instances as usize).await?;
    report.row(&json!({
        "bench": "sleds",
        "what": "starts, until seen running",
        "starts": options.instances,
        "clients": STARTERS,
        "per_second": f64::from(options.instances) / began.elapsed().as_secs_f64(),
        "p50_ms": percentile(&mut micros, 500) / 1e3,
        "p99_ms": percentile(&mut micros, 990) / 1e3,
    }));
    let what = format!("at rest, {} guests", options.instances);
    rest(&what, (&daemon, &herd), (options.count, periods), report).await
}

fn mib(bytes: Option<u64>) -> Option<f64> {
    bytes.map(|bytes| count(bytes) / 1024.0 / 1024.0)
}

/// Starts instances, and answers how long each took, in microseconds.
async fn starts(daemon: &Daemon, number: usize) -> Result<Vec<u32>, Failure> {
    let mut tasks = Vec::new();
    for starter in 0..STARTERS {
        let mut connection = Connection::open(daemon.clients).await?;
        tasks.push(tokio::spawn(async move {
            let mut micros = Vec::new();
            for index in (starter..number).step_by(STARTERS) {
                let began = now();
                let id = fleet::create(&mut connection, &format!("bench-{index}")).await?;
                fleet::until_running(&mut connection, &id).await?;
                micros.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Ok::<_, Failure>(micros)
        }));
    }
    let mut all = Vec::with_capacity(number);
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}

/// Counts what goes on while nobody asks for anything.
async fn rest(
    what: &str,
    (daemon, herd): (&Daemon, &Herd),
    (sleds, periods): (u32, f64),
    report: &mut Report,
) -> Result<(), Failure> {
    tokio::time::sleep(SETTLE).await;
    let answered = async || {
        let answers = daemon.metric("musher_sled_answers_total{call=\"inventory\"}").await?;
        let bytes = daemon.metric("musher_sled_answer_bytes_total{call=\"inventory\"}").await?;
        Ok::<_, Failure>((answers, bytes))
    };
    let (began, before) = (now(), answered().await?);
    let used = (daemon.processor_nanoseconds(), processor_nanoseconds(&herd.process()));
    tokio::time::sleep(Duration::from_secs_f64(PERIOD_S * periods)).await;
    let (seconds, after) = (began.elapsed().as_secs_f64(), answered().await?);
    let cores = |before: Option<u64>, after: Option<u64>| {
        Some(count(after?.saturating_sub(before?)) / 1e9 / seconds * 100.0)
    };
    let per_period = |value: f64| value / seconds * PERIOD_S;
    report.row(&json!({
        "bench": "sleds",
        "what": what,
        "sleds": sleds,
        "inventories_per_period": per_period(after.0 - before.0),
        "inventory_bytes_per_period": per_period(after.1 - before.1),
        "daemon_percent_of_a_core": cores(used.0, daemon.processor_nanoseconds()),
        "sleds_percent_of_a_core": cores(used.1, processor_nanoseconds(&herd.process())),
        "daemon_rss_mib": mib(resident_bytes(&daemon.process())),
        "daemon_open_files": open_files(&daemon.process()),
        "unreachable": daemon.metric("musher_sleds{reachable=\"false\"}").await?,
    }));
    Ok(())
}
