//! Whom is pushed to, each with its own keys, entries and calls.

use super::addresses::{self, NatKey, V2pKey};
use super::desk::{Desk, ReadAt};
use crate::env::Limits;
use lifecycle::VmmId;
use lifecycle::network::{Key, Mapping};
use sled_protocol::{self as wire, Producers, PushError, SledClient, SledError, Switch, limits};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Why a push did not happen, or may not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PushFailed {
    /// Nobody can be asked at present; whoever finds the peer says so.
    #[error("it cannot be reached at present")]
    Away,
    /// Worth another try; a stale epoch too, which the sled's registration ends.
    #[error("{0}")]
    Failed(String),
}

impl From<SledError> for PushFailed {
    fn from(error: SledError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<PushError> for PushFailed {
    fn from(error: PushError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What a key shall have at a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish<E> {
    /// Log position of the decision.
    pub(super) generation: u64,
    /// What shall be there; none if nothing shall.
    pub(super) entry: Option<E>,
}

/// Wishes by key, and the log position up to which they are whole.
pub(super) type Wishes<P> = ReadAt<BTreeMap<<P as Peer>::Key, Wish<<P as Peer>::Entry>>>;

/// One receiver of pushes. Per key it keeps what has the largest generation, so that every call may be
/// repeated, and may arrive late.
pub(super) trait Peer: Send + Sync + 'static {
    /// By what an entry is found.
    type Key: Ord + Copy + Send + Sync;
    /// What it is sent.
    type Entry: Clone + Send + Sync;
    /// Keys of one request.
    const BATCH_MAX: usize;

    /// Follows the generation of the newest change that concerns it.
    fn follow(desk: &Desk) -> level::Receiver<u64>;
    /// Everything that it shall have.
    fn wished(desk: &Desk) -> Wishes<Self>
    where
        Self: Sized;
    /// What changed after a position; none if not all of it is remembered.
    fn changed(desk: &Desk, since: u64) -> Option<Wishes<Self>>
    where
        Self: Sized;

    /// How long one of the following may take.
    fn patience(&self, limits: &Limits) -> Duration {
        limits.push.call
    }

    /// What it holds: keys with their generations.
    fn list(&self) -> impl Future<Output = Result<BTreeMap<Self::Key, u64>, PushFailed>> + Send;
    /// Sets entries, at most [`Self::BATCH_MAX`].
    fn put(&self, entries: Vec<Self::Entry>) -> impl Future<Output = Result<(), PushFailed>> + Send;
    /// Deletes keys, at most [`Self::BATCH_MAX`], each with the generation of the decision.
    fn delete(&self, keys: Vec<(Self::Key, u64)>) -> impl Future<Output = Result<(), PushFailed>> + Send;
}

/// How a sled is spoken to.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) client: Arc<dyn SledClient>,
    pub(super) epoch: wire::LeaseEpoch,
}

/// The line to a sled, as its actor knows it; none while it cannot be reached.
pub(super) type SharedLine = Arc<Mutex<Option<Line>>>;

/// A sled's table of virtual to physical addresses.
pub(super) struct SledPeer {
    pub(super) line: SharedLine,
}

impl SledPeer {
    fn line(&self) -> Result<Line, PushFailed> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(PushFailed::Away)
    }
}

impl Peer for SledPeer {
    type Key = V2pKey;
    type Entry = wire::V2pMapping;
    const BATCH_MAX: usize = limits::MAPPINGS_MAX;

    fn follow(desk: &Desk) -> level::Receiver<u64> {
        desk.follow_mappings()
    }

    fn wished(desk: &Desk) -> Wishes<Self> {
        wishes(desk.mappings(), |(key, mapping)| v2p_wish(key, &mapping))
    }

    fn changed(desk: &Desk, since: u64) -> Option<Wishes<Self>> {
        Some(wishes(desk.mappings_since(since)?, |(key, mapping)| v2p_wish(key, &mapping)))
    }

    fn patience(&self, limits: &Limits) -> Duration {
        limits.sled_call.network
    }

    async fn list(&self) -> Result<BTreeMap<V2pKey, u64>, PushFailed> {
        let held = self.line()?.client.list_v2p().await?;
        let keyed = held.iter().map(|entry| {
            entry.validate()?;
            Ok(((entry.vni, entry.virtual_ip), entry.generation.get()))
        });
        keyed.collect::<Result<_, wire::Invalid>>().map_err(|invalid| not_understood(&invalid))
    }

    async fn put(&self, entries: Vec<wire::V2pMapping>) -> Result<(), PushFailed> {
        let line = self.line()?;
        Ok(line.client.put_v2p(line.epoch, entries).await?)
    }

