//! The daemon's ways to sleds: to simulated ones in its own process, and over HTTP to all others.
//!
//! Those in the process live on in their state files, as real hosts would without their control plane.

use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::real::{SystemClock, host_boot};
use actors::{Clock as _, ControlPlane, SledConnector};
use eventlog::StoreId;
use lifecycle::SledId;
use sim_sled::embedded::{EmbeddedSled, Fabric, Options, StateFileError};
use sim_sled::machine::{Config as SledConfig, Timing};
use sled_protocol::{
    AgentAddr, BootId, CallCount, FleetSecret, HttpTimeouts, HttpTransport, SledClient, SledResources,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// What tells the ids of sleds from others derived from the same store.
const SLED_TAG: u8 = 0x5d;

/// How often, and how far apart, a start looks whether its sleds have registered: three seconds in all.
const REGISTER_LOOKS_MAX: u32 = 600;
const REGISTER_PAUSE: Duration = Duration::from_millis(5);

/// Longest wait for a connection to a sled; shorter than a call, so that one to a host that is gone ends as a
/// failure to connect.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Clients of the sleds that live in this process, and connections to all others.
pub struct Switchboard {
    clients: Mutex<BTreeMap<SledId, Arc<dyn SledClient>>>,
    transport: HttpTransport,
    /// What tells the other sleds that it is their control plane that calls.
    secret: Option<Arc<FleetSecret>>,
}

impl Switchboard {
    /// No call over HTTP takes longer than `call`, whatever its own bound, and each shows the token made from `secret`.
    pub fn new(call: Duration, secret: Option<Arc<FleetSecret>>) -> Result<Self, Failure> {
        let transport = HttpTransport::new(HttpTimeouts { connect: call.min(CONNECT_MAX), call })
            .map_err(|error| Failure::new(Exit::Refused, format!("sleds cannot be reached: {error}")))?;
        Ok(Self { clients: Mutex::default(), transport, secret })
    }
}

impl SledConnector for Switchboard {
    /// A sled of this process is found by its id alone, so that nobody else's address is used for it.
    fn connect(&self, sled: SledId, address: &str) -> Option<Arc<dyn SledClient>> {
        // A map of handles is whole whatever panicked elsewhere.
        let own = self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&sled).cloned();
        let remote = || {
            let agent = AgentAddr::read("api_addr", address).ok()?;
            let client = self.transport.sled(&agent);
            let key =
                self.secret.as_ref().map(|secret| secret.key(sled_protocol::SledId::from_uuid(sled.uuid())));
            Some(match key {
                Some(key) => Arc::new(client.with_token(key.to_sled())) as Arc<dyn SledClient>,
                None => Arc::new(client),
            })
        };
        own.or_else(remote)
    }

    fn calls(&self) -> Vec<CallCount> {
        self.transport.calls()
    }
}

/// Opens all of them, and makes each findable.
pub fn embedded_sleds(
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
        let id = derived_id(store, SLED_TAG, n);
        let mut sled =
            SledConfig::new(sled_protocol::SledId::from_uuid(id), &name, &name, settings.seed + u64::from(n));
        sled.cpu_family.clone_from(&settings.cpu_family);
        sled.resources = SledResources { threads: settings.threads, memory: settings.memory_gib << 30 };
        let span = |[min, max]: [u64; 2]| sim_sled::machine::Span::millis(min, max);
        sled.timing = Timing { boot: span(settings.boot_ms), halt: span(settings.halt_ms), ..sled.timing };
        let opened = EmbeddedSled::open_when_writable(Options {
            config: sled,
            boot_id: BootId::from_uuid(host_boot()),
            state_file: Some(dir.join(format!("{name}.jsonl"))),
            opened_at_micros: SystemClock.now().micros(),
            control_plane: control.intake(),
            fabric: fabric.clone(),
        });
        let embedded = match opened {
            Ok(embedded) => embedded,
            Err(error @ (StateFileError::Write(_) | StateFileError::Read { .. })) => {
                // Like a host that does not come up: its guests are where they were, and reads go on.
                tracing::error!(sled = name, %error, "simulated sled stays away until the next start");
                continue;
            }
            Err(error @ (StateFileError::Damaged { .. } | StateFileError::TooLarge { .. })) => {
                return Err(Failure::new(Exit::Damaged, format!("simulated sled {name}: {error}")));
            }
        };
        let client: Arc<dyn SledClient> = Arc::new(embedded.clone());
        switchboard.clients.lock().unwrap_or_else(PoisonError::into_inner).insert(SledId::new(id), client);
        sleds.push(embedded);
    }
    Ok(sleds)
}

/// Waits until the ledger knows these sleds: the first request shall find room on them. Whatever keeps one from
/// registering, a full disk for one, is no reason not to serve.
pub async fn until_registered(control: &ControlPlane, sleds: &[EmbeddedSled]) {
    let is_there = async || {
        let known = control.sleds().await.unwrap_or_default();
        known.iter().filter(|(load, _)| load.boot.is_some()).count() >= sleds.len()
    };
    for _ in 0..REGISTER_LOOKS_MAX {
        if control.log().refusal().is_some() || is_there().await {
            return;
        }
        tokio::time::sleep(REGISTER_PAUSE).await;
    }
    tracing::warn!("not every simulated sled has registered yet");
}

/// An id that belongs to the store for as long as it exists: the same at every start.
pub fn derived_id(store: StoreId, tag: u8, n: u16) -> Uuid {
    let mut bytes = store.0;
    bytes[0] ^= tag;
    bytes[14..].copy_from_slice(&n.to_be_bytes());
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}
