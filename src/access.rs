//! Who may come in: the token file of `musher serve`, and the verbs of `musher token` that keep it.
//!
//! A daemon that others can reach does not start without tokens; one that only this host reaches needs none.

use crate::config::{Config, Overrides};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Column, Format, text};
use crate::real::{SystemClock, SystemIds};
use actors::{Clock as _, IdSource as _};
use api::Access;
use api::auth::{Holders, Role, Token, TokenHash, Tokens};
use clap::{Args, Subcommand};
use serde_json::json;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Largest token file that is read, bytes: as many tokens as there may be, with room for comments.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Permission to write for anybody but the owner.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Which token file.
#[derive(Clone, Debug, Args)]
pub struct FileArgs {
    /// Token file [default: auth.token_file of the configuration].
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Configuration file [default: ./config/local.toml or /etc/musher/config.toml, if there].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Verbs of `token`.
#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Make a token and print it, once; the file gets its hash.
    #[command(
        after_help = "Example:\n  musher token create --name ada --role operator --file /etc/musher/tokens"
    )]
    Create {
        /// Its holder: the name in the history of whatever it is used for.
        #[arg(long)]
        name: String,
        /// What it is good for: viewer, operator or admin.
        #[arg(long, value_parser = str::parse::<Role>)]
        role: Role,
        #[command(flatten)]
        file: FileArgs,
    },
    /// List tokens by holder; the tokens themselves are nowhere.
    List {
        #[command(flatten)]
        file: FileArgs,
        /// Shape of the output.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Take a token out of the file. A running daemon forgets it on SIGHUP.
    #[command(
        after_help = "Example:\n  musher token revoke ada --file /etc/musher/tokens && systemctl reload musher"
    )]
    Revoke {
        /// Its holder.
        name: String,
        #[command(flatten)]
        file: FileArgs,
    },
}

/// Runs the verb.
pub fn run(verb: &TokenVerb) -> Outcome {
    match verb {
        TokenVerb::Create { name, role, file } => create(name, *role, &path(file)?),
        TokenVerb::List { file, output } => {
            let items: Vec<_> = load(&path(file)?)?
                .iter()
                .map(|(name, token)| json!({"name": name, "role": token.role.as_str(), "made": token.made}))
                .collect();
            let columns = [
                Column::new("name", |it| text(it, "name")),
                Column::new("role", |it| text(it, "role")),
                Column::new("made", |it| text(it, "made")),
            ];
            output::line(output::list(*output, true, &items, &columns));
            Ok(())
        }
        TokenVerb::Revoke { name, file } => {
            let file = path(file)?;
            let mut tokens = load(&file)?;
            if !tokens.remove(name) {
                let what = format!("{} has no token by the name \"{name}\"", file.display());
                return Err(Failure::new(Exit::Refused, what).hint("see `musher token list`"));
            }
            write(&file, &tokens)?;
            output::line(format!("revoked {name}; a running daemon forgets it on SIGHUP"));
            Ok(())
        }
    }
}

fn path(args: &FileArgs) -> Result<PathBuf, Failure> {
    if let Some(file) = &args.file {
        return Ok(file.clone());
    }
    let config = Config::load(args.config.as_deref(), &Overrides::default())
        .map_err(|error| Failure { exit: Exit::Usage, ..Failure::from(error) })?;
    config.auth.file().map(Path::to_owned).ok_or_else(|| {
        Failure::new(Exit::Usage, "which token file? the configuration names none")
            .hint("give --file FILE, or set auth.token_file")
    })
}

fn create(name: &str, role: Role, file: &Path) -> Outcome {
    let mut tokens = if file.exists() { load(file)? } else { Tokens::default() };
    // Two UUIDs of version 4: 244 bits of the system's randomness.
    let token = format!("musher_{}{}", SystemIds.uuid().simple(), SystemIds.uuid().simple());
    let made = replay::time::rfc3339(SystemClock.now());
    let line = Token { role, hash: TokenHash::of(&token), made };
    tokens.add(name, line).map_err(|why| Failure::new(Exit::Refused, why))?;
    write(file, &tokens)?;
    output::line(&token);
    eprintln!("this is the only time it is shown; {} has its hash", file.display());
    Ok(())
}

/// Whole or not at all: beside it, synced, then in its place. Only its owner reads it.
fn write(file: &Path, tokens: &Tokens) -> Outcome {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Refused, format!("{} cannot be written: {error}", file.display()))
    };
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut beside = tempfile::NamedTempFile::new_in(parent).map_err(failed)?;
    beside.write_all(tokens.to_string().as_bytes()).map_err(failed)?;
    beside.as_file().sync_all().map_err(failed)?;
    if let Ok(old) = std::fs::metadata(file) {
        // A daemon of another group may have been given leave to read it.
        std::fs::set_permissions(beside.path(), old.permissions()).map_err(failed)?;
    }
    beside.persist(file).map_err(|error| failed(error.error))?;
    std::fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// Reads a token file; one that others may write is nobody's.
