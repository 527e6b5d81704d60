//! Sleds, requests and a lossless network between machines, for the tests of the pure machine.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod recorder;

use sim_sled::machine::{
    Answer, Config, Mode, Output, PeerBody, PeerMessage, Question, Request, Response, Sled, Step, Vmm,
};
use sled_protocol::{
    BootId, Generation, InstanceId, LeaseEpoch, MacAddr, MigrationId, OpId, ProjectId, PropolisId,
    RegisterVmm, RequestedState, SetState, SledError, SledId, SledLease, SledVmmState, Timestamp,
    VmmMetadata, VmmNetwork, VmmResources, VmmRuntime, VmmState, Vni,
};
use uuid::Uuid;

pub const EPOCH: LeaseEpoch = LeaseEpoch::new(3);
pub const SECOND: u64 = 1_000_000;

pub fn vmm(n: u128) -> PropolisId {
    PropolisId::from_uuid(Uuid::from_u128(0x1000 + n))
}

pub fn instance(n: u128) -> InstanceId {
    InstanceId::from_uuid(Uuid::from_u128(0x2000 + n))
}

pub fn migration(n: u128) -> MigrationId {
    MigrationId::from_uuid(Uuid::from_u128(0x3000 + n))
}

pub fn op(n: u128) -> OpId {
    OpId::from_uuid(Uuid::from_u128(0x4000 + n))
}

pub fn boot(n: u128) -> BootId {
    BootId::from_uuid(Uuid::from_u128(0x5000 + n))
}

pub fn addr(n: u128) -> String {
    format!("sled{n}:7000")
}

pub fn config(n: u128, mode: Mode) -> Config {
    let id = SledId::from_uuid(Uuid::from_u128(0x6000 + n));
    Config { mode, ..Config::new(id, &format!("sled{n}"), &addr(n), 7) }
}

/// A registered sled without a lease.
pub fn sled(n: u128, mode: Mode) -> Sled {
    let mut sled = Sled::new(config(n, mode), boot(n));
    sled.registered(0, 0, boot(n), SledLease { lease_epoch: EPOCH, lease_seconds: None, store_id: None });
    sled
}

pub fn body(instance_n: u128, migration_id: Option<MigrationId>) -> RegisterVmm {
    let state = if migration_id.is_some() { VmmState::Migrating } else { VmmState::Starting };
    RegisterVmm {
        instance_id: instance(instance_n),
        migration_id,
        vmm_runtime: VmmRuntime {
            state,
            generation: Generation::FIRST,
            time_updated: Timestamp::from_micros(0),
        },
        resources: VmmResources { ncpus: 2, memory: 1 << 30 },
        network: VmmNetwork {
            virtual_ip: [10, 0, 0, 1].into(),
            mac: MacAddr::new([0xa8, 0x40, 0x25, 0, 0, 1]),
            vni: Vni::new(100).unwrap(),
        },
        metadata: VmmMetadata { project_id: ProjectId::from_uuid(Uuid::from_u128(1)) },
        lease_epoch: EPOCH,
    }
}

pub fn register(id: PropolisId, body: RegisterVmm) -> Request {
    Request::Register { vmm: id, body }
}

/// With an operation id of its own, drawn from a counter that the caller keeps.
pub fn set_op(id: PropolisId, op_id: OpId, state: RequestedState) -> Request {
    Request::SetState { vmm: id, body: SetState { op_id, lease_epoch: EPOCH, state } }
}

pub fn target_of(source: PropolisId, source_sled: u128) -> RequestedState {
    RequestedState::MigrationTarget { src_propolis_id: source, src_addr: addr(source_sled) }
}

pub fn status(response: &Response) -> u16 {
    match response {
        Ok(_) => 200,
        Err(error) => error.status().unwrap_or(0),
    }
}

pub fn state_of(response: Response) -> SledVmmState {
    match response.unwrap() {
        Answer::Vmm(state) | Answer::Updated(Some(state)) => state,
        other => panic!("no state in {other:?}"),
    }
}

/// `running in=completed out=-`, without generations.
pub fn shown(state: &SledVmmState) -> String {
    let mut parts = vec![wire(&state.vmm_state.state)];
    parts.extend(state.migration_in.as_ref().map(|arrival| format!("in={}", wire(&arrival.state))));
    parts.extend(state.migration_out.as_ref().map(|departure| format!("out={}", wire(&departure.state))));
    parts.join(" ")
}

