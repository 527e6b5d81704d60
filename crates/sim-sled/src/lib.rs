//! A simulated compute host: one pure state machine, and the shells that run it.
//!
//! Read in this order: [`machine`] holds every rule a sled keeps and does nothing by itself; [`faults`] says
//! when a shell misbehaves on purpose; [`embedded`] runs a machine on tokio inside another process and keeps
//! it in a file; [`server`] puts such a sled on the network, and [`peers`] carries its migration messages;
//! [`weather`] makes it unreliable; [`network`] simulates the switch and the metrics producer registry.
//!
//! Invariants:
//! * Only the shells know a clock, a file or a task; the machine is told the time with every call.
//! * Nothing here knows the control plane beyond the protocol.

pub mod embedded;
pub mod faults;
pub mod machine;
pub mod network;
mod newest;
pub mod peers;
pub mod server;
pub mod weather;
