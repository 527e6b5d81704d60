//! Stored layouts of the events of `sled/<id>`.

use crate::frozen::{Id, stored_events};
use lifecycle::SledEvent;

stored_events! {
    SledEvent {
        (300, 1) Registered as RegisteredV1 {
            id: Id,
            name: String,
            threads: u32,
            memory: u64,
            cpu_family: String,
            address: String,
        };
        (301, 1) Booted as BootedV1 { boot: Id, epoch: u64 };
        (302, 1) ProvisionableChanged as ProvisionableChangedV1 { provisionable: bool, reason: String };
        (303, 1) Expunged as ExpungedV1 { reason: String };
        (304, 1) DrainBegan as DrainBeganV1 { reason: String };
        (305, 1) DrainEnded as DrainEndedV1 { done: bool };
        (306, 1) LeaseBegan as LeaseBeganV1 { epoch: u64, seconds: Option<u64> };
        (307, 1) LeaseExpired as LeaseExpiredV1 { epoch: u64 };
    }
}
