//! `musher sled run`: simulated sleds in a process of their own, reached over HTTP like real ones.
//!
//! * A sled's identity (`sled.json`) and its VMMs (`state.jsonl`) outlive the process: ending it, by a signal or by
//!   `kill -9`, is a restart of the agent, and no guest notices.
//! * A reboot of this host, or `--reboot`, is a new boot: no VMM is left.
//! * It registers for ever: a control plane that is away, or refuses, is asked again.
//! * With `--count`, the sleds share the process and nothing else: each has its directory, its listener and its
//!   connections, as if it were alone.

mod announced;
mod identity;

use crate::cli::SledRunArgs;
use crate::config::{LogFormat, Logging};
use crate::exit::{Exit, Failure, Outcome};
use crate::real::raise_open_files;
use crate::serve::{Signals, start_logging};
use crate::sled_keys::agent_key;
use crate::stopping::{Stage, in_time};
use announced::Announced;
use eventlog::journal::StoreLock;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use identity::Identity;
use sim_sled::embedded::{EmbeddedSled, Fabric, Options, StateFileError};
use sim_sled::faults::Faults;
use sim_sled::machine::{Config, DirtyRate, Span};
use sim_sled::peers;
use sim_sled::server::{self, ServerLimits};
use sim_sled::weather::{Unreliable, Weather};
use sled_protocol::{
    AgentAddr, ControlPlaneClient, HttpTimeouts, HttpTransport, RegisterSled, SledError, SledKey,
    SledResources,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

/// How long a call of the control plane may take.
const TIMEOUTS: HttpTimeouts =
    HttpTimeouts { connect: Duration::from_secs(2), call: Duration::from_secs(10) };

/// How often it asks whether the control plane still knows it, in seconds.
const IDLE_RENEWAL_SECONDS: u64 = 15;

/// Sleds that start at a time, of many.
const STARTS_MAX: usize = 64;

/// Longest latency, in milliseconds: beyond it every call of the daemon times out.
const LATENCY_MS_MAX: u64 = 60_000;

/// Runs the sleds until a signal ends them.
pub async fn run(args: &SledRunArgs) -> Outcome {
    let (fails_per_million, control_plane) = check(args)?;
    let key = agent_key(args.key.as_deref(), args.listen)?;
    start_logging(&Logging { format: LogFormat::Text, filter: "info".to_owned() }, None)?;
    raise_open_files();
    let mut signals = Signals::listen()?;
    let surroundings = Surroundings { args, fails_per_million, control_plane, key };
    let (stop, stopping) = watch::channel(false);
    let (mut running, mut serving) = (Vec::new(), JoinSet::new());
    let mut starting = stream::iter(each(args)).map(|one| surroundings.start(one)).buffered(STARTS_MAX);
    while let Some((sled, listener)) = starting.try_next().await? {
        let (embedded, key, mut stopping) =
            (sled.embedded.clone(), surroundings.key.clone(), stopping.clone());
        let until_stopped = async move {
            // A sender that is gone means the same.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        serving.spawn(server::serve(listener, embedded, ServerLimits::default(), key, until_stopped));
        running.push(sled);
    }
    drop(starting);
    greet(args, &running);
    let ended = tokio::select! {
        biased;
        () = signals.any() => Ok(()),
        broken = serving.join_next() => Err(Failure::new(Exit::Refused, format!("an agent's listener broke: {broken:?}"))),
    };
    let stage = Stage::new("requests under way");
    let stopped = in_time(&mut signals, &stage, async {
        let _ = stop.send(true);
        while serving.join_next().await.is_some() {}
        stage.enter("the sleds' tasks");
        for sled in &running {
            sled.embedded.shutdown().await;
            sled.posting.abort();
        }
    });
    let stopped = stopped.await;
    eprintln!("stopped; the VMMs stay in {} until it is started again", directory(args).display());
    ended.and(stopped)
}

/// One of the sleds that the command line asks for.
struct One {
    name: String,
    dir: PathBuf,
    seed: u64,
}

/// Where the sled is kept, or all of them are.
fn directory(args: &SledRunArgs) -> PathBuf {
    args.data.clone().unwrap_or_else(|| Path::new("sleds").join(&args.name))
}

/// The sleds that the command line asks for: one of that name, or so many that are numbered.
fn each(args: &SledRunArgs) -> Vec<One> {
    let dir = directory(args);
    if args.count == 1 {
        return vec![One { name: args.name.clone(), dir, seed: args.seed }];
    }
    let numbered = |n: u16| One {
        name: format!("{}-{n}", args.name),
        dir: dir.join(n.to_string()),
        seed: args.seed.wrapping_add(n.into()),
    };
    (0..args.count).map(numbered).collect()
}

/// A sled that runs.
struct Running {
    _lock: StoreLock,
    embedded: EmbeddedSled,
    posting: JoinHandle<Result<(), SledError>>,
    bound: SocketAddr,
}

/// What all sleds of the process have in common.
struct Surroundings<'a> {
    args: &'a SledRunArgs,
    fails_per_million: u32,
    control_plane: AgentAddr,
    key: Option<SledKey>,
}

impl Surroundings<'_> {
    /// Takes up one sled, or begins it.
    async fn start(&self, one: One) -> Result<(Running, TcpListener), Failure> {
        let (args, dir) = (self.args, &one.dir);
        std::fs::create_dir_all(dir).map_err(|error| cannot("make", dir, &error))?;
        let lock = StoreLock::acquire(dir).map_err(|error| {
            Failure::new(Exit::Refused, format!("the sled's directory cannot be taken: {error}"))
                .hint("one process per sled: give each its own --name or --data")
        })?;
        // What another log knows nothing of is ended by it: better at once, and said.
        let is_new_boot = args.reboot || args.adopt;
        let mut identity = Identity::take_up(dir, is_new_boot, self.key.as_ref())?;
        let listener = listen(args.listen, identity.port).await?;
        let bound = listener
            .local_addr()
            .map_err(|error| Failure::new(Exit::Refused, format!("the agent has no address: {error}")))?;
        identity.port = Some(bound.port());
        if args.adopt {
            identity.store_id = None;
        }
        let config = config(args, &one, &identity, &advertised(args, bound)?)?;
        // Only now is a new boot one: a refusal up to here must not cost the VMMs of the last.
        let identity = stored(identity, dir.clone())
            .await
            .map_err(|error| Failure::new(Exit::Refused, format!("the sled's start broke off: {error}")))??;
        let latency = Span::millis(args.latency / 2, args.latency + args.latency / 2);
        let is_calm = self.fails_per_million == 0 && args.latency == 0;
        let weather =
            (!is_calm).then(|| Weather::new(config.sled_id, one.seed, self.fails_per_million, latency));
        let (outward, messages) = mpsc::channel(peers::QUEUE_MAX);
        let embedded = self.open(config, identity, dir, weather, Fabric::reaching(outward))?;
        let token = self.key.as_ref().map(SledKey::to_peer);
        let posting = tokio::spawn(peers::post_all(messages, weather, token));
        Ok((Running { _lock: lock, embedded, posting, bound }, listener))
    }

    fn open(
        &self,
        config: Config,
        identity: Identity,
        dir: &Path,
        weather: Option<Weather>,
        fabric: Fabric,
    ) -> Result<EmbeddedSled, Failure> {
        let transport = HttpTransport::new(TIMEOUTS).map_err(|error| {
            Failure::new(Exit::Refused, format!("the control plane cannot be reached: {error}"))
        })?;
        let client = transport.control_plane(&self.control_plane);
        let mut client: Arc<dyn ControlPlaneClient> = match &self.key {
            Some(key) => Arc::new(client.with_token(key.to_control_plane())),
            None => Arc::new(client),
        };
        if let Some(weather) = weather {
            client = Arc::new(Unreliable::new(client, weather));
        }
        let (boot_id, opened_at_micros) = (identity.boot_id, identity.now_micros());
        let announced = Announced::new(client, &config.name, identity, dir.to_owned());
        let opened = EmbeddedSled::open(Options {
            config,
            boot_id,
            state_file: Some(dir.join("state.jsonl")),
            opened_at_micros,
            control_plane: Arc::new(announced),
            fabric,
        });
        let sled = opened.map_err(|error| {
            let exit = match &error {
                StateFileError::Damaged { .. } | StateFileError::TooLarge { .. } => Exit::Damaged,
                StateFileError::Read { .. } | StateFileError::Write(_) => Exit::Refused,
            };
            Failure::new(exit, error.to_string()).hint(
                "start it with --reboot if its VMMs may be lost; a damaged file must be removed as well",
            )
        })?;
        if let Some(weather) = weather {
            sled.set_faults(Faults::default().in_weather(weather));
        }
        Ok(sled)
    }
}

