//! An agent on the network, asked by the same client that the control plane uses: every call, every refusal,
//! bounds that hold against rude clients, and migrations from one agent to another.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sim_sled::embedded::{EmbeddedSled, Fabric, Options};
use sim_sled::faults::{Fault, Faults};
use sim_sled::machine::{Config, Mode, PeerBody, PeerMessage, Question, RequestKind, Span, Timing, Vmm};
use sim_sled::peers;
use sim_sled::server::{self, ServerLimits};
use sim_sled::weather::Weather;
use sled_protocol::{
    HttpSledClient, HttpTimeouts, InventoryTag, LeaseEpoch, Listing, MacAddr, PropolisId, RequestedState,
    SerialRange, SetState, SledClient, SledError, V2pMapping, VmmState, Vni, limits,
};
use support::recorder::{Recorder, says};
use support::{EPOCH, S, T, body, boot, config, migration, op, shown, vmm};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

const TIMEOUTS: HttpTimeouts =
    HttpTimeouts { connect: Duration::from_secs(5), call: Duration::from_secs(10) };

const LONG: Duration = Duration::from_secs(20);

/// Everything at once, but for the questions of a migration.
fn brisk() -> Timing {
    let soon = Span::millis(1, 5);
    Timing { boot: soon, halt: soon, takedown: soon, reboot: soon, copy_round: soon, ..Timing::default() }
}

/// An agent with its listener.
struct Agent {
    sled: EmbeddedSled,
    client: HttpSledClient,
    addr: String,
    control_plane: Recorder,
    /// Dropping it shuts the server down.
    _running: oneshot::Sender<()>,
}

async fn agent(n: u128) -> Agent {
    agent_with(n, ServerLimits::default(), |_| {}).await
}

async fn agent_with(n: u128, limits: ServerLimits, change: impl FnOnce(&mut Config)) -> Agent {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let control_plane = Recorder::new();
    let mut config = Config { api_addr: addr.clone(), timing: brisk(), ..config(n, Mode::Auto) };
    change(&mut config);
    let (outward, messages) = mpsc::channel(peers::QUEUE_MAX);
    let sled = EmbeddedSled::open(Options {
        config,
        boot_id: boot(n),
        state_file: None,
        opened_at_micros: 1_700_000_000_000_000,
        control_plane: Arc::new(control_plane.clone()),
        fabric: Fabric::reaching(outward),
    })
    .unwrap();
    let (running, ended) = oneshot::channel::<()>();
    tokio::spawn(peers::post_all(messages, None, None));
    tokio::spawn(server::serve(listener, sled.clone(), limits, None, async { drop(ended.await) }));
    let client = HttpSledClient::new(&format!("http://{addr}"), TIMEOUTS).unwrap();
    let agent = Agent { sled, client, addr, control_plane, _running: running };
    agent
        .until("it has registered", |agent| {
            agent.sled.with_machine(|machine, _| machine.host().lease_epoch().is_some()).unwrap()
        })
        .await;
    agent
}

impl Agent {
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(LONG, wait).await.is_ok(), "not within {LONG:?}: {what}");
    }

    async fn start(&self, id: PropolisId) {
        self.client.register(id, body(1, None)).await.unwrap();
        self.client.set_state(id, set(1, RequestedState::Running)).await.unwrap();
        self.until_reported(id, VmmState::Running).await;
    }

    async fn until_reported(&self, id: PropolisId, state: VmmState) {
        let reported = self.control_plane.until(|told| says(told, id, state));
        let within = tokio::time::timeout(LONG, reported).await;
        assert!(within.is_ok(), "{id} is never {state:?}: {:?}", self.control_plane.shown(id));
    }

    /// Sends bytes as they are and answers what comes until the connection ends.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A connection that is reset has said what it said.
        let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.expect("it ends");
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn request(&self, line: &str, body: &str) -> (u16, serde_json::Value) {
        let head = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = self.raw(format!("{head}{body}").as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
        (status, serde_json::from_str(body).unwrap_or_default())
    }
}

