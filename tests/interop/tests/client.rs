//! The generated Rust SDK of Oxide, as it is published, against a daemon: every call that the contract covers, and
//! every error, through its types. What it cannot read fails here.
//!
//! The daemon is the binary that `MUSHER` names, else the one that `cargo build` leaves in the root's `target`.

use futures::TryStreamExt;
use oxide::prelude::*;
use oxide::types::{self, InstanceState};
use oxide::{Client, Error};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

struct Daemon {
    child: Child,
    url: String,
    _data: TempDir,
}

impl Daemon {
    fn start() -> Self {
        let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/debug/musher");
        let binary = std::env::var_os("MUSHER").map_or_else(|| PathBuf::from(built), PathBuf::from);
        let data = tempfile::tempdir().unwrap();
        let mut child = Command::new(&binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--sled-listen", "127.0.0.1:0", "--data"])
            .arg(data.path())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; build it, or name it with MUSHER", binary.display())
            });
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready =
            said.by_ref().map(Result::unwrap).find(|line| line.contains("is ready on ")).expect("it starts");
        let url = ready.split("is ready on ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        // A full pipe would block it.
        std::thread::spawn(move || said.for_each(drop));
        Self { child, url, _data: data }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The daemon's simulated sleds have 32 threads each.
async fn create(
    client: &Client,
    name: &str,
    ncpus: u16,
    start: bool,
) -> Result<types::Instance, Error<types::Error>> {
    let request = client.instance_create().project("demo").body_map(|body| {
        body.name(name)
            .description("of a test")
            .hostname(name)
            .ncpus(ncpus)
            .memory(2_u64 << 30)
            .start(start)
            .network_interfaces(types::InstanceNetworkInterfaceAttachment::None)
    });
    request.send().await.map(oxide::ResponseValue::into_inner)
}

async fn until(client: &Client, instance: &types::Instance, wanted: InstanceState) -> types::Instance {
    for _ in 0..1_000 {
        let now = client.instance_view().instance(instance.id).send().await.unwrap().into_inner();
        if now.run_state == wanted {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} never was {wanted}", *instance.name);
}

/// Status, code and message of what must be an error that the SDK can read.
fn refusal<T: std::fmt::Debug>(outcome: Result<T, Error<types::Error>>) -> (u16, String, String) {
    match outcome {
        Err(Error::ErrorResponse(answer)) => {
            let status = answer.status().as_u16();
            let error = answer.into_inner();
            assert!(!error.request_id.is_empty());
            (status, error.error_code.unwrap_or_default(), error.message)
        }
        other => panic!("not an error that the contract knows: {other:?}"),
    }
}

fn is(refusal: (u16, String, String), status: u16, code: &str, message: &str) {
    assert_eq!((refusal.0, refusal.1.as_str()), (status, code), "{}", refusal.2);
    assert!(refusal.2.contains(message), "{:?} says {message:?}", refusal.2);
}

#[tokio::test]
async fn an_instance_lives_its_whole_life_through_the_sdk() {
    let daemon = Daemon::start();
    let client = Client::new(&daemon.url);
    client.ping().send().await.unwrap();
    let me = client.current_user_view().send().await.unwrap().into_inner();
    assert!(!me.display_name.is_empty());

    let created = create(&client, "web-1", 2, true).await.unwrap();
    assert_eq!((created.name.as_str(), *created.ncpus, *created.memory), ("web-1", 2, 2 << 30));
    until(&client, &created, InstanceState::Running).await;
    let by_name = client.instance_view().instance("web-1").project("demo").send().await.unwrap();
    assert_eq!(by_name.id, created.id);

    let before = until(&client, &created, InstanceState::Running).await;
    client.instance_reboot().instance("web-1").project("demo").send().await.unwrap();
    loop {
        let now = until(&client, &created, InstanceState::Running).await;
        if now.time_run_state_updated > before.time_run_state_updated {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let deleted = client.instance_delete().instance(created.id).send().await;
    let text = "cannot delete instance: instance is running or has not yet fully stopped";
    is(refusal(deleted), 400, "InvalidRequest", text);
    client.instance_stop().instance(created.id).send().await.unwrap();
    until(&client, &created, InstanceState::Stopped).await;
    client.instance_start().instance(created.id).send().await.unwrap();
    until(&client, &created, InstanceState::Running).await;
    client.instance_stop().instance(created.id).send().await.unwrap();
    until(&client, &created, InstanceState::Stopped).await;
    client.instance_delete().instance(created.id).send().await.unwrap();
    let gone = client.instance_view().instance(created.id).send().await;
    is(refusal(gone), 404, "ObjectNotFound", &format!("not found: instance with id \"{}\"", created.id));
}

#[tokio::test]
async fn pages_are_followed_to_their_end() {
    let daemon = Daemon::start();
    let client = Client::new(&daemon.url);
    let mut names = Vec::new();
    for nth in 0..25 {
        let name = format!("web-{nth:02}");
        create(&client, &name, 1, false).await.unwrap();
        names.push(name);
    }
    let limit = std::num::NonZeroU32::new(4).unwrap();
    let all: Vec<types::Instance> =
        client.instance_list().project("demo").limit(limit).stream().try_collect().await.unwrap();
    let found: Vec<String> = all.iter().map(|instance| instance.name.to_string()).collect();
    assert_eq!(found, names);
    let first = client.instance_list().project("demo").limit(limit).send().await.unwrap();
    assert_eq!((first.items.len(), first.next_page.is_some()), (4, true));
    let projects: Vec<types::Project> = client.project_list().stream().try_collect().await.unwrap();
    assert_eq!(projects.len(), 1);
    let sleds: Vec<types::Sled> = client.sled_list().limit(limit).stream().try_collect().await.unwrap();
    assert_eq!(sleds.len(), 4);
    let sled = client.sled_view().sled_id(sleds[0].id).send().await.unwrap();
    assert_eq!(sled.usable_hardware_threads, 32);
}

#[tokio::test]
async fn every_error_is_one_that_the_sdk_reads() {
    let daemon = Daemon::start();
    let client = Client::new(&daemon.url);
    let web = create(&client, "web", 2, false).await.unwrap();
    is(
        refusal(create(&client, "web", 2, false).await),
        400,
        "ObjectAlreadyExists",
        "already exists: instance \"web\"",
    );
    is(refusal(create(&client, "big", 255, false).await), 400, "InvalidValue", "ncpus");
    let nope = client.instance_view().instance("nope").project("demo").send().await;
    is(refusal(nope), 404, "ObjectNotFound", "not found: instance with name \"nope\"");
    let nowhere = client.instance_list().project("nowhere").send().await;
    is(refusal(nowhere), 404, "ObjectNotFound", "not found: project with name \"nowhere\"");
    let both = client.instance_view().instance(web.id).project("demo").send().await;
    is(refusal(both), 400, "InvalidRequest", "project should not be specified");
    let neither = client.instance_view().instance("web").send().await;
    is(refusal(neither), 400, "InvalidRequest", "project should be specified");
    let token = client.instance_list().project("demo").page_token("nonsense").send().await;
    is(refusal(token), 400, "InvalidRequest", "page_token");
    let huge = create(&client, "huge", 33, true).await.unwrap();
    assert_eq!(huge.run_state, InstanceState::Stopped, "created, and there is no room for it");
    let started = client.instance_start().instance(huge.id).send().await;
    is(refusal(started), 507, "InsufficientCapacity", "no sled has room");
    let rebooted = client.instance_reboot().instance(web.id).send().await;
    assert!([400, 409].contains(&refusal(rebooted).0), "a stopped instance is not rebooted");
    let project = client.project_delete().project("demo").send().await;
    is(refusal(project), 400, "InvalidRequest", "contains 2 instance(s)");
    // A route that there is not: the SDK knows more than we have.
    let disks = client.disk_list().project("demo").send().await;
    assert_eq!(refusal(disks).0, 404);
}

fn change(ncpus: u16, policy: Option<types::InstanceAutoRestartPolicy>) -> types::InstanceUpdate {
    types::InstanceUpdate {
        auto_restart_policy: policy,
        boot_disk: None,
        cpu_platform: None,
        enable_jumbo_frames: false,
        memory: types::ByteCount(2 << 30),
        multicast_groups: None,
        ncpus: types::InstanceCpuCount(ncpus),
    }
}

#[tokio::test]
async fn an_instance_is_changed_through_the_sdk() {
    let daemon = Daemon::start();
    let client = Client::new(&daemon.url);
    let web = create(&client, "web", 2, false).await.unwrap();
    let never = Some(types::InstanceAutoRestartPolicy::Never);
    let update = client.instance_update().instance(web.id).body(change(4, never));
    let changed = update.send().await.unwrap().into_inner();
    assert_eq!((changed.id, *changed.ncpus, changed.auto_restart_policy), (web.id, 4, never));
    assert!(!changed.auto_restart_enabled);
    let update = client.instance_update().instance("web").project("demo").body(change(2, None));
    let changed = update.send().await.unwrap().into_inner();
    assert_eq!((*changed.ncpus, changed.auto_restart_policy), (2, None));

    client.instance_start().instance(web.id).send().await.unwrap();
    until(&client, &web, InstanceState::Running).await;
    let resized = client.instance_update().instance(web.id).body(change(4, None)).send().await;
    is(refusal(resized), 409, "Conflict", "instance must be stopped to change CPU or memory");
}

#[tokio::test]
async fn sleds_and_what_is_used_are_read_through_the_sdk() {
    let daemon = Daemon::start();
    let client = Client::new(&daemon.url);
    let web = create(&client, "web", 2, true).await.unwrap();
    until(&client, &web, InstanceState::Running).await;
    let sleds: Vec<types::Sled> = client.sled_list().stream().try_collect().await.unwrap();
    let mut found = Vec::new();
    for sled in &sleds {
        let on_it: Vec<types::SledInstance> =
            client.sled_instance_list().sled_id(sled.id).stream().try_collect().await.unwrap();
        found.extend(on_it.into_iter().map(|instance| (instance.active_sled_id, instance)));
    }
    let [(sled, instance)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((instance.id, instance.state, instance.ncpus), (web.id, InstanceState::Running, 2));
    assert_eq!((instance.name.as_str(), instance.project_name.as_str()), ("web", "demo"));

    use types::SledProvisionPolicy::{NonProvisionable, Provisionable};
    for (old, new) in [(Provisionable, NonProvisionable), (NonProvisionable, Provisionable)] {
        let body = types::SledProvisionPolicyParams { state: new };
        let set = client.sled_set_provision_policy().sled_id(*sled).body(body).send().await.unwrap();
        assert_eq!((set.old_state, set.new_state), (old, new));
        let seen = client.sled_view().sled_id(*sled).send().await.unwrap().into_inner();
        assert!(
            matches!(seen.policy, types::SledPolicy::InService(policy) if policy == new),
            "{:?}",
            seen.policy
        );
    }

    let used = client.utilization_view().send().await.unwrap().into_inner();
    assert_eq!((used.provisioned.cpus, *used.provisioned.memory), (2, 2 << 30));
    assert!(used.capacity.cpus > 1_000, "there is no limit");
    let silos = client.silo_utilization_list().send().await.unwrap().into_inner();
    assert_eq!((silos.items.len(), silos.items[0].provisioned.cpus), (1, 2));
}
