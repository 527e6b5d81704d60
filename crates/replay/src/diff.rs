//! What differs between two moments of an instance, field by field.
//!
//! Invariant: two states are equal if and only if nothing differs between them; where in the log they were
//! read is no difference.

use crate::at::At;
use crate::error::Error;
use crate::source::Source;
use crate::state::{InstanceState, state_at};
use lifecycle::{Instance, InstanceId, RunState, effects};
use serde::Serialize;
use serde_json::Value;

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Where it is, such as `saga.step` or `vmms.<id>.state`.
    pub field: String,
    /// What it was; none if it was not there.
    pub before: Option<Value>,
    /// What it is; none if it is not there.
    pub after: Option<Value>,
}

/// One of the two moments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// Version of the newest event folded.
    pub version: u64,
    /// Its position.
    pub position: u64,
    /// Its recorded time, RFC 3339 in UTC.
    pub time: String,
    /// The state that users saw.
    pub run_state: RunState,
}

/// Two moments of an instance and what differs between them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StateDiff {
    /// The first that was asked for.
    pub from: Side,
    /// The second.
    pub to: Side,
    /// What differs, in order of the fields' names.
    pub changes: Vec<Change>,
}

/// What differs between `from` and `to`, in whichever order they were.
pub fn state_diff(source: &dyn Source, instance: InstanceId, from: At, to: At) -> Result<StateDiff, Error> {
    let (from, to) = (state_at(source, instance, from)?, state_at(source, instance, to)?);
    Ok(StateDiff { changes: changes(&fields(&from), &fields(&to)), from: side(&from), to: side(&to) })
}

fn side(state: &InstanceState) -> Side {
    Side {
        version: state.version,
        position: state.position,
        time: state.time.clone(),
        run_state: state.run_state,
    }
}

/// The state as people look at it: the fold's own fields, what users see, and what would be sent.
pub fn fields(state: &InstanceState) -> Value {
    state_fields(&state.state)
}

/// The same, of a fold.
pub fn state_fields(state: &Instance) -> Value {
    let mut fields = serde_json::to_value(state).unwrap_or(Value::Null);
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("head");
        fields.insert("run_state".to_owned(), serde_json::to_value(state.run_state()).unwrap_or(Value::Null));
        fields.insert("effects".to_owned(), serde_json::to_value(effects(state)).unwrap_or(Value::Null));
    }
    fields
}

/// What differs between two documents, in order of the fields' names.
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare("", Some(before), Some(after), &mut found);
    found
}

fn compare(field: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Change>) {
    if before == after {
        return;
    }
    let below = |key: &str| if field.is_empty() { key.to_owned() } else { format!("{field}.{key}") };
    match (before, after) {
        (Some(Value::Object(was)), Some(Value::Object(is))) => {
            let mut keys: Vec<&String> =
                was.keys().chain(is.keys().filter(|key| !was.contains_key(*key))).collect();
            keys.sort_unstable();
            for key in keys {
                compare(&below(key), was.get(key), is.get(key), found);
            }
        }
        (Some(Value::Array(was)), Some(Value::Array(is))) => {
            for n in 0..was.len().max(is.len()) {
                compare(&below(&n.to_string()), was.get(n), is.get(n), found);
            }
        }
        (was, is) => {
            found.push(Change { field: field.to_owned(), before: was.cloned(), after: is.cloned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_field_that_differs_is_named_once() {
        let before = json!({"a": 1, "b": {"c": "x", "d": [1, 2]}, "gone": {"deep": 1}, "same": [null]});
        let after = json!({"a": 2, "b": {"c": "x", "d": [1, 3, 4]}, "new": true, "same": [null]});
        let fields: Vec<(String, Option<Value>, Option<Value>)> =
            changes(&before, &after).into_iter().map(|it| (it.field, it.before, it.after)).collect();
        assert_eq!(
            fields,
            [
                ("a".to_owned(), Some(json!(1)), Some(json!(2))),
                ("b.d.1".to_owned(), Some(json!(2)), Some(json!(3))),
                ("b.d.2".to_owned(), None, Some(json!(4))),
                ("gone".to_owned(), Some(json!({"deep": 1})), None),
                ("new".to_owned(), None, Some(json!(true))),
            ]
        );
        assert_eq!(changes(&after, &after), []);
        assert_eq!(changes(&json!(1), &json!("1")).len(), 1);
    }
}
