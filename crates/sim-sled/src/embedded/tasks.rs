//! The three tasks of an embedded sled; each ends when the sled is shut down or its machine is broken.
//!
//! Every wait is for a level: a task that was busy when something happened sees it when it looks again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sled_protocol::{ControlPlaneClient, ControlPlaneError, PropolisId, SledId, SledVmmState};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use super::{Down, Fabric, Shared};
use crate::machine::{Dice, Output, Sled, Span};

/// Wait before the first repeat of a failed call.
const RETRY_DELAY_MILLIS_MIN: u64 = 100;

/// Longest wait between repeats, so that a control plane that returns hears everything within seconds.
const RETRY_DELAY_MILLIS_MAX: u64 = 10_000;

/// Longest a call of the control plane may take, whatever its client allows.
const CALL_SECONDS_MAX: u64 = 30;

/// Shortest pause between two tries to store what happened, where something is due.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Tries to renew that fit into what is left of a lease once the first is due; each may take so much of it.
const TRIES_PER_LEASE: u32 = 6;

/// Most reports under way at once per sled.
const REPORTS_IN_FLIGHT_MAX: usize = 32;

pub(super) fn spawn(
    shared: &Arc<Shared>,
    control_plane: Arc<dyn ControlPlaneClient>,
    fabric: Fabric,
) -> JoinSet<()> {
    let (sled, dice) = match shared.core.lock() {
        Ok(core) => (core.machine.config().sled_id, Dice::new(core.machine.config().seed)),
        Err(_) => return JoinSet::new(),
    };
    let mut tasks = JoinSet::new();
    // Subscribed before any task runs, so that none misses what the others do first.
    let poke = shared.poke.subscribe();
    let caller = Caller { shared: Arc::clone(shared), control_plane, sled, dice };
    let reporter = Reporter { caller: caller.clone(), retries: BTreeMap::new(), in_flight: BTreeSet::new() };
    tasks.spawn(drive(Arc::clone(shared), poke, fabric));
    tasks.spawn(reporter.run(shared.news.subscribe()));
    tasks.spawn(keep_registered(caller, shared.news.subscribe()));
    tasks
}

/// Polls the machine when something is due or has been done to it.
async fn drive(shared: Arc<Shared>, mut poke: level::Receiver<()>, fabric: Fabric) {
    loop {
        poke.mark_unchanged();
        let polled = shared.act(|machine, now| (machine.poll(now), machine.next_wake()));
        let wake = match polled {
            Ok((outputs, wake)) => {
                for output in outputs {
                    match output {
                        Output::Peer(message) => fabric.deliver(message),
                        // The reporter looks at what is pending instead, because it must repeat.
                        Output::Report { .. } => {}
                    }
                }
                wake.map(|micros| shared.instant(micros))
            }
            Err(Down::Closed | Down::Poisoned) => return,
            Err(down @ Down::Store(_)) => {
                tracing::warn!(%down, "the sled holds back what it has to say");
                let again = Instant::now() + Duration::from_millis(RETRY_DELAY_MILLIS_MAX);
                // A lease that ends meanwhile is not to end late.
                let due = shared.look(Sled::next_wake).ok().flatten().map(|micros| shared.instant(micros));
                Some(due.map_or(again, |due| again.min(due.max(Instant::now() + STORE_PAUSE))))
            }
        };
        shared.news.send_replace(());
        tokio::select! {
            biased;
            changed = poke.changed() => if changed.is_err() { return },
            () = sleep_opt(wake) => {}
        }
    }
}

/// What a task needs to call the control plane.
#[derive(Clone)]
struct Caller {
    shared: Arc<Shared>,
    control_plane: Arc<dyn ControlPlaneClient>,
    sled: SledId,
    dice: Dice,
}

impl Caller {
    /// Exponential, jittered downwards by up to half.
    fn delay(&self, id: Uuid, failures: u32) -> Duration {
        let factor = 1_u64 << failures.saturating_sub(1).min(16);
        let longest = RETRY_DELAY_MILLIS_MIN.saturating_mul(factor).min(RETRY_DELAY_MILLIS_MAX);
        let drawn = self.dice.within(Span::millis(longest / 2, longest), "retry", id, failures.into());
        Duration::from_micros(drawn)
    }

