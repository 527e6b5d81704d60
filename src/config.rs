//! The daemon's settings: flag over environment over file over `config/default.toml`, which is compiled in.

use crate::settings::{explained, sources};
use anyhow::bail;
use figment::providers::Serialized;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Every key, with its default and what it means.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// All settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where things are and listen.
    pub server: Server,
    /// Who may come in.
    pub auth: Auth,
    /// What the listeners take.
    pub limits: Limits,
    /// The log.
    pub log: Log,
    /// Checkpoints of what is folded from the log.
    pub checkpoint: Checkpoint,
    /// What is done with what was deleted long ago.
    pub retention: crate::archive::Settings,
    /// The instances' shells.
    pub instances: Instances,
    /// The sleds' shells.
    pub sleds: Sleds,
    /// The reapers.
    pub timers: Timers,
    /// Simulated sleds in the daemon.
    pub embedded_sleds: EmbeddedSleds,
    /// Where spans go.
    pub telemetry: crate::telemetry::Settings,
    /// What is logged.
    pub logging: Logging,
}

/// Where things are and listen.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Data directory.
    pub data: PathBuf,
    /// Clients' address.
    pub listen: SocketAddr,
    /// Sleds' address.
    pub sled_listen: SocketAddr,
}

/// Who may come in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// File of tokens; empty for none.
    pub token_file: PathBuf,
}

/// What the listeners take, and how long they wait.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Largest request body, bytes.
    pub body_bytes_max: usize,
    /// Longest request target, bytes.
    pub uri_bytes_max: usize,
    /// Largest request head, bytes.
    pub head_bytes_max: usize,
    /// Most headers.
    pub headers_max: usize,
    /// Open connections of each listener.
    pub connections_max: usize,
    /// Requests being worked on.
    pub requests_max: usize,
    /// Open feeds of events.
    pub feeds_max: usize,
    /// Seconds that a request head may take, and that a connection may be idle.
    pub head_s: u64,
    /// Seconds that a request body may take.
    pub body_s: u64,
    /// Seconds that a request may take.
    pub request_s: u64,
    /// Seconds that a client may take nothing of an answer.
    pub write_stall_s: u64,
    /// Seconds that a read waits for the read model.
    pub fresh_wait_s: u64,
}

impl Auth {
    /// The token file, if there shall be one.
    pub fn file(&self) -> Option<&Path> {
        given(&self.token_file)
    }
}

/// The log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Appends that may wait.
    pub queue_requests_max: usize,
    /// Their bytes.
    pub queue_bytes_max: usize,
    /// Newest records in memory, bytes.
    pub ring_bytes_max: usize,
    /// Memory of the cache, bytes.
    pub cache_bytes: u64,
    /// Seconds between compressions of sealed segments.
    pub compact_every_s: u64,
    /// Size of the file that is given up to close on a full disk, bytes.
    pub ballast_bytes: u64,
}

/// Checkpoints of what is folded from the log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Events after which another is made; 0 for none.
    pub events: u64,
    /// Seconds between two at least.
    pub pause_s: u64,
}

/// The instances' shells.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instances {
    /// Seconds that a start may take.
    pub start_deadline_s: u64,
    /// Failures of one step in a row after which its saga is paused; 0 for never.
    pub pause_after_failures: u32,
    /// Seconds that a stop or reboot waits for its sled.
    pub order_answer_s: u64,
    /// Requests that may wait for one instance.
    pub queue_max: usize,
    /// Requests that may wait for all together.
    pub commands_max: usize,
    /// Panics in a row before quarantine.
    pub restarts_max: u32,
    /// Seconds that a migration may take.
    pub migrate_deadline_s: u64,
    /// Seconds before the second automatic start in a row; doubled for each that follows.
    pub restart_base_s: u64,
    /// Longest such wait, seconds.
    pub restart_cap_s: u64,
    /// Automatic starts in a row.
    pub restart_budget: u32,
    /// Seconds that an instance must have run for the count to begin anew.
    pub restart_stable_s: u64,
    /// Seconds after which an instance that is left alone leaves memory.
    pub passivate_after_s: u64,
}

