//! Restate's server as a process, with the handlers of `crates/bench/peers/restate` as another, which it calls.

use super::{ANSWERS_MAX, ASK_EVERY, Round, closed_loop};
use crate::Failure;
use crate::args::PeersOptions;
use crate::clock::now;
use crate::machine::processor_nanoseconds;
use crate::stack::http::Connection;
use crate::stack::load::Client;
use crate::statistics::count;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What a reader does to have it.
pub(super) const TO_HAVE_IT: &str = "npm install @restatedev/restate-server; cargo build --release --target-dir target \
     --manifest-path crates/bench/peers/restate/Cargo.toml; then --restate node_modules/.bin/restate-server";

/// Clients that bring its objects about.
const SEEDERS: u32 = 64;

/// Where its parts are.
pub(super) struct Programs {
    server: PathBuf,
    service: PathBuf,
}

/// A process that ends with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is what was wanted.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A running server and its service.
pub(super) struct Restate {
    programs: Programs,
    dir: PathBuf,
    server: Process,
    service: Process,
    ingress: SocketAddr,
    admin: SocketAddr,
}

fn free_port() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn start(programs: &Programs, dir: &Path) -> Result<Process, Failure> {
    let said = File::options().create(true).append(true).open(dir.join("server.log"))?;
    let mut command = Command::new(&programs.server);
    command.arg("--config-file").arg(dir.join("server.toml")).arg("--base-dir").arg(dir.join("data"));
    command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
    Ok(Process(command.spawn().map_err(|error| format!("{}: {error}", programs.server.display()))?))
}

impl Restate {
    /// Where it is, by the flags.
    pub(super) fn find(options: &PeersOptions) -> Result<Programs, Failure> {
        let server = options.restate.clone().ok_or("no --restate SERVER was given")?;
        // Its package starts the program from a script; it is the program that is to be measured, and killed.
        let inside = server.parent().map(|bin| {
            let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
            bin.join(format!("../@restatedev/restate-server-linux-{arch}/bin/restate-server"))
        });
        let server = inside.filter(|inside| inside.is_file()).unwrap_or(server);
        let service = match &options.restate_service {
            Some(named) => named.clone(),
            None => std::env::current_exe()?.with_file_name("musher-bench-restate"),
        };
        for program in [&server, &service] {
            if !program.is_file() {
                return Err(format!("{} is not there", program.display()).into());
            }
        }
        Ok(Programs { server, service })
    }

    /// Starts both, and waits until one call is answered. Everything is as shipped but ports and words to its makers.
    pub(super) async fn start(programs: Programs, dir: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir)?;
        let (ingress, admin, node) = (free_port()?, free_port()?, free_port()?);
        let config = format!(
            "bind-ip = \"127.0.0.1\"\nlisten-mode = \"tcp\"\nbind-port = {}\nnode-name = \"bench\"\n\
             disable-telemetry = true\nlog-filter = \"warn\"\n[admin]\nbind-port = {}\n[ingress]\nbind-port = {}\n",
            node.port(),
            admin.port(),
            ingress.port()
        );
        std::fs::write(dir.join("server.toml"), config)?;
        let mut command = Command::new(&programs.service);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("the service has no stdout")?).read_line(&mut line)?;
        let service = Process(child);
        let server = start(&programs, dir)?;
        let restate = Self { programs, dir: dir.to_owned(), server, service, ingress, admin };
        let deployment = format!(r#"{{"uri":"http://{}"}}"#, line.trim());
        answered(restate.admin, "/deployments", &deployment).await?;
        answered(restate.ingress, "/instance/vm-000000/apply", r#"{"to":"running"}"#).await?;
        Ok(restate)
    }

    /// Calls every object once.
    pub(super) async fn seed(&self, keys: u32) -> Result<(), Failure> {
        let mut tasks = Vec::new();
        for mut caller in self.callers("apply", SEEDERS, keys).await? {
            tasks.push(tokio::spawn(async move {
                for _ in 0..keys.div_ceil(SEEDERS) {
                    caller.call().await?;
                }
                Ok::<_, Failure>(())
            }));
        }
        for task in tasks {
            task.await??;
        }
        Ok(())
    }

    /// Clients that call this handler.
    pub(super) async fn callers(
        &self,
        handler: &'static str,
        clients: u32,
        keys: u32,
    ) -> Result<Vec<Caller>, Failure> {
        let mut callers = Vec::new();
        for key in 0..clients {
            let connection = Connection::open(self.ingress).await?;
            callers.push(Caller { connection, handler, key, clients, keys });
        }
        Ok(callers)
    }

    /// One round, with the processor time of server and service.
    pub(super) async fn round(&self, callers: &mut Vec<Caller>, length: Duration) -> Result<Round, Failure> {
        let used = || -> u64 {
            let of = |process: &Process| processor_nanoseconds(&process.0.id().to_string()).unwrap_or(0);
            of(&self.server) + of(&self.service)
        };
        let (before, began) = (used(), now());
        let round = closed_loop(callers, length).await?;
        let steps = round.per_second * began.elapsed().as_secs_f64();
        Ok(Round { cpu_us: count(used() - before) / 1e3 / steps.max(1.0), ..round })
    }

    /// Kills the server and starts it again; answers the milliseconds until it has answered.
    pub(super) async fn killed_and_answering(&mut self) -> Result<f64, Failure> {
        self.server.0.kill()?;
        self.server.0.wait()?;
        let began = now();
        self.server = start(&self.programs, &self.dir)?;
        answered(self.ingress, "/instance/vm-000000/apply", r#"{"to":"stopped"}"#).await?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    }
}

/// Asks until it is answered with a success.
async fn answered(address: SocketAddr, path: &str, body: &str) -> Result<(), Failure> {
    let mut last = String::new();
    for _ in 0..ANSWERS_MAX {
        let asked = async {
            let mut connection = Connection::open(address).await?;
            connection.send("POST", path, &[], body.as_bytes()).await?.success()
        };
        match asked.await {
            Ok(_) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    Err(format!("Restate does not answer {path}: {last}").into())
}

/// One that calls, object after object.
pub(super) struct Caller {
    connection: Connection,
    handler: &'static str,
    key: u32,
    clients: u32,
    keys: u32,
}

impl Caller {
    async fn call(&mut self) -> Result<(), Failure> {
        let path = format!("/instance/vm-{:06}/{}", self.key % self.keys, self.handler);
        self.key += self.clients;
        self.connection.send("POST", &path, &[], br#"{"to":"running"}"#).await?.success().map(drop)
    }
}

impl Client for Caller {
    fn step(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.call().boxed()
    }
}
