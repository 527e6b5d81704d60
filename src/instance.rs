//! `musher instance …`: the client side of instances.

use crate::cli::{ClientArgs, HowArgs, InstanceVerb, One, WaitArgs};
use crate::client::{Client, ClientError};
use crate::debugger::show;
use crate::exit::{Exit, Failure, Outcome};
use crate::feed::{self, EventsArgs};
use crate::output::{self, Column, Format, gib, text};
use crate::serial;
use crate::watch;
use serde_json::{Value, json};
use std::io::{BufRead as _, IsTerminal as _};
use std::time::Duration;
use tokio::time::Instant;

/// How often a wait looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Shortest prefix of an id that counts as one.
const PREFIX_CHARS_MIN: usize = 8;

/// Runs the verb.
pub async fn run(verb: InstanceVerb) -> Outcome {
    match verb {
        InstanceVerb::Create {
            name,
            ncpus,
            memory,
            hostname,
            description,
            auto_restart_policy,
            no_start,
            wait,
            how,
            client: args,
        } => {
            let client = Client::new(&args.server)?.meant(&how, args.output);
            let body = json!({
                "name": name,
                "description": description,
                "hostname": hostname.unwrap_or_else(|| name.clone()),
                "ncpus": ncpus,
                "memory": memory,
                "auto_restart_policy": auto_restart_policy,
                "start": !no_start,
            });
            let created = client.post("/v1/instances", &[("project", &args.project)], Some(body)).await?;
            let goal = if no_start { "stopped" } else { "running" };
            let shown = settle(&client, created, &wait, goal).await?;
            show(&shown, &args);
            Ok(())
        }
        InstanceVerb::List { watch, client } => list(watch.watch, &client).await,
        InstanceVerb::Show { one, watch } => {
            let (client, id) = find(&one).await?;
            let path = format!("/v1/instances/{id}");
            watch::show(watch.watch, async || Ok(shown(&client.get(&path, &[]).await?, &one.client))).await
        }
        InstanceVerb::Watch { one } => {
            let (client, id) = find(&one).await?;
            // Before the state is read: an event in between is shown twice rather than never.
            let tail = client.get("/ops/v1/log/tail", &[("limit", "1")]).await?;
            show(&client.get(&format!("/v1/instances/{id}"), &[]).await?, &one.client);
            feed::run(&EventsArgs::of_instance(id, tail["durable"].as_u64(), one.client)).await
        }
        InstanceVerb::Start { one, wait, how } => act(&one, "start", (&wait, &how), "running").await,
        InstanceVerb::Stop { one, wait, how } => act(&one, "stop", (&wait, &how), "stopped").await,
        InstanceVerb::Reboot { one, wait, how } => reboot(&one, &wait, &how).await,
        InstanceVerb::Delete { one, yes, how } => {
            let (client, id) = find(&one).await?;
            confirm(&format!("delete instance {} for good?", one.instance), yes || how.dry_run)?;
            let client = client.meant(&how, one.client.output);
            client.delete(&format!("/v1/instances/{id}"), &[]).await?;
            if matches!(one.client.output, Format::Table | Format::Wide) {
                output::line(format!("deleted {} ({id})", one.instance));
            }
            Ok(())
        }
        InstanceVerb::Serial(args) => serial::run(&args).await,
        InstanceVerb::Diff { one, from, to } => {
            let (client, id) = find_past(&one).await?;
            let query: Vec<(&str, &str)> = [("from", &from), ("to", &to)]
                .into_iter()
                .filter_map(|(key, moment)| Some((key, moment.as_deref()?)))
                .collect();
            let diff = client.get(&format!("/ops/v1/instances/{id}/diff"), &query).await?;
            show_diff(&diff, one.client.output);
            Ok(())
        }
        InstanceVerb::History { one, after, limit } => {
            let (client, id) = find_past(&one).await?;
            let (after, limit) = (after.to_string(), limit.to_string());
            let query = [("after", after.as_str()), ("limit", limit.as_str())];
            let history = client.get(&format!("/ops/v1/instances/{id}/history"), &query).await?;
            show_history(&history, &one.client);
            Ok(())
        }
    }
}

/// The same, for what is asked of the past.
async fn find_past(one: &One) -> Result<(Client, String), Failure> {
    find(one).await.map_err(|failure| match failure.exit {
        Exit::Refused => failure.hint("a deleted instance is found by its whole id"),
        _ => failure,
    })
}

