//! `musher project …`, `musher sled …` and `musher ping`: the client side of what instances live in.

use crate::cli::{ClientArgs, ProjectVerb, ServerArgs, SledVerb};
use crate::client::Client;
use crate::exit::Outcome;
use crate::instance::{confirm, encode, pages};
use crate::output::{self, Format, gib};
use serde_json::{Value, json};

/// Runs a verb of `project`.
pub async fn project(verb: ProjectVerb) -> Outcome {
    match verb {
        ProjectVerb::Create { name, description, client: args } => {
            let client = Client::new(&args.server)?;
            let body = json!({ "name": name, "description": description });
            show(&client.post("/v1/projects", &[], Some(body)).await?, &args);
        }
        ProjectVerb::List { client: args } => {
            let client = Client::new(&args.server)?;
            let projects = pages(&client, "/v1/projects", &[]).await?;
            if args.output == Format::Json {
                output::json(&projects);
                return Ok(());
            }
            let headers: &[&str] = if args.no_headers { &[] } else { &["name", "description", "id"] };
            output::table(
                headers,
                projects.iter().map(|project| {
                    vec![text(project, "name"), text(project, "description"), text(project, "id")]
                }),
            );
        }
        ProjectVerb::Show { name, client: args } => {
            let client = Client::new(&args.server)?;
            show(&client.get(&format!("/v1/projects/{}", encode(&name)), &[]).await?, &args);
        }
        ProjectVerb::Delete { name, yes, client: args } => {
            let client = Client::new(&args.server)?;
            confirm(&format!("delete project {name}?"), yes)?;
            client.delete(&format!("/v1/projects/{}", encode(&name)), &[]).await?;
            if args.output == Format::Table {
                output::line(format!("deleted {name}"));
            }
        }
    }
    Ok(())
}

fn show(project: &Value, args: &ClientArgs) {
    if args.output == Format::Json {
        output::json(project);
        return;
    }
    for key in ["name", "id", "description", "time_created"] {
        output::line(format!("{key:<12} {}", text(project, key)));
    }
}

/// Runs a verb of `sled`.
pub async fn sled(verb: SledVerb) -> Outcome {
    let SledVerb::List { client: args } = verb;
    let client = Client::new(&args.server)?;
    let answer = client.get("/ops/v1/sleds", &[]).await?;
    let sleds = answer["items"].as_array().cloned().unwrap_or_default();
    if args.output == Format::Json {
        output::json(&sleds);
        return Ok(());
    }
    let headers: &[&str] = if args.no_headers {
        &[]
    } else {
        &["name", "state", "threads", "memory", "epoch", "last contact", "id"]
    };
    output::table(
        headers,
        sleds.iter().map(|sled| {
            let (room, held) = (&sled["room"], &sled["held"]);
            let memory = |room: &Value| gib(room["memory"].as_u64().unwrap_or(0));
            let state = match (&sled["unreachable"], sled["provisionable"].as_bool()) {
                (Value::Null, Some(true)) => "in service",
                (Value::Null, _) => "cordoned",
                _ => "unreachable",
            };
            vec![
                text(sled, "name"),
                state.to_owned(),
                format!("{}/{}", held["threads"], room["threads"]),
                format!("{}/{}", memory(held), memory(room)),
                sled["epoch"].to_string(),
                text(sled, "last_contact"),
                text(sled, "id"),
            ]
        }),
    );
    Ok(())
}

/// Asks whether the daemon is there.
pub async fn ping(args: &ServerArgs) -> Outcome {
    let answer = Client::new(args)?.get("/v1/ping", &[]).await?;
    output::line(text(&answer, "status"));
    Ok(())
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}
