//! `musher trace` and `musher whatis`: from an id to what it stands for.

use crate::cli::ClientArgs;
use crate::client::{Client, ClientError};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Format, text};
use crate::sse::Blocks;
use clap::Args;
use replay::trace::{Trace, otlp};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Shortest beginning of an id that is looked for.
const PREFIX_CHARS_MIN: usize = 8;

/// Flags of `trace`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  musher trace 0b8f6a52-3f0e-4b6a-9d55-0d6b1c2f7e11\n  \
                        musher trace 0b8f6a52-3f0e-4b6a-9d55-0d6b1c2f7e11 --otlp trace.json\n\n\
                        The request id stands in every answer (x-request-id), in every error, and in \
                        `musher events -o json`.")]
pub struct TraceArgs {
    /// The request: its id.
    request: uuid::Uuid,
    /// Write it as OpenTelemetry spans (OTLP JSON) into this file, which must not exist.
    #[arg(long, value_name = "FILE")]
    otlp: Option<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Shows what came of a request.
pub async fn trace(args: &TraceArgs) -> Outcome {
    let client = Client::new(&args.client.server)?;
    let answer = client.get_long(&format!("/ops/v1/trace/{}", args.request)).await?;
    let trace: Trace = serde_json::from_value(answer.clone()).map_err(|error| {
        Failure::new(Exit::Refused, format!("the daemon's trace cannot be read: {error}"))
    })?;
    if let Some(file) = &args.otlp {
        let written = std::fs::File::create_new(file)
            .and_then(|file| serde_json::to_writer(file, &otlp(&trace)).map_err(Into::into));
        written.map_err(|error| Failure::new(Exit::Refused, format!("{}: {error}", file.display())))?;
        eprintln!("written to {}", file.display());
        return Ok(());
    }
    if !output::structured(args.client.output, &answer) {
        output::line(trace.text().trim_end());
    }
    Ok(())
}

/// Flags of `whatis`.
#[derive(Debug, Args)]
#[command(after_help = "Example: musher whatis 4f1d02c7")]
pub struct WhatisArgs {
    /// An id of anything, or the first 8 or more characters of it.
    id: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Says what an id stands for: what is there now, else the first event that mentions it.
pub async fn whatis(args: &WhatisArgs) -> Outcome {
    let id = args.id.to_ascii_lowercase();
    let is_id = id.len() >= PREFIX_CHARS_MIN && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if !is_id {
        return Err(Failure::new(Exit::Usage, format!("\"{}\" is no id", args.id))
            .hint("give at least 8 characters of a UUID"));
    }
    let client = Client::new(&args.client.server)?;
    let found = match here(&client, &id).await? {
        Some(found) => found,
        None => mentioned(&client, &id).await?.ok_or_else(|| {
            Failure::new(Exit::Refused, format!("the log mentions no id \"{id}\""))
                .hint("is it of another daemon? name that one with --server")
        })?,
    };
    if !output::structured(args.client.output, &found) {
        let (what, id, about) = (text(&found, "what"), text(&found, "id"), text(&found, "about"));
        let short = args.client.output == Format::Name;
        output::line(if short { what } else { format!("{id} is {what}: {about}") });
    }
    Ok(())
}

/// What things of one sort are called, where they are, and what to say of one.
type Place = (&'static str, &'static str, fn(&Value) -> String);

/// What is there now, or was and is deleted, by its whole id.
async fn here(client: &Client, id: &str) -> Result<Option<Value>, ClientError> {
    if uuid::Uuid::try_parse(id).is_err() {
        return Ok(None);
    }
    let places: [Place; 3] = [
        ("an instance", "/ops/v1/instances/", |it| {
            format!("{}, {}", text(&it["state"]["spec"], "name"), text(it, "run_state"))
        }),
        ("a project", "/v1/projects/", |it| text(it, "name")),
        ("a sled", "/v1/system/hardware/sleds/", |it| text(&it["baseboard"], "serial")),
    ];
    for (what, path, about) in places {
        match client.get(&format!("{path}{id}"), &[]).await {
            Ok(found) => return Ok(Some(json!({"what": what, "id": id, "about": about(&found)}))),
            Err(ClientError::Refused(refused)) if refused.status.as_u16() == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The first event that mentions an id, or the beginning of one.
async fn mentioned(client: &Client, id: &str) -> Result<Option<Value>, ClientError> {
    let query = [("follow", "false".to_owned()), ("after", "0".to_owned())];
    let mut blocks = Blocks::new(client.stream("/ops/v1/events", &query).await?);
    while let Some(block) = blocks.next().await? {
        let Some(data) = block.data.filter(|data| data.contains(id)) else {
            continue;
        };
        let event: Value = serde_json::from_str(&data).unwrap_or_default();
        if let Some((key, whole)) = find(&event, "", id) {
            let (name, stream) = (text(&event, "event"), text(&event, "stream"));
            let at = format!("position {}, {}", event["position"], text(&event, "time"));
            let about = format!("first mentioned by {name} in {stream} at {at}");
            let what = what(key, &stream);
            return Ok(Some(json!({"what": what, "id": whole, "about": about, "event": event})));
        }
    }
    Ok(None)
}

/// The key of the first value that is this id, and the whole of it. What the event says comes before what it
/// stands in.
fn find<'a>(value: &'a Value, key: &'a str, id: &str) -> Option<(&'a str, String)> {
    match value {
        Value::Object(fields) => {
            let inner = fields.get("data").and_then(|data| find(data, key, id));
            inner.or_else(|| fields.iter().find_map(|(key, value)| find(value, key, id)))
        }
        Value::Array(items) => items.iter().find_map(|item| find(item, key, id)),
        Value::String(text) => {
            let whole = text.rsplit([' ', '/']).next().unwrap_or_default();
            (whole.starts_with(id) && uuid::Uuid::try_parse(whole).is_ok()).then(|| (key, whole.to_owned()))
        }
        _ => None,
    }
}

/// What stands under a key of an event.
fn what(key: &str, stream: &str) -> &'static str {
    match key {
        "vmm" | "active" | "target" => "a VMM",
        "saga" | "saga_id" => "a saga",
        "request_id" => "a request",
        "op" => "an order to a sled",
        "boot" => "a boot of a sled",
        "migration" => "a migration",
        "project" => "a project",
        "sled" | "actor" => "a sled",
        _ => match stream.split('/').next() {
            Some("instance") => "an instance",
            Some("project") => "a project",
            Some("sled") => "a sled",
            _ => "something",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_what_its_key_says() {
        let vmm = "4f1d02c7-0000-4000-8000-000000000001";
        let sled = "51ed02c7-0000-4000-8000-000000000002";
        let event = json!({
            "stream": "instance/a0b1c2d3-0000-4000-8000-000000000003",
            "actor": format!("sled {sled}"),
            "data": {"vmm": vmm, "report": {"state": "running"}},
        });
        for (id, expected) in
            [("4f1d02c7", "a VMM"), ("51ed02c7-0000", "a sled"), ("a0b1c2d3", "an instance")]
        {
            let (key, whole) = find(&event, "", id).unwrap();
            assert!(whole.starts_with(id) && whole.len() == 36);
            assert_eq!(what(key, event["stream"].as_str().unwrap()), expected);
        }
        assert_eq!(find(&event, "", "ffffffff"), None);
    }
}
