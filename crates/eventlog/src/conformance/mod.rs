//! What any implementation of [`Log`] must do, as cases that run.
//!
//! An implementation brings a [`Harness`] and calls [`run_all`] from a test. The cases look through the
//! trait only; each gets a harness over an empty log.
//!
//! Invariants:
//! * no case sleeps, draws or depends on another;
//! * a case may rely on: everything answered `Appended` before [`Harness::crash`] is there after it.

mod crash;
mod follow;
mod gate;
mod model;
mod own;
mod read;
pub mod shape;

#[cfg(test)]
pub(crate) use model::steps;
pub use model::{Step, run_model};

use crate::Log;
use futures::future::BoxFuture;
use std::sync::Arc;

/// Opens, ends and opens again the log under test.
pub trait Harness: Send {
    /// The log that is open at present.
    fn log(&self) -> Arc<dyn Log>;

    /// Closes the log and opens it again, as a daemon that stops and starts.
    fn reopen(&mut self) -> BoxFuture<'_, ()>;

    /// Ends the log without closing it and opens it again. What was answered survives; what was not may.
    fn crash(&mut self);
}

/// One case: its name, a sentence, and its body.
pub struct Case {
    /// What holds, as a sentence.
    pub name: &'static str,
    /// Panics if it does not hold.
    pub run: for<'a> fn(&'a mut dyn Harness) -> BoxFuture<'a, ()>,
}

macro_rules! cases {
    ($($module:ident::$name:ident),* $(,)?) => {
        /// Every case, in reading order.
        pub const CASES: &[Case] = &[
            $(Case { name: stringify!($name), run: |harness| Box::pin($module::$name(harness)) }),*
        ];
    };
}

cases! {
    gate::an_empty_log_has_neither_head_nor_records,
    gate::positions_and_versions_run_gapless_from_one,
    gate::an_append_of_many_events_is_one_run_of_positions,
    gate::a_wrong_expected_version_conflicts_and_leaves_no_trace,
    gate::an_expected_version_ahead_of_the_head_conflicts,
    gate::a_record_comes_back_as_it_was_appended,
    gate::the_context_is_kept_with_the_first_event_only,
    gate::a_cause_in_the_same_append_becomes_its_position,
    gate::a_cause_that_is_not_before_its_event_is_refused,
    gate::limits_refuse_without_trace,
    gate::the_largest_record_and_append_are_accepted,
    gate::appends_to_one_stream_in_flight_together_see_each_other,
    gate::an_empty_payload_is_an_event,
    own::a_claim_mints_a_larger_epoch_each_time,
    own::a_claim_fences_the_owner_before_it,
    own::fencing_comes_before_the_version,
    own::an_epoch_that_was_never_minted_owns_nothing,
    own::a_claim_of_one_stream_leaves_others_alone,
    own::a_claim_sees_every_append_queued_before_it,
    own::of_two_owners_racing_one_wins,
    own::many_writers_on_many_streams_interleave_without_gaps,
    own::epochs_are_forgotten_when_the_log_is_opened_again,
    read::a_stream_is_read_from_any_version_up_to_any_limit,
    read::the_log_is_read_from_any_position_up_to_any_limit,
    read::reading_beyond_the_end_is_empty,
    read::back_pointers_lead_through_the_stream,
    read::streams_do_not_see_each_other,
    read::statistics_count_what_happened,
    follow::a_follower_starts_at_any_position,
    follow::a_follower_crosses_the_durable_edge_without_gap,
    follow::a_follower_ends_when_the_log_closes,
    follow::two_followers_see_the_same,
    follow::waiting_for_a_durable_position_resolves,
    follow::waiting_for_a_position_that_never_comes_ends_with_the_log,
    crash::a_reopened_log_is_equal,
    crash::a_crashed_log_keeps_everything_answered,
    crash::appending_goes_on_after_reopening,
    crash::a_closed_log_refuses,
    crash::closing_twice_is_closing_once,
    crash::appends_in_flight_at_a_crash_are_there_whole_or_not_at_all,
    crash::many_reopenings_keep_history_gapless,
}

/// Runs every case, each on a harness of its own.
pub async fn run_all<H: Harness>(make: impl Fn() -> H) {
    for case in CASES {
        // Captured by the test runner; it names the case that failed.
        eprintln!("conformance: {}", case.name);
        (case.run)(&mut make()).await;
    }
}