fn show_diff(diff: &Value, format: Format) {
    if let Some(document) = output::document(format, diff) {
        output::line(document);
        return;
    }
    let side = |side: &Value| {
        let (position, time) = (&side["position"], text(side, "time"));
        format!("#{} {} (position {position}, {time})", side["version"], text(side, "run_state"))
    };
    output::line(format!("{} .. {}", side(&diff["from"]), side(&diff["to"])));
    let changes = diff["changes"].as_array().cloned().unwrap_or_default();
    if changes.is_empty() {
        output::line("nothing differs");
    }
    for change in changes {
        let of = |key: &str| Some(change[key].clone()).filter(|value| !value.is_null());
        let (before, after) = (of("before"), of("after"));
        let change = replay::Change { field: text(&change, "field"), before, after };
        output::line(show::change_line(&change));
    }
}

async fn act(one: &One, action: &str, (wait, how): (&WaitArgs, &HowArgs), goal: &str) -> Outcome {
    let (client, id) = find(one).await?;
    let client = client.meant(how, one.client.output);
    let answer = client.post(&format!("/v1/instances/{id}/{action}"), &[], None).await?;
    show(&settle(&client, answer, wait, goal).await?, &one.client);
    Ok(())
}

/// A reboot ends where it began: it is done when the state has changed since, and is running again.
async fn reboot(one: &One, wait: &WaitArgs, how: &HowArgs) -> Outcome {
    let (client, id) = find(one).await?;
    let client = client.meant(how, one.client.output);
    let path = format!("/v1/instances/{id}");
    let before = text(&client.get(&path, &[]).await?, "time_run_state_updated");
    let mut answer = client.post(&format!("{path}/reboot"), &[], None).await?;
    let until = Instant::now() + wait.timeout;
    while wait.wait.is_some() && text(&answer, "time_run_state_updated") == before && Instant::now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
        answer = client.get(&path, &[]).await?;
    }
    show(&settle(&client, answer, wait, "running").await?, &one.client);
    Ok(())
}

const COLUMNS: &[Column] = &[
    Column::new("name", |it| text(it, "name")),
    Column::new("state", |it| text(it, "run_state")),
    Column::new("cpus", |it| it["ncpus"].to_string()),
    Column::new("memory", |it| gib(it["memory"].as_u64().unwrap_or(0))),
    Column::new("since", |it| text(it, "time_run_state_updated")),
    Column::wide("hostname", |it| text(it, "hostname")),
    Column::wide("created", |it| text(it, "time_created")),
    Column::wide("restart", |it| it["auto_restart_policy"].as_str().unwrap_or("default").to_owned()),
    Column::wide("description", |it| text(it, "description")),
    Column::new("id", |it| text(it, "id")),
];

async fn list(is_watched: bool, args: &ClientArgs) -> Outcome {
    let client = Client::new(&args.server)?;
    watch::show(is_watched, async || {
        let instances = pages(&client, "/v1/instances", &[("project", &args.project)]).await?;
        Ok(output::list(args.output, !args.no_headers, &instances, COLUMNS))
    })
    .await
}

/// All pages of a list.
pub async fn pages(client: &Client, path: &str, query: &[(&str, &str)]) -> Result<Vec<Value>, ClientError> {
    let mut items = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let mut query = query.to_vec();
        query.push(("limit", "1000"));
        if let Some(token) = &token {
            query.push(("page_token", token));
        }
        let mut page = client.get(path, &query).await?;
        if let Value::Array(found) = page["items"].take() {
            items.extend(found);
        }
        match page["next_page"].as_str() {
            Some(next) => token = Some(next.to_owned()),
            None => return Ok(items),
        }
    }
}

/// The id of what was named: by name in the project, by id, or by the beginning of an id.
pub async fn find(one: &One) -> Result<(Client, String), Failure> {
    let client = Client::new(&one.client.server)?;
    if uuid::Uuid::try_parse(&one.instance).is_ok() {
        return Ok((client, one.instance.clone()));
    }
    let named = client
        .get(&format!("/v1/instances/{}", encode(&one.instance)), &[("project", &one.client.project)])
        .await;
    let refused = match named {
        Ok(instance) => return Ok((client, text(&instance, "id"))),
        Err(ClientError::Refused(refused)) => refused,
        Err(unreachable) => return Err(unreachable.into()),
    };
    let is_prefix = one.instance.len() >= PREFIX_CHARS_MIN
        && one.instance.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if !is_prefix {
        return Err(ClientError::Refused(refused).into());
    }
    let instances = pages(&client, "/v1/instances", &[("project", &one.client.project)]).await?;
    let mut ids =
        instances.iter().map(|instance| text(instance, "id")).filter(|id| id.starts_with(&one.instance));
    match (ids.next(), ids.next()) {
        (Some(id), None) => Ok((client, id)),
        (Some(_), Some(_)) => {
            Err(Failure::new(Exit::Refused, format!("\"{}\" is the beginning of several ids", one.instance))
                .hint("give more characters"))
        }
        (None, _) => Err(ClientError::Refused(refused).into()),
    }
}

