//! The sagas and what stands in their way (`docs/conformance.md`).

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
    s01_start_of_a_stopped_instance
    s02_a_start_that_fails_definitely
    s03_an_answer_is_lost_and_the_vmm_runs
    s04_sled_unreachable_during_undo
    s05_vmm_fails_while_its_start_unwinds
    s06_starts_that_meet
    s07_no_capacity_and_no_quota
    s08_migrate_source_first
    s09_migrate_target_first
    s10_a_migrate_that_fails_leaves_it_where_it_was
    s11_migrate_deadline_and_cancel
    s12_every_action_in_every_visible_state
    s13_stop_while_migrating_or_starting
    s14_guest_ignores_stop
    s15_delete_then_the_same_name_again
    s16_create_is_whole_or_not_at_all
    s17_a_created_instance_starts_after_a_crash
    s18_sled_knows_no_such_vmm
    s19_stop_recorded_and_not_confirmed
    s20_404_races_the_report
    s21_force_stop_in_every_state
    s22_inventory_races_a_register
    s23_the_ledger_grants_once
}
