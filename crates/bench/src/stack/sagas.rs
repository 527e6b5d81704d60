//! Complete starts: an instance is created, placed, registered with its sled and running.
//!
//! The simulated sleds take no time for it: what is measured is the control plane.
//!
//! Invariants:
//! * a start counts once the instance is seen running, not when it is accepted.

use crate::Failure;
use crate::args::StackOptions;
use crate::report::Report;
use crate::stack::Plan;
use crate::stack::daemon::Daemon;
use crate::stack::fleet;
use crate::stack::http::Connection;
use crate::stack::load::{self, Client};
use futures::FutureExt;
use futures::future::BoxFuture;

/// Appends that a start takes at least: created and placed; registered with its sled; reported running.
const APPENDS_MIN: f64 = 3.0;

/// One who starts instances.
pub struct Starter {
    connection: Connection,
    name: String,
    started: u64,
}

impl Starter {
    /// So many, with names of their own.
    pub async fn many(daemon: &Daemon, clients: u32) -> Result<Vec<Self>, Failure> {
        let mut starters = Vec::new();
        for client in 0..clients {
            let connection = Connection::open(daemon.clients).await?;
            starters.push(Self { connection, name: format!("saga-{clients}-{client}"), started: 0 });
        }
        Ok(starters)
    }

    async fn start(&mut self) -> Result<(), Failure> {
        self.started += 1;
        let name = format!("{}-{}", self.name, self.started);
        let id = fleet::create(&mut self.connection, &name).await?;
        fleet::until_running(&mut self.connection, &id).await
    }
}

impl Client for Starter {
    fn step(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.start().boxed()
    }
}

/// Measures and prints.
pub async fn measure(
    daemon: &Daemon,
    options: &StackOptions,
    plan: Plan,
    report: &mut Report,
) -> Result<(), Failure> {
    for &clients in &options.clients {
        let mut starters = Starter::many(daemon, clients).await?;
        let numbers = load::rounds(daemon, &mut starters, (plan.rounds, plan.round), APPENDS_MIN).await?;
        let what =
            format!("POST /v1/instances until running, seen every {} ms", fleet::LOOK_EVERY.as_millis());
        report.row(&load::row("sagas", &what, numbers));
    }
    Ok(())
}
