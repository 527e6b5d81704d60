//! The description of the external interface (OpenAPI 3.1): what is where, and what is sent.
//!
//! Schemas follow the views they describe; what is where is a table of its own, compared with the routes by a
//! test. The document is served at `/openapi.json` and kept in `docs/openapi.json`.

mod bodies;
mod operations;
mod schemas;

use crate::auth::needed;
use crate::manner::decides;
use axum::http::Method;
use lifecycle::spec::REASON_CHARS_MAX;
use operations::{Answer, OPERATIONS, Operation, QUERY, Sent};
use serde_json::{Map, Value, json};

pub(crate) use schemas::schemas_of;

/// The document, with a line's end.
pub fn openapi_json() -> String {
    let text = serde_json::to_string_pretty(&document()).expect("texts and schemas become JSON");
    text + "\n"
}

fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let methods = paths.entry(operation.path).or_insert_with(|| json!({}));
        methods[operation.method] = describe(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "musher",
            "description": "Control plane for virtual machine instances on a fleet of compute hosts. `/v1` is an API \
                            that clients of the field know; `/ops/v1` is musher's own.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "securitySchemes": {"bearer": {
                "type": "http", "scheme": "bearer",
                "description": "A token that `musher token create` made. Not needed where the daemon has no token file.",
            }},
        },
    })
}

fn describe(operation: &Operation) -> Value {
    let mut parameters = Vec::new();
    for name in operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        parameters.push(json!({
            "name": name, "in": "path", "required": true, "description": path_parameter(name),
            "schema": {"type": "string"},
        }));
    }
    for name in operation.query {
        let (_, kind, about) =
            QUERY.iter().find(|(known, _, _)| known == name).expect("every parameter is known");
        let name = name.split(' ').next().unwrap_or(name);
        parameters.push(json!({"name": name, "in": "query", "required": false, "description": about, "schema": {"type": kind}}));
    }
    if decides(&method_of(operation), operation.path) {
        parameters.push(json!({
            "name": "dry_run", "in": "query", "required": false, "schema": {"type": "boolean"},
            "description": "Decide only: 200, with the events that would be recorded. Nothing is.",
        }));
        parameters.push(json!({
            "name": "reason", "in": "query", "required": false,
            "schema": {"type": "string", "minLength": 1, "maxLength": REASON_CHARS_MAX},
            "description": "Why; kept in the history, with who.",
        }));
    }
    match operation.method {
        "get" => parameters.push(json!({
            "name": "x-min-position", "in": "header", "required": false, "schema": {"type": "integer", "minimum": 0},
            "description": "Wait, for a bounded time, until what is read has seen this log position.",
        })),
        "post" if takes_a_key(operation) => parameters.push(json!({
            "name": "idempotency-key", "in": "header", "required": false, "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            "description": "Makes repeats of this request one request.",
        })),
        _ => {}
    }
    let mut described = json!({
        "operationId": operation_id(operation),
        "tags": [operation.path.split('/').nth(1).filter(|it| it.starts_with(['v', 'o'])).unwrap_or("probes")],
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses(operation),
    });
    described["security"] = match needed(&method_of(operation), Some(operation.path)) {
        Some(role) => json!([{"bearer": [role.as_str()]}]),
        None => json!([]),
    };
    let (body, is_required) = match operation.body {
        Sent::Nothing => return described,
        Sent::Json(body) => (body, true),
        Sent::JsonOrNothing(body) => (body, false),
    };
    described["requestBody"] =
        json!({"required": is_required, "content": {"application/json": {"schema": link(body)}}});
    described
}

fn method_of(operation: &Operation) -> Method {
    Method::from_bytes(operation.method.to_uppercase().as_bytes()).expect("methods are HTTP's")
}

fn path_parameter(name: &str) -> &'static str {
    match name {
        "instance" => "UUID, or name with `?project=`.",
        "project" => "UUID or name.",
        "request_id" => "UUID, as in `x-request-id`.",
        "group" => "UUID or name, within the project.",
        "scope" => "`fleet`, `silo` or `project` (the one that the query names).",
        "timer" => "Its name.",
        _ => "UUID.",
    }
}

/// Method and path as one word.
fn operation_id(operation: &Operation) -> String {
    let parts = operation.path.split('/').filter(|part| !part.is_empty() && *part != "v1");
    let words = parts.map(|part| part.trim_matches(['{', '}']).replace(['-', '.'], "_"));
    std::iter::once(operation.method.to_owned()).chain(words).collect::<Vec<_>>().join("_")
}

