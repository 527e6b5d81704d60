//! The rules of this build, answering.
//!
//! Invariants:
//! * nothing that is asked makes it panic: what it cannot read or apply is its answer;
//! * an instance that it cannot follow is given up, and answers so from there on.

use super::protocol::{Answer, Asked, AskedRecord, Decided, Question, Then, unhex};
use super::{Rules, RulesError};
use crate::guard::guarded;
use eventlog::CodecId;
use journal::{Recorded, StreamName, apply_instance, decode_event, decode_input};
use lifecycle::{Decision, EventMeta, Input, Instance, InstanceId, Policy, Rejected, Timestamp, effects};
use std::collections::{BTreeMap, BTreeSet};

/// What decides: the rules' own function, or an altered one.
type Decide = dyn Fn(Option<&Instance>, &Input, &Policy) -> Result<Decision, Rejected>;

/// The rules of this build.
pub struct Host {
    decide: Box<Decide>,
    instances: BTreeMap<InstanceId, Option<Instance>>,
    lost: BTreeSet<InstanceId>,
}

impl Default for Host {
    fn default() -> Self {
        Self::deciding(lifecycle::decide)
    }
}

impl Host {
    /// Rules that decide otherwise: to prove that a difference is seen.
    pub fn deciding(
        decide: impl Fn(Option<&Instance>, &Input, &Policy) -> Result<Decision, Rejected> + 'static,
    ) -> Self {
        Self { decide: Box::new(decide), instances: BTreeMap::new(), lost: BTreeSet::new() }
    }

    /// Decides an append's input and folds what was recorded.
    pub fn answer(&mut self, asked: &Asked) -> Answer {
        let state = self.instances.remove(&asked.instance).flatten();
        let decided = self.decided(state.as_ref(), asked);
        if self.lost.contains(&asked.instance) {
            let then = Then::CannotFollow("it was given up before".to_owned());
            return Answer { decided, then };
        }
        let then = match fold(asked, state) {
            Ok(state) => {
                let then = then(state.as_ref());
                self.instances.insert(asked.instance, state);
                then
            }
            Err(why) => {
                self.lost.insert(asked.instance);
                Then::CannotFollow(why)
            }
        };
        Answer { decided, then }
    }

    fn decided(&self, state: Option<&Instance>, asked: &Asked) -> Decided {
        let Some(input) = &asked.input else {
            return Decided::NoInput;
        };
        let input = unhex(input).ok_or_else(|| "it is not hex".to_owned());
        let input = input.and_then(|bytes| decode_input(&bytes).map_err(|error| error.to_string()));
        let input = match input {
            Ok(input) => input,
            Err(why) => return Decided::Unreadable(why),
        };
        match guarded(|| (self.decide)(state, &input, &asked.limits.policy())) {
            Ok(Ok(Decision::Events(events))) => {
                let json = |event| serde_json::to_value(event).unwrap_or_default();
                Decided::Events(events.iter().map(json).collect())
            }
            Ok(Ok(Decision::AskForRoom(_))) => Decided::AsksForRoom,
            Ok(Err(rejected)) => Decided::Refused(rejected.to_string()),
            Err(said) => Decided::GivesUp(said),
        }
    }
}

impl Rules for Host {
    fn ask(&mut self, question: &Question) -> Result<Vec<Answer>, RulesError> {
        Ok(question.appends.iter().map(|asked| self.answer(asked)).collect())
    }
}

fn fold(asked: &Asked, mut state: Option<Instance>) -> Result<Option<Instance>, String> {
    for record in &asked.records {
        let event = read(record)?;
        let recorded = Recorded {
            stream: StreamName::Instance(asked.instance),
            meta: EventMeta {
                version: record.version,
                position: record.position,
                time: Timestamp::from_micros(record.time_us),
            },
            cause: 0,
            index: (0, 1),
            event,
            context: None,
        };
        apply_instance(&mut state, &recorded).map_err(|error| error.to_string())?;
    }
    Ok(state)
}

fn read(record: &AskedRecord) -> Result<journal::Event, String> {
    let place = |problem: String| format!("event {} at #{}: {problem}", record.kind, record.version);
    let payload = unhex(&record.payload).ok_or_else(|| place("it is not hex".to_owned()))?;
    decode_event(record.kind, record.schema, CodecId(record.codec), &payload)
        .map_err(|problem| place(problem.to_string()))
}

fn then(state: Option<&Instance>) -> Then {
    let Some(state) = state else {
        return Then::CannotFollow("nothing was recorded".to_owned());
    };
    guarded(|| {
        let json = |effect| serde_json::to_value(effect).unwrap_or_default();
        Then::State {
            run_state: state.run_state().to_string(),
            effects: effects(state).iter().map(json).collect(),
        }
    })
    .unwrap_or_else(|said| Then::CannotFollow(format!("the rules give up on it: {said}")))
}
