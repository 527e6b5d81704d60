//! A running daemon under requests that its own description makes up: some in order, most not quite, seeded.
//! Never a 500, never a status that is not described, always an error body where there is an error.
//!
//! 1,000 requests by default; `MUSHER_FUZZ_REQUESTS` and `MUSHER_FUZZ_SEED` ask for others.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, scratch};
use reqwest::{Method, RequestBuilder};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const REQUESTS: u64 = 1_000;
const SEED: u64 = 1;

/// Requests under way at a time: some of them wait for sleds.
const WORKERS: u64 = 6;

/// Ids kept for later requests.
const KNOWN_MAX: usize = 64;

/// `SplitMix64`.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// One method of one path, as described.
struct Operation {
    method: String,
    path: String,
    described: Value,
}

fn operations() -> (Vec<Operation>, Value) {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, described) in methods.as_object().unwrap() {
            found.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                described: described.clone(),
            });
        }
    }
    (found, document)
}

/// Texts that have broken parsers before.
const ODD: &[&str] = &[
    "",
    " ",
    "0",
    "-1",
    "null",
    "true",
    "a",
    "web-1",
    "Größe",
    "💥",
    "%",
    "..",
    "../..",
    "a/b",
    "a\u{0}b",
    "'; --",
    "{}",
    "99999999999999999999",
    "1e9",
    "#1",
    "@1",
    "now",
    "-30s",
    "2026-01-01T00:00:00Z",
    "id_ascending",
    "under_way",
    "00000000-0000-0000-0000-000000000000",
    "a0b1c2d3-0000-4000-8000-000000000001",
];

const NUMBERS: &[i64] = &[0, 1, 2, -1, 254, 255, 1 << 30, 1 << 31, 1 << 40, i64::MAX, i64::MIN];

