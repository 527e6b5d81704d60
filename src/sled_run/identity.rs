//! What stays of a sled when its process ends, beside its VMMs: who it is, in which boot, and whose.

use super::cannot;
use crate::exit::{Exit, Failure, Outcome};
use crate::real::{SystemClock, SystemIds, host_boot, host_uptime};
use actors::{Clock as _, IdSource as _};
use serde::{Deserialize, Serialize};
use sled_protocol::{BootId, LeaseEpoch, SledId, SledKey, StoreId};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What stays of a sled when its process ends, beside its VMMs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) sled_id: SledId,
    pub(super) boot_id: BootId,
    /// The boot of the host that this boot of the sled is in.
    host_boot: Uuid,
    /// What the wall clock said when the host's uptime was zero, in microseconds: its agents count from there, so
    /// that a wall clock that is set back lengthens no lease.
    #[serde(default)]
    zero_micros: Option<u64>,
    /// Where it listened: its address should survive a restart of the agent.
    pub(super) port: Option<u16>,
    /// The log of the control plane that took it: no other one is believed.
    #[serde(default)]
    pub(super) store_id: Option<StoreId>,
    /// The highest lease epoch that it has taken, in any boot: it takes none below.
    #[serde(default)]
    pub(super) epoch: Option<LeaseEpoch>,
}

impl Identity {
    /// As it was stored, or a new one.
    pub(super) fn take_up(dir: &Path, reboot: bool, key: Option<&SledKey>) -> Result<Self, Failure> {
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
                store_id: None,
                epoch: None,
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
    pub(super) fn now_micros(&self) -> u64 {
        let counted = self.zero_micros.zip(uptime_micros()).map(|(zero, up)| zero.saturating_add(up));
        counted.unwrap_or_else(|| SystemClock.now().micros())
    }

    /// Replaced as a whole and synced: an id that was registered must not be forgotten.
    pub(super) fn store(&self, dir: &Path) -> Outcome {
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
