//! Stored layouts of the events of `project/<id>`.

use crate::frozen::{Id, stored_events};
use lifecycle::ProjectEvent;

stored_events! {
    ProjectEvent {
        (200, 1) Created as CreatedV1 { id: Id, name: String, description: String, vni: u32 };
        (201, 1) Changed as ChangedV1 { name: String, description: String };
        (202, 1) Deleted as DeletedV1;
    }
}
