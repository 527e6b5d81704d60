//! The network between control plane and sleds, and between sleds: every message on its own, late, lost, twice, out of order.
//!
//! One message in sixteen is late by up to two seconds even when nothing is wrong.

use super::sled_shell::Registering;
use super::{Happening, MILLI, World};
use crate::faults::{Direction, Fault};
use crate::way::delays;
use lifecycle::{Effect, InstanceId};
use sim_sled::machine::{PeerMessage, Request, Response};
use sled_protocol::{BootId, ControlPlaneError, PropolisId, RegisterSled, SledLease, SledVmmState};

/// A link that a mishap has cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(super) link: Link,
    pub(super) until: u64,
}

/// Between whom a message passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// A sled and the control plane, either way.
    Control(u16),
    /// Two sleds, the smaller number first.
    Peers(u16, u16),
}

impl Link {
    pub(super) fn peers(one: u16, other: u16) -> Self {
        Self::Peers(one.min(other), one.max(other))
    }
}

/// Who asked a sled something.
#[derive(Clone, Debug)]
pub(crate) enum ReplyTo {
    /// An instance, for an effect.
    Effect { incarnation: u32, instance: InstanceId, effect: Effect },
    /// The sled's watch, with the durable position when it asked.
    Watch { incarnation: u32, asked_at: u64 },
    /// The sled's registration, which is believed only if the sled itself says the same.
    Confirm { incarnation: u32, asked_at: u64, registering: Box<Registering> },
    /// Nobody waits.
    Nobody,
}

/// To a sled.
#[derive(Clone, Debug)]
pub(crate) enum ToSled {
    /// A request.
    Request { request: Request, reply_to: ReplyTo },
    /// The answer to its registration.
    Registered { boot: BootId, sent_at: u64, answer: Result<SledLease, ControlPlaneError> },
    /// The answer to a report.
    ReportAnswered { vmm: PropolisId, state: Box<SledVmmState>, answer: Result<(), ControlPlaneError> },
}

/// To the control plane.
#[derive(Clone, Debug)]
pub(crate) enum ToControl {
    /// The answer to a request.
    Answer { reply_to: ReplyTo, response: Box<Response> },
    /// A registration.
    Register { request: Box<RegisterSled>, sent_at: u64 },
    /// A report.
    Report { vmm: PropolisId, state: Box<SledVmmState> },
}

impl World {
    /// Whether a fault that began at `at` and lasts so long, in milliseconds, acts.
    pub(super) const fn is_active(&self, at: u64, lasts: u64) -> bool {
        let (at, end) = (at * MILLI, (at + lasts) * MILLI);
        !self.is_healed && at <= self.now && self.now < end
    }

    /// Puts a message for a sled on its way.
    pub(super) fn send_to_sled(&mut self, sled: u16, message: ToSled) {
        for delay in self.ways(sled, Link::Control(sled), Some(Direction::ToSled), to_sled_key(&message)) {
            self.after(delay, Happening::ToSled { sled, message: message.clone() });
        }
    }

    /// Puts a message for the control plane on its way.
    pub(super) fn send_to_control(&mut self, sled: u16, message: ToControl) {
        for delay in self.ways(sled, Link::Control(sled), Some(Direction::FromSled), to_control_key(&message))
        {
            self.after(delay, Happening::ToControl { sled, message: message.clone() });
        }
    }

    /// Puts a message of one sled for another on its way.
    pub(super) fn send_to_peer(&mut self, from: u16, to: u16, message: PeerMessage) {
        let key = ("peer", message.to_vmm.as_uuid().as_u128());
        for delay in self.ways(from, Link::peers(from, to), None, key) {
            self.after(delay, Happening::ToPeer { sled: to, message: Box::new(message.clone()) });
        }
    }

    fn is_cut(&self, link: Link, direction: Option<Direction>) -> bool {
        let is_cut = |cut: &Cut| cut.link == link && !self.is_healed && self.now < cut.until;
        self.cuts.iter().any(is_cut)
            || self.scenario.faults.iter().any(|fault| match (fault, link) {
                (Fault::Partition { at, lasts, sled, direction: way }, Link::Control(of)) => {
                    *sled == of
                        && (*way == Direction::Both || Some(*way) == direction)
                        && self.is_active(*at, *lasts)
                }
                (Fault::PeerPartition { at, lasts, one, other }, Link::Peers(..)) => {
                    Link::peers(*one, *other) == link && self.is_active(*at, *lasts)
                }
                _ => false,
            })
    }

    /// When copies of a message about a sled arrive: none if it is lost, two if it is doubled.
    fn ways(
        &mut self,
        sled: u16,
        link: Link,
        direction: Option<Direction>,
        key: (&'static str, u128),
    ) -> Vec<u64> {
        let draw = self.draws.next(key.0, key.1 ^ u128::from(sled));
        if self.is_cut(link, direction) {
            return Vec::new();
        }
        let is_to_sled = direction == Some(Direction::ToSled);
        delays(draw, &self.scenario.faults, sled, is_to_sled, |at, lasts| self.is_active(at, lasts))
    }
}

fn to_sled_key(message: &ToSled) -> (&'static str, u128) {
    match message {
        ToSled::Request { request, .. } => match request {
            Request::Register { vmm, .. } => ("to_register", vmm.as_uuid().as_u128()),
            Request::Unregister { vmm, .. } => ("to_unregister", vmm.as_uuid().as_u128()),
            Request::SetState { vmm, .. } => ("to_set_state", vmm.as_uuid().as_u128()),
            Request::GetState { vmm } => ("to_ask", vmm.as_uuid().as_u128()),
            _ => ("to_inventory", 0),
        },
        ToSled::Registered { .. } => ("to_registered", 0),
        ToSled::ReportAnswered { vmm, .. } => ("to_report_answered", vmm.as_uuid().as_u128()),
    }
}

fn to_control_key(message: &ToControl) -> (&'static str, u128) {
    match message {
        ToControl::Answer { reply_to, .. } => match reply_to {
            ReplyTo::Effect { effect, .. } => ("from_effect", effect.vmm().uuid().as_u128()),
            ReplyTo::Watch { .. } | ReplyTo::Confirm { .. } => ("from_inventory", 0),
            ReplyTo::Nobody => ("from_orphan", 0),
        },
        ToControl::Register { .. } => ("from_register", 0),
        ToControl::Report { vmm, .. } => ("from_report", vmm.as_uuid().as_u128()),
    }
}
