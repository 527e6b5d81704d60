//! Ends actors where they wait, as nothing of ours does: for whoever tests that this loses nothing.

use crate::control::ControlPlane;
use lifecycle::{InstanceId, SledId};

/// An actor that can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// An instance's; restarted from its stream, as after a panic.
    Instance(InstanceId),
    /// A sled's; restarted likewise.
    Sled(SledId),
    /// The supervisor of all instances; the process must end.
    Instances,
    /// The supervisor of all sleds; the process must end.
    Sleds,
    /// The ledger; the process must end.
    Ledger,
    /// The projects' writer; the process must end.
    Projects,
}

impl ControlPlane {
    /// Kills an actor at whichever await it is. Answers whether there was one.
    pub fn kill(&self, victim: Victim) -> bool {
        let inner = &self.inner;
        let cell = match victim {
            Victim::Instance(id) => inner.instances.cell(id),
            Victim::Sled(id) => inner.sleds.cell(id),
            Victim::Instances => inner.instances.supervisor(),
            Victim::Sleds => inner.sleds.supervisor(),
            Victim::Ledger => Some(inner.ledger.cell()),
            Victim::Projects => Some(inner.projects.cell()),
        };
        cell.map(|cell| cell.kill()).is_some()
    }
}
