//! What a user asks for when creating an instance, and which values are allowed
//! (`docs/external-api.md`, limits).

use crate::ids::ProjectId;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use uuid::Uuid;

/// Most virtual CPUs of an instance.
pub const NCPUS_MAX: u16 = 254;
/// Unit and least amount of memory, bytes: clients count in whole GiB.
pub const MEMORY_UNIT: u64 = 1 << 30;
/// Most memory of an instance, bytes.
pub const MEMORY_MAX: u64 = 1536 * MEMORY_UNIT;
/// Longest name.
pub const NAME_CHARS_MAX: usize = 63;
/// Longest host name (RFC 1035).
pub const HOSTNAME_CHARS_MAX: usize = 253;
/// Longest description. Ours: it is journaled, so it is bounded.
pub const DESCRIPTION_CHARS_MAX: usize = 512;

/// Virtual CPUs and memory: what an instance is charged and what its VMM reserves on a sled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Virtual CPUs, each a hardware thread of the sled.
    pub ncpus: u16,
    /// Memory in bytes.
    pub memory: u64,
}

/// Whether a failed instance is restarted without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoRestartPolicy {
    /// Never.
    Never,
    /// Yes, within cooldown and budget.
    BestEffort,
}

/// What the user configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Owner of the name.
    pub project: ProjectId,
    /// Name, unique among the project's instances.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Host name inside the guest.
    pub hostname: String,
    /// Virtual CPUs and memory.
    pub size: Size,
    /// Restart policy; none means the default (`best_effort`).
    pub auto_restart: Option<AutoRestartPolicy>,
    /// CPU family that its sleds must have; none takes any.
    pub cpu_platform: Option<String>,
    /// Disk that it boots from, kept for clients; musher has no disks.
    pub boot_disk: Option<Uuid>,
    /// Whether its network interface takes jumbo frames, kept for clients.
    pub jumbo_frames: bool,
}

/// What a user may change of an instance that exists; everything, as it shall be afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecChange {
    /// Virtual CPUs and memory.
    pub size: Size,
    /// Restart policy.
    pub auto_restart: Option<AutoRestartPolicy>,
    /// CPU family that its sleds must have.
    pub cpu_platform: Option<String>,
    /// Disk that it boots from.
    pub boot_disk: Option<Uuid>,
    /// Whether its network interface takes jumbo frames.
    pub jumbo_frames: bool,
}

/// Longest CPU platform: what a sled may say of itself.
pub const CPU_PLATFORM_BYTES_MAX: usize = 64;

/// Where an instance is found on the project's overlay network; granted by the ledger, kept for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Address inside the project's subnet.
    pub virtual_ip: Ipv4Addr,
    /// Ethernet address.
    pub mac: [u8; 6],
    /// The project's virtual network identifier (24 bits).
    pub vni: u32,
}

/// A value that is not allowed: which field and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidValue {
    /// Name of the field, as users write it.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

fn invalid(field: &'static str, problem: impl Into<String>) -> Result<(), InvalidValue> {
    Err(InvalidValue { field, problem: problem.into() })
}

/// Checks a name: `[a-z][a-zA-Z0-9-]{0,62}`, not ending in `-`, not a UUID.
pub fn validate_name(field: &'static str, name: &str) -> Result<(), InvalidValue> {
    let mut chars = name.chars();
    let Some(first) = chars.next() else {
        return invalid(field, "name requires at least one character");
    };
    if !first.is_ascii_lowercase() {
        return invalid(field, "name must begin with an ASCII lowercase character");
    }
    if let Some(bad) = chars.find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
        return invalid(
            field,
            format!(
                "name contains invalid character: {bad:?} (allowed are lowercase, uppercase, digits and \"-\")"
            ),
        );
    }
    if name.len() > NAME_CHARS_MAX {
        return invalid(field, format!("name may contain at most {NAME_CHARS_MAX} characters"));
    }
    if name.ends_with('-') {
        return invalid(field, "name cannot end with \"-\"");
    }
    if uuid::Uuid::try_parse(name).is_ok() {
        return invalid(field, "name cannot be a UUID, to keep names and ids apart");
    }
    Ok(())
}

