//! `musher man`: the manual, from the same words as `--help`.

use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use clap::Args;
use std::path::PathBuf;

/// Flags of `man`.
#[derive(Debug, Args)]
#[command(after_help = "Example: musher man --dir /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Directory for the pages; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Writes a page per command.
pub fn run(args: &ManArgs) -> Outcome {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Refused, format!("{}: {error}", args.dir.display()))
            .hint("name another with --dir")
    };
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    clap_mangen::generate_to(crate::examples::command(), &args.dir).map_err(failed)?;
    output::line(format!("the pages are in {}; begin with musher.1", args.dir.display()));
    Ok(())
}
