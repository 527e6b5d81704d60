//! What is where: one line per method and path.

/// What an operation answers when it succeeds.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// No body.
    Nothing,
    /// One object, by the name of its schema.
    Json(&'static str),
    /// A page of such objects.
    Page(&'static str),
    /// A piece of such objects that is followed by id.
    Rows(&'static str),
    /// All such objects.
    Items(&'static str),
    /// Something that is no JSON.
    Other(&'static str),
}

/// What an operation is sent.
#[derive(Clone, Copy)]
pub(super) enum Sent {
    /// No body.
    Nothing,
    /// One object, by the name of its schema.
    Json(&'static str),
    /// The same, or no body.
    JsonOrNothing(&'static str),
}

/// One method of one path.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) query: &'static [&'static str],
    pub(super) body: Sent,
    pub(super) status: u16,
    pub(super) answer: Answer,
}

/// Query parameters: name, type, meaning. What stands behind a name tells those of one name apart.
pub(super) const QUERY: &[(&str, &str, &str)] = &[
    ("project", "string", "The project of a name: UUID or name."),
    ("limit", "integer", "Most items of the answer, at least 1."),
    ("page_token", "string", "Where to go on; wins over everything but `limit`."),
    ("sort_by", "string", "`name_ascending`, `name_descending` or `id_ascending`."),
    ("from_start", "integer", "First byte, counted from the VMM's first; 0 if not said."),
    ("most_recent", "integer", "First byte, counted back from the end; excludes `from_start`."),
    ("max_bytes", "integer", "Most bytes; 16384 if not said, at most 1048576."),
    ("at", "string", "`#118` (version), `@1234` (position), an RFC 3339 time, `-30s`, `now`."),
    ("after", "string", "Behind this version or position; of migrations and sagas: behind this id."),
    ("state", "string", "`all` (default) or `under_way`."),
    ("from", "integer", "First position; of one stream, first version."),
    ("from moment", "string", "The first moment, as `at`; its first event if not said."),
    ("to moment", "string", "The second moment, as `at`; now if not said."),
    ("stream", "string", "One stream, such as instance/<id>."),
    ("instance", "string", "Events of this instance only: UUID, or name with `project`."),
    ("kind", "string", "Events of these names only, separated by commas."),
    ("follow", "boolean", "Whether to go on behind what is durable; true if not said."),
];

const PAGE: &[&str] = &["limit", "page_token", "sort_by"];
const ROWS: &[&str] = &["after", "limit", "state"];
const IN_PROJECT: &[&str] = &["project"];

const fn get(
    path: &'static str,
    summary: &'static str,
    query: &'static [&'static str],
    answer: Answer,
) -> Operation {
    Operation { method: "get", path, summary, query, body: Sent::Nothing, status: 200, answer }
}

const fn post(path: &'static str, summary: &'static str, status: u16, answer: Answer) -> Operation {
    Operation { method: "post", path, summary, query: &[], body: Sent::Nothing, status, answer }
}

const fn order(path: &'static str, summary: &'static str) -> Operation {
    Operation { query: IN_PROJECT, ..post(path, summary, 202, Answer::Json("Instance")) }
}

const fn ask(path: &'static str, summary: &'static str) -> Operation {
    Operation { query: IN_PROJECT, ..post(path, summary, 202, Answer::Json("InstanceAsked")) }
}

const fn of_saga(path: &'static str, summary: &'static str) -> Operation {
    Operation { query: &[], ..ask(path, summary) }
}

const fn about_sled(path: &'static str, summary: &'static str) -> Operation {
    Operation { body: Sent::JsonOrNothing("Reason"), ..post(path, summary, 200, Answer::Json("SledHealth")) }
}

const fn delete(path: &'static str, summary: &'static str, query: &'static [&'static str]) -> Operation {
    Operation {
        method: "delete",
        path,
        summary,
        query,
        body: Sent::Nothing,
        status: 204,
        answer: Answer::Nothing,
    }
}

/// Every operation there is.
pub(super) const OPERATIONS: &[Operation] = &[
    get("/v1/ping", "Whether the API answers.", &[], Answer::Json("Ping")),
    get("/v1/me", "Who asks.", &[], Answer::Json("CurrentUser")),
    get("/v1/me/groups", "Groups of who asks; none yet.", &[], Answer::Page("Nothing")),
    get("/v1/projects", "List projects.", PAGE, Answer::Page("Project")),
    Operation {
        body: Sent::Json("NewProject"),
        ..post("/v1/projects", "Create a project.", 201, Answer::Json("Project"))
    },
    get("/v1/projects/{project}", "One project.", &[], Answer::Json("Project")),
    Operation {
        method: "put",
        body: Sent::Json("ProjectChange"),
        ..get("/v1/projects/{project}", "Change a project.", &[], Answer::Json("Project"))
    },
    delete("/v1/projects/{project}", "Delete a project without instances.", &[]),
    get(
        "/v1/instances",
        "List a project's instances.",
        &["project", "limit", "page_token", "sort_by"],
        Answer::Page("Instance"),
    ),
    Operation {
        query: IN_PROJECT,
        body: Sent::Json("NewInstance"),
        ..post("/v1/instances", "Create an instance, and start it if asked.", 201, Answer::Json("Instance"))
    },
    get("/v1/instances/{instance}", "One instance.", IN_PROJECT, Answer::Json("Instance")),
    Operation {
        method: "put",
        query: IN_PROJECT,
        body: Sent::Json("InstanceChange"),
        ..get(
            "/v1/instances/{instance}",
            "Change it: everything that may change, as it shall be.",
            &[],
            Answer::Json("Instance"),
        )
    },
    delete("/v1/instances/{instance}", "Delete a stopped instance for good.", IN_PROJECT),
    order("/v1/instances/{instance}/start", "Start it."),
    order("/v1/instances/{instance}/stop", "Stop it."),
    order("/v1/instances/{instance}/reboot", "Reboot its guest."),
    get(
        "/v1/instances/{instance}/serial-console",
        "What its guest has written, as far as the sled keeps it.",
        &["project", "from_start", "most_recent", "max_bytes"],
        Answer::Json("SerialConsole"),
    ),
    get("/v1/instances/{instance}/disks", "Its disks; none yet.", IN_PROJECT, Answer::Page("Nothing")),
    get(
        "/v1/instances/{instance}/external-ips",
        "Its external addresses; none yet.",
        IN_PROJECT,
        Answer::Page("Nothing"),
    ),
    get(
        "/v1/instances/{instance}/anti-affinity-groups",
        "Its anti-affinity groups; none yet.",
        IN_PROJECT,
        Answer::Page("Nothing"),
    ),
    get("/v1/system/hardware/sleds", "List sleds.", PAGE, Answer::Page("Sled")),
    get("/v1/system/hardware/sleds/{sled}", "One sled.", &[], Answer::Json("Sled")),
    get(
        "/v1/system/hardware/sleds/{sled}/instances",
        "Instances on a sled.",
        PAGE,
        Answer::Page("SledInstance"),
    ),
    Operation {
        method: "put",
        body: Sent::Json("SledProvisionPolicyChange"),
        ..get(
            "/v1/system/hardware/sleds/{sled}/provision-policy",
            "Cordon or uncordon a sled.",
            &[],
            Answer::Json("SledProvisionPolicy"),
        )
    },
    get(
        "/v1/system/utilization/silos",
        "Quota and charges of every silo; there is one.",
        &[],
        Answer::Page("SiloUtilization"),
    ),
    get("/v1/utilization", "Quota and charges of the silo.", &[], Answer::Json("Utilization")),
    get("/v1/network-interfaces", "List network interfaces; none yet.", &[], Answer::Page("Nothing")),
    get("/v1/anti-affinity-groups", "List anti-affinity groups; none yet.", &[], Answer::Page("Nothing")),
    get(
        "/ops/v1/instances/{instance}",
        "The whole fold, now or at a moment; also of a deleted instance, by id.",
        &["project", "at"],
        Answer::Json("InstanceState"),
    ),
    get(
        "/ops/v1/instances/{instance}/history",
        "Every event; also of a deleted instance, by id.",
        &["project", "after", "limit"],
        Answer::Json("History"),
    ),
    get(
        "/ops/v1/instances/{instance}/diff",
        "What differs between two moments, field by field; also of a deleted instance, by id.",
        &["project", "from moment", "to moment"],
        Answer::Json("Diff"),
    ),
    get(
        "/ops/v1/fleet",
        "Every instance and sled, now or at a moment.",
        &["at", "after", "limit"],
        Answer::Json("Fleet"),
    ),
    get(
        "/ops/v1/instances/{instance}/explain",
        "Why it is as it is, what it waits for, and what can be done.",
        IN_PROJECT,
        Answer::Json("Explanation"),
    ),
    Operation {
        body: Sent::JsonOrNothing("MigrateTo"),
        ..ask("/ops/v1/instances/{instance}/migrate", "Move its guest to another sled.")
    },
    ask("/ops/v1/instances/{instance}/migrate/cancel", "Give up the migration under way."),
    Operation {
        body: Sent::Json("ForceStop"),
        ..ask("/ops/v1/instances/{instance}/force-stop", "Declare its VMMs failed, whatever they do.")
    },
    get("/ops/v1/migrations", "Migrations, under way and over, by id.", ROWS, Answer::Rows("Migration")),
    get(
        "/ops/v1/migrations/{migration}",
        "One migration: both sides, timing, outcome.",
        &[],
        Answer::Json("Migration"),
    ),
    get("/ops/v1/sagas", "Sagas, under way and over, by id.", ROWS, Answer::Rows("Saga")),
    get("/ops/v1/sagas/{saga}", "One saga, step by step.", &[], Answer::Json("Saga")),
    of_saga("/ops/v1/sagas/{saga}/cancel", "Take a saga back that has not passed its point of no return."),
    of_saga("/ops/v1/sagas/{saga}/pause", "Hold a saga at its step; its deadline does not count."),
    of_saga("/ops/v1/sagas/{saga}/resume", "Let a paused saga go on, with all of its time again."),
    of_saga("/ops/v1/sagas/{saga}/retry", "Send what a saga waits for at once; resumes it if it is paused."),
    get("/ops/v1/quotas/{scope}", "Limits, and what is charged.", IN_PROJECT, Answer::Json("Quota")),
    Operation {
        method: "put",
        query: IN_PROJECT,
        body: Sent::Json("QuotaLimits"),
        ..get("/ops/v1/quotas/{scope}", "Set both limits.", &[], Answer::Json("Quota"))
    },
    get(
        "/ops/v1/anti-affinity-groups",
        "A project's anti-affinity groups.",
        IN_PROJECT,
        Answer::Json("AntiAffinityGroups"),
    ),
    Operation {
        query: IN_PROJECT,
        body: Sent::Json("NewAntiAffinityGroup"),
        ..post("/ops/v1/anti-affinity-groups", "Create a group.", 201, Answer::Json("AntiAffinityGroup"))
    },
    get("/ops/v1/anti-affinity-groups/{group}", "One group.", IN_PROJECT, Answer::Json("AntiAffinityGroup")),
    delete(
        "/ops/v1/anti-affinity-groups/{group}",
        "Delete a group; its members stay as they are.",
        IN_PROJECT,
    ),
    Operation {
        query: IN_PROJECT,
        ..post(
            "/ops/v1/anti-affinity-groups/{group}/members/{instance}",
            "Take an instance in; it is kept apart from its next placement on.",
            204,
            Answer::Nothing,
        )
    },
    delete("/ops/v1/anti-affinity-groups/{group}/members/{instance}", "Let an instance go.", IN_PROJECT),
    get("/ops/v1/timers", "Reapers: when each last ran, and what it found.", &[], Answer::Json("Timers")),
    get("/ops/v1/timers/{timer}", "One reaper, explained.", &[], Answer::Json("TimerExplanation")),
    post("/ops/v1/timers/{timer}/activate", "Run one at once.", 202, Answer::Nothing),
    get("/ops/v1/sleds/{sled}", "One sled as it is doing.", &[], Answer::Json("SledHealth")),
    get("/ops/v1/sleds/{sled}/explain", "One sled, explained.", &[], Answer::Json("SledExplanation")),
    about_sled("/ops/v1/sleds/{sled}/cordon", "Place no new VMMs on it."),
    about_sled("/ops/v1/sleds/{sled}/uncordon", "Place new VMMs on it again; calls a drain off."),
    about_sled("/ops/v1/sleds/{sled}/drain", "Move its guests away, and place no new VMMs on it."),
    Operation {
        body: Sent::Json("ReasonGiven"),
        ..about_sled("/ops/v1/sleds/{sled}/expunge", "Declare it, and everything on it, gone for good.")
    },
    get("/ops/v1/sleds", "Sleds as they are doing.", &[], Answer::Items("SledHealth")),
    get("/ops/v1/log/stats", "The log and the read model in numbers.", &[], Answer::Json("LogStats")),
    get(
        "/ops/v1/log/tail",
        "Events behind a position, or the newest.",
        &["after", "limit"],
        Answer::Json("Tail"),
    ),
    get(
        "/ops/v1/log/records",
        "A page of records as they are stored, of the log or of one stream.",
        &["stream", "from", "limit"],
        Answer::Other("application/octet-stream"),
    ),
    get(
        "/ops/v1/log/export",
        "The log from a position on, as one export.",
        &["from"],
        Answer::Other("application/octet-stream"),
    ),
    Operation {
        body: Sent::Json("SnapshotTo"),
        ..post(
            "/ops/v1/log/snapshot",
            "Back up into a directory of the daemon's host.",
            200,
            Answer::Json("Snapshot"),
        )
    },
    post("/ops/v1/log/compact", "Compress what is sealed.", 200, Answer::Json("Compaction")),
    get("/ops/v1/attention", "What needs somebody to look at it.", &[], Answer::Json("Attention")),
    get(
        "/ops/v1/events",
        "Every event as it is recorded, as server-sent events; resumes behind `Last-Event-ID`.",
        &["after", "instance", "project", "kind", "follow"],
        Answer::Other("text/event-stream"),
    ),
    get("/ops/v1/trace/{request_id}", "What came of a request.", &[], Answer::Json("Trace")),
    get("/healthz", "Whether the process is up.", &[], Answer::Json("Up")),
    get("/readyz", "Whether commands and reads are expected to succeed.", &[], Answer::Json("Ready")),
    get("/metrics", "Metrics in Prometheus' text format.", &[], Answer::Other("text/plain")),
    get("/openapi.json", "This document.", &[], Answer::Other("application/json")),
];
