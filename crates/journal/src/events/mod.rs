//! Stored layouts of events, by sort of stream. Kinds 100.. are instances, 200.. projects, 300.. sleds,
//! 400.. the system; a kind is never given to another event.

pub(crate) mod instance;
pub(crate) mod project;
pub(crate) mod shared;
pub(crate) mod sled;
pub(crate) mod system;
