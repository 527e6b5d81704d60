//! Every command that `docs/api.md` shows is sent to a daemon, and answered as it says; every metric that the
//! dashboard and the alert rules name is there.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, scratch};
use reqwest::Method;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// What `curl` would send.
#[derive(Debug, Default)]
struct Request {
    method: Option<Method>,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
}

/// The words of a command line: quotes hold together what they enclose.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '&' | ';' | '|') => panic!("a shell does not take this as it is: {line}"),
            (None, ' ') => words.push(std::mem::take(&mut word)),
            (_, c) => word.push(c),
        }
    }
    words.push(word);
    assert_eq!(quote, None, "a quote is not closed: {line}");
    words.into_iter().filter(|word| !word.is_empty()).collect()
}

fn request(line: &str) -> Request {
    let mut request = Request::default();
    let mut words = words(line).into_iter();
    assert_eq!(words.next().as_deref(), Some("curl"), "{line}");
    while let Some(word) = words.next() {
        match word.as_str() {
            "-X" => request.method = words.next().map(|method| method.parse().unwrap()),
            "-H" => {
                let header = words.next().unwrap();
                let (name, value) = header.split_once(": ").unwrap();
                request.headers.push((name.to_owned(), value.to_owned()));
            }
            "-d" => request.body = words.next(),
            "-N" => {}
            url => url
                .strip_prefix("$M")
                .unwrap_or_else(|| panic!("{url} in {line}"))
                .clone_into(&mut request.path),
        }
    }
    request
}

async fn send(daemon: &Daemon, request: &Request) -> (u16, String) {
    let method =
        request.method.clone().unwrap_or(if request.body.is_some() { Method::POST } else { Method::GET });
    let mut sent = daemon.http.request(method, format!("{}{}", daemon.url, request.path));
    for (name, value) in &request.headers {
        sent = sent.header(name, value);
    }
    if let Some(body) = &request.body {
        sent = sent.body(body.clone());
    }
    let answer = sent.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Whether the answer has what is shown; of a value that is shown as `...`, that it is there.
fn has(body: &str, shown: &str) -> bool {
    let Ok(Value::Object(shown)) = serde_json::from_str(shown) else {
        return body.contains(shown);
    };
    let Ok(body) = serde_json::from_str::<Value>(body) else {
        return false;
    };
    shown.iter().all(|(key, value)| if value == "..." { !body[key].is_null() } else { body[key] == *value })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_page_for_clients_is_answered_as_shown() {
    let page = include_str!("../docs/api.md");
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let blocks = page.split("```console\n").skip(1).map(|block| block.split("```").next().unwrap());
    let lines: Vec<&str> = blocks.flat_map(str::lines).filter(|line| !line.starts_with("$ M=")).collect();
    assert!(lines.len() > 30 && lines.len().is_multiple_of(2), "commands and answers: {}", lines.len());
    for pair in lines.as_chunks::<2>().0 {
        let [command, answer] = pair;
        let command = command.strip_prefix("$ ").unwrap_or_else(|| panic!("no command: {command}"));
        let (status, shown) = answer.split_once(' ').unwrap();
        let status: u16 = status.parse().unwrap();
        let request = request(command);
        let is_look = request.method.is_none() && request.body.is_none();
        // Looking again is what the page says: what was asked for takes its time.
        for attempt in 0.. {
            let (got, body) = send(&daemon, &request).await;
            if got == status && has(&body, shown) {
                break;
            }
            assert!(is_look && attempt < 3_000, "{command}\nshown  {answer}\nanswer {got} {body}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("musher_")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_dashboard_and_the_alert_rules_look_at_is_there() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    assert_eq!(daemon.get("/v1/ping").await.0, 200, "requests are counted once there was one");
    let page = daemon.http.get(format!("{}/metrics", daemon.url)).send().await.unwrap().text().await.unwrap();
    let there = metrics(&page);
    for (file, text) in [
        ("config/alerts.yml", include_str!("../config/alerts.yml")),
        ("config/grafana-dashboard.json", include_str!("../config/grafana-dashboard.json")),
        ("docs/external-api.md", include_str!("../docs/external-api.md")),
    ] {
        let named = metrics(text);
        assert!(named.len() > 5, "{file}: {named:?}");
        let missing: Vec<_> = named.iter().filter(|name| !there.contains(*name)).collect();
        assert!(missing.is_empty(), "{file} names what is not there: {missing:?}");
    }
    serde_json::from_str::<Value>(include_str!("../config/grafana-dashboard.json")).unwrap();
}