fn set(n: u128, state: RequestedState) -> SetState {
    SetState { op_id: op(n), lease_epoch: EPOCH, state }
}

fn target_of(source: &Agent) -> RequestedState {
    RequestedState::MigrationTarget { src_propolis_id: vmm(S), src_addr: source.addr.clone() }
}

fn mapping(last: u8, generation: u64) -> V2pMapping {
    V2pMapping {
        virtual_ip: [10, 0, 0, last].into(),
        vni: Vni::new(7).unwrap(),
        mac: MacAddr::new([2, 0, 0, 0, 0, last]),
        physical_host_ip: [192, 168, 0, 1].into(),
        generation: sled_protocol::Generation::new(generation),
    }
}

#[tokio::test]
async fn every_call_goes_there_and_back() {
    let agent = agent(1).await;
    let client = &agent.client;
    let registered = client.register(vmm(1), body(1, None)).await.unwrap();
    assert_eq!(shown(&registered), "starting");
    assert_eq!(client.register(vmm(1), body(1, None)).await, Ok(registered), "again, the same");
    assert_eq!(client.set_state(vmm(1), set(1, RequestedState::Running)).await, Ok(None));
    agent.until_reported(vmm(1), VmmState::Running).await;
    assert_eq!(shown(&client.get_state(vmm(1)).await.unwrap()), "running");
    let serial = client.serial(vmm(1), SerialRange::default()).await.unwrap();
    assert_eq!(String::from_utf8(serial.data.clone()).unwrap(), "musher: boot\r\nlogin: ");
    let part = client.serial(vmm(1), SerialRange { from_start: 8, max_bytes: Some(4) }).await.unwrap();
    assert_eq!((part.data.as_slice(), part.last_byte_offset), (&b"boot"[..], 12));
    let inventory = client.inventory().await.unwrap();
    assert_eq!((inventory.vmms.len(), inventory.lease_epoch, inventory.boot_id), (1, Some(EPOCH), boot(1)));
    let rebooting = client.set_state(vmm(1), set(2, RequestedState::Reboot)).await.unwrap().unwrap();
    assert_eq!(shown(&rebooting), "rebooting");
    let stopping = client.set_state(vmm(1), set(3, RequestedState::Stopped)).await.unwrap().unwrap();
    assert_eq!(shown(&stopping), "stopping");
    agent.until_reported(vmm(1), VmmState::Destroyed).await;

    client.register(vmm(2), body(2, None)).await.unwrap();
    assert_eq!(
        client.unregister(vmm(2), EPOCH).await.unwrap().map(|state| shown(&state)),
        Some("failed".into())
    );
    assert_eq!(client.unregister(vmm(2), EPOCH).await, Ok(None));
    assert_eq!(client.unregister(vmm(9), EPOCH).await, Ok(None));

    client.put_v2p(EPOCH, vec![mapping(1, 5), mapping(2, 5)]).await.unwrap();
    client.put_v2p(EPOCH, vec![mapping(1, 4)]).await.unwrap();
    client.delete_v2p(EPOCH, vec![mapping(2, 6)]).await.unwrap();
    assert_eq!(client.list_v2p().await.unwrap(), [mapping(1, 5)]);
}

