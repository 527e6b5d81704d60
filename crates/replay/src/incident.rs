//! Everything that an instance's story depended on, gathered from the log: its own events, and those of sleds and
//! of the daemon while it lived.

use crate::error::Error;
use crate::source::{Flow, Source, each_of_stream, each_record};
use crate::verify::Progress;
use journal::{Recorded, StreamName, read};
use lifecycle::{InstanceId, Timestamp};

/// A story and its surroundings, each in order of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The instance.
    pub instance: InstanceId,
    /// Its own events.
    pub own: Vec<Recorded>,
    /// Events of sleds and of the system, from the beginning of the log to its end.
    pub around: Vec<Recorded>,
    /// Latest recorded time of the log, of whatever stream: until then nothing else happened to the instance.
    pub end: Timestamp,
}

/// Gathers what concerns an instance. `progress` is called once per page read.
pub fn incident(
    source: &dyn Source,
    instance: InstanceId,
    progress: &mut dyn FnMut(Progress),
) -> Result<Incident, Error> {
    let mut found = Incident { instance, own: Vec::new(), around: Vec::new(), end: Timestamp::default() };
    each_of_stream(source, StreamName::Instance(instance), &mut |record| {
        found.own.push(read(&record)?);
        Ok(Flow::Continue(()))
    })?;
    if found.own.is_empty() {
        return Err(Error::NoSuchInstance(instance));
    }
    each_record(source, source.durable().get(), progress, &mut |record| {
        found.end = found.end.max(Timestamp::from_micros(record.time_us));
        if matches!(StreamName::parse(record.stream), Some(StreamName::Sled(_) | StreamName::System)) {
            found.around.push(read(&record)?);
        }
        Ok(Flow::Continue(()))
    })?;
    Ok(found)
}