/// Stores it beside what else there is to do: a sync takes its time, and those of many sleds share it.
#[expect(clippy::disallowed_methods, reason = "no sled looks at another's, and each waits for its own")]
fn stored(identity: Identity, dir: PathBuf) -> JoinHandle<Result<Identity, Failure>> {
    tokio::task::spawn_blocking(move || identity.store(&dir).map(|()| identity))
}

/// What can be refused before anything is touched: the share of failures in millionths, and whom it serves.
fn check(args: &SledRunArgs) -> Result<(u32, AgentAddr), Failure> {
    let usage = |what: String| Failure::new(Exit::Usage, what);
    if !(0.0..=1.0).contains(&args.fail_rate) {
        return Err(usage(format!("--fail-rate is {}; it must be between 0 and 1", args.fail_rate)));
    }
    if args.latency > LATENCY_MS_MAX {
        return Err(usage(format!("--latency is {} ms; it must be at most {LATENCY_MS_MAX}", args.latency)));
    }
    if args.count > 1 && args.listen.is_some_and(|listen| listen.port() != 0) {
        return Err(usage(format!("--count is {}, and one port cannot be all of theirs", args.count))
            .hint("give --listen a port of 0: each takes one that is free"));
    }
    if args.name.contains(['/', '\\']) || args.name.starts_with('.') {
        return Err(usage(format!(
            "--name \"{}\" cannot be the name of a directory",
            args.name.escape_debug()
        )));
    }
    let control_plane = AgentAddr::read("--control-plane", &args.control_plane).map_err(|invalid| {
        usage(invalid.to_string())
            .hint("it is the daemon's address for sleds, such as http://127.0.0.1:12221")
    })?;
    #[expect(clippy::cast_sign_loss, reason = "it is between 0 and a million")]
    let fails_per_million = (args.fail_rate * 1e6).round() as u32;
    Ok((fails_per_million, control_plane))
}

