//! What another build, or another configuration, would have made of the same history.
//!
//! The one idea: **what was decided on is in the log, so it can be decided on again by anybody.** Every append of
//! every instance is given to two sets of rules, over the state that the *recorded* events lead to: each decides
//! the recorded input, then folds the recorded events and says what users would see and what would be sent.
//!
//! ```text
//!  log ── appends ──▶ rules of this build ──answers──┐
//!             └─────▶ the other rules ───────answers──┴─▶ first difference per instance
//! ```
//!
//! Invariants:
//! * both get the same bytes, in the layouts in which they were stored;
//! * an instance is given up at its first difference: what follows would follow from it;
//! * questions, answers, and differences kept are bounded; memory follows the number of instances.

mod host;
mod protocol;

pub use host::Host;
pub use protocol::{
    Answer, Asked, AskedRecord, Decided, HELLO_BYTES_MAX, Hello, LINE_BYTES_MAX, Limits, PROTOCOL, Question,
    Then,
};

use crate::error::Error;
use crate::source::{Flow, Source, each_of_stream, each_record, ends_append};
use crate::time::rfc3339;
use crate::verify::{Progress, policy_of};
use eventlog::Record;
use journal::{Event, StreamName, decode_event, decode_input};
use lifecycle::{InstanceEvent, InstanceId, Policy, Timestamp};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Appends asked about at once: enough to make a round trip worth it.
pub const APPENDS_MAX: usize = 128;

/// Bytes of payloads after which a question is sent, however few appends it has.
const QUESTION_BYTES: usize = 1 << 20;

/// Differences that are kept; the rest are counted.
pub const DIFFERENCES_MAX: usize = 100;

/// A set of rules that can be asked.
pub trait Rules {
    /// Answers every append of the question, in order.
    fn ask(&mut self, question: &Question) -> Result<Vec<Answer>, RulesError>;
}

/// Why the other rules did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other rules stopped answering: {0}")]
pub struct RulesError(pub String);

/// Why a comparison came to no end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhatIfError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] Error),
    /// The other rules do not answer.
    #[error(transparent)]
    Rules(#[from] RulesError),
}

/// Where two sets of rules part for the first time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The instance.
    pub instance: InstanceId,
    /// Its name, if it was created.
    pub name: String,
    /// Version of the first event of the append.
    pub version: u64,
    /// Its position.
    pub position: u64,
    /// Its recorded time, RFC 3339 in UTC.
    pub time: String,
    /// What was decided on.
    pub input: Value,
    /// What was recorded.
    pub recorded: Vec<Value>,
    /// What this build says.
    pub ours: Answer,
    /// What the other one says.
    pub theirs: Answer,
}

/// What came of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WhatIf {
    /// Instances that were given to both.
    pub instances: u64,
    /// Appends that both answered.
    pub appends: u64,
    /// Appends that kept no input: only their folds were compared.
    pub inputs_missing: u64,
    /// The first difference of each instance that has one, in order of the log.
    pub differences: Vec<Difference>,
    /// How many more there were.
    pub differences_dropped: u64,
}

/// Limits that one side decides under.
#[derive(Clone, Copy, Debug)]
pub enum Under {
    /// Those that were in force: as recorded, and of the rest these.
    Recorded(Policy),
    /// These, whatever was in force.
    Fixed(Policy),
}

/// One side of a comparison.
pub struct Side<'a> {
    /// The rules.
    pub rules: &'a mut dyn Rules,
    /// The limits.
    pub under: Under,
}

/// Gives the history of one instance, or of all, to both sides. `progress` is called once per page read.
pub fn compare<'a>(
    source: &dyn Source,
    instance: Option<InstanceId>,
    ours: Side<'a>,
    theirs: Side<'a>,
    progress: &mut dyn FnMut(Progress),
) -> Result<WhatIf, WhatIfError> {
    let mut comparing = Comparing {
        ours,
        theirs,
        found: WhatIf::default(),
        names: BTreeMap::new(),
        parted: BTreeSet::new(),
        open: Vec::new(),
        ready: Vec::new(),
        bytes: 0,
        stopped: None,
    };
    let mut take = |record: Record| Ok(comparing.take(record));
    match instance {
        Some(id) => {
            if each_of_stream(source, StreamName::Instance(id), &mut take)? == 0 {
                return Err(Error::NoSuchInstance(id).into());
            }
        }
        None => each_record(source, source.durable().get(), progress, &mut take)?,
    }
    comparing.finish()
}

/// One append, as it was recorded.
struct Recorded {
    instance: InstanceId,
    records: Vec<Record>,
}

