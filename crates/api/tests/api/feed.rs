//! `/ops/v1/events`.

use crate::stack::Stack;
use api::{ApiConfig, Phase};
use axum::body::{Body, BodyDataStream};
use axum::http::{Method, Request};
use futures::StreamExt;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_mins(1);

/// A client of the feed.
struct Feed {
    body: BodyDataStream,
    text: String,
}

/// One block of the stream: its id, its data, its comments.
#[derive(Debug, Default, PartialEq)]
struct Block {
    id: Option<u64>,
    data: Option<Value>,
    comment: String,
}

impl Feed {
    async fn open(stack: &Stack, query: &str, last_event_id: Option<u64>) -> Self {
        let mut request = Request::builder().uri(format!("/ops/v1/events?{query}"));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id.to_string());
        }
        let response = stack.raw(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut feed = Self { body: response.into_body().into_data_stream(), text: String::new() };
        let hello = feed.block().await.unwrap();
        assert!(hello.comment.starts_with("events after "), "{hello:?}");
        feed
    }

    /// The next block; none at the end.
    async fn block(&mut self) -> Option<Block> {
        while !self.text.contains("\n\n") {
            let piece = timeout(PATIENCE, self.body.next()).await.expect("a heartbeat comes before that")?;
            self.text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
        let (lines, rest) = self.text.split_once("\n\n").unwrap();
        let mut block = Block::default();
        for line in lines.lines() {
            match line.split_once(": ").unwrap() {
                ("id", id) => block.id = Some(id.parse().unwrap()),
                ("data", data) => block.data = Some(serde_json::from_str(data).unwrap()),
                ("", comment) => comment.clone_into(&mut block.comment),
                ("retry", _) => {}
                other => panic!("{other:?}"),
            }
        }
        self.text = rest.to_string();
        Some(block)
    }

    /// The next event.
    async fn event(&mut self) -> Value {
        loop {
            let block = self.block().await.expect("the feed goes on");
            if let Some(data) = block.data {
                assert_eq!(block.id, data["position"].as_u64());
                return data;
            }
        }
    }

    /// All events up to the end.
    async fn rest(mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(block) = self.block().await {
            events.extend(block.data);
        }
        events
    }
}

async fn lived(stack: &Stack) -> String {
    stack.project("demo").await;
    let id = stack.create("demo", "web", true).await.text("id");
    stack.until_run_state(&id, "running").await;
    assert_eq!(stack.call(Method::POST, &format!("/v1/instances/{id}/stop"), "").await.status, 202);
    stack.until_run_state(&id, "stopped").await;
    id
}

fn positions(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["position"].as_u64().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_feed_is_the_log_and_says_who_and_why() {
    let stack = Stack::start(1).await;
    let id = lived(&stack).await;
    let all = Feed::open(&stack, "after=0&follow=false", None).await.rest().await;
    assert_eq!(positions(&all), (1..=stack.durable()).collect::<Vec<_>>());
    let created = all.iter().find(|event| event["stream"] == format!("instance/{id}")).unwrap();
    assert_eq!(
        (&created["event"], &created["actor"], &created["version"], &created["append"]),
        (&json!("Created"), &json!("user operator"), &json!(1), &json!(1))
    );
    assert_eq!(created["data"]["spec"]["name"], "web");
    let begun = all.iter().find(|event| event["event"] == "StartBegan").unwrap();
    assert_eq!(begun["request_id"], created["request_id"], "what was decided together has one request");
    assert_eq!((&begun["append"], &begun["cause"]), (&json!(1), &created["position"]));
    // In the middle of an append it is the same.
    let query = format!("after={}&follow=false", created["position"]);
    assert_eq!(Feed::open(&stack, &query, None).await.rest().await[0], *begun);
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_misses_nothing_and_sees_nothing_twice() {
    let stack = Stack::start(1).await;
    lived(&stack).await;
    let all = Feed::open(&stack, "after=0&follow=false", None).await.rest().await;
    for seen in 0..=stack.durable() {
        // The address is what the client asked first; the id is where it is.
        let rest = Feed::open(&stack, "after=0&follow=false", Some(seen)).await.rest().await;
        assert_eq!(rest[..], all[usize::try_from(seen).unwrap()..], "after {seen}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_is_sent_when_it_is_durable() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let mut feed = Feed::open(&stack, "", None).await;
    let before = stack.durable();
    let id = stack.create("demo", "web", true).await.text("id");
    let event = feed.event().await;
    assert_eq!(event["position"], before + 1, "from now on");
    assert_eq!((&event["event"], &event["stream"]), (&json!("Created"), &json!(format!("instance/{id}"))));
    while feed.event().await["event"] != "SagaEnded" {}
}

#[tokio::test(start_paused = true)]
async fn events_are_picked_by_instance_and_kind() {
    let stack = Stack::start(1).await;
    let id = lived(&stack).await;
    stack.stopped("demo", "db").await;
    let own = Feed::open(&stack, &format!("after=0&follow=false&instance={id}"), None).await.rest().await;
    assert!(own.iter().all(|event| event["stream"] == format!("instance/{id}")));
    let by_name = "after=0&follow=false&instance=web&project=demo";
    assert_eq!(Feed::open(&stack, by_name, None).await.rest().await, own);
    let kinds = "after=0&follow=false&kind=Created,StopRequested";
    let picked = Feed::open(&stack, kinds, None).await.rest().await;
    let names: Vec<_> = picked.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["Created", "Created", "StopRequested", "Created"], "projects are created too");
    let both = format!("after=0&follow=false&instance={id}&kind=StopRequested");
    assert_eq!(Feed::open(&stack, &both, None).await.rest().await.len(), 1);
    for (query, code, message) in [
        ("kind=Nonsense", 400, "query parameter \"kind\": there is no event \"Nonsense\"; there are "),
        ("after=x", 400, "query parameter \"after\": "),
        ("after=999999", 400, "the log ends at position "),
        ("follow=maybe", 400, "query parameter \"follow\" must be "),
        ("instance=web", 400, "instance should either be UUID or project should be specified"),
        ("instance=a0b1c2d3-0000-4000-8000-000000000001", 404, "not found: instance with id "),
    ] {
        let answer = stack.get(&format!("/ops/v1/events?{query}")).await;
        assert_eq!(answer.status.as_u16(), code, "{query}");
        assert!(answer.refusal().2.starts_with(message), "{query}: {}", answer.refusal().2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_feed_says_that_it_is_there_and_how_far_it_has_looked() {
    let stack = Stack::start(1).await;
    let mut feed = Feed::open(&stack, "after=0&kind=Deleted", None).await;
    lived(&stack).await;
    let mut looked = 0;
    while looked < stack.durable() {
        let block = feed.block().await.unwrap();
        assert_eq!((block.comment.as_str(), &block.data), ("heartbeat", &None));
        looked = block.id.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn feeds_are_bounded_in_number_and_end_with_the_daemon() {
    let config = ApiConfig { feeds_max: 2, ..ApiConfig::default() };
    let stack = Stack::start_with(1, sim_sled::machine::Mode::Auto, config).await;
    let mut first = Feed::open(&stack, "", None).await;
    let second = Feed::open(&stack, "", None).await;
    let refused = stack.get("/ops/v1/events").await;
    assert_eq!(refused.refusal().0, 503, "{}", refused.body);
    drop(second);
    let mut third = Feed::open(&stack, "", None).await;
    stack.ready.enter(Phase::ShuttingDown);
    assert_eq!(first.block().await, None);
    assert_eq!(third.block().await, None);
}
