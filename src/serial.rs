//! `musher instance serial`: what a guest has written, as it is, on stdout.

use crate::cli::One;
use crate::client::{Client, ClientError};
use crate::exit::{Exit, Failure, Outcome};
use crate::instance::find;
use clap::Args;
use serde_json::Value;
use std::io::{ErrorKind, Write as _};
use std::time::Duration;

/// Bytes of one answer.
const BYTES_MAX: u64 = 64 << 10;

/// How often a follower looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Flags of `instance serial`.
#[derive(Clone, Debug, Args)]
pub struct SerialArgs {
    #[command(flatten)]
    one: One,
    /// Only so many bytes before the end [default: all that the sled keeps].
    #[arg(long, value_name = "BYTES")]
    tail: Option<u64>,
    /// Go on showing what is written, until interrupted or until there is no VMM.
    #[arg(short, long)]
    follow: bool,
}

/// Shows it.
pub async fn run(args: &SerialArgs) -> Outcome {
    let (client, id) = find(&args.one).await?;
    let path = format!("/v1/instances/{id}/serial-console");
    let begin = args.tail.map_or(("from_start", 0), |bytes| ("most_recent", bytes));
    let mut seen = show(&read(&client, &path, begin).await?)?;
    loop {
        let more = match read(&client, &path, ("from_start", seen)).await {
            // Its VMM has ended: what it wrote has been shown.
            Err(ClientError::Refused(refused)) if refused.status == 400 => return Ok(()),
            more => more?,
        };
        let (end, bytes) = (offset(&more), show(&more)?);
        let is_at_end = more["data"].as_array().is_none_or(Vec::is_empty);
        // Another VMM begins to count anew.
        seen = if end < seen { 0 } else { bytes };
        if is_at_end && !args.follow {
            return Ok(());
        }
        if is_at_end {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn read(client: &Client, path: &str, (begin, value): (&str, u64)) -> Result<Value, ClientError> {
    let (value, max) = (value.to_string(), BYTES_MAX.to_string());
    client.get(path, &[(begin, value.as_str()), ("max_bytes", max.as_str())]).await
}

fn offset(answer: &Value) -> u64 {
    answer["last_byte_offset"].as_u64().unwrap_or(0)
}

/// Writes the bytes as they are; answers where they end.
fn show(answer: &Value) -> Result<u64, Failure> {
    let data = answer["data"].as_array().cloned().unwrap_or_default();
    let bytes: Vec<u8> = data.iter().filter_map(|it| u8::try_from(it.as_u64()?).ok()).collect();
    let mut out = std::io::stdout().lock();
    out.write_all(&bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        // A reader that went away has what it wanted.
        ErrorKind::BrokenPipe => Failure::new(Exit::Done, "nobody reads on"),
        _ => Failure::new(Exit::Refused, format!("the output cannot be written: {error}")),
    })?;
    Ok(offset(answer))
}
