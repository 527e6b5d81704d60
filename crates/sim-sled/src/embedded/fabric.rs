//! How embedded sleds of one process reach each other for migrations.
//!
//! Delivery never holds two sleds' locks: a message is handed to the receiver's machine after the sender's
//! lock was released, and the answer travels by the receiver's own driver.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};

use super::Shared;
use crate::machine::PeerMessage;

/// The sleds of one process by address; clones are the same fabric.
#[derive(Clone, Default)]
pub struct Fabric {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    sleds: BTreeMap<String, Weak<Shared>>,
    severed: BTreeSet<(String, String)>,
}

impl Fabric {
    /// From here on messages from one address to another are lost, in this direction only.
    pub fn sever(&self, from: &str, to: &str) {
        if let Ok(mut state) = self.state.lock() {
            state.severed.insert((from.to_owned(), to.to_owned()));
        }
    }

    /// Undoes `sever` for this direction.
    pub fn heal(&self, from: &str, to: &str) {
        if let Ok(mut state) = self.state.lock() {
            state.severed.remove(&(from.to_owned(), to.to_owned()));
        }
    }

    pub(super) fn join(&self, addr: String, sled: &Arc<Shared>) {
        if let Ok(mut state) = self.state.lock() {
            state.sleds.retain(|_, known| known.strong_count() > 0);
            state.sleds.insert(addr, Arc::downgrade(sled));
        }
    }

    /// Hands the message over, or loses it: both sides of a migration bear that.
    pub(super) fn deliver(&self, message: PeerMessage) {
        let receiver = {
            let Ok(state) = self.state.lock() else { return };
            let path = (message.from_addr.clone(), message.to_addr.clone());
            if state.severed.contains(&path) {
                return;
            }
            state.sleds.get(&message.to_addr).and_then(Weak::upgrade)
        };
        let Some(receiver) = receiver else { return };
        if let Err(down) = receiver.act(|machine, now| machine.handle_peer(now, message)) {
            tracing::debug!(%down, "a message to a migration peer was lost");
        }
        receiver.poke();
    }
}
