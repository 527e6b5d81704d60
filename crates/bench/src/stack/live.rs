//! Whether looking at a running daemon's past disturbs its writers: the same paced writes with `musher replay --live`
//! beside them and without, round by round in turns.
//!
//! Invariants:
//! * writes come at a set pace, one after the other and never all at once, whatever their answers take; what waits for
//!   the one before counts its wait;
//! * the two rounds of a pair follow each other, and pairs begin with one and the other in turns, so that a machine that
//!   gets slower meanwhile speaks for neither;
//! * rounds in which nothing was read to its end do not count as read.

use crate::Failure;
use crate::args::LiveOptions;
use crate::clock::now;
use crate::report::Report;
use crate::stack::daemon::{Daemon, program};
use crate::stack::fleet::{self, Instance};
use crate::stack::http::Connection;
use crate::statistics::{median, percentile, range};
use serde_json::json;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Clients that write: more than ever wait at once.
const WRITERS: usize = 16;
/// What is asked of the past, over and over.
const QUESTIONS: [&[&str]; 2] = [&["--verify"], &["--fleet"]];
/// How often the one who reads is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(10);

struct Plan {
    pairs: usize,
    round: Duration,
}

const FULL: Plan = Plan { pairs: 10, round: Duration::from_secs(4) };
const QUICK: Plan = Plan { pairs: 4, round: Duration::from_secs(2) };

struct Writer {
    connection: Connection,
    instances: Vec<Instance>,
    next: usize,
}

impl Writer {
    async fn write(&mut self) -> Result<(), Failure> {
        let number = self.instances.len();
        let instance = &mut self.instances[self.next];
        self.next = (self.next + 1) % number;
        instance.is_restarted = !instance.is_restarted;
        let policy = if instance.is_restarted { "best_effort" } else { "never" };
        let body = format!(r#"{{"ncpus":1,"memory":1073741824,"auto_restart_policy":"{policy}"}}"#);
        let path = format!("/v1/instances/{}", instance.id);
        self.connection.send("PUT", &path, &[], body.as_bytes()).await?.success().map(drop)
    }

    /// Writes at its pace until the end, and tells how long each took.
    async fn paced(
        mut self,
        first: Instant,
        pace: Duration,
        until: Instant,
    ) -> Result<(Self, Vec<u32>), Failure> {
        let (mut due, mut nanoseconds) = (first, Vec::new());
        while due < until {
            let is_late = now() >= due;
            if !is_late {
                tokio::time::sleep_until(due.into()).await;
            }
            // A timer wakes late by up to a millisecond: that is not the daemon's.
            let begun = if is_late { due } else { now() };
            self.write().await?;
            nanoseconds.push(u32::try_from((now() - begun).as_nanos()).unwrap_or(u32::MAX));
            due += pace;
        }
        Ok((self, nanoseconds))
    }
}

/// One who reads, again and again.
struct Reader {
    program: PathBuf,
    server: String,
    asked: usize,
    child: Option<Child>,
}

impl Reader {
    fn ask(&mut self) -> Result<(), Failure> {
        let mut command = Command::new(&self.program);
        command.arg("replay").args(QUESTIONS[self.asked % QUESTIONS.len()]);
        command.args(["--live", "--server", &self.server, "-o", "json"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn()?);
        self.asked += 1;
        Ok(())
    }

    /// Reads until the end of a round; answers how many times it came to the end of the log.
    async fn read(&mut self, until: Instant) -> Result<u64, Failure> {
        let mut ended = 0;
        self.ask()?;
        while now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
            let status = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = status {
                if !status.success() {
                    return Err(format!("`musher replay --live` ended with {status}").into());
                }
                ended += 1;
                self.ask()?;
            }
        }
        self.stop();
        Ok(ended)
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended already is what was wanted.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What one round gave, microseconds.
#[derive(Clone, Copy, Debug)]
struct Round {
    p50: f64,
    p99: f64,
    ended: u64,
}

async fn round(
    writers: &mut Vec<Writer>,
    reader: Option<&mut Reader>,
    pace: Duration,
    length: Duration,
) -> Result<Round, Failure> {
    let begun = now();
    let until = begun + length;
    let tasks = writers.drain(..).zip(0..).map(|(writer, nth): (Writer, u32)| {
        tokio::spawn(writer.paced(begun + pace * nth / WRITERS as u32, pace, until))
    });
    let tasks: Vec<_> = tasks.collect();
    let ended = match reader {
        Some(reader) => reader.read(until).await?,
        None => 0,
    };
    let mut nanoseconds = Vec::new();
    for task in tasks {
        let (writer, times) = task.await??;
        writers.push(writer);
        nanoseconds.extend(times);
    }
    let p50 = percentile(&mut nanoseconds, 500) / 1_000.0;
    Ok(Round { p50, p99: percentile(&mut nanoseconds, 990) / 1_000.0, ended })
}

/// Measures and prints.
pub async fn measure(daemon: &Daemon, options: &LiveOptions, report: &mut Report) -> Result<(), Failure> {
    let plan = if options.quick { QUICK } else { FULL };
    let pace = Duration::from_secs(1) * WRITERS as u32 / options.rate.max(1);
    let mut instances = fleet::instances(daemon, (options.instances as usize).max(WRITERS)).await?;
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let connection = Connection::open(daemon.clients).await?;
        writers.push(Writer { connection, instances: Vec::new(), next: 0 });
    }
    for (nth, instance) in instances.drain(..).enumerate() {
        writers[nth % WRITERS].instances.push(instance);
    }
    let server = format!("http://{}", daemon.clients);
    let mut reader = Reader { program: program(options.musher.as_deref())?, server, asked: 0, child: None };
    // The first is warmer than none, and counts for nothing.
    round(&mut writers, None, pace, plan.round).await?;
    let mut pairs = Vec::new();
    for nth in 0..plan.pairs {
        let (quiet, read) = if nth % 2 == 0 {
            let quiet = round(&mut writers, None, pace, plan.round).await?;
            (quiet, round(&mut writers, Some(&mut reader), pace, plan.round).await?)
        } else {
            let read = round(&mut writers, Some(&mut reader), pace, plan.round).await?;
            (round(&mut writers, None, pace, plan.round).await?, read)
        };
        pairs.push((quiet, read));
    }
    let ended: u64 = pairs.iter().map(|(_, read)| read.ended).sum();
    if ended == 0 {
        return Err("nothing was read to its end: take fewer --instances".into());
    }
    let each = |of: fn(&(Round, Round)) -> f64| pairs.iter().map(of).collect::<Vec<_>>();
    let ratios = each(|(quiet, read)| read.p99 / quiet.p99.max(1.0));
    let (lowest, highest) = range(&ratios);
    report.row(&json!({
        "bench": "live",
        "what": "PUT /v1/instances/{id} beside musher replay --live",
        "writes_per_second": options.rate,
        "pairs": pairs.len(),
        "events": daemon.metric("musher_log_durable_position").await?,
        "read_to_the_end": ended,
        "p50_us_quiet": median(&each(|(quiet, _)| quiet.p50)),
        "p50_us_read": median(&each(|(_, read)| read.p50)),
        "p99_us_quiet": median(&each(|(quiet, _)| quiet.p99)),
        "p99_us_read": median(&each(|(_, read)| read.p99)),
        "p99_ratio": median(&ratios),
        "p99_ratio_lowest": lowest,
        "p99_ratio_highest": highest,
    }));
    Ok(())
}
