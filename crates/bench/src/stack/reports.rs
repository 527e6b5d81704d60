//! Reports of sleds: how many one core takes in, each recorded before it is answered.
//!
//! The daemon may use one core, and the clients, which are the sleds here, use the other. A report says that a guest
//! reboots, or that it runs again, so that each one changes something.
//!
//! Invariants:
//! * every report is answered 204 and is one durable append, or the measurement ends;
//! * what counts is reports per second of the daemon's processor time; the clients' is told apart.

use crate::Failure;
use crate::args::ReportsOptions;
use crate::report::Report;
use crate::stack::Plan;
use crate::stack::daemon::{Daemon, Start};
use crate::stack::transitions::{Kind, shared_out};
use crate::stack::{fleet, load};
use serde_json::json;
use std::path::Path;

/// VMMs that reports are about.
const VMMS: usize = 3_000;
const VMMS_QUICK: usize = 1_000;

/// Measures and prints.
pub async fn measure(options: &ReportsOptions, scratch: &Path, report: &mut Report) -> Result<(), Failure> {
    let (plan, vmms) = if options.quick { (Plan::QUICK, VMMS_QUICK) } else { (Plan::FULL, VMMS) };
    let start = Start { core: Some(0), ..Start::default() };
    let daemon = Daemon::start_as(options.musher.as_deref(), &scratch.join("data"), &start)?;
    let mut instances = fleet::instances(&daemon, vmms).await?;
    for &clients in &options.clients {
        let mut numbers = shared_out(&daemon, &mut instances, clients as usize, Kind::Report, plan).await?;
        let each = numbers["daemon_cpu_us"].as_f64().filter(|micros| *micros > 0.0);
        numbers["per_core_second"] = json!(each.map(|micros| 1e6 / micros));
        report.row(&load::row("reports", "PUT /vmms/{id}, daemon on one core", numbers));
    }
    Ok(())
}
