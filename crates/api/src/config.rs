//! Bounds of the listeners: sizes, counts and times, each with a default and its reason.

use std::time::Duration;

/// Renewals being worked on: none waits for the disk, so this many are there only for a moment.
const RENEWALS_MAX: usize = 1024;

/// Largest body that a sled sends, bytes: four of its largest reports. Times the connections it is the most that
/// bodies hold.
const SLED_BODY_BYTES_MAX: usize = 16 << 10;

/// How much of a larger one is read and thrown away, bytes.
const SLED_DRAIN_BYTES_MAX: usize = 64 << 10;

/// Largest head that a sled sends, bytes: a dozen headers and a token.
const SLED_HEAD_BYTES_MAX: usize = 16 << 10;

/// How much the listeners take, and how long they wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// Largest request body, bytes. A create is under one kibibyte, a sled's report under four; the rest is room
    /// for clients that send more than they must. `connections_max` times this is the most that bodies hold.
    pub body_bytes_max: usize,
    /// How much of a body that is too large is read and thrown away, bytes, so that the client, still writing,
    /// gets to read the refusal instead of a broken connection.
    pub drain_bytes_max: usize,
    /// Longest request target, bytes. Names, ids and page tokens together stay under two kibibytes.
    pub uri_bytes_max: usize,
    /// Largest request head, bytes; the connection is answered 431 and closed above it.
    pub head_bytes_max: usize,
    /// Most headers in a request; the connection is answered 431 and closed above it.
    pub headers_max: usize,
    /// Most open connections per listener; others wait in the system's backlog.
    pub connections_max: usize,
    /// Most requests being worked on; others wait, no longer than `request_time`.
    pub requests_max: usize,
    /// Most reports of sleds being worked on; more are refused with 503, and come again. Only the listener for sleds
    /// has them, and there they never take the places of what is bounded apart from them.
    pub reports_max: usize,
    /// Most registrations of sleds being worked on; more are refused with 503. Renewals have no bound but the
    /// connections': none of them waits for anything.
    pub registrations_max: usize,
    /// Most registrations beyond those of sleds that have registered before: newcomers do not keep them out.
    pub registrations_known_max: usize,
    /// Most open feeds of events; each is a connection, and the rest of `connections_max` is for requests.
    pub feeds_max: usize,
    /// How long a feed of events stays silent: then it says that it is there, and how far it has looked.
    pub heartbeat: Duration,
    /// How long a request head may take to arrive, and how long a connection may stay idle.
    pub head_time: Duration,
    /// How long a request body may take to arrive.
    pub body_time: Duration,
    /// How long a request may take from its head to its answer.
    pub request_time: Duration,
    /// Longest time for carrying the log away: a backup, an export, a compaction.
    pub carry_time: Duration,
    /// How long a client may refuse to take more of an answer.
    pub write_stall: Duration,
    /// How long a read waits for the read model to have seen what the log held when the request came.
    pub fresh_wait: Duration,
    /// How long requests under way may take once the listener shuts down.
    pub shutdown_time: Duration,
}

impl ApiConfig {
    /// The same for the listener that sleds call. A thousand sleds keep some connections each, so there are more of
    /// them, and less may come over each: a report is under four kibibytes. Reports that wait for the disk must not
    /// keep a renewal waiting, which needs no disk and is late at the price of a lease: reports and registrations have
    /// bounds of their own, and together they leave places free.
    #[must_use]
    pub fn for_sleds(self, connections_max: usize, reports_max: usize) -> Self {
        let registrations = self.registrations_max.saturating_add(self.registrations_known_max);
        let bounded = reports_max.saturating_add(registrations);
        Self {
            connections_max,
            reports_max,
            requests_max: bounded.saturating_add(RENEWALS_MAX),
            body_bytes_max: self.body_bytes_max.min(SLED_BODY_BYTES_MAX),
            drain_bytes_max: self.drain_bytes_max.min(SLED_DRAIN_BYTES_MAX),
            head_bytes_max: self.head_bytes_max.min(SLED_HEAD_BYTES_MAX),
            ..self
        }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: 1 << 20,
            drain_bytes_max: 16 << 20,
            uri_bytes_max: 8 << 10,
            head_bytes_max: 32 << 10,
            headers_max: 100,
            connections_max: 512,
            requests_max: 1024,
            reports_max: 1024,
            registrations_max: 256,
            registrations_known_max: 256,
            feeds_max: 256,
            heartbeat: Duration::from_secs(15),
            head_time: Duration::from_secs(30),
            body_time: Duration::from_secs(10),
            request_time: Duration::from_secs(30),
            carry_time: Duration::from_hours(6),
            write_stall: Duration::from_secs(30),
            fresh_wait: Duration::from_secs(5),
            shutdown_time: Duration::from_secs(10),
        }
    }
}