    async fn report(self, vmm: PropolisId, state: SledVmmState) -> Reported {
        let call = self.control_plane.report(self.sled, vmm, state.clone());
        Reported { vmm, state, answer: bounded(call).await }
    }
}

async fn bounded<T>(
    call: impl Future<Output = Result<T, ControlPlaneError>>,
) -> Result<T, ControlPlaneError> {
    match timeout(Duration::from_secs(CALL_SECONDS_MAX), call).await {
        Ok(answer) => answer,
        Err(_) => Err(ControlPlaneError::Unavailable("no answer in time".to_owned())),
    }
}

struct Reported {
    vmm: PropolisId,
    state: SledVmmState,
    answer: Result<(), ControlPlaneError>,
}

/// How often a VMM's report has failed in a row, and when it is repeated.
struct Retry {
    failures: u32,
    at: Instant,
}

/// Publishes the pictures not yet accepted; entries exist only for VMMs whose last report failed.
struct Reporter {
    caller: Caller,
    retries: BTreeMap<PropolisId, Retry>,
    in_flight: BTreeSet<PropolisId>,
}

impl Reporter {
    async fn run(mut self, mut news: level::Receiver<()>) {
        let mut reports = FuturesUnordered::new();
        loop {
            news.mark_unchanged();
            // One time for both: a repeat that is due between two looks at the clock would be waited for in vain.
            let now = Instant::now();
            let ready = match self.ready(now, REPORTS_IN_FLIGHT_MAX.saturating_sub(self.in_flight.len())) {
                Ok(ready) => ready,
                Err(Down::Closed | Down::Poisoned) => return,
                // The driver says so, and news comes when it can write again.
                Err(Down::Store(_)) => Vec::new(),
            };
            for (vmm, state) in ready {
                self.in_flight.insert(vmm);
                reports.push(self.caller.clone().report(vmm, state));
            }
            let retry_at = self
                .retries
                .iter()
                .filter(|(vmm, _)| !self.in_flight.contains(vmm))
                .map(|(_, retry)| retry.at);
            let retry_at = retry_at.filter(|at| *at > now).min();
            tokio::select! {
                biased;
                Some(reported) = reports.next() => self.settle(reported),
                changed = news.changed() => if changed.is_err() { return },
                () = sleep_opt(retry_at) => {}
            }
        }
    }

    /// The pictures to be published now, and drops retries of VMMs that have nothing pending.
    fn ready(&mut self, now: Instant, room: usize) -> Result<Vec<(PropolisId, SledVmmState)>, Down> {
        let pending: BTreeMap<PropolisId, SledVmmState> = self
            .caller
            .shared
            .act(|machine, _| machine.pending_reports().map(|(vmm, state)| (vmm, state.clone())).collect())?;
        self.retries.retain(|vmm, _| pending.contains_key(vmm));
        let is_ready = |vmm: &PropolisId| {
            !self.in_flight.contains(vmm) && self.retries.get(vmm).is_none_or(|retry| retry.at <= now)
        };
        Ok(pending.into_iter().filter(|(vmm, _)| is_ready(vmm)).take(room).collect())
    }

    fn settle(&mut self, reported: Reported) {
        let Reported { vmm, state, answer } = reported;
        self.in_flight.remove(&vmm);
        let shared = &self.caller.shared;
        let settled = match answer {
            Ok(()) => shared.act(|machine, now| machine.report_accepted(now, vmm, &state)),
            Err(error) if error.is_definite() => {
                tracing::warn!(%vmm, %error, "a report was refused and is not repeated");
                shared.act(|machine, now| machine.report_refused(now, vmm, &state))
            }
            Err(error) => {
                let failures = self.retries.get(&vmm).map_or(1, |retry| retry.failures.saturating_add(1));
                let at = Instant::now() + self.caller.delay(vmm.as_uuid(), failures);
                tracing::debug!(%vmm, %error, failures, "a report is to be repeated");
                self.retries.insert(vmm, Retry { failures, at });
                return;
            }
        };
        self.retries.remove(&vmm);
        if let Err(down) = settled {
            // The machine knows; only the file does not, and a repeated report does no harm.
            tracing::debug!(%vmm, %down, "an accepted report could not be stored");
        }
        shared.poke();
    }
}

