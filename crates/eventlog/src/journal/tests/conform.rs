//! The conformance suite, and a vector, against the journal.

use super::disk::Disk;
use super::{Journal, JournalConfig, STORE, open_with, small};
use crate::Log;
use crate::conformance::{Harness, run_all, run_model, steps};
use futures::FutureExt;
use futures::future::BoxFuture;
use proptest::prelude::*;
use std::sync::Arc;

enum Medium {
    Real(tempfile::TempDir),
    /// Loses power at each crash.
    Faulty(Disk),
}

struct OnDisk {
    medium: Medium,
    config: JournalConfig,
    journal: Option<Arc<Journal>>,
    crashes: u64,
    /// Whether a task of the test's runtime tells callers, or the writer itself.
    has_herald: bool,
}

impl OnDisk {
    fn new(medium: Medium, config: JournalConfig) -> Self {
        let mut harness = Self { medium, config, journal: None, crashes: 0, has_herald: false };
        harness.open();
        harness
    }

    fn with_herald(mut self) -> Self {
        self.has_herald = true;
        tokio::spawn(self.journal.as_ref().expect("it is open").herald());
        self
    }

    fn open(&mut self) {
        let opened = match &self.medium {
            Medium::Real(dir) => Journal::open(&dir.path().join("journal"), self.config.clone()),
            Medium::Faulty(disk) => open_with(disk, self.config.clone()),
        };
        let (journal, recovery) = opened.unwrap();
        assert_eq!(recovery.lost, None);
        if self.has_herald {
            tokio::spawn(journal.herald());
        }
        self.journal = Some(Arc::new(journal));
    }
}

impl Harness for OnDisk {
    fn log(&self) -> Arc<dyn Log> {
        self.journal.clone().unwrap()
    }

    fn reopen(&mut self) -> BoxFuture<'_, ()> {
        async {
            self.log().close().await;
            self.open();
        }
        .boxed()
    }

    fn crash(&mut self) {
        let journal = self.journal.take().unwrap();
        drop(Arc::into_inner(journal).expect("no case holds the log over a crash"));
        self.crashes += 1;
        if let Medium::Faulty(disk) = &self.medium {
            disk.power_cut(self.crashes);
        }
        self.open();
    }
}

#[tokio::test]
async fn the_journal_on_real_files_conforms() {
    let config = JournalConfig { segment_bytes: 1 << 20, ..JournalConfig::new(STORE) };
    run_all(|| OnDisk::new(Medium::Real(tempfile::tempdir().unwrap()), config.clone())).await;
}

#[tokio::test]
async fn the_journal_with_the_smallest_segments_on_a_disk_that_forgets_conforms() {
    run_all(|| OnDisk::new(Medium::Faulty(Disk::default()), small())).await;
}

#[tokio::test]
async fn the_journal_without_memory_of_its_newest_records_conforms() {
    let config = JournalConfig { ring_bytes_max: 0, heads_every_bytes: 1 << 10, ..small() };
    run_all(|| OnDisk::new(Medium::Faulty(Disk::default()), config.clone())).await;
}

#[tokio::test]
async fn the_journal_conforms_with_a_herald() {
    run_all(|| OnDisk::new(Medium::Faulty(Disk::default()), small()).with_herald()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_conforms_with_a_herald_and_callers_on_several_threads() {
    run_all(|| OnDisk::new(Medium::Faulty(Disk::default()), small()).with_herald()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_conforms_with_callers_on_several_threads() {
    run_all(|| OnDisk::new(Medium::Faulty(Disk::default()), small())).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_journal_equals_a_vector(steps in steps(40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut harness = OnDisk::new(Medium::Faulty(Disk::default()), small());
        runtime.block_on(run_model(&mut harness, &steps));
    }
}
