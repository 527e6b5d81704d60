//! A service of Restate with two handlers, which do per call what the benchmarks ask of this project: `apply` changes
//! the state of one object, `saga` takes six journaled steps and then changes it.
//!
//! It listens on a port of this host that the system chooses, and says which in its first line.

use restate_sdk::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[derive(Clone, Default, Deserialize, Serialize)]
struct Vm {
    state: String,
    generation: u64,
    sled: String,
    ncpus: u32,
    memory_mib: u32,
}

#[derive(Deserialize, Serialize)]
struct Order {
    to: String,
}

struct Instance;

#[object(name = "instance")]
impl Instance {
    /// One durable transition: the state is read and written.
    #[handler]
    async fn apply(&self, context: ObjectContext<'_>, order: Json<Order>) -> Result<Json<u64>, TerminalError> {
        let mut vm = context.get::<Json<Vm>>("vm").await?.map(Json::into_inner).unwrap_or_default();
        vm.state = order.into_inner().to;
        vm.generation += 1;
        if vm.sled.is_empty() {
            (vm.sled, vm.ncpus, vm.memory_mib) = ("sim-0".to_owned(), 1, 1024);
        }
        let generation = vm.generation;
        context.set("vm", Json(vm));
        Ok(Json(generation))
    }

    /// Six journaled steps, then one write.
    #[handler]
    async fn saga(&self, context: ObjectContext<'_>, order: Json<Order>) -> Result<Json<u64>, TerminalError> {
        let mut sum = 0;
        for (nth, name) in ["alloc", "network", "volume", "boot", "dns", "finalize"].into_iter().enumerate() {
            sum += context.run(async move || Ok(nth as u64 + 1)).name(name).await?;
        }
        context.set("last", order.into_inner().to);
        Ok(Json(sum))
    }
}

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        HttpServer::new(Endpoint::builder().bind(Instance).build()).serve(listener).await;
        Ok(())
    })
}
