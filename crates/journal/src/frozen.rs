//! Frozen mirrors: types whose stored layout never changes, with conversions to and from today's types.
//!
//! Invariants:
//! * fields are stored in the order in which the mirror lists them, without names;
//! * a variant is stored as the number written beside it, which is never given to another;
//! * the conversions name every field and variant, so that a new one breaks the build, not the store.

use crate::codec::{Decode, Encode};
use lifecycle::{
    BootId, Generation, GroupId, InstanceId, LeaseEpoch, MigrationId, OpId, ProjectId, RequestId, SagaId,
    SledId, Span, VmmId,
};
use std::net::Ipv4Addr;
use uuid::Uuid;

/// A mirror of `T`.
pub(crate) trait Frozen<T>: Sized + Encode + Decode<()> {
    /// As it is stored.
    fn freeze(value: &T) -> Self;
    /// As it is used.
    fn thaw(self) -> T;
}

/// An id of any sort: 16 bytes.
pub(crate) type Id = [u8; 16];

macro_rules! ids {
    ($($id:ident),*) => {$(
        impl Frozen<$id> for Id {
            fn freeze(value: &$id) -> Self {
                *value.uuid().as_bytes()
            }
            fn thaw(self) -> $id {
                $id::new(Uuid::from_bytes(self))
            }
        }
    )*};
}

ids!(BootId, GroupId, InstanceId, MigrationId, OpId, ProjectId, RequestId, SagaId, SledId, VmmId);

impl Frozen<Uuid> for Id {
    fn freeze(value: &Uuid) -> Self {
        value.into_bytes()
    }
    fn thaw(self) -> Uuid {
        Uuid::from_bytes(self)
    }
}

macro_rules! numbers {
    ($($number:ident: $wrap:ident, $get:ident;)*) => {$(
        impl Frozen<$number> for u64 {
            fn freeze(value: &$number) -> Self {
                value.$get()
            }
            fn thaw(self) -> $number {
                $number::$wrap(self)
            }
        }
    )*};
}

numbers! {
    Generation: new, get;
    LeaseEpoch: new, get;
    Span: from_micros, micros;
}

macro_rules! as_they_are {
    ($($plain:ty),*) => {$(
        impl Frozen<Self> for $plain {
            fn freeze(value: &Self) -> Self {
                value.clone()
            }
            fn thaw(self) -> Self {
                self
            }
        }
    )*};
}

as_they_are!(bool, u16, u32, u64, String, [u8; 6]);

impl Frozen<Ipv4Addr> for [u8; 4] {
    fn freeze(value: &Ipv4Addr) -> Self {
        value.octets()
    }
    fn thaw(self) -> Ipv4Addr {
        self.into()
    }
}

impl<T, F: Frozen<T>> Frozen<Option<T>> for Option<F> {
    fn freeze(value: &Option<T>) -> Self {
        value.as_ref().map(F::freeze)
    }
    fn thaw(self) -> Option<T> {
        self.map(F::thaw)
    }
}

impl<T, F: Frozen<T> + 'static> Frozen<Vec<T>> for Vec<F> {
    fn freeze(value: &Vec<T>) -> Self {
        value.iter().map(F::freeze).collect()
    }
    fn thaw(self) -> Vec<T> {
        self.into_iter().map(F::thaw).collect()
    }
}

impl<T, F: Frozen<T>> Frozen<Box<T>> for Box<F> {
    fn freeze(value: &Box<T>) -> Self {
        Self::new(F::freeze(value))
    }
    fn thaw(self) -> Box<T> {
        Box::new(F::thaw(*self))
    }
}

impl<T, U, F: Frozen<T>, G: Frozen<U>> Frozen<(T, U)> for (F, G) {
    fn freeze(value: &(T, U)) -> Self {
        (F::freeze(&value.0), G::freeze(&value.1))
    }
    fn thaw(self) -> (T, U) {
        (self.0.thaw(), self.1.thaw())
    }
}