#[tokio::test]
async fn every_refusal_arrives_as_what_it_is() {
    let agent = agent(1).await;
    let client = &agent.client;
    agent.start(vmm(1)).await;
    client.unregister(vmm(3), EPOCH).await.unwrap();
    let old = LeaseEpoch::new(EPOCH.get() - 1);
    let mut large = body(2, None);
    large.resources.ncpus = 1000;
    let mut stale = body(2, None);
    stale.lease_epoch = old;
    let mut malformed = body(2, None);
    malformed.resources.ncpus = 0;
    let register = async |n, body| client.register(vmm(n), body).await.unwrap_err();
    assert!(matches!(register(2, malformed).await, SledError::Malformed(why) if why.contains("ncpus")));
    assert_eq!(register(1, body(2, None)).await, SledError::Conflict);
    assert_eq!(register(3, body(2, None)).await, SledError::Gone);
    assert_eq!(register(2, stale).await, SledError::StaleEpoch);
    assert_eq!(register(2, large).await, SledError::NoRoom);
    assert_eq!(client.get_state(vmm(9)).await, Err(SledError::NoSuchInstance));
    assert_eq!(client.serial(vmm(9), SerialRange::default()).await, Err(SledError::NoSuchInstance));
    assert_eq!(client.unregister(vmm(1), old).await, Err(SledError::StaleEpoch));
    assert_eq!(client.put_v2p(old, vec![mapping(1, 1)]).await, Err(SledError::StaleEpoch));
    assert_eq!(client.delete_v2p(old, vec![mapping(1, 1)]).await, Err(SledError::StaleEpoch));
    for (n, state, id, expected) in [
        (20, RequestedState::Running, 9, 404),
        (21, RequestedState::MigrationCancel, 1, 400),
        (22, target_of(&agent), 1, 400),
    ] {
        let error = client.set_state(vmm(id), set(n, state)).await.unwrap_err();
        assert_eq!(error.status(), Some(expected), "{error}");
        assert_eq!(matches!(error, SledError::BadState(_)), expected == 400, "{error}");
    }
    let nowhere = RequestedState::MigrationTarget { src_propolis_id: vmm(7), src_addr: "sim-0".to_owned() };
    let error = client.set_state(vmm(1), set(23, nowhere)).await.unwrap_err();
    assert!(matches!(&error, SledError::Malformed(why) if why.contains("src_addr")), "{error}");
}

#[tokio::test]
async fn a_fault_of_the_sled_is_seen_as_the_protocol_says() {
    let agent = agent(1).await;
    let kind = RequestKind::Register;
    let server_error = SledError::ServerError { status: 500, message: "on purpose".to_owned() };
    let faults = Faults::default()
        .at(kind, 0, Fault::Answer(SledError::ChannelFull))
        .at(kind, 1, Fault::Answer(server_error.clone()))
        .at(kind, 2, Fault::LoseRequest)
        .at(kind, 3, Fault::LoseAnswer);
    agent.sled.set_faults(faults);
    let register = async || agent.client.register(vmm(1), body(1, None)).await.unwrap_err();
    assert_eq!(register().await, SledError::ChannelFull);
    assert_eq!(register().await, server_error);
    assert!(matches!(register().await, SledError::Transport(_)));
    assert_eq!(agent.client.inventory().await.unwrap().vmms.len(), 0);
    assert!(matches!(register().await, SledError::Transport(_)));
    assert_eq!(agent.client.inventory().await.unwrap().vmms.len(), 1, "it took effect");
    agent.sled.with_machine(sim_sled::machine::Sled::power_off).unwrap();
    assert!(matches!(agent.client.inventory().await, Err(SledError::Transport(_))));
}

