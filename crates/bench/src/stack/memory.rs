//! Many instances on one daemon: memory of idle and of active ones, disk, idle processor time, and a steady load.
//!
//! ```text
//!   10 000 idle ─▶ all of them idle ─▶ started again, some active ─▶ stops and starts by turns
//! ```
//!
//! Invariants:
//! * idle is out of memory: nothing is measured before no actor of an instance is left;
//! * the sleds are another process, so that no simulated guest counts as memory of the daemon.

use crate::Failure;
use crate::args::FleetOptions;
use crate::clock::now;
use crate::machine::{disk_bytes, resident_bytes};
use crate::report::Report;
use crate::stack::daemon::{Daemon, Start};
use crate::stack::fleet;
use crate::stack::herd::Herd;
use crate::stack::http::Connection;
use crate::statistics::{count, percentile};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Idle instances that are measured first.
const FIRST: u32 = 10_000;

/// Clients that create, start and stop.
const CLIENTS: usize = 32;

/// How long the daemon is left alone while its idle processor time is counted.
const IDLE: Duration = Duration::from_secs(30);

/// Parts of the steady load that are told apart, and how long each is.
const PARTS: usize = 4;
const PART: Duration = Duration::from_secs(30);
const PART_QUICK: Duration = Duration::from_secs(6);

/// How often it is looked whether the last actor has gone, and how often at most.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOKS_MAX: usize = 400;

/// Instances leave memory soon, so that nobody waits for it for minutes.
const SOON: [(&str, &str); 2] =
    [("MUSHER_INSTANCES__PASSIVATE_AFTER_S", "2"), ("MUSHER_TIMERS__PASSIVATION_S", "1")];

/// Measures and prints.
pub async fn measure(options: &FleetOptions, scratch: &Path, report: &mut Report) -> Result<(), Failure> {
    let (musher, data) = (options.musher.as_deref(), scratch.join("data"));
    let (all, active) = if options.quick {
        (options.instances / 5, options.active / 5)
    } else {
        (options.instances, options.active)
    };
    let all = all.max(FIRST * 2);
    let start = Start { args: &["--no-embedded-sleds"], settings: Some(&SOON), core: None };
    let daemon = Daemon::start_as(musher, &data, &start)?;
    let empty = resident(&daemon)?;
    create(&daemon, 0..FIRST).await?;
    let first = idle(&daemon).await?;
    row(report, "idle", json!({"instances": FIRST, "rss_mib": mib(first), "rss_empty_mib": mib(empty)}));
    let disk = disk_bytes(&data);
    create(&daemon, FIRST..all).await?;
    let second = idle(&daemon).await?;
    let further = f64::from(all - FIRST);
    row(
        report,
        "idle",
        json!({
            "instances": all,
            "rss_mib": mib(second),
            "bytes_per_further_idle": (second - first) / further,
            "disk_bytes_per_instance": count(disk_bytes(&data).saturating_sub(disk)) / further,
        }),
    );
    let used = daemon.processor_nanoseconds();
    tokio::time::sleep(IDLE).await;
    let idle_ns =
        daemon.processor_nanoseconds().zip(used).map_or(0, |(after, before)| after.saturating_sub(before));
    let percent = count(idle_ns) / 1e9 / IDLE.as_secs_f64() * 100.0;
    row(report, "idle processor time", json!({"instances": all, "percent_of_a_core": percent}));
    daemon.stop()?;

    let start = Start { args: &["--no-embedded-sleds"], settings: Some(&[]), core: None };
    let daemon = Daemon::start_as(musher, &data, &start)?;
    let herd = Herd::start(musher, &daemon, options.sleds, &scratch.join("sleds")).await?;
    let before = idle(&daemon).await?;
    each(&daemon, 0..active, Wish::Start).await?;
    let live = daemon.metric("musher_instances_live").await?;
    let after = resident(&daemon)?;
    row(
        report,
        "active",
        json!({
            "instances": all,
            "rss_started_again_mib": mib(before),
            "live": live,
            "rss_mib": mib(after),
            "kib_per_active": (after - before) / live / 1024.0,
        }),
    );
    churn(&daemon, &data, active, if options.quick { PART_QUICK } else { PART }, report).await?;
    drop(herd);
    Ok(())
}

