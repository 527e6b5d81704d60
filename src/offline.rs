//! `musher log stats|verify` and `musher replay` on a stopped data directory or an export.
//!
//! The directory is locked while it is read, so that nobody writes it meanwhile; nothing in it is changed.

use crate::checkpoints;
use crate::cli::{ClientArgs, LogVerb, ReplayArgs};
use crate::client::Client;
use crate::exit::{Exit, Failure, Outcome};
use crate::log_tools::{self, portable_failure};
use crate::output::{self, Format};
use crate::real::SystemClock;
use crate::store::{is_critical, open_failure};
use actors::Clock as _;
use checkpoint::Verdict;
use eventlog::cache::SledCache;
use eventlog::portable::ExportReader;
use eventlog::{Cache, JournalReader, Position, StoreLock};
use journal::{Event, StreamName};
use lifecycle::{InstanceEvent, InstanceId, ProjectEvent, ProjectId};
use replay::{At, Options, Scope, Source, VerifyReport};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Memory for looking at the cache of a stopped directory.
const CACHE_BYTES: u64 = 16 << 20;
/// Records scanned at a time.
const SCAN_RECORDS: usize = 4_096;
/// Streams named by `log stats`.
const LARGEST: usize = 5;

/// A stopped data directory.
pub struct Stopped {
    _lock: StoreLock,
    /// Its journal.
    pub reader: JournalReader,
}

/// Where the past is read from.
enum Past {
    Directory(Stopped),
    Export(ExportReader),
}

impl Past {
    fn open(data: &Path, file: Option<&Path>) -> Result<Self, Failure> {
        match file {
            Some(file) => Ok(Self::Export(ExportReader::open(file).map_err(portable_failure)?)),
            None => Ok(Self::Directory(Stopped::open(data)?)),
        }
    }

    fn source(&self) -> &dyn Source {
        match self {
            Self::Directory(stopped) => &stopped.reader,
            Self::Export(reader) => reader,
        }
    }
}

impl Stopped {
    /// Locks the directory and opens its journal for reading.
    pub fn open(data: &Path) -> Result<Self, Failure> {
        if !data.join("journal").is_dir() {
            return Err(Failure::new(
                Exit::Refused,
                format!("{} is not a data directory of musher", data.display()),
            )
            .hint("name it with --data"));
        }
        let lock = StoreLock::acquire(data).map_err(|error| {
            open_failure(error)
                .hint("a running daemon answers `musher instance history` and `musher log stats`")
        })?;
        let reader = JournalReader::open_damaged(&data.join("journal"), is_critical).map_err(open_failure)?;
        Ok(Self { _lock: lock, reader })
    }
}

/// Runs a verb of `log`.
pub async fn log(verb: LogVerb) -> Outcome {
    match verb {
        LogVerb::Stats { data: None, file: None, client } => {
            let answer = Client::new(&client.server)?.get("/ops/v1/log/stats", &[]).await?;
            let is_for_people = !output::structured(client.output, &answer);
            if let Some(numbers) = answer.as_object().filter(|_| is_for_people) {
                for (key, value) in numbers {
                    output::line(format!(
                        "{key:<12} {}",
                        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
                    ));
                }
            }
            Ok(())
        }
        LogVerb::Stats { data, file, client } => {
            let data = data.unwrap_or_else(|| PathBuf::from("./data"));
            stats(&Past::open(&data, file.as_deref())?, &client)
        }
        LogVerb::Verify { file: Some(file), .. } => {
            let reader = ExportReader::open(&file).map_err(portable_failure)?;
            let (first, last) = (reader.first(), reader.durable());
            output::line(format!("positions {first} to {last}, every frame and the whole as it was written"));
            Ok(())
        }
        LogVerb::Verify { data, file: None, output } => verify_log(&data, output),
        carried => log_tools::run(carried).await,
    }
}

fn stats(past: &Past, client: &ClientArgs) -> Outcome {
    let stats = replay::stats(past.source(), LARGEST, &mut |_| {}).map_err(damaged)?;
    if output::structured(client.output, &stats) {
        return Ok(());
    }
    for (key, value) in [
        ("durable", stats.durable.to_string()),
        ("events", stats.events.to_string()),
        ("appends", stats.appends.to_string()),
        ("streams", stats.streams.to_string()),
        ("bytes", stats.bytes.to_string()),
        ("first", stats.time_first.clone().unwrap_or_default()),
        ("last", stats.time_last.clone().unwrap_or_default()),
    ] {
        output::line(format!("{key:<12} {value}"));
    }
    output::table(
        &["event", "count", "bytes"],
        stats
            .kinds
            .iter()
            .map(|kind| vec![kind.event.clone(), kind.count.to_string(), kind.bytes.to_string()]),
    );
    Ok(())
}

