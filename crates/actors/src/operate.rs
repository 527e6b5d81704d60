//! What operators ask of the fleet, and what there is to look at: sleds, quotas, timers.

use crate::answer::{CommandError, RequestContext};
use crate::boards::TimerStatus;
use crate::control::ControlPlane;
use crate::convert;
use crate::retention::Archive;
use crate::sled::SledStatus;
use crate::timers::{Census, TimerName};
use crate::writer::{AppendError, Writer};
use journal::{Event, StreamName};
use lifecycle::event::SystemEvent;
use lifecycle::ledger::SledLoad;
use lifecycle::sled::{Sled, SledCommand};
use lifecycle::{Policy, ProjectId, Quota, QuotaScope, Rejected, SledId, Totals, VmmId};
use sled_protocol::{SerialData, SerialRange, SledError};
use std::sync::Arc;

/// A limit and what is charged against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaUse {
    /// The limit.
    pub quota: Quota,
    /// What is charged.
    pub used: Totals,
}

/// Quotas as the ledger has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Of the fleet.
    pub fleet: QuotaUse,
    /// Of the silo.
    pub silo: QuotaUse,
}

impl ControlPlane {
    /// Does what is asked of a sled; answers it afterwards and the position of its newest event.
    pub async fn ask_sled(
        &self,
        sled: SledId,
        command: SledCommand,
        context: RequestContext,
    ) -> Result<(Sled, u64), CommandError> {
        self.must_be_open()?;
        // Ids that never registered must not activate anything.
        let is_known = self.inner.ledger.look(0, move |ledger| ledger.has_sled(sled)).await;
        if !is_known.map_err(|gone| CommandError::Unavailable(gone.to_string()))? {
            return Err(Rejected::NoSuchSled(sled).into());
        }
        self.inner.sleds.command(sled, command, context).await
    }

    /// Quotas of fleet and silo, with what is charged.
    pub async fn quotas(&self) -> Result<Quotas, CommandError> {
        let after = self.inner.env.log.durable().get();
        let look = self.inner.ledger.look(after, |ledger| (ledger.quotas(), ledger.charged_in_all())).await;
        let ((silo, fleet), used) = look.map_err(|gone| CommandError::Unavailable(gone.to_string()))?;
        Ok(Quotas { fleet: QuotaUse { quota: fleet, used }, silo: QuotaUse { quota: silo, used } })
    }

    /// A project's quota, with what is charged.
    pub async fn project_quota(&self, project: ProjectId) -> Result<QuotaUse, CommandError> {
        let after = self.inner.env.log.durable().get();
        let look = self.inner.ledger.look(after, move |ledger| {
            let of = QuotaUse { quota: ledger.project_quota(project), used: ledger.charged(project) };
            ledger.has_project(project).then_some(of)
        });
        let found = look.await.map_err(|gone| CommandError::Unavailable(gone.to_string()))?;
        found.ok_or_else(|| Rejected::NoSuchProject(project).into())
    }

    /// Sets the quota of the silo or the fleet; a project's is set through the project. Answers the position
    /// of the event, or of the newest if nothing changed.
    pub async fn set_quota(
        &self,
        scope: QuotaScope,
        quota: Quota,
        context: RequestContext,
    ) -> Result<u64, CommandError> {
        self.must_be_open()?;
        let _one_at_a_time = self.inner.system.lock().await;
        let quotas = self.quotas().await?;
        let now = match scope {
            QuotaScope::Silo => quotas.silo.quota,
            QuotaScope::Fleet => quotas.fleet.quota,
            QuotaScope::Project => {
                return Err(CommandError::Unavailable("a project's quota is set through it".to_owned()));
            }
        };
        if now == quota {
            return Ok(self.inner.env.log.durable().get());
        }
        let opened = Writer::open(Arc::clone(&self.inner.env), StreamName::System).await;
        let (mut writer, _) = opened.map_err(|error| CommandError::Unavailable(error.to_string()))?;
        let set = Event::from(SystemEvent::QuotaSet { scope, quota });
        match writer.append(&[set], &context.recorded()).await {
            Ok(_) => Ok(writer.position()),
            Err(AppendError::Rehearsed(events)) => Err(CommandError::Rehearsed(events)),
            Err(error @ AppendError::Unknown(_)) => Err(CommandError::Unknown(error.to_string())),
            Err(error) => Err(CommandError::Unavailable(error.to_string())),
        }
    }

    /// A sled's load, once the ledger has seen everything that is durable.
    pub async fn sled(&self, sled: SledId) -> Result<SledLoad, CommandError> {
        let after = self.inner.env.log.durable().get();
        let look = self.inner.ledger.look(after, move |ledger| ledger.sled(sled)).await;
        let found = look.map_err(|gone| CommandError::Unavailable(gone.to_string()))?;
        found.ok_or_else(|| Rejected::NoSuchSled(sled).into())
    }

    /// Whether a sled has ever registered.
    pub fn has_registered(&self, sled: SledId) -> bool {
        self.inner.ledger.glance(|ledger| ledger.has_sled(sled))
    }

    /// How a sled is doing; none if it never registered, or restarts.
    pub async fn sled_status(&self, sled: SledId) -> Option<SledStatus> {
        let is_known = self.inner.ledger.look(0, move |ledger| ledger.has_sled(sled)).await;
        if is_known == Ok(true) { self.inner.sleds.status(sled).await } else { None }
    }

    /// What a VMM on a sled has written, as far as the sled keeps it.
    pub async fn serial(
        &self,
        sled: SledId,
        vmm: VmmId,
        range: SerialRange,
    ) -> Result<SerialData, SledError> {
        self.inner.sleds.serial(sled, convert::propolis(vmm), range).await
    }

    /// Limits that decisions use.
    pub fn policy(&self) -> Policy {
        self.inner.env.policy
    }

    /// Starts the reapers. Once; `census` is the read model that they look at.
    pub fn start_timers(&self, census: Arc<dyn Census>) {
        self.inner.timers.start(census);
    }

    /// Says where retention keeps what was deleted long ago. Once, before the timers start.
    pub fn archive_into(&self, archive: Arc<dyn Archive>) {
        self.inner.timers.archive_into(archive);
    }

    /// How each reaper is doing.
    pub fn timers(&self) -> Vec<TimerStatus> {
        self.inner.timers.list()
    }

    /// Runs a reaper at once.
    pub fn activate_timer(&self, name: TimerName) {
        self.inner.timers.activate(name);
    }
}
