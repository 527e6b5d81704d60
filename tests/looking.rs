//! Looking at a real daemon: the feed, traces, ids, shapes of output, settings, and requests with a key.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, instance_body, musher, scratch, stderr, stdout};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Output, Stdio};
use std::time::Duration;

fn ok(output: Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn events_traces_and_ids_lead_from_one_to_the_other() {
    let (dir, data) = scratch();
    let daemon = Daemon::start(&data);
    ok(daemon.cli(&["instance", "create", "web-1", "--wait"]));
    let all = lines(&ok(daemon.cli(&["events", "-o", "jsonl"])));
    let positions: Vec<u64> = all.iter().map(|event| event["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, (1..=all.len() as u64).collect::<Vec<_>>(), "without gap, from the first");
    let own = lines(&ok(daemon.cli(&["events", "--instance", "web-1", "-o", "jsonl"])));
    assert_eq!((&own[0]["event"], own.len()), (&Value::from("Created"), 7));
    let begun = ok(daemon.cli(&["events", "--kind", "StartBegan", "--after", "1", "-o", "jsonl"]));
    let [begun] = &lines(&begun)[..] else { panic!("{begun}") };
    assert_eq!(ok(daemon.cli(&["events", "--after", &positions.len().to_string()])), "");

    let request = begun["request_id"].as_str().unwrap();
    let text = ok(daemon.cli(&["trace", request]));
    assert!(text.starts_with(&format!("request {request} by user operator in instance/")), "{text}");
    assert!(text.contains("SagaEnded #7: saga reached its goal"), "{text}");
    let json: Value = serde_json::from_str(&ok(daemon.cli(&["trace", request, "-o", "json"]))).unwrap();
    assert_eq!(json["is_under_way"], false);
    let file = dir.path().join("trace.json");
    let export = ["trace", request, "--otlp", file.to_str().unwrap()];
    assert_eq!(ok(daemon.cli(&export)), "");
    let spans: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(spans["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().len(), 8);
    assert_eq!(daemon.cli(&export).status.code(), Some(1), "never over a file");

    let vmm = begun["data"]["vmm"].as_str().unwrap();
    let id = begun["stream"].as_str().unwrap().strip_prefix("instance/").unwrap();
    for (asked, says) in [
        (vmm, format!("{vmm} is a VMM: first mentioned by StartBegan")),
        (&vmm[..8], format!("{vmm} is a VMM: first mentioned by StartBegan")),
        (request, format!("{request} is a request: first mentioned by Created")),
        (id, format!("{id} is an instance: web-1, running")),
    ] {
        let said = ok(daemon.cli(&["whatis", asked]));
        assert!(said.starts_with(&says), "{asked}: {said}");
    }
    let unknown = "a0b1c2d3-0000-4000-8000-000000000001";
    for (code, args) in
        [(1, ["whatis", unknown]), (2, ["whatis", "web-1"]), (1, ["trace", unknown]), (2, ["trace", "web-1"])]
    {
        assert_eq!(daemon.cli(&args).status.code(), Some(code), "{args:?}");
    }
}

#[tokio::test]
async fn an_open_feed_shows_what_comes_and_does_not_hold_up_the_end() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let mut follow = musher();
    follow.args(["events", "-f", "--kind", "Created", "-o", "jsonl"]).env("MUSHER_SERVER", &daemon.url);
    let mut follow = follow.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut events = BufReader::new(follow.stdout.take().unwrap()).lines();
    let metrics = format!("{}/metrics", daemon.url);
    let open = async || {
        let text = daemon.http.get(&metrics).send().await.unwrap().text().await.unwrap();
        text.lines().any(|line| line == "musher_event_feeds_open 1")
    };
    for _ in 0..1_000 {
        if open().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    daemon.create("web-1", false).await;
    let event: Value = serde_json::from_str(&events.next().unwrap().unwrap()).unwrap();
    assert_eq!(event["data"]["spec"]["name"], "web-1", "from now on");
    assert_eq!(daemon.signal("-TERM"), 0);
    follow.kill().unwrap();
    follow.wait().unwrap();
}

/// Answers one request with these blocks, and says what was asked.
fn answer_once(listener: &TcpListener, blocks: &str) -> (TcpStream, String) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut asked = String::new();
    BufReader::new(stream.try_clone().unwrap()).read_line(&mut asked).unwrap();
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{blocks}")
        .unwrap();
    (stream, asked)
}

#[test]
fn a_feed_that_breaks_off_goes_on_behind_what_was_seen() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut follow = musher();
    follow.args(["events", "-f", "-o", "jsonl", "--server", &url]);
    let mut follow = follow.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut events = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut next =
        || serde_json::from_str::<Value>(&events.next().unwrap().unwrap()).unwrap()["position"].as_u64();
    let (first, asked) =
        answer_once(&listener, ": events after 4\n\nid: 5\ndata: {\"position\":5}\n\nid: 9\n\n");
    assert!(!asked.contains("after="), "from now on: {asked}");
    assert_eq!(next(), Some(5));
    drop(first);
    let (second, asked) = answer_once(&listener, "id: 10\ndata: {\"position\":10}\n\n");
    assert!(asked.contains("after=9"), "{asked}");
    assert_eq!(next(), Some(10));
    follow.kill().unwrap();
    follow.wait().unwrap();
    drop(second);
}

#[tokio::test]
async fn a_request_with_a_key_is_done_once_also_over_a_crash() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let create = async |daemon: &Daemon, name: &str| {
        let request = daemon.http.post(format!("{}/v1/instances?project=demo", daemon.url));
        let request = request.header("idempotency-key", "k-1").json(&instance_body(name, false));
        daemon::answer(request.send().await.unwrap()).await
    };
    let first = create(&daemon, "web-1").await;
    assert_eq!(first.0, 201, "{}", first.1);
    assert_eq!(create(&daemon, "web-1").await, first);
    daemon.kill();
    let daemon = Daemon::start(&data);
    assert_eq!(create(&daemon, "web-1").await, first);
    let other = create(&daemon, "web-2").await;
    assert_eq!((other.0, &other.1["error_code"]), (400, &Value::from("InvalidRequest")), "{}", other.1);
    let (_, listed) = daemon.get("/v1/instances?project=demo").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
}

#[test]
fn output_has_the_shape_and_the_colour_that_are_asked_for() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    for name in ["db", "web"] {
        ok(daemon.cli(&["instance", "create", name, "--no-start"]));
    }
    let list = |shape: &str| ok(daemon.cli(&["instance", "list", "-o", shape]));
    assert_eq!(list("name"), "db\nweb\n");
    assert!(list("wide").starts_with("NAME  STATE    CPUS  MEMORY  SINCE"), "{}", list("wide"));
    let json: Value = serde_json::from_str(&list("json")).unwrap();
    assert_eq!(json.as_array().unwrap().clone(), lines(&list("jsonl")));
    assert!(list("yaml").starts_with("-\n  auto_restart_enabled: true\n"), "{}", list("yaml"));
    assert!(ok(daemon.cli(&["instance", "show", "web", "-o", "yaml"])).contains("\nname: \"web\"\n"));
    assert_eq!(ok(daemon.cli(&["sled", "list", "-o", "name"])).lines().count(), 4);
    let sleds = |color: &str| ok(daemon.cli(&["sled", "list", "--color", color]));
    assert!(sleds("always").contains("\x1b[32min service\x1b[0m"), "{}", sleds("always"));
    assert!(!sleds("auto").contains('\x1b') && !sleds("never").contains('\x1b'), "a pipe is no terminal");
}

#[test]
fn a_watched_list_is_shown_again_when_it_has_changed() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let mut watch = musher();
    watch.args(["project", "list", "-w", "-o", "name"]).env("MUSHER_SERVER", &daemon.url);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(shown.next().as_deref(), Some("demo"));
    ok(daemon.cli(&["project", "create", "other"]));
    assert_eq!(shown.by_ref().take(2).collect::<Vec<_>>(), ["demo", "other"]);
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn settings_say_where_they_come_from() {
    let (dir, _) = scratch();
    let file = dir.path().join("musher.toml");
    std::fs::write(&file, "[log]\ncompact_every_s = 60\n").unwrap();
    let file = file.to_str().unwrap();
    let run = |args: &[&str]| musher().args(args).env("MUSHER_SLEDS__CALLS_MAX", "7").output().unwrap();
    let shown = lines(&ok(run(&["config", "show", "--origin", "-o", "jsonl", "--config", file])));
    let of = |key: &str| shown.iter().find(|setting| setting["name"] == key).unwrap();
    assert_eq!(
        (&of("log.compact_every_s")["value"], &of("log.compact_every_s")["origin"]),
        (&60.into(), &file.into())
    );
    assert_eq!(
        (&of("sleds.calls_max")["value"], &of("sleds.calls_max")["origin"]),
        (&7.into(), &"MUSHER_SLEDS__CALLS_MAX".into())
    );
    assert_eq!(of("sleds.call.ensure_s")["origin"], "default");
    assert_eq!(ok(run(&["config", "check", "--config", file])), "the configuration is valid\n");
    std::fs::write(file, "[log]\ncompact_evry_s = 60\n").unwrap();
    let refused = run(&["config", "check", "--config", file]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("compact_evry_s"), "{}", stderr(&refused));
}

#[test]
fn a_server_that_is_named_wins_over_the_one_of_other_clients() {
    let (_dir, data) = scratch();
    let daemon = Daemon::start(&data);
    let nowhere = "http://127.0.0.1:1";
    for (code, ours, theirs) in [
        (0, None, daemon.url.as_str()),
        (0, Some(daemon.url.as_str()), nowhere),
        (4, Some(nowhere), daemon.url.as_str()),
    ] {
        let mut ping = musher();
        ping.arg("ping").env("OXIDE_HOST", theirs);
        if let Some(ours) = ours {
            ping.args(["--server", ours]);
        }
        let output = ping.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{ours:?} {theirs}: {}", stderr(&output));
    }
}

#[test]
fn the_interface_and_the_command_line_describe_themselves() {
    let run = |args: &[&str]| musher().args(args).output().unwrap();
    assert!(ok(run(&["openapi"])) == include_str!("../docs/openapi.json"), "they differ");
    for (shell, part) in [("bash", "_musher()"), ("zsh", "#compdef musher"), ("fish", "complete -c musher")] {
        assert!(ok(run(&["completions", shell])).contains(part), "{shell}");
    }
    for command in
        [vec!["events"], vec!["trace"], vec!["whatis"], vec!["completions"], vec!["instance", "stop"]]
    {
        let help = ok(run(&[command.as_slice(), &["--help"]].concat()));
        assert!(help.contains("Example"), "{command:?}: {help}");
    }
}
