//! A closed loop: so many clients, each of which waits for its answer before it asks again.
//!
//! Invariants:
//! * a round ends by the clock, and what is under way at its end still counts with its time.

use crate::Failure;
use crate::clock::now;
use crate::machine::processor_nanoseconds;
use crate::stack::daemon::Daemon;
use crate::statistics::{count, median, percentile, range};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// One client.
pub trait Client: Send + 'static {
    /// Does once what is measured.
    fn step(&mut self) -> BoxFuture<'_, Result<(), Failure>>;
}

/// What one round gave.
#[derive(Clone, Copy, Debug)]
struct Round {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    daemon_cpu_us: f64,
    client_cpu_us: f64,
    appends_per_step: f64,
    appends_per_sync: f64,
}

/// Works until then; answers how long each step took.
pub async fn work<C: Client>(mut client: C, until: Instant) -> Result<(C, Vec<u32>), Failure> {
    let mut nanoseconds = Vec::new();
    let mut before = now();
    while before < until {
        client.step().await?;
        let after = now();
        nanoseconds.push(u32::try_from((after - before).as_nanos()).unwrap_or(u32::MAX));
        before = after;
    }
    Ok((client, nanoseconds))
}

fn used(before: Option<u64>, after: Option<u64>) -> f64 {
    count(before.zip(after).map_or(0, |(before, after)| after.saturating_sub(before))) / 1_000.0
}

async fn round<C: Client>(daemon: &Daemon, clients: &mut Vec<C>, length: Duration) -> Result<Round, Failure> {
    let appends = daemon.metric("musher_log_appends_total").await?;
    let syncs = daemon.metric("musher_log_syncs_total").await?;
    let (daemon_before, clients_before) = (daemon.processor_nanoseconds(), processor_nanoseconds("self"));
    let started = now();
    let tasks: Vec<_> =
        clients.drain(..).map(|client| tokio::spawn(work(client, started + length))).collect();
    let mut nanoseconds = Vec::new();
    for task in tasks {
        let (client, times) = task.await??;
        clients.push(client);
        nanoseconds.extend(times);
    }
    let seconds = started.elapsed().as_secs_f64();
    let (daemon_after, clients_after) = (daemon.processor_nanoseconds(), processor_nanoseconds("self"));
    let steps = count(nanoseconds.len() as u64);
    let appended = daemon.metric("musher_log_appends_total").await? - appends;
    let synced = daemon.metric("musher_log_syncs_total").await? - syncs;
    Ok(Round {
        per_second: steps / seconds,
        p50_us: percentile(&mut nanoseconds, 500) / 1_000.0,
        p99_us: percentile(&mut nanoseconds, 990) / 1_000.0,
        daemon_cpu_us: used(daemon_before, daemon_after) / steps,
        client_cpu_us: used(clients_before, clients_after) / steps,
        appends_per_step: appended / steps,
        appends_per_sync: appended / synced.max(1.0),
    })
}

/// Runs so many rounds and answers their medians as the fields of a row. Fails if fewer appends became durable than
/// `appends_min` for each step: then something else was counted.
pub async fn rounds<C: Client>(
    daemon: &Daemon,
    clients: &mut Vec<C>,
    (rounds, length): (usize, Duration),
    appends_min: f64,
) -> Result<Value, Failure> {
    let number = clients.len();
    let mut done = Vec::new();
    for _ in 0..rounds {
        let round = round(daemon, clients, length).await?;
        if round.appends_per_step < appends_min {
            let appends = round.appends_per_step;
            return Err(format!("{appends} durable appends for each answer; at least {appends_min}").into());
        }
        done.push(round);
    }
    let each = |field: fn(&Round) -> f64| done.iter().map(field).collect::<Vec<_>>();
    let (lowest, highest) = range(&each(|it| it.per_second));
    Ok(json!({
        "clients": number,
        "rounds": rounds,
        "per_second": median(&each(|it| it.per_second)),
        "per_second_lowest": lowest,
        "per_second_highest": highest,
        "p50_us": median(&each(|it| it.p50_us)),
        "p99_us": median(&each(|it| it.p99_us)),
        "daemon_cpu_us": median(&each(|it| it.daemon_cpu_us)),
        "client_cpu_us": median(&each(|it| it.client_cpu_us)),
        "appends_each": median(&each(|it| it.appends_per_step)),
        "appends_per_sync": median(&each(|it| it.appends_per_sync)),
    }))
}

/// The row of one measurement: what it is, then its numbers.
pub fn row(bench: &str, what: &str, mut numbers: Value) -> Value {
    numbers["bench"] = bench.into();
    numbers["what"] = what.into();
    numbers
}
