//! Walking through an instance's history step by step: where one stands, and commands that move or look.
//!
//! ```text
//!  line ──▶ Session ──▶ text, and whether it is over
//! ```
//!
//! Invariants:
//! * the state one looks at is the fold up to where one stands, reached by `evolve` alone;
//! * going back folds again from the nearest state that is kept, so that memory follows the number of events
//!   divided by `KEEP_EVERY`;
//! * no line makes it panic: what is no command is answered with what there is.

use crate::at::At;
use crate::diff::{changes, state_fields};
use crate::error::Error;
use crate::explain::{Contact, Doing, Present, explain};
use crate::history::{Entry, history};
use crate::names::{SledNames, short};
use crate::source::{Flow, Source, each_of_stream, ends_append};
use crate::until::Condition;
use journal::{Recorded, StreamName, apply_instance, read};
use lifecycle::{Instance, InstanceId, Policy, SledId, Span, Timestamp, effects};
use serde_json::Value;
use std::cell::RefCell;
use std::fmt::Write as _;

/// Events between two states that are kept.
const KEEP_EVERY: usize = 64;

/// Entries shown around where one stands.
const AROUND: usize = 5;

/// What there is to say.
pub const HELP: &str = "\
next [N], back [N]       to a later or an earlier event
goto MOMENT              #VERSION, @POSITION, a time, -30s, first, last
until CONDITION          on to the first event after which FIELD=VALUE holds, FIELD!=VALUE, or C4 is broken
break FIELD | EVENT      stop there on continue; without an argument: show; break clear: none any more
continue                 on to the next break
print [FIELD]            the state, or a part of it such as saga.step
diff [A..B]              what differs between two moments; without: what this event changed
why                      who caused this event, and why the instance is as it is
effects                  what would be sent now
list                     the events around this one
help, quit";

/// A walk through one instance's history.
pub struct Session<'a> {
    sleds: RefCell<SledNames<'a>>,
    entries: Vec<Entry>,
    records: Vec<Recorded>,
    /// State after every [`KEEP_EVERY`]th event.
    kept: Vec<Instance>,
    /// Index of the event that one stands behind.
    at: usize,
    state: Instance,
    breaks: Vec<Break>,
    now: Timestamp,
}

/// Where to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Break {
    /// At an event of this name.
    Event(String),
    /// Where this field, or something in it, changes.
    Field(String),
    /// Where this comes true.
    Condition(Condition),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// For people; may be empty.
    pub text: String,
    /// Whether the walk is over.
    pub is_over: bool,
    /// Whether the line was no command, or could not be carried out.
    pub is_refused: bool,
}

impl Reply {
    fn said(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_over: false, is_refused: false }
    }

    fn refused(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_over: false, is_refused: true }
    }
}

impl<'a> Session<'a> {
    /// Begins behind the newest event. `now` is what an age counts from.
    pub fn open(source: &'a dyn Source, instance: InstanceId, now: Timestamp) -> Result<Self, Error> {
        let entries = history(source, instance, 0, usize::MAX)?;
        let (mut records, mut kept, mut state) = (Vec::new(), Vec::new(), None);
        each_of_stream(source, StreamName::Instance(instance), &mut |record| {
            let recorded = read(&record)?;
            apply_instance(&mut state, &recorded)?;
            if records.len() % KEEP_EVERY == 0 {
                kept.extend(state.clone());
            }
            records.push(recorded);
            Ok(Flow::Continue(()))
        })?;
        let state = state.ok_or(Error::NoSuchInstance(instance))?;
        // A live log may have grown between the two readings.
        let count = entries.len().min(records.len());
        let (mut entries, at) = (entries, count - 1);
        entries.truncate(count);
        records.truncate(count);
        let sleds = RefCell::new(SledNames::new(source));
        let mut session = Self { sleds, entries, records, kept, at, state, breaks: Vec::new(), now };
        session.stand(at);
        Ok(session)
    }

    /// The events, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Index of the event that one stands behind.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The state there.
    pub const fn state(&self) -> &Instance {
        &self.state
    }

    /// The state after another event.
    pub fn state_after(&self, nth: usize) -> Instance {
        let nth = nth.min(self.records.len() - 1);
        let mut state = Some(self.kept[nth / KEEP_EVERY].clone());
        for recorded in &self.records[nth / KEEP_EVERY * KEEP_EVERY + 1..=nth] {
            apply_instance(&mut state, recorded).expect("it was folded when the walk began");
        }
        state.expect("a stream begins with its creation")
    }

    /// Goes behind an event; beyond the end is the end.
    pub fn stand(&mut self, nth: usize) {
        self.at = nth.min(self.records.len() - 1);
        self.state = self.state_after(self.at);
    }

