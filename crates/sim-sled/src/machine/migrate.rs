//! Live migration: the target asks, the source answers.
//!
//! ```text
//!   target                                  source
//!     Begin      ─────────────────────────▶   out pending, VMM migrating
//!     in in_progress ◀── yes
//!     Copy 1..n  ─────────────────────────▶   out in_progress, guest still runs (`memory.rs` says how long)
//!     Pause      ─────────────────────────▶   guest paused: it runs nowhere
//!     Finish     ─────────────────────────▶   out completed: the guest has left for good
//!     in completed, guest runs ◀── yes        stopping, destroyed
//! ```
//!
//! The answer to Finish hands the guest over. Until the source gives it, the source may take its guest back
//! and the target may not run it; from then on the other way round. A target that never hears the answer
//! fails, and the guest is lost: that is the price of never running it twice.
//!
//! Invariants:
//! * Messages may be lost, repeated and reordered. A target accepts the answer to its open question only; a
//!   source answers a repeated question alike.
//! * A side whose migration is completed or failed is not moved by any message.
//! * A target asks again every `peer_retry`, and both sides give up after `peer_silence`.

use serde::{Deserialize, Serialize};
use sled_protocol::{InstanceId, MigrationId, MigrationState, PropolisId, SledError, VmmState};

use super::Sled;
use super::memory::is_last_round;
use super::requests::bad_state;
use super::steps::Then;
pub(super) use super::vmm::Peer;
use super::vmm::{Deadline, Step};

/// What a target asks its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Will you let your guest go?
    Begin,
    /// Give me what the guest has changed since the last round.
    Copy {
        /// Counted from 1.
        round: u32,
    },
    /// Pause the guest.
    Pause,
    /// I have everything: is the guest mine?
    Finish,
}

/// What one side of a migration says to the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerBody {
    /// From the target.
    Ask(Question),
    /// From the source: done what was asked.
    Yes(Question),
    /// From the source, to `Copy`: this is what the round copies.
    Copies {
        /// The round that was asked for.
        round: u32,
        /// Its work, in bytes.
        bytes: u64,
    },
    /// From either side: the migration has failed here, or never was.
    Failed(String),
}

/// A message from one side of a migration to the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerMessage {
    /// The migration.
    pub migration_id: MigrationId,
    /// The instance whose guest moves.
    pub instance_id: InstanceId,
    /// The sender's sled.
    pub from_addr: String,
    /// The sender.
    pub from_vmm: PropolisId,
    /// The receiver's sled.
    pub to_addr: String,
    /// The receiver.
    pub to_vmm: PropolisId,
    /// What is said.
    pub body: PeerBody,
}

impl Sled {
    /// A message from the other side of a migration arrives; answers come out of `poll`.
    pub fn handle_peer(&mut self, now: u64, message: PeerMessage) {
        if !self.host.is_powered() {
            return;
        }
        self.advance(now);
        let now = self.host.clock;
        match message.body {
            PeerBody::Ask(question) => {
                let body = match self.answer(now, question, &message) {
                    Ok(Reply::Yes) => PeerBody::Yes(question),
                    Ok(Reply::Copies { round, bytes }) => PeerBody::Copies { round, bytes },
                    Ok(Reply::Silence) => return,
                    Err(reason) => PeerBody::Failed(reason.to_owned()),
                };
                self.reply(message, body);
            }
            PeerBody::Yes(_) | PeerBody::Copies { .. } if self.has_given_up(&message) => {
                // The source waits for a target that has ended: it need not wait until it is silent too long.
                self.reply(message, PeerBody::Failed("the target has given up".to_owned()));
            }
            PeerBody::Yes(question) => self.proceed(now, question, None, &message),
            PeerBody::Copies { round, bytes } => {
                self.proceed(now, Question::Copy { round }, Some(bytes), &message);
            }
            PeerBody::Failed(ref reason) => {
                let is_ours = self
                    .vmms
                    .get(&message.to_vmm)
                    .and_then(|vmm| vmm.peer.as_ref())
                    .is_some_and(|peer| is_from(peer, &message));
                if is_ours {
                    // The sender knows already; telling it again would be answered for ever.
                    if let Some(vmm) = self.vmm_mut(message.to_vmm) {
                        vmm.peer = None;
                    }
                    self.fail_migration_of(message.to_vmm, now, reason);
                }
            }
        }
    }

    /// This side of the VMM's open migration fails at once; answers whether there was one.
    pub fn fail_migration(&mut self, now: u64, id: PropolisId) -> bool {
        self.advance(now);
        let is_open = self.vmms.get(&id).is_some_and(|vmm| vmm.is_arriving() || vmm.is_departing());
        self.fail_migration_of(id, self.host.clock, "the simulation wanted it so");
        is_open
    }

