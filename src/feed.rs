//! `musher events`: the live feed on the command line.
//!
//! Invariant: what is printed has no gap and no repeat, also when the connection breaks in between: it goes on
//! behind the last position that was seen.

use crate::cli::ClientArgs;
use crate::client::{Client, ClientError};
use crate::exit::Outcome;
use crate::output::{self, Format, text};
use crate::sse::Blocks;
use clap::Args;
use reqwest::Response;
use serde_json::Value;
use std::fmt::Write as _;
use std::time::Duration;

/// Attempts in a row to come back to a daemon that was there, and the pause between them: a restart takes less.
const ATTEMPTS_MAX: u32 = 60;
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);

/// Flags of `events`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  musher events -f\n  musher events --instance web-1\n  \
                        musher events -f --kind Created,Deleted -o jsonl | jq .data")]
pub struct EventsArgs {
    /// Go on showing what comes.
    #[arg(short, long)]
    follow: bool,
    /// Events after this position [default: all; with --follow: from now on].
    #[arg(long, value_name = "POSITION")]
    after: Option<u64>,
    /// Of this instance only: name or UUID, also of a deleted one.
    #[arg(long)]
    instance: Option<String>,
    /// Of these kinds only, such as Created,StopRequested.
    #[arg(long)]
    kind: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

impl EventsArgs {
    /// What comes of one instance, after a position, until interrupted.
    pub const fn of_instance(instance: String, after: Option<u64>, client: ClientArgs) -> Self {
        Self { follow: true, after, instance: Some(instance), kind: None, client }
    }
}

/// Shows events.
pub async fn run(args: &EventsArgs) -> Outcome {
    let client = Client::new(&args.client.server)?;
    let mut seen = args.after.or((!args.follow).then_some(0));
    let mut failures = 0;
    let mut was_there = false;
    loop {
        let ended = match open(&client, args, seen).await {
            Ok(response) => {
                (failures, was_there) = (0, true);
                show(response, args, &mut seen).await
            }
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) if !args.follow => return Ok(()),
            Ok(()) => {}
            Err(ClientError::Unreachable(_)) if args.follow && was_there && failures < ATTEMPTS_MAX => {}
            // A daemon that is going down, or coming up, says so.
            Err(ClientError::Refused(refused))
                if was_there && refused.status.as_u16() == 503 && failures < ATTEMPTS_MAX => {}
            Err(error) => return Err(error.into()),
        }
        if failures == 0 {
            eprintln!("the feed broke off; coming back");
        }
        failures += 1;
        tokio::time::sleep(ATTEMPT_PAUSE).await;
    }
}

async fn open(client: &Client, args: &EventsArgs, seen: Option<u64>) -> Result<Response, ClientError> {
    let mut query = vec![("follow", args.follow.to_string())];
    if let Some(instance) = &args.instance {
        query.push(("instance", instance.clone()));
        if uuid::Uuid::try_parse(instance).is_err() {
            query.push(("project", args.client.project.clone()));
        }
    }
    if let Some(kind) = &args.kind {
        query.push(("kind", kind.clone()));
    }
    if let Some(seen) = seen {
        query.push(("after", seen.to_string()));
    }
    client.stream("/ops/v1/events", &query).await
}

/// Prints what comes until the answer ends; `seen` follows.
async fn show(response: Response, args: &EventsArgs, seen: &mut Option<u64>) -> Result<(), ClientError> {
    let mut blocks = Blocks::new(response);
    while let Some(block) = blocks.next().await? {
        if let Some(why) = block.ended {
            return Err(ClientError::Unreachable(format!("the daemon ended the feed: {why}")));
        }
        if let Some(data) = block.data {
            let event = serde_json::from_str(&data)
                .map_err(|error| ClientError::Unreachable(format!("an event is no JSON: {error}")))?;
            print(&event, args.client.output);
        }
        // An id counts once its event is printed.
        *seen = block.id.or(*seen);
    }
    Ok(())
}

fn print(event: &Value, format: Format) {
    let number = |key: &str| event[key].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
    match format {
        Format::Json | Format::Jsonl => output::line(event.to_string()),
        Format::Yaml => output::line(format!("---\n{}", output::yaml(event))),
        Format::Name => output::line(text(event, "event")),
        Format::Table | Format::Wide => {
            let (position, version) = (number("position"), number("version"));
            let (time, stream, name) = (text(event, "time"), text(event, "stream"), text(event, "event"));
            let mut line =
                format!("{position:>8}  {time}  {stream} #{version}  {name}  by {}", text(event, "actor"));
            if format == Format::Wide {
                let _ = write!(line, "  {}", event["data"]);
            }
            output::line(line);
        }
    }
}