#[tokio::test]
async fn what_is_no_request_of_the_protocol_is_refused_and_never_as_an_unknown_vmm() {
    let agent = agent(1).await;
    let id = vmm(1);
    let too_many = serde_json::to_string(&vec![mapping(1, 1); limits::MAPPINGS_MAX + 1]).unwrap();
    for (line, body, status, code) in [
        ("GET /nowhere", "", 404, "NO_SUCH_PATH"),
        ("GET /", "", 404, "NO_SUCH_PATH"),
        ("GET /vmms", "", 404, "NO_SUCH_PATH"),
        (&format!("GET /vmms/{id}/state/more"), "", 404, "NO_SUCH_PATH"),
        (&format!("POST /vmms/{id}"), "", 405, "NO_SUCH_METHOD"),
        ("PUT /inventory", "", 405, "NO_SUCH_METHOD"),
        ("GET /peer", "", 405, "NO_SUCH_METHOD"),
        ("PUT /vmms/nobody", "{}", 400, "MALFORMED"),
        (&format!("PUT /vmms/{id}"), "", 400, "MALFORMED"),
        (&format!("PUT /vmms/{id}"), "{}", 400, "MALFORMED"),
        (&format!("PUT /vmms/{id}/state"), "[]", 400, "MALFORMED"),
        (&format!("DELETE /vmms/{id}"), "", 400, "MALFORMED"),
        (&format!("DELETE /vmms/{id}?lease_epoch=0"), "", 400, "MALFORMED"),
        (&format!("DELETE /vmms/{id}?lease_epoch=x"), "", 400, "MALFORMED"),
        ("DELETE /vmms/00000000-0000-0000-0000-000000000000?lease_epoch=3", "", 400, "MALFORMED"),
        (&format!("GET /vmms/{id}/serial?from_start=-1"), "", 400, "MALFORMED"),
        ("PUT /v2p", "[]", 400, "MALFORMED"),
        ("GET /v2p?limit=-1", "", 400, "MALFORMED"),
        ("GET /v2p?limit=1&after=x", "", 400, "MALFORMED"),
        ("GET /v2p?after=1", "", 400, "MALFORMED"),
        ("PUT /v2p?lease_epoch=3", "{}", 400, "MALFORMED"),
        ("PUT /v2p?lease_epoch=3", &too_many, 400, "MALFORMED"),
        ("POST /peer", "{}", 400, "MALFORMED"),
    ] {
        let (answered, explained) = agent.request(line, body).await;
        assert_eq!((answered, explained["error_code"].as_str()), (status, Some(code)), "{line}: {explained}");
    }
    assert_eq!(agent.client.inventory().await.unwrap().vmms.len(), 0);
}

#[tokio::test]
async fn more_mappings_than_fit_into_an_answer_are_listed_page_by_page() {
    let agent = agent(1).await;
    let at = |n: u32| V2pMapping {
        virtual_ip: std::net::Ipv4Addr::from_bits(0xac1e_0000 + n).into(),
        ..mapping(1, 5)
    };
    for count in [limits::MAPPINGS_MAX, 2 * limits::MAPPINGS_MAX + 3] {
        let all: Vec<V2pMapping> = (0..u32::try_from(count).unwrap()).map(at).collect();
        agent.client.put_v2p(EPOCH, all.clone()).await.unwrap();
        let mut listed = agent.client.list_v2p().await.unwrap();
        listed.sort_by_key(V2pMapping::key);
        assert_eq!(listed, all, "{count}");
    }
    let (_, page) = agent.request("GET /v2p?limit=2&after=7-172.30.0.9", "").await;
    assert_eq!(page.as_array().map_or(0, Vec::len), 2, "{page}");
}

