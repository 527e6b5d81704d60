//! What operators do, and look at: migrations, forced stops, sleds, quotas, groups, timers.

use crate::cli::{ClientArgs, HowArgs};
use crate::client::Client;
use crate::exit::{Exit, Failure, Outcome};
use crate::explained;
use crate::instance::{confirm, encode, find, settle, shown as instance_shown};
use crate::operate_args::{
    GroupVerb, HistoryArgs, Limit, MigrationVerb, OneSled, OperateVerb, QuotaVerb, SledOperateVerb, TimerVerb,
};
use crate::output::{self, Column, Format, gib, text};
use crate::watch;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// How often a wait looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs a verb of `instance`.
pub async fn instance(verb: OperateVerb) -> Outcome {
    match verb {
        OperateVerb::Explain { one, watch } => {
            let (client, id) = find(&one).await?;
            let path = format!("/ops/v1/instances/{id}/explain");
            let format = one.client.output;
            watch::show(watch.watch, async || {
                let told = client.get(&path, &[]).await?;
                Ok(output::document(format, &told).unwrap_or_else(|| explained::text(&told)))
            })
            .await
        }
        OperateVerb::Migrate { one, to, cancel, wait, how } => {
            let (client, id) = find(&one).await?;
            let client = client.meant(&how, one.client.output);
            let path = format!("/ops/v1/instances/{id}/migrate");
            let began = if cancel {
                client.post(&format!("{path}/cancel"), &[], None).await?;
                None
            } else {
                let sled = match to {
                    Some(sled) => Some(find_sled(&client, &sled).await?["id"].clone()),
                    None => None,
                };
                Some(client.post(&path, &[], Some(json!({ "dst_sled": sled }))).await?)
            };
            let now = client.get(&format!("/v1/instances/{id}"), &[]).await?;
            let now = settle(&client, now, &wait, "running").await?;
            if let Some(began) = began.filter(|_| wait.wait.is_some()) {
                must_have_moved(&client, &text(&began, "migration_id")).await?;
            }
            output::line(instance_shown(&now, &one.client));
            Ok(())
        }
        OperateVerb::ForceStop { one, reason, assert_dead, vmm, yes, dry_run } => {
            let (client, id) = find(&one).await?;
            let question = format!("declare the VMMs of {} failed, whatever they do?", one.instance);
            confirm(&question, yes || dry_run)?;
            let client = client.meant(&HowArgs { dry_run, reason: None }, one.client.output);
            let body = json!({ "reason": reason, "assert_dead": assert_dead, "vmm": vmm });
            client.post(&format!("/ops/v1/instances/{id}/force-stop"), &[], Some(body)).await?;
            let now = client.get(&format!("/v1/instances/{id}"), &[]).await?;
            output::line(instance_shown(&now, &one.client));
            Ok(())
        }
        OperateVerb::Update { one, ncpus, memory, auto_restart_policy, cpu_platform, how } => {
            let (client, id) = find(&one).await?;
            let client = client.meant(&how, one.client.output);
            let path = format!("/v1/instances/{id}");
            let now = client.get(&path, &[]).await?;
            let word = |given: Option<String>, none: &str, now: &Value| match given {
                Some(given) if given == none => Value::Null,
                Some(given) => Value::from(given),
                None => now.clone(),
            };
            let body = json!({
                "ncpus": ncpus.map_or_else(|| now["ncpus"].clone(), Value::from),
                "memory": memory.map_or_else(|| now["memory"].clone(), Value::from),
                "auto_restart_policy": word(auto_restart_policy, "default", &now["auto_restart_policy"]),
                "cpu_platform": word(cpu_platform, "none", &now["cpu_platform"]),
                "boot_disk": now["boot_disk_id"],
                "enable_jumbo_frames": now["enable_jumbo_frames"],
            });
            output::line(instance_shown(&client.put(&path, &[], body).await?, &one.client));
            Ok(())
        }
    }
}