/// Registers whenever the machine wants to, and renews whenever it has a lease.
async fn keep_registered(caller: Caller, mut news: level::Receiver<()>) {
    let mut failures: u32 = 0;
    loop {
        news.mark_unchanged();
        let wants = |machine: &Sled| (machine.renewal(), patience(machine.host().lease_seconds()));
        let wanted = caller.shared.act(|machine, _| (machine.registration(), wants(machine)));
        let (registration, (renewal, patience)) = match wanted {
            Ok(wanted) => wanted,
            // What is not stored of a renewal is a later end: the stored one only ends the lease too early.
            Err(Down::Store(_)) => match caller.shared.look(wants) {
                Ok((Some(renewal), patience)) => (None, (Some(renewal), patience)),
                _ => {
                    sleep(Duration::from_millis(RETRY_DELAY_MILLIS_MAX)).await;
                    continue;
                }
            },
            Err(Down::Closed | Down::Poisoned) => return,
        };
        let is_done = if let Some(request) = registration {
            let (sent_at, boot_id) = (caller.shared.now(), request.boot_id);
            // With a lease, a registration that hangs leaves time for the next.
            let registering = timeout(patience, bounded(caller.control_plane.register(request))).await;
            let answer = registering.unwrap_or_else(|_| Err(late()));
            apply(&caller, answer, |machine, now, lease| machine.registered(now, sent_at, boot_id, lease))
                && caller.shared.act(|machine, _| machine.registration().is_none()).unwrap_or(false)
        } else if let Some((at, request)) = renewal {
            tokio::select! {
                biased;
                // First: one that is due does not wait for what else there is.
                () = sleep_until(caller.shared.instant(at)) => {}
                changed = news.changed() => if changed.is_err() { return } else { continue },
            }
            let sent_at = caller.shared.now();
            let renewing = timeout(patience, caller.control_plane.renew(caller.sled, request)).await;
            let answer = renewing.unwrap_or_else(|_| Err(late()));
            apply(&caller, answer, |machine, now, ()| machine.renewed(now, sent_at, request.lease_epoch))
        } else {
            if news.changed().await.is_err() {
                return;
            }
            continue;
        };
        if is_done {
            failures = 0;
        } else {
            failures = failures.saturating_add(1);
            sleep(caller.delay(caller.sled.as_uuid(), failures).min(patience)).await;
        }
    }
}

fn late() -> ControlPlaneError {
    ControlPlaneError::Unavailable("no answer in time".to_owned())
}

/// How long one try to renew may take, and how long the next may wait: with a lease, several fit into it.
fn patience(lease_seconds: Option<u64>) -> Duration {
    let longest = Duration::from_secs(CALL_SECONDS_MAX);
    lease_seconds.map_or(longest, |seconds| longest.min(Duration::from_secs(seconds) / TRIES_PER_LEASE))
}

/// Tells the machine what the control plane said to a registration or renewal; answers whether it agreed.
fn apply<T>(
    caller: &Caller,
    answer: Result<T, ControlPlaneError>,
    agreed: impl FnOnce(&mut crate::machine::Sled, u64, T),
) -> bool {
    let is_agreed = answer.is_ok();
    let applied = caller.shared.act(|machine, now| match answer {
        Ok(answer) => agreed(machine, now, answer),
        Err(ControlPlaneError::Expunged) => machine.expunged(now),
        // The control plane does not know this epoch: register again.
        Err(ControlPlaneError::StaleEpoch | ControlPlaneError::Unknown) => machine.unregistered(now),
        Err(error) if error.is_definite() => tracing::warn!(%error, "the sled may not register or renew"),
        Err(error) => tracing::debug!(%error, "the sled could not register or renew"),
    });
    caller.shared.poke();
    is_agreed && applied.is_ok()
}

async fn sleep_opt(until: Option<Instant>) {
    match until {
        Some(at) => sleep_until(at).await,
        None => futures::future::pending().await,
    }
}