fn verify_log(data: &Path, format: Format) -> Outcome {
    // Locks, and refuses what is not a data directory; damage is for the verifier to describe.
    if !data.join("journal").is_dir() {
        return Err(Failure::new(
            Exit::Refused,
            format!("{} is not a data directory of musher", data.display()),
        ));
    }
    let _lock = StoreLock::acquire(data).map_err(open_failure)?;
    let report = JournalReader::verify_dir(&data.join("journal")).map_err(open_failure)?;
    let problem = report.problem.clone();
    let document = json!({
        "records": report.records,
        "batches": report.batches,
        "segments": report.segments,
        "streams": report.streams,
        "durable": report.durable.get(),
        "problem": problem,
    });
    let is_for_machines = output::structured(format, &document);
    if !is_for_machines {
        output::line(format!(
            "{} records in {} batches and {} segments, {} streams, durable up to {}",
            report.records, report.batches, report.segments, report.streams, report.durable
        ));
    }
    match problem {
        None => {
            if !is_for_machines {
                output::line("every checksum, chain, position and version holds");
            }
            Ok(())
        }
        Some(problem) => Err(Failure::new(Exit::Damaged, problem)),
    }
}

/// Runs `replay`.
pub fn replay(args: &ReplayArgs) -> Outcome {
    let past = Past::open(&args.data, args.file.as_deref())?;
    let reader = past.source();
    let instance = args.instance.as_ref().map(|named| find(reader, &args.project, named)).transpose()?;
    if args.verify {
        let scope = instance.map_or(Scope::All, Scope::One);
        return match &past {
            Past::Directory(stopped) => verify_directory(&stopped.reader, &args.data, scope, args.output),
            Past::Export(_) => verify(reader, &Options::default(), scope, args.output),
        };
    }
    let Some(id) = instance else {
        return Err(Failure::new(Exit::Usage, "which instance?")
            .hint("name one, or say --verify for all; `musher replay --help` has examples"));
    };
    if args.history {
        let entries = replay::history(reader, id, 0, usize::MAX).map_err(damaged)?;
        if !output::structured(args.output, &entries) {
            output::line(replay::history_table(&entries).trim_end());
        }
        return Ok(());
    }
    let at = match &args.at {
        None => At::Now,
        Some(text) => At::parse(text, SystemClock.now())
            .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?,
    };
    let state = replay::state_at(reader, id, at).map_err(damaged)?;
    if output::structured(args.output, &state) {
        return Ok(());
    }
    output::line(format!(
        "{} is {} at #{} (position {}, {})",
        state.state.spec.name, state.run_state, state.version, state.position, state.time
    ));
    if !state.effects.is_empty() {
        let wished: Vec<String> = state
            .effects
            .iter()
            .map(|effect| format!("{} VMM {} on sled {}", effect.name(), effect.vmm(), effect.sled()))
            .collect();
        output::line(format!("to be done: {}", wished.join("; ")));
    }
    output::json(&state.state);
    Ok(())
}

fn verify_directory(reader: &JournalReader, data: &Path, scope: Scope, format: Format) -> Outcome {
    let log = reader.verify().map_err(open_failure)?;
    if let Some(problem) = log.problem {
        return Err(Failure::new(Exit::Damaged, problem));
    }
    let cache_dir = data.join("cache");
    let cache = cache_dir
        .is_dir()
        .then(|| SledCache::open(&cache_dir, reader.store_id(), reader.durable(), CACHE_BYTES).ok())
        .flatten()
        .map(|(cache, _)| cache);
    let options = Options { cache: cache.as_ref().map(|cache| cache as &dyn Cache), ..Options::default() };
    verify(reader, &options, scope, format)?;
    if scope == Scope::All { compare_checkpoints(reader, data, format) } else { Ok(()) }
}

