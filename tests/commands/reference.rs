//! `docs/cli.md` names every command and every flag that there is, and no other.

use super::daemon::{musher, stdout};
use std::collections::{BTreeMap, BTreeSet};

/// A command's flags, by its path.
type Commands = BTreeMap<String, BTreeSet<String>>;

/// Flags that the page describes once for many commands.
const SHARED: [&str; 14] = [
    "--help",
    "--version",
    "--color",
    "--server",
    "--token",
    "--token-file",
    "--project",
    "--output",
    "--no-headers",
    "--dry-run",
    "--reason",
    "--watch",
    "--wait",
    "--timeout",
];

fn help(path: &[&str]) -> String {
    let output = musher().args(path).arg("--help").env("NO_COLOR", "1").output().unwrap();
    assert!(output.status.success(), "{path:?}");
    stdout(&output)
}

/// Everything that `--help` knows, from `path` on.
fn gather(path: &[&str], found: &mut Commands) {
    let text = help(path);
    let below: Vec<&str> = text
        .split("\nCommands:\n")
        .nth(1)
        .map(|rest| rest.lines().take_while(|line| !line.is_empty()))
        .into_iter()
        .flatten()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    if below.is_empty() {
        let flags = text.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
        let long =
            flags.filter_map(|line| line.split([' ', ',', '=', '[', '<']).find(|it| it.starts_with("--")));
        found.insert(path.join(" "), long.map(|flag| flag.trim_end_matches("...").to_owned()).collect());
    }
    for name in below {
        gather(&[path, &[name]].concat(), found);
    }
}

fn page() -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md")).unwrap()
}

/// The commands that a row's first cell names: `saga list`, `show` is two of one noun.
fn named(cell: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for code in cell.split('`').skip(1).step_by(2) {
        let words: Vec<&str> = code
            .split(' ')
            .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
            .collect();
        let words: Vec<&str> = words.into_iter().take_while(|word| !word.starts_with('-')).collect();
        match (&words[..], found.last().and_then(|last| last.rsplit_once(' '))) {
            ([verb], Some((noun, _))) => found.push(format!("{noun} {verb}")),
            (words, _) => found.push(words.join(" ")),
        }
    }
    found
}

fn rows(page: &str, head: &str) -> Vec<(String, String)> {
    let table = page.split(head).nth(1).unwrap_or_else(|| panic!("no table {head}"));
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|line| {
        // A bar within a word is escaped.
        let line = line.replace("\\|", "/");
        let mut cells = line.trim_matches('|').splitn(2, '|').map(|cell| cell.trim().to_owned());
        (cells.next().unwrap(), cells.next().unwrap_or_default())
    });
    cells.collect()
}

#[test]
fn the_reference_names_every_command_and_no_other() {
    let mut there = Commands::new();
    gather(&[], &mut there);
    assert!(there.len() > 60, "{}", there.len());
    let named: BTreeSet<String> =
        rows(&page(), "| command | does |").iter().flat_map(|(cell, _)| named(cell)).collect();
    let there: BTreeSet<String> = there.into_keys().collect();
    let missing: Vec<_> = there.difference(&named).collect();
    let gone: Vec<_> = named.difference(&there).collect();
    assert!(missing.is_empty() && gone.is_empty(), "not in docs/cli.md: {missing:?}; not there: {gone:?}");
}

#[test]
fn the_reference_names_every_flag_of_every_command_and_no_other() {
    let mut there = Commands::new();
    gather(&[], &mut there);
    let page = page();
    let rows = rows(&page, "| command | flags |");
    let mut described: Commands = BTreeMap::new();
    for (cell, flags) in &rows {
        let long =
            flags.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|it| it.starts_with("--"));
        let long: BTreeSet<String> = long.map(str::to_owned).collect();
        let commands = named(cell);
        for flag in &long {
            let has_it = |command: &String| there.get(command).is_some_and(|flags| flags.contains(flag));
            assert!(
                commands.iter().any(has_it),
                "docs/cli.md gives {flag} to {commands:?}, which do not take it"
            );
        }
        for command in commands {
            described.entry(command).or_default().extend(long.iter().cloned());
        }
    }
    let shared: BTreeSet<String> = SHARED.map(str::to_owned).into();
    let nothing = BTreeSet::new();
    for (command, flags) in &there {
        let described = described.get(command).unwrap_or(&nothing);
        let missing: Vec<_> =
            flags.iter().filter(|flag| !described.contains(*flag) && !shared.contains(*flag)).collect();
        assert!(missing.is_empty(), "{command} has {missing:?}, and docs/cli.md does not say so");
    }
}