/// What earlier answers named.
#[derive(Default)]
struct Known(BTreeMap<&'static str, BTreeSet<String>>);

impl Known {
    fn learn(&mut self, path: &str, body: &Value) {
        let kind = match path {
            path if path.starts_with("/v1/projects") => "project",
            "/v1/instances" => "instance",
            "/ops/v1/sagas" => "saga",
            "/ops/v1/migrations" => "migration",
            "/ops/v1/sleds" => "sled",
            "/ops/v1/anti-affinity-groups" => "group",
            _ => return,
        };
        let items = body["items"].as_array().cloned().unwrap_or_else(|| vec![body.clone()]);
        let known = self.0.entry(kind).or_default();
        for id in items.iter().filter_map(|item| item["id"].as_str()) {
            if known.len() < KNOWN_MAX {
                known.insert(id.to_owned());
            }
        }
    }

    fn any(&self, kind: &str, draws: &mut Draws) -> Option<String> {
        let known: Vec<&String> = self.0.get(kind)?.iter().collect();
        (!known.is_empty()).then(|| (*draws.pick(&known)).clone())
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// A value of a schema, or not quite.
fn value(schema: &Value, document: &Value, draws: &mut Draws, known: &Known, name: &str) -> Value {
    if draws.one_in(12) {
        let other = [json!(null), json!(7), json!(-1.5), json!("x"), json!([]), json!({}), json!(true)];
        return draws.pick(&other).clone();
    }
    if let Some(link) = schema["$ref"].as_str() {
        let target = document.pointer(link.trim_start_matches('#')).unwrap();
        return value(target, document, draws, known, name);
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => draws.pick(kinds).clone(),
        kind => kind.clone(),
    };
    match (kind.as_str(), name) {
        (Some("object"), _) => {
            let mut object = Map::new();
            for (key, property) in schema["properties"].as_object().into_iter().flatten() {
                if !draws.one_in(10) {
                    object.insert(key.clone(), value(property, document, draws, known, key));
                }
            }
            Value::Object(object)
        }
        (Some("integer" | "number"), "ncpus") => json!(*draws.pick(&[1, 2, 2, 2, 254, 255])),
        (Some("integer" | "number"), "memory") => {
            json!(*draws.pick(&[1_u64 << 30, 1 << 30, 2 << 30, (1 << 30) + 1, 0]))
        }
        (Some("integer" | "number"), _) => json!(*draws.pick(NUMBERS)),
        (Some("boolean"), _) => json!(draws.one_in(2)),
        (Some("string"), "name") if !draws.one_in(4) => json!(format!("n{}", draws.below(200))),
        (Some("string"), "hostname") if !draws.one_in(6) => json!("host"),
        (Some("string"), "dst_sled") => json!(known.any("sled", draws).unwrap_or_default()),
        (Some("string"), "policy") => json!(*draws.pick(&["allow", "fail", "else"])),
        (Some("string"), "state") => json!(*draws.pick(&["provisionable", "non_provisionable", "else"])),
        (Some("string"), "auto_restart_policy") => json!(*draws.pick(&["never", "best_effort", "else"])),
        // Never a path that could be written to.
        (Some("string"), "to") => json!(*draws.pick(&["", "relative", "/proc/nowhere", "\u{0}"])),
        (Some("string"), _) => json!(*draws.pick(ODD)),
        _ => Value::Null,
    }
}

/// A path with its parameters filled in; mostly with what is there.
fn target(operation: &Operation, draws: &mut Draws, known: &Known) -> String {
    let parts = operation.path.split('/').map(|part| {
        let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
            return part.to_owned();
        };
        // A fleet without sleds answers everything the same way.
        let is_for_good = operation.path.ends_with("/expunge");
        let there = if is_for_good || draws.one_in(4) { None } else { known.any(name, draws) };
        let fixed = match name {
            "scope" => Some((*draws.pick(&["fleet", "silo", "project"])).to_owned()),
            "timer" => Some((*draws.pick(&["sled-watch", "vmm-reaper", "passivation", "x"])).to_owned()),
            _ => None,
        };
        encode(&fixed.or(there).unwrap_or_else(|| (*draws.pick(&ODD[5..])).to_owned()))
    });
    parts.collect::<Vec<_>>().join("/")
}

fn query(operation: &Operation, draws: &mut Draws, known: &Known) -> Vec<(String, String)> {
    let mut query = Vec::new();
    for parameter in operation.described["parameters"].as_array().unwrap() {
        let name = parameter["name"].as_str().unwrap();
        if parameter["in"] != "query" || (name != "project" && draws.one_in(2)) {
            continue;
        }
        let value = match name {
            // A feed that goes on would never end.
            "follow" => continue,
            "project" if operation.path.contains("{instance}") && !draws.one_in(4) => continue,
            "project" => known.any("project", draws).unwrap_or_default(),
            "dry_run" if draws.one_in(2) => continue,
            "dry_run" => (*draws.pick(&["true", "true", "false", "maybe"])).to_owned(),
            "limit" | "after" | "from" if !draws.one_in(3) => draws.below(50).to_string(),
            _ => (*draws.pick(ODD)).to_owned(),
        };
        query.push((name.to_owned(), value));
    }
    if operation.path.ends_with("/events") {
        query.push(("follow".to_owned(), "false".to_owned()));
    }
    query
}

/// One request, and how it was made, for a failure's message.
fn request(
    daemon: &Daemon,
    operation: &Operation,
    document: &Value,
    draws: &mut Draws,
    known: &Known,
) -> (RequestBuilder, String) {
    let path = target(operation, draws, known);
    let query = query(operation, draws, known);
    let method = if draws.one_in(40) { "PATCH" } else { operation.method.as_str() };
    let mut about = format!("{method} {path} {query:?}");
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = daemon.http.request(method, format!("{}{path}", daemon.url)).query(&query);
    let schema = &operation.described["requestBody"]["content"]["application/json"]["schema"];
    if !schema.is_null() && !draws.one_in(15) {
        let body = value(schema, document, draws, known, "");
        about = format!("{about} {body}");
        let text = if draws.one_in(25) { body.to_string() + "}" } else { body.to_string() };
        request = request.body(text).header("content-type", "application/json");
    }
    if draws.one_in(10) {
        let key = format!("k{}", draws.below(20));
        about = format!("{about} key {key}");
        request = request.header("idempotency-key", key);
    }
    if draws.one_in(20) {
        request = request.header("x-min-position", *draws.pick(&["0", "1", "x", "-1"]));
    }
    if draws.one_in(20) {
        request = request.header("x-request-id", *draws.pick(&["x", "a0b1c2d3-0000-4000-8000-000000000001"]));
    }
    (request, about)
}

/// What must hold of an answer, or what does not.
fn judge(operation: &Operation, status: u16, body: &Value) -> Result<(), String> {
    if status == 500 {
        return Err("it is a 500".to_owned());
    }
    let responses = operation.described["responses"].as_object().unwrap();
    let range = format!("{}XX", status / 100);
    if !responses.contains_key(&status.to_string()) && !responses.contains_key(&range) {
        return Err("the status is not described".to_owned());
    }
    let is_told = body["message"].as_str().is_some_and(|message| !message.is_empty());
    if status >= 400 && !(is_told && body["request_id"].is_string()) {
        return Err("the error has no message or no request id".to_owned());
    }
    Ok(())
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_that_the_description_allows_or_nearly_allows_is_answered_otherwise_than_described() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let (operations, document) = operations();
    let (requests, seed) = (setting("MUSHER_FUZZ_REQUESTS", REQUESTS), setting("MUSHER_FUZZ_SEED", SEED));
    let work = async |worker: u64| {
        let mut draws = Draws(seed.wrapping_mul(1_000).wrapping_add(worker));
        let (mut known, mut counts) = (Known::default(), BTreeMap::<u16, u64>::new());
        let mut wrong = Vec::new();
        for _ in 0..=(requests / WORKERS) {
            let operation = draws.pick(&operations);
            let (request, about) = request(&daemon, operation, &document, &mut draws, &known);
            let answer = match request.timeout(Duration::from_mins(1)).send().await {
                Ok(answer) => answer,
                // What cannot be written as a request was never sent.
                Err(error) if error.is_builder() => continue,
                Err(error) => {
                    wrong.push(format!("{about}: no answer: {error}"));
                    continue;
                }
            };
            let (status, body) = daemon::answer(answer).await;
            *counts.entry(status).or_default() += 1;
            if let Err(why) = judge(operation, status, &body) {
                wrong.push(format!("{about}: {status} {body}: {why}"));
            } else if status < 300 {
                known.learn(&operation.path, &body);
            }
        }
        (counts, wrong)
    };
    let done = futures_of(WORKERS, work).await;
    let (mut counts, mut wrong) = (BTreeMap::<u16, u64>::new(), Vec::new());
    for (of_one, found) in done {
        for (status, count) in of_one {
            *counts.entry(status).or_default() += count;
        }
        wrong.extend(found);
    }
    println!("{} requests, seed {seed}: {counts:?}", counts.values().sum::<u64>());
    assert!(wrong.is_empty(), "seed {seed}, {} wrong:\n{}", wrong.len(), wrong.join("\n"));
    for expected in [200, 201, 202, 400, 404, 405] {
        assert!(counts.contains_key(&expected), "nothing was {expected}: {counts:?}");
    }
    assert_eq!(daemon.signal("-TERM"), 0, "it has survived");
    let verified = daemon::musher().args(["replay", "--verify", "--data"]).arg(&data).output().unwrap();
    assert_eq!(verified.status.code(), Some(0), "{}", daemon::stderr(&verified));
}

/// All of them at once, on this task.
async fn futures_of<T, F: Future<Output = T>>(count: u64, work: impl Fn(u64) -> F) -> Vec<T> {
    let mut running: Vec<_> = (0..count).map(|nth| Box::pin(work(nth))).collect();
    let mut done: Vec<Option<T>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in running.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
