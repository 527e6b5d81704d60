//! Stored layouts of the events of `project/<id>`.

use super::shared::{GroupPolicyV1, QuotaV1};
use crate::frozen::{Id, stored_events};
use lifecycle::ProjectEvent;

stored_events! {
    ProjectEvent {
        (200, 1) Created as CreatedV1 { id: Id, name: String, description: String, vni: u32 };
        (201, 1) Changed as ChangedV1 { name: String, description: String };
        (202, 1) Deleted as DeletedV1;
        (203, 1) QuotaSet as QuotaSetV1 { quota: QuotaV1 };
        (204, 1) GroupCreated as GroupCreatedV1 {
            group: Id,
            name: String,
            description: String,
            policy: GroupPolicyV1,
        };
        (205, 1) GroupJoined as GroupJoinedV1 { group: Id, instance: Id };
        (206, 1) GroupLeft as GroupLeftV1 { group: Id, instance: Id };
        (207, 1) GroupDeleted as GroupDeletedV1 { group: Id };
    }
}
