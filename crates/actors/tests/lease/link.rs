//! A way between a sled and its control plane that can be cut in either direction. What is under way when it is cut,
//! or sent into the cut, is lost, or arrives late: after the cut is over.

use futures::FutureExt;
use futures::future::BoxFuture;
use sim_sled::machine::{Dice, Span};
use sled_protocol::{
    ControlPlaneClient, ControlPlaneError, Inventory, LeaseEpoch, PropolisId, RegisterSled, RegisterVmm,
    RenewLease, SerialData, SerialRange, SetState, SledClient, SledError, SledId, SledLease, SledVmmState,
    V2pMapping,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// Time that one message takes, in either direction.
const LATENCY: Span = Span::millis(0, 40);

/// One direction.
pub struct Way {
    is_cut: watch::Sender<bool>,
    dice: Dice,
    sent: AtomicU64,
}

impl Way {
    fn new(seed: u64) -> Self {
        Self { is_cut: watch::Sender::new(false), dice: Dice::new(seed), sent: AtomicU64::new(0) }
    }

    pub fn cut(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }

    /// Messages so far, those included that met a cut.
    #[allow(dead_code, reason = "not every test that has links counts")]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Takes its time; of those that meet a cut every second is lost.
    async fn pass(&self) {
        let nth = self.sent.fetch_add(1, Ordering::Relaxed);
        let late = self.dice.within(LATENCY, "latency", Uuid::nil(), nth);
        tokio::time::sleep(Duration::from_micros(late)).await;
        let mut is_cut = self.is_cut.subscribe();
        if *is_cut.borrow() && self.dice.draw("lost", Uuid::nil(), nth).is_multiple_of(2) {
            return std::future::pending().await;
        }
        is_cut.wait_for(|is_cut| !is_cut).await.unwrap();
    }
}

/// Both directions between one sled and its control plane.
pub struct Link {
    pub to_control: Way,
    pub to_sled: Way,
}

impl Link {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { to_control: Way::new(seed), to_sled: Way::new(seed ^ 0x5a) })
    }

    /// Cuts or mends both directions.
    pub fn cut(&self, is_cut: bool) {
        self.to_control.cut(is_cut);
        self.to_sled.cut(is_cut);
    }
}

/// A sled as its control plane reaches it.
#[derive(Clone)]
pub struct FarSled {
    pub link: Arc<Link>,
    pub sled: Arc<dyn SledClient>,
}

impl FarSled {
    /// The call goes on when whoever made it has given up: that is what a late message is.
    fn carry<T: Send + 'static, F: Future<Output = Result<T, SledError>> + Send>(
        &self,
        call: impl FnOnce(Arc<dyn SledClient>) -> F + Send + 'static,
    ) -> BoxFuture<'_, Result<T, SledError>> {
        let Self { link, sled } = self.clone();
        let carried = tokio::spawn(async move {
            link.to_sled.pass().await;
            let answer = call(sled).await;
            link.to_control.pass().await;
            answer
        });
        async move { carried.await.unwrap() }.boxed()
    }
}

impl SledClient for FarSled {
    fn register(
        &self,
        vmm: PropolisId,
        request: RegisterVmm,
    ) -> BoxFuture<'_, Result<SledVmmState, SledError>> {
        self.carry(move |sled| async move { sled.register(vmm, request).await })
    }

    fn unregister(
        &self,
        vmm: PropolisId,
        epoch: LeaseEpoch,
    ) -> BoxFuture<'_, Result<Option<SledVmmState>, SledError>> {
        self.carry(move |sled| async move { sled.unregister(vmm, epoch).await })
    }

    fn set_state(
        &self,
        vmm: PropolisId,
        request: SetState,
    ) -> BoxFuture<'_, Result<Option<SledVmmState>, SledError>> {
        self.carry(move |sled| async move { sled.set_state(vmm, request).await })
    }

    fn get_state(&self, vmm: PropolisId) -> BoxFuture<'_, Result<SledVmmState, SledError>> {
        self.carry(move |sled| async move { sled.get_state(vmm).await })
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Inventory, SledError>> {
        self.carry(move |sled| async move { sled.inventory().await })
    }

    fn put_v2p(&self, epoch: LeaseEpoch, mappings: Vec<V2pMapping>) -> BoxFuture<'_, Result<(), SledError>> {
        self.carry(move |sled| async move { sled.put_v2p(epoch, mappings).await })
    }

    fn delete_v2p(
        &self,
        epoch: LeaseEpoch,
        mappings: Vec<V2pMapping>,
    ) -> BoxFuture<'_, Result<(), SledError>> {
        self.carry(move |sled| async move { sled.delete_v2p(epoch, mappings).await })
    }

    fn list_v2p(&self) -> BoxFuture<'_, Result<Vec<V2pMapping>, SledError>> {
        self.carry(move |sled| async move { sled.list_v2p().await })
    }

    fn serial(&self, vmm: PropolisId, range: SerialRange) -> BoxFuture<'_, Result<SerialData, SledError>> {
        self.carry(move |sled| async move { sled.serial(vmm, range).await })
    }
}

/// The control plane as a sled reaches it.
#[derive(Clone)]
pub struct FarControl {
    pub link: Arc<Link>,
    pub control: Arc<dyn ControlPlaneClient>,
}

impl FarControl {
    fn carry<T: Send + 'static, F: Future<Output = Result<T, ControlPlaneError>> + Send>(
        &self,
        call: impl FnOnce(Arc<dyn ControlPlaneClient>) -> F + Send + 'static,
    ) -> BoxFuture<'_, Result<T, ControlPlaneError>> {
        let Self { link, control } = self.clone();
        let carried = tokio::spawn(async move {
            link.to_control.pass().await;
            let answer = call(control).await;
            link.to_sled.pass().await;
            answer
        });
        async move { carried.await.unwrap() }.boxed()
    }
}

impl ControlPlaneClient for FarControl {
    fn report(
        &self,
        sled: SledId,
        vmm: PropolisId,
        state: SledVmmState,
    ) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.carry(move |control| async move { control.report(sled, vmm, state).await })
    }

    fn register(&self, request: RegisterSled) -> BoxFuture<'_, Result<SledLease, ControlPlaneError>> {
        self.carry(move |control| async move { control.register(request).await })
    }

    fn renew(&self, sled: SledId, request: RenewLease) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.carry(move |control| async move { control.renew(sled, request).await })
    }
}