    async fn delete(&self, keys: Vec<(V2pKey, u64)>) -> Result<(), PushFailed> {
        let line = self.line()?;
        let deletions =
            keys.into_iter().map(|(key, generation)| addresses::v2p_deletion(key, generation)).collect();
        Ok(line.client.delete_v2p(line.epoch, deletions).await?)
    }
}

/// The switch's table of external addresses.
pub(super) struct SwitchPeer {
    pub(super) switch: Arc<dyn Switch>,
}

impl Peer for SwitchPeer {
    type Key = NatKey;
    type Entry = wire::NatEntry;
    const BATCH_MAX: usize = limits::MAPPINGS_MAX;

    fn follow(desk: &Desk) -> level::Receiver<u64> {
        desk.follow_mappings()
    }

    fn wished(desk: &Desk) -> Wishes<Self> {
        wishes(desk.mappings(), |(key, mapping)| nat_wish(key, &mapping))
    }

    fn changed(desk: &Desk, since: u64) -> Option<Wishes<Self>> {
        Some(wishes(desk.mappings_since(since)?, |(key, mapping)| nat_wish(key, &mapping)))
    }

    async fn list(&self) -> Result<BTreeMap<NatKey, u64>, PushFailed> {
        let held = self.switch.list_nat().await?;
        let keyed = held.iter().map(|entry| {
            entry.validate()?;
            Ok(((entry.external_ip, entry.first_port), entry.generation.get()))
        });
        keyed.collect::<Result<_, wire::Invalid>>().map_err(|invalid| not_understood(&invalid))
    }

    async fn put(&self, entries: Vec<wire::NatEntry>) -> Result<(), PushFailed> {
        Ok(self.switch.put_nat(entries).await?)
    }

    async fn delete(&self, keys: Vec<(NatKey, u64)>) -> Result<(), PushFailed> {
        let deletions =
            keys.into_iter().map(|(key, generation)| addresses::nat_deletion(key, generation)).collect();
        Ok(self.switch.delete_nat(deletions).await?)
    }
}

/// The registry of metrics producers.
pub(super) struct RegistryPeer {
    pub(super) producers: Arc<dyn Producers>,
}

impl Peer for RegistryPeer {
    type Key = wire::PropolisId;
    type Entry = wire::Producer;
    const BATCH_MAX: usize = 1;

    fn follow(desk: &Desk) -> level::Receiver<u64> {
        desk.follow_producers()
    }

    fn wished(desk: &Desk) -> Wishes<Self> {
        wishes(desk.producers(), |(vmm, producing)| producer_wish(vmm, &producing))
    }

    fn changed(desk: &Desk, since: u64) -> Option<Wishes<Self>> {
        Some(wishes(desk.producers_since(since)?, |(vmm, producing)| producer_wish(vmm, &producing)))
    }

    async fn list(&self) -> Result<BTreeMap<wire::PropolisId, u64>, PushFailed> {
        let held = self.producers.list_producers().await?;
        let keyed = held.iter().map(|entry| {
            entry.validate()?;
            Ok((entry.propolis_id, entry.generation.get()))
        });
        keyed.collect::<Result<_, wire::Invalid>>().map_err(|invalid| not_understood(&invalid))
    }

    async fn put(&self, entries: Vec<wire::Producer>) -> Result<(), PushFailed> {
        for entry in entries {
            self.producers.put_producer(entry).await?;
        }
        Ok(())
    }

    async fn delete(&self, keys: Vec<(wire::PropolisId, u64)>) -> Result<(), PushFailed> {
        for (vmm, generation) in keys {
            self.producers.delete_producer(vmm, wire::Generation::new(generation)).await?;
        }
        Ok(())
    }
}

fn not_understood(invalid: &wire::Invalid) -> PushFailed {
    PushFailed::Failed(format!("what it says it holds is not understood: {invalid}"))
}

fn wishes<S: IntoIterator, K: Ord, E>(
    read: ReadAt<S>,
    wish: impl Fn(S::Item) -> (K, Wish<E>),
) -> ReadAt<BTreeMap<K, Wish<E>>> {
    ReadAt { position: read.position, value: read.value.into_iter().map(wish).collect() }
}

fn v2p_wish(key: Key, mapping: &Mapping) -> (V2pKey, Wish<wire::V2pMapping>) {
    let wish = Wish { generation: mapping.generation, entry: addresses::v2p(key, mapping) };
    (addresses::v2p_key(key), wish)
}

fn nat_wish(key: Key, mapping: &Mapping) -> (NatKey, Wish<wire::NatEntry>) {
    let wish = Wish { generation: mapping.generation, entry: addresses::nat(key, mapping) };
    (addresses::nat_key(key), wish)
}

fn producer_wish(vmm: VmmId, producing: &super::desk::Producing) -> (wire::PropolisId, Wish<wire::Producer>) {
    let wish = Wish { generation: producing.generation, entry: addresses::producer(vmm, producing) };
    (crate::convert::propolis(vmm), wish)
}
