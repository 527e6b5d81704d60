//! How a sled's messages reach the other side of a migration: within the process, or out of it.
//!
//! Delivery never holds two sleds' locks: a message is handed to the receiver's machine after the sender's
//! lock was released, and the answer travels by the receiver's own driver.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::mpsc;

use super::Shared;
use crate::machine::PeerMessage;

/// The sleds of one process by address; clones are the same fabric.
#[derive(Clone, Default)]
pub struct Fabric {
    state: Arc<Mutex<State>>,
    outward: Option<mpsc::Sender<PeerMessage>>,
}

#[derive(Default)]
struct State {
    sleds: BTreeMap<String, Weak<Shared>>,
    severed: BTreeSet<(String, String)>,
}

impl Fabric {
    /// A fabric whose messages to sleds outside of the process go into a queue; what does not fit is lost.
    pub fn reaching(outward: mpsc::Sender<PeerMessage>) -> Self {
        Self { state: Arc::default(), outward: Some(outward) }
    }

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
        match (receiver, &self.outward) {
            (Some(receiver), _) => receiver.take_from_peer(message),
            (None, Some(outward)) => {
                if outward.try_send(message).is_err() {
                    tracing::debug!("a message to a migration peer was lost: too many are waiting");
                }
            }
            (None, None) => tracing::debug!(to = message.to_addr, "a message went to a sled that is nowhere"),
        }
    }
}