/// A guest that runs again need not have moved. One whose migration is under way still is where it was told to
/// be waited for.
async fn must_have_moved(client: &Client, migration: &str) -> Outcome {
    let migration = client.get(&format!("/ops/v1/migrations/{migration}"), &[]).await?;
    match migration["outcome"].as_str() {
        None | Some("succeeded") => Ok(()),
        Some(outcome) => {
            let why = migration["cancelled"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
            Err(Failure::new(Exit::Refused, format!("the guest has not moved: the migration {outcome}{why}"))
                .hint(format!("see `musher migration show {}`", text(&migration, "id"))))
        }
    }
}

/// The sled that a name or UUID means.
async fn find_sled(client: &Client, named: &str) -> Result<Value, Failure> {
    let answer = client.get("/ops/v1/sleds", &[]).await?;
    let sleds = answer["items"].as_array().cloned().unwrap_or_default();
    let is_it = |sled: &&Value| text(sled, "name") == named || text(sled, "id") == named;
    let mut found: Vec<&Value> = sleds.iter().filter(is_it).collect();
    match (found.pop(), found.is_empty()) {
        (Some(sled), true) => Ok(sled.clone()),
        (Some(_), false) => {
            Err(Failure::new(Exit::Refused, format!("more than one sled is called \"{named}\""))
                .hint("name it by its UUID; musher sled list shows them"))
        }
        (None, _) => Err(Failure::new(Exit::Refused, format!("not found: sled \"{named}\""))
            .hint("musher sled list shows them")),
    }
}

/// Runs a verb of `sled`.
pub async fn sled(verb: SledOperateVerb) -> Outcome {
    match verb {
        SledOperateVerb::Show { sled, watch, client: args } => {
            let client = Client::new(&args.server)?;
            let id = text(&find_sled(&client, &sled).await?, "id");
            let path = format!("/ops/v1/sleds/{id}");
            watch::show(watch.watch, async || Ok(sled_shown(&client.get(&path, &[]).await?, &args))).await
        }
        SledOperateVerb::Explain { sled, watch, client: args } => {
            let client = Client::new(&args.server)?;
            let path = format!("/ops/v1/sleds/{}/explain", text(&find_sled(&client, &sled).await?, "id"));
            watch::show(watch.watch, async || {
                let told = client.get(&path, &[]).await?;
                Ok(output::document(args.output, &told).unwrap_or_else(|| explained::sled_text(&told)))
            })
            .await
        }
        SledOperateVerb::Cordon(one) => sled_verb(&one, "cordon").await,
        SledOperateVerb::Uncordon(one) => sled_verb(&one, "uncordon").await,
        SledOperateVerb::Drain { one, wait, timeout } => {
            let (client, after) = ask_sled(&one, "drain").await?;
            let shown =
                if wait { until_drained(&client, &text(&after, "id"), timeout).await? } else { after };
            output::line(sled_shown(&shown, &one.client));
            Ok(())
        }
        SledOperateVerb::Expunge { one, yes } => {
            let question = format!("declare {} and everything on it gone for good?", one.sled);
            confirm(&question, yes || one.how.dry_run)?;
            sled_verb(&one, "expunge").await
        }
    }
}

async fn sled_verb(one: &OneSled, verb: &str) -> Outcome {
    let (_, after) = ask_sled(one, verb).await?;
    output::line(sled_shown(&after, &one.client));
    Ok(())
}

/// Asks something of a sled; answers it afterwards.
async fn ask_sled(one: &OneSled, verb: &str) -> Result<(Client, Value), Failure> {
    // The reason of a sled's verb is part of its event, and so of its body.
    let how = HowArgs { dry_run: one.how.dry_run, reason: None };
    let client = Client::new(&one.client.server)?.meant(&how, one.client.output);
    let id = text(&find_sled(&client, &one.sled).await?, "id");
    let body = one.how.reason.as_ref().map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    let after = client.post(&format!("/ops/v1/sleds/{id}/{verb}"), &[], Some(body)).await?;
    Ok((client, after))
}

/// Waits until no guest is left; answers the sled then.
async fn until_drained(client: &Client, id: &str, timeout: Duration) -> Result<Value, Failure> {
    let until = Instant::now() + timeout;
    loop {
        let sled = client.get(&format!("/ops/v1/sleds/{id}"), &[]).await?;
        if sled["drain"].is_null() {
            return Ok(sled);
        }
        if Instant::now() >= until {
            let left = sled["drain"]["left"].as_u64().unwrap_or(0);
            let blocked = sled["drain"]["blocked"].as_array().and_then(|blocked| blocked.first().cloned());
            let failure = Failure::new(Exit::TimedOut, format!("{left} instance(s) are still on the sled"));
            return Err(match blocked {
                Some(blocked) => failure.hint(format!(
                    "instance {} cannot move: {}",
                    text(&blocked, "instance_id"),
                    text(&blocked, "reason")
                )),
                None => failure.hint("it goes on; musher sled show tells how far it is"),
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn sled_shown(sled: &Value, args: &ClientArgs) -> String {
    let load = |what: &Value| format!("{} threads, {}", what["threads"], memory(what));
    let drain = match &sled["drain"] {
        Value::Null => "no".to_owned(),
        drain => {
            let count = |key: &str| drain[key].as_array().map_or(0, Vec::len);
            let (moving, blocked) = (count("moving"), count("blocked"));
            let why =
                drain["blocked"][0]["reason"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
            format!("{} left, {moving} moving, {blocked} blocked{why}", drain["left"])
        }
    };
    let rows = [
        ("name", text(sled, "name")),
        ("id", text(sled, "id")),
        ("state", crate::fleet::sled_state(sled).to_owned()),
        ("has", load(&sled["room"])),
        ("held", load(&sled["held"])),
        ("cpu family", text(sled, "cpu_family")),
        ("last contact", text(sled, "last_contact")),
        ("unreachable", text(&sled["unreachable"], "reason")),
        ("circuit", circuit(&sled["circuit"])),
        ("draining", drain),
    ];
    output::one(args.output, sled, &rows)
}

/// Whether the sled is sent requests.
fn circuit(circuit: &Value) -> String {
    let Some(since) = circuit["open_since"].as_str() else {
        return "closed".to_owned();
    };
    let next = circuit["next_probe"].as_str().unwrap_or("now");
    format!(
        "open since {since}, after {} requests without an answer; next probe {next}",
        circuit["unanswered"]
    )
}

fn memory(of: &Value) -> String {
    gib(of["memory"].as_u64().unwrap_or(0))
}

/// Runs a verb of `quota`.
pub async fn quota(verb: QuotaVerb) -> Outcome {
    let (scope, args) = match &verb {
        QuotaVerb::Show { scope, client } | QuotaVerb::Set { scope, client, .. } => {
            (scope.clone(), client.clone())
        }
    };
    let mut client = Client::new(&args.server)?;
    let path = format!("/ops/v1/quotas/{}", encode(&scope));
    let project = [("project", args.project.as_str())];
    let query: &[(&str, &str)] = if scope == "project" { &project } else { &[] };
    let mut quota = client.get(&path, query).await?;
    if let QuotaVerb::Set { cpus, memory, how, .. } = verb {
        client = client.meant(&how, args.output);
        let limit = |given: Option<Limit>, key: &str| {
            given.map_or_else(|| quota[key].clone(), |Limit(limit)| json!(limit))
        };
        let body = json!({ "cpus": limit(cpus, "cpus"), "memory": limit(memory, "memory") });
        quota = client.put(&path, query, body).await?;
    }
    let cpus = quota["cpus"].as_u64().map_or_else(|| "none".to_owned(), |cpus| cpus.to_string());
    let bytes = quota["memory"].as_u64().map_or_else(|| "none".to_owned(), gib);
    let rows = [
        ("scope", text(&quota, "scope")),
        ("cpus", format!("{} of {cpus}", quota["used"]["cpus"])),
        ("memory", format!("{} of {bytes}", memory(&quota["used"]))),
    ];
    output::line(output::one(args.output, &quota, &rows));
    Ok(())
}

const GROUP_COLUMNS: &[Column] = &[
    Column::new("name", |it| text(it, "name")),
    Column::new("policy", |it| text(it, "policy")),
    Column::new("members", |it| it["members"].as_array().map_or(0, Vec::len).to_string()),
    Column::wide("description", |it| text(it, "description")),
    Column::wide("created", |it| text(it, "time_created")),
    Column::new("id", |it| text(it, "id")),
];

/// Runs a verb of `group`.
pub async fn group(verb: GroupVerb) -> Outcome {
    const PATH: &str = "/ops/v1/anti-affinity-groups";
    match verb {
        GroupVerb::List { client: args } => {
            let client = Client::new(&args.server)?;
            let answer = client.get(PATH, &[("project", &args.project)]).await?;
            list(&answer, &args, GROUP_COLUMNS);
        }
        GroupVerb::Create { name, policy, description, how, client: args } => {
            let client = Client::new(&args.server)?.meant(&how, args.output);
            let body = json!({ "name": name, "policy": policy, "description": description });
            let created = client.post(PATH, &[("project", &args.project)], Some(body)).await?;
            output::line(group_shown(&created, &args));
        }
        GroupVerb::Show { group, client: args } => {
            let client = Client::new(&args.server)?;
            let path = format!("{PATH}/{}", encode(&group));
            output::line(group_shown(&client.get(&path, &[("project", &args.project)]).await?, &args));
        }
        GroupVerb::Add { group, instance, how, client: args } => {
            let client = Client::new(&args.server)?.meant(&how, args.output);
            let path = format!("{PATH}/{}/members/{}", encode(&group), encode(&instance));
            client.post(&path, &[("project", &args.project)], None).await?;
            said(&args, format!("{instance} is in {group}"));
        }
        GroupVerb::Remove { group, instance, how, client: args } => {
            let client = Client::new(&args.server)?.meant(&how, args.output);
            let path = format!("{PATH}/{}/members/{}", encode(&group), encode(&instance));
            client.delete(&path, &[("project", &args.project)]).await?;
            said(&args, format!("{instance} is not in {group}"));
        }
        GroupVerb::Delete { group, yes, how, client: args } => {
            let client = Client::new(&args.server)?.meant(&how, args.output);
            confirm(&format!("delete group {group}?"), yes || how.dry_run)?;
            client.delete(&format!("{PATH}/{}", encode(&group)), &[("project", &args.project)]).await?;
            said(&args, format!("deleted {group}"));
        }
    }
    Ok(())
}

fn group_shown(group: &Value, args: &ClientArgs) -> String {
    let members = group["members"].as_array().map_or_else(Vec::new, |members| {
        members.iter().filter_map(|member| member.as_str().map(str::to_owned)).collect()
    });
    let rows = [
        ("name", text(group, "name")),
        ("id", text(group, "id")),
        ("policy", text(group, "policy")),
        ("description", text(group, "description")),
        ("members", members.join(" ")),
    ];
    output::one(args.output, group, &rows)
}

/// A line for people; machines go by the exit code.
pub fn said(args: &ClientArgs, what: String) {
    if matches!(args.output, Format::Table | Format::Wide) {
        output::line(what);
    }
}

fn list(answer: &Value, args: &ClientArgs, columns: &[Column]) {
    let items = answer["items"].as_array().cloned().unwrap_or_default();
    let text = output::list(args.output, !args.no_headers, &items, columns);
    if !text.is_empty() {
        output::line(text);
    }
}

const MIGRATION_COLUMNS: &[Column] = &[
    Column::new("id", |it| text(it, "id")),
    Column::new("instance", |it| text(it, "instance_id")),
    Column::new("source", |it| text(&it["source"], "state")),
    Column::new("target", |it| text(&it["target"], "state")),
    Column::wide("from sled", |it| text(&it["source"], "sled_id")),
    Column::wide("to sled", |it| text(&it["target"], "sled_id")),
    Column::new("started", |it| text(it, "time_started")),
    Column::new("took", took),
    Column::new("outcome", |it| it["outcome"].as_str().unwrap_or("under way").to_owned()),
];

/// How long it took; empty while it is under way.
pub fn took(it: &Value) -> String {
    it["took_s"].as_f64().map(|seconds| format!("{seconds:.3} s")).unwrap_or_default()
}

/// All pages of what begins and ends.
pub async fn rows(client: &Client, path: &str, under_way: bool) -> Result<Vec<Value>, Failure> {
    let state = if under_way { "under_way" } else { "all" };
    let (mut items, mut after) = (Vec::new(), String::new());
    loop {
        let mut query = vec![("state", state), ("limit", "1000")];
        if !after.is_empty() {
            query.push(("after", after.as_str()));
        }
        let answer = client.get(path, &query).await?;
        items.extend(answer["items"].as_array().cloned().unwrap_or_default());
        match answer["next_after"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    items.sort_by_key(|item| text(item, "time_started"));
    Ok(items)
}

/// Runs a verb of `migration`.
pub async fn migration(verb: MigrationVerb) -> Outcome {
    match verb {
        MigrationVerb::List(HistoryArgs { under_way, watch, client: args }) => {
            let client = Client::new(&args.server)?;
            watch::show(watch.watch, async || {
                let items = rows(&client, "/ops/v1/migrations", under_way).await?;
                Ok(output::list(args.output, !args.no_headers, &items, MIGRATION_COLUMNS))
            })
            .await
        }
        MigrationVerb::Show { id, client: args } => {
            let client = Client::new(&args.server)?;
            let one = client.get(&format!("/ops/v1/migrations/{}", encode(&id)), &[]).await?;
            let side = |side: &Value| {
                format!(
                    "{} on sled {} (VMM {})",
                    text(side, "state"),
                    text(side, "sled_id"),
                    text(side, "vmm_id")
                )
            };
            let rows = [
                ("id", text(&one, "id")),
                ("instance", text(&one, "instance_id")),
                ("source", side(&one["source"])),
                ("target", side(&one["target"])),
                ("started", text(&one, "time_started")),
                ("ended", text(&one, "time_ended")),
                ("took", took(&one)),
                ("cancelled", text(&one, "cancelled")),
                ("outcome", one["outcome"].as_str().unwrap_or("under way").to_owned()),
            ];
            output::line(output::one(args.output, &one, &rows));
            Ok(())
        }
    }
}

const TIMER_COLUMNS: &[Column] = &[
    Column::new("name", |it| text(it, "name")),
    Column::new("period", |it| format!("{} s", it["period_s"])),
    Column::new("runs", |it| it["runs"].to_string()),
    Column::new("found", |it| it["found"].to_string()),
    Column::new("last run", |it| text(it, "last_run")),
    Column::new("last found", |it| it["last_found"].to_string()),
    Column::new("trouble", trouble_of),
    Column::wide("does", |it| text(it, "does")),
];

/// Why a timer does nothing, or not all that it should.
fn trouble_of(timer: &Value) -> String {
    if timer["on"] == Value::Bool(false) { "off".to_owned() } else { text(timer, "last_trouble") }
}

/// Runs a verb of `timer`.
pub async fn timer(verb: TimerVerb) -> Outcome {
    match verb {
        TimerVerb::List { watch, client: args } => {
            let client = Client::new(&args.server)?;
            watch::show(watch.watch, async || {
                let answer = client.get("/ops/v1/timers", &[]).await?;
                let items = answer["items"].as_array().cloned().unwrap_or_default();
                Ok(output::list(args.output, !args.no_headers, &items, TIMER_COLUMNS))
            })
            .await
        }
        TimerVerb::Explain { name, watch, client: args } => {
            let client = Client::new(&args.server)?;
            let path = format!("/ops/v1/timers/{}", encode(&name));
            watch::show(watch.watch, async || {
                let told = client.get(&path, &[]).await?;
                Ok(output::document(args.output, &told).unwrap_or_else(|| explained::timer_text(&told)))
            })
            .await
        }
        TimerVerb::Activate { name, client: args } => {
            let client = Client::new(&args.server)?;
            client.post(&format!("/ops/v1/timers/{}/activate", encode(&name)), &[], None).await?;
            said(&args, format!("{name} runs"));
            Ok(())
        }
    }
}
