//! Sagas of six actions with undos in steno, in a closed loop, and a store that shares syncs: one thread writes whatever
//! waits and syncs once.
//!
//! `musher-bench-steno FILE CLIENTS MILLISECONDS` prints one JSON object.

use async_trait::async_trait;
use serde::Serialize;
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use steno::{
    Action, ActionContext, ActionError, ActionFunc, ActionRegistry, DagBuilder, Node, SagaCachedState,
    SagaCreateParams, SagaDag, SagaId, SagaName, SagaNodeEvent, SagaType, SecClient, SecStore,
};
use tokio::sync::oneshot;

/// Records of one sync at most.
const BATCH_MAX: usize = 4_096;

type Written = (Vec<u8>, oneshot::Sender<()>);

#[derive(Debug)]
struct Store(mpsc::Sender<Written>);

impl Store {
    fn new(mut file: File) -> Self {
        let (sender, waiting) = mpsc::channel::<Written>();
        std::thread::spawn(move || {
            while let Ok((mut bytes, first)) = waiting.recv() {
                let mut answers = vec![first];
                while answers.len() < BATCH_MAX
                    && let Ok((more, answer)) = waiting.try_recv()
                {
                    bytes.extend_from_slice(&more);
                    answers.push(answer);
                }
                file.write_all(&bytes).expect("the disk takes what is measured");
                file.sync_data().expect("the disk keeps what is measured");
                for answer in answers {
                    // Whoever went away does not wait.
                    let _ = answer.send(());
                }
            }
        });
        Self(sender)
    }

    async fn put<T: Serialize>(&self, what: &str, it: &T) {
        let mut line = serde_json::to_vec(&(what, it)).expect("records are data");
        line.push(b'\n');
        let (sender, answer) = oneshot::channel();
        self.0.send((line, sender)).expect("the writer outlives the sagas");
        answer.await.expect("the writer answers");
    }
}

#[async_trait]
impl SecStore for Store {
    async fn saga_create(&self, params: SagaCreateParams) -> Result<(), anyhow::Error> {
        self.put("create", &params).await;
        Ok(())
    }

    async fn record_event(&self, event: SagaNodeEvent) {
        self.put("event", &event).await;
    }

    async fn saga_update(&self, id: SagaId, state: SagaCachedState) {
        self.put("update", &(id.to_string(), state)).await;
    }
}

#[derive(Debug)]
struct Nothing;

#[derive(Debug)]
struct Start;

impl SagaType for Start {
    type ExecContextType = Arc<Nothing>;
}

async fn act(_: ActionContext<Start>) -> Result<u64, ActionError> {
    Ok(7)
}

async fn undo(_: ActionContext<Start>) -> Result<(), anyhow::Error> {
    Ok(())
}

struct Sagas {
    client: SecClient,
    registry: Arc<ActionRegistry<Start>>,
    action: Arc<dyn Action<Start>>,
}

impl Sagas {
    async fn one(&self) {
        let mut dag = DagBuilder::new(SagaName::new("start"));
        for name in ["alloc", "network", "volume", "boot", "dns", "finalize"] {
            dag.append(Node::action(name, name, self.action.as_ref()));
        }
        let dag = dag.build().expect("a line is a graph");
        let dag = Arc::new(SagaDag::new(dag, json!({"vm": "vm-000001", "to": "running"})));
        let id = SagaId::new_v4();
        let done = self.client.saga_create(id, Arc::new(Arc::new(Nothing)), dag, self.registry.clone());
        let done = done.await.expect("the saga is new");
        self.client.saga_start(id).await.expect("the saga is there");
        assert!(done.await.kind.is_ok(), "no action fails");
    }
}

async fn run(file: File, clients: usize, length: Duration) {
    let log = slog::Logger::root(slog::Discard, slog::o!());
    let action: Arc<dyn Action<Start>> = ActionFunc::new_action("act", act, undo);
    let mut registry = ActionRegistry::new();
    registry.register(action.clone());
    let client = steno::sec(log, Arc::new(Store::new(file)));
    let sagas = Arc::new(Sagas { client, registry: Arc::new(registry), action });
    let begun = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let sagas = sagas.clone();
            tokio::spawn(async move {
                let mut micros = Vec::new();
                while begun.elapsed() < length {
                    let from = Instant::now();
                    sagas.one().await;
                    micros.push(from.elapsed().as_micros());
                }
                micros
            })
        })
        .collect();
    let mut micros = Vec::new();
    for task in tasks {
        micros.extend(task.await.expect("no client panics"));
    }
    let seconds = begun.elapsed().as_secs_f64();
    micros.sort_unstable();
    let at = |per_mille: usize| micros[(micros.len() * per_mille / 1_000).min(micros.len() - 1)] as f64;
    let per_second = micros.len() as f64 / seconds;
    println!("{}", json!({"per_second": per_second, "p50_us": at(500), "p99_us": at(990)}));
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().expect("usage: musher-bench-steno FILE CLIENTS MILLISECONDS");
    let file = File::options().create(true).append(true).open(next()).expect("the file can be made");
    let clients = next().parse().expect("a number of clients");
    let length = Duration::from_millis(next().parse().expect("milliseconds"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads").block_on(run(file, clients, length));
}
