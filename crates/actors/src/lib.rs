//! Ractor shells around the pure core.
//!
//! The one idea: **an actor's `handle` is decide, append, wait until durable, evolve, send effects,
//! reply.** If it needs more, the core needs it. Nothing leaves, no reply and no call to a sled, before the
//! event that causes it is durable.
//!
//! Who is here:
//! * [`instance`]: one actor per instance that has something to do, the only writer of its stream; virtual:
//!   [`instances`] activates it at its first message and restarts it from its stream if it panics;
//! * [`sled`]: one actor per sled: bounded calls to its agent, its reports, its inventory;
//! * [`network`]: one pusher per sled, switch and producer registry, which converge to what is desired;
//! * [`ledger`]: one actor that grants what instances share, from a fold over the log; a panic of it ends
//!   the process, because its memory is only reproducible with every grantee gone;
//! * [`projects`]: one actor that writes the projects' streams, which are few and change rarely;
//! * [`timers`]: reapers, which make instances and sleds look again, and [`retention`], which archives what was
//!   deleted long ago; [`boards`] say what they found;
//! * [`control`]: the handle to all of it, which is what the HTTP layer and embedded sleds hold.
//!
//! Invariants: mailboxes are bounded at the door ([`instances`] counts what waits); everything
//! unpredictable is a field of [`env::Env`]; no actor is addressed by ractor's ids or its registry.

mod accounts;
pub mod answer;
pub mod boards;
pub mod control;
mod convert;
pub mod counts;
pub mod env;
pub mod instance;
pub mod instances;
mod kill;
pub mod ledger;
pub mod network;
pub mod operate;
pub mod projects;
pub mod retention;
pub mod sled;
pub mod sleds;
mod supervisor;
pub mod timers;
mod writer;

pub use answer::{Accepted, CommandError, RequestContext};
pub use boards::TimerStatus;
pub use control::{ControlPlane, NewInstance, StartError};
pub use env::{CallTimes, Clock, Env, Fatal, IdSource, Limits, PushLimits, SledConnector, TimerPeriods};
pub use kill::Victim;
pub use ledger::SharedFold;
pub use network::{NetworkStatus, PeerName, PeerStatus};
pub use operate::{QuotaUse, Quotas};
pub use retention::Archive;
pub use timers::{Census, TimerName};
