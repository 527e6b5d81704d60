//! Newtypes for every id and every counter that has a meaning. None converts into another by accident.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps an id minted or received elsewhere.
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// The raw id.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

id! {
    /// The user's long-lived object.
    InstanceId,
    /// One incarnation of an instance on one sled (the propolis id).
    VmmId,
    /// A compute host.
    SledId,
    /// A project, which owns instances and their names.
    ProjectId,
    /// One live-migration attempt between two VMMs.
    MigrationId,
    /// An anti-affinity group of a project.
    GroupId,
    /// One run of a saga.
    SagaId,
    /// One request from outside.
    RequestId,
    /// Makes a repeated order to a sled (a reboot above all) act once.
    OpId,
    /// One boot of a sled; everything that ran under another boot id is gone.
    BootId,
}

macro_rules! counter {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Below every number that is ever reported.
            pub const ZERO: Self = Self(0);

            /// Wraps a raw number.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The raw number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The one that follows.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

counter! {
    /// Counts changes of what one reporter reports, or of a mapping. Only a larger one is new.
    Generation,
    /// Lease epoch of a sled: rises on a new boot or after a lapsed lease.
    LeaseEpoch,
}
