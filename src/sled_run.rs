//! `musher sled run`: one simulated sled as a process of its own, reached over HTTP like a real one.
//!
//! * Its identity (`sled.json`) and its VMMs (`state.jsonl`) outlive the process: ending it, by a signal or by
//!   `kill -9`, is a restart of the agent, and no guest notices.
//! * A reboot of this host, or `--reboot`, is a new boot: no VMM is left.
//! * It registers for ever: a control plane that is away, or refuses, is asked again.

use crate::cli::SledRunArgs;
use crate::config::{LogFormat, Logging};
use crate::exit::{Exit, Failure, Outcome};
use crate::real::{SystemClock, SystemIds, host_boot, host_uptime};
use crate::serve::{Signals, start_logging};
use crate::sled_keys::agent_key;
use actors::{Clock as _, IdSource as _};
use eventlog::journal::StoreLock;
use serde::{Deserialize, Serialize};
use sim_sled::embedded::{EmbeddedSled, Fabric, Options, StateFileError};
use sim_sled::faults::Faults;
use sim_sled::machine::{Config, DirtyRate, Span};
use sim_sled::peers;
use sim_sled::server::{self, ServerLimits};
use sim_sled::weather::{Unreliable, Weather};
use sled_protocol::{
    AgentAddr, BootId, ControlPlaneClient, ControlPlaneError, HttpTimeouts, HttpTransport, PropolisId,
    RegisterSled, RenewLease, SledId, SledKey, SledLease, SledResources, SledVmmState,
};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

/// How long a call of the control plane may take.
const TIMEOUTS: HttpTimeouts =
    HttpTimeouts { connect: Duration::from_secs(2), call: Duration::from_secs(10) };

/// How often it asks whether the control plane still knows it, in seconds.
const IDLE_RENEWAL_SECONDS: u64 = 15;

/// Longest latency, in milliseconds: beyond it every call of the daemon times out.
const LATENCY_MS_MAX: u64 = 60_000;

/// Runs the sled until a signal ends it.
pub async fn run(args: &SledRunArgs) -> Outcome {
    let (fails_per_million, control_plane) = check(args)?;
    let key = agent_key(args.key.as_deref(), args.listen)?;
    start_logging(&Logging { format: LogFormat::Text, filter: "info".to_owned() })?;
    let mut signals = Signals::listen()?;
    let dir = args.data.clone().unwrap_or_else(|| Path::new("sleds").join(&args.name));
    std::fs::create_dir_all(&dir).map_err(|error| cannot("make", &dir, &error))?;
    let _lock = StoreLock::acquire(&dir).map_err(|error| {
        Failure::new(Exit::Refused, format!("the sled's directory cannot be taken: {error}"))
            .hint("one process per sled: give each its own --name or --data")
    })?;
    let mut identity = Identity::take_up(&dir, args.reboot, key.as_ref())?;
    let listener = listen(args.listen, identity.port).await?;
    let bound = listener
        .local_addr()
        .map_err(|error| Failure::new(Exit::Refused, format!("the agent has no address: {error}")))?;
    identity.port = Some(bound.port());
    let config = config(args, &identity, &advertised(args, bound)?)?;
    // Only now is a new boot one: a refusal up to here must not cost the VMMs of the last.
    identity.store(&dir)?;

    let latency = Span::millis(args.latency / 2, args.latency + args.latency / 2);
    let is_calm = fails_per_million == 0 && args.latency == 0;
    let weather = (!is_calm).then(|| Weather::new(config.sled_id, args.seed, fails_per_million, latency));
    let (outward, messages) = mpsc::channel(peers::QUEUE_MAX);
    let sled =
        open(config, &identity, &dir, weather, (&control_plane, key.as_ref()), Fabric::reaching(outward))?;
    let posting = tokio::spawn(peers::post_all(messages, weather, key.as_ref().map(SledKey::to_peer)));
    let (stop, mut stopping) = watch::channel(false);
    let until_stopped = async move {
        // A sender that is gone means the same.
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let mut serving =
        tokio::spawn(server::serve(listener, sled.clone(), ServerLimits::default(), key, until_stopped));
    greet(args, bound, &dir, &sled);
    let ended = tokio::select! {
        biased;
        () = signals.any() => Ok(()),
        broken = &mut serving => Err(Failure::new(Exit::Refused, format!("the agent's listener broke: {broken:?}"))),
    };
    let _ = stop.send(true);
    if ended.is_ok() {
        // Requests under way finish; it has its own bound.
        let _ = serving.await;
    }
    sled.shutdown().await;
    posting.abort();
    eprintln!("stopped; its VMMs stay in {} until it is started again", dir.display());
    ended
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

/// What stays of a sled when its process ends, beside its VMMs.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Identity {
    sled_id: SledId,
    boot_id: BootId,
    /// The boot of the host that this boot of the sled is in.
    host_boot: Uuid,
    /// What the wall clock said when the host's uptime was zero, in microseconds: its agents count from there, so
    /// that a wall clock that is set back lengthens no lease.
    #[serde(default)]
    zero_micros: Option<u64>,
    /// Where it listened: its address should survive a restart of the agent.
    port: Option<u16>,
}

impl Identity {
    fn take_up(dir: &Path, reboot: bool, key: Option<&SledKey>) -> Result<Self, Failure> {
        let host_boot = host_boot();
        let path = Self::path(dir);
        let mut identity: Self = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                Failure::new(Exit::Damaged, format!("{} is damaged: {error}", path.display()))
                    .hint("remove the directory: the sled is then another one, and its VMMs are gone")
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self {
                sled_id: key.map_or_else(|| SledId::from_uuid(SystemIds.uuid()), SledKey::sled),
                boot_id: BootId::from_uuid(SystemIds.uuid()),
                host_boot,
                zero_micros: None,
                port: None,
            },
            Err(error) => return Err(cannot("read", &path, &error)),
        };
        if let Some(key) = key.filter(|key| key.sled() != identity.sled_id) {
            let what =
                format!("the key is of sled {}, and this directory of sled {}", key.sled(), identity.sled_id);
            return Err(Failure::new(Exit::Refused, what)
                .hint("make its own: musher sled key --secret FILE --sled ID; or give it another --data"));
        }
        if reboot || identity.host_boot != host_boot {
            identity.boot_id = BootId::from_uuid(SystemIds.uuid());
            identity.host_boot = host_boot;
            identity.zero_micros = None;
        }
        if identity.zero_micros.is_none() {
            identity.zero_micros = uptime_micros().map(|up| SystemClock.now().micros().saturating_sub(up));
        }
        Ok(identity)
    }

    /// The time by the host's own count, in microseconds since the Unix epoch.
    fn now_micros(&self) -> u64 {
        let counted = self.zero_micros.zip(uptime_micros()).map(|(zero, up)| zero.saturating_add(up));
        counted.unwrap_or_else(|| SystemClock.now().micros())
    }

    /// Replaced as a whole and synced: an id that was registered must not be forgotten.
    fn store(&self, dir: &Path) -> Outcome {
        let path = Self::path(dir);
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            std::fs::File::open(dir)?.sync_all()
        };
        write().map_err(|error| cannot("write", &path, &error))
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join("sled.json")
    }
}

