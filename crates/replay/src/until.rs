//! The first event after which something holds, or an invariant does not.
//!
//! Every state up to the answer is reached by folding, so the search is one pass over the stream: a condition
//! may hold, cease to hold and hold again, and halving would find any of those places
//! (`docs/decisions/0033-the-first-event-is-found-by-folding.md`).
//!
//! Invariants:
//! * invariants are looked at where an append ends: within one they need not hold;
//! * fields are looked at after every event.

use crate::At;
use crate::error::Error;
use crate::fleet::Folds;
use crate::guard::guarded;
use crate::source::{Flow, Source, each_of_stream, each_record, ends_append};
use crate::time::rfc3339;
use crate::verify::Progress;
use journal::{Recorded, StreamName, apply_instance, event_name, read};
use lifecycle::{Instance, InstanceId, effects, invariant};
use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// An invariant is broken: this one, or any.
    Broken(Option<u8>),
    /// A field of the state has this value, or has another.
    Field {
        /// Names from the outside in; `*` is any name, and ids may be cut short.
        path: Vec<String>,
        /// What it is compared with, as text.
        value: String,
        /// Whether it shall be equal.
        is_equal: bool,
    },
}

/// Text that is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no condition: write FIELD=VALUE such as run_state=stopping or saga.step=fence, FIELD!=VALUE, \
     the number of an invariant such as C4, or invariant for any of them"
)]
pub struct NoCondition(pub String);

/// Where a condition came true.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reached {
    /// The instance.
    pub instance: InstanceId,
    /// Its name.
    pub name: String,
    /// Version of the event.
    pub version: u64,
    /// Its position.
    pub position: u64,
    /// Its recorded time, RFC 3339 in UTC.
    pub time: String,
    /// What it is called.
    pub event: &'static str,
    /// Who caused it.
    pub actor: String,
    /// Position of the event that caused it.
    pub cause: Option<u64>,
    /// What holds, or how the invariant is broken.
    pub detail: String,
}

/// Shortest beginning of an id in a path.
const ID_CHARS_MIN: usize = 4;

impl Condition {
    /// Reads a condition.
    pub fn parse(text: &str) -> Result<Self, NoCondition> {
        let text = text.trim();
        let refuse = || NoCondition(text.chars().take(80).collect());
        if matches!(text, "invariant" | "any") {
            return Ok(Self::Broken(None));
        }
        let (field, value, is_equal) = match text.split_once("!=") {
            Some((field, value)) => (field, value, false),
            None => match text.split_once('=') {
                Some((field, value)) => (field, value, true),
                None => {
                    let number = text.strip_prefix(['C', 'c']).unwrap_or(text);
                    return number.parse().map(|number| Self::Broken(Some(number))).map_err(|_| refuse());
                }
            },
        };
        let path: Vec<String> = field.split('.').map(|name| name.trim().to_owned()).collect();
        if path.iter().any(String::is_empty) {
            return Err(refuse());
        }
        Ok(Self::Field { path, value: value.trim().to_owned(), is_equal })
    }

    /// What there is to say if it holds of this state; `before` is the state before the append.
    pub(crate) fn met(&self, before: Option<&Instance>, state: &Instance, ends: bool) -> Option<String> {
        match self {
            Self::Broken(_) if !ends => None,
            Self::Broken(number) => {
                let checked =
                    guarded(|| invariant::check(state).and_then(|()| invariant::check_step(before, state)));
                match checked {
                    Ok(Ok(())) => None,
                    Ok(Err(violation)) => {
                        number.is_none_or(|number| number == violation.number).then(|| violation.to_string())
                    }
                    Err(said) => number.is_none().then(|| format!("the rules give up on it: {said}")),
                }
            }
            Self::Field { path, value, is_equal } => {
                let found = lookup(state, path);
                let has = found.iter().any(|it| is_value(it, value));
                (has == *is_equal).then(|| match found.as_slice() {
                    [] => format!("{} is not there", path.join(".")),
                    [one] => format!("{} is {}", path.join("."), plain(one)),
                    several => {
                        let values: Vec<String> = several.iter().map(plain).collect();
                        format!("{} are {}", path.join("."), values.join(", "))
                    }
                })
            }
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(None) => f.write_str("invariant"),
            Self::Broken(Some(number)) => write!(f, "C{number}"),
            Self::Field { path, value, is_equal } => {
                write!(f, "{}{}{value}", path.join("."), if *is_equal { "=" } else { "!=" })
            }
        }
    }
}

/// The values at a path. What users see costs no document.
fn lookup(state: &Instance, path: &[String]) -> Vec<Value> {
    let json = |value: serde_json::Result<Value>| value.unwrap_or(Value::Null);
    let [first, rest @ ..] = path else {
        return Vec::new();
    };
    let top = match first.as_str() {
        "run_state" => json(serde_json::to_value(state.run_state())),
        "effects" => json(serde_json::to_value(effects(state))),
        _ => {
            let all = json(serde_json::to_value(state));
            return descend(&all, path);
        }
    };
    descend(&top, rest)
}

