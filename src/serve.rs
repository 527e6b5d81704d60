//! `musher serve`: puts the parts together, says where they are, and takes them apart again.
//!
//! Start: addresses, lock, log, cache, read models, shared resources, sleds, unfinished work. Stop: no new
//! requests, appends finish, caches are brought up to date, the log is closed. `kill -9` at any point is
//! equally safe, only slower.

use crate::cli::ServeArgs;
use crate::config::{Config, LogFormat, Overrides};
use crate::exit::{Exit, Failure, Outcome};
use crate::real::{SystemClock, SystemIds, host_boot};
use actors::control::Predecessor;
use actors::projects::ProjectAsk;
use actors::{Clock as _, ControlPlane, Env, Fatal, IdSource as _, Limits, RequestContext, SledConnector};
use api::{ApiConfig, ApiState, Phase, Readiness};
use eventlog::cache::{Cache, SledCache, catch_up};
use eventlog::journal::{Journal, JournalConfig, OpenError, Recovery, StoreId, StoreLock};
use eventlog::{Log, Position};
use lifecycle::{InstanceId, Policy, SledId, Span};
use projections::Projections;
use sim_sled::embedded::{EmbeddedSled, Fabric, Options, StateFileError};
use sim_sled::machine::{Config as SledConfig, Timing};
use sled_protocol::{BootId, SledClient, SledResources};
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use uuid::Uuid;

/// Version shown and journaled.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");
/// Name of the project that a new store gets.
const FIRST_PROJECT: &str = "demo";
/// Longest wait for connections to finish at shutdown.
const CONNECTIONS_MAX: Duration = Duration::from_secs(5);
/// Records of the stream index that are written in one step.
const INDEX_STEPS: usize = 16;

/// Runs the daemon until a signal or a failure ends it.
pub async fn run(args: &ServeArgs) -> Outcome {
    let overrides = Overrides {
        data: args.data.clone(),
        listen: args.listen,
        sled_listen: args.sled_listen,
        no_embedded_sleds: args.no_embedded_sleds,
    };
    let config = Config::load(args.config.as_deref(), &overrides)
        .map_err(|error| Failure { exit: Exit::Usage, ..Failure::from(error) })?;
    start_logging(&config)?;
    // An address that is taken is found out before anything is opened; who connects meanwhile waits.
    let listeners = (listen(config.server.listen).await?, listen(config.server.sled_listen).await?);
    let (daemon, report) = Daemon::start(&config, args.accept_loss).await?;
    let ended = daemon.serve(&config, listeners, &report).await;
    daemon.stop().await;
    ended
}

