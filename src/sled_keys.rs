//! Who is at the other end of the sleds' protocol: the fleet's secret, which only the daemon reads, and the key of each
//! sled, which `musher sled key` makes from it.
//!
//! A listener that others can reach does not open without: neither the daemon's for sleds, nor an agent's.

use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::real::SystemIds;
use actors::IdSource as _;
use clap::Args;
use sled_protocol::{FleetSecret, SledId, SledKey};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Largest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 4_096;

/// Permission for anybody but the owner.
const OPEN_TO_OTHERS: u32 = 0o077;

/// Flags of `sled key`.
#[derive(Clone, Debug, Args)]
pub struct SledKeyArgs {
    /// File of the fleet's secret, the daemon's sleds.secret_file.
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// Id of the sled [default: a new one].
    #[arg(long, value_name = "ID")]
    sled: Option<SledId>,
}

/// Prints the key of one sled.
pub fn print_key(args: &SledKeyArgs) -> Outcome {
    let sled = args.sled.unwrap_or_else(|| SledId::from_uuid(SystemIds.uuid()));
    sled.validate("--sled").map_err(|invalid| Failure::new(Exit::Usage, invalid.to_string()))?;
    output::line(secret(&args.secret)?.key(sled).line());
    eprintln!("this is the key of sled {sled} and of no other: musher sled run --key FILE");
    Ok(())
}

/// The fleet's secret, if the daemon is given one; refused if its listener for sleds needs one.
pub fn fleet_secret(file: Option<&Path>, listen: SocketAddr) -> Result<Option<FleetSecret>, Failure> {
    match file {
        Some(file) => secret(file).map(Some),
        None if is_of_this_host(listen) => Ok(None),
        None => {
            let what = format!("sleds reach {listen} from elsewhere, and there is no secret to know them by");
            Err(Failure::new(Exit::Usage, what)
                .hint("set sleds.secret_file, or let sleds connect to 127.0.0.1: see docs/sleds.md"))
        }
    }
}

/// The key of an agent, if it is given one; refused if its listener needs one.
pub fn agent_key(file: Option<&Path>, listen: Option<SocketAddr>) -> Result<Option<SledKey>, Failure> {
    match (file, listen) {
        (Some(file), _) => {
            read(file, "key")?.parse().map(Some).map_err(|why: String| wrong(file, "key", &why))
        }
        (None, Some(listen)) if !is_of_this_host(listen) => {
            let what = format!("{listen} can be reached from elsewhere, and the sled has no key");
            Err(Failure::new(Exit::Usage, what)
                .hint("make one with `musher sled key --secret FILE` and give it with --key FILE"))
        }
        (None, _) => Ok(None),
    }
}

fn secret(file: &Path) -> Result<FleetSecret, Failure> {
    FleetSecret::read(&read(file, "secret")?).map_err(|why| wrong(file, "secret", &why))
}

fn wrong(file: &Path, what: &str, why: &str) -> Failure {
    Failure::new(Exit::Refused, format!("{what} file {}: {why}", file.display()))
}

fn read(file: &Path, what: &str) -> Result<String, Failure> {
    let failed = |why: String| wrong(file, what, &why);
    let metadata = std::fs::metadata(file).map_err(|error| failed(error.to_string()))?;
    if metadata.permissions().mode() & OPEN_TO_OTHERS != 0 {
        return Err(failed("others than its owner may read or write it".to_owned()).hint("chmod 600 it"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(failed(format!("it has {} bytes; at most {FILE_BYTES_MAX} are read", metadata.len())));
    }
    std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))
}

fn is_of_this_host(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
