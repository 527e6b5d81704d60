//! How long a call to a sled may take, as it is configured: one setting for each kind of call.

use actors::CallTimes;
use serde::Deserialize;
use std::time::Duration;

/// Longest that any call may take, in seconds: whoever waits for it is a person.
const CALL_S_MAX: u64 = 600;

/// Section `sleds.call`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "a setting says its unit")]
pub struct Settings {
    ensure_s: u64,
    destroy_s: u64,
    state_s: u64,
    get_s: u64,
    inventory_s: u64,
    network_s: u64,
    serial_s: u64,
    device_s: u64,
}

impl Settings {
    /// Each key with its value, its least and its most.
    pub fn bounds(&self) -> [(&'static str, u64, u64, u64); 8] {
        let Self { ensure_s, destroy_s, state_s, get_s, inventory_s, network_s, serial_s, device_s } = *self;
        [
            ("sleds.call.ensure_s", ensure_s),
            ("sleds.call.destroy_s", destroy_s),
            ("sleds.call.state_s", state_s),
            ("sleds.call.get_s", get_s),
            ("sleds.call.inventory_s", inventory_s),
            ("sleds.call.network_s", network_s),
            ("sleds.call.serial_s", serial_s),
            ("sleds.call.device_s", device_s),
        ]
        .map(|(key, value)| (key, value, 1, CALL_S_MAX))
    }

    /// Of calls to sleds.
    pub fn times(&self) -> CallTimes {
        CallTimes {
            ensure: Duration::from_secs(self.ensure_s),
            destroy: Duration::from_secs(self.destroy_s),
            set_state: Duration::from_secs(self.state_s),
            get_state: Duration::from_secs(self.get_s),
            inventory: Duration::from_secs(self.inventory_s),
            network: Duration::from_secs(self.network_s),
            serial: Duration::from_secs(self.serial_s),
        }
    }

    /// Of a push to the switch or to the registry of metrics producers.
    pub fn devices(&self) -> Duration {
        Duration::from_secs(self.device_s)
    }
}
