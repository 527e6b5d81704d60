//! A state as a tree of fields, with what an event changed marked in it.
//!
//! Invariants:
//! * every field of either state has its place in the tree, whether it is shown or folded away;
//! * a branch in which something changed is open unless somebody closed it, and every other is closed unless
//!   somebody opened it, so that what changed is seen without a key.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Numbers that are taken for microseconds since the Unix epoch: the years 2017 to 2100.
const TIMES: std::ops::Range<u64> = 1_500_000_000_000_000..4_100_000_000_000_000;

/// What an event did to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing.
    Same,
    /// Something below it.
    Within,
    /// It has another value.
    Changed,
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
}

/// One line of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Names from the outside in, joined by dots.
    pub path: String,
    /// How far inside.
    pub depth: usize,
    /// Its own name.
    pub name: String,
    /// Its value; of a branch how much it holds.
    pub value: String,
    /// The value before, where it is another.
    pub was: Option<String>,
    /// What happened to it.
    pub mark: Mark,
    /// None of a leaf; else whether it is open.
    pub is_open: Option<bool>,
}

/// The lines of the tree. `turned` are the paths of branches that somebody opened or closed.
pub fn rows(before: &Value, after: &Value, turned: &BTreeSet<String>, is_only_changes: bool) -> Vec<Row> {
    let mut tree = Tree { turned, is_only_changes, rows: Vec::new() };
    // Of what has only come into being, all is new, and saying so of every field would say nothing.
    let is_born = before.is_null();
    tree.level("", 0, if is_born { None } else { Some(before) }, Some(after), is_born);
    tree.rows
}

struct Tree<'a> {
    turned: &'a BTreeSet<String>,
    is_only_changes: bool,
    rows: Vec<Row>,
}

impl Tree<'_> {
    fn level(
        &mut self,
        path: &str,
        depth: usize,
        before: Option<&Value>,
        after: Option<&Value>,
        is_born: bool,
    ) {
        let (was, is) = (before.map(fields), after.map(fields));
        let empty = Map::new();
        let (was, is) = (was.as_ref().unwrap_or(&empty), is.as_ref().unwrap_or(&empty));
        let mut names: Vec<&String> = was.keys().filter(|name| !is.contains_key(*name)).collect();
        names.extend(is.keys());
        names.sort_by(|a, b| order(a).cmp(&order(b)));
        for name in names {
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            self.field(&below, depth, name, was.get(name), is.get(name), is_born);
        }
    }

    fn field(
        &mut self,
        path: &str,
        depth: usize,
        name: &str,
        was: Option<&Value>,
        is: Option<&Value>,
        is_born: bool,
    ) {
        let shown = is.or(was).unwrap_or(&Value::Null);
        let is_branch = is_branch(shown);
        let mark = match (was, is) {
            _ if is_born => Mark::Same,
            (Some(was), Some(is)) if was == is => Mark::Same,
            (Some(was), Some(is)) if is_branch && self::is_branch(was) && !is.is_null() => Mark::Within,
            (Some(_), Some(_)) => Mark::Changed,
            (None, _) => Mark::Added,
            (Some(_), None) => Mark::Removed,
        };
        if self.is_only_changes && mark == Mark::Same {
            return;
        }
        // What has come or gone as a whole is one line: its fields say nothing that its name does not.
        let is_telling = matches!(mark, Mark::Within | Mark::Changed);
        let is_open = is_branch.then(|| is_telling != self.turned.contains(path));
        self.rows.push(Row {
            path: path.to_owned(),
            depth,
            name: name.to_owned(),
            value: value(shown),
            was: was.filter(|_| mark == Mark::Changed).map(value),
            mark,
            is_open,
        });
        if is_open == Some(true) {
            let inside = |side: Option<&'_ Value>| side.filter(|side| self::is_branch(side)).cloned();
            let (was, is) = (inside(was), inside(is));
            self.level(path, depth + 1, was.as_ref(), is.as_ref(), is_born);
        }
    }
}

fn is_branch(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn fields(value: &Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields.clone(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(nth, item)| (nth.to_string(), item.clone())).collect()
        }
        _ => Map::new(),
    }
}

