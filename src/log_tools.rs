//! `musher log export|import|backup|restore|compact|tail`: carrying the log away, and coming back.
//!
//! A running daemon does these itself, over HTTP; on a stopped directory they are done here. What comes out
//! of either is the same.

use crate::cli::{ClientArgs, LogVerb};
use crate::client::Client;
use crate::debugger::past::Stopped;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Format};
use crate::store::{is_inside, open_failure, stopped_journal};
use crate::working::Working;
use eventlog::portable::{self, ExportReader, export_file, import_file};
use eventlog::{Log as _, Position, StoreLock};
use journal::event_name;
use replay::time::rfc3339;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// How often a followed tail looks for more.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs a verb that carries the log away or brings it back.
pub async fn run(verb: LogVerb) -> Outcome {
    match verb {
        LogVerb::Export { to, from, data: Some(data), .. } => {
            let stopped = Stopped::open(&data)?;
            let working = Working::on("exporting", Some(&to));
            let report = export_file(&stopped.reader, Position::new(from), &to).map_err(portable_failure)?;
            drop(working);
            output::line(format!("{} events, {} bytes, in {}", report.records, report.bytes, to.display()));
            Ok(())
        }
        LogVerb::Export { to, from, data: None, client } => {
            let from = from.to_string();
            let working = Working::on("exporting", Some(&to));
            let bytes =
                Client::new(&client.server)?.download("/ops/v1/log/export", &[("from", &from)], &to).await?;
            drop(working);
            // An export that was cut off is found out here, not when it is needed.
            let reader = ExportReader::open(&to).map_err(portable_failure)?;
            let events = reader.durable().get() + 1 - reader.first().get();
            output::line(format!("{events} events, {bytes} bytes, in {}", to.display()));
            Ok(())
        }
        LogVerb::Import { file, data } => import(&file, &data),
        LogVerb::Backup { to, data: Some(data), client } => {
            let stopped = Stopped::open(&data)?;
            if is_inside(&data, &to) {
                return Err(Failure::new(
                    Exit::Refused,
                    format!("{} lies inside the data directory", to.display()),
                )
                .hint("name a directory elsewhere"));
            }
            let durable = stopped.reader.durable();
            let working = Working::on("backing up", Some(&to));
            let report = portable::backup(&data.join("journal"), durable, &to).map_err(portable_failure)?;
            drop(working);
            show(
                &client,
                &json!({
                    "to": to, "position": report.position.get(), "segments": report.segments,
                    "copied": report.copied, "bytes": report.bytes,
                }),
            );
            Ok(())
        }
        LogVerb::Backup { to, data: None, client } => {
            let to = std::path::absolute(&to)
                .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", to.display())))?;
            let working = Working::on("backing up", Some(&to));
            let body = json!({ "to": to });
            let report = Client::new(&client.server)?.post_long("/ops/v1/log/snapshot", Some(body)).await?;
            drop(working);
            show(&client, &report);
            Ok(())
        }
        LogVerb::Restore { from, data } => {
            empty_data(&data)?;
            let _lock = StoreLock::acquire(&data).map_err(open_failure)?;
            let working = Working::on("restoring", Some(&data.join("journal")));
            let report = portable::restore(&from, &data.join("journal")).map_err(portable_failure)?;
            drop(working);
            output::line(format!("restored up to position {} into {}", report.position, data.display()));
            Ok(())
        }
        LogVerb::Compact { data: Some(data), client } => compact_stopped(&data, &client),
        LogVerb::Compact { data: None, client } => {
            let working = Working::on("compacting", None);
            let report = Client::new(&client.server)?.post_long("/ops/v1/log/compact", None).await?;
            drop(working);
            show(&client, &report);
            Ok(())
        }
        LogVerb::Tail { lines, follow, data, client } => match data {
            Some(data) => tail_stopped(&data, lines, &client),
            None => tail(lines, follow, &client).await,
        },
        LogVerb::Stats { .. } | LogVerb::Verify { .. } => unreachable!("handled by the offline verbs"),
    }
}

/// What is damaged is one exit code, everything else another.
pub fn portable_failure(error: portable::Error) -> Failure {
    use portable::Error;
    let hint = match &error {
        Error::Io { .. } | Error::Stream { .. } => "is it there, and may this user read or write it?",
        Error::NotEmpty { .. } | Error::Exists { .. } | Error::Leftover { .. } => {
            "name a place that is not there yet"
        }
        Error::BeyondEnd { .. } | Error::NotFromStart { .. } => {
            "make one with `musher log export`, without --from, up to what is durable"
        }
        Error::NoBackup { .. } => "name a directory that `musher log backup --to DIR` has written",
        _ => "another copy may be whole; `musher log verify --file` and `--data` name what is damaged",
    };
    match error {
        Error::Open(error) => open_failure(error),
        Error::Io { .. }
        | Error::Stream { .. }
        | Error::NotEmpty { .. }
        | Error::Exists { .. }
        | Error::Leftover { .. }
        | Error::BeyondEnd { .. }
        | Error::NotFromStart { .. }
        | Error::NoBackup { .. } => Failure::new(Exit::Refused, error.to_string()).hint(hint),
        damaged => Failure::new(Exit::Damaged, damaged.to_string()).hint(hint),
    }
}