/// Seconds between two runs of each reaper.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "a setting says its unit")]
pub struct Timers {
    /// Instances that need an update and have not had it.
    pub instance_updater_s: u64,
    /// VMMs that nothing refers to.
    pub vmm_reaper_s: u64,
    /// Failed instances whose restart is due.
    pub reincarnation_s: u64,
    /// Sagas past their deadlines.
    pub stuck_saga_s: u64,
    /// Instances that are left alone.
    pub passivation_s: u64,
    /// Guests on a sled that drains.
    pub sled_drain_s: u64,
}

/// The sleds' shells.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sleds {
    /// Open connections of the listener for sleds.
    pub connections_max: usize,
    /// Reports being worked on.
    pub reports_max: usize,
    /// Calls to one sled at a time.
    pub calls_max: usize,
    /// How long one may take, by its kind.
    pub call: crate::call_times::Settings,
    /// Calls in a row without an answer after which a sled is sent nothing but inventories.
    pub unanswered_max: u32,
    /// Seconds between inventories that a sled is asked for while it does not answer.
    pub probe_s: u64,
    /// Seconds between inventories.
    pub inventory_s: u64,
    /// Guests that move away from one draining sled at a time.
    pub drain_parallel: usize,
    /// Seconds that a sled may go without a renewal before it kills its VMMs; 0 means for ever.
    pub lease_s: u64,
    /// Seconds that a lease is waited for longer than it lasts.
    pub lease_grace_s: u64,
    /// File of the secret that sleds' keys are made from; empty for none.
    pub secret_file: PathBuf,
}

impl Sleds {
    /// The file of the secret, if there shall be one.
    pub fn secret(&self) -> Option<&Path> {
        given(&self.secret_file)
    }
}

/// The path, unless it is empty: that means none.
fn given(path: &Path) -> Option<&Path> {
    Some(path).filter(|path| !path.as_os_str().is_empty())
}

/// Shortest lease, in seconds: a renewal must have time to be repeated.
const LEASE_S_MIN: u64 = 3;

/// Simulated sleds in the daemon.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedSleds {
    /// How many.
    pub count: u16,
    /// Hardware threads of each.
    pub threads: u32,
    /// Memory of each, GiB.
    pub memory_gib: u64,
    /// CPU family of all.
    pub cpu_family: String,
    /// Seed of their timing.
    pub seed: u64,
    /// Shortest and longest boot, ms.
    pub boot_ms: [u64; 2],
    /// Shortest and longest halt, ms.
    pub halt_ms: [u64; 2],
}

/// What is logged.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    /// Text for people or JSON for machines.
    pub format: LogFormat,
    /// Filter, as in `RUST_LOG`.
    pub filter: String,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Flags of `serve` that override keys.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `server.data`.
    pub data: Option<PathBuf>,
    /// `server.listen`.
    pub listen: Option<SocketAddr>,
    /// `server.sled_listen`.
    pub sled_listen: Option<SocketAddr>,
    /// `auth.token_file`.
    pub tokens: Option<PathBuf>,
    /// `embedded_sleds.count = 0`.
    pub no_embedded_sleds: bool,
}

