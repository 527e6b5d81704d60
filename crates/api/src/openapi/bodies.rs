//! Bodies of requests, for the description only: they are read field by field.

use super::schemas_of;
use lifecycle::spec::{DESCRIPTION_CHARS_MAX, HOSTNAME_CHARS_MAX, NAME_CHARS_MAX, REASON_CHARS_MAX};
use serde_json::Value;
use utoipa::ToSchema;

/// An instance to create. Unknown fields are ignored.
#[derive(ToSchema)]
#[schema(as = NewInstance)]
#[expect(dead_code, reason = "its fields are its schema")]
struct NewInstanceBody {
    /// `[a-z][a-zA-Z0-9-]*`, not ending in `-`, not a UUID; unique in its project.
    #[schema(max_length = 63)]
    name: String,
    #[schema(max_length = 512)]
    description: String,
    /// RFC 1035.
    #[schema(max_length = 253)]
    hostname: String,
    #[schema(minimum = 1, maximum = 254)]
    ncpus: u16,
    /// Bytes, in whole GiB.
    #[schema(minimum = 1_073_741_824_u64)]
    memory: u64,
    /// Start it; true if not said.
    start: Option<bool>,
    /// `never` or `best_effort`.
    auto_restart_policy: Option<String>,
    /// CPU family that its sleds must have; any if not said.
    #[schema(max_length = 64)]
    cpu_platform: Option<String>,
    enable_jumbo_frames: Option<bool>,
}

/// Everything of an instance that may change, as it shall be; what is missing or null is none.
#[derive(ToSchema)]
#[schema(as = InstanceChange)]
#[expect(dead_code, reason = "its fields are its schema")]
struct InstanceChangeBody {
    /// Another number only while it has no VMM.
    #[schema(minimum = 1, maximum = 254)]
    ncpus: u16,
    /// Bytes, in whole GiB. Another number only while it has no VMM.
    #[schema(minimum = 1_073_741_824_u64)]
    memory: u64,
    /// `never` or `best_effort`.
    auto_restart_policy: Option<String>,
    /// CPU family that its sleds must have. Another one only while it has no VMM.
    #[schema(max_length = 64)]
    cpu_platform: Option<String>,
    /// Kept, and of no effect: there are no disks yet.
    #[schema(value_type = Option<uuid::Uuid>)]
    boot_disk: Option<String>,
    enable_jumbo_frames: Option<bool>,
}

/// Where a guest shall go.
#[derive(ToSchema)]
#[schema(as = MigrateTo)]
#[expect(dead_code, reason = "its fields are its schema")]
struct MigrateBody {
    /// A sled; the one with most room if not said.
    #[schema(value_type = Option<uuid::Uuid>)]
    dst_sled: Option<String>,
}

/// A forced stop.
#[derive(ToSchema)]
#[schema(as = ForceStop)]
#[expect(dead_code, reason = "its fields are its schema")]
struct ForceStopBody {
    /// Why; it is kept in the history.
    #[schema(min_length = 1, max_length = 512)]
    reason: String,
    /// Vouch for every VMM of it being dead: the next start does not wait for them. False if not said.
    assert_dead: Option<bool>,
    /// The VMM that was looked at: no other is touched; 409 if the instance does not have it any more. If not said,
    /// all of them are meant.
    #[schema(value_type = Option<uuid::Uuid>)]
    vmm: Option<String>,
}

/// Why, for those who read the history.
#[derive(ToSchema)]
#[schema(as = Reason)]
#[expect(dead_code, reason = "its fields are its schema")]
struct ReasonBody {
    #[schema(min_length = 1, max_length = 512)]
    reason: Option<String>,
}

/// Why what cannot be taken back is done.
#[derive(ToSchema)]
#[schema(as = ReasonGiven)]
#[expect(dead_code, reason = "its fields are its schema")]
struct ReasonGivenBody {
    #[schema(min_length = 1, max_length = 512)]
    reason: String,
}

/// Both limits; one that is missing or null is none.
#[derive(ToSchema)]
#[schema(as = QuotaLimits)]
#[expect(dead_code, reason = "its fields are its schema")]
struct QuotaBody {
    /// Virtual CPUs.
    cpus: Option<u64>,
    /// Bytes.
    memory: Option<u64>,
}

/// A group of instances that are kept apart.
#[derive(ToSchema)]
#[schema(as = NewAntiAffinityGroup)]
#[expect(dead_code, reason = "its fields are its schema")]
struct NewGroupBody {
    #[schema(max_length = 63)]
    name: String,
    #[schema(max_length = 512)]
    description: Option<String>,
    /// `allow` (apart if possible; the default) or `fail` (apart, or not started).
    policy: Option<String>,
}

/// Whether new VMMs may be placed on a sled.
#[derive(ToSchema)]
#[schema(as = SledProvisionPolicyChange)]
#[expect(dead_code, reason = "its fields are its schema")]
struct ProvisionPolicyBody {
    /// `provisionable` or `non_provisionable`.
    state: String,
}

/// A project to create.
#[derive(ToSchema)]
#[schema(as = NewProject)]
#[expect(dead_code, reason = "its fields are its schema")]
struct NewProjectBody {
    #[schema(max_length = 63)]
    name: String,
    #[schema(max_length = 512)]
    description: String,
}

/// What to change of a project; what is not given stays.
#[derive(ToSchema)]
#[schema(as = ProjectChange)]
#[expect(dead_code, reason = "its fields are its schema")]
struct ProjectChangeBody {
    #[schema(max_length = 63)]
    name: Option<String>,
    #[schema(max_length = 512)]
    description: Option<String>,
}

/// Where to back up to.
#[derive(ToSchema)]
#[schema(as = SnapshotTo)]
#[expect(dead_code, reason = "its fields are its schema")]
struct SnapshotBody {
    /// Absolute path of a directory on the daemon's host.
    to: String,
}

/// The schema of every body, with its name.
pub(super) fn schemas(each: &mut dyn FnMut((String, Value))) {
    schemas_of::<NewInstanceBody>(each);
    schemas_of::<InstanceChangeBody>(each);
    schemas_of::<NewProjectBody>(each);
    schemas_of::<ProjectChangeBody>(each);
    schemas_of::<MigrateBody>(each);
    schemas_of::<ForceStopBody>(each);
    schemas_of::<ReasonBody>(each);
    schemas_of::<ReasonGivenBody>(each);
    schemas_of::<QuotaBody>(each);
    schemas_of::<NewGroupBody>(each);
    schemas_of::<ProvisionPolicyBody>(each);
    schemas_of::<SnapshotBody>(each);
}

// The schemas say these as numbers.
const _: () = assert!(NAME_CHARS_MAX == 63 && DESCRIPTION_CHARS_MAX == 512 && HOSTNAME_CHARS_MAX == 253);
const _: () = assert!(REASON_CHARS_MAX == 512);
