//! The daemon's settings: flag over environment over file over `config/default.toml`, which is compiled in.

use anyhow::{Context as _, bail};
use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Every key, with its default and what it means.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// Files that are read if no `--config` names one; the first that exists counts.
const FILES: [&str; 2] = ["./config/local.toml", "/etc/musher/config.toml"];

/// All settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where things are and listen.
    pub server: Server,
    /// The log.
    pub log: Log,
    /// The instances' shells.
    pub instances: Instances,
    /// The sleds' shells.
    pub sleds: Sleds,
    /// Simulated sleds in the daemon.
    pub embedded_sleds: EmbeddedSleds,
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

/// The instances' shells.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instances {
    /// Seconds that a start may take.
    pub start_deadline_s: u64,
    /// Seconds that a stop or reboot waits for its sled.
    pub order_answer_s: u64,
    /// Requests that may wait for one instance.
    pub queue_max: usize,
    /// Requests that may wait for all together.
    pub commands_max: usize,
    /// Panics in a row before quarantine.
    pub restarts_max: u32,
}

/// The sleds' shells.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sleds {
    /// Calls to one sled at a time.
    pub calls_max: usize,
    /// Seconds that one may take.
    pub call_s: u64,
    /// Seconds between inventories.
    pub inventory_s: u64,
}

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
    /// `embedded_sleds.count = 0`.
    pub no_embedded_sleds: bool,
}

impl Config {
    /// Reads all sources. `file` must exist if it is named.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> anyhow::Result<Self> {
        let mut figment = Figment::new().merge(Toml::string(DEFAULTS));
        if let Some(file) = file {
            if !file.is_file() {
                bail!("there is no configuration file {}", file.display());
            }
            figment = figment.merge(Toml::file_exact(file));
        } else if let Some(found) = FILES.iter().find(|path| Path::new(path).is_file()) {
            figment = figment.merge(Toml::file_exact(found));
        }
        // MUSHER_SERVER and MUSHER_TOKEN are the client's: only names with a section are settings.
        figment =
            figment.merge(Env::prefixed("MUSHER_").filter(|key| key.as_str().contains("__")).split("__"));
        if let Some(data) = &overrides.data {
            figment = figment.merge(Serialized::default("server.data", data));
        }
        if let Some(listen) = overrides.listen {
            figment = figment.merge(Serialized::default("server.listen", listen.to_string()));
        }
        if let Some(listen) = overrides.sled_listen {
            figment = figment.merge(Serialized::default("server.sled_listen", listen.to_string()));
        }
        if overrides.no_embedded_sleds {
            figment = figment.merge(Serialized::default("embedded_sleds.count", 0));
        }
        let config: Self = figment.extract().context("the configuration is not valid")?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        let bounds = [
            ("log.segment_bytes", self.log.segment_bytes, 1 << 20, 1 << 30),
            ("log.compact_every_s", self.log.compact_every_s, 1, 86_400 * 7),
            ("log.ballast_bytes", self.log.ballast_bytes, 0, 1 << 30),
            ("instances.start_deadline_s", self.instances.start_deadline_s, 1, 86_400),
            ("instances.order_answer_s", self.instances.order_answer_s, 1, 600),
            ("instances.queue_max", self.instances.queue_max as u64, 1, 1 << 20),
            ("instances.commands_max", self.instances.commands_max as u64, 1, 1 << 24),
            ("sleds.calls_max", self.sleds.calls_max as u64, 1, 4_096),
            ("sleds.call_s", self.sleds.call_s, 1, 600),
            ("sleds.inventory_s", self.sleds.inventory_s, 1, 86_400),
            ("embedded_sleds.threads", u64::from(self.embedded_sleds.threads), 1, 65_536),
            ("embedded_sleds.memory_gib", self.embedded_sleds.memory_gib, 1, 65_536),
        ];
        for (key, value, min, max) in bounds {
            if value < min || value > max {
                bail!("the configuration is not valid: {key} is {value}; it must be between {min} and {max}");
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_complete_and_valid() {
        let config = Config::load(None, &Overrides::default()).unwrap();
        assert_eq!(config.embedded_sleds.count, 4);
        assert_eq!(config.server.listen.port(), 12_220);
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