impl Config {
    /// Reads all sources. `file` must exist if it is named.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> anyhow::Result<Self> {
        let mut figment = sources(file)?;
        if let Some(data) = &overrides.data {
            figment = figment.merge(Serialized::default("server.data", data));
        }
        if let Some(listen) = overrides.listen {
            figment = figment.merge(Serialized::default("server.listen", listen.to_string()));
        }
        if let Some(listen) = overrides.sled_listen {
            figment = figment.merge(Serialized::default("server.sled_listen", listen.to_string()));
        }
        if let Some(tokens) = &overrides.tokens {
            figment = figment.merge(Serialized::default("auth.token_file", tokens));
        }
        if overrides.no_embedded_sleds {
            figment = figment.merge(Serialized::default("embedded_sleds.count", 0));
        }
        let config: Self = figment.extract().map_err(explained)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        let bounds = [
            ("limits.body_bytes_max", self.limits.body_bytes_max as u64, 4_096, 64 << 20),
            ("limits.uri_bytes_max", self.limits.uri_bytes_max as u64, 2_048, 64 << 10),
            ("limits.head_bytes_max", self.limits.head_bytes_max as u64, 8_192, 1 << 20),
            ("limits.headers_max", self.limits.headers_max as u64, 16, 1_000),
            ("limits.connections_max", self.limits.connections_max as u64, 8, 65_536),
            ("limits.requests_max", self.limits.requests_max as u64, 1, 65_536),
            ("limits.feeds_max", self.limits.feeds_max as u64, 1, 65_536),
            ("limits.head_s", self.limits.head_s, 1, 600),
            ("limits.body_s", self.limits.body_s, 1, 600),
            ("limits.request_s", self.limits.request_s, 1, 600),
            ("limits.write_stall_s", self.limits.write_stall_s, 1, 600),
            ("limits.fresh_wait_s", self.limits.fresh_wait_s, 1, 60),
            ("log.segment_bytes", self.log.segment_bytes, 1 << 20, 1 << 30),
            ("log.compact_every_s", self.log.compact_every_s, 1, 86_400 * 7),
            ("log.ballast_bytes", self.log.ballast_bytes, 0, 1 << 30),
            ("checkpoint.events", self.checkpoint.events, 0, 1 << 30),
            ("checkpoint.pause_s", self.checkpoint.pause_s, 0, 86_400),
            ("retention.deleted_s", self.retention.deleted_s, 0, 86_400 * 36_525),
            ("retention.period_s", self.retention.period_s, 1, 86_400),
            ("retention.batch", self.retention.batch as u64, 1, 1 << 20),
            ("instances.start_deadline_s", self.instances.start_deadline_s, 1, 86_400),
            ("instances.migrate_deadline_s", self.instances.migrate_deadline_s, 1, 86_400),
            ("instances.pause_after_failures", u64::from(self.instances.pause_after_failures), 0, 1_000_000),
            ("instances.restart_base_s", self.instances.restart_base_s, 1, 86_400),
            ("instances.restart_cap_s", self.instances.restart_cap_s, 1, 86_400 * 7),
            ("instances.restart_budget", u64::from(self.instances.restart_budget), 0, 1_000_000),
            ("instances.restart_stable_s", self.instances.restart_stable_s, 1, 86_400 * 7),
            ("instances.passivate_after_s", self.instances.passivate_after_s, 1, 86_400 * 7),
            ("timers.instance_updater_s", self.timers.instance_updater_s, 1, 86_400),
            ("timers.vmm_reaper_s", self.timers.vmm_reaper_s, 1, 86_400),
            ("timers.reincarnation_s", self.timers.reincarnation_s, 1, 86_400),
            ("timers.stuck_saga_s", self.timers.stuck_saga_s, 1, 86_400),
            ("timers.sled_drain_s", self.timers.sled_drain_s, 1, 86_400),
            ("timers.passivation_s", self.timers.passivation_s, 1, 86_400),
            ("sleds.drain_parallel", self.sleds.drain_parallel as u64, 1, 1_024),
            ("instances.order_answer_s", self.instances.order_answer_s, 1, 600),
            ("instances.queue_max", self.instances.queue_max as u64, 1, 1 << 20),
            ("instances.commands_max", self.instances.commands_max as u64, 1, 1 << 24),
            ("sleds.connections_max", self.sleds.connections_max as u64, 8, 65_536),
            ("sleds.reports_max", self.sleds.reports_max as u64, 1, 65_536),
            ("sleds.calls_max", self.sleds.calls_max as u64, 1, 4_096),
            ("sleds.unanswered_max", u64::from(self.sleds.unanswered_max), 1, 1_000_000),
            ("sleds.probe_s", self.sleds.probe_s, 1, 600),
            ("sleds.lease_s", self.sleds.lease_s, 0, 86_400),
            ("sleds.lease_grace_s", self.sleds.lease_grace_s, 1, 86_400),
            ("sleds.inventory_s", self.sleds.inventory_s, 1, 86_400),
            ("embedded_sleds.threads", u64::from(self.embedded_sleds.threads), 1, 65_536),
            ("embedded_sleds.memory_gib", self.embedded_sleds.memory_gib, 1, 65_536),
        ];
        for (key, value, min, max) in bounds.into_iter().chain(self.sleds.call.bounds()) {
            if value < min || value > max {
                bail!("the configuration is not valid: {key} is {value}; it must be between {min} and {max}");
            }
        }
        self.check_lease()?;
        self.telemetry.otlp.check()?;
        for (key, [min, max]) in
            [("boot_ms", self.embedded_sleds.boot_ms), ("halt_ms", self.embedded_sleds.halt_ms)]
        {
            if min > max {
                bail!(
                    "the configuration is not valid: embedded_sleds.{key} has a shortest above its longest"
                );
            }
        }
        Ok(())
    }
}

