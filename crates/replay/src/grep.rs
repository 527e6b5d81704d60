//! Events that mention something: a word of the event, of who caused it, or of the sentence people read.
//!
//! Invariants:
//! * an event matches if its name, its stream, its fields as JSON, who caused it, the request or its sentence
//!   contain the text, whatever the case;
//! * no more than the limit is kept; the rest is counted.

use crate::error::Error;
use crate::names::SledNames;
use crate::source::{Flow, Source, each_of_stream, each_record};
use crate::summary::sentence;
use crate::time::rfc3339;
use crate::verify::Progress;
use eventlog::Record;
use journal::{Event, Recorded, RecordedContext, StreamName, event_name, read};
use lifecycle::InstanceId;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// One event that matches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    /// Position in the log.
    pub position: u64,
    /// Its stream.
    pub stream: String,
    /// Version in the stream.
    pub version: u64,
    /// Recorded time, RFC 3339 in UTC.
    pub time: String,
    /// What it is called.
    pub event: &'static str,
    /// Who caused it.
    pub actor: String,
    /// The request from outside, if there was one.
    pub request_id: Option<String>,
    /// One sentence for people; of other streams than instances the event as JSON.
    pub summary: String,
    /// The whole event.
    pub data: Value,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Hits {
    /// The first ones, in order of the log.
    pub items: Vec<Hit>,
    /// How many there are, kept or not.
    pub total: u64,
}

struct Search<'a> {
    wanted: String,
    limit: usize,
    hits: Hits,
    sleds: SledNames<'a>,
    /// Who and why stands on the first event of an append; appends of streams do not interleave within one.
    contexts: BTreeMap<StreamName, RecordedContext>,
}

/// Events of one instance, or of the whole log, that mention `text`; the first `limit` of them.
pub fn grep(
    source: &dyn Source,
    instance: Option<InstanceId>,
    text: &str,
    limit: usize,
    progress: &mut dyn FnMut(Progress),
) -> Result<Hits, Error> {
    let mut search = Search {
        wanted: text.to_lowercase(),
        limit,
        hits: Hits::default(),
        sleds: SledNames::new(source),
        contexts: BTreeMap::new(),
    };
    let mut take = |record: Record| {
        search.take(read(&record)?);
        Ok(Flow::Continue(()))
    };
    match instance {
        Some(id) => {
            if each_of_stream(source, StreamName::Instance(id), &mut take)? == 0 {
                return Err(Error::NoSuchInstance(id));
            }
        }
        None => each_record(source, source.durable().get(), progress, &mut take)?,
    }
    Ok(search.hits)
}

impl Search<'_> {
    fn take(&mut self, mut recorded: Recorded) {
        if let Some(context) = recorded.context.take() {
            self.contexts.insert(recorded.stream, context);
        }
        let hit = describe(&recorded, self.contexts.get(&recorded.stream), &mut self.sleds);
        if !hit.mentions(&self.wanted) {
            return;
        }
        self.hits.total += 1;
        if self.hits.items.len() < self.limit {
            self.hits.items.push(hit);
        }
    }
}

impl Hit {
    /// Whether it contains the text, which is in lower case.
    pub(crate) fn mentions(&self, wanted: &str) -> bool {
        let data = self.data.to_string();
        let texts = [self.event, &self.stream, &self.actor, &self.summary, &data];
        let mut own = texts.into_iter().chain(self.request_id.as_deref());
        own.any(|text| text.to_lowercase().contains(wanted))
    }
}

/// The event as people read it; `context` is that of its append.
pub(crate) fn describe(
    recorded: &Recorded,
    context: Option<&RecordedContext>,
    sleds: &mut SledNames<'_>,
) -> Hit {
    let data = json(&recorded.event);
    let summary = match &recorded.event {
        Event::Instance(event) => sentence(event, context.and_then(|context| context.input.as_ref()), sleds),
        Event::Project(_) | Event::Sled(_) | Event::System(_) => data.to_string(),
    };
    Hit {
        position: recorded.meta.position,
        stream: recorded.stream.to_string(),
        version: recorded.meta.version,
        time: rfc3339(recorded.meta.time),
        event: event_name(&recorded.event),
        actor: context.map_or_else(|| "unknown".to_owned(), |context| context.actor.to_string()),
        request_id: context.and_then(|context| context.request).map(|id| id.to_string()),
        summary,
        data,
    }
}

fn json(event: &Event) -> Value {
    let value = match event {
        Event::Instance(event) => serde_json::to_value(event),
        Event::Project(event) => serde_json::to_value(event),
        Event::Sled(event) => serde_json::to_value(event),
        Event::System(event) => serde_json::to_value(event),
    };
    value.unwrap_or(Value::Null)
}
