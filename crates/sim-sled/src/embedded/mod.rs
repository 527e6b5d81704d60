//! A simulated sled inside another process: the machine on tokio, kept in a file, speaking through traits.
//!
//! ```text
//!   SledClient calls ─▶ machine ─▶ state file ─▶ answer
//!                         │  ▲
//!            driver: poll when due ─▶ messages to migration peers (`Fabric`)
//!            reporter: pictures not yet accepted ─▶ ControlPlaneClient::report, for ever
//!            registrar: register, renew ─▶ ControlPlaneClient
//! ```
//!
//! Invariants:
//! * What a call changed is in the state file before it is answered or published. The file is not synced: it
//!   survives the death of the process, and a death of the machine is a reboot of the sled.
//! * A state that could not be written is never shown; the next call or retry writes the whole file anew.
//! * Per VMM one report is under way at a time, and it carries the newest picture.
//! * Time is the caller's at `open` and passes as tokio's clock does, at the rate that is configured, so that it never runs backwards and a
//!   paused runtime pauses the sled.
//! * Dropping the last handle, or `shutdown`, ends every task.

mod fabric;
mod state_file;
mod tasks;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use sled_protocol::{
    BootId, ControlPlaneClient, Inventory, LeaseEpoch, PropolisId, RegisterVmm, SerialData, SerialRange,
    SetState, SledClient, SledError, SledVmmState, V2pMapping,
};
use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use fabric::Fabric;
use state_file::StateFile;
pub use state_file::StateFileError;

use crate::faults::{Fault, Faults};
use crate::machine::{Answer, Config, PeerMessage, Request, Response, Sled};

/// What an embedded sled is made of.
pub struct Options {
    /// The sled.
    pub config: Config,
    /// The boot of the host; another one than in the state file is a reboot.
    pub boot_id: BootId,
    /// Where the sled's state survives the process; without it the sled lives in memory only.
    pub state_file: Option<PathBuf>,
    /// The time at `open`, in microseconds since the Unix epoch.
    pub opened_at_micros: u64,
    /// Whom it registers with and reports to.
    pub control_plane: Arc<dyn ControlPlaneClient>,
    /// How it reaches the other sleds of the process.
    pub fabric: Fabric,
}

/// A handle to one embedded sled; the last to be dropped ends it.
#[derive(Clone)]
pub struct EmbeddedSled {
    shared: Arc<Shared>,
    tasks: Arc<Mutex<Option<JoinSet<()>>>>,
}

impl EmbeddedSled {
    /// Takes up the sled from its state file, or starts a fresh one, and lets it run on the current runtime.
    /// Fails if the file cannot be read or written, or is damaged elsewhere than at its end.
    pub fn open(options: Options) -> Result<Self, StateFileError> {
        Self::open_core(options, |core| core.save().map_err(StateFileError::Write))
    }

    /// The same, but a file that cannot be written at present, on a full disk for one, is no failure: the sled is
    /// there, says nothing and refuses what changes it, and takes up its work as soon as it can write.
    pub fn open_when_writable(options: Options) -> Result<Self, StateFileError> {
        Self::open_core(options, |core| {
            if let Err(error) = core.save() {
                let sled = &core.machine.config().name;
                tracing::error!(sled, %error, "the sled cannot write its state, and waits until it can");
            }
            Ok(())
        })
    }

    fn open_core(
        options: Options,
        first_save: impl FnOnce(&mut Core) -> Result<(), StateFileError>,
    ) -> Result<Self, StateFileError> {
        let Options { config, boot_id, state_file, opened_at_micros, control_plane, fabric } = options;
        let addr = config.api_addr.clone();
        let (machine, file) = match state_file {
            None => (Sled::new(config, boot_id), None),
            Some(path) => {
                let (stored, file) = StateFile::open(path, boot_id)?;
                let machine = match stored {
                    Some(stored) => stored.reopened(config, boot_id, opened_at_micros),
                    None => Sled::new(config, boot_id),
                };
                (machine, Some(file))
            }
        };
        let clock = machine.config().clone();
        let mut core = Core { machine, file, faults: Faults::default(), is_closed: false };
        first_save(&mut core)?;
        let shared = Arc::new(Shared {
            core: Mutex::new(core),
            clock,
            opened_at_micros,
            opened: Instant::now(),
            poke: level::Sender::new(()),
            news: level::Sender::new(()),
        });
        fabric.join(addr, &shared);
        let tasks = tasks::spawn(&shared, control_plane, fabric);
        Ok(Self { shared, tasks: Arc::new(Mutex::new(Some(tasks))) })
    }