/// A struct that is stored as its fields in order, or an enum as a variant's number and fields.
macro_rules! layout {
    ($(#[$doc:meta])* struct $mirror:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        pub(crate) struct $mirror {
            $(pub(crate) $field: $type,)*
        }

        impl $crate::codec::Encode for $mirror {
            fn encode<E: $crate::codec::Encoder>(
                &self,
                _encoder: &mut E,
            ) -> Result<(), $crate::codec::EncodeError> {
                $($crate::codec::Encode::encode(&self.$field, _encoder)?;)*
                Ok(())
            }
        }

        impl<C> $crate::codec::Decode<C> for $mirror {
            fn decode<D: $crate::codec::Decoder<Context = C>>(
                _decoder: &mut D,
            ) -> Result<Self, $crate::codec::DecodeError> {
                Ok(Self { $($field: $crate::codec::Decode::decode(_decoder)?,)* })
            }
        }
    };
    ($(#[$doc:meta])* enum $mirror:ident {
        $($variant:ident $({ $($field:ident: $type:ty),* $(,)? })? $(($inner:ident: $inner_type:ty))? = $tag:literal),*
        $(,)?
    }) => {
        $(#[$doc])*
        pub(crate) enum $mirror {
            $($variant $({ $($field: $type),* })? $(($inner_type))?,)*
        }

        impl $crate::codec::Encode for $mirror {
            fn encode<E: $crate::codec::Encoder>(
                &self,
                encoder: &mut E,
            ) -> Result<(), $crate::codec::EncodeError> {
                match self {
                    $(Self::$variant $({ $($field),* })? $(($inner))? => {
                        $crate::codec::Encode::encode(&($tag as u8), encoder)?;
                        $($($crate::codec::Encode::encode($field, encoder)?;)*)?
                        $($crate::codec::Encode::encode($inner, encoder)?;)?
                    })*
                }
                Ok(())
            }
        }

        impl<C> $crate::codec::Decode<C> for $mirror {
            fn decode<D: $crate::codec::Decoder<Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, $crate::codec::DecodeError> {
                let tag = <u8 as $crate::codec::Decode<C>>::decode(decoder)?;
                Ok(match tag {
                    $($tag => {
                        $($(let $field = $crate::codec::Decode::decode(decoder)?;)*)?
                        $(let $inner = $crate::codec::Decode::decode(decoder)?;)?
                        Self::$variant $({ $($field),* })? $(($inner))?
                    })*
                    _ => return Err($crate::codec::unknown_variant(stringify!($mirror), tag)),
                })
            }
        }
    };
}

/// A mirror of a struct or an enum of today.
macro_rules! mirror {
    ($(#[$doc:meta])* struct $mirror:ident for $today:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $crate::frozen::layout! {
            $(#[$doc])*
            struct $mirror { $($field: $type),* }
        }

        impl $crate::frozen::Frozen<$today> for $mirror {
            fn freeze(value: &$today) -> Self {
                let $today { $($field),* } = value;
                Self { $($field: $crate::frozen::Frozen::freeze($field),)* }
            }
            fn thaw(self) -> $today {
                $today { $($field: $crate::frozen::Frozen::thaw(self.$field),)* }
            }
        }
    };
    ($(#[$doc:meta])* enum $mirror:ident for $today:ident {
        $($variant:ident $({ $($field:ident: $type:ty),* $(,)? })? $(($inner:ident: $inner_type:ty))? = $tag:literal),*
        $(,)?
    }) => {
        $crate::frozen::layout! {
            $(#[$doc])*
            enum $mirror {
                $($variant $({ $($field: $type),* })? $(($inner: $inner_type))? = $tag),*
            }
        }

        impl $crate::frozen::Frozen<$today> for $mirror {
            fn freeze(value: &$today) -> Self {
                match value {
                    $($today::$variant $({ $($field),* })? $(($inner))? => Self::$variant
                        $({ $($field: $crate::frozen::Frozen::freeze($field)),* })?
                        $(($crate::frozen::Frozen::freeze($inner)))?,)*
                }
            }
            fn thaw(self) -> $today {
                match self {
                    $(Self::$variant $({ $($field),* })? $(($inner))? => $today::$variant
                        $({ $($field: $crate::frozen::Frozen::thaw($field)),* })?
                        $(($crate::frozen::Frozen::thaw($inner)))?,)*
                }
            }
        }
    };
}

/// The events of one sort of stream: `(kind, schema) Variant as Mirror { fields }`, one line of the table each.
macro_rules! stored_events {
    ($today:ident {
        $(($kind:literal, $schema:literal) $variant:ident as $mirror:ident
            $({ $($field:ident: $type:ty),* $(,)? })? $(($inner:ident: $inner_type:ty))?;)*
    }) => {
        $($crate::frozen::layout! {
            struct $mirror { $($($field: $type),*)? $($inner: $inner_type)? }
        })*

        /// Every kind with its newest schema.
        pub(crate) const KINDS: &[$crate::event::EventKind] = &[
            $($crate::event::EventKind { kind: $kind, schema: $schema, name: stringify!($variant) },)*
        ];

        /// Kind, newest schema and name of the event.
        pub(crate) const fn kind_of(event: &$today) -> $crate::event::EventKind {
            match event {
                $($today::$variant { .. } => {
                    $crate::event::EventKind { kind: $kind, schema: $schema, name: stringify!($variant) }
                })*
            }
        }

        /// The event in the newest layout of its kind.
        pub(crate) fn encode(event: &$today) -> bytes::Bytes {
            match event {
                $($today::$variant $({ $($field),* })? $(($inner))? => $crate::codec::encode(&$mirror {
                    $($($field: $crate::frozen::Frozen::freeze($field)),*)?
                    $($inner: $crate::frozen::Frozen::freeze($inner))?
                }),)*
            }
        }

        /// The event from the newest layout of its kind; none if the kind is not of this stream.
        pub(crate) fn decode(kind: u16, payload: &[u8]) -> Option<Result<$today, $crate::codec::Malformed>> {
            Some(match kind {
                $($kind => $crate::codec::decode::<$mirror>(payload).map(|_mirror| {
                    $today::$variant
                        $({ $($field: $crate::frozen::Frozen::thaw(_mirror.$field)),* })?
                        $(($crate::frozen::Frozen::thaw(_mirror.$inner)))?
                }),)*
                _ => return None,
            })
        }
    };
}

pub(crate) use {layout, mirror, stored_events};
