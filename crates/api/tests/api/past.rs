//! What differs between two moments of an instance, and the fleet of any moment, page by page.

use crate::refusals::{NO_ID, bad, check, missing};
use crate::stack::Stack;
use axum::http::Method;
use serde_json::{Value, json};

#[tokio::test(start_paused = true)]
async fn two_moments_of_an_instance_are_compared_also_after_its_end() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let id = stack.running("demo", "web").await;
    let path = format!("/ops/v1/instances/{id}/diff");
    let whole = stack.get(&path).await;
    assert_eq!(whole.status, 200, "{}", whole.body);
    assert_eq!(
        (&whole.body["from"]["version"], &whole.body["to"]["run_state"]),
        (&json!(1), &json!("running"))
    );
    let changes = whole.body["changes"].as_array().unwrap();
    let of = |field: &str| changes.iter().find(|change| change["field"] == field).unwrap();
    assert_eq!(
        (&of("run_state")["before"], &of("run_state")["after"]),
        (&json!("stopped"), &json!("running"))
    );
    let same = stack.get(&format!("{path}?from=%232&to=%232")).await;
    assert_eq!(same.body["changes"], json!([]), "{}", same.body);
    let back = stack.get(&format!("{path}?from=now&to=%231")).await;
    assert_eq!(back.body["changes"].as_array().unwrap().len(), changes.len());

    assert_eq!(stack.call(Method::POST, &format!("/v1/instances/{id}/stop"), "").await.status, 202);
    stack.until_run_state(&id, "stopped").await;
    assert_eq!(stack.call(Method::DELETE, &format!("/v1/instances/{id}"), "").await.status, 204);
    let deleted = stack.get(&format!("{path}?from=-1d")).await;
    assert_eq!(deleted.refusal().0, 400, "it was not there a day ago: {}", deleted.body);
    assert_eq!(stack.get(&path).await.body["to"]["run_state"], "destroyed");
    let none = String::new;
    let unknown = format!("/ops/v1/instances/{NO_ID}/diff");
    check(
        &stack,
        vec![missing(Method::GET, &unknown, none(), format!("not found: instance with id \"{NO_ID}\""))],
    )
    .await;
    assert_eq!(stack.get(&format!("{path}?from=soon")).await.refusal().0, 400);
}

#[tokio::test(start_paused = true)]
async fn the_fleet_of_any_moment_is_shown_in_pages_of_one_position() {
    let stack = Stack::start(2).await;
    stack.project("demo").await;
    for name in ["a", "b", "c"] {
        stack.stopped("demo", name).await;
    }
    let before = stack.get("/ops/v1/fleet").await;
    assert_eq!(before.status, 200, "{}", before.body);
    assert_eq!((&before.body["total"], &before.body["next_after"]), (&json!(3), &Value::Null));
    let at = before.body["position"].as_u64().unwrap();
    let d = stack.running("demo", "d").await;
    let now = stack.get("/ops/v1/fleet").await.body;
    let row = &now["items"][3];
    assert_eq!((&row["name"], &row["run_state"], &row["id"]), (&json!("d"), &json!("running"), &json!(d)));
    assert_eq!(
        now["sleds"].as_array().unwrap().iter().map(|it| it["vmms"].as_u64().unwrap()).sum::<u64>(),
        1
    );

    // Further pages are of the first's moment, whatever has happened since.
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = stack.get(&format!("/ops/v1/fleet?at=@{at}&limit=2{after}")).await.body;
        assert_eq!(page["position"], at, "{page}");
        names.extend(
            page["items"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next_after"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(names, ["a", "b", "c"]);
    // What is kept of the newest fold says what folding again says.
    let newest = format!("/ops/v1/fleet?at=@{}", now["position"]);
    let folded = stack.get(&newest).await.body;
    let kept = stack.get(&newest).await.body;
    assert_eq!(stack.get(&format!("/ops/v1/fleet?at=@{at}")).await.body["position"], at);
    assert_eq!((&folded, &kept), (&now, &now));
    assert_eq!(stack.get(&newest).await.body, now, "the other moment has taken its place");
    let none = String::new;
    let at_version =
        "query parameter \"at\": a version belongs to one stream; name a position such as @1234, or a time";
    let beyond = format!("/ops/v1/fleet?at=@{at}&after={d}");
    let no_such = "query parameter \"after\": no instance of that moment has this id; give the `at` of the first page as \
                   @POSITION";
    check(
        &stack,
        vec![
            bad(Method::GET, "/ops/v1/fleet?at=%233", none(), at_version),
            bad(Method::GET, "/ops/v1/fleet?limit=0", none(), "query parameter \"limit\" must be at least 1"),
            bad(
                Method::GET,
                "/ops/v1/fleet?after=x",
                none(),
                "query parameter \"after\": it is not the id of an instance",
            ),
            bad(Method::GET, &beyond, none(), no_such),
        ],
    )
    .await;
    assert_eq!(stack.get("/ops/v1/fleet?at=@999999").await.refusal().0, 400);
}