struct Comparing<'a> {
    ours: Side<'a>,
    theirs: Side<'a>,
    found: WhatIf,
    /// By instance: its name.
    names: BTreeMap<InstanceId, String>,
    parted: BTreeSet<InstanceId>,
    /// Events of the append that is being read.
    open: Vec<Record>,
    ready: Vec<Recorded>,
    bytes: usize,
    stopped: Option<RulesError>,
}

impl Comparing<'_> {
    fn take(&mut self, record: Record) -> Flow {
        let Some(StreamName::Instance(instance)) = StreamName::parse(record.stream) else {
            return Flow::Continue(());
        };
        if self.parted.contains(&instance) {
            return Flow::Continue(());
        }
        if record.index.0 == 0 {
            self.open.clear();
        }
        let ends = ends_append(record.index);
        self.bytes += record.payload.len();
        self.open.push(record);
        if ends {
            self.ready.push(Recorded { instance, records: std::mem::take(&mut self.open) });
        }
        if self.ready.len() >= APPENDS_MAX || self.bytes >= QUESTION_BYTES {
            self.ask();
        }
        if self.stopped.is_some() { Flow::Break(()) } else { Flow::Continue(()) }
    }

    fn finish(mut self) -> Result<WhatIf, WhatIfError> {
        self.ask();
        self.found.instances = self.names.len() as u64;
        self.stopped.map_or(Ok(self.found), |error| Err(error.into()))
    }

    fn ask(&mut self) {
        self.bytes = 0;
        let appends = std::mem::take(&mut self.ready);
        if appends.is_empty() || self.stopped.is_some() {
            return;
        }
        let answered =
            self.ours.answers(&appends).and_then(|ours| Ok((ours, self.theirs.answers(&appends)?)));
        match answered {
            Err(error) => self.stopped = Some(error),
            Ok((ours, theirs)) => {
                for (append, (ours, theirs)) in appends.iter().zip(ours.into_iter().zip(theirs)) {
                    self.look(append, ours, theirs);
                }
            }
        }
    }

    fn look(&mut self, append: &Recorded, ours: Answer, theirs: Answer) {
        let id = append.instance;
        if self.parted.contains(&id) {
            return;
        }
        let name = self.names.entry(id).or_default();
        if let Some(created) = append.records.iter().find_map(name_of) {
            *name = created;
        }
        self.found.appends += 1;
        self.found.inputs_missing += u64::from(ours.decided == Decided::NoInput);
        if ours == theirs {
            return;
        }
        self.parted.insert(id);
        if self.found.differences.len() >= DIFFERENCES_MAX {
            self.found.differences_dropped += 1;
            return;
        }
        let first = &append.records[0];
        self.found.differences.push(Difference {
            instance: id,
            name: name.clone(),
            version: first.version.get(),
            position: first.position.get(),
            time: rfc3339(Timestamp::from_micros(first.time_us)),
            input: input_of(first),
            recorded: append
                .records
                .iter()
                .map(|record| event_of(record).map_or(Value::Null, json))
                .collect(),
            ours,
            theirs,
        });
    }
}

impl Side<'_> {
    fn answers(&mut self, appends: &[Recorded]) -> Result<Vec<Answer>, RulesError> {
        let asked = appends.iter().map(|append| Asked {
            instance: append.instance,
            limits: self.under.limits(&append.records),
            input: append.records[0]
                .context
                .as_ref()
                .map(|context| protocol::hex(&context.input))
                .filter(|it| !it.is_empty()),
            records: append.records.iter().map(AskedRecord::of).collect(),
        });
        let question = Question { appends: asked.collect() };
        let answers = self.rules.ask(&question)?;
        if answers.len() == appends.len() {
            return Ok(answers);
        }
        Err(RulesError(format!("{} appends were asked about, {} answered", appends.len(), answers.len())))
    }
}

impl Under {
    fn limits(&self, records: &[Record]) -> Limits {
        match self {
            Self::Fixed(policy) => Limits::of(policy),
            Self::Recorded(policy) => {
                let events: Vec<InstanceEvent> = records.iter().filter_map(event_of).collect();
                Limits::of(&policy_of(&events.iter().collect::<Vec<_>>(), *policy))
            }
        }
    }
}

fn event_of(record: &Record) -> Option<InstanceEvent> {
    match decode_event(record.kind, record.schema, record.codec, &record.payload) {
        Ok(Event::Instance(event)) => Some(event),
        _ => None,
    }
}

fn name_of(record: &Record) -> Option<String> {
    match event_of(record)? {
        InstanceEvent::Created { spec, .. } => Some(spec.name),
        _ => None,
    }
}

fn input_of(first: &Record) -> Value {
    let bytes = first.context.as_ref().map(|context| &context.input[..]).unwrap_or_default();
    decode_input(bytes).map_or(Value::Null, json)
}

fn json(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}
