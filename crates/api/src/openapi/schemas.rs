//! Every schema of the document. Those of views are derived from the views; those of what other crates show are
//! named here by their keys.

use super::bodies;
use crate::error::Body;
use crate::health::{ReadyView, UpView};
use crate::manner::DryRunView;
use crate::ops;
use crate::v1;
use crate::views::{CurrentUserView, InstanceView, ProjectView, SledView};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

/// The schema of a type and of all that it is made of, with their names.
pub(crate) fn schemas_of<T: ToSchema>(each: &mut dyn FnMut((String, Value))) {
    let mut found: Vec<(String, RefOr<Schema>)> = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut found);
    for (name, schema) in found {
        each((name, serde_json::to_value(schema).expect("a schema becomes JSON")));
    }
}

/// By name, in order.
pub(super) fn all() -> Map<String, Value> {
    let mut schemas = Map::new();
    let all = &mut |(name, schema)| drop(schemas.insert(name, schema));
    schemas_of::<Body<'_>>(all);
    schemas_of::<UpView>(all);
    schemas_of::<ReadyView>(all);
    schemas_of::<CurrentUserView>(all);
    schemas_of::<ProjectView>(all);
    schemas_of::<InstanceView>(all);
    schemas_of::<SledView>(all);
    schemas_of::<DryRunView>(all);
    bodies::schemas(all);
    v1::schemas(all);
    ops::schemas(all);
    for (name, about, keys) in SHOWN {
        let property = |(key, kind): &(&str, &str)| ((*key).to_owned(), json!({"type": types(kind)}));
        let required: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
        let properties: Map<String, Value> = keys.iter().map(property).collect();
        let schema =
            json!({"type": "object", "description": about, "required": required, "properties": properties});
        schemas.insert((*name).to_owned(), schema);
    }
    schemas
}

/// A type, or with a question mark a type or null.
fn types(kind: &str) -> Value {
    kind.strip_suffix('?').map_or_else(|| json!(kind), |kind| json!([kind, "null"]))
}

/// One schema: its name, what it is, and its keys with their types.
type Shown = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// What is shown as it is folded or recorded: its keys are fixed, what stands under them is the log's.
const SHOWN: &[Shown] = &[
    ("Nothing", "What lists have that are empty as yet.", &[]),
    (
        "InstanceState",
        "An instance's whole fold at a moment.",
        &[
            ("version", "integer"),
            ("position", "integer"),
            ("time", "string"),
            ("run_state", "string"),
            ("is_append_end", "boolean"),
            ("effects", "array"),
            ("state", "object"),
        ],
    ),
    (
        "Diff",
        "Two moments of an instance, and every field that differs between them.",
        &[("from", "object"), ("to", "object"), ("changes", "array")],
    ),
    (
        "Fleet",
        "Every instance and sled at a moment, a piece at a time.",
        &[
            ("position", "integer"),
            ("time", "string?"),
            ("items", "array"),
            ("next_after", "string?"),
            ("total", "integer"),
            ("deleted", "integer"),
            ("sleds", "array"),
            ("unreadable", "array"),
        ],
    ),
    (
        "Explanation",
        "Why an instance is as it is, what it waits for, and what can be done.",
        &[
            ("instance", "string"),
            ("name", "string"),
            ("run_state", "string"),
            ("since", "string"),
            ("usual_s", "number?"),
            ("version", "integer"),
            ("because", "array"),
            ("owner", "object"),
            ("waits", "array"),
            ("holds", "array"),
            ("next", "array"),
            ("can", "array"),
            ("asked_by", "object?"),
        ],
    ),
    (
        "HistoryEntry",
        "One event of an instance.",
        &[
            ("version", "integer"),
            ("position", "integer"),
            ("time", "string"),
            ("event", "string"),
            ("data", "object"),
            ("actor", "string"),
            ("reason", "string?"),
            ("request_id", "string?"),
            ("saga_id", "string?"),
            ("saga_step", "string?"),
            ("cause", "integer?"),
            ("append", "integer"),
            ("summary", "string"),
        ],
    ),
    (
        "Trace",
        "What came of a request: its events, each with what followed from it as `children`.",
        &[
            ("request_id", "string"),
            ("actor", "string"),
            ("stream", "string"),
            ("build", "string"),
            ("trace", "object?"),
            ("time", "string"),
            ("duration_us", "integer"),
            ("is_under_way", "boolean"),
            ("is_cut_off", "boolean"),
            ("events", "array"),
        ],
    ),
];