    /// This side of the VMM's migration will fail instead of asking or answering this question.
    pub fn fail_migration_at(&mut self, id: PropolisId, question: Question) {
        if let Some(vmm) = self.vmm_mut(id) {
            vmm.fails_at = Some(question);
        }
    }

    pub(super) fn cancel_migration(&mut self, now: u64, id: PropolisId) -> Result<(), SledError> {
        let vmm = self.vmms.get(&id).ok_or(SledError::NoSuchInstance)?;
        let too_late = || SledError::BadState("the migration has already completed".to_owned());
        if vmm.is_departing() {
            self.fail_migration_of(id, now, "the migration was cancelled");
            return Ok(());
        }
        if vmm.is_arriving() {
            // The source may have let the guest go: giving up here could lose it, and only the source knows.
            if vmm.next_step() == Some(Step::Ask(Question::Finish)) && vmm.has_asked_finish {
                return Err(too_late());
            }
            self.fail_migration_of(id, now, "the migration was cancelled");
            return Ok(());
        }
        match vmm.departure().or(vmm.arrival()) {
            Some(MigrationState::Failed) => Ok(()),
            Some(_) => Err(too_late()),
            None => Err(bad_state("cancel a migration it never had", vmm.vmm_state())),
        }
    }

    /// The source takes its guest back.
    pub(super) fn fail_departure(&mut self, id: PropolisId, now: u64) {
        let Some(vmm) = self.vmm_mut(id) else { return };
        assert!(vmm.is_departing(), "only an open migration can fail");
        vmm.set_out(now, MigrationState::Failed);
        vmm.set_state(now, VmmState::Running);
        vmm.guest_running = true;
        vmm.deadline = None;
        if let Some(peer) = vmm.peer.take() {
            self.tell_failed(id, peer, "the source has given up");
        }
    }

    pub(super) fn fail_migration_of(&mut self, id: PropolisId, now: u64, reason: &str) {
        let Some(vmm) = self.vmms.get(&id) else { return };
        if vmm.is_departing() {
            self.write_serial(id, &format!("musher: migration failed: {reason}\r\n"));
            self.fail_departure(id, now);
        } else if vmm.is_arriving() {
            self.write_serial(id, &format!("musher: migration failed: {reason}\r\n"));
            self.end_vmm(id, now, VmmState::Failed);
        }
    }

    pub(super) fn tell_failed(&mut self, id: PropolisId, peer: Peer, reason: &str) {
        self.send(id, peer, PeerBody::Failed(reason.to_owned()));
    }

    /// The target puts its next question.
    pub(super) fn ask(&mut self, id: PropolisId, now: u64, question: Question) {
        let Some(vmm) = self.vmm_mut(id) else { return };
        if vmm.fails_at == Some(question) {
            self.fail_migration_of(id, now, "the simulation wanted it so");
            return;
        }
        let Some(peer) = vmm.peer.clone() else { return };
        vmm.has_asked_finish |= question == Question::Finish;
        // Silence is counted from the first asking, not from each repeat.
        if vmm.deadline.is_none() {
            self.set_deadline(id, now, Deadline::PeerSilent);
        }
        self.send(id, peer, PeerBody::Ask(question));
        self.schedule(id, now, Then::ask_again(question));
    }