    /// Carries a line out.
    pub fn run(&mut self, line: &str) -> Reply {
        let line = line.trim();
        let (verb, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match verb {
            "" => Reply::said(""),
            "next" | "n" => self.walk(rest, true),
            "back" | "b" => self.walk(rest, false),
            "goto" | "g" => self.goto(rest),
            "until" | "u" => self.until(rest),
            "break" => self.break_at(rest),
            "continue" | "c" => self.go_on(),
            "print" | "p" => self.print(rest),
            "diff" | "d" => self.diff(rest),
            "why" | "w" => Reply::said(self.why()),
            "effects" | "e" => Reply::said(self.effects()),
            "list" | "l" => Reply::said(self.list()),
            "help" | "h" | "?" => Reply::said(HELP),
            "quit" | "q" | "exit" => Reply { is_over: true, ..Reply::said("") },
            _ => Reply::refused(format!("\"{verb}\" is no command; there are\n{HELP}")),
        }
    }

    /// Where one stands, in one line.
    pub fn place(&self) -> String {
        let entry = &self.entries[self.at];
        let (state, actor) = (self.state.run_state(), &entry.actor);
        format!(
            "#{} @{} {} {state}: {} by {actor}: {}",
            entry.version, entry.position, entry.time, entry.event, entry.summary
        )
    }

    fn walk(&mut self, count: &str, is_forward: bool) -> Reply {
        let Ok(count) = (if count.is_empty() { Ok(1) } else { count.parse::<usize>() }) else {
            return Reply::refused(format!("\"{count}\" is no number of events"));
        };
        let (from, end) = (self.at, self.records.len() - 1);
        let to = if is_forward { from.saturating_add(count).min(end) } else { from.saturating_sub(count) };
        if to == from && count > 0 {
            return Reply::refused(if is_forward {
                "this is the last event"
            } else {
                "this is the first event"
            });
        }
        self.stand(to);
        Reply::said(self.place())
    }

    fn moment(&self, text: &str) -> Result<usize, String> {
        match text {
            "first" => return Ok(0),
            "last" => return Ok(self.records.len() - 1),
            _ => {}
        }
        let at = At::parse(text, self.now).map_err(|error| error.to_string())?;
        let found = self.records.iter().rposition(|recorded| at.includes(recorded));
        let found = found.ok_or_else(|| format!("the instance did not exist at {at}"))?;
        let beyond = matches!(at, At::Version(version) if version > self.records[found].meta.version);
        if beyond {
            let newest = self.records[found].meta.version;
            return Err(format!("there is no {at}: the newest is #{newest}"));
        }
        Ok(found)
    }

    fn goto(&mut self, text: &str) -> Reply {
        match self.moment(text) {
            Ok(nth) => {
                self.stand(nth);
                Reply::said(self.place())
            }
            Err(why) => Reply::refused(why),
        }
    }

    fn until(&mut self, text: &str) -> Reply {
        let wanted = match Condition::parse(text) {
            Ok(wanted) => wanted,
            Err(error) => return Reply::refused(error.to_string()),
        };
        match self.search(|session, nth, state| session.is_met(&wanted, nth, state)) {
            Some(why) => Reply::said(format!("{}\n  {why}", self.place())),
            None => Reply::refused(format!(
                "\"{wanted}\" does not come true after #{}",
                self.entries[self.at].version
            )),
        }
    }

    fn is_met(&self, wanted: &Condition, nth: usize, state: &Instance) -> Option<String> {
        let (index, count) = self.records[nth].index;
        let begun = nth.checked_sub(usize::from(index) + 1);
        let before = begun.map(|nth| self.state_after(nth));
        wanted.met(before.as_ref(), state, ends_append((index, count)))
    }

    /// Goes behind the first later event that `wanted` says something about.
    fn search(&mut self, wanted: impl Fn(&Self, usize, &Instance) -> Option<String>) -> Option<String> {
        let mut state = Some(self.state.clone());
        for nth in self.at + 1..self.records.len() {
            apply_instance(&mut state, &self.records[nth]).expect("it was folded when the walk began");
            if let Some(why) = state.as_ref().and_then(|state| wanted(self, nth, state)) {
                self.stand(nth);
                return Some(why);
            }
        }
        None
    }

    fn break_at(&mut self, what: &str) -> Reply {
        match what {
            "" => {}
            "clear" => self.breaks.clear(),
            _ => match break_of(what) {
                Ok(found) => self.breaks.push(found),
                Err(why) => return Reply::refused(why),
            },
        }
        if self.breaks.is_empty() {
            return Reply::said("no breaks");
        }
        let told = self.breaks.iter().map(|it| match it {
            Break::Event(name) => format!("at {name}"),
            Break::Field(field) => format!("where {field} changes"),
            Break::Condition(wanted) => format!("where {wanted}"),
        });
        Reply::said(format!("breaks {}", told.collect::<Vec<_>>().join(", ")))
    }

    fn go_on(&mut self) -> Reply {
        let breaks = self.breaks.clone();
        let found = self.search(|session, nth, state| {
            breaks.iter().find_map(|it| match it {
                Break::Event(name) => {
                    let event = session.entries[nth].event;
                    (event.eq_ignore_ascii_case(name)).then(|| format!("break at {event}"))
                }
                Break::Condition(wanted) => session.is_met(wanted, nth, state),
                Break::Field(field) => {
                    let before = state_fields(&session.state_after(nth.saturating_sub(1)));
                    let found = changes(&before, &state_fields(state));
                    let is_in = |name: &str| {
                        name.strip_prefix(field.as_str())
                            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                    };
                    found.into_iter().find(|it| is_in(&it.field)).map(|it| line_of(&it))
                }
            })
        });
        match found {
            Some(why) => Reply::said(format!("{}\n  {why}", self.place())),
            None => {
                self.stand(usize::MAX);
                Reply::said(format!("{}\n  the end: nothing broke off before", self.place()))
            }
        }
    }

    fn print(&self, field: &str) -> Reply {
        let all = state_fields(&self.state);
        let mut found = &all;
        for name in field.split('.').filter(|name| !name.is_empty()) {
            let inner = match found {
                Value::Object(fields) => fields.get(name).or_else(|| {
                    fields.iter().find(|(key, _)| name.len() >= 4 && key.starts_with(name)).map(|(_, it)| it)
                }),
                Value::Array(items) => name.parse::<usize>().ok().and_then(|nth| items.get(nth)),
                _ => None,
            };
            let Some(inner) = inner else {
                return Reply::refused(format!("there is no \"{name}\" in {field}"));
            };
            found = inner;
        }
        Reply::said(serde_json::to_string_pretty(found).unwrap_or_default())
    }

    fn diff(&self, range: &str) -> Reply {
        let (from, to) = match range.split_once("..") {
            None if range.is_empty() => (self.at.checked_sub(1), self.at),
            None => return Reply::refused("write diff A..B, such as diff #7..#9"),
            Some((from, to)) => {
                let from = if from.is_empty() { Ok(0) } else { self.moment(from.trim()) };
                let to = if to.is_empty() { Ok(self.at) } else { self.moment(to.trim()) };
                match (from, to) {
                    (Ok(from), Ok(to)) => (Some(from), to),
                    (Err(why), _) | (_, Err(why)) => return Reply::refused(why),
                }
            }
        };
        let before = from.map_or(Value::Null, |nth| state_fields(&self.state_after(nth)));
        let found = changes(&before, &state_fields(&self.state_after(to)));
        if found.is_empty() {
            return Reply::said("nothing differs");
        }
        Reply::said(found.iter().map(line_of).collect::<Vec<_>>().join("\n"))
    }

    fn why(&self) -> String {
        let entry = &self.entries[self.at];
        let mut text = format!("{} was caused by {}", entry.event, entry.actor);
        if let Some(request) = entry.request_id {
            let _ = write!(text, ", request {request}");
        }
        if let Some(cause) = entry.cause {
            let _ = write!(text, ", after the event at position {cause}");
        }
        let told = explain(&self.state, &Policy::default(), self);
        let _ = write!(text, "\nthe instance is {}", told.run_state);
        for because in &told.because {
            let _ = write!(text, "\n  because   {because}");
        }
        for wait in &told.waits {
            let _ = write!(text, "\n  waiting   {}", wait.what);
        }
        for next in &told.next {
            let _ = write!(text, "\n  next      {} -> {}", next.when, next.then);
        }
        text
    }

    fn effects(&self) -> String {
        let wished = effects(&self.state);
        if wished.is_empty() {
            return "nothing would be sent".to_owned();
        }
        let mut sleds = self.sleds.borrow_mut();
        let lines: Vec<String> = wished
            .iter()
            .map(|it| format!("{} VMM {} on sled {}", it.name(), it.vmm(), sleds.get(it.sled())))
            .collect();
        lines.join("\n")
    }

    fn list(&self) -> String {
        let from = self.at.saturating_sub(AROUND);
        let to = (self.at + AROUND + 1).min(self.entries.len());
        let lines = (from..to).map(|nth| {
            let (entry, mark) = (&self.entries[nth], if nth == self.at { '>' } else { ' ' });
            format!("{mark} #{:<4} {} {:<18} {}", entry.version, entry.time, entry.event, entry.summary)
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Present for Session<'_> {
    fn sled_name(&self, sled: SledId) -> String {
        self.sleds.try_borrow_mut().map_or_else(|_| short(sled), |mut sleds| sleds.get(sled).to_owned())
    }

    fn contact(&self, _: SledId) -> Contact {
        Contact::default()
    }

    fn usual(&self, _: Doing) -> Option<Span> {
        None
    }
}

fn break_of(what: &str) -> Result<Break, String> {
    if what.contains('=') {
        return Condition::parse(what).map(Break::Condition).map_err(|error| error.to_string());
    }
    let is_event = journal::event_kinds().any(|kind| kind.name.eq_ignore_ascii_case(what));
    if is_event {
        return Ok(Break::Event(what.to_owned()));
    }
    if what.starts_with(|c: char| c.is_ascii_uppercase()) {
        return Condition::parse(what)
            .map(Break::Condition)
            .map_err(|_| format!("no event is called \"{what}\""));
    }
    Ok(Break::Field(what.to_owned()))
}

fn line_of(change: &crate::diff::Change) -> String {
    let plain = |value: &Option<Value>| match value {
        None => "nothing".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let name = if change.field.is_empty() { "everything" } else { &change.field };
    format!("{name}: {} → {}", plain(&change.before), plain(&change.after))
}
