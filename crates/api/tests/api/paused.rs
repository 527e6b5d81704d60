//! Holding a saga at its step, letting it go on, and doing either once however often it is sent.

use crate::orders::{OTHER, same, start_held_at_register};
use crate::refusals::NO_ID;
use crate::stack::Stack;
use serde_json::{Value, json};
use sim_sled::faults::Faults;

#[tokio::test(start_paused = true)]
async fn a_saga_is_paused_shown_resumed_and_retried_once_per_key() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let (id, saga) = start_held_at_register(&stack).await;
    let path = |verb: &str| format!("/ops/v1/sagas/{saga}/{verb}");
    let shown = async || stack.get(&format!("/ops/v1/sagas/{saga}")).await.body;
    assert_eq!(shown().await["pause"], Value::Null);

    let paused = stack.post_once("hold", &path("pause"), &json!({})).await;
    assert_eq!((paused.status.as_u16(), paused.text("saga_id")), (202, saga.to_string()), "{}", paused.body);
    same(&paused, &stack.post_once("hold", &path("pause"), &json!({})).await);
    for other in [path("resume"), path("retry"), path("cancel"), format!("/ops/v1/sagas/{NO_ID}/pause")] {
        assert_eq!(stack.post_once("hold", &other, &json!({})).await.refusal(), OTHER, "{other}");
    }
    let pause = shown().await["pause"].clone();
    assert_eq!((&pause["cause"], &pause["failures"]), (&json!("requested"), &Value::Null), "{pause}");
    let attention = stack.get("/ops/v1/attention").await.body;
    let line = &attention["items"][0];
    assert_eq!(line["kind"], "saga_paused", "{attention}");
    assert_eq!(line["since"], pause["since"]);

    // Far beyond its deadline: it does not count.
    tokio::time::sleep(std::time::Duration::from_mins(10)).await;
    let explained = stack.get(&format!("/ops/v1/instances/{id}/explain")).await.body;
    assert_eq!(explained["run_state"], "starting", "{explained}");
    assert!(
        explained["because"][0].as_str().unwrap().starts_with("its saga is paused since "),
        "{explained}"
    );
    stack.misbehave(&Faults::default());
    let resumed = stack.post_once("on", &path("resume"), &json!({})).await;
    assert_eq!(resumed.status.as_u16(), 202, "{}", resumed.body);
    stack.until(|model| model.instance_state(id).is_some_and(|state| state.saga.is_none())).await;
    assert_eq!(stack.get(&format!("/v1/instances/{id}")).await.text("run_state"), "running");
    same(&resumed, &stack.post_once("on", &path("resume"), &json!({})).await);
    let row = shown().await;
    assert_eq!((&row["outcome"], &row["pause"]), (&json!("done"), &Value::Null), "{row}");
}
