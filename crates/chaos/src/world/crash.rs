//! Crashes: at named points, at times, after a failed sync; what they take and what they leave.

use super::World;
use crate::coverage::Sometimes;
use crate::faults::{Entity, Fault, LoseUnsynced, Window};
use eventlog::Survival;

impl World {
    /// Whether a crash waits at this point. It fires once.
    pub(super) fn fires(&mut self, event: &str, entity: Entity, window: Window) -> bool {
        self.fired_at(event, entity, window).is_some()
    }

    fn fired_at(&mut self, event: &str, entity: Entity, window: Window) -> Option<LoseUnsynced> {
        let scenario = &self.scenario;
        let found = self.armed.iter().position(|&nth| match &scenario.faults[nth] {
            Fault::CrashAt { event: at_event, entity: at_entity, window: at_window, .. } => {
                at_event == event && *at_entity == entity && *at_window == window
            }
            _ => false,
        })?;
        let nth = self.armed.remove(found);
        match &self.scenario.faults[nth] {
            Fault::CrashAt { lose, .. } => Some(*lose),
            _ => unreachable!("only crash points are armed"),
        }
    }

    /// Dies if a crash waits for any of these events in this window. Answers whether it did.
    pub(super) fn dies_at(&mut self, events: &[&'static str], entity: Entity, window: Window) -> bool {
        for event in events {
            if let Some(lose) = self.fired_at(event, entity, window) {
                self.trace.line(self.now, "CRASH", &entity, format_args!("{event} {}", window.name()));
                self.note(match window {
                    Window::BeforeAppend => Sometimes::CrashBeforeAppend,
                    Window::AppendedUnsynced => Sometimes::CrashAppendedUnsynced,
                    Window::SyncedUnacknowledged => Sometimes::CrashSyncedUnacknowledged,
                    Window::EffectsUnsent => Sometimes::CrashEffectsUnsent,
                    Window::EffectSent => Sometimes::CrashEffectSent,
                    Window::DuringReplay => Sometimes::CrashDuringReplay,
                });
                match *event {
                    "MigrateBegan"
                    | "SagaAdvanced/MigrationTarget"
                    | "VmmReported/side"
                    | "Updated/migration"
                    | "MigrationCancelled"
                    | "MigrationGivenUp" => self.note(Sometimes::CrashInMigration),
                    "Archived" => self.note(Sometimes::CrashInRetention),
                    "RestartTried" => self.note(Sometimes::CrashInRestart),
                    _ => {}
                }
                self.crash(lose);
                return true;
            }
        }
        false
    }

    /// The control plane dies. Its memory is gone; of what was not synced as much survives as `lose` says.
    pub(super) fn crash(&mut self, lose: LoseUnsynced) {
        if !self.is_up() {
            return;
        }
        self.compare_fold("before a crash");
        self.control = None;
        self.paused_until = 0;
        self.disk.forget();
        let before = self.store.durable();
        let report = self.store.crash(match lose {
            LoseUnsynced::All => Survival::None,
            LoseUnsynced::None => Survival::All,
            LoseUnsynced::AfterPrefix(kept) => Survival::Prefix(usize::from(kept)),
            LoseUnsynced::Torn(kept) => Survival::Torn(usize::from(kept)),
        });
        let durable = self.store.durable();
        self.trace.line(
            self.now,
            "crash",
            &"",
            format_args!(
                "p{:04} lost {} kept {} torn {}",
                durable.get(),
                report.lost,
                report.survived,
                report.torn.is_some()
            ),
        );
        for (state, is_met) in [
            (Sometimes::UnsyncedTailLost, report.lost > 0),
            (Sometimes::UnacknowledgedSurvived, report.survived > 0),
            (Sometimes::TornTailTrimmed, report.torn.is_some()),
        ] {
            if is_met {
                self.note(state);
            }
        }
        self.checks.crashed(durable);
        self.became_durable(before);
        self.schedule_restart();
    }
}
