//! `musher serve`: puts the parts together, says where they are, and takes them apart again.
//!
//! Start: addresses, lock, log, cache, read models, shared resources, sleds, unfinished work. Stop: no new
//! requests, appends finish, caches are brought up to date, the log is closed. `kill -9` at any point is
//! equally safe, only slower.

use crate::access::Gate;
use crate::archive::{self, Keeping};
use crate::checkpoints::{self, Maker};
use crate::cli::ServeArgs;
use crate::config::{Config, LogFormat, Logging, Overrides};
use crate::doors::{Doors, listen};
use crate::embedded::{Switchboard, derived_id, embedded_sleds, until_registered};
use crate::environment::{environment, policy};
use crate::exit::{Exit, Failure, Outcome};
use crate::notify::Manager;
use crate::real::raise_open_files;
use crate::sled_keys::fleet_secret;
use crate::stopping::{Stage, in_time};
use crate::store::{
    Keeper, keep_index, keep_small, must_be_whole, open_cache, open_failure, open_journal, tell, write_out,
};
use crate::telemetry::{self, Exporter, SpanLayer};
use actors::control::Predecessor;
use actors::projects::ProjectAsk;
use actors::{Census, ControlPlane, Fatal, RequestContext, SledConnector};
use api::{Access, ApiState, LogKeeper, Phase, Readiness, SpanTally};
use eventlog::cache::Cache;
use eventlog::journal::{Recovery, StoreId, StoreLock};
use eventlog::{Log, Position, ReadError, Version};
use journal::StreamName;
use lifecycle::restart::restart_due;
use lifecycle::{Instance, InstanceId, ProjectId};
use projections::Projections;
use sim_sled::embedded::EmbeddedSled;
use sled_protocol::FleetSecret;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Version shown and journaled.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");
/// Name of the project that a new store gets.
const FIRST_PROJECT: &str = "demo";
/// What tells the project's id from others derived from the same store.
const FIRST_PROJECT_TAG: u8 = 0x01;
/// How long a stop waits for a last checkpoint.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the daemon until a signal or a failure ends it.
pub async fn run(args: &ServeArgs) -> Outcome {
    let overrides = Overrides {
        data: args.data.clone(),
        listen: args.listen,
        sled_listen: args.sled_listen,
        tokens: args.tokens.clone(),
        no_embedded_sleds: args.no_embedded_sleds,
    };
    let config = Config::load(args.config.as_deref(), &overrides)
        .map_err(|error| Failure { exit: Exit::Usage, ..Failure::from(error) })?;
    let spans = Arc::new(SpanTally::default());
    let (exporter, layer) = Exporter::start(&config.telemetry, &spans).unzip();
    start_logging(&config.logging, layer)?;
    #[cfg(feature = "failpoints")]
    crate::failpoints::arm()?;
    let gate = Gate::open(&config)?;
    let manager = Manager::from_env();
    raise_open_files();
    let secret = fleet_secret(config.sleds.secret(), config.server.sled_listen)?.map(Arc::new);
    // An address that is taken is found out before anything is opened; who connects meanwhile waits.
    let listeners = (listen(config.server.listen).await?, listen(config.server.sled_listen).await?);
    // Before anything runs: a signal that comes early must still end it cleanly.
    let mut signals = Signals::listen()?;
    // Where there is nothing to read again, a terminal that hangs up ends it as ever.
    let reload = if gate.has_file() { Some(hangups()?) } else { None };
    let began = Instant::now();
    let started = tokio::select! {
        biased;
        // Nothing has been acknowledged: ending here is what kill -9 is.
        () = signals.any() => return Ok(()),
        started = Daemon::start(&config, secret.clone(), args.accept_loss) => started,
    };
    let (daemon, report) = started?;
    daemon.ready.recovered(began.elapsed());
    let state = daemon.state(spans, gate.access(), secret.map_or(Access::Anybody, Access::Sleds));
    let doors = Doors::open(&config, listeners, state)?;
    daemon.ready.enter(Phase::Ready);
    greet(&config, doors.addresses, &report);
    manager.ready();
    let ended = daemon.until_the_end(&mut signals, reload, (&gate, &manager)).await;
    manager.stopping();
    daemon.ready.enter(match &ended {
        Ok(()) => Phase::ShuttingDown,
        Err(failure) => Phase::Failed(failure.what.clone()),
    });
    eprintln!("stopping; nothing acknowledged is lost");
    let stage = Stage::new("requests under way");
    let lock = Arc::clone(&daemon.lock);
    let stopped = in_time(&mut signals, &stage, async {
        doors.close().await;
        daemon.stop(&stage).await;
        if let Some(exporter) = exporter {
            stage.enter("the last spans");
            exporter.finish().await;
        }
    });
    let stopped = stopped.await;
    if stopped.is_err() {
        // Whatever still writes does so under the lock, until the process is gone.
        std::mem::forget(lock);
    }
    ended.and(stopped)
}