fn cannot(verb: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Refused, format!("cannot {verb} {}: {error}", path.display()))
}

async fn listen(asked: Option<SocketAddr>, last: Option<u16>) -> Result<TcpListener, Failure> {
    let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    if let (None, Some(port)) = (asked, last)
        && let Ok(listener) = TcpListener::bind(local(port)).await
    {
        return Ok(listener);
    }
    let address = asked.unwrap_or_else(|| local(0));
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(Exit::Refused, format!("cannot listen on {address}: {error}"))
            .hint("choose another address with --listen; port 0 takes any")
    })
}

fn advertised(args: &SledRunArgs, bound: SocketAddr) -> Result<AgentAddr, Failure> {
    let (field, text) = match &args.advertise {
        Some(text) => ("--advertise", text.clone()),
        None => ("--listen", bound.to_string()),
    };
    AgentAddr::read(field, &text).map_err(|invalid| {
        Failure::new(Exit::Usage, invalid.to_string())
            .hint("say with --advertise where others reach the sled")
    })
}

fn config(
    args: &SledRunArgs,
    one: &One,
    identity: &Identity,
    advertised: &AgentAddr,
) -> Result<Config, Failure> {
    let mut config = Config::new(identity.sled_id, &one.name, &advertised.to_string(), one.seed);
    config.cpu_family.clone_from(&args.cpu_family);
    config.resources = SledResources { threads: args.threads, memory: args.ram.saturating_mul(1 << 30) };
    config.idle_renewal_seconds = Some(IDLE_RENEWAL_SECONDS);
    config.dirty_rate = DirtyRate::of(args.dirty_rate.saturating_mul(10));
    // What every registration would be refused for is better said at once.
    let registration = RegisterSled {
        sled_id: config.sled_id,
        name: config.name.clone(),
        boot_id: identity.boot_id,
        resources: config.resources,
        cpu_family: config.cpu_family.clone(),
        api_addr: config.api_addr.clone(),
        store_id: None,
        held_epoch: None,
    };
    registration.validate().map_err(|invalid| Failure::new(Exit::Usage, invalid.to_string()))?;
    Ok(config)
}

/// For people, on stderr: where it is, what it holds, what to type next.
fn greet(args: &SledRunArgs, running: &[Running]) {
    let live = |sled: &Running| {
        sled.embedded
            .with_machine(|machine, _| machine.vmms().filter(|vmm| vmm.is_live()).count())
            .unwrap_or(0)
    };
    let held: usize = running.iter().map(live).sum();
    let (name, control_plane) = (&args.name, &args.control_plane);
    match running {
        [sled] => {
            eprintln!(
                "musher sled {name} is ready on http://{} (control plane: {control_plane})",
                sled.bound
            );
        }
        many => {
            eprintln!(
                "musher sleds {name}-0 to {name}-{} are ready (control plane: {control_plane})",
                many.len() - 1
            );
        }
    }
    eprintln!("  data      {} ({held} VMM(s) taken up)", directory(args).display());
    eprintln!("  size      {} threads, {} GiB, {}", args.threads, args.ram, args.cpu_family);
    eprintln!("  try       musher sled list");
}
