//! Both HTTP clients against a server of one canned answer: what they send, and what they make of what comes.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::time::Duration;

use serde_json::json;
use sled_protocol::{
    ControlPlaneClient, ControlPlaneError, Generation, HttpControlPlaneClient, HttpSledClient, HttpTimeouts,
    LeaseEpoch, MacAddr, OpId, PropolisId, RequestedState, SerialRange, SetState, SledClient, SledError,
    SledId, SledVmmState, Timestamp, V2pMapping, VmmRuntime, VmmState, Vni, limits,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const VMM: &str = "00000000-0000-0000-0000-00000000000a";
const TIMEOUTS: HttpTimeouts =
    HttpTimeouts { connect: Duration::from_secs(5), call: Duration::from_millis(500) };

/// Answers every request with these bytes, then closes; requests come out of the channel as text.
async fn server(answer: Vec<u8>) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let request = read_request(&mut stream).await;
            let _ = sender.send(request);
            if answer == b"hang" {
                let _ = stream.read(&mut [0]).await;
                continue;
            }
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
    });
    (base, receiver)
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned)
                })
                .map_or(0, |length| length.parse::<usize>().unwrap());
            if body.len() >= length {
                return text;
            }
        }
        let count = stream.read(&mut chunk).await.unwrap();
        if count == 0 {
            return text;
        }
        bytes.extend_from_slice(&chunk[..count]);
    }
}

fn answer(status: u16, body: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body.as_bytes()].concat()
}

async fn sled_saying(bytes: Vec<u8>) -> (HttpSledClient, mpsc::UnboundedReceiver<String>) {
    let (base, requests) = server(bytes).await;
    (HttpSledClient::new(&base, TIMEOUTS).unwrap(), requests)
}

fn vmm() -> PropolisId {
    VMM.parse().unwrap()
}

fn picture() -> SledVmmState {
    SledVmmState {
        vmm_state: VmmRuntime {
            state: VmmState::Running,
            generation: Generation::new(2),
            time_updated: Timestamp::from_micros(1_700_000_000_000_000),
        },
        migration_in: None,
        migration_out: None,
    }
}

fn mapping() -> V2pMapping {
    V2pMapping {
        virtual_ip: [10, 0, 0, 1].into(),
        vni: Vni::new(1).unwrap(),
        mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        physical_host_ip: [192, 168, 0, 1].into(),
        generation: Generation::FIRST,
    }
}

#[tokio::test]
async fn every_call_of_a_sled_goes_to_its_path() {
    let epoch = LeaseEpoch::new(3);
    let stop = SetState {
        op_id: OpId::from_uuid(vmm().as_uuid()),
        lease_epoch: epoch,
        state: RequestedState::Stopped,
    };
    let (sled, mut requests) =
        sled_saying(answer(200, &json!({"updated_runtime": picture()}).to_string())).await;
    assert_eq!(sled.unregister(vmm(), epoch).await, Ok(Some(picture())));
    assert!(
        requests.recv().await.unwrap().starts_with(&format!("DELETE /vmms/{VMM}?lease_epoch=3 HTTP/1.1\r\n"))
    );
    assert_eq!(sled.set_state(vmm(), stop).await, Ok(Some(picture())));
    let sent = requests.recv().await.unwrap();
    assert!(sent.starts_with(&format!("PUT /vmms/{VMM}/state HTTP/1.1\r\n")), "{sent}");
    assert!(
        sent.ends_with(&format!(
            "{{\"op_id\":\"{VMM}\",\"lease_epoch\":3,\"state\":{{\"type\":\"stopped\"}}}}"
        ))
    );

    let (sled, mut requests) = sled_saying(answer(200, &json!(picture()).to_string())).await;
    assert_eq!(sled.get_state(vmm()).await, Ok(picture()));
    assert!(requests.recv().await.unwrap().starts_with(&format!("GET /vmms/{VMM}/state HTTP/1.1\r\n")));

    let (sled, mut requests) = sled_saying(answer(204, "")).await;
    sled.put_v2p(epoch, vec![mapping(); limits::MAPPINGS_MAX + 1]).await.unwrap();
    for count in [limits::MAPPINGS_MAX, 1] {
        let sent = requests.recv().await.unwrap();
        assert!(sent.starts_with("PUT /v2p?lease_epoch=3 HTTP/1.1\r\n"));
        assert_eq!(sent.matches("virtual_ip").count(), count, "mappings travel in bounded requests");
    }
    sled.delete_v2p(epoch, vec![mapping()]).await.unwrap();
    assert!(requests.recv().await.unwrap().starts_with("DELETE /v2p?lease_epoch=3 HTTP/1.1\r\n"));

    let (sled, mut requests) = sled_saying(answer(200, "{\"data\":[104,105],\"last_byte_offset\":7}")).await;
    let range = SerialRange { from_start: 5, max_bytes: Some(2) };
    assert_eq!(sled.serial(vmm(), range).await.unwrap().data, b"hi");
    let sent = requests.recv().await.unwrap();
    assert!(
        sent.starts_with(&format!("GET /vmms/{VMM}/serial?from_start=5&max_bytes=2 HTTP/1.1\r\n")),
        "{sent}"
    );
}

