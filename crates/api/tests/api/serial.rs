//! The serial console: what a guest has written, by offset from its beginning or its end.

use crate::stack::Stack;
use serde_json::Value;
use sim_sled::faults::{Fault, Faults};
use sim_sled::machine::RequestKind;

fn bytes(body: &Value) -> Vec<u8> {
    let data = body["data"].as_array().unwrap();
    data.iter().map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_a_guest_has_written_is_read_in_pieces() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let web = stack.running("demo", "web").await;
    let path = format!("/v1/instances/{web}/serial-console");
    let all = stack.get(&path).await;
    assert_eq!(all.status, 200, "{}", all.body);
    let (text, end) = (bytes(&all.body), all.body["last_byte_offset"].as_u64().unwrap());
    assert!(text.len() > 8, "{:?}", String::from_utf8_lossy(&text));
    assert_eq!(end, text.len() as u64);
    let first = stack.get(&format!("{path}?max_bytes=5")).await;
    assert_eq!((bytes(&first.body), first.body["last_byte_offset"].as_u64()), (text[..5].to_vec(), Some(5)));
    let rest = stack.get(&format!("{path}?from_start=5")).await;
    assert_eq!(bytes(&rest.body), text[5..]);
    let last = stack.get("/v1/instances/web/serial-console?project=demo&most_recent=3").await;
    assert_eq!(bytes(&last.body), text[text.len() - 3..]);
    let none = stack.get(&format!("{path}?from_start={end}")).await;
    assert_eq!((bytes(&none.body).len(), none.body["last_byte_offset"].as_u64()), (0, Some(end)));
    let more = stack.get(&format!("{path}?most_recent=99999999")).await;
    assert_eq!(bytes(&more.body), text);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_refused_and_says_why() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let (web, idle) = (stack.running("demo", "web").await, stack.stopped("demo", "idle").await);
    let of_idle = stack.get(&format!("/v1/instances/{idle}/serial-console")).await;
    let why = "cannot read the serial console of an instance that is stopped: it has no VMM";
    assert_eq!(of_idle.refusal(), (400, "InvalidRequest", why));
    let both = stack.get(&format!("/v1/instances/{web}/serial-console?from_start=1&most_recent=1")).await;
    assert!(both.refusal().2.contains("exclude each other"), "{}", both.body);
    let nobody = stack.get("/v1/instances/nobody/serial-console?project=demo").await;
    assert_eq!(nobody.refusal().0, 404);
    let durable = stack.durable();
    for (fault, status) in [(Fault::LoseRequest, 502), (Fault::Hang, 504)] {
        stack.misbehave(&Faults::default().always(RequestKind::Serial, fault));
        let away = stack.get(&format!("/v1/instances/{web}/serial-console")).await;
        assert_eq!(away.status.as_u16(), status, "{}", away.body);
    }
    assert_eq!(stack.durable(), durable);
}
