//! What clients and sleds are told, and what is done again when the log refuses.

use super::clients::Answer;
use super::instance_shell::From;
use super::{Happening, MILLI, World, names};
use crate::coverage::Sometimes;
use lifecycle::rejected::SledUnfit;
use lifecycle::{DeadlineKind, InstanceId, Rejected, Shortage, SledId};

/// Wait before a deadline that could not be written is tried again.
const DEADLINE_RETRY_US: u64 = 200 * MILLI;

impl World {
    pub(super) fn answer(&mut self, from: From, position: Option<u64>) {
        match from {
            From::Client { request, other_body } => {
                self.answer_client(request, Answer::Accepted(position), other_body);
            }
            From::Report { sled, vmm, state } => self.answer_report(sled, vmm, *state, Ok(())),
            From::Nobody => {}
        }
    }

    /// The answer to a request that was carried out before: the same, or a refusal of another body.
    pub(super) fn answer_repeated(&mut self, from: &From, position: u64, is_same: bool) {
        let From::Client { request, other_body } = *from else {
            unreachable!("only clients repeat requests");
        };
        let answer = if is_same {
            self.note(Sometimes::DuplicateAnswered);
            Answer::Accepted(Some(position))
        } else {
            self.note(Sometimes::OtherBodyRefused);
            Answer::Refused("the request id was used for something else".to_owned())
        };
        self.answer_client(request, answer, other_body);
    }

    pub(super) fn answer_rejected(&mut self, from: From, rejected: &Rejected) {
        match from {
            From::Client { request, other_body } => {
                if let Rejected::Short(short) = rejected {
                    self.note_shortage(short);
                }
                self.checks.refused(self.now, names::request(self.clients.request(request).id), other_body);
                self.answer_client(request, Answer::Refused(rejected.to_string()), other_body);
            }
            From::Report { sled, vmm, state } => {
                let refused = if *rejected == Rejected::WrongSled {
                    sled_protocol::ControlPlaneError::Malformed(rejected.to_string())
                } else {
                    sled_protocol::ControlPlaneError::Unknown
                };
                self.answer_report(sled, vmm, *state, Err(refused));
            }
            From::Nobody => {}
        }
    }

    pub(super) fn answer_unavailable(&mut self, from: From) {
        match from {
            From::Client { request, other_body } => {
                self.answer_client(request, Answer::Unavailable, other_body);
            }
            From::Report { sled, vmm, state } => {
                let busy = sled_protocol::ControlPlaneError::Unavailable("the log refuses".to_owned());
                self.answer_report(sled, vmm, *state, Err(busy));
            }
            From::Nobody => {}
        }
    }

    /// What nobody will ask again is derived again: deadlines from state, outcomes by sending once more.
    pub(super) fn after_refusal(&mut self, id: InstanceId) {
        let kinds: Vec<DeadlineKind> = self.shell(id).armed.keys().copied().collect();
        for kind in kinds {
            let incarnation = self.incarnation;
            self.after(DEADLINE_RETRY_US, Happening::Deadline { incarnation, instance: id, kind });
        }
        let sleds: Vec<SledId> = self.control().sleds.keys().copied().collect();
        for sled in sleds {
            let (incarnation, sled) = (self.incarnation, names::sled_number(sled));
            self.after(DEADLINE_RETRY_US, Happening::Watch { incarnation, sled, is_periodic: false });
        }
    }

    pub(super) fn note_shortage(&mut self, short: &Shortage) {
        self.note(match short {
            Shortage::Quota { .. } => Sometimes::QuotaRefused,
            Shortage::Spread { .. } | Shortage::ThatSled { why: SledUnfit::Spread } => {
                Sometimes::SpreadRefused
            }
            Shortage::CpuFamily { .. } | Shortage::ThatSled { why: SledUnfit::CpuFamily } => {
                Sometimes::FamilyRefused
            }
            Shortage::NoSled | Shortage::Room { .. } | Shortage::Addresses | Shortage::NoOtherSled => {
                Sometimes::NoCapacity
            }
            Shortage::ThatSled { .. } => Sometimes::NamedSledUnfit,
        });
    }
}