    /// Calls the machine at the current time: for guest and host events, steps, scripts, and the truth. What
    /// it changes is stored and published like everything else; `None` after `shutdown`, or if it could not
    /// be stored, in which case it has happened and is stored with the next change.
    pub fn with_machine<T>(&self, call: impl FnOnce(&mut Sled, u64) -> T) -> Option<T> {
        let result = self.shared.act(call);
        self.shared.poke();
        result.ok()
    }

    /// A message from the other side of a migration, from outside of the process; nothing is answered, and a
    /// message that does not arrive is repeated.
    pub fn take_from_peer(&self, message: PeerMessage) {
        self.shared.take_from_peer(message);
    }

    /// Plans how coming requests go wrong; counting starts anew.
    pub fn set_faults(&self, faults: Faults) {
        if let Ok(mut core) = self.shared.core.lock() {
            core.faults = faults;
        }
    }

    /// Ends every task and refuses further calls; the VMMs stay in the state file.
    pub async fn shutdown(&self) {
        if let Ok(mut core) = self.shared.core.lock() {
            core.is_closed = true;
        }
        let tasks = self.tasks.lock().ok().and_then(|mut tasks| tasks.take());
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
    }

    async fn call(&self, request: Request) -> Response {
        let fault = self.shared.core.lock().ok().and_then(|mut core| core.faults.next(request.kind()));
        match &fault {
            Some(Fault::Answer(error)) => return Err(error.clone()),
            Some(Fault::LoseRequest) => return Err(SledError::Transport("the request was lost".to_owned())),
            Some(Fault::Hang) => return futures::future::pending().await,
            Some(Fault::LoseAnswer | Fault::Slow(_)) | None => {}
        }
        let response = self.shared.act(|machine, now| machine.handle(now, request));
        self.shared.poke();
        match fault {
            Some(Fault::LoseAnswer) => return Err(SledError::Transport("the answer was lost".to_owned())),
            Some(Fault::Slow(micros)) => tokio::time::sleep(Duration::from_micros(micros)).await,
            _ => {}
        }
        response.unwrap_or_else(|down| Err(down.into()))
    }
}

/// Why the machine could not be called, or what it did could not be shown.
#[derive(Debug, Error)]
enum Down {
    #[error("the embedded sled was shut down")]
    Closed,
    #[error("the sled's machine broke one of its invariants and stays stopped")]
    Poisoned,
    #[error("the sled cannot write its state: {0}")]
    Store(#[from] io::Error),
}

impl From<Down> for SledError {
    fn from(down: Down) -> Self {
        match down {
            Down::Closed => Self::Transport(down.to_string()),
            Down::Poisoned | Down::Store(_) => Self::ServerError { status: 500, message: down.to_string() },
        }
    }
}

/// What handles and tasks share.
struct Shared {
    /// A std mutex: held for a call of the machine and a write to the page cache, never across an await.
    core: Mutex<Core>,
    /// How its clock runs.
    clock: Config,
    opened_at_micros: u64,
    opened: Instant,
    /// Something outside the driver has called the machine.
    poke: level::Sender<()>,
    /// The driver has polled the machine.
    news: level::Sender<()>,
}

struct Core {
    machine: Sled,
    file: Option<StateFile>,
    faults: Faults,
    is_closed: bool,
}

impl Core {
    fn save(&mut self) -> io::Result<()> {
        let changes = self.machine.take_changes();
        match &mut self.file {
            Some(file) => file.append(&changes, &self.machine),
            None => Ok(()),
        }
    }
}

impl Shared {
    /// Now, in microseconds since the Unix epoch.
    fn now(&self) -> u64 {
        let passed = u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.opened_at_micros.saturating_add(self.clock.shown(passed))
    }

