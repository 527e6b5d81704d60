//! Stored layouts of actors and of a context's saga step: one byte of schema, then the actor.
//!
//! Invariant: reading never fails. An actor explains an event and decides nothing, so one that is not
//! known is kept as its bytes.

use crate::codec;
use crate::context::{ACTOR_NAME_BYTES_MAX, Actor};
use crate::events::shared::StepV1;
use crate::frozen::{Frozen, Id, mirror};
use bytes::Bytes;
use eventlog::LIMITS;
use lifecycle::{SagaId, SledId, Step};

const SCHEMA: u8 = 1;

/// The actors that have a layout.
enum Known {
    User(String),
    Sled(SledId),
    Saga { saga: SagaId, step: Step },
    Timer(String),
    Daemon,
}

mirror! {
    enum ActorV1 for Known {
        User(name: String) = 1,
        Sled(sled: Id) = 2,
        Saga { saga: Id, step: StepV1 } = 3,
        Timer(name: String) = 4,
        Daemon = 5,
    }
}

impl Actor {
    /// The bytes that are stored, at most [`eventlog::Limits::actor_bytes_max`].
    pub fn encode(&self) -> Bytes {
        let known = match self {
            Self::User(name) => Known::User(bounded(name)),
            Self::Sled(id) => Known::Sled(*id),
            Self::Saga { saga, step } => Known::Saga { saga: *saga, step: *step },
            Self::Timer(name) => Known::Timer(bounded(name)),
            Self::Daemon => Known::Daemon,
            Self::Other(bytes) => {
                return Bytes::copy_from_slice(&bytes[..bytes.len().min(LIMITS.actor_bytes_max)]);
            }
        };
        let mut bytes = vec![SCHEMA];
        bytes.extend_from_slice(&codec::encode(&ActorV1::freeze(&known)));
        assert!(bytes.len() <= LIMITS.actor_bytes_max, "bounded names make bounded actors");
        Bytes::from(bytes)
    }

    /// The actor that these bytes are; `Other` if this build knows none.
    pub fn decode(bytes: &[u8]) -> Self {
        let known = match bytes.split_first() {
            Some((&SCHEMA, body)) => codec::decode::<ActorV1>(body).ok(),
            _ => None,
        };
        match known.map(ActorV1::thaw) {
            Some(Known::User(name)) => Self::User(name),
            Some(Known::Sled(id)) => Self::Sled(id),
            Some(Known::Saga { saga, step }) => Self::Saga { saga, step },
            Some(Known::Timer(name)) => Self::Timer(name),
            Some(Known::Daemon) => Self::Daemon,
            None => Self::Other(bytes.to_vec()),
        }
    }
}

fn bounded(name: &str) -> String {
    name[..name.floor_char_boundary(ACTOR_NAME_BYTES_MAX)].to_owned()
}

/// The step's number in an envelope: the same as inside events.
pub(crate) fn step_number(step: Step) -> u16 {
    let [tag] = *codec::encode(&StepV1::freeze(&step)) else {
        unreachable!("a step is one byte");
    };
    u16::from(tag)
}

/// The step with this number; none if it was never given out.
pub(crate) fn step_of(number: u16) -> Option<Step> {
    let tag = u8::try_from(number).ok()?;
    codec::decode::<StepV1>(&[tag]).ok().map(StepV1::thaw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn known() -> Vec<Actor> {
        let saga = SagaId::new(Uuid::from_u128(7));
        vec![
            Actor::User("ada".to_owned()),
            Actor::Sled(SledId::new(Uuid::from_u128(5))),
            Actor::Saga { saga, step: Step::Register },
            Actor::Timer("lease".to_owned()),
            Actor::Daemon,
        ]
    }

    #[test]
    fn every_actor_reads_back() {
        for actor in known() {
            assert_eq!(Actor::decode(&actor.encode()), actor);
        }
    }

    #[test]
    fn an_actor_of_a_later_build_is_kept_as_it_is() {
        for bytes in [vec![], vec![2, 1, 0], vec![1, 99], vec![1, 5, 0]] {
            let actor = Actor::decode(&bytes);
            assert_eq!(actor, Actor::Other(bytes.clone()));
            assert_eq!(actor.encode(), bytes);
        }
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let Actor::User(name) = Actor::decode(&Actor::User("aü".repeat(400)).encode()) else {
            panic!("a user stays a user");
        };
        assert!(name.len() <= ACTOR_NAME_BYTES_MAX && name.len() > ACTOR_NAME_BYTES_MAX - 4);
        assert!("aü".repeat(400).starts_with(&name));
        assert_eq!(Actor::Other(vec![9; 1000]).encode().len(), LIMITS.actor_bytes_max);
    }

    #[test]
    fn every_step_has_its_number() {
        let numbers: Vec<_> =
            (0..=300).filter_map(|n| step_of(n).map(|step| (n, step_number(step)))).collect();
        assert_eq!(numbers, (1..=10).map(|n| (n, n)).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn any_bytes_are_some_actor(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let actor = Actor::decode(&bytes);
            prop_assert!(actor.encode().len() <= LIMITS.actor_bytes_max);
        }
    }
}
