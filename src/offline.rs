//! `musher log stats|verify`: of a stopped data directory, of an export, or of a running daemon.
//!
//! A directory is locked while it is read, so that nobody writes it meanwhile; nothing in it is changed.

use crate::cli::{ClientArgs, LogVerb};
use crate::client::Client;
use crate::debugger::past::{Past, Stopped};
use crate::debugger::{progress, show};
use crate::exit::{Exit, Failure, Outcome};
use crate::log_tools::{self, portable_failure};
use crate::output::{self, Format};
use crate::store::open_failure;
use crate::working::Working;
use eventlog::portable::ExportReader;
use eventlog::{JournalReader, StoreLock};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Streams named by `log stats`.
const LARGEST: usize = 5;

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
            let past = match file {
                Some(file) => Past::export(&file)?,
                None => Past::Directory(Stopped::open(&data)?, data),
            };
            stats(&past, &client)
        }
        LogVerb::Verify { file: Some(file), .. } => {
            let working = Working::on("verifying", None);
            let reader = ExportReader::open(&file).map_err(portable_failure)?;
            drop(working);
            let (first, last) = (reader.first(), reader.durable());
            output::line(format!("positions {first} to {last}, every frame and the whole as it was written"));
            Ok(())
        }
        LogVerb::Verify { data, file: None, output } => verify_log(&data, output),
        carried => log_tools::run(carried).await,
    }
}

fn stats(past: &Past, client: &ClientArgs) -> Outcome {
    let stats = replay::stats(past.source(), LARGEST, &mut progress("counted"))
        .map_err(|error| past.failure(error))?;
    show::stats(&stats, client.output);
    Ok(())
}

fn verify_log(data: &Path, format: Format) -> Outcome {
    // Locks, and refuses what is not a data directory; damage is for the verifier to describe.
    if !data.join("journal").is_dir() {
        return Err(Failure::new(
            Exit::Refused,
            format!("{} is not a data directory of musher", data.display()),
        )
        .hint("name it with --data"));
    }
    let _lock = StoreLock::acquire(data).map_err(open_failure)?;
    let working = Working::on("verifying", None);
    let report = JournalReader::verify_dir(&data.join("journal")).map_err(open_failure)?;
    drop(working);
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
