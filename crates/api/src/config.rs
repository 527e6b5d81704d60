//! Bounds of the listeners: sizes, counts and times, each with a default and its reason.

use std::time::Duration;

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