fn descend(value: &Value, path: &[String]) -> Vec<Value> {
    let [first, rest @ ..] = path else {
        return vec![value.clone()];
    };
    let is_named = |key: &str| {
        first == "*" || key == first || (first.len() >= ID_CHARS_MIN && is_id(key) && key.starts_with(first))
    };
    match value {
        Value::Object(fields) => {
            let below = fields.iter().filter(|(key, _)| is_named(key));
            below.flat_map(|(_, value)| descend(value, rest)).collect()
        }
        Value::Array(items) => {
            let below = items.iter().enumerate().filter(|(n, _)| first == "*" || n.to_string() == *first);
            below.flat_map(|(_, value)| descend(value, rest)).collect()
        }
        _ => Vec::new(),
    }
}

fn is_id(key: &str) -> bool {
    key.len() == 36 && key.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// Text compares as people write it; an id also by its beginning; a variant with fields by its name.
fn is_value(found: &Value, wanted: &str) -> bool {
    match found {
        Value::String(text) => {
            text == wanted || (wanted.len() >= ID_CHARS_MIN && is_id(text) && text.starts_with(wanted))
        }
        Value::Object(fields) => fields.len() == 1 && fields.contains_key(wanted),
        other => *other.to_string() == *wanted,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The first event of an instance after which the condition is met; none if it never is.
pub fn until(
    source: &dyn Source,
    instance: InstanceId,
    wanted: &Condition,
) -> Result<Option<Reached>, Error> {
    let (mut state, mut before, mut actor, mut found) = (None, None, String::new(), None);
    let seen = each_of_stream(source, StreamName::Instance(instance), &mut |record| {
        let recorded = read(&record)?;
        begin(&recorded, state.as_ref(), &mut before, &mut actor);
        apply_instance(&mut state, &recorded)?;
        found = look(wanted, before.as_ref(), state.as_ref(), &recorded, &actor);
        Ok(if found.is_some() { Flow::Break(()) } else { Flow::Continue(()) })
    })?;
    if seen == 0 { Err(Error::NoSuchInstance(instance)) } else { Ok(found) }
}

/// The first event of the log after which the condition is met by the instance that it is about.
pub fn until_of_any(
    source: &dyn Source,
    wanted: &Condition,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<Reached>, Error> {
    let (mut folds, mut found, mut before, mut actor) = (Folds::default(), None, None, String::new());
    each_record(source, source.durable().get(), progress, &mut |record| {
        // Events of one append stand together, so what is known of it never belongs to another.
        let recorded = match StreamName::parse(record.stream) {
            Some(StreamName::Instance(_)) => read(&record)?,
            _ => return Ok(Flow::Continue(())),
        };
        let StreamName::Instance(id) = recorded.stream else {
            return Ok(Flow::Continue(()));
        };
        let own = folds.instances.get(&id).and_then(Option::as_ref);
        begin(&recorded, own, &mut before, &mut actor);
        folds.take(record, At::Now);
        let state = folds.instances.get(&id).and_then(Option::as_ref);
        found = look(wanted, before.as_ref(), state, &recorded, &actor);
        Ok(if found.is_some() { Flow::Break(()) } else { Flow::Continue(()) })
    })?;
    Ok(found)
}

fn begin(recorded: &Recorded, state: Option<&Instance>, before: &mut Option<Instance>, actor: &mut String) {
    if recorded.index.0 == 0 {
        *before = state.cloned();
        *actor = recorded.context.as_ref().map_or_else(|| "unknown".to_owned(), |it| it.actor.to_string());
    }
}

fn look(
    wanted: &Condition,
    before: Option<&Instance>,
    state: Option<&Instance>,
    recorded: &Recorded,
    actor: &str,
) -> Option<Reached> {
    let state = state?;
    let detail = wanted.met(before, state, ends_append(recorded.index))?;
    Some(Reached {
        instance: state.id,
        name: state.spec.name.clone(),
        version: recorded.meta.version,
        position: recorded.meta.position,
        time: rfc3339(recorded.meta.time),
        event: event_name(&recorded.event),
        actor: actor.to_owned(),
        cause: (recorded.cause != 0).then_some(recorded.cause),
        detail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_a_condition_is_read_and_writes_back() {
        for (text, writes) in [
            ("invariant", "invariant"),
            ("any", "invariant"),
            ("C4", "C4"),
            ("13", "C13"),
            ("run_state=stopping", "run_state=stopping"),
            (" saga.step = fence ", "saga.step=fence"),
            ("vmms.*.state!=running", "vmms.*.state!=running"),
        ] {
            assert_eq!(Condition::parse(text).unwrap().to_string(), writes, "{text}");
        }
        for text in ["", "run_state", "=x", "a..b=1", "C999", "-1"] {
            assert!(Condition::parse(text).is_err(), "{text}");
        }
    }
}