fn row(report: &mut Report, what: &str, mut numbers: Value) {
    numbers["bench"] = "fleet".into();
    numbers["what"] = what.into();
    report.row(&numbers);
}

fn resident(daemon: &Daemon) -> Result<f64, Failure> {
    Ok(count(resident_bytes(&daemon.process()).ok_or("the system does not tell what a process holds")?))
}

fn mib(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}

/// Waits until no instance is in memory, and answers what is.
async fn idle(daemon: &Daemon) -> Result<f64, Failure> {
    for _ in 0..LOOKS_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        if daemon.metric("musher_instances_live").await? < 1.0 {
            tokio::time::sleep(LOOK_EVERY).await;
            return resident(daemon);
        }
    }
    Err("instances do not leave memory".into())
}

/// What is done to an instance.
#[derive(Clone, Copy)]
enum Wish {
    Create,
    Start,
    Stop,
}

async fn create(daemon: &Daemon, numbers: std::ops::Range<u32>) -> Result<(), Failure> {
    each(daemon, numbers, Wish::Create).await.map(drop)
}

/// Does it to each of them, and answers how long each took, in microseconds.
async fn each(daemon: &Daemon, numbers: std::ops::Range<u32>, wish: Wish) -> Result<Vec<u32>, Failure> {
    let mut tasks = Vec::new();
    for client in 0..CLIENTS {
        let mut connection = Connection::open(daemon.clients).await?;
        let mine = numbers.clone().skip(client).step_by(CLIENTS);
        tasks.push(tokio::spawn(async move {
            let mut micros = Vec::new();
            for number in mine {
                let began = now();
                perform(&mut connection, number, wish).await?;
                micros.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Ok::<_, Failure>(micros)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}

async fn perform(connection: &mut Connection, number: u32, wish: Wish) -> Result<(), Failure> {
    let name = format!("bench-{number}");
    let (verb, wanted) = match wish {
        Wish::Create => {
            let body = json!({
                "name": name, "description": "", "hostname": name, "ncpus": 1, "memory": 1 << 30, "start": false,
            });
            let body = body.to_string();
            let reply = connection.send("POST", "/v1/instances?project=demo", &[], body.as_bytes()).await?;
            return reply.success().map(drop);
        }
        Wish::Start => ("start", "running"),
        Wish::Stop => ("stop", "stopped"),
    };
    connection
        .send("POST", &format!("/v1/instances/{name}/{verb}?project=demo"), &[], b"")
        .await?
        .success()?;
    let path = format!("/v1/instances/{name}?project=demo");
    for _ in 0..fleet::LOOKS_MAX {
        let reply = connection.send("GET", &path, &[], b"").await?.json()?;
        if reply["run_state"] == wanted {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Err(format!("{name} is not {wanted}").into())
}

/// How often an instance is looked at that is to start or stop: simulated sleds take some hundred milliseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Stops and starts the active ones by turns.
async fn churn(
    daemon: &Daemon,
    data: &Path,
    active: u32,
    part: Duration,
    report: &mut Report,
) -> Result<(), Failure> {
    let batch = active.min(u32::try_from(CLIENTS * 4)?);
    let mut first = 0;
    for nth in 0..PARTS {
        let (began, disk) = (now(), disk_bytes(data));
        let bytes = daemon.metric("musher_log_bytes").await?;
        let (mut stops, mut starts) = (Vec::new(), Vec::new());
        while began.elapsed() < part {
            let numbers = first..(first + batch).min(active);
            stops.extend(each(daemon, numbers.clone(), Wish::Stop).await?);
            starts.extend(each(daemon, numbers, Wish::Start).await?);
            first = if first + batch >= active { 0 } else { first + batch };
        }
        let done = count((stops.len() + starts.len()) as u64);
        row(
            report,
            "steady load",
            json!({
                "part": nth + 1,
                "per_second": done / began.elapsed().as_secs_f64(),
                "start_p50_ms": percentile(&mut starts, 500) / 1e3,
                "start_p99_ms": percentile(&mut starts, 990) / 1e3,
                "stop_p99_ms": percentile(&mut stops, 990) / 1e3,
                "rss_mib": mib(resident(daemon)?),
                "log_bytes_each": (daemon.metric("musher_log_bytes").await? - bytes) / done,
                "disk_mib_more": mib(count(disk_bytes(data).saturating_sub(disk))),
            }),
        );
    }
    Ok(())
}