    /// The tokio instant of a time of the machine.
    fn instant(&self, micros: u64) -> Instant {
        let ahead = Duration::from_micros(self.clock.real(micros.saturating_sub(self.opened_at_micros)));
        // A time beyond what the runtime can hold is as good as never.
        self.opened.checked_add(ahead).unwrap_or_else(|| Instant::now() + Duration::from_hours(24))
    }

    /// Calls the machine and stores what it changed, before anyone sees the result.
    fn act<T>(&self, call: impl FnOnce(&mut Sled, u64) -> T) -> Result<T, Down> {
        let mut core = self.core.lock().map_err(|_| Down::Poisoned)?;
        if core.is_closed {
            return Err(Down::Closed);
        }
        let result = call(&mut core.machine, self.now());
        core.save()?;
        Ok(result)
    }

    /// Asks the machine, and stores nothing: also while nothing can be stored.
    fn look<T>(&self, ask: impl FnOnce(&Sled) -> T) -> Result<T, Down> {
        let core = self.core.lock().map_err(|_| Down::Poisoned)?;
        if core.is_closed { Err(Down::Closed) } else { Ok(ask(&core.machine)) }
    }

    fn take_from_peer(&self, message: PeerMessage) {
        if let Err(down) = self.act(|machine, now| machine.handle_peer(now, message)) {
            tracing::debug!(%down, "a message from a migration peer was lost");
        }
        self.poke();
    }

    fn poke(&self) {
        self.poke.send_replace(());
    }
}

impl SledClient for EmbeddedSled {
    fn register(
        &self,
        vmm: PropolisId,
        request: RegisterVmm,
    ) -> BoxFuture<'_, Result<SledVmmState, SledError>> {
        async move {
            match self.call(Request::Register { vmm, body: request }).await? {
                Answer::Vmm(state) => Ok(state),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn unregister(
        &self,
        vmm: PropolisId,
        lease_epoch: LeaseEpoch,
    ) -> BoxFuture<'_, Result<Option<SledVmmState>, SledError>> {
        async move {
            match self.call(Request::Unregister { vmm, lease_epoch }).await? {
                Answer::Updated(state) => Ok(state),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn set_state(
        &self,
        vmm: PropolisId,
        request: SetState,
    ) -> BoxFuture<'_, Result<Option<SledVmmState>, SledError>> {
        async move {
            match self.call(Request::SetState { vmm, body: request }).await? {
                Answer::Updated(state) => Ok(state),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn get_state(&self, vmm: PropolisId) -> BoxFuture<'_, Result<SledVmmState, SledError>> {
        async move {
            match self.call(Request::GetState { vmm }).await? {
                Answer::Vmm(state) => Ok(state),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn inventory(&self) -> BoxFuture<'_, Result<Inventory, SledError>> {
        async move {
            match self.call(Request::Inventory).await? {
                Answer::Inventory(inventory) => Ok(inventory),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn put_v2p(
        &self,
        lease_epoch: LeaseEpoch,
        mappings: Vec<V2pMapping>,
    ) -> BoxFuture<'_, Result<(), SledError>> {
        async move {
            match self.call(Request::PutV2p { lease_epoch, mappings }).await? {
                Answer::Done => Ok(()),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn delete_v2p(
        &self,
        lease_epoch: LeaseEpoch,
        mappings: Vec<V2pMapping>,
    ) -> BoxFuture<'_, Result<(), SledError>> {
        async move {
            match self.call(Request::DeleteV2p { lease_epoch, mappings }).await? {
                Answer::Done => Ok(()),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn list_v2p(&self) -> BoxFuture<'_, Result<Vec<V2pMapping>, SledError>> {
        async move {
            match self.call(Request::ListV2p).await? {
                Answer::V2p(mappings) => Ok(mappings),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }

    fn serial(&self, vmm: PropolisId, range: SerialRange) -> BoxFuture<'_, Result<SerialData, SledError>> {
        async move {
            match self.call(Request::Serial { vmm, range }).await? {
                Answer::Serial(data) => Ok(data),
                other => Err(unexpected(&other)),
            }
        }
        .boxed()
    }
}

fn unexpected(answer: &Answer) -> SledError {
    SledError::BadAnswer(format!("an answer to another request: {answer:?}"))
}
