//! Stored layouts of the events of `system`.

use super::shared::{QuotaScopeV1, QuotaV1};
use crate::frozen::stored_events;
use lifecycle::SystemEvent;

stored_events! {
    SystemEvent {
        (400, 1) DaemonStarted as DaemonStartedV1 { build: String, after_clean_stop: bool };
        (401, 1) DaemonStopped as DaemonStoppedV1;
        (402, 1) LossAccepted as LossAcceptedV1 { durable: u64, found: u64, nameless: u64 };
        (403, 1) QuotaSet as QuotaSetV1 { scope: QuotaScopeV1, quota: QuotaV1 };
    }
}
