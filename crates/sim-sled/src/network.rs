//! The simulated switch and the simulated registry of metrics producers: both may be slow, away, or come
//! back empty.
//!
//! Invariants:
//! * Per key the larger generation wins, deletions included, until the device comes back empty.
//! * While away a device takes nothing and says so; how slow it is never changes what it does.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use sled_protocol::{Generation, NatEntry, Producer, Producers, PropolisId, PushError, Switch, limits};

use crate::newest::Newest;

/// Most entries either device holds: every instance of a large fleet.
const ENTRIES_MAX: usize = 262_144;

/// The simulated switch.
#[derive(Default)]
pub struct SimSwitch {
    device: Device<(IpAddr, u16), NatEntry>,
}

impl SimSwitch {
    /// From here on it does not answer (`true`), or does again.
    pub fn set_away(&self, is_away: bool) {
        self.device.lock().is_away = is_away;
    }

    /// From here on every answer takes so long.
    pub fn set_delay(&self, delay: Duration) {
        self.device.lock().delay = delay;
    }

    /// It restarts and has forgotten everything, generations too.
    pub fn come_back_empty(&self) {
        self.device.come_back_empty();
    }
}

impl Switch for SimSwitch {
    fn put_nat(&self, entries: Vec<NatEntry>) -> BoxFuture<'_, Result<(), PushError>> {
        async move {
            self.device.reach().await?;
            check_entries(&entries)?;
            self.device.check_room(entries.len())?;
            let mut state = self.device.lock();
            for entry in entries {
                state.held.put(nat_key(&entry), entry.generation, entry);
            }
            Ok(())
        }
        .boxed()
    }

    fn delete_nat(&self, entries: Vec<NatEntry>) -> BoxFuture<'_, Result<(), PushError>> {
        async move {
            self.device.reach().await?;
            check_entries(&entries)?;
            let mut state = self.device.lock();
            for entry in &entries {
                state.held.delete(nat_key(entry), entry.generation);
            }
            Ok(())
        }
        .boxed()
    }

    fn list_nat(&self) -> BoxFuture<'_, Result<Vec<NatEntry>, PushError>> {
        async move {
            self.device.reach().await?;
            Ok(self.device.lock().held.values().cloned().collect())
        }
        .boxed()
    }
}

/// The simulated registry of metrics producers.
#[derive(Default)]
pub struct SimProducers {
    device: Device<PropolisId, Producer>,
}

impl SimProducers {
    /// From here on it does not answer (`true`), or does again.
    pub fn set_away(&self, is_away: bool) {
        self.device.lock().is_away = is_away;
    }

    /// From here on every answer takes so long.
    pub fn set_delay(&self, delay: Duration) {
        self.device.lock().delay = delay;
    }

    /// It restarts and has forgotten everything, generations too.
    pub fn come_back_empty(&self) {
        self.device.come_back_empty();
    }
}

impl Producers for SimProducers {
    fn put_producer(&self, producer: Producer) -> BoxFuture<'_, Result<(), PushError>> {
        async move {
            self.device.reach().await?;
            producer.validate().map_err(|invalid| malformed(&invalid))?;
            self.device.check_room(1)?;
            self.device.lock().held.put(producer.propolis_id, producer.generation, producer);
            Ok(())
        }
        .boxed()
    }

    fn delete_producer(
        &self,
        vmm: PropolisId,
        generation: Generation,
    ) -> BoxFuture<'_, Result<(), PushError>> {
        async move {
            self.device.reach().await?;
            self.device.lock().held.delete(vmm, generation);
            Ok(())
        }
        .boxed()
    }

    fn list_producers(&self) -> BoxFuture<'_, Result<Vec<Producer>, PushError>> {
        async move {
            self.device.reach().await?;
            Ok(self.device.lock().held.values().cloned().collect())
        }
        .boxed()
    }
}

struct Device<K: Ord, V> {
    state: Mutex<State<K, V>>,
}

struct State<K: Ord, V> {
    held: Newest<K, V>,
    is_away: bool,
    delay: Duration,
}

impl<K: Ord + Clone, V> Default for Device<K, V> {
    fn default() -> Self {
        let state = State { held: Newest::default(), is_away: false, delay: Duration::ZERO };
        Self { state: Mutex::new(state) }
    }
}

impl<K: Ord + Clone, V> Device<K, V> {
    /// No code that holds the lock can panic half way through a change.
    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reach(&self) -> Result<(), PushError> {
        let delay = self.lock().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if self.lock().is_away {
            return Err(PushError::Unavailable("the device is away".to_owned()));
        }
        Ok(())
    }

    fn check_room(&self, more: usize) -> Result<(), PushError> {
        if self.lock().held.len() + more > ENTRIES_MAX {
            return Err(PushError::Refused { status: 507, message: "the device is full".to_owned() });
        }
        Ok(())
    }

    fn come_back_empty(&self) {
        let mut state = self.lock();
        state.held = Newest::default();
        state.is_away = false;
    }
}

