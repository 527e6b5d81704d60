//! `musher config show|check`: which settings hold, and where each comes from.

use crate::config::{Config, Overrides};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Column, Format, text};
use crate::settings::settings;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Where the settings are read from.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// Configuration file [default: ./config/local.toml or /etc/musher/config.toml, if there].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Verbs of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Every setting as `serve` would read it.
    #[command(after_help = "Example: musher config show --origin")]
    Show {
        /// Also where each comes from.
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        from: ConfigArgs,
        /// Shape of the output.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Whether `serve` would take the settings.
    Check {
        #[command(flatten)]
        from: ConfigArgs,
    },
}

/// Runs the verb.
pub fn run(verb: &ConfigVerb) -> Outcome {
    match verb {
        ConfigVerb::Show { origin, from, output } => show(from, *origin, *output),
        ConfigVerb::Check { from } => {
            Config::load(from.config.as_deref(), &Overrides::default()).map_err(usage)?;
            output::line("the configuration is valid");
            Ok(())
        }
    }
}

fn show(from: &ConfigArgs, with_origin: bool, format: Format) -> Outcome {
    let settings: Vec<Value> = settings(from.config.as_deref())
        .map_err(usage)?
        .into_iter()
        .map(|it| {
            let mut shown = json!({"name": it.key, "value": it.value});
            if with_origin {
                shown["origin"] = Value::from(it.origin);
            }
            shown
        })
        .collect();
    let mut columns =
        vec![Column::new("key", |it| text(it, "name")), Column::new("value", |it| it["value"].to_string())];
    if with_origin {
        columns.push(Column::new("origin", |it| text(it, "origin")));
    }
    output::line(output::list(format, true, &settings, &columns));
    Ok(())
}

fn usage(error: anyhow::Error) -> Failure {
    Failure { exit: Exit::Usage, ..Failure::from(error) }
}