fn load(file: &Path) -> Result<Tokens, Failure> {
    let failed = |why: String| Failure::new(Exit::Refused, format!("token file {}: {why}", file.display()));
    let metadata = std::fs::metadata(file).map_err(|error| {
        failed(error.to_string()).hint("make one: musher token create --name NAME --role admin --file FILE")
    })?;
    if metadata.permissions().mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(failed("others than its owner may write it".to_owned()).hint("chmod go-w it"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(failed(format!("it has {} bytes; at most {FILE_BYTES_MAX} are read", metadata.len())));
    }
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    Tokens::parse(&text).map_err(failed)
}

/// Who may come in, and the means to change that.
pub struct Gate {
    file: Option<(PathBuf, Holders)>,
}

impl Gate {
    /// As the configuration says; refused if nobody could come in, or everybody.
    pub fn open(config: &Config) -> Result<Self, Failure> {
        let Some(file) = config.auth.file() else {
            let listen = config.server.listen;
            if reaches_only_this_host(listen) {
                return Ok(Self { file: None });
            }
            let what = format!("{listen} can be reached from elsewhere, and there is no token file");
            return Err(Failure::new(Exit::Usage, what).hint(
                "make one with `musher token create --name NAME --role admin --file FILE` and give it with \
                 --tokens FILE, or listen on 127.0.0.1",
            ));
        };
        let holders = Holders::new(some(file)?);
        Ok(Self { file: Some((file.to_owned(), holders)) })
    }

    /// What requests are held against.
    pub fn access(&self) -> Access {
        self.file.as_ref().map_or(Access::Anybody, |(_, holders)| Access::Holders(holders.clone()))
    }

    /// Whether there is a file that can be read again.
    pub const fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the file again. One that is not in order changes nothing.
    pub fn reload(&self) {
        let Some((file, holders)) = &self.file else {
            return;
        };
        match some(file) {
            Ok(tokens) => {
                tracing::info!(file = %file.display(), tokens = tokens.iter().count(), "tokens read again");
                holders.replace(tokens);
            }
            Err(failure) => {
                tracing::error!(problem = failure.what, "the tokens stay as they were");
            }
        }
    }
}

fn some(file: &Path) -> Result<Tokens, Failure> {
    let tokens = load(file)?;
    if tokens.is_empty() {
        let what = format!("token file {}: there is no token in it, so nobody could come in", file.display());
        return Err(Failure::new(Exit::Refused, what)
            .hint("make one: musher token create --name NAME --role admin --file FILE"));
    }
    Ok(tokens)
}

fn reaches_only_this_host(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_needs_no_tokens() {
        for (address, is_open) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("192.168.0.7:1", false),
        ] {
            let overrides = Overrides { listen: Some(address.parse().unwrap()), ..Overrides::default() };
            let config = Config::load(None, &overrides).unwrap();
            let gate = Gate::open(&config);
            assert_eq!(gate.is_ok(), is_open, "{address}");
            let shown = gate.err().map(|failure| failure.what).unwrap_or_default();
            assert!(is_open || shown.contains("no token file"), "{shown}");
        }
    }

    #[test]
    fn a_token_file_that_is_not_in_order_opens_nothing_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        let overrides = Overrides { tokens: Some(file.clone()), ..Overrides::default() };
        let config = Config::load(None, &overrides).unwrap();
        let refused = |says: &str| {
            let failure = Gate::open(&config).err().expect("it is refused");
            assert!(failure.what.contains(says), "{}", failure.what);
        };
        refused("No such file");
        std::fs::write(&file, "# nobody\n").unwrap();
        refused("there is no token in it");
        std::fs::write(&file, "ada root sha256:00 now\n").unwrap();
        refused("line 1: \"root\" is no role");
        std::fs::remove_file(&file).unwrap();
        create("ada", Role::Admin, &file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let gate = Gate::open(&config).unwrap();
        let holders = |gate: &Gate| format!("{:?}", gate.access()).matches("Admin").count();
        create("bob", Role::Admin, &file).unwrap();
        gate.reload();
        assert_eq!(holders(&gate), 2);
        std::fs::write(&file, "").unwrap();
        gate.reload();
        assert_eq!(holders(&gate), 2, "an empty file does not lock everybody out");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        refused("others than its owner may write it");
    }
}