fn start_logging(config: &Config) -> Outcome {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .or_else(|_| tracing_subscriber::EnvFilter::try_new(&config.logging.filter))
        .map_err(|error| Failure::new(Exit::Usage, format!("logging.filter: {error}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let is_for_eyes = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match config.logging.format {
        LogFormat::Text => builder.with_target(false).with_ansi(is_for_eyes).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// Everything that runs.
struct Daemon {
    _lock: StoreLock,
    control: ControlPlane,
    projections: Projections,
    projector: tokio::task::JoinHandle<()>,
    indexer: tokio::task::JoinHandle<()>,
    sleds: Vec<EmbeddedSled>,
    ready: Arc<Readiness>,
    fatal: Fatal,
}

/// What there is to say about the start.
struct Report {
    recovery: Recovery,
    predecessor: Predecessor,
    unfinished: usize,
}

impl Daemon {
    async fn start(config: &Config, accept_loss: bool) -> Result<(Self, Report), Failure> {
        let data = &config.server.data;
        std::fs::create_dir_all(data).map_err(|error| {
            Failure::new(
                Exit::Refused,
                format!("the data directory {} cannot be made: {error}", data.display()),
            )
        })?;
        let lock = StoreLock::acquire(data).map_err(open_failure)?;
        let (journal, recovery) = Journal::open(&data.join("journal"), journal_config(config, accept_loss))
            .map_err(open_failure)?;
        tell(&recovery);
        let store = journal.store_id();
        let journal = Arc::new(journal);
        let cache = open_cache(&data.join("cache"), store, &journal, config.log.cache_bytes);
        let log: Arc<dyn Log> = Arc::clone(&journal) as Arc<dyn Log>;
        if let Some(cache) = &cache {
            journal.attach_cache(Arc::clone(cache));
        }
        let indexer = tokio::spawn(keep_index(Arc::clone(&log), cache.clone()));
        let (fatal, switchboard) = (Fatal::default(), Arc::new(Switchboard::default()));
        let connector: Arc<dyn SledConnector> = Arc::clone(&switchboard) as _;
        let env = environment(config, Arc::clone(&log), cache.clone(), connector, fatal.clone());
        let (control, predecessor) = ControlPlane::start(env).await.map_err(start_failure)?;
        let (projections, projector) = projections::spawn(Arc::clone(&log), cache);
        let sleds = embedded_sleds(config, store, &control, &switchboard)?;
        if !predecessor.existed {
            first_project(&control).await?;
        }
        let stopped = |error: projections::Stopped| Failure::new(Exit::Damaged, error.to_string());
        projections.wait_for(log.durable()).await.map_err(stopped)?;
        let unfinished: Vec<InstanceId> = projections.read(|model| {
            model.instance_states().filter(|instance| !instance.is_quiesced()).map(|i| i.id).collect()
        });
        control.resume(unfinished.iter().copied()).await;
        let report = Report { recovery, predecessor, unfinished: unfinished.len() };
        let ready = Arc::new(Readiness::default());
        let daemon = Self { _lock: lock, control, projections, projector, indexer, sleds, ready, fatal };
        Ok((daemon, report))
    }

    /// Listens until a signal or a failure.
    async fn serve(
        &self,
        config: &Config,
        (clients, sleds): (TcpListener, TcpListener),
        report: &Report,
    ) -> Outcome {
        let addresses = (local(&clients)?, local(&sleds)?);
        let state = ApiState {
            control: self.control.clone(),
            projections: self.projections.clone(),
            ready: Arc::clone(&self.ready),
            build: BUILD.to_owned(),
        };
        let (stop, stopping) = watch::channel(false);
        let until = |mut stopping: watch::Receiver<bool>| async move {
            // A sender that is gone means the same.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let limits = ApiConfig::default();
        let for_clients =
            tokio::spawn(api::serve(clients, state.clone(), limits.clone(), until(stopping.clone())));
        let for_sleds = tokio::spawn(api::serve_sleds(sleds, state, limits, until(stopping)));
        self.ready.enter(Phase::Ready);
        greet(config, addresses, report);
        let ended = self.until_the_end().await;
        self.ready.enter(match &ended {
            Ok(()) => Phase::ShuttingDown,
            Err(failure) => Phase::Failed(failure.what.clone()),
        });
        let _ = stop.send(true);
        let both = async {
            let _ = for_clients.await;
            let _ = for_sleds.await;
        };
        if tokio::time::timeout(CONNECTIONS_MAX, both).await.is_err() {
            tracing::warn!("connections were cut off");
        }
        ended
    }

    async fn until_the_end(&self) -> Outcome {
        let no_signals = |error: std::io::Error| Failure::new(Exit::Refused, format!("no signals: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
        tokio::select! {
            biased;
            why = self.fatal.raised() => {
                tracing::error!(why, "the daemon must end");
                Err(Failure::new(Exit::Refused, format!("the daemon ended: {why}"))
                    .hint("nothing acknowledged is lost; start it again once the cause is mended"))
            }
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    }

    async fn stop(self) {
        eprintln!("stopping; nothing acknowledged is lost");
        // The simulated hosts live on in their state files, as real ones would without their control plane.
        for sled in &self.sleds {
            sled.shutdown().await;
        }
        self.control.shutdown().await;
        // Both end with the log, after bringing the cache up to date.
        let _ = self.projector.await;
        let _ = self.indexer.await;
    }
}

fn journal_config(config: &Config, accept_loss: bool) -> JournalConfig {
    let defaults = JournalConfig::new(StoreId(SystemIds.uuid().into_bytes()));
    JournalConfig {
        segment_bytes: config.log.segment_bytes,
        queue_requests_max: config.log.queue_requests_max,
        queue_bytes_max: config.log.queue_bytes_max,
        ring_bytes_max: config.log.ring_bytes_max,
        accept_loss,
        ..defaults
    }
}

/// Damage is one exit code, everything else another.
pub fn open_failure(error: OpenError) -> Failure {
    let exit = match &error {
        OpenError::InUse { .. }
        | OpenError::Io { .. }
        | OpenError::NoJournal { .. }
        | OpenError::Config(_) => Exit::Refused,
        OpenError::Foreign { .. }
        | OpenError::NewerFormat { .. }
        | OpenError::WrongStore { .. }
        | OpenError::MissingSegment { .. }
        | OpenError::Damaged(_)
        | OpenError::TailLost { .. }
        | OpenError::WitnessLost { .. } => Exit::Damaged,
    };
    Failure::new(exit, error.to_string())
}

/// What cannot be read is damage; what cannot be written or started is not.
fn start_failure(error: actors::StartError) -> Failure {
    let exit = match &error {
        actors::StartError::Read(_) | actors::StartError::Decode(_) => Exit::Damaged,
        actors::StartError::Append(_) | actors::StartError::Actor(_) => Exit::Refused,
    };
    Failure::new(exit, format!("the daemon cannot start: {error}"))
}

fn tell(recovery: &Recovery) {
    if let Some(trimmed) = &recovery.trimmed {
        tracing::warn!(?trimmed, "an incomplete last batch was cut off; nobody was told that it was durable");
    }
    if let Some(lost) = &recovery.lost {
        tracing::error!(?lost, "durable records are gone, as accepted");
    }
    for note in &recovery.notes {
        tracing::warn!(note, "log");
    }
}

/// Without a cache everything works, slower.
fn open_cache(dir: &Path, store: StoreId, journal: &Arc<Journal>, bytes: u64) -> Option<Arc<dyn Cache>> {
    match SledCache::open(dir, store, journal.durable(), bytes) {
        Ok((cache, report)) => {
            if let Some(why) = report.rebuilt {
                tracing::warn!(why, "the cache is built again from the log");
            }
            Some(Arc::new(cache))
        }
        Err(error) => {
            tracing::error!(%error, "no cache: starting takes longer");
            None
        }
    }
}

/// Keeps the stream index behind the log, until the log closes.
async fn keep_index(log: Arc<dyn Log>, cache: Option<Arc<dyn Cache>>) {
    let Some(cache) = cache else {
        return;
    };
    loop {
        match catch_up(&*log, &*cache, INDEX_STEPS) {
            Ok(indexed) if indexed < log.durable() => tokio::task::yield_now().await,
            Ok(indexed) => {
                if log.wait_durable(indexed.next()).await.is_err() {
                    return;
                }
                // What comes together is indexed together.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "the stream index is not kept; long histories are read slower");
                return;
            }
        }
    }
}

fn environment(
    config: &Config,
    log: Arc<dyn Log>,
    cache: Option<Arc<dyn Cache>>,
    connector: Arc<dyn SledConnector>,
    fatal: Fatal,
) -> Env {
    let defaults = Limits::default();
    Env {
        clock: Arc::new(SystemClock),
        ids: Arc::new(SystemIds),
        log,
        cache,
        connector,
        policy: Policy { start_deadline: Span::from_secs(config.instances.start_deadline_s) },
        limits: Limits {
            instance_queue_max: config.instances.queue_max,
            commands_max: config.instances.commands_max,
            sled_calls_max: config.sleds.calls_max,
            order_answer: Duration::from_secs(config.instances.order_answer_s),
            sled_call: Duration::from_secs(config.sleds.call_s),
            inventory_period: Duration::from_secs(config.sleds.inventory_s),
            restarts_max: config.instances.restarts_max,
            ..defaults
        },
        build: BUILD.to_owned(),
        fatal,
    }
}

/// Clients of the sleds that live in this process.
#[derive(Default)]
struct Switchboard {
    clients: Mutex<BTreeMap<SledId, Arc<dyn SledClient>>>,
}

impl SledConnector for Switchboard {
    fn connect(&self, sled: SledId, _address: &str) -> Option<Arc<dyn SledClient>> {
        // A map of handles is whole whatever panicked elsewhere.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&sled).cloned()
    }
}

fn embedded_sleds(
    config: &Config,
    store: StoreId,
    control: &ControlPlane,
    switchboard: &Arc<Switchboard>,
) -> Result<Vec<EmbeddedSled>, Failure> {
    let dir = config.server.data.join("sleds");
    let settings = &config.embedded_sleds;
    std::fs::create_dir_all(&dir)
        .map_err(|error| Failure::new(Exit::Refused, format!("{} cannot be made: {error}", dir.display())))?;
    let fabric = Fabric::default();
    let mut sleds = Vec::new();
    for n in 0..settings.count {
        let name = format!("sim-{n}");
        let id = embedded_id(store, n);
        let mut sled =
            SledConfig::new(sled_protocol::SledId::from_uuid(id), &name, &name, settings.seed + u64::from(n));
        sled.cpu_family.clone_from(&settings.cpu_family);
        sled.resources = SledResources { threads: settings.threads, memory: settings.memory_gib << 30 };
        let span = |[min, max]: [u64; 2]| sim_sled::machine::Span::millis(min, max);
        sled.timing = Timing { boot: span(settings.boot_ms), halt: span(settings.halt_ms), ..sled.timing };
        let opened = EmbeddedSled::open(Options {
            config: sled,
            boot_id: BootId::from_uuid(host_boot()),
            state_file: Some(dir.join(format!("{name}.jsonl"))),
            opened_at_micros: SystemClock.now().micros(),
            control_plane: control.intake(),
            fabric: fabric.clone(),
        });
        let embedded = opened.map_err(|error| {
            let exit = match &error {
                StateFileError::Damaged { .. } | StateFileError::TooLarge { .. } => Exit::Damaged,
                StateFileError::Read { .. } | StateFileError::Write(_) => Exit::Refused,
            };
            Failure::new(exit, format!("simulated sled {name}: {error}"))
                .hint("its state is in the data directory; without the file it starts empty")
        })?;
        let client: Arc<dyn SledClient> = Arc::new(embedded.clone());
        switchboard.clients.lock().unwrap_or_else(PoisonError::into_inner).insert(SledId::new(id), client);
        sleds.push(embedded);
    }
    Ok(sleds)
}

/// A sled keeps its id for as long as the store exists.
fn embedded_id(store: StoreId, n: u16) -> Uuid {
    let mut bytes = store.0;
    bytes[0] ^= 0x5d;
    bytes[14..].copy_from_slice(&n.to_be_bytes());
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

async fn first_project(control: &ControlPlane) -> Outcome {
    let ask =
        ProjectAsk::Create { name: FIRST_PROJECT.to_owned(), description: "made with the store".to_owned() };
    let context =
        RequestContext { actor: journal::Actor::Daemon, request: control.mint_request(), trace: None };
    let made = control.ask_project(None, ask, context).await;
    made.map(drop).map_err(|error| Failure::new(Exit::Refused, format!("no first project: {error}")))
}

async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(Exit::Refused, format!("cannot listen on {address}: {error}"))
            .hint("is another daemon running? choose another address with --listen and --sled-listen")
    })
}

fn local(listener: &TcpListener) -> Result<std::net::SocketAddr, Failure> {
    listener.local_addr().map_err(|error| Failure::new(Exit::Refused, format!("no address: {error}")))
}

/// For people, on stderr: where it is, what was recovered, what to type next.
fn greet(config: &Config, (clients, sleds): (std::net::SocketAddr, std::net::SocketAddr), report: &Report) {
    let Report { recovery, predecessor, unfinished } = report;
    eprintln!("musher {BUILD} is ready on http://{clients} (sleds: http://{sleds})");
    let data = config.server.data.display();
    if recovery.is_created {
        eprintln!("  data      {data} (new)");
    } else {
        let position = recovery.durable.max(Position::ZERO);
        let how = if predecessor.ended_cleanly { "after a clean stop" } else { "after a crash" };
        eprintln!("  data      {data} ({} streams, position {position}, {how})", recovery.streams);
        if *unfinished > 0 {
            eprintln!("  resuming  {unfinished} instance(s) with unfinished work");
        }
    }
    let count = config.embedded_sleds.count;
    if count > 0 {
        let (threads, memory) = (config.embedded_sleds.threads, config.embedded_sleds.memory_gib);
        eprintln!("  sleds     {count} simulated, {threads} threads and {memory} GiB each");
    }
    let server = if clients.port() == 12_220 { String::new() } else { format!(" --server http://{clients}") };
    eprintln!("  try       musher instance create web-1 --wait{server}");
}
