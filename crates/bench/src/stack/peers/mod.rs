//! Others that do the same, beside this daemon in one run: Restate's server, and steno's sagas in process.
//!
//! ```text
//! clients ── HTTP ──▶ musher serve
//! clients ── HTTP ──▶ restate-server ── HTTP ──▶ musher-bench-restate (the handlers)
//! this process: ControlPlane on a journal          musher-bench-steno: steno on a file
//! ```
//!
//! Invariants:
//! * whoever is compared takes turns, round by round, under the same number of clients and on the same disk;
//! * one that is not there is one line that says how to get it, and the others are measured all the same;
//! * a restart is a kill with SIGKILL, and ends with the first answer to a change.

mod restate;
mod steno;

use crate::Failure;
use crate::args::{PeersOptions, StackOptions};
use crate::clock::now;
use crate::report::Report;
use crate::stack::daemon::Daemon;
use crate::stack::fleet::{self, Instance};
use crate::stack::http::Connection;
use crate::stack::load::{self, Client};
use crate::stack::sagas::Starter;
use crate::stack::transitions::{Kind, Owner};
use crate::stack::{Plan, Question, inprocess};
use crate::statistics::{median, percentile};
use restate::Restate;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Kills whose median counts.
const KILLS: usize = 3;
/// Longest wait for a peer to answer again, and how often it is asked.
pub(super) const ANSWERS_MAX: u32 = 12_000;
pub(super) const ASK_EVERY: Duration = Duration::from_millis(5);

/// What one round of somebody gave.
#[derive(Clone, Copy, Debug)]
struct Round {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
}

impl Round {
    /// Of a row that [`load::rounds`] or [`inprocess::measure`] made.
    fn of(row: &Value, cpu: &str) -> Self {
        let number = |name: &str| row[name].as_f64().unwrap_or(0.0);
        let (p50_us, p99_us) = (number("p50_us"), number("p99_us"));
        Self { per_second: number("per_second"), p50_us, p99_us, cpu_us: number(cpu) }
    }
}

/// Asks in a closed loop until the end; answers the rate and the times.
async fn closed_loop<C: Client>(clients: &mut Vec<C>, length: Duration) -> Result<Round, Failure> {
    let began = now();
    let tasks: Vec<_> =
        clients.drain(..).map(|client| tokio::spawn(load::work(client, began + length))).collect();
    let mut nanoseconds = Vec::new();
    for task in tasks {
        let (client, times) = task.await??;
        clients.push(client);
        nanoseconds.extend(times);
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Round {
        per_second: crate::statistics::count(nanoseconds.len() as u64) / seconds,
        p50_us: percentile(&mut nanoseconds, 500) / 1e3,
        p99_us: percentile(&mut nanoseconds, 990) / 1e3,
        cpu_us: 0.0,
    })
}

fn row(what: &str, peer: &str, clients: u32, ours: &[Round], theirs: &[Round]) -> Value {
    let of =
        |rounds: &[Round], field: fn(&Round) -> f64| median(&rounds.iter().map(field).collect::<Vec<_>>());
    let pairs = ours.iter().zip(theirs).map(|(ours, theirs)| ours.per_second / theirs.per_second.max(1e-9));
    json!({
        "bench": "peers", "what": what, "peer": peer, "clients": clients, "rounds": ours.len(),
        "ratio": median(&pairs.collect::<Vec<_>>()),
        "per_second": of(ours, |it| it.per_second), "peer_per_second": of(theirs, |it| it.per_second),
        "p50_us": of(ours, |it| it.p50_us), "peer_p50_us": of(theirs, |it| it.p50_us),
        "p99_us": of(ours, |it| it.p99_us), "peer_p99_us": of(theirs, |it| it.p99_us),
        "cpu_us": of(ours, |it| it.cpu_us), "peer_cpu_us": Some(of(theirs, |it| it.cpu_us)).filter(|micros| *micros > 0.0),
    })
}

fn absent(peer: &str, why: &Failure, how: &str, report: &mut Report) {
    report.row(&json!({"bench": "peers", "peer": peer, "absent": why.to_string(), "to_have_it": how}));
}

/// Measures and prints.
pub fn measure(options: &PeersOptions, scratch: &Path, report: &mut Report) -> Result<(), Failure> {
    let plan = if options.quick { Plan::QUICK } else { Plan::FULL };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match Restate::find(options) {
        Ok(programs) => {
            let restate = runtime.block_on(Restate::start(programs, &scratch.join("restate")))?;
            beside_restate(options, plan, (scratch, &runtime), restate, report)?;
        }
        Err(why) => absent("restate", &why, restate::TO_HAVE_IT, report),
    }
    drop(runtime);
    match steno::find(options) {
        Ok(program) => beside_steno(options, plan, scratch, &program, report),
        Err(why) => {
            absent("steno", &why, steno::TO_HAVE_IT, report);
            Ok(())
        }
    }
}

