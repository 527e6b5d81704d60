//! Recorded logs of every released version, read by this build: their states are as they were, and what
//! `docs/debugging.md` shows of them is what one sees.
//!
//! `UPDATE_EXPECT=1` writes both anew; look at the difference before it is kept.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{musher, stderr, stdout};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn logs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logs")
}

fn is_updated() -> bool {
    std::env::var_os("UPDATE_EXPECT").is_some()
}

fn exports() -> Vec<PathBuf> {
    let versions = std::fs::read_dir(logs()).unwrap().map(|entry| entry.unwrap().path());
    let files = versions.flat_map(|version| std::fs::read_dir(version).unwrap());
    let mut exports: Vec<PathBuf> = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "musher"))
        .collect();
    exports.sort();
    exports
}

fn ask(args: &[&str], file: &Path) -> Value {
    let output = musher().arg("replay").args(args).args(["-o", "json", "--file"]).arg(file).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?} of {}: {}", file.display(), stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The first field that was expected and is not so. What later builds say besides is no difference.
fn missing(field: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => expected.iter().find_map(|(key, expected)| {
            missing(&format!("{field}.{key}"), expected, found.get(key).unwrap_or(&Value::Null))
        }),
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            let mut pairs = expected.iter().zip(found).enumerate();
            pairs.find_map(|(n, (expected, found))| missing(&format!("{field}.{n}"), expected, found))
        }
        _ => (expected != found).then(|| field.to_owned()),
    }
}

#[test]
fn recorded_logs_of_every_version_fold_to_the_states_beside_them() {
    let exports = exports();
    assert!(exports.len() >= 3, "{exports:?}");
    for export in exports {
        let verified = ask(&["--verify"], &export);
        assert_eq!(verified["findings"], json!([]), "{}", export.display());
        assert_eq!(verified["inputs_missing"], 0, "{}", export.display());
        let fleet = ask(&["--fleet"], &export);
        let of_each = fleet["instances"].as_array().unwrap().iter().map(|instance| {
            let id = instance["id"].as_str().unwrap();
            let versions = instance["version"].as_u64().unwrap();
            let states: Vec<Value> =
                (1..=versions).map(|it| ask(&[id, "--at", &format!("#{it}")], &export)).collect();
            json!({"id": id, "states": states})
        });
        let found = json!({"instances": of_each.collect::<Vec<_>>(), "fleet": fleet.clone()});
        let beside = export.with_extension("states.json");
        if is_updated() {
            let text = serde_json::to_string_pretty(&found).unwrap();
            std::fs::write(&beside, text + "\n").unwrap();
        }
        let expected: Value = serde_json::from_slice(&std::fs::read(&beside).unwrap()).unwrap();
        if let Some(field) = missing("", &expected, &found) {
            panic!("{} does not fold to {}: {field} differs", export.display(), beside.display());
        }
    }
}

#[test]
fn an_incident_in_which_a_mistake_shows_is_made_small_and_fails_in_the_same_way() {
    let mut shown = Vec::new();
    for name in ["crash-in-mid-start", "stuck-in-stopping", "migration-lost-its-race"] {
        let file = logs().join("0.1.0").join(name).with_extension("musher");
        let reader = eventlog::portable::ExportReader::open(&file).unwrap();
        let Ok(replay::Found::One(id)) = replay::find_instance(&reader, "demo", "web-1") else {
            panic!("{name} has lost its instance");
        };
        let incident = replay::incident(&reader, id, &mut |_| {}).unwrap();
        let history = chaos::History { own: &incident.own, around: &incident.around, end: incident.end };
        let made = chaos::reenact(&history).unwrap().scenario;
        let whole = chaos::run_caught(&made, false);
        assert_eq!(
            whole.failure.map(|failure| format!("{failure:?}")),
            None,
            "{name}: without a mistake nothing breaks"
        );
        let Some(scenario) = planted(&made) else {
            continue;
        };
        let failure = chaos::run_caught(&scenario, false).failure.unwrap();
        let shrunk = chaos::shrink(&scenario, &failure);
        let kept = chaos::Scenario::from_json(&shrunk.scenario.to_json()).unwrap();
        let again = chaos::run_caught(&kept, false).failure;
        assert!(again.is_some_and(|again| again.is_like(&failure)), "{name}: {failure:?}");
        let size = |it: &chaos::Scenario| it.requests.len() + it.faults.len();
        assert!(size(&kept) <= size(&scenario) && kept.safety_ms <= scenario.safety_ms, "{name}");
        assert!(size(&kept) < size(&scenario) || kept.safety_ms < scenario.safety_ms, "{name}: nothing went");
        shown.push(name);
    }
    assert!(!shown.is_empty(), "no recorded incident shows any planted mistake");
}

/// The scenario with the first planted mistake that shows in it.
fn planted(made: &chaos::Scenario) -> Option<chaos::Scenario> {
    chaos::Bug::PROVED.iter().find_map(|bug| {
        let scenario = chaos::Scenario { bug: Some(*bug), ..made.clone() };
        chaos::run_caught(&scenario, false).failure.map(|_| scenario)
    })
}

