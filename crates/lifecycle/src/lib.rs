//! The rules of an instance's life.
//!
//! The one idea: **three pure functions and nothing else.** [`decide()`] turns state and input into events
//! or a refusal; [`evolve()`] applies an event and may not refuse; [`effects()`] says, from state alone, what
//! should be true outside. Time, ids and grants come in with the input. No clock, no randomness, no I/O.
//!
//! What a crash forgets, `effects` derives again, so there is no recovery code. What two components would
//! have to agree on (reservations, provisioning, names) is a fold over the same events ([`ledger`]), so
//! there is nothing to release by hand.
//!
//! Reading order: [`vmm`] and [`migration`] (what sleds report), [`instance`] (the fold), [`visible`] and
//! [`action`] (what users see and may do), [`event`] and [`input`], [`saga`], then [`mod@decide`], [`update`],
//! [`mod@evolve`], [`mod@effects`], and [`invariant`] which says what must hold after every event. The rules are
//! told for people in `docs/lifecycle.md`.

pub mod action;
pub mod archive;
pub mod decide;
pub mod effects;
pub mod event;
pub mod evolve;
pub mod group;
pub mod ids;
pub mod input;
pub mod instance;
pub mod invariant;
pub mod ledger;
pub mod migration;
pub mod network;
pub mod project;
pub mod quota;
pub mod rejected;
pub mod restart;
pub mod saga;
pub mod sled;
pub mod spec;
pub mod time;
pub mod update;
pub mod visible;
pub mod vmm;

pub use action::Action;
pub use archive::{ArchiveFile, Retention};
pub use decide::{Decision, Policy, Purpose, RoomWanted, decide};
pub use effects::{Deadline, DeadlineKind, Effect, deadlines, effects};
pub use event::{EventMeta, InstanceEvent, ProjectEvent, SledEvent, SystemEvent};
pub use evolve::evolve;
pub use group::GroupPolicy;
pub use ids::{
    BootId, Generation, GroupId, InstanceId, LeaseEpoch, MigrationId, OpId, ProjectId, RequestId, SagaId,
    SledId, VmmId,
};
pub use input::{Command, EffectResult, Input, Refusal, VmmReport};
pub use instance::{Instance, Intent};
pub use ledger::Ledger;
pub use quota::{Quota, QuotaScope, Totals};
pub use rejected::{Rejected, Shortage};
pub use saga::{Origin, SagaKind, Step};
pub use spec::{Address, AutoRestartPolicy, InstanceSpec, Size, SpecChange};
pub use time::{Span, Timestamp};
pub use visible::RunState;
pub use vmm::{Evidence, FailureReason, Vmm, VmmState};
