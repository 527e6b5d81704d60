//! Bodies of `/v1` answers: the field names, units and forms that clients of the field know.
//!
//! Invariant: times are RFC 3339 in UTC ending in `Z`; memory is in bytes; a state is one of the visible
//! states and never a VMM's.

use crate::auth::{Identity, Role};
use lifecycle::project::Project;
use lifecycle::restart::cooldown_end;
use lifecycle::{
    AutoRestartPolicy, Instance, InstanceId, InstanceSpec, Policy, ProjectId, RunState, SledId, Timestamp,
};
use projections::{InstanceRow, SledRow};
use replay::time::rfc3339;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// The one user, silo and rack there are: fixed, so that clients may keep them.
const USER_ID: Uuid = Uuid::from_u128(0x6d75_7368_6572_4000_8000_0000_0000_0001);
pub(crate) const SILO_ID: Uuid = Uuid::from_u128(0x6d75_7368_6572_4000_8000_0000_0000_0002);
const RACK_ID: Uuid = Uuid::from_u128(0x6d75_7368_6572_4000_8000_0000_0000_0003);
pub(crate) const SILO_NAME: &str = "default";

/// An instance.
#[derive(Serialize, ToSchema)]
#[schema(as = Instance)]
pub(crate) struct InstanceView {
    #[schema(value_type = Uuid)]
    id: InstanceId,
    name: String,
    description: String,
    hostname: String,
    ncpus: u16,
    memory: u64,
    #[schema(value_type = Uuid)]
    project_id: ProjectId,
    #[schema(value_type = String)]
    run_state: RunState,
    time_created: String,
    time_modified: String,
    time_run_state_updated: String,
    auto_restart_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    auto_restart_policy: Option<AutoRestartPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_last_auto_restarted: Option<String>,
    /// Until when it would not be restarted if it failed; missing if it would be at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    auto_restart_cooldown_expiration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_disk_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_platform: Option<String>,
    enable_jumbo_frames: bool,
}

struct Times {
    created: Timestamp,
    modified: Timestamp,
    run_state_updated: Timestamp,
    last_auto_restarted: Option<Timestamp>,
    cooldown_end: Option<Timestamp>,
}

/// What else a view of an instance depends on.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) policy: Policy,
    pub(crate) now: Timestamp,
}

impl InstanceView {
    fn new(id: InstanceId, spec: InstanceSpec, run_state: RunState, times: &Times) -> Self {
        let auto_restart_enabled = spec.restarts();
        Self {
            id,
            name: spec.name,
            description: spec.description,
            hostname: spec.hostname,
            ncpus: spec.size.ncpus,
            memory: spec.size.memory,
            project_id: spec.project,
            run_state,
            time_created: rfc3339(times.created),
            time_modified: rfc3339(times.modified),
            time_run_state_updated: rfc3339(times.run_state_updated),
            auto_restart_enabled,
            auto_restart_policy: spec.auto_restart,
            time_last_auto_restarted: times.last_auto_restarted.map(rfc3339),
            auto_restart_cooldown_expiration: times
                .cooldown_end
                .filter(|_| auto_restart_enabled)
                .map(rfc3339),
            boot_disk_id: spec.boot_disk,
            cpu_platform: spec.cpu_platform,
            enable_jumbo_frames: spec.jumbo_frames,
        }
    }
}

impl InstanceView {
    /// From the read model.
    pub(crate) fn of_row(row: InstanceRow, moment: Moment) -> Self {
        let Moment { policy, now } = moment;
        let times = Times {
            created: row.time_created,
            modified: row.time_modified,
            run_state_updated: row.time_run_state_updated,
            last_auto_restarted: row.time_last_auto_restarted,
            cooldown_end: cooldown_end(&row.restarts, row.running_since, &policy, now),
        };
        Self::new(row.id, row.spec, row.run_state, &times)
    }

    /// From the fold of a command's answer.
    pub(crate) fn of(instance: Instance, moment: Moment) -> Self {
        let Moment { policy, now } = moment;
        let times = Times {
            created: instance.time_created,
            modified: instance.time_modified,
            run_state_updated: instance.time_run_state_updated,
            last_auto_restarted: instance.restarts.last,
            cooldown_end: cooldown_end(&instance.restarts, instance.running_since, &policy, now),
        };
        let run_state = instance.run_state();
        Self::new(instance.id, instance.spec, run_state, &times)
    }
}

/// A project.
#[derive(Serialize, ToSchema)]
#[schema(as = Project)]
pub(crate) struct ProjectView {
    #[schema(value_type = Uuid)]
    id: ProjectId,
    name: String,
    description: String,
    time_created: String,
    time_modified: String,
}

impl From<Project> for ProjectView {
    fn from(project: Project) -> Self {
        Self {
            id: project.id,
            name: project.name,
            description: project.description,
            time_created: rfc3339(project.time_created),
            time_modified: rfc3339(project.time_modified),
        }
    }
}

/// The user who asks.
#[derive(Serialize, ToSchema)]
#[schema(as = CurrentUser)]
pub(crate) struct CurrentUserView {
    id: Uuid,
    display_name: String,
    silo_id: Uuid,
    silo_name: &'static str,
    fleet_viewer: bool,
    silo_admin: bool,
    time_created: String,
    time_modified: String,
}

impl CurrentUserView {
    /// Who asks; all are as old as the log.
    pub(crate) fn new(who: &Identity, since: Timestamp) -> Self {
        let id = if who.is_anybody() { USER_ID } else { Uuid::new_v5(&USER_ID, who.name.as_bytes()) };
        Self {
            id,
            display_name: who.name.clone(),
            silo_id: SILO_ID,
            silo_name: SILO_NAME,
            fleet_viewer: true,
            silo_admin: who.role >= Role::Admin,
            time_created: rfc3339(since),
            time_modified: rfc3339(since),
        }
    }
}

/// A sled.
#[derive(Serialize, ToSchema)]
#[schema(as = Sled)]
pub(crate) struct SledView {
    #[schema(value_type = Uuid)]
    id: SledId,
    rack_id: Uuid,
    state: &'static str,
    baseboard: BaseboardView,
    policy: PolicyView,
    usable_hardware_threads: u32,
    usable_physical_ram: u64,
    time_created: String,
    time_modified: String,
}

/// What a sled is made of.
#[derive(Serialize, ToSchema)]
#[schema(as = Baseboard)]
struct BaseboardView {
    part: String,
    serial: String,
    revision: u32,
}

/// Whether a sled is in service.
#[derive(Serialize, ToSchema)]
#[schema(as = SledPolicy)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum PolicyView {
    InService { provision_policy: &'static str },
    Expunged,
}

impl From<SledRow> for SledView {
    fn from(sled: SledRow) -> Self {
        let provision_policy = if sled.provisionable { "provisionable" } else { "non_provisionable" };
        let (state, policy) = match sled.expunged {
            None => ("active", PolicyView::InService { provision_policy }),
            Some(_) => ("decommissioned", PolicyView::Expunged),
        };
        Self {
            id: sled.id,
            rack_id: RACK_ID,
            state,
            baseboard: BaseboardView {
                part: sled.properties.cpu_family,
                serial: sled.properties.name,
                revision: 0,
            },
            policy,
            usable_hardware_threads: sled.properties.threads,
            usable_physical_ram: sled.properties.memory,
            time_created: rfc3339(sled.time_created),
            time_modified: rfc3339(sled.time_modified),
        }
    }
}