fn beside_restate(
    options: &PeersOptions,
    plan: Plan,
    (scratch, runtime): (&Path, &Runtime),
    mut restate: Restate,
    report: &mut Report,
) -> Result<(), Failure> {
    let data = scratch.join("data");
    let daemon = Daemon::start(options.musher.as_deref(), &data)?;
    let number = (options.instances).max(options.clients.iter().copied().max().unwrap_or(1));
    let instances = runtime.block_on(async {
        restate.seed(number).await?;
        let mut instances = fleet::instances(&daemon, number as usize).await?;
        for &clients in &options.clients {
            let row = transitions(&daemon, &restate, &mut instances, (clients, number), plan).await?;
            report.row(&row);
        }
        for &clients in &options.clients {
            report.row(&sagas(&daemon, &restate, (clients, number), plan).await?);
        }
        Ok::<_, Failure>(instances)
    })?;
    let (mut ours, mut theirs, mut daemon) = (Vec::new(), Vec::new(), Some(daemon));
    for _ in 0..KILLS {
        drop(daemon.take());
        let began = now();
        let again = Daemon::start(options.musher.as_deref(), &data)?;
        runtime.block_on(changed(&again, &instances[0]))?;
        ours.push(began.elapsed().as_secs_f64() * 1e3);
        daemon = Some(again);
        theirs.push(runtime.block_on(restate.killed_and_answering())?);
    }
    report.row(&json!({
        "bench": "peers", "what": "SIGKILL to the first change answered", "peer": "restate", "instances": number,
        "kills": KILLS, "ratio": median(&theirs) / median(&ours).max(1e-9),
        "ms": median(&ours), "peer_ms": median(&theirs),
    }));
    Ok(())
}

async fn transitions(
    daemon: &Daemon,
    restate: &Restate,
    instances: &mut Vec<Instance>,
    (clients, keys): (u32, u32),
    plan: Plan,
) -> Result<Value, Failure> {
    let mut owners = Owner::dealt(daemon, std::mem::take(instances), clients as usize, Kind::Policy).await?;
    let mut callers = restate.callers("apply", clients, keys).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        ours.push(Round::of(
            &load::rounds(daemon, &mut owners, (1, plan.round), 1.0).await?,
            "daemon_cpu_us",
        ));
        theirs.push(restate.round(&mut callers, plan.round).await?);
    }
    instances.extend(owners.into_iter().flat_map(Owner::instances));
    Ok(row("one durable transition for each request", "restate", clients, &ours, &theirs))
}

async fn sagas(
    daemon: &Daemon,
    restate: &Restate,
    (clients, keys): (u32, u32),
    plan: Plan,
) -> Result<Value, Failure> {
    let mut starters = Starter::many(daemon, clients).await?;
    let mut callers = restate.callers("saga", clients, keys).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        ours.push(Round::of(
            &load::rounds(daemon, &mut starters, (1, plan.round), 3.0).await?,
            "daemon_cpu_us",
        ));
        theirs.push(restate.round(&mut callers, plan.round).await?);
    }
    Ok(row("a start until seen running; a saga of six steps", "restate", clients, &ours, &theirs))
}

/// One change of one instance, as soon as it is answered.
async fn changed(daemon: &Daemon, instance: &Instance) -> Result<(), Failure> {
    let mut connection = Connection::open(daemon.clients).await?;
    let policy = if instance.is_restarted { "never" } else { "best_effort" };
    let body = format!(r#"{{"ncpus":1,"memory":1073741824,"auto_restart_policy":"{policy}"}}"#);
    let path = format!("/v1/instances/{}", instance.id);
    connection.send("PUT", &path, &[], body.as_bytes()).await?.success().map(drop)
}

fn beside_steno(
    options: &PeersOptions,
    plan: Plan,
    scratch: &Path,
    program: &Path,
    report: &mut Report,
) -> Result<(), Failure> {
    for &clients in &options.clients {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for nth in 0..plan.rounds {
            let dir = scratch.join(format!("in-process-{clients}-{nth}"));
            let one = StackOptions::in_process(clients);
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let plan = Plan { rounds: 1, ..plan };
            let rows = inprocess::measure(Question::Sagas, &one, plan, (&dir, None));
            ours.extend(runtime.block_on(rows)?.iter().map(|row| Round::of(row, "process_cpu_us")));
            drop(runtime);
            theirs.push(steno::round(program, &scratch.join("steno.log"), clients, plan.round)?);
        }
        report.row(&row(
            "a start until seen running; a saga of six steps, in process",
            "steno",
            clients,
            &ours,
            &theirs,
        ));
    }
    Ok(())
}
