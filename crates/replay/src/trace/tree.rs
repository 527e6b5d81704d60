//! The tree: which later events of the stream follow from which.

use super::{Because, DEPTH_MAX, EVENTS_MAX, Node, Trace, TraceParent};
use crate::at::At;
use crate::error::Error;
use crate::names::SledNames;
use crate::source::{PAGE_RECORDS, Source, stream_page};
use crate::state::state_at;
use crate::summary::{sentence, word};
use crate::time::rfc3339;
use eventlog::{Record, TraceContext};
use journal::{Event, Recorded, RecordedContext, StreamName, event_name, read};
use lifecycle::{InstanceEvent, RequestId, SagaId, VmmId, VmmState};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The tree of the request whose append begins with `first`.
pub(super) fn build(source: &dyn Source, request: RequestId, first: &Record) -> Result<Trace, Error> {
    let first = read(first)?;
    let mut story = Story::new(source, request);
    let is_cut_off = story.read_on(first.stream, first.meta.version)?;
    let context = first.context.as_ref();
    let duration_us = story.last_us.saturating_sub(first.meta.time.micros());
    let is_under_way = !story.sagas.is_empty() || !story.vmms.is_empty();
    Ok(Trace {
        request_id: request.to_string(),
        actor: context.map_or_else(|| "unknown".to_owned(), |context| context.actor.to_string()),
        stream: first.stream.to_string(),
        build: context.map(|context| context.build.clone()).unwrap_or_default(),
        trace: context.and_then(|context| context.trace).as_ref().map(trace_parent),
        time: rfc3339(first.meta.time),
        duration_us,
        is_under_way,
        is_cut_off,
        events: story.grown(),
    })
}

fn trace_parent(trace: &TraceContext) -> TraceParent {
    TraceParent { trace_id: hex(&trace.trace_id), span_id: hex(&trace.span_id) }
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The tree while it grows.
struct Story<'a> {
    source: &'a dyn Source,
    request: RequestId,
    names: SledNames<'a>,
    nodes: BTreeMap<u64, Hung>,
    /// Sagas that were begun and have not ended, by the position of their beginning.
    sagas: BTreeMap<SagaId, u64>,
    /// VMMs that are being started, stopped or rebooted, by the position of the order.
    vmms: BTreeMap<VmmId, (u64, Order)>,
    last_us: u64,
}

/// An event, and where it hangs.
struct Hung {
    /// Position of what it followed from; zero for the request itself.
    under: u64,
    depth: usize,
    node: Node,
}

/// What a VMM was told.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Start(SagaId),
    Stop,
    Reboot,
}

impl<'a> Story<'a> {
    fn new(source: &'a dyn Source, request: RequestId) -> Self {
        Self {
            source,
            request,
            names: SledNames::new(source),
            nodes: BTreeMap::new(),
            sagas: BTreeMap::new(),
            vmms: BTreeMap::new(),
            last_us: 0,
        }
    }

