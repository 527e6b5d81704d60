//! What happened to an instance, event by event, as its stream tells it.
//!
//! Invariant: an entry is the same on whatever page it is read.

use crate::error::Error;
use crate::names::SledNames;
use crate::source::{Source, stream_page};
use crate::summary::sentence;
use crate::time::rfc3339;
use journal::{Event, Recorded, RecordedContext, StreamName, event_name, read};
use lifecycle::{InstanceEvent, InstanceId, RequestId, SagaId, Step};
use serde::Serialize;
use serde_json::Value;

/// One event of an instance's stream, with who and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Version in the stream.
    pub version: u64,
    /// Position in the log.
    pub position: u64,
    /// Recorded time, RFC 3339 in UTC.
    pub time: String,
    /// What the event is called, such as `StartBegan`.
    pub event: &'static str,
    /// The whole event.
    pub data: Value,
    /// Who caused it, such as `user demo` or `sled 5a..`.
    pub actor: String,
    /// Why, in the words of who asked.
    pub reason: Option<String>,
    /// The request from outside that led to it.
    pub request_id: Option<RequestId>,
    /// The saga it belongs to.
    pub saga_id: Option<SagaId>,
    /// The step of that saga.
    pub saga_step: Option<Step>,
    /// Position of the event that caused it.
    pub cause: Option<u64>,
    /// Version of the first event of the same append: what shares it was decided together.
    pub append: u64,
    /// One sentence for people.
    pub summary: String,
}

/// The events of an instance after version `after` (0 for all), at most `limit`: the caller's bound on memory.
pub fn history(
    source: &dyn Source,
    instance: InstanceId,
    after: u64,
    limit: usize,
) -> Result<Vec<Entry>, Error> {
    let stream = StreamName::Instance(instance);
    let from = after.saturating_add(1);
    let records = stream_page(source, stream, from, limit)?;
    let Some(first) = records.first() else {
        let exists = !stream_page(source, stream, 1, 1)?.is_empty();
        return if exists { Ok(Vec::new()) } else { Err(Error::NoSuchInstance(instance)) };
    };
    // A page may begin in the middle of an append; who and why stand on its first event.
    let mut context = match u64::from(first.index.0) {
        0 => None,
        behind => {
            let begin = stream_page(source, stream, from.saturating_sub(behind).max(1), 1)?;
            begin.first().map(read).transpose()?.and_then(|recorded| recorded.context)
        }
    };
    let mut sleds = SledNames::new(source);
    let mut entries = Vec::with_capacity(records.len());
    for record in &records {
        let mut recorded = read(record)?;
        if let Some(own) = recorded.context.take() {
            context = Some(own);
        }
        entries.extend(entry(&recorded, context.as_ref(), &mut sleds));
    }
    Ok(entries)
}

/// Events that are looked back through for who asked: more than any one saga takes.
const ASKED_WITHIN: u64 = 128;

/// The newest request from outside that an instance, at this version, has taken; none if it is long ago.
pub fn last_asked(source: &dyn Source, instance: InstanceId, version: u64) -> Result<Option<Entry>, Error> {
    let after = version.saturating_sub(ASKED_WITHIN);
    let entries = history(source, instance, after, usize::try_from(version - after).unwrap_or(usize::MAX))?;
    Ok(entries.into_iter().rfind(|entry| entry.request_id.is_some() && entry.append == entry.version))
}

/// None for an event of another sort of stream, which `read` refuses.
fn entry(recorded: &Recorded, context: Option<&RecordedContext>, sleds: &mut SledNames<'_>) -> Option<Entry> {
    let Event::Instance(event) = &recorded.event else {
        return None;
    };
    let (own_saga, own_step) = saga_of(event);
    let saga = context.and_then(|context| context.saga);
    Some(Entry {
        version: recorded.meta.version,
        position: recorded.meta.position,
        time: rfc3339(recorded.meta.time),
        event: event_name(&recorded.event),
        data: serde_json::to_value(event).unwrap_or(Value::Null),
        actor: context.map_or_else(|| "unknown".to_owned(), |context| context.actor.to_string()),
        reason: context.and_then(|context| context.reason.clone()),
        request_id: context.and_then(|context| context.request),
        saga_id: own_saga.or(saga.map(|(id, _)| id)),
        saga_step: own_step.or(saga.map(|(_, step)| step)),
        cause: (recorded.cause != 0).then_some(recorded.cause),
        append: recorded.meta.version.saturating_sub(u64::from(recorded.index.0)),
        summary: sentence(event, context.and_then(|context| context.input.as_ref()), sleds),
    })
}

/// The saga and step that the event itself names.
const fn saga_of(event: &InstanceEvent) -> (Option<SagaId>, Option<Step>) {
    match event {
        InstanceEvent::StartBegan { saga, .. }
        | InstanceEvent::MigrateBegan { saga, .. }
        | InstanceEvent::SagaResumed { saga }
        | InstanceEvent::SagaEnded { saga, .. } => (Some(*saga), None),
        InstanceEvent::SagaAdvanced { saga, step }
        | InstanceEvent::SagaPaused { saga, step, .. }
        | InstanceEvent::SagaRetried { saga, step }
        | InstanceEvent::SagaUnwound { saga, step, .. } => (Some(*saga), Some(*step)),
        _ => (None, None),
    }
}