#[tokio::test]
async fn an_inventory_that_has_not_changed_is_not_sent_again() {
    let agent = agent(1).await;
    let Listing::Whole(empty, Some(tag)) = agent.client.inventory_unless(None).await.unwrap() else {
        panic!()
    };
    assert_eq!(empty.vmms.len(), 0);
    let again = || agent.client.inventory_unless(Some(tag.clone()));
    assert_eq!(again().await, Ok(Listing::Unchanged));
    agent.client.register(vmm(1), body(1, None)).await.unwrap();
    let Listing::Whole(one, Some(other)) = again().await.unwrap() else { panic!("it has a VMM by now") };
    assert_eq!((one.vmms.len(), other == tag), (1, false));
    assert_eq!(agent.client.inventory().await.unwrap(), one, "whoever knows nothing is told everything");
    let foreign = InventoryTag::read("\"of-another-build\"");
    assert!(matches!(agent.client.inventory_unless(foreign).await, Ok(Listing::Whole(..))));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_one_that_never_comes_is_not_waited_for() {
    let limits = ServerLimits {
        body_bytes_max: 100,
        body_time: Duration::from_millis(50),
        head_time: Duration::from_millis(100),
        head_bytes_max: 8192,
        ..ServerLimits::default()
    };
    let agent = agent_with(1, limits, |_| {}).await;
    let (status, explained) = agent.request("PUT /v2p?lease_epoch=3", &"x".repeat(101)).await;
    assert_eq!((status, explained["error_code"].as_str()), (413, Some("TOO_LARGE")));
    let chunked = b"PUT /v2p?lease_epoch=3 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n80\r\n";
    let answer = agent.raw(&[&chunked[..], &[b'x'; 0x80], b"\r\n"].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let slow_body = b"PUT /v2p?lease_epoch=3 HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n[";
    assert_eq!(agent.raw(slow_body).await, "");
    let answer = agent.raw(b"GET /inventory HTTP/1.1\r\nx-slow: ").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let huge_head = format!("GET /inventory HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(10_000));
    assert!(agent.raw(huge_head.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    agent.client.inventory().await.unwrap();
}

#[tokio::test]
async fn beyond_its_bound_a_request_is_put_off_and_one_that_hangs_gives_its_place_back() {
    let limits =
        ServerLimits { requests_max: 2, request_time: Duration::from_millis(300), ..ServerLimits::default() };
    let agent = agent_with(1, limits, |_| {}).await;
    agent.sled.set_faults(Faults::default().always(RequestKind::GetState, Fault::Hang));
    let hanging = || {
        tokio::spawn({
            let client = agent.client.clone();
            async move { client.get_state(vmm(1)).await }
        })
    };
    let hung = [hanging(), hanging()];
    let mut is_put_off = false;
    let end = tokio::time::Instant::now() + LONG;
    while !is_put_off
        && tokio::time::Instant::now() < end
        && !hung.iter().all(tokio::task::JoinHandle::is_finished)
    {
        is_put_off = agent.client.inventory().await == Err(SledError::ChannelFull);
    }
    assert!(is_put_off);
    for hung in hung {
        assert!(matches!(hung.await.unwrap(), Err(SledError::Transport(_))));
    }
    agent.client.inventory().await.unwrap();
}

#[tokio::test]
async fn connections_that_say_nothing_take_no_place_from_others_for_long() {
    let limits =
        ServerLimits { connections_max: 2, head_time: Duration::from_millis(100), ..ServerLimits::default() };
    let agent = agent_with(1, limits, |_| {}).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(&agent.addr).await.unwrap());
    }
    agent.client.inventory().await.unwrap();
}

#[tokio::test]
async fn a_guest_moves_from_one_agent_to_another() {
    let (source, target) = (agent(S).await, agent(T).await);
    source.start(vmm(S)).await;
    target.client.register(vmm(T), body(1, Some(migration(1)))).await.unwrap();
    target.client.set_state(vmm(T), set(2, target_of(&source))).await.unwrap();
    target.until_reported(vmm(T), VmmState::Running).await;
    source.until_reported(vmm(S), VmmState::Destroyed).await;
    assert_eq!(target.control_plane.shown(vmm(T)).last().map(String::as_str), Some("running in=completed"));
    assert_eq!(
        source.control_plane.shown(vmm(S)).last().map(String::as_str),
        Some("destroyed out=completed")
    );
}

#[tokio::test]
async fn a_migration_from_a_sled_that_is_not_there_fails_on_the_target_alone() {
    let source = agent(S).await;
    source.start(vmm(S)).await;
    let target = agent_with(T, ServerLimits::default(), |config| {
        config.timing.peer_silence = Span::millis(300, 300);
        config.timing.peer_retry = Span::millis(50, 50);
    })
    .await;
    target.client.register(vmm(T), body(1, Some(migration(1)))).await.unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let nowhere = RequestedState::MigrationTarget { src_propolis_id: vmm(S), src_addr: gone };
    target.client.set_state(vmm(T), set(2, nowhere)).await.unwrap();
    target.until_reported(vmm(T), VmmState::Failed).await;
    assert_eq!(shown(&source.client.get_state(vmm(S)).await.unwrap()), "running");
}

#[tokio::test]
async fn a_guest_moves_although_every_third_message_is_lost() {
    let (source, target) = (
        agent(S).await,
        agent_with(T, ServerLimits::default(), |config| {
            config.timing.peer_retry = Span::millis(20, 40);
        })
        .await,
    );
    source.start(vmm(S)).await;
    target.client.register(vmm(T), body(1, Some(migration(1)))).await.unwrap();
    let weather = Weather::new(
        source.sled.with_machine(|machine, _| machine.config().sled_id).unwrap(),
        3,
        333_333,
        Span::millis(0, 20),
    );
    // Between the two stands a relay that loses and delays what it is to carry.
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay_addr = relay.local_addr().unwrap().to_string();
    let through = source.addr.clone();
    tokio::spawn(async move {
        for nth in 0.. {
            let (mut incoming, _) = relay.accept().await.unwrap();
            match weather.strike("relay", nth) {
                Some(Fault::Slow(micros)) => tokio::time::sleep(Duration::from_micros(micros)).await,
                Some(_) => continue,
                None => {}
            }
            let mut outgoing = TcpStream::connect(&through).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut incoming, &mut outgoing).await });
        }
    });
    let lossy = RequestedState::MigrationTarget { src_propolis_id: vmm(S), src_addr: relay_addr };
    target.client.set_state(vmm(T), set(2, lossy)).await.unwrap();
    target.until_reported(vmm(T), VmmState::Running).await;
    let runs =
        |agent: &Agent| agent.sled.with_machine(|machine, _| machine.vmms().any(Vmm::guest_running)).unwrap();
    assert!(runs(&target) && !runs(&source));
}

