//! The stage: one control plane on one journal, some simulated sleds, and everything between them that can
//! go wrong.

mod begin;
mod book;
mod clients;
mod devices;
mod env;
mod life;
mod line;
mod moves;
mod net;
mod plan;
mod rest;
mod world;

pub use begin::journal_config;
pub use book::Book;
pub use moves::{Pair, Phase};
pub use plan::{Plan, Point, Seen, Unanswered, Way};
pub use world::{Diverged, Play, World, context, spec};
