//! Ids and counters, each its own type so that none can stand in for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Invalid;
use crate::limits::COUNTER_MAX;

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps an id minted elsewhere.
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            /// The id itself.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }

            /// Refuses the nil id, which stands for nobody.
            pub fn validate(self, field: &'static str) -> Result<(), Invalid> {
                if self.0.is_nil() { Err(Invalid::NilId { field }) } else { Ok(()) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_newtype! {
    /// One VMM: one incarnation of an instance on one sled.
    PropolisId
}
uuid_newtype! {
    /// The user's instance, which outlives its VMMs.
    InstanceId
}
uuid_newtype! {
    /// One compute host.
    SledId
}
uuid_newtype! {
    /// One live-migration attempt.
    MigrationId
}
uuid_newtype! {
    /// The project that owns an instance.
    ProjectId
}
uuid_newtype! {
    /// One request to change a VMM's state: repeated with the same id it acts once.
    OpId
}
uuid_newtype! {
    /// The log of one control plane: whoever has another one is another control plane.
    StoreId
}
uuid_newtype! {
    /// One boot of a sled's host: another value means that every VMM of the boot before is gone.
    BootId
}

macro_rules! counter_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The first value.
            pub const FIRST: Self = Self(1);

            /// Wraps a count kept elsewhere.
            pub const fn new(count: u64) -> Self {
                Self(count)
            }

            /// The count itself.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The next value; stays at `limits::COUNTER_MAX`, which no honest counter reaches.
            #[must_use]
            pub const fn next(self) -> Self {
                if self.0 >= COUNTER_MAX { Self(COUNTER_MAX) } else { Self(self.0 + 1) }
            }

            /// Refuses zero and anything above `limits::COUNTER_MAX`.
            pub fn validate(self, field: &'static str) -> Result<(), Invalid> {
                if self.0 == 0 || self.0 > COUNTER_MAX {
                    return Err(Invalid::OutOfRange { field, value: self.0, min: 1, max: COUNTER_MAX });
                }
                Ok(())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter_newtype! {
    /// Counts the changes of what one reporter reports, or of one mapping; only a larger one is new.
    Generation
}
counter_newtype! {
    /// Rises when a sled boots anew or lets its lease lapse; a request carrying another one is refused.
    LeaseEpoch
}
