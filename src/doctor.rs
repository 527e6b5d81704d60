//! `musher doctor`: whether this host, its data directory and its daemon are in order.
//!
//! Every finding says what is so, why it matters and what to do. `--fix` does only what cannot lose anything: files
//! that were left half written, in a directory that nobody has, are removed.

use crate::access::Gate;
use crate::cli::ServerArgs;
use crate::client::{Client, ClientError};
use crate::config::{Config, Overrides};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Column, Format, text};
use crate::real::SystemClock;
use crate::serve::BUILD;
use crate::store::{is_critical, must_be_whole};
use actors::Clock as _;
use clap::Args;
use eventlog::journal::OpenError;
use eventlog::{JournalReader, Position, StoreLock};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// Less free space than this is a finding, bytes: sixteen segments of the default size.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// A clock before this has never been set: 2024-01-01, microseconds.
const CLOCK_MICROS_MIN: u64 = 1_704_067_200_000_000;

/// How far the clock may be behind the newest event, microseconds: recorded times are pushed a little ahead by load.
const CLOCK_BEHIND_MAX: u64 = 60_000_000;

/// Files looked at for leftovers.
const FILES_MAX: usize = 100_000;

/// Flags of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  musher doctor\n  musher doctor --data /var/lib/musher --fix\n\n\
                        Code 1 if something was found that needs somebody.")]
pub struct DoctorArgs {
    /// Data directory [default: server.data of the configuration].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Configuration file [default: ./config/local.toml or /etc/musher/config.toml, if there].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Remove files that were left half written, if no daemon has the directory.
    #[arg(long)]
    fix: bool,
    /// Shape of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

/// How much somebody is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grade {
    Good,
    /// It was mended, or it may become a problem.
    Note,
    /// Somebody must do something.
    Bad,
}

impl Grade {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Bad => "bad",
        }
    }
}

/// What was looked at, and what to do about it.
struct Finding {
    check: &'static str,
    grade: Grade,
    what: String,
    hint: Option<String>,
}

/// All findings, in the order of looking.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn good(&mut self, check: &'static str, what: impl Into<String>) {
        self.0.push(Finding { check, grade: Grade::Good, what: what.into(), hint: None });
    }

    fn note(&mut self, check: &'static str, what: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Finding { check, grade: Grade::Note, what: what.into(), hint: Some(hint.into()) });
    }

    fn bad(&mut self, check: &'static str, what: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Finding { check, grade: Grade::Bad, what: what.into(), hint: Some(hint.into()) });
    }

    fn failed(&mut self, check: &'static str, failure: Failure) {
        let hint = failure.hint.unwrap_or_else(|| "see docs/operations.md".to_owned());
        self.bad(check, failure.what, hint);
    }
}

/// Looks at everything.
pub async fn run(args: &DoctorArgs) -> Outcome {
    let mut findings = Findings::default();
    let overrides = Overrides { data: args.data.clone(), ..Overrides::default() };
    match Config::load(args.config.as_deref(), &overrides) {
        Err(error) => findings.bad(
            "config",
            format!("{error:#}"),
            "the daemon does not start with it; mend it, and see `musher config check`",
        ),
        Ok(config) => {
            findings
                .good("config", "valid; `musher config show --origin` tells where each setting comes from");
            access(&config, &mut findings);
            let lock = directory(&config.server.data, args.fix, &mut findings);
            let is_running = matches!(lock, Lock::Held);
            drop(lock);
            if !is_running {
                port("clients", config.server.listen, &mut findings);
                port("sleds", config.server.sled_listen, &mut findings);
            }
        }
    }
    clock(&mut findings);
    daemon(&args.server, &mut findings).await;
    show(&findings, args.output);
    let count = findings.0.iter().filter(|finding| finding.grade == Grade::Bad).count();
    if count == 0 {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("{count} thing(s) need somebody")))
}

