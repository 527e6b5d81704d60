//! What reaches the control plane, and whom it concerns.

use super::clients::Answer;
use super::instance_shell::{From, Waiting, What};
use super::network::{ReplyTo, ToControl, ToSled};
use super::sled_shell::Registering;
use super::{World, names, wire};
use crate::verb::{About, Verb};
use journal::StreamName;
use lifecycle::{Input, InstanceId, VmmId};
use sled_protocol::{ControlPlaneError, PropolisId, SledVmmState};

impl World {
    /// A message from a sled. Nobody home: it is lost, and its sender sends it again.
    pub(super) fn at_control(&mut self, sled: u16, message: ToControl) {
        if !self.is_up() {
            return;
        }
        match message {
            ToControl::Answer { reply_to: ReplyTo::Effect { incarnation, instance, effect }, response } => {
                self.effect_answered(incarnation, instance, effect, &response);
            }
            ToControl::Answer { reply_to: ReplyTo::Watch { incarnation, asked_at }, response } => {
                self.inventory_arrives(sled, incarnation, asked_at, *response);
            }
            ToControl::Answer {
                reply_to: ReplyTo::Confirm { incarnation, asked_at, registering },
                response,
            } => {
                self.boot_confirmed(sled, (incarnation, asked_at), *registering, &response);
            }
            ToControl::Answer { reply_to: ReplyTo::Nobody, .. } => {}
            ToControl::Register { request, sent_at } => {
                let registering = Registering { request: *request, sent_at, confirmed_at: None };
                self.registration_arrives(sled, registering);
            }
            ToControl::Report { vmm, state } => self.report_arrives(sled, vmm, *state),
        }
    }

    /// A report goes to the instance of its VMM; one of a VMM that was never heard of is refused.
    fn report_arrives(&mut self, sled: u16, propolis: PropolisId, state: SledVmmState) {
        let vmm = VmmId::new(propolis.as_uuid());
        let Some(place) = self.control().ledger.vmm(vmm) else {
            self.answer_report(sled, propolis, state, Err(ControlPlaneError::Unknown));
            return;
        };
        let report = wire::report(&state);
        let input = Input::Report { sled: names::sled(sled), vmm, report };
        let from = From::Report { sled, vmm: propolis, state: Box::new(state.clone()) };
        if !self.give(place.instance, Waiting { what: What::Input(input), from }) {
            let busy = ControlPlaneError::Unavailable("too much waits".to_owned());
            self.answer_report(sled, propolis, state, Err(busy));
        }
    }

    pub(super) fn answer_report(
        &mut self,
        sled: u16,
        vmm: PropolisId,
        state: SledVmmState,
        answer: Result<(), ControlPlaneError>,
    ) {
        self.send_to_sled(sled, ToSled::ReportAnswered { vmm, state: Box::new(state), answer });
    }

    /// A client's request. Another body under the same id asks for what the original does not.
    pub(super) fn command_arrives(&mut self, request: usize, attempt: u32, other_body: bool) {
        let asked = self.clients.request(request);
        let id = names::instance(asked.instance);
        let is_taken = match asked.verb.about() {
            About::Instance => return self.instance_asked(id, request, attempt, other_body),
            _ if other_body => {
                let refused = Answer::Refused("only requests about instances are told apart".to_owned());
                self.answer_client(request, refused, other_body);
                return;
            }
            About::Sled(sled) => self.sled_asked(sled, request),
            About::Project => self.admin_asked(StreamName::Project(names::project()), request),
            About::System => self.admin_asked(StreamName::System, request),
        };
        if !is_taken {
            self.client_timeout(request, attempt);
        }
    }

    fn instance_asked(&mut self, id: InstanceId, request: usize, attempt: u32, other_body: bool) {
        let asked = self.clients.request(request);
        let verb = match (other_body, asked.verb) {
            (true, Verb::Stop) => "start",
            (true, _) => "stop",
            (false, verb) => verb.name(),
        };
        let waiting =
            Waiting { what: What::Request(request, verb), from: From::Client { request, other_body } };
        if !self.give(id, waiting) && !other_body {
            self.client_timeout(request, attempt);
        }
    }
}
