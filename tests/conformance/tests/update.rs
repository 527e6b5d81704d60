//! The update, row by row (`docs/conformance.md`).

#![allow(missing_docs, reason = "each test is named by its sentence")]

use conformance::{runner, scenarios};

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            runner::run(&scenarios::named(stringify!($name)));
        })*
    };
}

scenarios! {
    u01_active_vmm_destroyed_without_a_migration
    u02_active_vmm_failed_without_a_migration
    u03_source_completed_and_stopping_target_not_heard
    u04_target_completed_and_running_source_not_heard
    u05_both_completed_source_destroyed
    u06_both_failed_source_running_target_failed
    u07_both_failed_source_running_target_destroyed
    u08_source_failed_and_destroyed_target_in_progress
    u09_both_failed_and_destroyed
    u10_both_completed_target_destroyed_source_stopping
    u11_both_completed_target_failed
    u12_target_unwound_by_the_migrate_saga
    u13_source_lost_while_the_target_is_in_progress
    u14_target_lost_then_the_source_reports_completed
    u15_guest_shuts_down_during_a_migration
    u16_every_order_of_reports_ends_alike
    u17_reports_doubled_reordered_and_late
    u18_two_reports_that_need_an_update_together
    u19_a_report_lands_while_a_push_is_under_way
    u20_a_sled_or_the_switch_is_unreachable
    u21_deleted_while_a_saga_is_under_way_elsewhere
}
