//! A control plane for tests of the shells: it takes everything down, and can be away.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use sled_protocol::{
    ControlPlaneClient, ControlPlaneError, PropolisId, RegisterSled, RenewLease, SledId, SledLease,
    SledVmmState, VmmState,
};
use tokio::sync::watch;

use super::{EPOCH, shown};

/// A control plane that records what it is told and can be away.
#[derive(Clone)]
pub struct Recorder {
    told: Arc<Mutex<Told>>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
pub struct Told {
    pub reports: Vec<(PropolisId, SledVmmState)>,
    pub attempts: u32,
    pub registrations: u32,
    pub renewals: u32,
    pub lease_seconds: Option<u64>,
    pub refusal: Option<ControlPlaneError>,
    pub renewal_refusal: Option<ControlPlaneError>,
}

impl Recorder {
    pub fn new() -> Self {
        Self { told: Arc::default(), changed: watch::Sender::new(()) }
    }

    pub fn set(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told.lock().unwrap());
        self.changed.send_replace(());
    }

    pub fn get<R>(&self, read: impl FnOnce(&Told) -> R) -> R {
        read(&self.told.lock().unwrap())
    }

    /// Waits until this holds of what was told; virtual time passes meanwhile.
    pub async fn until(&self, holds: impl Fn(&Told) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !self.get(&holds) {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_hours(2), wait).await.expect("it never came to hold");
    }

    pub fn shown(&self, id: PropolisId) -> Vec<String> {
        self.get(|told| {
            told.reports.iter().filter(|(of, _)| *of == id).map(|(_, state)| shown(state)).collect()
        })
    }
}

impl ControlPlaneClient for Recorder {
    fn report(
        &self,
        _sled: SledId,
        vmm: PropolisId,
        state: SledVmmState,
    ) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        async move {
            let mut refusal = None;
            self.set(|told| {
                told.attempts += 1;
                refusal.clone_from(&told.refusal);
                if refusal.is_none() {
                    told.reports.push((vmm, state));
                }
            });
            refusal.map_or(Ok(()), Err)
        }
        .boxed()
    }

    fn register(&self, request: RegisterSled) -> BoxFuture<'_, Result<SledLease, ControlPlaneError>> {
        async move {
            request.validate().unwrap();
            self.set(|told| told.registrations += 1);
            match self.get(|told| (told.refusal.clone(), told.lease_seconds)) {
                (Some(refusal), _) => Err(refusal),
                (None, lease_seconds) => Ok(SledLease { lease_epoch: EPOCH, lease_seconds, store_id: None }),
            }
        }
        .boxed()
    }

    fn renew(&self, _sled: SledId, request: RenewLease) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        async move {
            request.validate().unwrap();
            self.set(|told| told.renewals += 1);
            self.get(|told| told.renewal_refusal.clone()).map_or(Ok(()), Err)
        }
        .boxed()
    }
}

/// Whether the VMM was ever reported in this state.
pub fn says(told: &Told, id: PropolisId, state: VmmState) -> bool {
    told.reports.iter().any(|(of, picture)| *of == id && picture.vmm_state.state == state)
}
