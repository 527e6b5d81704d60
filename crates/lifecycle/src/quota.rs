//! Quotas: how much provisioning may be charged at project, silo and fleet.

use crate::spec::Size;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Limits of what may be charged; none is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Virtual CPUs.
    pub cpus: Option<u64>,
    /// Memory, bytes.
    pub memory: Option<u64>,
}

/// What a quota limits. There is one silo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaScope {
    /// One project.
    Project,
    /// All projects of the silo.
    Silo,
    /// Everything.
    Fleet,
}

/// A resource that a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaResource {
    /// Virtual CPUs.
    Cpus,
    /// Memory, bytes.
    Memory,
}

/// Provisioning counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Virtual CPUs charged.
    pub cpus: u64,
    /// Memory charged, bytes.
    pub memory: u64,
}

impl Totals {
    /// Adds what one instance is charged.
    pub fn add(&mut self, size: Size) {
        self.cpus += u64::from(size.ncpus);
        self.memory += size.memory;
    }

    /// Takes back what was added.
    pub fn remove(&mut self, size: Size) {
        self.cpus = self.cpus.checked_sub(u64::from(size.ncpus)).expect("released at most once");
        self.memory = self.memory.checked_sub(size.memory).expect("released at most once");
    }
}

impl Quota {
    /// The first resource of which `used` and one more of `size` would exceed the quota, with its limit and
    /// what is used of it.
    pub fn short(self, used: Totals, size: Size) -> Option<(QuotaResource, u64, u64)> {
        let exceeds = |limit: Option<u64>, used: u64, more: u64| {
            limit.filter(|limit| used.saturating_add(more) > *limit).map(|limit| (limit, used))
        };
        let cpus = exceeds(self.cpus, used.cpus, u64::from(size.ncpus));
        let memory = exceeds(self.memory, used.memory, size.memory);
        cpus.map(|(limit, used)| (QuotaResource::Cpus, limit, used))
            .or_else(|| memory.map(|(limit, used)| (QuotaResource::Memory, limit, used)))
    }
}

impl fmt::Display for QuotaScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Project => "project",
            Self::Silo => "silo",
            Self::Fleet => "fleet",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_reached_but_not_exceeded() {
        let size = Size { ncpus: 2, memory: 4 };
        let used = Totals { cpus: 6, memory: 12 };
        let short = |cpus, memory| Quota { cpus, memory }.short(used, size);
        assert_eq!(short(None, None), None);
        assert_eq!(short(Some(8), Some(16)), None);
        assert_eq!(short(Some(7), None), Some((QuotaResource::Cpus, 7, 6)));
        assert_eq!(short(Some(8), Some(15)), Some((QuotaResource::Memory, 15, 12)));
    }
}