fn show(findings: &Findings, format: Format) {
    let items: Vec<Value> = findings
        .0
        .iter()
        .map(|it| json!({"name": it.check, "grade": it.grade.as_str(), "what": it.what, "hint": it.hint}))
        .collect();
    if matches!(format, Format::Table | Format::Wide) {
        for item in &items {
            output::line(format!(
                "{:<4}  {:<9} {}",
                text(item, "grade"),
                text(item, "name"),
                text(item, "what")
            ));
            if let Some(hint) = item["hint"].as_str() {
                output::line(format!("{:<4}  {:<9} -> {hint}", "", ""));
            }
        }
        return;
    }
    let columns = [Column::new("name", |it| text(it, "name")), Column::new("what", |it| text(it, "what"))];
    output::line(output::list(format, true, &items, &columns));
}

fn access(config: &Config, findings: &mut Findings) {
    match Gate::open(config) {
        Ok(gate) if gate.has_file() => {
            findings.good("access", "by the configuration tokens are needed, and there are some");
        }
        Ok(_) => {
            findings.good(
                "access",
                "by the configuration there are no tokens, on an address that only this host reaches",
            );
        }
        Err(failure) => findings.failed("access", failure),
    }
}

/// Who has the directory.
enum Lock {
    /// This process, as long as this lives.
    Ours(#[expect(dead_code, reason = "holding it is its use")] StoreLock),
    /// A daemon.
    Held,
    /// Nobody: it is not there, or cannot be locked.
    Nobody,
}

fn directory(data: &Path, fix: bool, findings: &mut Findings) -> Lock {
    let shown = data.display();
    if !data.is_dir() {
        findings.note(
            "data",
            format!("{shown} is not there"),
            "`musher serve` makes it; or name another with --data",
        );
        return Lock::Nobody;
    }
    space(data, findings);
    let lock = match StoreLock::acquire(data) {
        Ok(lock) => Lock::Ours(lock),
        Err(OpenError::InUse { holder, .. }) => {
            findings.good(
                "data",
                format!("{shown} is in use ({holder}); what is in it is looked at when it is stopped"),
            );
            return Lock::Held;
        }
        Err(error) => {
            findings.bad("data", error.to_string(), "the daemon's user must be able to write the directory");
            return Lock::Nobody;
        }
    };
    leftovers(data, fix, findings);
    log(data, findings);
    lock
}

fn space(data: &Path, findings: &mut Findings) {
    match rustix::fs::statvfs(data) {
        Ok(stats) => {
            let free = stats.f_bavail.saturating_mul(stats.f_frsize);
            let shown = format!("{} free for {}", output::gib(free), data.display());
            if free < FREE_BYTES_MIN {
                let hint = "a full disk refuses every command, and loses nothing; make room, or move old segments \
                            away with `musher log compact`";
                findings.bad("disk", shown, hint);
            } else {
                findings.good("disk", shown);
            }
        }
        Err(error) => findings.note("disk", format!("free space is not known: {error}"), "look with `df`"),
    }
}

/// Files that a crash left half written. Whoever writes them begins anew.
fn leftovers(data: &Path, fix: bool, findings: &mut Findings) {
    let dirs = ["journal", "sleds"].map(|name| data.join(name));
    let entries = dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().filter_map(Result::ok);
    let left: Vec<PathBuf> = entries
        .take(FILES_MAX)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "tmp"))
        // The next segment is being prepared in it; a start takes it up again.
        .filter(|path| path.file_name().is_some_and(|name| name != "segment.tmp"))
        .collect();
    if left.is_empty() {
        findings.good("leftovers", "no half-written files");
    }
    for path in left {
        let shown = path.display();
        if !fix {
            findings.note(
                "leftovers",
                format!("{shown} was left half written"),
                "harmless; --fix removes it",
            );
            continue;
        }
        let was = format!("{shown} was left half written");
        match std::fs::remove_file(&path) {
            Ok(()) => findings.note("leftovers", was, "it has been removed"),
            Err(error) => findings.bad("leftovers", format!("{was}: {error}"), "remove it by hand"),
        }
    }
}