/// Checks a host name: RFC 1035 labels of letters, digits and inner hyphens.
pub fn validate_hostname(hostname: &str) -> Result<(), InvalidValue> {
    if hostname.is_empty() || hostname.len() > HOSTNAME_CHARS_MAX {
        return invalid("hostname", format!("hostname must have 1 to {HOSTNAME_CHARS_MAX} characters"));
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if hostname.split('.').all(is_label) {
        return Ok(());
    }
    invalid(
        "hostname",
        "hostname must consist of labels of letters, digits and inner hyphens, of 1 to 63 characters, joined by dots",
    )
}

/// Checks a description's length.
pub fn validate_description(description: &str) -> Result<(), InvalidValue> {
    if description.chars().count() > DESCRIPTION_CHARS_MAX {
        return invalid(
            "description",
            format!("description may contain at most {DESCRIPTION_CHARS_MAX} characters"),
        );
    }
    Ok(())
}

/// Longest reason of an override, in characters: it is journaled.
pub const REASON_CHARS_MAX: usize = 512;

/// Checks an operator's reason: there must be one, of at most [`REASON_CHARS_MAX`] characters.
pub fn validate_reason(reason: &str) -> Result<(), InvalidValue> {
    if reason.trim().is_empty() {
        return invalid("reason", "reason must say why, for those who read the history");
    }
    if reason.chars().count() > REASON_CHARS_MAX {
        return invalid("reason", format!("reason may contain at most {REASON_CHARS_MAX} characters"));
    }
    Ok(())
}

impl Size {
    /// Checks virtual CPUs (1..=254) and memory (1 GiB..=1536 GiB in whole GiB).
    pub fn validate(self) -> Result<(), InvalidValue> {
        if self.ncpus == 0 || self.ncpus > NCPUS_MAX {
            return invalid("ncpus", format!("ncpus must be between 1 and {NCPUS_MAX}"));
        }
        if self.memory < MEMORY_UNIT {
            return invalid("memory", "memory must be at least 1 GiB");
        }
        if self.memory > MEMORY_MAX {
            return invalid("memory", "memory must be at most 1536 GiB");
        }
        if !self.memory.is_multiple_of(MEMORY_UNIT) {
            return invalid("memory", "memory must be a whole number of GiB");
        }
        Ok(())
    }
}

impl SpecChange {
    /// Checks every field; the first that is not allowed is named.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        validate_cpu_platform(self.cpu_platform.as_deref())?;
        self.size.validate()
    }
}

fn validate_cpu_platform(platform: Option<&str>) -> Result<(), InvalidValue> {
    let Some(platform) = platform else {
        return Ok(());
    };
    let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if platform.is_empty() || platform.len() > CPU_PLATFORM_BYTES_MAX || !platform.bytes().all(is_word) {
        return invalid(
            "cpu_platform",
            format!(
                "cpu_platform must be 1 to {CPU_PLATFORM_BYTES_MAX} letters, digits, \"-\", \"_\" or \".\""
            ),
        );
    }
    Ok(())
}

impl InstanceSpec {
    /// Checks every field; the first that is not allowed is named.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        validate_name("name", &self.name)?;
        validate_description(&self.description)?;
        validate_hostname(&self.hostname)?;
        validate_cpu_platform(self.cpu_platform.as_deref())?;
        self.size.validate()
    }

    /// What may be changed, as it is.
    pub fn changeable(&self) -> SpecChange {
        SpecChange {
            size: self.size,
            auto_restart: self.auto_restart,
            cpu_platform: self.cpu_platform.clone(),
            boot_disk: self.boot_disk,
            jumbo_frames: self.jumbo_frames,
        }
    }

    /// Changes what may be changed.
    pub fn change(&mut self, change: &SpecChange) {
        self.size = change.size;
        self.auto_restart = change.auto_restart;
        self.cpu_platform.clone_from(&change.cpu_platform);
        self.boot_disk = change.boot_disk;
        self.jumbo_frames = change.jumbo_frames;
    }

    /// Whether a failure restarts it: the default policy is `best_effort`.
    pub fn restarts(&self) -> bool {
        match self.auto_restart {
            None | Some(AutoRestartPolicy::BestEffort) => true,
            Some(AutoRestartPolicy::Never) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        let longest = format!("a{}", "b".repeat(62));
        for good in ["a", "web-1", "webServer", &longest] {
            assert_eq!(validate_name("name", good), Ok(()), "{good}");
        }
        let too_long = format!("a{}", "b".repeat(63));
        let uuid = "a0b1c2d3-0000-4000-8000-000000000000";
        for bad in ["", "-a", "Web", "1a", "a_b", "a b", "größe", "a-", &too_long, uuid] {
            assert!(validate_name("name", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hostnames_follow_rfc_1035() {
        for good in ["a", "web-1", "WEB.example.org", "0a"] {
            assert_eq!(validate_hostname(good), Ok(()), "{good}");
        }
        let label = "a".repeat(64);
        let long = vec!["abcdefgh"; 40].join(".");
        for bad in ["", ".", "a..b", "-a", "a-", "a_b", "ü", &label, &long] {
            assert!(validate_hostname(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_both_bounds_and_a_unit() {
        let size = |ncpus, memory| Size { ncpus, memory }.validate().is_ok();
        assert!(size(1, MEMORY_UNIT) && size(NCPUS_MAX, MEMORY_MAX));
        for (ncpus, memory) in [
            (0, MEMORY_UNIT),
            (NCPUS_MAX + 1, MEMORY_UNIT),
            (1, 0),
            (1, MEMORY_UNIT - 1),
            (1, MEMORY_UNIT + 1),
            (1, MEMORY_MAX + MEMORY_UNIT),
            (1, u64::MAX),
        ] {
            assert!(!size(ncpus, memory), "{ncpus} {memory}");
        }
    }
}
