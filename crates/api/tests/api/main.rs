//! The HTTP interfaces over the real thing: log, control plane, simulated sleds and read model in one
//! process, on a clock that only passes when everybody waits.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod access;
mod alarms;
mod bodies;
mod feed;
mod framing;
mod keyed;
mod life;
mod manner;
mod metrics;
mod operate;
mod operators;
mod orders;
mod paging;
mod past;
mod paused;
mod refusals;
mod serial;
mod server;
mod sleds;
mod stack;
mod traces;