    /// The source answers, or says why not.
    fn answer(&mut self, now: u64, question: Question, message: &PeerMessage) -> Result<Reply, &'static str> {
        let id = message.to_vmm;
        let vmm = self.vmms.get(&id).ok_or("the sled of the source knows no such VMM")?;
        if vmm.instance_id() != message.instance_id {
            return Err("the source belongs to another instance");
        }
        let known = vmm
            .state()
            .migration_out
            .as_ref()
            .filter(|side| side.migration_id == message.migration_id)
            .map(|side| side.state);
        if question == Question::Begin && known.is_none() {
            return self.begin_departure(now, message);
        }
        match known {
            None => return Err("the source knows no such migration"),
            Some(MigrationState::Failed) => return Err("the source has given up"),
            // The answer was lost; the guest has left, and only to whom it was given.
            Some(MigrationState::Completed) if question == Question::Finish => return Ok(Reply::Yes),
            // A late repeat: refusing it could make the target fail with the guest already its own.
            Some(MigrationState::Completed) => return Ok(Reply::Silence),
            Some(MigrationState::Pending | MigrationState::InProgress) => {}
        }
        if !vmm.peer.as_ref().is_some_and(|peer| is_from(peer, message)) {
            return Err("the source is giving its guest to another target");
        }
        if vmm.fails_at == Some(question) {
            self.fail_migration_of(id, now, "the simulation wanted it so");
            return Err("the source has failed");
        }
        self.set_deadline(id, now, Deadline::PeerSilent);
        let Some(vmm) = self.vmm_mut(id) else { return Err("the sled of the source knows no such VMM") };
        match question {
            Question::Begin => {}
            Question::Copy { round } => {
                vmm.set_out(now, MigrationState::InProgress);
                return Ok(Reply::Copies { round, bytes: self.copy_round(id, round) });
            }
            Question::Pause => {
                if vmm.departure() != Some(MigrationState::InProgress) {
                    return Err("nothing has been copied yet");
                }
                vmm.guest_running = false;
            }
            Question::Finish => {
                // A reordered Finish must not take a guest that still runs here.
                if vmm.guest_running {
                    return Err("the guest has not been paused yet");
                }
                vmm.set_out(now, MigrationState::Completed);
                vmm.peer = None;
                vmm.deadline = None;
                self.schedule(id, now, Then::depart());
            }
        }
        Ok(Reply::Yes)
    }

    fn begin_departure(&mut self, now: u64, message: &PeerMessage) -> Result<Reply, &'static str> {
        let id = message.to_vmm;
        let Some(vmm) = self.vmm_mut(id) else { return Err("the sled of the source knows no such VMM") };
        if vmm.is_departing() || vmm.vmm_state() != VmmState::Running {
            return Err("the source is not in a state to let its guest go");
        }
        if vmm.fails_at == Some(Question::Begin) {
            return Err("the source has failed");
        }
        vmm.begin_departure(now, message.migration_id);
        vmm.set_state(now, VmmState::Migrating);
        vmm.peer = Some(Peer {
            migration_id: message.migration_id,
            vmm: message.from_vmm,
            addr: message.from_addr.clone(),
        });
        self.set_deadline(id, now, Deadline::PeerSilent);
        Ok(Reply::Yes)
    }

    /// The target has its answer.
    fn proceed(&mut self, now: u64, question: Question, copied: Option<u64>, message: &PeerMessage) {
        let id = message.to_vmm;
        let Some(vmm) = self.vmms.get(&id) else { return };
        let is_ours = vmm.peer.as_ref().is_some_and(|peer| is_from(peer, message)) && vmm.is_arriving();
        if !is_ours || vmm.next_step() != Some(Step::Ask(question)) {
            return;
        }
        let Some(vmm) = self.vmm_mut(id) else { return };
        let then = match question {
            Question::Begin => {
                vmm.set_in(now, MigrationState::InProgress);
                Then::ask_first(Question::Copy { round: 1 })
            }
            Question::Copy { round } => {
                // An answer that does not say how much there is to copy is none.
                let Some(bytes) = copied else { return };
                let memory = vmm.resources().memory;
                let is_last = is_last_round(bytes, memory);
                let next =
                    if is_last { Question::Pause } else { Question::Copy { round: round.saturating_add(1) } };
                Then::ask_after_copying(next, bytes, memory)
            }
            Question::Pause => Then::ask_first(Question::Finish),
            Question::Finish => {
                vmm.set_in(now, MigrationState::Completed);
                vmm.peer = None;
                vmm.guest_running = true;
                if vmm.stops_on_arrival {
                    self.begin_stop(id, now);
                    return;
                }
                Then::resume()
            }
        };
        // The next question is waited for anew.
        if let Some(vmm) = self.vmm_mut(id) {
            vmm.deadline = None;
        }
        self.schedule(id, now, then);
    }

    /// Whether a source's answer comes to a target that has failed or is no longer held.
    fn has_given_up(&self, message: &PeerMessage) -> bool {
        let arrival = self.vmms.get(&message.to_vmm).map(|vmm| vmm.state().migration_in.as_ref());
        arrival.is_none_or(|side| {
            side.is_some_and(|side| {
                side.migration_id == message.migration_id && side.state == MigrationState::Failed
            })
        })
    }

    fn reply(&mut self, message: PeerMessage, body: PeerBody) {
        self.outbox.push(PeerMessage {
            migration_id: message.migration_id,
            instance_id: message.instance_id,
            from_addr: self.config.api_addr.clone(),
            from_vmm: message.to_vmm,
            to_addr: message.from_addr,
            to_vmm: message.from_vmm,
            body,
        });
    }

    fn send(&mut self, id: PropolisId, peer: Peer, body: PeerBody) {
        let Some(instance_id) = self.vmms.get(&id).map(super::Vmm::instance_id) else { return };
        self.outbox.push(PeerMessage {
            migration_id: peer.migration_id,
            instance_id,
            from_addr: self.config.api_addr.clone(),
            from_vmm: id,
            to_addr: peer.addr,
            to_vmm: peer.vmm,
            body,
        });
    }
}

/// How a source takes a question that it does not refuse.
enum Reply {
    Yes,
    Copies { round: u32, bytes: u64 },
    Silence,
}

fn is_from(peer: &Peer, message: &PeerMessage) -> bool {
    peer.migration_id == message.migration_id && peer.vmm == message.from_vmm
}