#[tokio::test]
async fn refusals_are_definite_and_everything_else_is_not() {
    let coded = |code: &str| json!({"error_code": code, "message": "m"}).to_string();
    let cases = [
        (answer(400, &coded("BAD_STATE")), SledError::BadState("m".into())),
        (answer(400, ""), SledError::Malformed(String::new())),
        (answer(404, &coded("NO_SUCH_INSTANCE")), SledError::NoSuchInstance),
        (answer(404, "<html>"), SledError::Refused { status: 404, message: String::new() }),
        (answer(409, ""), SledError::Conflict),
        (answer(410, ""), SledError::Gone),
        (answer(412, ""), SledError::StaleEpoch),
        (answer(507, ""), SledError::NoRoom),
        (answer(503, &coded("INSTANCE_CHANNEL_FULL")), SledError::ChannelFull),
        (answer(500, &coded("X")), SledError::ServerError { status: 500, message: "m".into() }),
        (answer(302, ""), SledError::ServerError { status: 302, message: String::new() }),
        (b"hang".to_vec(), SledError::Timeout),
    ];
    for (bytes, expected) in cases {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let (sled, _requests) = sled_saying(bytes).await;
        assert_eq!(sled.get_state(vmm()).await, Err(expected), "{shown}");
    }
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_leaves_the_outcome_unknown() {
    let mut wrong = picture();
    wrong.vmm_state.generation = Generation::new(0);
    let huge = "x".repeat(limits::BODY_BYTES_MAX + 1);
    let cut = answer(200, "{}")[..40].to_vec();
    for bytes in [
        answer(200, ""),
        answer(200, "{}"),
        answer(200, &json!(wrong).to_string()),
        answer(200, &huge),
        cut,
        b"garbage".to_vec(),
        vec![],
    ] {
        let (sled, _requests) = sled_saying(bytes.clone()).await;
        let error = sled.get_state(vmm()).await.unwrap_err();
        assert!(
            !error.is_definite(),
            "{error}: {:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(200)])
        );
    }
}

#[tokio::test]
async fn a_sled_that_does_not_listen_is_a_transport_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let sled = HttpSledClient::new(&base, TIMEOUTS).unwrap();
    assert!(matches!(sled.inventory().await, Err(SledError::Transport(_))));
}

#[tokio::test]
async fn a_report_names_its_sled_and_is_repeated_only_when_that_helps() {
    let sled_id: SledId = VMM.parse().unwrap();
    for (status, expected) in [
        (204, Ok(())),
        (400, Err(ControlPlaneError::Malformed(String::new()))),
        (404, Err(ControlPlaneError::Unknown)),
        (410, Err(ControlPlaneError::Expunged)),
        (412, Err(ControlPlaneError::StaleEpoch)),
    ] {
        let (base, mut requests) = server(answer(status, "")).await;
        let control_plane = HttpControlPlaneClient::new(&base, TIMEOUTS).unwrap();
        assert_eq!(control_plane.report(sled_id, vmm(), picture()).await, expected);
        let sent = requests.recv().await.unwrap();
        assert!(sent.starts_with(&format!("PUT /vmms/{VMM} HTTP/1.1\r\n")), "{sent}");
        assert!(sent.contains(&format!("x-sled-id: {VMM}\r\n")), "{sent}");
    }
    for bytes in [answer(500, ""), answer(503, ""), answer(429, ""), b"hang".to_vec(), vec![]] {
        let (base, _requests) = server(bytes).await;
        let control_plane = HttpControlPlaneClient::new(&base, TIMEOUTS).unwrap();
        let error = control_plane.report(sled_id, vmm(), picture()).await.unwrap_err();
        assert!(!error.is_definite(), "{error}");
    }
}
