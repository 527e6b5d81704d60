//! Clients: they send requests, repeat them under the same id until they have an answer, and remember what
//! they were told.

use super::{Happening, MILLI, SECOND, World, names};
use crate::coverage::Sometimes;
use crate::faults::{Fault, Phase};
use crate::scenario::Request;

/// How long a client waits for an answer before it sends its request again.
const PATIENCE_US: u64 = 5 * SECOND;

/// Shortest and longest wait of a client that was told to come back later.
const RETRY_US: (u64, u64) = (200 * MILLI, 800 * MILLI);

/// Way of a request or an answer between client and control plane.
const WAY_US: (u64, u64) = (100, 2 * MILLI);

/// Most times that a request is sent: more than fit in any run.
const ATTEMPTS_MAX: u32 = 10_000;

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, or under way, by the append that begins at this position; none if nothing was to be done.
    Accepted(Option<u64>),
    /// Refused, and nothing was written.
    Refused(String),
    /// Not now: nothing is known to be written; come back.
    Unavailable,
}

/// What one client knows.
#[derive(Debug)]
struct Client {
    request: Request,
    is_answered: bool,
    last_attempt: u32,
}

/// All clients: one per request.
#[derive(Debug)]
pub(crate) struct Clients {
    clients: Vec<Client>,
}

impl Clients {
    pub(super) fn new(requests: &[Request]) -> Self {
        let client =
            |request: &Request| Client { request: request.clone(), is_answered: false, last_attempt: 0 };
        Self { clients: requests.iter().map(client).collect() }
    }

    pub(super) fn request(&self, nth: usize) -> &Request {
        &self.clients[nth].request
    }

    /// A request that nobody has answered yet.
    pub(super) fn unanswered(&self) -> Option<&Request> {
        self.clients.iter().find(|client| !client.is_answered).map(|client| &client.request)
    }
}

impl World {
    pub(super) fn send_first_requests(&mut self) {
        for nth in 0..self.scenario.requests.len() {
            let (id, at) = (self.scenario.requests[nth].id, self.scenario.requests[nth].at * MILLI);
            if self.scenario.requests[nth].phase.is_none() {
                self.at(at, Happening::Send { request: nth, attempt: 0, other_body: false });
            }
            let repeats: Vec<(u64, bool)> = self
                .scenario
                .faults
                .iter()
                .filter_map(|fault| match fault {
                    Fault::DuplicateRequest { request, after, other_body } if *request == id => {
                        Some((after * MILLI, *other_body))
                    }
                    _ => None,
                })
                .collect();
            for (after, other_body) in repeats {
                self.at(at + after, Happening::Send { request: nth, attempt: ATTEMPTS_MAX, other_body });
            }
        }
    }

    /// A migration of an instance has come to a phase, or none will: requests that waited for that are sent.
    pub(super) fn send_aimed(&mut self, instance: Option<u16>, phase: Option<Phase>) {
        for nth in 0..self.scenario.requests.len() {
            let request = &self.scenario.requests[nth];
            let is_due = request.phase.is_some()
                && (phase.is_none() || request.phase == phase)
                && instance.is_none_or(|instance| request.instance == instance);
            if is_due && self.aimed.insert(nth) {
                self.after(0, Happening::Send { request: nth, attempt: 0, other_body: false });
            }
        }
    }

    /// An extra copy (its attempt is beyond all others) is sent once and not followed up.
    pub(super) fn client_sends(&mut self, request: usize, attempt: u32, other_body: bool) {
        let is_extra = attempt >= ATTEMPTS_MAX;
        let client = &mut self.clients.clients[request];
        if !is_extra && (client.is_answered || attempt < client.last_attempt) {
            return;
        }
        let id = client.request.id;
        if !is_extra {
            client.last_attempt = attempt;
            self.after(PATIENCE_US, Happening::ClientTimeout { request, attempt });
        }
        if attempt > 0 && !is_extra {
            self.note(Sometimes::RequestRetried);
        }
        let delay = self.draws.next_within("client", u128::from(id), WAY_US.0, WAY_US.1);
        self.after(delay, Happening::Asked { request, attempt, other_body });
    }

    /// A request reaches the door. Nobody home is a broken connection: the client comes back.
    pub(super) fn asked(&mut self, request: usize, attempt: u32, other_body: bool) {
        let asked = self.clients.request(request);
        let (id, instance, verb) = (asked.id, asked.instance, asked.verb);
        let entity = crate::faults::Entity::Instance(instance);
        self.trace.line(self.now, "ask", &entity, format_args!("{} r{id}.{attempt}", verb.name()));
        if self.control.is_none() {
            self.client_comes_back(request, attempt);
            return;
        }
        self.command_arrives(request, attempt, other_body);
    }

    fn client_comes_back(&mut self, request: usize, attempt: u32) {
        if attempt >= ATTEMPTS_MAX - 1 {
            return;
        }
        let id = u128::from(self.clients.request(request).id);
        let delay = self.draws.next_within("client_retry", id, RETRY_US.0, RETRY_US.1);
        self.after(delay, Happening::Send { request, attempt: attempt + 1, other_body: false });
    }

    pub(super) fn client_timeout(&mut self, request: usize, attempt: u32) {
        let client = &self.clients.clients[request];
        if !client.is_answered && client.last_attempt == attempt {
            self.client_comes_back(request, attempt);
        }
    }

    /// Sends an answer on its way.
    pub(super) fn answer_client(&mut self, request: usize, answer: Answer, other_body: bool) {
        let id = u128::from(self.clients.request(request).id);
        let delay = self.draws.next_within("answer", id, WAY_US.0, WAY_US.1);
        self.after(delay, Happening::Answered { request, answer, other_body });
    }

    pub(super) fn client_answered(&mut self, request: usize, answer: Answer, other_body: bool) {
        let (id, instance) = (self.clients.request(request).id, self.clients.request(request).instance);
        let entity = crate::faults::Entity::Instance(instance);
        self.trace.line(self.now, "answer", &entity, format_args!("r{id} {answer:?}"));
        if other_body {
            self.checks.answered_other_body(self.now, names::request(id), &answer);
            return;
        }
        if answer == Answer::Unavailable {
            let attempt = self.clients.clients[request].last_attempt;
            if !self.clients.clients[request].is_answered {
                self.client_comes_back(request, attempt);
            }
            return;
        }
        self.clients.clients[request].is_answered = true;
        if let Answer::Accepted(Some(position)) = answer {
            self.checks.acknowledged(self.now, names::request(id), position);
        }
    }
}