/// Folds the log once more, and compares every checkpoint on the way. One that cannot be used is told, and no
/// failure: a start passes it over.
fn compare_checkpoints(reader: &JournalReader, data: &Path, format: Format) -> Outcome {
    let compared = checkpoint::compare(&checkpoints::directory(data), reader.store_id(), reader)
        .map_err(|error| Failure::new(Exit::Damaged, error.to_string()))?;
    let mut same = 0;
    for checkpoint::Compared { path, position, verdict } in &compared {
        match verdict {
            Verdict::Same => same += 1,
            Verdict::Unusable(why) => eprintln!("{} is not used: {why}", path.display()),
            Verdict::Differs(what) => {
                return Err(Failure::new(
                    Exit::Refused,
                    format!(
                        "the checkpoint at position {position} is not the fold of the log: {what} differs"
                    ),
                )
                .hint(format!("remove {}: a start folds the log instead", path.display())));
            }
        }
    }
    if format == Format::Table && same > 0 {
        output::line(format!("{same} checkpoint(s) compared: each is the fold of the log at its position"));
    }
    Ok(())
}

fn verify(source: &dyn Source, options: &Options<'_>, scope: Scope, format: Format) -> Outcome {
    let report = replay::verify(source, scope, options, &mut |_| {}).map_err(damaged)?;
    show_report(&report, format);
    match report.first() {
        None => Ok(()),
        Some(first) => {
            Err(Failure::new(Exit::Refused, format!("the history does not hold together: {first}")))
        }
    }
}

fn show_report(report: &VerifyReport, format: Format) {
    if output::structured(format, report) {
        return;
    }
    output::line(format!(
        "{} events in {} appends on {} streams; {} instances folded twice; {} decisions repeated; {} snapshots compared",
        report.events,
        report.appends,
        report.streams,
        report.instances,
        report.inputs_decided,
        report.snapshots
    ));
    if report.is_clean() {
        output::line("log = state, and every invariant holds");
        return;
    }
    for finding in &report.findings {
        output::line(finding.to_string());
    }
    if report.findings_dropped > 0 {
        output::line(format!("and {} more", report.findings_dropped));
    }
}

/// The instance that is named: by id, by the beginning of an id, or by name, the newest of that name.
fn find(reader: &dyn Source, project: &str, named: &str) -> Result<InstanceId, Failure> {
    if let Ok(id) = named.parse::<uuid::Uuid>() {
        return Ok(InstanceId::new(id));
    }
    let (mut projects, mut by_name, mut by_prefix) = (BTreeMap::new(), None, Vec::new());
    let is_prefix = named.len() >= 8 && named.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let mut next = Position::new(1);
    loop {
        let page = reader
            .read_all(next, SCAN_RECORDS)
            .map_err(|error| Failure::new(Exit::Damaged, error.to_string()))?;
        let Some(last) = page.last() else {
            break;
        };
        next = last.position.next();
        for record in &page {
            let recorded =
                journal::read(record).map_err(|error| Failure::new(Exit::Damaged, error.to_string()))?;
            match (recorded.stream, recorded.event) {
                (
                    StreamName::Project(id),
                    Event::Project(ProjectEvent::Created { name, .. } | ProjectEvent::Changed { name, .. }),
                ) => {
                    projects.insert(id, name);
                }
                (StreamName::Instance(id), Event::Instance(InstanceEvent::Created { spec, .. })) => {
                    let is_here = projects.get(&spec.project).is_some_and(|name| name == project)
                        || project.parse().is_ok_and(|id| ProjectId::new(id) == spec.project);
                    if spec.name == named && is_here {
                        by_name = Some(id);
                    }
                    if is_prefix && id.to_string().starts_with(named) {
                        by_prefix.push(id);
                    }
                }
                _ => {}
            }
        }
    }
    match (by_name, by_prefix.as_slice()) {
        (Some(id), _) => Ok(id),
        (None, [id]) => Ok(*id),
        (None, []) => Err(Failure::new(
            Exit::Refused,
            format!("the log holds no instance \"{named}\" in project \"{project}\""),
        )
        .hint("name the project with --project, or give the instance's id")),
        (None, _) => Err(Failure::new(Exit::Refused, format!("\"{named}\" is the beginning of several ids"))
            .hint("give more characters")),
    }
}

/// A question about the past that has no answer is a refusal; a log that cannot be read is damage.
fn damaged(error: replay::Error) -> Failure {
    let exit = match &error {
        replay::Error::Read { .. } | replay::Error::Decode(_) | replay::Error::Fold(_) => Exit::Damaged,
        replay::Error::NoSuchInstance(_)
        | replay::Error::NotYetCreated { .. }
        | replay::Error::NoSuchVersion { .. }
        | replay::Error::NoSuchPosition { .. } => Exit::Refused,
    };
    Failure::new(exit, error.to_string())
}