fn uptime_micros() -> Option<u64> {
    u64::try_from(host_uptime()?.as_micros()).ok()
}

fn cannot(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
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

fn config(args: &SledRunArgs, identity: &Identity, advertised: &AgentAddr) -> Result<Config, Failure> {
    let mut config = Config::new(identity.sled_id, &args.name, &advertised.to_string(), args.seed);
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
    };
    registration.validate().map_err(|invalid| Failure::new(Exit::Usage, invalid.to_string()))?;
    Ok(config)
}

fn open(
    config: Config,
    identity: &Identity,
    dir: &Path,
    weather: Option<Weather>,
    (control_plane, key): (&AgentAddr, Option<&SledKey>),
    fabric: Fabric,
) -> Result<EmbeddedSled, Failure> {
    let transport = HttpTransport::new(TIMEOUTS).map_err(|error| {
        Failure::new(Exit::Refused, format!("the control plane cannot be reached: {error}"))
    })?;
    let client = transport.control_plane(control_plane);
    let mut client: Arc<dyn ControlPlaneClient> = match key {
        Some(key) => Arc::new(client.with_token(key.to_control_plane())),
        None => Arc::new(client),
    };
    if let Some(weather) = weather {
        client = Arc::new(Unreliable::new(client, weather));
    }
    let opened = EmbeddedSled::open(Options {
        config,
        boot_id: identity.boot_id,
        state_file: Some(dir.join("state.jsonl")),
        opened_at_micros: identity.now_micros(),
        control_plane: Arc::new(Announced::new(client)),
        fabric,
    });
    let sled = opened.map_err(|error| {
        let exit = match &error {
            StateFileError::Damaged { .. } | StateFileError::TooLarge { .. } => Exit::Damaged,
            StateFileError::Read { .. } | StateFileError::Write(_) => Exit::Refused,
        };
        Failure::new(exit, error.to_string())
            .hint("start it with --reboot if its VMMs may be lost; a damaged file must be removed as well")
    })?;
    if let Some(weather) = weather {
        sled.set_faults(Faults::default().in_weather(weather));
    }
    Ok(sled)
}

/// For people, on stderr: where it is, what it holds, what to type next.
fn greet(args: &SledRunArgs, bound: SocketAddr, dir: &Path, sled: &EmbeddedSled) {
    let held = sled.with_machine(|machine, _| machine.vmms().filter(|vmm| vmm.is_live()).count());
    eprintln!("musher sled {} is ready on http://{bound} (control plane: {})", args.name, args.control_plane);
    eprintln!("  data      {} ({} VMM(s) taken up)", dir.display(), held.unwrap_or(0));
    eprintln!("  size      {} threads, {} GiB, {}", args.threads, args.ram, args.cpu_family);
    eprintln!("  try       musher sled list");
}

type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, ControlPlaneError>> + Send + 'a>>;

/// Tells people what became of registering, whenever that changes.
struct Announced {
    control_plane: Arc<dyn ControlPlaneClient>,
    said: Mutex<String>,
}

impl Announced {
    const fn new(control_plane: Arc<dyn ControlPlaneClient>) -> Self {
        Self { control_plane, said: Mutex::new(String::new()) }
    }

    fn say(&self, outcome: &Result<SledLease, ControlPlaneError>) {
        let text = match outcome {
            Ok(lease) => format!("registered; lease epoch {}", lease.lease_epoch),
            Err(error) => format!("not registered, trying again: {error}"),
        };
        // A text is whole whatever panicked elsewhere.
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != text {
            if outcome.is_ok() {
                tracing::info!("{text}");
            } else {
                tracing::warn!("{text}");
            }
            *said = text;
        }
    }
}

impl ControlPlaneClient for Announced {
    fn report(&self, sled: SledId, vmm: PropolisId, state: SledVmmState) -> Call<'_, ()> {
        self.control_plane.report(sled, vmm, state)
    }

    fn register(&self, request: RegisterSled) -> Call<'_, SledLease> {
        Box::pin(async move {
            let outcome = self.control_plane.register(request).await;
            self.say(&outcome);
            outcome
        })
    }

    fn renew(&self, sled: SledId, request: RenewLease) -> Call<'_, ()> {
        self.control_plane.renew(sled, request)
    }
}