/// Logs on stderr from here on; spans go to `spans`, if they go anywhere.
pub fn start_logging(logging: &Logging, spans: Option<SpanLayer>) -> Outcome {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&logging.filter))
        .map_err(|error| Failure::new(Exit::Usage, format!("logging.filter: {error}")))?;
    let is_for_eyes = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match logging.format {
        LogFormat::Text => lines.with_target(false).with_ansi(is_for_eyes).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let spans = spans.map(|spans| spans.with_filter(telemetry::wanted()));
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).init();
    Ok(())
}

/// What tells a process to end.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From here on a signal does not kill the process.
    pub fn listen() -> Result<Self, Failure> {
        let on =
            |kind| signal(kind).map_err(|error| Failure::new(Exit::Refused, format!("no signals: {error}")));
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    /// Waits for either.
    pub async fn any(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// From here on SIGHUP does not kill the process.
fn hangups() -> Result<Signal, Failure> {
    signal(SignalKind::hangup()).map_err(|error| Failure::new(Exit::Refused, format!("no signals: {error}")))
}

/// Everything that runs.
struct Daemon {
    lock: Arc<StoreLock>,
    control: ControlPlane,
    projections: Projections,
    projector: tokio::task::JoinHandle<()>,
    indexer: tokio::task::JoinHandle<()>,
    cache: Option<Arc<dyn Cache>>,
    sleds: Vec<EmbeddedSled>,
    ready: Arc<Readiness>,
    fatal: Fatal,
    keeper: Arc<dyn LogKeeper>,
    upkeep: tokio::task::JoinHandle<()>,
    archive: PathBuf,
    maker: Option<Arc<Maker>>,
    making: Option<tokio::task::JoinHandle<()>>,
}

/// What there is to say about the start.
struct Report {
    recovery: Recovery,
    predecessor: Predecessor,
    /// Where what was folded beforehand ended, if it was used.
    checkpoint: Option<Position>,
    unfinished: usize,
}

impl Daemon {
    async fn start(
        config: &Config,
        secret: Option<Arc<FleetSecret>>,
        accept_loss: bool,
    ) -> Result<(Self, Report), Failure> {
        let data = &config.server.data;
        std::fs::create_dir_all(data).map_err(|error| {
            Failure::new(
                Exit::Refused,
                format!("the data directory {} cannot be made: {error}", data.display()),
            )
        })?;
        let lock = StoreLock::acquire(data).map_err(open_failure)?;
        must_be_whole(data)?;
        let archive = archive::directory(config);
        archive::sweep(&archive)?;
        let (journal, mut recovery, is_end_lost) = open_journal(config, accept_loss)?;
        archive::attach(&journal, &archive)?;
        let journal = Arc::new(journal);
        tokio::spawn(journal.herald());
        let is_loss_accepted =
            checkpoints::judge_end(data, &journal, &mut recovery, accept_loss)? || is_end_lost;
        tell(&recovery);
        let store = journal.store_id();
        let cache = open_cache(&data.join("cache"), store, &journal, config.log.cache_bytes);
        let log: Arc<dyn Log> = Arc::clone(&journal) as Arc<dyn Log>;
        if let Some(cache) = &cache {
            journal.attach_cache(Arc::clone(cache));
        }
        let indexer = tokio::spawn(keep_index(Arc::clone(&log), cache.clone()));
        let call = config.sleds.call.times().longest();
        let (fatal, switchboard) = (Fatal::default(), Arc::new(Switchboard::new(call, secret)?));
        let connector: Arc<dyn SledConnector> = Arc::clone(&switchboard) as _;
        let env = environment(config, Arc::clone(&log), cache.clone(), connector, fatal.clone());
        let known = checkpoints::starting_point(data, &journal, &recovery);
        let checkpoint = known.as_ref().map(checkpoint::State::position);
        let newest = checkpoint.unwrap_or_default();
        let maker = Maker::new(data, &journal, &recovery, &config.checkpoint, newest);
        let (shared, model) = checkpoints::parts(known);
        let (control, predecessor) = ControlPlane::start_from(env, shared).await.map_err(start_failure)?;
        if is_loss_accepted {
            let found = recovery.lost.as_ref().map_or(recovery.durable, |lost| lost.found).get();
            let durable = recovery.lost.as_ref().map_or(found, |lost| lost.witnessed.get());
            control.record_loss(durable, found, recovery.nameless).await.map_err(start_failure)?;
            checkpoints::forget_lost_end(data, recovery.durable);
        }
        let (projections, projector) = match model {
            Some(model) => projections::spawn_from(Arc::clone(&log), cache.clone(), model),
            None => projections::spawn(Arc::clone(&log), cache.clone()),
        };
        let sleds = embedded_sleds(config, store, &control, &switchboard)?;
        first_project(&control, store).await?;
        until_registered(&control, &sleds).await;
        let stopped = |error: projections::Stopped| Failure::new(Exit::Damaged, error.to_string());
        projections.wait_for(log.durable()).await.map_err(stopped)?;
        let policy = policy(config);
        let unfinished: Vec<InstanceId> = projections.read(|model| {
            let has_work =
                |instance: &Instance| !instance.is_quiesced() || restart_due(instance, &policy).is_some();
            model.instance_states().filter(|instance| has_work(instance)).map(|i| i.id).collect()
        });
        control.resume(unfinished.iter().copied()).await;
        let keeping = Keeping::new(Arc::clone(&journal), projections.clone(), config);
        control.archive_into(Arc::new(keeping));
        control.start_timers(Arc::new(ReadModelCensus(projections.clone())));
        let report = Report { recovery, predecessor, checkpoint, unfinished: unfinished.len() };
        let ready = Arc::new(Readiness::default());
        let keeper: Arc<dyn LogKeeper> =
            Arc::new(Keeper { journal, data: data.clone(), backing_up: Mutex::new(()) });
        let every = Duration::from_secs(config.log.compact_every_s);
        let upkeep = tokio::spawn(keep_small(Arc::clone(&keeper), every));
        let daemon = Self {
            lock: Arc::new(lock),
            control,
            projections,
            projector,
            indexer,
            cache,
            sleds,
            ready,
            fatal,
            keeper,
            upkeep,
            archive,
            making: maker.clone().map(|maker| tokio::spawn(maker.run())),
            maker,
        };
        Ok((daemon, report))
    }

    /// What the listeners serve.
    fn state(&self, spans: Arc<SpanTally>, access: Access, sled_access: Access) -> ApiState {
        ApiState {
            control: self.control.clone(),
            projections: self.projections.clone(),
            ready: Arc::clone(&self.ready),
            build: BUILD.to_owned(),
            keeper: Some(Arc::clone(&self.keeper)),
            archive: Some(self.archive.clone()),
            spans,
            access,
            sled_access,
        }
    }

    async fn until_the_end(
        &self,
        signals: &mut Signals,
        mut reload: Option<Signal>,
        (gate, manager): (&Gate, &Manager),
    ) -> Outcome {
        let mut alive = std::pin::pin!(manager.keep_alive(&self.control));
        let mut hangup = async || match &mut reload {
            Some(hangups) => drop(hangups.recv().await),
            None => std::future::pending().await,
        };
        loop {
            tokio::select! {
                biased;
                why = self.fatal.raised() => {
                    tracing::error!(why, "the daemon must end");
                    return Err(Failure::new(Exit::Refused, format!("the daemon ended: {why}"))
                        .hint("nothing acknowledged is lost; start it again once the cause is mended"));
                }
                () = signals.any() => return Ok(()),
                () = hangup() => {
                    manager.reloading();
                    gate.reload();
                    manager.ready();
                }
                () = &mut alive => unreachable!("it is kept alive until the end"),
            }
        }
    }

    async fn stop(self, stage: &Stage) {
        stage.enter("the sleds in this process");
        // The simulated hosts live on in their state files, as real ones would without their control plane.
        for sled in &self.sleds {
            sled.shutdown().await;
        }
        self.upkeep.abort();
        if let Some(making) = &self.making {
            making.abort();
        }
        stage.enter("appends under way");
        self.control.shutdown().await;
        stage.enter("the read model");
        // Both end with the log, after bringing the cache up to date.
        let _ = self.projector.await;
        let _ = self.indexer.await;
        // The daemon may end before the last of those who hold the cache has let go of it.
        if let Some(cache) = self.cache {
            stage.enter("the cache");
            write_out(cache).await;
        }
        // Last, because nothing needs it: without it the next start only takes longer.
        stage.enter("a last checkpoint");
        if let Some(maker) = self.maker
            && tokio::time::timeout(CHECKPOINT_PATIENCE, maker.stop()).await.is_err()
        {
            tracing::warn!("no checkpoint at the stop: it took too long");
        }
    }
}

/// What cannot be read is damage; what cannot be written or started is not.
fn start_failure(error: actors::StartError) -> Failure {
    let exit = match &error {
        actors::StartError::Read(_) | actors::StartError::Decode(_) => Exit::Damaged,
        actors::StartError::Append(_) | actors::StartError::Actor(_) => Exit::Refused,
    };
    let failure = Failure::new(exit, format!("the daemon cannot start: {error}"));
    match error {
        actors::StartError::Read(ReadError::Damaged { last: None, .. }) => {
            failure.hint("start it again: the damage is looked for at the next opening, and only its streams are quarantined")
        }
        _ => failure,
    }
}

/// What the reapers look at.
struct ReadModelCensus(Projections);

impl Census for ReadModelCensus {
    fn find(&self, wanted: &dyn Fn(&Instance) -> bool) -> Vec<InstanceId> {
        self.0.read(|model| model.instance_states().filter(|state| wanted(state)).map(|s| s.id).collect())
    }
}

/// Makes the first project, once: its id comes from the store's, and a stream that has begun, even one that
/// ended with the project's deletion, is left alone. A first start that was killed is made up for here.
async fn first_project(control: &ControlPlane, store: StoreId) -> Outcome {
    let id = ProjectId::new(derived_id(store, FIRST_PROJECT_TAG, 0));
    if control.log().head(StreamName::Project(id).id()).version > Version::ZERO {
        return Ok(());
    }
    let ask =
        ProjectAsk::Create { name: FIRST_PROJECT.to_owned(), description: "made with the store".to_owned() };
    let context = RequestContext::of(journal::Actor::Daemon, control.mint_request());
    match control.ask_project(Some(id), ask, context).await {
        Ok(_) => Ok(()),
        // Without space there will be no project until there is; reads go on.
        Err(error) => {
            tracing::warn!(%error, "project \"{FIRST_PROJECT}\" was not made");
            Ok(())
        }
    }
}

/// For people, on stderr: where it is, what was recovered, what to type next.
fn greet(config: &Config, (clients, sleds): (std::net::SocketAddr, std::net::SocketAddr), report: &Report) {
    let Report { recovery, predecessor, checkpoint, unfinished } = report;
    eprintln!("musher {BUILD} is ready on http://{clients} (sleds: http://{sleds})");
    let data = config.server.data.display();
    if recovery.is_created {
        eprintln!("  data      {data} (new)");
    } else {
        let position = recovery.durable.max(Position::ZERO);
        let how = if predecessor.ended_cleanly { "after a clean stop" } else { "after a crash" };
        eprintln!("  data      {data} ({} streams, position {position}, {how})", recovery.streams);
        if let Some(checkpoint) = checkpoint {
            let since = position.get() - checkpoint.get();
            eprintln!("  folded    {since} event(s), from the checkpoint at position {checkpoint}");
        }
        if *unfinished > 0 {
            eprintln!("  resuming  {unfinished} instance(s) with unfinished work");
        }
    }
    let count = config.embedded_sleds.count;
    if count > 0 {
        let (threads, memory) = (config.embedded_sleds.threads, config.embedded_sleds.memory_gib);
        eprintln!("  sleds     {count} simulated, {threads} threads and {memory} GiB each");
    } else {
        eprintln!(
            "  sleds     none in this process; add one: musher sled run --name a --control-plane http://{sleds}"
        );
    }
    let server = if clients.port() == 12_220 { String::new() } else { format!(" --server http://{clients}") };
    eprintln!("  try       musher instance create web-1 --wait{server}");
}