fn responses(operation: &Operation) -> Value {
    let content = match operation.answer {
        Answer::Nothing => None,
        Answer::Json(name) => Some(("application/json", link(name))),
        Answer::Page(name) => Some((
            "application/json",
            json!({
                "type": "object", "required": ["items", "next_page"],
                "properties": {
                    "items": {"type": "array", "items": link(name)},
                    "next_page": {"type": ["string", "null"], "description": "Token of the next page."},
                },
            }),
        )),
        Answer::Rows(name) => Some((
            "application/json",
            json!({
                "type": "object", "required": ["items", "next_after"],
                "properties": {
                    "items": {"type": "array", "items": link(name)},
                    "next_after": {"type": ["string", "null"], "format": "uuid", "description": "What to give as `after` to go on."},
                },
            }),
        )),
        Answer::Items(name) => Some((
            "application/json",
            json!({
                "type": "object", "required": ["items"],
                "properties": {"items": {"type": "array", "items": link(name)}},
            }),
        )),
        Answer::Other(media_type) => Some((media_type, json!({"type": "string"}))),
    };
    let mut headers = json!({"x-request-id": header("Id of this request, in the log too.", "string")});
    if operation.method != "get" && is_recorded(operation) {
        headers["x-log-position"] = header("Log position of what was recorded.", "integer");
    }
    let mut success = json!({"description": operation.summary, "headers": headers});
    if let Some((media_type, schema)) = content {
        success["content"] = json!({media_type: {"schema": schema}});
    }
    let error =
        |what: &str| json!({"description": what, "content": {"application/json": {"schema": link("Error")}}});
    let mut answers = json!({
        operation.status.to_string(): success,
        "4XX": error("Refused; nothing was recorded."),
        "5XX": error("Not done, or recorded and not confirmed; the message says which."),
    });
    if decides(&method_of(operation), operation.path) {
        let planned = link("DryRun");
        if operation.status == 200 {
            let schema = &mut answers["200"]["content"]["application/json"]["schema"];
            *schema = json!({"anyOf": [schema.take(), planned]});
        } else {
            answers["200"] = json!({
                "description": "With `dry_run`: what would be recorded.",
                "content": {"application/json": {"schema": planned}},
            });
        }
    }
    answers
}

/// Whether a success leaves something in the log, or finds it there.
fn is_recorded(operation: &Operation) -> bool {
    !["/ops/v1/log/", "/ops/v1/timers/"].iter().any(|prefix| operation.path.starts_with(prefix))
}

/// Whether repeats with a key are one request: with a timer they could not be told.
fn takes_a_key(operation: &Operation) -> bool {
    !operation.path.starts_with("/ops/v1/timers/")
}

fn header(about: &str, kind: &str) -> Value {
    json!({"description": about, "schema": {"type": kind}})
}

fn link(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every method and path that a source of routes names, below a prefix.
    fn routes(source: &str, prefix: &str) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        for line in source.split(".route(").skip(1) {
            let (path, methods) = line.split_once(',').unwrap();
            let path = path.trim().trim_matches('"');
            let methods = methods.split(".route(").next().unwrap().split("\n}").next().unwrap();
            for method in ["get", "post", "put", "delete"] {
                if methods.contains(&format!("{method}(")) {
                    found.insert((method.to_owned(), format!("{prefix}{path}")));
                }
            }
        }
        found
    }

    #[test]
    fn the_table_is_what_is_routed() {
        let mut routed = routes(include_str!("../v1/mod.rs"), "/v1");
        routed.extend(routes(include_str!("../ops/mod.rs"), "/ops/v1"));
        routed.extend(routes(include_str!("../router.rs"), ""));
        let described: BTreeSet<_> =
            OPERATIONS.iter().map(|it| (it.method.to_owned(), it.path.to_owned())).collect();
        assert_eq!(described, routed);
        assert!(routed.len() > 30, "{}", routed.len());
        let ids: BTreeSet<_> = OPERATIONS.iter().map(operation_id).collect();
        assert_eq!(ids.len(), OPERATIONS.len(), "ids are unique");
    }

    #[test]
    fn every_schema_that_is_named_is_there() {
        let document = document();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let text = document.to_string();
        let named: BTreeSet<&str> =
            text.split("#/components/schemas/").skip(1).map(|it| it.split('"').next().unwrap()).collect();
        let there: BTreeSet<&str> = schemas.keys().map(String::as_str).collect();
        assert_eq!(named, there);
    }

    #[test]
    fn the_document_is_openapi() {
        let read: utoipa::openapi::OpenApi = serde_json::from_value(document()).unwrap();
        assert_eq!(read.paths.paths.len(), document()["paths"].as_object().unwrap().len());
    }

    #[test]
    fn the_document_that_is_kept_is_the_document() {
        let kept = include_str!("../../../../docs/openapi.json");
        assert!(
            kept == openapi_json(),
            "docs/openapi.json is another; `musher openapi > docs/openapi.json` writes it"
        );
    }
}
