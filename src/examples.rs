//! Examples of the commands whose help has none of its own: one line each, for `--help` and the manual alike.

use crate::cli::Cli;
use clap::{Command, CommandFactory as _};

/// The command, without `musher`, and what follows it.
const EXAMPLES: &[(&str, &str)] = &[
    ("serve", "--data /var/lib/musher"),
    ("demo", "--keep /tmp/demo"),
    ("quota show", "fleet"),
    ("group list", "-p demo"),
    ("group show", "spread"),
    ("group add", "spread web-1"),
    ("group remove", "spread web-1"),
    ("group delete", "spread --yes"),
    ("migration list", "--under-way"),
    ("migration show", "6f0c2a51-8d0e-4b6a-9d55-0d6b1c2f7e11"),
    ("saga list", "--under-way"),
    ("saga show", "7c1e8a40-8d0e-4b6a-9d55-0d6b1c2f7e11"),
    ("saga pause", "7c1e8a40-8d0e-4b6a-9d55-0d6b1c2f7e11 --reason 'the sled is being mended'"),
    ("saga resume", "7c1e8a40-8d0e-4b6a-9d55-0d6b1c2f7e11"),
    ("saga retry", "7c1e8a40-8d0e-4b6a-9d55-0d6b1c2f7e11"),
    ("saga cancel", "7c1e8a40-8d0e-4b6a-9d55-0d6b1c2f7e11"),
    ("timer list", "--watch"),
    ("timer explain", "sled-watch"),
    ("timer activate", "stuck-saga"),
    ("project create", "web --description 'the shop'"),
    ("project list", "-o wide"),
    ("project show", "demo"),
    ("project delete", "web --yes"),
    ("sled list", "-o wide"),
    ("sled show", "sim-0"),
    ("sled explain", "sim-0"),
    ("sled cordon", "sim-0 --reason 'new firmware tonight'"),
    ("sled uncordon", "sim-0"),
    ("log stats", "--data /var/lib/musher"),
    ("log verify", "--data /var/lib/musher"),
    ("log tail", "-n 50 -f"),
    ("log import", "demo.musher --data ./copy"),
    ("log restore", "--from /var/backups/musher --data ./restored"),
    ("log compact", "--data /var/lib/musher"),
    ("chaos replay", "failures/I6-260/shrunk.json --verbose"),
    ("chaos prove", "--jobs 2"),
    ("chaos same", "260"),
    ("chaos list", ""),
    ("config check", "--config /etc/musher/config.toml"),
    ("token list", "--file /etc/musher/tokens"),
    ("openapi", "> openapi.json"),
    ("ping", "--server http://127.0.0.1:12220"),
    ("version", ""),
];

/// The command line as it is parsed, with an example of everything.
pub fn command() -> Command {
    EXAMPLES.iter().fold(Cli::command(), |command, (path, rest)| {
        let words: Vec<&str> = path.split(' ').collect();
        let example = format!("Example: musher {path} {rest}");
        with_example(command, &words, example.trim_end())
    })
}

fn with_example(command: Command, path: &[&str], example: &str) -> Command {
    match path {
        [] if command.get_after_help().is_some() => command,
        [] => command.after_help(example.to_owned()),
        [first, rest @ ..] => {
            let name = (*first).to_owned();
            command.mut_subcommand(name, |below| with_example(below, rest, example))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command that has none below it, with its path.
    fn leaves(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
        let below: Vec<_> = command.get_subcommands().filter(|it| !it.is_hide_set()).collect();
        if below.is_empty() {
            found.push((path.to_owned(), command.clone()));
        }
        for command in below {
            leaves(command, format!("{path} {}", command.get_name()).trim_start(), found);
        }
    }

    #[test]
    fn every_command_says_what_it_does_and_has_an_example_that_parses() {
        let whole = command();
        let mut found = Vec::new();
        leaves(&whole, "", &mut found);
        assert!(found.len() > 50, "{}", found.len());
        for (path, leaf) in found {
            let about = leaf.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && !about.contains('\n'), "{path}: {about:?}");
            let help = leaf.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("musher {path}")), "{path} has no example: {help:?}");
        }
        for (path, rest) in EXAMPLES {
            let line = format!("musher {path} {}", rest.trim_start_matches('>'));
            // What a shell would take apart: quotes hold words together.
            let parts = line.split('\'').enumerate().flat_map(|(nth, part)| match nth % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
                _ => vec![part.to_owned()],
            });
            let words: Vec<String> = parts.filter(|word| word != "openapi.json").collect();
            let parsed = command().try_get_matches_from(&words);
            assert!(
                parsed.is_ok(),
                "{line}: {}",
                parsed.err().map(|error| error.to_string()).unwrap_or_default()
            );
        }
    }
}
