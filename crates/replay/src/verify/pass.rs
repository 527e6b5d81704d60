//! One pass over the log, or over one stream of it.

use super::finding::{FindingKind, Place, Where};
use super::follow::Followed;
use super::order::Order;
use super::shared::Shared;
use super::{CHECKPOINTS_MAX, Options, Progress, VerifyReport};
use crate::error::Error;
use crate::guard::guarded;
use crate::source::{PAGE_RECORDS, Source, ends_append, log_page, stream_page};
use eventlog::{Position, ReadError, Record};
use journal::{DecodeError, FoldError, Recorded, StreamName, apply_project, apply_sled, event_name, read};
use lifecycle::project::Project;
use lifecycle::sled::Sled;
use lifecycle::{Input, Instance, InstanceId, ProjectId, SledId};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Everything known on the way.
pub(super) struct Pass<'a> {
    options: &'a Options<'a>,
    report: VerifyReport,
    orders: BTreeMap<StreamName, Order>,
    /// Streams that cannot be followed further.
    broken: BTreeSet<StreamName>,
    instances: BTreeMap<InstanceId, Followed>,
    projects: BTreeMap<ProjectId, Option<Project>>,
    sleds: BTreeMap<SledId, Option<Sled>>,
    /// What instances share; none once it cannot be followed, and for one instance.
    shared: Option<Shared>,
    /// Where the newest event was.
    place: Place,
    nobody: Rc<str>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(options: &'a Options<'a>) -> Self {
        Self {
            options,
            report: VerifyReport::default(),
            orders: BTreeMap::new(),
            broken: BTreeSet::new(),
            instances: BTreeMap::new(),
            projects: BTreeMap::new(),
            sleds: BTreeMap::new(),
            shared: None,
            place: Place::default(),
            nobody: "unknown".into(),
        }
    }

    /// Verifies everything that is durable at the call.
    pub(super) fn over_log(
        mut self,
        source: &dyn Source,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<VerifyReport, Error> {
        self.shared = Some(Shared::default());
        let durable = source.durable().get();
        self.report.durable = durable;
        let stride = durable.div_ceil(CHECKPOINTS_MAX).max(1);
        let (mut next, mut checkpoint) = (1, stride);
        while next <= durable {
            let left = usize::try_from(durable - next + 1).unwrap_or(usize::MAX);
            let page = match log_page(source, next, left.min(source.page_records())) {
                Ok(page) => page,
                Err(error) => match self.damaged(error)? {
                    Some(last) => {
                        next = last.max(next) + 1;
                        continue;
                    }
                    None => return Ok(self.finish()),
                },
            };
            if page.is_empty() {
                self.place.position = next;
                self.add(FindingKind::OutOfOrder, format!("the log ends before position {durable}"));
                break;
            }
            for record in &page {
                if record.position.get() != next {
                    self.place_of(record);
                    self.add(FindingKind::OutOfOrder, format!("it stands where position {next} belongs"));
                }
                next = record.position.get() + 1;
                self.take(record);
                if next > checkpoint && ends_append(record.index) {
                    checkpoint = next.saturating_add(stride - 1);
                    self.check_shared();
                }
            }
            progress(Progress { done: (next - 1).min(durable), total: durable });
        }
        self.check_shared();
        Ok(self.finish())
    }

    /// Verifies one instance's stream.
    pub(super) fn over_stream(
        mut self,
        source: &dyn Source,
        id: InstanceId,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<VerifyReport, Error> {
        let stream = StreamName::Instance(id);
        loop {
            let done = self.report.events;
            let page = match stream_page(source, stream, done + 1, PAGE_RECORDS) {
                Ok(page) => page,
                Err(error) => {
                    self.damaged(error)?;
                    return Ok(self.finish());
                }
            };
            for record in &page {
                self.take(record);
            }
            let done = self.report.events;
            progress(Progress { done, total: done });
            if page.len() < PAGE_RECORDS {
                break;
            }
        }
        if self.report.events == 0 {
            return Err(Error::NoSuchInstance(id));
        }
        Ok(self.finish())
    }

    fn take(&mut self, record: &Record) {
        self.report.events += 1;
        self.report.appends += u64::from(record.index.0 == 0);
        self.place_of(record);
        let mut recorded = match read(record) {
            Ok(recorded) => recorded,
            Err(error) => return self.unreadable(record, &error),
        };
        let stream = recorded.stream;
        let order = self.orders.entry(stream).or_default();
        let problem = order.take(&recorded);
        self.place.by = Rc::clone(&order.by);
        self.place.event = event_name(&recorded.event).into();
        if self.broken.contains(&stream) {
            return;
        }
        if let Some(problem) = problem {
            self.add(FindingKind::OutOfOrder, problem);
        }
        let input = recorded.context.take().and_then(|context| context.input);
        if self.follow(&recorded, input) {
            self.share(&recorded);
        } else {
            self.broken.insert(stream);
            self.shared = None;
        }
    }

    fn place_of(&mut self, record: &Record) {
        let name = StreamName::parse(record.stream);
        let instance = match name {
            Some(StreamName::Instance(id)) => Some(id),
            _ => None,
        };
        self.place = Place {
            instance,
            stream: Where::of(record.stream),
            version: record.version.get(),
            position: record.position.get(),
            event: Cow::default(),
            cause: record.cause.get(),
            by: Rc::clone(&self.nobody),
        };
    }

    fn unreadable(&mut self, record: &Record, error: &DecodeError) {
        // What one event means is not known, so neither is what comes after it or depends on it.
        self.shared = None;
        let is_first = StreamName::parse(record.stream).is_none_or(|stream| self.broken.insert(stream));
        if is_first {
            self.place.event = format!("kind {}", record.kind).into();
            self.add(FindingKind::Unreadable, error.problem.to_string());
        }
    }

    /// Folds the event into its own entity. Answers whether its stream can be followed further.
    fn follow(&mut self, recorded: &Recorded, input: Option<Input>) -> bool {
        let folded = match recorded.stream {
            StreamName::Instance(id) => {
                let cache = self.options.cache;
                let snapshot = || cache.and_then(|cache| cache.snapshot(recorded.stream.id()).ok().flatten());
                let followed = self.instances.entry(id).or_insert_with(|| Followed::new(snapshot()));
                return followed.take(recorded, input, &self.place, self.options.policy, &mut self.report);
            }
            StreamName::Project(id) => apply_project(self.projects.entry(id).or_default(), recorded),
            StreamName::Sled(id) => apply_sled(self.sleds.entry(id).or_default(), recorded),
            StreamName::System => return true,
        };
        let Err(error) = folded else {
            return true;
        };
        let detail = match error {
            FoldError::Poison { detail, .. } => detail,
            FoldError::Decode(error) => error.to_string(),
        };
        self.add(FindingKind::CannotFollow, detail);
        false
    }

    /// Folds the event into what instances share.
    fn share(&mut self, recorded: &Recorded) {
        let Some(mut shared) = self.shared.take() else {
            return;
        };
        let followed = guarded(|| {
            shared.apply(recorded);
            shared
        });
        match followed {
            Ok(shared) => self.shared = Some(shared),
            Err(said) => {
                self.add(FindingKind::CannotFollow, format!("what instances share cannot follow it: {said}"));
            }
        }
    }

    fn check_shared(&mut self) {
        let Some(shared) = &self.shared else {
            return;
        };
        self.report.checkpoints += 1;
        let instances: BTreeMap<InstanceId, Instance> =
            self.instances.iter().filter_map(|(id, followed)| Some((*id, followed.state.clone()?))).collect();
        let finding = match guarded(|| shared.check(&instances)) {
            Ok(Ok(())) => return,
            Ok(Err(violation)) => self.place.violation(&violation),
            Err(said) => self.place.finding(FindingKind::CannotFollow, said),
        };
        // The rest would follow from it.
        self.shared = None;
        self.report.add(finding);
    }

    fn add(&mut self, kind: FindingKind, detail: impl Into<String>) {
        self.report.add(self.place.finding(kind, detail));
    }

    /// Damage is a finding; that the log cannot be asked is an error. Answers the last damaged position, if
    /// reading can go on behind it.
    fn damaged(&mut self, error: Error) -> Result<Option<u64>, Error> {
        let Error::Read { source, .. } = &error else {
            return Err(error);
        };
        let (position, stream, last) = match source {
            ReadError::Damaged { position, last, streams, .. } => {
                self.broken.extend(streams.iter().copied().filter_map(StreamName::parse));
                (position.get(), Where::Log, last.map(Position::get))
            }
            ReadError::Quarantined { stream, .. } => (0, Where::of(*stream), None),
            ReadError::Archived { .. } | ReadError::Io(_) | ReadError::Closed => return Err(error),
        };
        // What was lost may have been about anything that instances share.
        self.shared = None;
        let by = Rc::clone(&self.nobody);
        self.place = Place { position, stream, event: "unknown".into(), by, ..Place::default() };
        self.add(FindingKind::Unreadable, error.to_string());
        Ok(last)
    }

    fn finish(mut self) -> VerifyReport {
        for (stream, order) in &self.orders {
            if order.is_open() && !self.broken.contains(stream) {
                let place = self.end_of(*stream);
                self.report.add(place.finding(FindingKind::OutOfOrder, "its last append is not whole"));
            }
        }
        for (id, followed) in &self.instances {
            let stream = StreamName::Instance(*id);
            if !self.broken.contains(&stream) {
                followed.finish(&self.end_of(stream), &mut self.report);
            }
        }
        self.report.streams = self.orders.len() as u64;
        self.report.instances = self.instances.len() as u64;
        self.report
    }

    /// The newest event of a stream that was followed to its end.
    fn end_of(&self, stream: StreamName) -> Place {
        let head = match stream {
            StreamName::Instance(id) => {
                self.instances.get(&id).and_then(|it| it.state.as_ref()).map(|it| it.head)
            }
            StreamName::Project(_) | StreamName::Sled(_) | StreamName::System => None,
        };
        Place {
            instance: match stream {
                StreamName::Instance(id) => Some(id),
                _ => None,
            },
            stream: Where::Stream(stream),
            version: head.map_or(0, |head| head.version),
            position: head.map_or(0, |head| head.position),
            event: "end of stream".into(),
            cause: 0,
            by: self
                .orders
                .get(&stream)
                .map_or_else(|| Rc::clone(&self.nobody), |order| Rc::clone(&order.by)),
        }
    }
}
