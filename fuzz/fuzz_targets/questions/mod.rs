//! Every question that `replay` asks of a history, whatever the history holds: each is answered or refused.

use eventlog::{Position, ReadError, Record, StreamId, Version};
use journal::StreamName;
use lifecycle::{InstanceId, Policy, Timestamp};
use replay::{At, Condition, Options, Scope, Session, Source};

/// Instances that are looked at one by one: the rest would tell nothing new, and take long.
const INSTANCES_MAX: usize = 4;

/// What a walk is told to do.
const WALK: [&str; 10] = [
    "goto first",
    "until run_state=running",
    "break vmms",
    "continue",
    "why",
    "effects",
    "diff first..last",
    "print saga",
    "back 3",
    "list",
];

#[allow(dead_code, reason = "one of those who ask has a log of its own")]
/// A log of these records, at positions from 1 on, whatever else they say.
pub struct Held(pub Vec<Record>);

impl Source for Held {
    fn read_stream(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Record>, ReadError> {
        let own = self.0.iter().filter(|record| record.stream == stream && record.version >= from);
        Ok(own.take(limit).cloned().collect())
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        Ok(self.0.iter().filter(|record| record.position >= from).take(limit).cloned().collect())
    }

    fn durable(&self) -> Position {
        Position::new(self.0.len() as u64)
    }
}

/// Asks all of them.
pub fn ask(source: &dyn Source) {
    let quiet = &mut |_: replay::Progress| {};
    if let Ok(mut report) = replay::verify(source, Scope::All, &Options::default(), quiet) {
        let _ = replay::verify_read_model(source, None, &mut report, quiet);
    }
    let _ = replay::fleet_at(source, At::Now, quiet);
    let _ = replay::stats(source, 5, quiet);
    let _ = replay::grep(source, None, "running", 10, quiet);
    let _ = replay::find_instance(source, "demo", "web-1");
    let _ = replay::check_upgrade(source, Policy::default(), quiet);
    if let Ok(wanted) = Condition::parse("saga.step=fence") {
        let _ = replay::until_of_any(source, &wanted, quiet);
    }
    for id in instances(source) {
        let _ = replay::history(source, id, 0, usize::MAX);
        let _ = replay::lanes(source, id).map(|lanes| lanes.text());
        let _ = replay::state_at(source, id, At::Version(3));
        let _ = replay::state_diff(source, id, At::Version(1), At::Now);
        let _ = replay::append_costs(source, id);
        let _ = replay::incident(source, id, quiet);
        if let Ok(mut session) = Session::open(source, id, Timestamp::from_micros(1)) {
            for line in WALK {
                let _ = session.run(line);
            }
        }
    }
}

fn instances(source: &dyn Source) -> Vec<InstanceId> {
    let records = source.read_all(Position::new(1), 256).unwrap_or_default();
    let mut found: Vec<InstanceId> = records
        .iter()
        .filter_map(|record| match StreamName::parse(record.stream) {
            Some(StreamName::Instance(id)) => Some(id),
            _ => None,
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(INSTANCES_MAX);
    found
}
