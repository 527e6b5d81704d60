//! From what people call an instance to its id, by the log alone: names, beginnings of ids, deleted ones too.

use crate::error::Error;
use crate::source::{Flow, Source, each_record};
use journal::{Event, StreamName, read};
use lifecycle::{InstanceEvent, InstanceId, ProjectEvent, ProjectId};
use std::collections::BTreeMap;

/// Shortest beginning of an id that is looked for.
pub const PREFIX_CHARS_MIN: usize = 8;

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// One instance: the newest of that name.
    One(InstanceId),
    /// The beginning of several ids.
    Several,
    /// Nothing.
    Nothing,
}

/// The instance that `named` means, by id, name in `project` (name or id) or beginning of an id. What cannot be
/// read names nothing.
pub fn find_instance(source: &dyn Source, project: &str, named: &str) -> Result<Found, Error> {
    if let Ok(id) = named.parse() {
        return Ok(Found::One(InstanceId::new(id)));
    }
    let (mut projects, mut by_name, mut by_prefix) = (BTreeMap::new(), None, Vec::new());
    let is_prefix =
        named.len() >= PREFIX_CHARS_MIN && named.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let durable = source.durable().get();
    each_record(source, durable, &mut |_| {}, &mut |mut record| {
        // Only the first events of instances and projects, and changed names, say what something is called.
        let is_project = matches!(StreamName::parse(record.stream), Some(StreamName::Project(_)));
        if record.version.get() > 1 && !is_project {
            return Ok(Flow::Continue(()));
        }
        record.context = None;
        let Ok(recorded) = read(&record) else {
            return Ok(Flow::Continue(()));
        };
        match (recorded.stream, recorded.event) {
            (
                StreamName::Project(id),
                Event::Project(ProjectEvent::Created { name, .. } | ProjectEvent::Changed { name, .. }),
            ) => {
                projects.insert(id, name);
            }
            (StreamName::Instance(id), Event::Instance(InstanceEvent::Created { spec, .. })) => {
                let is_here = projects.get(&spec.project).is_some_and(|name| name == project)
                    || project.parse().is_ok_and(|id| ProjectId::new(id) == spec.project);
                if spec.name == named && is_here {
                    by_name = Some(id);
                }
                if is_prefix && id.to_string().starts_with(named) {
                    by_prefix.push(id);
                }
            }
            _ => {}
        }
        Ok(Flow::Continue(()))
    })?;
    Ok(match (by_name, by_prefix.as_slice()) {
        (Some(id), _) => Found::One(id),
        (None, [id]) => Found::One(*id),
        (None, []) => Found::Nothing,
        (None, _) => Found::Several,
    })
}