fn show(client: &ClientArgs, report: &Value) {
    if output::structured(client.output, report) {
        return;
    }
    for (key, value) in report.as_object().into_iter().flatten() {
        output::line(format!(
            "{key:<12} {}",
            value.as_str().map_or_else(|| value.to_string(), str::to_owned)
        ));
    }
}

/// A data directory that holds no journal yet; made if it is not there.
fn empty_data(data: &Path) -> Outcome {
    if data.join("journal").exists() {
        return Err(Failure::new(Exit::Refused, format!("{} holds a journal already", data.display()))
            .hint("name a new directory: nothing is ever written over a log"));
    }
    std::fs::create_dir_all(data)
        .map_err(|error| Failure::new(Exit::Refused, format!("{} cannot be made: {error}", data.display())))
}

fn import(file: &Path, data: &Path) -> Outcome {
    empty_data(data)?;
    let _lock = StoreLock::acquire(data).map_err(open_failure)?;
    let working = Working::on("importing", Some(&data.join("journal")));
    let report = import_file(file, &data.join("journal"), SEGMENT_BYTES).map_err(portable_failure)?;
    drop(working);
    output::line(format!(
        "{} streams up to position {} into {}",
        report.streams,
        report.last,
        data.display()
    ));
    Ok(())
}

/// Bytes of the segments that an import writes: the daemon's default.
const SEGMENT_BYTES: u64 = 64 << 20;

fn compact_stopped(data: &Path, client: &ClientArgs) -> Outcome {
    let (_lock, journal) = stopped_journal(data)?;
    let working = Working::on("compacting", None);
    let compacted =
        journal.compact(usize::MAX).map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
    drop(working);
    close(&journal);
    show(
        client,
        &json!({
            "segments": compacted.segments, "bytes_before": compacted.bytes_before,
            "bytes_after": compacted.bytes_after, "damaged": compacted.damaged,
        }),
    );
    Ok(())
}

/// Closes a journal in a process that has nothing else to do.
fn close(journal: &eventlog::Journal) {
    let handle = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| handle.block_on(journal.close()));
}

fn tail_stopped(data: &Path, lines: u64, client: &ClientArgs) -> Outcome {
    let stopped = Stopped::open(data)?;
    let durable = stopped.reader.durable().get();
    let first = Position::new(durable.saturating_sub(lines) + 1);
    let records = stopped
        .reader
        .read_all(first, usize::try_from(lines).unwrap_or(usize::MAX))
        .map_err(|error| Failure::new(Exit::Damaged, error.to_string()))?;
    let items: Result<Vec<Value>, Failure> = records
        .iter()
        .map(|record| {
            let recorded =
                journal::read(record).map_err(|error| Failure::new(Exit::Damaged, error.to_string()))?;
            Ok(json!({
                "position": recorded.meta.position, "time": rfc3339(recorded.meta.time),
                "stream": recorded.stream.to_string(), "version": recorded.meta.version,
                "event": event_name(&recorded.event),
            }))
        })
        .collect();
    show_items(&items?, client);
    Ok(())
}

async fn tail(lines: u64, follow: bool, client: &ClientArgs) -> Outcome {
    let http = Client::new(&client.server)?;
    let limit = lines.to_string();
    let mut page = http.get("/ops/v1/log/tail", &[("limit", &limit)]).await?;
    loop {
        let items = page["items"].as_array().cloned().unwrap_or_default();
        show_items(&items, client);
        let durable = page["durable"].as_u64().unwrap_or(0);
        let reached = items.last().and_then(|item| item["position"].as_u64()).unwrap_or(durable);
        if !follow {
            return Ok(());
        }
        if reached >= durable {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        page = http.get("/ops/v1/log/tail", &[("after", &reached.to_string()), ("limit", "1000")]).await?;
    }
}

fn show_items(items: &[Value], client: &ClientArgs) {
    for item in items {
        match client.output {
            Format::Table | Format::Wide => {}
            Format::Json | Format::Jsonl => {
                output::line(item.to_string());
                continue;
            }
            Format::Yaml => {
                output::line(format!("---\n{}", output::yaml(item)));
                continue;
            }
            Format::Name => {
                output::line(output::text(item, "event"));
                continue;
            }
        }
        let text = |key: &str| item[key].as_str().unwrap_or("-").to_owned();
        let number =
            |key: &str| item[key].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
        let (position, version) = (number("position"), number("version"));
        output::line(format!(
            "{position:>8}  {}  {} #{version}  {}",
            text("time"),
            text("stream"),
            text("event")
        ));
    }
}
