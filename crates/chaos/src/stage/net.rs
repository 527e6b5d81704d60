//! The line from one sled to whichever life there is: reports, registrations, renewals, in the weather.

use super::state::Stage;
use crate::faults::Direction;
use futures::FutureExt;
use futures::future::BoxFuture;
use sled_protocol::{
    ControlPlaneClient, ControlPlaneError, PropolisId, RegisterSled, RenewLease, SledId, SledLease,
    SledVmmState,
};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::oneshot;
use tokio::time::sleep;

/// See the module's head.
pub(super) struct Net {
    pub(super) stage: Weak<Stage>,
    pub(super) sled: u16,
}

fn away() -> ControlPlaneError {
    ControlPlaneError::Unavailable("the control plane cannot be reached".to_owned())
}

impl Net {
    /// One request: its copies travel and are taken by whoever lives when they arrive.
    async fn send<T: Send + 'static, F>(
        &self,
        key: (&'static str, u128),
        call: impl Fn(Arc<dyn ControlPlaneClient>) -> F + Send + Sync + 'static,
    ) -> Result<T, ControlPlaneError>
    where
        F: Future<Output = Result<T, ControlPlaneError>> + Send,
    {
        let Some(stage) = self.stage.upgrade() else { return Err(away()) };
        if stage.sled_that_is_up(self.sled).is_none() {
            return Err(away());
        }
        let (reply, answer) = oneshot::channel();
        let (reply, call) = (Arc::new(Mutex::new(Some(reply))), Arc::new(call));
        for way in stage.ways(self.sled, Direction::FromSled, key) {
            let (stage, sled) = (Arc::clone(&stage), self.sled);
            let (reply, call) = (Arc::clone(&reply), Arc::clone(&call));
            tokio::spawn(async move {
                sleep(way).await;
                let life = stage.life();
                let Some(intake) = life.up().map(|up| up.control.intake()) else { return };
                let said = tokio::select! {
                    biased;
                    () = life.died() => return,
                    said = call(intake) => said,
                };
                let Some(back) =
                    stage.ways(sled, Direction::ToSled, ("to_report_answered", key.1)).first().copied()
                else {
                    return;
                };
                sleep(back).await;
                let waiting = reply.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(waiting) = waiting {
                    // The sled may have given up.
                    let _ = waiting.send(said);
                }
            });
        }
        drop(reply);
        let answer = answer.await.unwrap_or_else(|_| Err(away()));
        // A host that went down meanwhile hears nothing.
        if stage.sled_that_is_up(self.sled).is_none() { Err(away()) } else { answer }
    }
}

impl ControlPlaneClient for Net {
    fn report(
        &self,
        sled: SledId,
        vmm: PropolisId,
        state: SledVmmState,
    ) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        async move {
            if let Some(stage) = self.stage.upgrade() {
                stage.look_at_guests();
                stage.check(|checks, now| checks.reported(now, self.sled, vmm, &state));
            }
            let report = move |intake: Arc<dyn ControlPlaneClient>| {
                let state = state.clone();
                async move { intake.report(sled, vmm, state).await }
            };
            self.send(("from_report", vmm.as_uuid().as_u128()), report).await
        }
        .boxed()
    }

    fn register(&self, request: RegisterSled) -> BoxFuture<'_, Result<SledLease, ControlPlaneError>> {
        async move {
            let register = move |intake: Arc<dyn ControlPlaneClient>| {
                let request = request.clone();
                async move { intake.register(request).await }
            };
            self.send(("from_register", 0), register).await
        }
        .boxed()
    }

    fn renew(&self, sled: SledId, request: RenewLease) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        async move {
            let renew =
                move |intake: Arc<dyn ControlPlaneClient>| async move { intake.renew(sled, request).await };
            self.send(("from_renew", 0), renew).await
        }
        .boxed()
    }
}