fn check_entries(entries: &[NatEntry]) -> Result<(), PushError> {
    if entries.len() > limits::MAPPINGS_MAX {
        let message = format!("{} entries; send at most {}", entries.len(), limits::MAPPINGS_MAX);
        return Err(PushError::Refused { status: 400, message });
    }
    entries.iter().try_for_each(NatEntry::validate).map_err(|invalid| malformed(&invalid))
}

fn malformed(invalid: &sled_protocol::Invalid) -> PushError {
    PushError::Refused { status: 400, message: invalid.to_string() }
}

const fn nat_key(entry: &NatEntry) -> (IpAddr, u16) {
    (entry.external_ip, entry.first_port)
}

#[cfg(test)]
mod tests {
    use sled_protocol::{MacAddr, Vni};

    use super::*;

    fn entry(generation: u64, host: u8) -> NatEntry {
        NatEntry {
            external_ip: [203, 0, 113, 7].into(),
            first_port: 0,
            last_port: 16_383,
            physical_host_ip: [192, 168, 0, host].into(),
            vni: Vni::new(1).unwrap(),
            mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
            generation: Generation::new(generation),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_switch_keeps_the_newest_may_be_away_or_slow_and_may_come_back_empty() {
        let switch = SimSwitch::default();
        switch.put_nat(vec![entry(5, 1)]).await.unwrap();
        switch.put_nat(vec![entry(4, 2)]).await.unwrap();
        assert_eq!(switch.list_nat().await.unwrap(), [entry(5, 1)]);
        switch.set_away(true);
        assert!(matches!(switch.delete_nat(vec![entry(6, 1)]).await, Err(PushError::Unavailable(_))));
        switch.set_away(false);
        assert_eq!(switch.list_nat().await.unwrap(), [entry(5, 1)]);
        switch.set_delay(Duration::from_secs(9));
        let asked = tokio::time::Instant::now();
        switch.delete_nat(vec![entry(6, 1)]).await.unwrap();
        assert_eq!(asked.elapsed().as_secs(), 9);
        switch.put_nat(vec![entry(5, 1)]).await.unwrap();
        assert_eq!(switch.list_nat().await.unwrap(), []);
        switch.come_back_empty();
        switch.put_nat(vec![entry(1, 3)]).await.unwrap();
        assert_eq!(switch.list_nat().await.unwrap(), [entry(1, 3)]);
        let mut empty_range = entry(9, 1);
        empty_range.last_port = 0;
        empty_range.first_port = 1;
        assert!(matches!(
            switch.put_nat(vec![empty_range]).await,
            Err(PushError::Refused { status: 400, .. })
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_producer_that_was_removed_does_not_return_by_a_late_put() {
        let producers = SimProducers::default();
        let vmm = PropolisId::from_uuid(uuid::Uuid::from_u128(1));
        let producer = Producer {
            propolis_id: vmm,
            instance_id: sled_protocol::InstanceId::from_uuid(uuid::Uuid::from_u128(2)),
            physical_host_ip: [192, 168, 0, 1].into(),
            generation: Generation::new(5),
        };
        producers.put_producer(producer.clone()).await.unwrap();
        assert_eq!(producers.list_producers().await.unwrap(), std::slice::from_ref(&producer));
        producers.delete_producer(vmm, Generation::new(4)).await.unwrap();
        assert_eq!(producers.list_producers().await.unwrap().len(), 1, "an older deletion is ignored");
        producers.delete_producer(vmm, Generation::new(6)).await.unwrap();
        producers.put_producer(producer).await.unwrap();
        assert_eq!(producers.list_producers().await.unwrap(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_may_be_away_or_slow_and_may_come_back_empty() {
        let producers = SimProducers::default();
        let producer = |generation| Producer {
            propolis_id: PropolisId::from_uuid(uuid::Uuid::from_u128(1)),
            instance_id: sled_protocol::InstanceId::from_uuid(uuid::Uuid::from_u128(2)),
            physical_host_ip: [192, 168, 0, 1].into(),
            generation: Generation::new(generation),
        };
        producers.put_producer(producer(5)).await.unwrap();
        producers.set_away(true);
        assert!(matches!(producers.put_producer(producer(6)).await, Err(PushError::Unavailable(_))));
        assert!(matches!(producers.list_producers().await, Err(PushError::Unavailable(_))));
        producers.set_away(false);
        assert_eq!(producers.list_producers().await.unwrap(), [producer(5)], "nothing was taken while away");
        producers.set_delay(Duration::from_secs(4));
        let asked = tokio::time::Instant::now();
        producers.put_producer(producer(6)).await.unwrap();
        assert_eq!(asked.elapsed().as_secs(), 4);
        producers.come_back_empty();
        assert_eq!(producers.list_producers().await.unwrap(), []);
        producers.put_producer(producer(1)).await.unwrap();
        assert_eq!(producers.list_producers().await.unwrap(), [producer(1)], "generations are forgotten too");
    }
}
