//! Instances to work on.

use crate::Failure;
use crate::stack::daemon::Daemon;
use crate::stack::http::Connection;
use serde_json::{Value, json};
use std::time::Duration;

/// Clients that create instances at once.
const CREATORS: usize = 64;
/// How often an instance that does not run yet is looked at again, and how often at most.
pub const LOOK_EVERY: Duration = Duration::from_millis(2);
pub const LOOKS_MAX: usize = 15_000;

/// An instance that runs, and what was last said of it.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Its VMM.
    pub vmm: String,
    /// The sled that has the VMM.
    pub sled: String,
    /// Generation of what that sled said last.
    pub generation: u64,
    /// Whether that was that it reboots.
    pub is_rebooting: bool,
    /// Whether its restart policy was last set to restart it.
    pub is_restarted: bool,
}

fn text(value: &Value) -> Result<String, Failure> {
    Ok(value.as_str().ok_or("the daemon left out a field")?.to_owned())
}

/// Creates an instance that starts, and answers its id.
pub async fn create(connection: &mut Connection, name: &str) -> Result<String, Failure> {
    let body = json!({
        "name": name, "description": "", "hostname": name, "ncpus": 1, "memory": 1 << 30, "start": true,
    });
    let body = body.to_string();
    let reply = connection.send("POST", "/v1/instances?project=demo", &[], body.as_bytes()).await?;
    text(&reply.json()?["id"])
}

/// Waits until an instance runs.
pub async fn until_running(connection: &mut Connection, id: &str) -> Result<(), Failure> {
    let path = format!("/v1/instances/{id}");
    for _ in 0..LOOKS_MAX {
        match connection.send("GET", &path, &[], b"").await?.json()?["run_state"].as_str() {
            Some("running") => return Ok(()),
            Some("starting" | "creating") => tokio::time::sleep(LOOK_EVERY).await,
            other => {
                let why =
                    connection.send("GET", &format!("/ops/v1/instances/{id}/explain"), &[], b"").await?;
                let why = why.json()?;
                return Err(format!("instance {id} is {other:?} instead of running: {why}").into());
            }
        }
    }
    Err(format!("instance {id} does not come up").into())
}

async fn one(connection: &mut Connection, name: &str) -> Result<Instance, Failure> {
    let id = create(connection, name).await?;
    until_running(connection, &id).await?;
    let reply = connection.send("GET", &format!("/ops/v1/instances/{id}"), &[], b"").await?;
    let state = &reply.json()?["state"];
    let vmm = text(&state["active"])?;
    let held = &state["vmms"][&vmm];
    let generation = held["generation"].as_u64().ok_or("a VMM without a generation")?;
    let sled = text(&held["sled"])?;
    Ok(Instance { id, vmm, sled, generation, is_rebooting: false, is_restarted: false })
}

/// Creates and starts instances, and waits until all of them run.
pub async fn instances(daemon: &Daemon, number: usize) -> Result<Vec<Instance>, Failure> {
    let mut tasks = Vec::new();
    for creator in 0..CREATORS {
        let mut connection = Connection::open(daemon.clients).await?;
        tasks.push(tokio::spawn(async move {
            let mut made = Vec::new();
            for index in (creator..number).step_by(CREATORS) {
                made.push(one(&mut connection, &format!("bench-{index}")).await?);
            }
            Ok::<_, Failure>(made)
        }));
    }
    let mut all = Vec::with_capacity(number);
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}