pub fn wire(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
}

/// Two sleds in explicit mode with a lossless network between them.
#[derive(Clone, PartialEq, Debug)]
pub struct Pair {
    pub source: Sled,
    pub target: Sled,
    pub now: u64,
    /// Every picture that was published, in order.
    pub reports: Vec<(PropolisId, SledVmmState)>,
}

pub const S: u128 = 1;
pub const T: u128 = 2;

impl Pair {
    /// The instance runs on the source sled as VMM 1; VMM 2 is registered as its target on the other.
    pub fn ready() -> Self {
        Self::ready_in(Mode::Explicit)
    }

    pub fn ready_in(mode: Mode) -> Self {
        let mut source = sled(S, mode);
        let mut target = sled(T, mode);
        source.handle(0, register(vmm(S), body(1, None))).unwrap();
        source.handle(0, set_op(vmm(S), op(1), RequestedState::Running)).unwrap();
        source.step(0, vmm(S));
        target.handle(0, register(vmm(T), body(1, Some(migration(1))))).unwrap();
        let mut pair = Self { source, target, now: 0, reports: Vec::new() };
        pair.settle();
        pair.reports.clear();
        pair
    }

    /// As `ready`, with the target told to fetch its guest.
    pub fn begun() -> Self {
        let mut pair = Self::ready();
        pair.target.handle(0, set_op(vmm(T), op(2), target_of(vmm(S), S))).unwrap();
        pair
    }

    /// As `begun`, stepped until the target is about to put this question.
    pub fn about_to_ask(question: Question) -> Self {
        let mut pair = Self::begun();
        for _ in 0..32 {
            if pair.target.vmm(vmm(T)).and_then(Vmm::next_step) == Some(Step::Ask(question)) {
                return pair;
            }
            pair.target.step(0, vmm(T));
            pair.settle();
        }
        panic!("the target never came to ask {question:?}");
    }

    /// Carries messages and collects reports until both machines are silent.
    pub fn settle(&mut self) {
        for _ in 0..64 {
            let outputs: Vec<Output> =
                self.source.poll(self.now).into_iter().chain(self.target.poll(self.now)).collect();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    Output::Report { propolis_id, state } => self.reports.push((propolis_id, state)),
                    Output::Peer(message) => self.deliver(message),
                }
            }
            self.check();
        }
        panic!("the sleds never fall silent");
    }

    pub fn deliver(&mut self, message: PeerMessage) {
        let to = if message.to_addr == addr(S) { &mut self.source } else { &mut self.target };
        to.handle_peer(self.now, message);
        self.check();
    }

    /// Steps both VMMs and settles until neither has anything to do.
    pub fn finish(&mut self) {
        for _ in 0..64 {
            let stepped = [self.target.step(self.now, vmm(T)), self.source.step(self.now, vmm(S))];
            self.settle();
            if stepped == [false, false] {
                return;
            }
        }
        panic!("the VMMs never rest");
    }

    /// The guest never runs twice.
    pub fn check(&self) {
        let running = [&self.source, &self.target]
            .into_iter()
            .flat_map(|sled| sled.vmms().filter(|vmm| vmm.guest_running()))
            .count();
        assert!(running <= 1, "the guest runs {running} times");
    }

    pub fn source_shown(&self) -> String {
        self.source.vmm(vmm(S)).map_or("gone".to_owned(), |vmm| shown(vmm.state()))
    }

    pub fn target_shown(&self) -> String {
        self.target.vmm(vmm(T)).map_or("gone".to_owned(), |vmm| shown(vmm.state()))
    }

    /// The distinct pictures reported for one VMM.
    pub fn reported(&self, id: PropolisId) -> Vec<String> {
        self.reports.iter().filter(|(of, _)| *of == id).map(|(_, state)| shown(state)).collect()
    }
}

pub fn is_yes(message: &PeerMessage) -> bool {
    matches!(message.body, PeerBody::Yes(_) | PeerBody::Copies { .. })
}

pub fn in_state(sled: &Sled, id: PropolisId) -> Option<VmmState> {
    sled.vmm(id).map(|vmm| vmm.state().vmm_state.state)
}

pub fn is_error(response: &Response, error: &SledError) -> bool {
    response.as_ref().err() == Some(error)
}
