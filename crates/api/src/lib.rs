//! The HTTP interfaces: `/v1` and `/ops/v1` for people and their tools, and what sleds call.
//!
//! The one idea: **a handler reads a request, asks the control plane or the read model, and writes a view.**
//! It decides nothing. What is asked is checked here only as far as its form goes; what it means is checked
//! by the rules, once, where it is decided. The contract is told for people in `docs/external-api.md`.
//!
//! Invariants:
//! * every answer carries `x-request-id`, every one that is not a success the body `{error_code?, message,
//!   request_id}`, whoever refused: a handler, the router or the frame;
//! * a read sees everything that was durable when it came in, or is answered 503;
//! * nothing from outside is unbounded: sizes, counts and times are in [`ApiConfig`];
//! * nothing here appends: the log is only ever read, through the control plane's handle.
//!
//! Reading order: [`server`] (connections), `router` (what is where), `frame` (around every request), [`auth`]
//! (who may do what),
//! `selector`, `page`, `body`, `query`, `manner` (how requests are read), `fresh` (how reads keep up), `keyed` and
//! `watcher` (requests that are sent again), `refusal` and `error` (how it goes wrong), `views` (bodies), then
//! one file per noun in `v1` and `ops`.

pub mod auth;
mod body;
pub mod config;
mod error;
mod frame;
mod fresh;
mod health;
mod keyed;
mod manner;
mod metrics;
mod openapi;
mod ops;
mod page;
mod query;
mod refusal;
mod router;
mod saga_book;
mod selector;
pub mod server;
mod sled_intake;
mod spans;
pub mod state;
mod trace_parent;
mod v1;
mod views;
mod watcher;

pub use auth::Access;
pub use config::ApiConfig;
pub use openapi::openapi_json;
pub use router::{router, sled_router};
pub use server::{serve, serve_sleds};
pub use spans::SpanTally;
pub use state::{ApiState, KeepError, LogKeeper, Phase, Readiness};
