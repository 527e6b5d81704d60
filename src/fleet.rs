//! `musher project …`, `musher sled …` and `musher ping`: the client side of what instances live in.

use crate::cli::{ClientArgs, ProjectVerb, ServerArgs, SledVerb};
use crate::client::Client;
use crate::exit::Outcome;
use crate::instance::{confirm, encode, pages};
use crate::output::{self, Column, Format, gib, text};
use crate::watch;
use serde_json::{Value, json};

const PROJECT_COLUMNS: &[Column] = &[
    Column::new("name", |it| text(it, "name")),
    Column::new("description", |it| text(it, "description")),
    Column::wide("created", |it| text(it, "time_created")),
    Column::wide("modified", |it| text(it, "time_modified")),
    Column::new("id", |it| text(it, "id")),
];

const SLED_COLUMNS: &[Column] = &[
    Column::new("name", |it| text(it, "name")),
    Column::new("state", |it| sled_state(it).to_owned()),
    Column::new("threads", |it| format!("{}/{}", it["held"]["threads"], it["room"]["threads"])),
    Column::new("memory", |it| format!("{}/{}", memory(&it["held"]), memory(&it["room"]))),
    Column::new("epoch", |it| it["epoch"].to_string()),
    Column::wide("calls", |it| it["calls"].to_string()),
    Column::new("lease", lease),
    Column::new("last contact", |it| text(it, "last_contact")),
    Column::wide("unreachable", |it| text(&it["unreachable"], "reason")),
    Column::new("id", |it| text(it, "id")),
];

/// Runs a verb of `project`.
pub async fn project(verb: ProjectVerb) -> Outcome {
    match verb {
        ProjectVerb::Create { name, description, how, client: args } => {
            let client = Client::new(&args.server)?.meant(&how, args.output);
            let body = json!({ "name": name, "description": description });
            output::line(shown(&client.post("/v1/projects", &[], Some(body)).await?, &args));
            Ok(())
        }
        ProjectVerb::List { watch, client: args } => {
            let client = Client::new(&args.server)?;
            watch::show(watch.watch, async || {
                let projects = pages(&client, "/v1/projects", &[]).await?;
                Ok(output::list(args.output, !args.no_headers, &projects, PROJECT_COLUMNS))
            })
            .await
        }
        ProjectVerb::Show { name, watch, client: args } => {
            let client = Client::new(&args.server)?;
            let path = format!("/v1/projects/{}", encode(&name));
            watch::show(watch.watch, async || Ok(shown(&client.get(&path, &[]).await?, &args))).await
        }
        ProjectVerb::Delete { name, yes, how, client: args } => {
            let client = Client::new(&args.server)?.meant(&how, args.output);
            confirm(&format!("delete project {name}?"), yes || how.dry_run)?;
            client.delete(&format!("/v1/projects/{}", encode(&name)), &[]).await?;
            if matches!(args.output, Format::Table | Format::Wide) {
                output::line(format!("deleted {name}"));
            }
            Ok(())
        }
    }
}

fn shown(project: &Value, args: &ClientArgs) -> String {
    let rows = ["name", "id", "description", "time_created"].map(|key| (key, text(project, key)));
    output::one(args.output, project, &rows)
}

/// Runs a verb of `sled`.
pub async fn sled(verb: SledVerb) -> Outcome {
    let SledVerb::List { watch, client: args } = verb;
    let client = Client::new(&args.server)?;
    watch::show(watch.watch, async || {
        let answer = client.get("/ops/v1/sleds", &[]).await?;
        let sleds = answer["items"].as_array().cloned().unwrap_or_default();
        Ok(output::list(args.output, !args.no_headers, &sleds, SLED_COLUMNS))
    })
    .await
}

/// How a sled is doing, in a word.
pub fn sled_state(sled: &Value) -> &'static str {
    if sled["expunged"] == true {
        return "expunged";
    }
    if !sled["lease"]["expired"].is_null() {
        return "lease expired";
    }
    if !sled["drain"].is_null() && sled["unreachable"].is_null() {
        return "draining";
    }
    match (&sled["unreachable"], sled["provisionable"].as_bool()) {
        (Value::Null, Some(true)) => "in service",
        (Value::Null, _) => "cordoned",
        _ => "unreachable",
    }
}

fn lease(sled: &Value) -> String {
    sled["lease"]["seconds"].as_u64().map_or_else(|| "none".to_owned(), |seconds| format!("{seconds}s"))
}

fn memory(room: &Value) -> String {
    gib(room["memory"].as_u64().unwrap_or(0))
}

/// Asks whether the daemon is there.
pub async fn ping(args: &ServerArgs) -> Outcome {
    let answer = Client::new(args)?.get("/v1/ping", &[]).await?;
    output::line(text(&answer, "status"));
    Ok(())
}