fn log(data: &Path, findings: &mut Findings) {
    if let Err(failure) = must_be_whole(data) {
        findings.failed("journal", failure);
        return;
    }
    let dir = data.join("journal");
    if !dir.is_dir() {
        findings.note("journal", "nothing has been recorded yet", "the first start makes it");
        return;
    }
    let reader = match JournalReader::open_damaged(&dir, is_critical) {
        Ok(reader) => reader,
        Err(OpenError::NoJournal { .. }) => {
            findings.note("journal", "nothing has been recorded yet", "the first start makes it");
            return;
        }
        Err(error) => {
            let hint = "`musher log verify` names the place; `musher log restore` brings a backup back";
            findings.bad("journal", error.to_string(), hint);
            return;
        }
    };
    let quarantined = reader.quarantined().len();
    if quarantined > 0 {
        let what = format!("{quarantined} instance(s) have lost records; the others serve");
        findings.bad(
            "journal",
            what,
            "bring the damaged segment back from a backup; see docs/storage.md, damage",
        );
    } else {
        findings.good("journal", format!("opens whole, up to position {}", reader.durable()));
    }
    newest(&reader, findings);
}

/// A clock that was set back lets deadlines begin later than they did.
fn newest(reader: &JournalReader, findings: &mut Findings) {
    let durable = reader.durable();
    let newest = reader.read_all(Position::new(durable.get().max(1)), 1).ok();
    let Some(time) = newest.and_then(|records| records.first().map(|record| record.time_us)) else {
        return;
    };
    let now = SystemClock.now().micros();
    if time > now + CLOCK_BEHIND_MAX {
        let seconds = (time - now) / 1_000_000;
        let what = format!("this host's clock is {seconds} s behind the newest event");
        findings.bad(
            "clock",
            what,
            "set it (NTP): recorded times never go back, and deadlines begin late until then",
        );
    }
}

fn clock(findings: &mut Findings) {
    let now = SystemClock.now();
    if now.micros() < CLOCK_MICROS_MIN {
        let what = format!("it is {} by this host's clock", replay::time::rfc3339(now));
        findings.bad("clock", what, "set it: what is recorded is dated by it, for ever");
    } else {
        findings.good("clock", replay::time::rfc3339(now));
    }
}

fn port(whose: &str, address: SocketAddr, findings: &mut Findings) {
    match TcpListener::bind(address) {
        Ok(_) => findings.good("ports", format!("{address} is free for {whose}")),
        Err(error) => findings.bad(
            "ports",
            format!("{address} cannot be listened on for {whose}: {error}"),
            "another program has it; choose another with --listen or --sled-listen, or end that program",
        ),
    }
}

/// What the daemon says of itself, if one answers.
async fn daemon(args: &ServerArgs, findings: &mut Findings) {
    let client = match Client::new(args) {
        Ok(client) => client,
        Err(failure) => return findings.failed("daemon", failure),
    };
    let build = match client.get("/healthz", &[]).await {
        Ok(up) => text(&up, "build"),
        Err(ClientError::Unreachable(_)) => {
            return findings.note(
                "daemon",
                format!("none answers at {}", args.server),
                "start it with `musher serve`",
            );
        }
        Err(error) => return findings.failed("daemon", error.into()),
    };
    if build == BUILD {
        findings.good("daemon", format!("{build} answers at {}", args.server));
    } else {
        let what = format!("the daemon is {build}, this command is {BUILD}");
        findings.note("daemon", what, "use one version on both sides");
    }
    match client.get("/readyz", &[]).await {
        Ok(_) => findings.good("ready", "it takes requests"),
        Err(error) => findings.failed("ready", error.into()),
    }
    match client.get("/ops/v1/attention", &[]).await {
        Ok(attention) => match attention["total"].as_u64().unwrap_or(0) {
            0 => findings.good("attention", "nothing is stuck, failed or quarantined"),
            _ => {
                for item in attention["items"].as_array().into_iter().flatten().take(20) {
                    let what =
                        format!("{} {}: {}", text(item, "kind"), text(item, "name"), text(item, "reason"));
                    findings.bad("attention", what, "docs/operations.md says what to do about each kind");
                }
            }
        },
        Err(error) => findings.failed("attention", error.into()),
    }
}
