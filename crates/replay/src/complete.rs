//! What a line of a walk may go on with: commands, events, fields of the state where one stands.

use crate::diff::state_fields;
use lifecycle::Instance;
use serde_json::Value;

/// Commands of a walk.
const VERBS: [&str; 13] = [
    "back", "break", "continue", "diff", "effects", "goto", "help", "list", "next", "print", "quit", "until",
    "why",
];

/// Where the word that is being typed begins, bytes, and every word that begins as it does; `typed` is the line up
/// to the cursor.
pub fn completions(state: &Instance, typed: &str) -> (usize, Vec<String>) {
    let behind = |(at, c): (usize, char)| at + c.len_utf8();
    let start = typed.char_indices().rfind(|(_, c)| c.is_whitespace()).map_or(0, behind);
    let word = &typed[start..];
    let mut found: Vec<String> = match typed[..start].split_whitespace().next() {
        None => VERBS.map(str::to_owned).to_vec(),
        Some("print" | "p" | "until" | "u") => fields(&state_fields(state), word),
        Some("break") => {
            let events = journal::event_kinds().map(|kind| kind.name.to_owned());
            events.chain(["clear".to_owned()]).chain(fields(&state_fields(state), word)).collect()
        }
        Some("goto" | "g") => ["first", "last"].map(str::to_owned).to_vec(),
        Some(_) => Vec::new(),
    };
    found.retain(|candidate| candidate.starts_with(word));
    found.sort_unstable();
    found.dedup();
    (start, found)
}

/// The fields beside the one whose path is being typed.
fn fields(state: &Value, path: &str) -> Vec<String> {
    let (outer, mut value) = (path.rsplit_once('.').map(|(outer, _)| outer), state);
    for name in outer.into_iter().flat_map(|outer| outer.split('.')) {
        let inner = match value {
            Value::Object(fields) => fields.get(name),
            Value::Array(items) => name.parse::<usize>().ok().and_then(|nth| items.get(nth)),
            _ => None,
        };
        let Some(inner) = inner else {
            return Vec::new();
        };
        value = inner;
    }
    let named = |name: &str| outer.map_or_else(|| name.to_owned(), |outer| format!("{outer}.{name}"));
    match value {
        Value::Object(fields) => fields.keys().map(|name| named(name)).collect(),
        Value::Array(items) => (0..items.len()).map(|nth| named(&nth.to_string())).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_offered_level_by_level() {
        let state = json!({"saga": {"step": "fence", "id": 1}, "spec": {}, "effects": [{"stop": {}}]});
        for (path, expected) in [
            ("", vec!["effects", "saga", "spec"]),
            ("saga.s", vec!["saga.id", "saga.step"]),
            ("effects.0.", vec!["effects.0.stop"]),
            ("saga.step.x", vec![]),
            ("nothing.", vec![]),
            ("é.", vec![]),
        ] {
            assert_eq!(fields(&state, path), expected, "{path}");
        }
    }
}