#[test]
fn an_incident_becomes_a_scenario_and_a_failing_one_is_shrunk_by_command() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str], code: i32| {
        let output = musher().args(args).current_dir(dir.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}{}", stdout(&output), stderr(&output));
        stdout(&output)
    };
    let read = |file: &str| {
        let text = std::fs::read_to_string(dir.path().join(file)).unwrap();
        chaos::Scenario::from_json(&text).unwrap()
    };
    let size = |it: &chaos::Scenario| it.requests.len() + it.faults.len();
    let mut shown = 0;
    for name in ["crash-in-mid-start", "stuck-in-stopping", "migration-lost-its-race"] {
        let (file, small) = (format!("{name}.json"), format!("{name}.shrunk.json"));
        let log = logs().join("0.1.0").join(name).with_extension("musher");
        run(&["replay", "web-1", "--file", log.to_str().unwrap(), "--simulate", "--to", &file], 0);
        assert!(run(&["chaos", "replay", &file], 0).contains("nothing was broken"), "{name}");
        let refused = musher().args(["chaos", "shrink", &file]).current_dir(dir.path()).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{name}: there is nothing to shrink it to");
        assert!(stderr(&refused).contains("breaks nothing"), "{}", stderr(&refused));
        let Some(failing) = planted(&read(&file)) else { continue };
        std::fs::write(dir.path().join(&file), failing.to_json()).unwrap();
        let whole = run(&["chaos", "replay", &file], 10);
        let told = run(&["chaos", "shrink", &file], 0);
        assert!(told.contains(&format!("repro: musher chaos replay {small}")), "{told}");
        let broken = told.split_whitespace().next().unwrap();
        let again = run(&["chaos", "replay", &small], 10);
        assert!(whole.contains(broken) && again.contains(broken), "{name}: {broken}\n{whole}\n{again}");
        assert!(size(&read(&small)) <= size(&failing), "{name}");
        shown += 1;
    }
    assert!(shown > 0, "no recorded incident shows any planted mistake");
}

/// The page with its commands run in `dir`, and what each prints below it, unless the page has `...` there.
fn run_page(page: &str, dir: &Path) -> String {
    let (mut shown, mut is_console, mut is_skipping) = (String::new(), false, false);
    for line in page.lines() {
        if line.starts_with("```") {
            is_console = line == "```console";
            is_skipping = false;
        }
        let Some(command) = line.strip_prefix("$ musher ").filter(|_| is_console) else {
            // What a command printed before is replaced by what it prints.
            if !is_console || line.starts_with("```") || (line == "..." && is_skipping) {
                writeln!(shown, "{line}").unwrap();
            }
            continue;
        };
        writeln!(shown, "{line}").unwrap();
        let output = musher().args(words(command)).current_dir(dir).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}: {}{}", stdout(&output), stderr(&output));
        is_skipping = is_cut(page, line);
        if !is_skipping {
            for printed in stdout(&output).lines() {
                writeln!(shown, "{}", printed.trim_end()).unwrap();
            }
        }
    }
    shown
}

/// Whether what the command prints is left out of the page.
fn is_cut(page: &str, command: &str) -> bool {
    page.split(command).nth(1).is_some_and(|rest| rest.trim_start_matches('\n').starts_with("..."))
}

/// The words of a command, as a shell reads those in single quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (nth, part) in command.split('\'').enumerate() {
        if nth % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn the_page_on_debugging_shows_what_its_commands_print() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/debugging.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for export in exports() {
        std::fs::copy(&export, dir.path().join(export.file_name().unwrap())).unwrap();
    }
    let shown = run_page(&page, dir.path());
    if is_updated() {
        std::fs::write(&path, &shown).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(shown.matches("\n$ musher ").count() > 15, "the page has lost its commands");
    for (nth, (is, expected)) in shown.lines().zip(page.lines()).enumerate() {
        assert_eq!(is, expected, "line {} of docs/debugging.md; UPDATE_EXPECT=1 writes it anew", nth + 1);
    }
    assert_eq!(shown, page);
}

#[test]
fn the_recorded_logs_are_what_the_fuzz_targets_of_replay_start_from() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for export in exports() {
        let name = export.file_stem().unwrap();
        let reader = eventlog::portable::ExportReader::open(&export).unwrap();
        let records = reader.read_all(reader.first(), usize::MAX).unwrap();
        let table =
            [("events", eventlog::portable::pack(&records)), ("opened", std::fs::read(&export).unwrap())];
        for (target, bytes) in table {
            let seed = seeds.join(target).join(name);
            if is_updated() {
                std::fs::create_dir_all(seed.parent().unwrap()).unwrap();
                std::fs::write(&seed, &bytes).unwrap();
            }
            assert!(
                std::fs::read(&seed).unwrap() == bytes,
                "{}: UPDATE_EXPECT=1 writes it anew",
                seed.display()
            );
        }
    }
}