/// Percent-encodes what is not plain in a path segment, so that a bad name reaches the daemon's check.
pub fn encode(segment: &str) -> String {
    segment
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Waits, if asked, until the instance is where it should be; answers it as it is then.
pub async fn settle(client: &Client, instance: Value, wait: &WaitArgs, goal: &str) -> Result<Value, Failure> {
    let Some(wanted) = &wait.wait else {
        return Ok(instance);
    };
    let wanted = if wanted.is_empty() { goal } else { wanted.as_str() };
    let (id, name) = (text(&instance, "id"), text(&instance, "name"));
    let until = Instant::now() + wait.timeout;
    let mut last = instance;
    loop {
        let state = text(&last, "run_state");
        if state == wanted {
            return Ok(last);
        }
        if matches!(state.as_str(), "failed" | "stopped") && wanted == "running" {
            let why = trouble(client, &id).await;
            return Err(Failure::new(Exit::Refused, format!("{name} is {state}, not {wanted}{why}"))
                .hint(format!("see `musher instance history {name}`")));
        }
        if Instant::now() >= until {
            let what = format!("{name} is still {state} after {} s, not {wanted}", wait.timeout.as_secs());
            return Err(Failure::new(Exit::TimedOut, what)
                .hint("the work goes on; wait again or look at its history"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        last = client.get(&format!("/v1/instances/{id}"), &[]).await?;
    }
}

/// Why the instance is not running, if the daemon knows.
async fn trouble(client: &Client, id: &str) -> String {
    let Ok(told) = client.get(&format!("/ops/v1/instances/{id}/explain"), &[]).await else {
        return String::new();
    };
    told["because"][0].as_str().map(|why| format!(": {why}")).unwrap_or_default()
}

fn show(instance: &Value, args: &ClientArgs) {
    output::line(shown(instance, args));
}

/// One instance in the wished format.
pub fn shown(instance: &Value, args: &ClientArgs) -> String {
    let rows = [
        ("name", text(instance, "name")),
        ("id", text(instance, "id")),
        ("state", text(instance, "run_state")),
        ("size", format!("{} vCPU, {}", instance["ncpus"], gib(instance["memory"].as_u64().unwrap_or(0)))),
        ("hostname", text(instance, "hostname")),
        ("created", text(instance, "time_created")),
        ("state since", text(instance, "time_run_state_updated")),
    ];
    output::one(args.output, instance, &rows)
}

fn show_history(history: &Value, args: &ClientArgs) {
    if matches!(args.output, Format::Json | Format::Yaml) {
        output::structured(args.output, history);
        return;
    }
    let entries = history["items"].as_array().cloned().unwrap_or_default();
    let columns = [
        Column::new("#", |entry| entry["version"].to_string()),
        Column::wide("position", |entry| entry["position"].to_string()),
        Column::new("time", |entry| text(entry, "time")),
        Column::new("event", |entry| text(entry, "event")),
        Column::new("by", |entry| text(entry, "actor")),
        Column::wide("request", |entry| text(entry, "request_id")),
        Column::new("what", |entry| match entry["reason"].as_str() {
            // The reason of an append stands with its first event.
            Some(reason) if entry["append"] == entry["version"] => {
                format!("{} (reason: {reason})", text(entry, "summary"))
            }
            _ => text(entry, "summary"),
        }),
    ];
    if args.output == Format::Name {
        output::table(&[], entries.iter().map(|entry| vec![text(entry, "event")]));
        return;
    }
    output::line(output::list(args.output, !args.no_headers, &entries, &columns));
}

/// Asks on a terminal; elsewhere only `--yes` counts.
pub fn confirm(question: &str, yes: bool) -> Outcome {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(
            Failure::new(Exit::Usage, "this is for good, and nobody is there to ask").hint("say --yes")
        );
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    if answer.trim().eq_ignore_ascii_case("y") {
        Ok(())
    } else {
        Err(Failure::new(Exit::Refused, "nothing was done"))
    }
}
