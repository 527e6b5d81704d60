//! The simulated log: memory with a synced and an unsynced half, crashes on request, no thread, no clock.
//!
//! [`SimStore`] is plain data for simulators that schedule every sync and crash themselves; [`SimLog`] is
//! the [`crate::Log`] over it, for code that awaits.
//!
//! Invariants:
//! * the same calls give the same answers: nothing here draws, waits or wakes by itself;
//! * a crash loses whole appends from the unsynced end, never the middle, never half of one;
//! * both pass the same conformance suite as the journal on disk.

mod log;
mod store;

pub use log::{SimLog, SyncMode};
pub use store::{CrashReport, SimStore, Survival};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Log;
    use crate::conformance::{Harness, run_all, run_model, steps};
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use proptest::prelude::*;
    use std::sync::Arc;

    struct Simulated(SimLog, Survival);

    impl Harness for Simulated {
        fn log(&self) -> Arc<dyn Log> {
            Arc::new(self.0.clone())
        }

        fn reopen(&mut self) -> BoxFuture<'_, ()> {
            async {
                self.0.close().await;
                self.crash();
            }
            .boxed()
        }

        fn crash(&mut self) {
            let (store, _) = self.0.crash(self.1);
            self.0 = SimLog::over(store, SyncMode::Immediate);
        }
    }

    #[tokio::test]
    async fn the_simulated_log_conforms() {
        for survival in [Survival::None, Survival::All] {
            run_all(|| Simulated(SimLog::new(), survival)).await;
        }
    }

    proptest! {
        #[test]
        fn the_simulated_log_equals_a_vector(steps in steps(60)) {
            let mut harness = Simulated(SimLog::new(), Survival::Torn(0));
            run_model(&mut harness, &steps).now_or_never().expect("the simulated log never waits");
        }
    }
}
