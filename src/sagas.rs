//! `musher saga ...`: what is under way step by step, and holding it, letting it go on, taking it back.

use crate::client::Client;
use crate::exit::Outcome;
use crate::instance::encode;
use crate::operate::{rows, said, took};
use crate::operate_args::{HistoryArgs, OneSaga, SagaVerb};
use crate::output::{self, Column, text};
use crate::watch;
use serde_json::Value;

const SAGA_COLUMNS: &[Column] = &[
    Column::new("id", |it| text(it, "id")),
    Column::new("kind", |it| text(it, "kind")),
    Column::new("instance", |it| text(it, "instance_id")),
    Column::wide("asked by", |it| text(it, "origin")),
    Column::new("step", current_step),
    Column::new("started", |it| text(it, "time_started")),
    Column::new("took", took),
    Column::new("outcome", |it| {
        let going_on = if it["pause"].is_null() { "under way" } else { "paused" };
        it["outcome"].as_str().unwrap_or(going_on).to_owned()
    }),
];

fn current_step(saga: &Value) -> String {
    let steps = saga["steps"].as_array().cloned().unwrap_or_default();
    let at = steps.iter().find(|step| !step["since"].is_null());
    at.map(|step| text(step, "step")).unwrap_or_default()
}

/// How a saga ended, or how it is getting on.
fn standing(saga: &Value) -> String {
    let pause = &saga["pause"];
    match (saga["outcome"].as_str(), pause["failures"].as_u64()) {
        (Some(outcome), _) => outcome.to_owned(),
        (None, Some(failures)) => {
            format!("paused since {}, its step had failed {failures} times", text(pause, "since"))
        }
        (None, None) if !pause.is_null() => format!("paused since {}", text(pause, "since")),
        (None, None) => "under way".to_owned(),
    }
}

/// Runs a verb of `saga`.
pub async fn run(verb: SagaVerb) -> Outcome {
    match verb {
        SagaVerb::List(HistoryArgs { under_way, watch, client: args }) => {
            let client = Client::new(&args.server)?;
            watch::show(watch.watch, async || {
                let items = rows(&client, "/ops/v1/sagas", under_way).await?;
                Ok(output::list(args.output, !args.no_headers, &items, SAGA_COLUMNS))
            })
            .await
        }
        SagaVerb::Show { id, client: args } => {
            let client = Client::new(&args.server)?;
            let one = client.get(&format!("/ops/v1/sagas/{}", encode(&id)), &[]).await?;
            if let Some(document) = output::document(args.output, &one) {
                output::line(document);
                return Ok(());
            }
            let outcome = standing(&one);
            output::line(format!(
                "{} of instance {}: {outcome}",
                text(&one, "kind"),
                text(&one, "instance_id")
            ));
            let steps = one["steps"].as_array().cloned().unwrap_or_default();
            let lines = steps.iter().enumerate().map(|(n, step)| {
                vec![(n + 1).to_string(), text(step, "state"), text(step, "does"), text(step, "since")]
            });
            output::table(if args.no_headers { &[] } else { &["#", "state", "does", "since"] }, lines);
            Ok(())
        }
        SagaVerb::Pause(one) => ask_saga(one, "pause", "paused").await,
        SagaVerb::Resume(one) => ask_saga(one, "resume", "resumed").await,
        SagaVerb::Retry(one) => ask_saga(one, "retry", "sent again:").await,
        SagaVerb::Cancel(one) => ask_saga(one, "cancel", "cancelled").await,
    }
}

async fn ask_saga(one: OneSaga, verb: &str, done: &str) -> Outcome {
    let OneSaga { id, how, client: args } = one;
    let client = Client::new(&args.server)?.meant(&how, args.output);
    client.post(&format!("/ops/v1/sagas/{}/{verb}", encode(&id)), &[], None).await?;
    said(&args, format!("{done} {id}"));
    Ok(())
}