#[tokio::test]
async fn a_peer_that_makes_no_sense_moves_nothing() {
    let agent = agent(S).await;
    agent.start(vmm(S)).await;
    let before = agent.client.get_state(vmm(S)).await.unwrap();
    let ask = |from_addr: &str, question| PeerMessage {
        migration_id: migration(1),
        instance_id: support::instance(1),
        from_addr: from_addr.to_owned(),
        from_vmm: vmm(T),
        to_addr: agent.addr.clone(),
        to_vmm: vmm(S),
        body: PeerBody::Ask(question),
    };
    let post = async |message: &PeerMessage| {
        agent.request("POST /peer", &serde_json::to_string(message).unwrap()).await.0
    };
    assert_eq!(post(&ask("nowhere", Question::Begin)).await, 400);
    assert_eq!(post(&PeerMessage { to_vmm: vmm(T), ..ask("127.0.0.1:1", Question::Begin) }).await, 400);
    let mut spoiled = json!(ask("127.0.0.1:1", Question::Begin));
    spoiled["body"] = json!({"ask": "everything"});
    assert_eq!(agent.request("POST /peer", &spoiled.to_string()).await.0, 400);
    // Taken, and answered to an address where nobody listens.
    assert_eq!(post(&ask("127.0.0.1:1", Question::Finish)).await, 204);
    assert_eq!(agent.client.get_state(vmm(S)).await.unwrap(), before);
}

#[tokio::test]
async fn a_shutdown_lets_the_request_under_way_finish() {
    let agent = agent(1).await;
    agent.sled.set_faults(Faults::default().always(RequestKind::Register, Fault::Slow(200_000)));
    let asked = tokio::spawn({
        let client = agent.client.clone();
        async move { client.register(vmm(1), body(1, None)).await }
    });
    agent
        .until("the sled acts", |agent| {
            agent.sled.with_machine(|machine, _| machine.vmms().count()) == Some(1)
        })
        .await;
    let Agent { client, _running: running, .. } = agent;
    drop(running);
    asked.await.unwrap().unwrap();
    let until_closed = async { while client.inventory().await.is_ok() {} };
    tokio::time::timeout(LONG, until_closed).await.unwrap();
}
