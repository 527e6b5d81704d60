//! Everything between the sleds and whichever control plane lives: who is cut off, whose reports are held
//! back, and every report that was ever sent.

use super::life::Life;
use super::plan::Fate;
use futures::FutureExt;
use futures::future::BoxFuture;
use lifecycle::{SledId, VmmId};
use sled_protocol::{
    ControlPlaneClient, ControlPlaneError, PropolisId, RegisterSled, RenewLease, SledError, SledLease,
    SledVmmState,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a scenario has a sled say instead of what it would.
#[derive(Clone, Debug)]
pub(super) enum Planned {
    /// It refuses for good, in the words of that request.
    Refuse,
    /// It says this, and does nothing.
    Answer(SledError),
    /// It does what it is asked, and answers "no such VMM" once it has forgotten it.
    Forget,
}

/// A report as it was sent.
pub(super) type Sent = (sled_protocol::SledId, PropolisId, SledVmmState);

/// The wires. They outlive every control plane.
#[derive(Default)]
pub(super) struct Net {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Who takes reports.
    intake: Option<(Arc<Life>, Arc<dyn ControlPlaneClient>)>,
    /// Sleds that cannot be reached.
    cut: BTreeSet<SledId>,
    /// VMMs whose reports are held back, with what is known of each.
    held: BTreeMap<VmmId, SledVmmState>,
    /// Kinds of request that the scenario answers, and how often.
    planned: BTreeMap<&'static str, (Planned, usize)>,
    /// Whether the next look-up of a sled panics.
    is_rotten: bool,
    sent: Vec<Sent>,
}

impl Net {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports go to `intake` while `life` lives.
    pub(super) fn connect(&self, life: Arc<Life>, intake: Arc<dyn ControlPlaneClient>) {
        self.lock().intake = Some((life, intake));
    }

    /// Whether the sled's wire is cut, both ways.
    pub(super) fn is_cut(&self, sled: SledId) -> bool {
        self.lock().cut.contains(&sled)
    }

    /// Cuts the sled's wire.
    pub(super) fn cut(&self, sled: SledId) {
        self.lock().cut.insert(sled);
    }

    /// Mends it.
    pub(super) fn mend(&self, sled: SledId) {
        self.lock().cut.remove(&sled);
    }

    /// What the VMM reports from here on does not arrive; an inventory shows it as `known`.
    pub(super) fn hold(&self, vmm: VmmId, known: SledVmmState) {
        self.lock().held.insert(vmm, known);
    }

    /// It arrives again.
    pub(super) fn release(&self, vmm: VmmId) {
        self.lock().held.remove(&vmm);
    }

    /// The next `times` requests of this kind are answered so.
    pub(super) fn plan(&self, kind: &'static str, planned: Planned, times: usize) {
        self.lock().planned.insert(kind, (planned, times));
    }

    /// What the scenario answers this request, if it does.
    pub(super) fn planned(&self, kind: &'static str) -> Option<Planned> {
        let mut state = self.lock();
        let (planned, times) = state.planned.get_mut(kind)?;
        *times = times.checked_sub(1)?;
        Some(planned.clone())
    }

    /// The next look-up of a sled panics, in whichever actor makes it.
    pub(super) fn rot(&self) {
        self.lock().is_rotten = true;
    }

    /// Whether this look-up is to panic.
    pub(super) fn takes_rot(&self) -> bool {
        std::mem::take(&mut self.lock().is_rotten)
    }

    /// Everything flows again.
    pub(super) fn heal(&self) {
        let mut state = self.lock();
        state.cut.clear();
        state.held.clear();
        state.planned.clear();
    }

    /// What is held back of a VMM: the picture that an inventory shows instead.
    pub(super) fn held(&self, vmm: VmmId) -> Option<SledVmmState> {
        self.lock().held.get(&vmm).cloned()
    }

    /// Every report that reached a control plane, oldest first.
    pub(super) fn sent(&self) -> Vec<Sent> {
        self.lock().sent.clone()
    }

    /// Who takes reports of this sled at present.
    fn intake(&self, sled: SledId) -> Result<(Arc<Life>, Arc<dyn ControlPlaneClient>), ControlPlaneError> {
        let state = self.lock();
        let away = || ControlPlaneError::Unavailable("the control plane cannot be reached".to_owned());
        if state.cut.contains(&sled) {
            return Err(away());
        }
        state.intake.clone().filter(|(life, _)| !life.is_dead()).ok_or_else(away)
    }

    async fn forward<T, F>(
        &self,
        sled: SledId,
        call: impl Fn(Arc<dyn ControlPlaneClient>) -> F,
    ) -> Result<T, ControlPlaneError>
    where
        F: Future<Output = Result<T, ControlPlaneError>>,
    {
        let (life, intake) = self.intake(sled)?;
        let died = || ControlPlaneError::Unavailable("the control plane died".to_owned());
        let times = if life.plan.question() == Fate::Twice { 2 } else { 1 };
        let mut answer = Err(died());
        for _ in 0..times {
            answer = tokio::select! {
                biased;
                () = life.died() => return Err(died()),
                answer = call(Arc::clone(&intake)) => answer,
            };
        }
        answer
    }
}

impl ControlPlaneClient for Net {
    fn report(
        &self,
        sled: sled_protocol::SledId,
        vmm: PropolisId,
        state: SledVmmState,
    ) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        async move {
            if self.held(VmmId::new(vmm.as_uuid())).is_some() {
                return Err(ControlPlaneError::Unavailable("held back".to_owned()));
            }
            self.lock().sent.push((sled, vmm, state.clone()));
            let report = |intake: Arc<dyn ControlPlaneClient>| {
                let state = state.clone();
                async move { intake.report(sled, vmm, state).await }
            };
            self.forward(SledId::new(sled.as_uuid()), report).await
        }
        .boxed()
    }

    fn register(&self, request: RegisterSled) -> BoxFuture<'_, Result<SledLease, ControlPlaneError>> {
        async move {
            let register = |intake: Arc<dyn ControlPlaneClient>| {
                let request = request.clone();
                async move { intake.register(request).await }
            };
            self.forward(SledId::new(request.sled_id.as_uuid()), register).await
        }
        .boxed()
    }

    fn renew(
        &self,
        sled: sled_protocol::SledId,
        request: RenewLease,
    ) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        async move {
            let renew =
                |intake: Arc<dyn ControlPlaneClient>| async move { intake.renew(sled, request).await };
            self.forward(SledId::new(sled.as_uuid()), renew).await
        }
        .boxed()
    }
}
