//! How a control plane begins: it opens the journal, folds, and goes on with what was unfinished.

use super::book::Book;
use super::env::{BookCensus, Outside};
use super::life::Life;
use super::line::Switchboard;
use super::net::Net;
use super::plan::Plan;
use actors::{ControlPlane, Fatal, StartError};
use eventlog::{Journal, JournalConfig, StoreId, StoreLock};
use lifecycle::{Instance, InstanceId, SledId};
use sim_sled::embedded::EmbeddedSled;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Segments small enough that a run rolls over.
const SEGMENT_BYTES: u64 = 256 << 10;

/// What every incarnation of one run is given.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) dir: &'a Path,
    pub(super) plan: &'a Arc<Plan>,
    pub(super) net: &'a Arc<Net>,
    pub(super) sleds: &'a Arc<Mutex<BTreeMap<SledId, EmbeddedSled>>>,
    pub(super) outside: &'a Outside,
    pub(super) book: &'a Arc<Mutex<Book>>,
}

/// What lives from here on.
pub(super) type Begun = (Arc<Life>, ControlPlane, Fatal);

/// Opens the journal and starts a control plane on it, as the daemon does.
pub(super) async fn begin(parts: Parts<'_>, nth: u64, is_forgetful: bool) -> Result<Begun, StartError> {
    let Parts { dir, plan, net, sleds, outside, book } = parts;
    let lock = StoreLock::acquire(dir).unwrap();
    let (journal, _) = Journal::open(&dir.join("journal"), journal_config()).unwrap();
    let life = Arc::new(Life::new(journal, lock, Arc::clone(plan)));
    let fatal = Fatal::default();
    let (of, wires) = (Arc::clone(&life), Arc::clone(net));
    let connector = Switchboard { life: of, net: wires, sleds: Arc::clone(sleds) };
    let env = outside.env(&life, connector, nth, fatal.clone());
    let (control, _) = ControlPlane::start(env).await?;
    net.connect(Arc::clone(&life), control.intake());
    let unfinished: Vec<InstanceId> = {
        let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(journal) = life.remains() {
            book.look(&journal);
        }
        let is_unfinished = |state: &&Instance| !is_forgetful && !state.is_quiesced();
        book.instances.values().filter(is_unfinished).map(|state| state.id).collect()
    };
    control.resume(unfinished).await;
    control.start_timers(Arc::new(BookCensus { book: Arc::clone(book), life: Arc::clone(&life) }));
    Ok((life, control, fatal))
}

/// A journal of small segments.
pub fn journal_config() -> JournalConfig {
    let mut config = JournalConfig::new(StoreId([7; 16]));
    config.segment_bytes = SEGMENT_BYTES;
    config.ballast_bytes = 0;
    config
}