impl Config {
    /// A grace that clocks can outrun would start guests elsewhere that still run.
    fn check_lease(&self) -> anyhow::Result<()> {
        let Sleds { lease_s, lease_grace_s, .. } = self.sleds;
        if lease_s == 0 {
            return Ok(());
        }
        if lease_s < LEASE_S_MIN {
            bail!(
                "the configuration is not valid: sleds.lease_s is {lease_s}; it must be 0 for no leases, or at least {LEASE_S_MIN}"
            );
        }
        let least = actors::sled::lease_grace_min(lease_s);
        if std::time::Duration::from_secs(lease_grace_s) < least {
            let least = least.as_secs() + u64::from(least.subsec_nanos() > 0);
            bail!(
                "the configuration is not valid: sleds.lease_grace_s is {lease_grace_s}; for leases of {lease_s} s it must be at least {least}, so that clocks may run apart"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_that_clocks_can_outrun_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        for (lease, grace, says) in [
            (0, 1, None),
            (30, 5, None),
            (3_600, 75, None),
            (2, 5, Some("sleds.lease_s")),
            (30, 1, Some("at least 2")),
            (3_600, 5, Some("at least 74")),
        ] {
            std::fs::write(&file, format!("[sleds]\nlease_s = {lease}\nlease_grace_s = {grace}\n")).unwrap();
            let refused =
                Config::load(Some(&file), &Overrides::default()).err().map(|error| error.to_string());
            let is_right = match (&refused, says) {
                (None, None) => true,
                (Some(refused), Some(says)) => refused.contains(says),
                _ => false,
            };
            assert!(is_right, "{lease} {grace}: {refused:?}");
        }
    }

    #[test]
    fn the_defaults_are_complete_and_valid() {
        let config = Config::load(None, &Overrides::default()).unwrap();
        assert_eq!(config.embedded_sleds.count, 4);
        assert_eq!(config.server.listen.port(), 12_220);
    }

    #[test]
    fn the_settings_for_production_are_valid_and_need_tokens() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/production.toml");
        let config = Config::load(Some(&file), &Overrides::default()).unwrap();
        assert_eq!(config.embedded_sleds.count, 0);
        assert!(config.auth.file().is_some());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, "[server]\nlisten_on = \"127.0.0.1:1\"\n").unwrap();
        let error = format!("{:#}", Config::load(Some(&file), &Overrides::default()).unwrap_err());
        assert!(error.contains("listen_on"), "{error}");
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, "[log]\nsegment_bytes = 5\n").unwrap();
        let error = format!("{:#}", Config::load(Some(&file), &Overrides::default()).unwrap_err());
        assert!(error.contains("log.segment_bytes"), "{error}");
    }
}
