//! A log that stalls for longer than a lease: nothing is recorded meanwhile, and no lease is lost.

use super::{LEASE_S, Stage};
use crate::fleet::context;
use eventlog::{SimLog, SimStore, SyncMode};
use lifecycle::sled::SledCommand;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A log that is synced every millisecond, unless it stalls.
fn stalling() -> (SimLog, Arc<AtomicBool>) {
    let (log, stalls) = (SimLog::over(SimStore::new(), SyncMode::Manual), Arc::new(AtomicBool::new(false)));
    let (synced, is_stalled) = (log.clone(), Arc::clone(&stalls));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if !is_stalled.load(Ordering::Relaxed) {
                synced.sync().unwrap();
            }
        }
    });
    (log, stalls)
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_while_what_was_asked_of_its_sled_waits_for_a_log_that_stalls() {
    let (log, stalls) = stalling();
    let mut stage = Stage::set_over(log, Some(LEASE_S), &[0, 0], 5).await;
    stage.run_instances(4).await;
    let before = stage.guests();
    let (sled, _, _) = stage.sleds[0];
    stalls.store(true, Ordering::Relaxed);
    let control = stage.fleet.control.clone();
    let cordon = tokio::spawn(async move {
        control.ask_sled(sled, SledCommand::Cordon("disk".to_owned()), context()).await
    });
    stage.pass(Duration::from_secs(5 * LEASE_S)).await.unwrap();
    assert!(!cordon.is_finished(), "the log stalls");
    assert_eq!(stage.guests(), before, "no sled has killed its guests");
    stalls.store(false, Ordering::Relaxed);
    assert!(!cordon.await.unwrap().unwrap().0.provisionable);
    stage.pass(Duration::from_secs(5 * LEASE_S)).await.unwrap();
    assert_eq!((stage.expiries(), stage.guests()), (0, before));
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_end_waits_for_a_log_that_stalls_is_over_even_if_its_sled_comes_back_meanwhile() {
    let (log, stalls) = stalling();
    let mut stage = Stage::set_over(log, Some(LEASE_S), &[0, 0], 6).await;
    stage.run_instances(4).await;
    let link = Arc::clone(&stage.sleds[0].2);
    link.cut(true);
    stalls.store(true, Ordering::Relaxed);
    stage.pass(Duration::from_secs(3 * LEASE_S)).await.unwrap();
    link.cut(false);
    stage.pass(Duration::from_secs(3 * LEASE_S)).await.unwrap();
    assert!(stage.guests().values().all(|(_, at)| *at != 0), "it has killed its own");
    stalls.store(false, Ordering::Relaxed);
    stage.pass(Duration::from_secs(3 * LEASE_S)).await.unwrap();
    assert_eq!(stage.expiries(), 1, "what was being recorded is");
    let guests = stage.guests();
    assert_eq!(guests.len(), 4, "and all run again, once each: {guests:?}");
}
