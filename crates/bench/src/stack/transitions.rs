//! One durable state transition for each request: HTTP in, journaled, answered.
//!
//! Invariants:
//! * every request changes something: instances are dealt out to clients, and on an instance that all clients share
//!   each sets a value that nobody set before.

use crate::Failure;
use crate::args::StackOptions;
use crate::report::Report;
use crate::stack::Plan;
use crate::stack::daemon::Daemon;
use crate::stack::fleet::{self, Instance};
use crate::stack::http::Connection;
use crate::stack::load::{self, Client};
use futures::FutureExt;
use futures::future::BoxFuture;

/// What every report says of its time: the daemon keeps its own.
const REPORTED_AT: &str = "2026-01-01T00:00:00Z";
/// Clients of the one hot instance.
const HOT_CLIENTS: usize = 16;

/// What a client asks for.
#[derive(Clone, Copy)]
pub enum Kind {
    /// `PUT /v1/instances/{id}` with the other restart policy.
    Policy,
    /// `PUT /vmms/{id}`, a sled's report: rebooting, running, rebooting.
    Report,
    /// `PUT /v1/instances/{id}` with a boot disk that nobody has named before.
    Hot(u64),
}

/// A client with instances of its own.
pub struct Owner {
    connection: Connection,
    kind: Kind,
    instances: Vec<Instance>,
    next: usize,
    /// Requests made so far.
    requests: u64,
}

impl Owner {
    /// Deals the instances out to so many clients.
    pub async fn dealt(
        daemon: &Daemon,
        instances: Vec<Instance>,
        clients: usize,
        kind: Kind,
    ) -> Result<Vec<Self>, Failure> {
        let address = if matches!(kind, Kind::Report) { daemon.sleds } else { daemon.clients };
        let mut owners = Vec::new();
        for _ in 0..clients {
            let connection = Connection::open(address).await?;
            owners.push(Self { connection, kind, instances: Vec::new(), next: 0, requests: 0 });
        }
        for (index, instance) in instances.into_iter().enumerate() {
            owners[index % clients].instances.push(instance);
        }
        Ok(owners)
    }

    /// Its instances, as they are now.
    pub fn instances(self) -> Vec<Instance> {
        self.instances
    }

    async fn change(&mut self) -> Result<(), Failure> {
        let number = self.instances.len();
        let instance = &mut self.instances[self.next];
        self.next = (self.next + 1) % number;
        self.requests += 1;
        let update = format!("/v1/instances/{}", instance.id);
        let reply = match self.kind {
            Kind::Policy => {
                instance.is_restarted = !instance.is_restarted;
                let policy = if instance.is_restarted { "best_effort" } else { "never" };
                let body = format!(r#"{{"ncpus":1,"memory":1073741824,"auto_restart_policy":"{policy}"}}"#);
                self.connection.send("PUT", &update, &[], body.as_bytes()).await?
            }
            Kind::Hot(client) => {
                let disk = format!("00000000-0000-4000-8000-{client:04x}{:08x}", self.requests);
                let body = format!(r#"{{"ncpus":1,"memory":1073741824,"boot_disk":"{disk}"}}"#);
                self.connection.send("PUT", &update, &[], body.as_bytes()).await?
            }
            Kind::Report => {
                instance.generation += 1;
                instance.is_rebooting = !instance.is_rebooting;
                let state = if instance.is_rebooting { "rebooting" } else { "running" };
                let body = format!(
                    r#"{{"vmm_state":{{"state":"{state}","gen":{},"time_updated":"{REPORTED_AT}"}},"migration_in":null,"migration_out":null}}"#,
                    instance.generation
                );
                let path = format!("/vmms/{}", instance.vmm);
                let sled = [("x-sled-id", instance.sled.as_str())];
                self.connection.send("PUT", &path, &sled, body.as_bytes()).await?
            }
        };
        reply.success().map(drop)
    }
}

impl Client for Owner {
    fn step(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.change().boxed()
    }
}

/// Deals the instances out to clients, measures, and gives the instances back as they are then.
pub async fn shared_out(
    daemon: &Daemon,
    instances: &mut Vec<Instance>,
    clients: usize,
    kind: Kind,
    plan: Plan,
) -> Result<serde_json::Value, Failure> {
    let mut owners = Owner::dealt(daemon, std::mem::take(instances), clients, kind).await?;
    let numbers = load::rounds(daemon, &mut owners, (plan.rounds, plan.round), 1.0).await?;
    instances.extend(owners.into_iter().flat_map(Owner::instances));
    Ok(numbers)
}

/// All clients change one instance.
async fn one_hot(daemon: &Daemon, instance: &Instance, plan: Plan) -> Result<serde_json::Value, Failure> {
    let mut owners = Vec::new();
    for client in 0..HOT_CLIENTS {
        let connection = Connection::open(daemon.clients).await?;
        let (kind, instances) = (Kind::Hot(client as u64), vec![instance.clone()]);
        owners.push(Owner { connection, kind, instances, next: 0, requests: 0 });
    }
    load::rounds(daemon, &mut owners, (plan.rounds, plan.round), 1.0).await
}

/// Measures and prints.
pub async fn measure(
    daemon: &Daemon,
    options: &StackOptions,
    plan: Plan,
    report: &mut Report,
) -> Result<(), Failure> {
    let most = options.clients.iter().copied().max().unwrap_or(1) as usize;
    let mut instances = fleet::instances(daemon, (options.instances as usize).max(most)).await?;
    for (kind, what) in [(Kind::Policy, "PUT /v1/instances/{id}"), (Kind::Report, "PUT /vmms/{id}")] {
        for &clients in &options.clients {
            let numbers = shared_out(daemon, &mut instances, clients as usize, kind, plan).await?;
            report.row(&load::row("transitions", what, numbers));
        }
    }
    let numbers = one_hot(daemon, &instances[0], plan).await?;
    report.row(&load::row("transitions", "PUT /v1/instances/{id}, one instance", numbers));
    Ok(())
}