    /// Reads the stream from a version on; answers whether it was cut off.
    fn read_on(&mut self, stream: StreamName, from: u64) -> Result<bool, Error> {
        let (mut next, mut context) = (from, None);
        for _ in 0..EVENTS_MAX.div_ceil(PAGE_RECORDS) {
            let page = stream_page(self.source, stream, next, PAGE_RECORDS)?;
            for record in &page {
                let mut recorded = read(record)?;
                if let Some(own) = recorded.context.take() {
                    context = Some(own);
                }
                self.take(&recorded, context.as_ref())?;
                next = recorded.meta.version.saturating_add(1);
            }
            if page.len() < PAGE_RECORDS {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take(&mut self, recorded: &Recorded, context: Option<&RecordedContext>) -> Result<(), Error> {
        let Some((parent, because)) = self.parent(recorded, context) else {
            self.overtaken(recorded);
            self.forget(recorded);
            return Ok(());
        };
        let position = recorded.meta.position;
        let time_us = recorded.meta.time.micros();
        let above = self.nodes.get(&parent);
        let before = above.map_or(time_us, |above| above.node.time_us);
        let (under, depth) = match above {
            None => (parent, 1),
            Some(above) if above.depth == DEPTH_MAX => (above.under, DEPTH_MAX),
            Some(above) => (parent, above.depth + 1),
        };
        let saga = context.and_then(|context| context.saga);
        let node = Node {
            position,
            version: recorded.meta.version,
            time: rfc3339(recorded.meta.time),
            time_us,
            after_us: time_us.saturating_sub(before),
            because,
            event: event_name(&recorded.event).to_owned(),
            summary: self.summary(recorded, context),
            actor: context.map_or_else(|| "unknown".to_owned(), |context| context.actor.to_string()),
            saga_id: saga.map(|(id, _)| id.to_string()),
            saga_step: saga.map(|(_, step)| word(&step)),
            children: Vec::new(),
        };
        self.nodes.insert(position, Hung { under, depth, node });
        self.last_us = self.last_us.max(time_us);
        self.note(recorded)?;
        self.forget(recorded);
        Ok(())
    }

    fn summary(&mut self, recorded: &Recorded, context: Option<&RecordedContext>) -> String {
        match &recorded.event {
            Event::Instance(event) => {
                sentence(event, context.and_then(|context| context.input.as_ref()), &mut self.names)
            }
            other => event_name(other).to_owned(),
        }
    }

    /// What an event follows from, if it follows from the request.
    fn parent(&self, recorded: &Recorded, context: Option<&RecordedContext>) -> Option<(u64, Because)> {
        if recorded.index.0 > 0 {
            // Decided together: it stands with the first of its append, which is named as its cause.
            return self.nodes.contains_key(&recorded.cause).then_some((recorded.cause, Because::Together));
        }
        let context = context?;
        match context.request {
            Some(request) if request == self.request => return Some((0, Because::Request)),
            Some(_) => return None,
            None => {}
        }
        if recorded.cause != 0 {
            return self.nodes.contains_key(&recorded.cause).then_some((recorded.cause, Because::Cause));
        }
        if let Some((saga, _)) = context.saga {
            return self.sagas.get(&saga).map(|begun| (*begun, Because::Saga));
        }
        let Event::Instance(event) = &recorded.event else {
            return None;
        };
        vmm_of(event).and_then(|vmm| self.vmms.get(&vmm)).map(|(order, _)| (*order, Because::Vmm))
    }

    /// Remembers what an event of the tree begins.
    fn note(&mut self, recorded: &Recorded) -> Result<(), Error> {
        match &recorded.event {
            Event::Instance(InstanceEvent::StartBegan { saga, vmm, .. }) => {
                let position = recorded.meta.position;
                self.sagas.insert(*saga, position);
                self.vmms.insert(*vmm, (position, Order::Start(*saga)));
                Ok(())
            }
            Event::Instance(InstanceEvent::StopRequested { .. }) => self.order(recorded, Order::Stop),
            Event::Instance(InstanceEvent::RebootRequested { .. }) => self.order(recorded, Order::Reboot),
            _ => Ok(()),
        }
    }

    /// Another request's order: what its VMM reports from here on comes of that.
    fn overtaken(&mut self, recorded: &Recorded) {
        let order = |event: &InstanceEvent| {
            matches!(event, InstanceEvent::StopRequested { .. } | InstanceEvent::RebootRequested { .. })
        };
        if matches!(&recorded.event, Event::Instance(event) if order(event)) {
            self.vmms.clear();
        }
    }

    /// Forgets what any event ends, whoever caused it.
    fn forget(&mut self, recorded: &Recorded) {
        let Event::Instance(event) = &recorded.event else {
            return;
        };
        match event {
            InstanceEvent::SagaEnded { saga, .. } | InstanceEvent::SagaUnwound { saga, .. } => {
                self.sagas.remove(saga);
                self.vmms.retain(|_, (_, order)| *order != Order::Start(*saga));
            }
            InstanceEvent::VmmReaped { vmm } => {
                self.vmms.remove(vmm);
            }
            InstanceEvent::VmmReported { vmm, report }
                if report.state == VmmState::Running && self.is_rebooting(*vmm) =>
            {
                self.vmms.remove(vmm);
            }
            _ => {}
        }
    }

    fn is_rebooting(&self, vmm: VmmId) -> bool {
        self.vmms.get(&vmm).is_some_and(|(_, order)| *order == Order::Reboot)
    }

    /// The order is about the VMM that had the guest then.
    fn order(&mut self, recorded: &Recorded, order: Order) -> Result<(), Error> {
        if let StreamName::Instance(id) = recorded.stream {
            let then = state_at(self.source, id, At::Version(recorded.meta.version))?;
            if let Some(vmm) = then.state.active {
                self.vmms.insert(vmm, (recorded.meta.position, order));
            }
        }
        Ok(())
    }

    /// Hangs every event under what it followed from.
    fn grown(mut self) -> Vec<Node> {
        let mut roots = Vec::new();
        // What follows stands behind what it follows from: taken from the end, every event is whole when its
        // turn comes.
        while let Some((_, Hung { under, mut node, .. })) = self.nodes.pop_last() {
            node.children.reverse();
            match self.nodes.get_mut(&under) {
                Some(above) => above.node.children.push(node),
                None => roots.push(node),
            }
        }
        roots.reverse();
        roots
    }
}

const fn vmm_of(event: &InstanceEvent) -> Option<VmmId> {
    match event {
        InstanceEvent::VmmReported { vmm, .. }
        | InstanceEvent::ReportAnomalous { vmm, .. }
        | InstanceEvent::VmmFailed { vmm, .. }
        | InstanceEvent::VmmGone { vmm, .. }
        | InstanceEvent::VmmReaped { vmm } => Some(*vmm),
        _ => None,
    }
}