/// Numbers by their size, then names; what people look for first comes first.
fn order(name: &str) -> (usize, u64, &str) {
    const FIRST: [&str; 8] =
        ["run_state", "intent", "saga", "effects", "vmms", "migrations", "failed", "stop"];
    match (FIRST.iter().position(|first| *first == name), name.parse()) {
        (Some(nth), _) => (nth, 0, name),
        (None, Ok(number)) => (FIRST.len(), number, name),
        (None, Err(_)) => (FIRST.len() + 1, 0, name),
    }
}

/// A value as people read it: texts without quotes, moments as times, nothing as a dash.
pub fn value(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(fields) if fields.is_empty() => "nothing".to_owned(),
        Value::Array(items) if items.is_empty() => "nothing".to_owned(),
        Value::Object(fields) if fields.len() == 1 => {
            fields.keys().next().map_or_else(String::new, |name| format!("{{{name}}}"))
        }
        Value::Object(fields) => format!("{{{} fields}}", fields.len()),
        Value::Array(items) => format!("[{}]", items.len()),
        Value::Number(number) => match number.as_u64().filter(|micros| TIMES.contains(micros)) {
            Some(micros) => replay::time::rfc3339(lifecycle::Timestamp::from_micros(micros)),
            None => number.to_string(),
        },
        Value::Bool(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(before: &Value, after: &Value, turned: &[&str], is_only_changes: bool) -> Vec<String> {
        let turned = turned.iter().map(|path| (*path).to_owned()).collect();
        rows(before, after, &turned, is_only_changes)
            .into_iter()
            .map(|row| {
                let was = row.was.map(|was| format!(" was {was}")).unwrap_or_default();
                format!("{}{} {:?} {}{was}", "  ".repeat(row.depth), row.name, row.mark, row.value)
            })
            .collect()
    }

    #[test]
    fn what_changed_is_marked_and_open_and_the_rest_is_folded_away() {
        let before = json!({"a": {"x": 1, "y": 2}, "b": {"z": 3}, "c": 1, "gone": {"deep": true}});
        let after = json!({"a": {"x": 1, "y": 4}, "b": {"z": 3}, "c": 1, "new": [7]});
        assert_eq!(
            text(&before, &after, &[], false),
            [
                "a Within {2 fields}",
                "  x Same 1",
                "  y Changed 4 was 2",
                "b Same {z}",
                "c Same 1",
                "gone Removed {deep}",
                "new Added [1]",
            ]
        );
        assert_eq!(
            text(&before, &after, &["a", "b", "new"], true),
            ["a Within {2 fields}", "gone Removed {deep}", "new Added [1]", "  0 Added 7"],
            "what somebody turned is the other way round, and only changes are only changes"
        );
    }

    #[test]
    fn of_what_has_only_come_into_being_nothing_is_marked() {
        let after = json!({"a": {"x": 1}, "c": null});
        assert_eq!(text(&Value::Null, &after, &[], false), ["a Same {x}", "c Same -"]);
        assert_eq!(text(&Value::Null, &after, &["a"], false)[1], "  x Same 1");
    }

    #[test]
    fn a_branch_that_becomes_a_value_is_a_change_and_does_not_vanish() {
        let (branch, leaf) = (json!({"saga": {"step": "fence", "id": 1}}), json!({"saga": null}));
        assert_eq!(text(&branch, &leaf, &[], false), ["saga Changed - was {2 fields}"]);
        assert_eq!(
            text(&leaf, &branch, &[], false),
            ["saga Changed {2 fields} was -", "  id Added 1", "  step Added fence"]
        );
    }

    #[test]
    fn values_read_as_people_write_them() {
        for (given, expected) in [
            (json!("text"), "text"),
            (json!(1_795_380_366_413_788_u64), "2026-11-22T20:46:06.413788Z"),
            (json!(4_294_967_296_u64), "4294967296"),
            (json!(true), "true"),
            (json!([]), "nothing"),
        ] {
            assert_eq!(value(&given), expected);
        }
    }
}
