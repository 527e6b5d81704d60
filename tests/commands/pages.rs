//! The commands of the pages for people.

use super::daemon::{Daemon, musher, scratch, stderr, stdout};
use super::words;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Output, Stdio};

/// Where a command that is shown is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Against a daemon whose guests come up at once.
    Quick,
    /// Against one whose guests never come up: what is under way stays so.
    Stuck,
    /// On the first one's directory, once it has stopped.
    Stopped,
    /// Read only: another test runs it, or it would run for ever.
    Read,
}

use Place::{Quick, Read, Stopped, Stuck};

/// Every command of the pages in the order of a story, with its exit code.
const STORY: &[(Place, i32, &str)] = &[
    (Quick, 0, "musher instance create web-1 --wait"),
    (Quick, 0, "musher instance list"),
    (Quick, 0, "musher instance migrate web-1 --wait"),
    (Quick, 0, "musher instance explain web-1"),
    (Quick, 0, "musher instance history web-1"),
    (Quick, 0, "musher sled drain sim-1 --wait"),
    (Quick, 0, "musher instance stop web-1 --wait"),
    (Quick, 0, "musher instance explain NAME"),
    (Quick, 0, "musher instance history NAME"),
    (Quick, 0, "musher instance start NAME"),
    (Quick, 0, "musher instance serial NAME"),
    (Quick, 0, "musher instance stop NAME"),
    (Quick, 0, "musher sled list"),
    (Quick, 0, "musher sled explain NAME"),
    (Quick, 0, "musher sled show NAME"),
    (Quick, 0, "musher sled uncordon NAME"),
    (Quick, 0, "musher migration list"),
    (Quick, 0, "musher timer list"),
    (Quick, 0, "musher timer explain NAME"),
    (Quick, 0, "musher timer activate NAME"),
    (Quick, 0, "musher timer activate stuck-saga"),
    (Quick, 0, "musher timer activate retention"),
    (Quick, 0, "musher trace ID"),
    (Quick, 0, "musher trace REQUEST"),
    (Quick, 0, "musher trace REQUEST --otlp FILE"),
    (Quick, 0, "musher log stats"),
    (Quick, 0, "musher log compact"),
    (Quick, 0, "musher log backup --to DIR"),
    (Quick, 0, "musher log backup --to /var/backups/musher"),
    (Quick, 0, "musher doctor"),
    (Quick, 0, "musher config check"),
    (Quick, 0, "musher config show --origin"),
    (Quick, 0, "musher version"),
    (Quick, 0, "musher openapi"),
    (Quick, 0, "musher help"),
    (Quick, 0, "musher token create --name admin --role admin --file /etc/musher/tokens"),
    (Quick, 0, "musher token create --name ada --role operator --file FILE"),
    (Stuck, 0, "musher saga list --under-way"),
    (Stuck, 0, "musher saga resume ID"),
    (Stuck, 0, "musher instance force-stop NAME --vmm ID --assert-dead --reason TEXT"),
    (Stuck, 0, "musher instance force-stop web-1 --reason TEXT"),
    (Stuck, 0, "musher sled expunge NAME --reason TEXT"),
    (Stopped, 0, "musher replay web-1 --history --lanes"),
    (Stopped, 0, "musher replay web-1 --until run_state=stopping"),
    (Stopped, 0, "musher replay --fleet"),
    (Stopped, 0, "musher replay --fleet --at @20"),
    (Stopped, 0, "musher replay --verify"),
    (Stopped, 0, "musher replay --verify [INSTANCE]"),
    (Stopped, 0, "musher log verify"),
    (Stopped, 0, "musher log verify --data DIR"),
    (Stopped, 0, "musher log backup --data ./data --to ./backup"),
    (Stopped, 0, "musher log restore --from /var/backups/musher --data /var/lib/musher"),
    (Stopped, 0, "musher replay web-1 --diff '#7..#9'"),
    (Stopped, 0, "musher replay web-1 --history"),
    // No invariant is broken: "code 1, as is none".
    (Stopped, 1, "musher replay web-1 --until C4"),
    (Stopped, 0, "musher replay --fleet --at @1200"),
    (Stopped, 0, "musher replay --trace REQUEST"),
    (Stopped, 0, "musher replay --grep TEXT [INSTANCE]"),
    (Stopped, 0, "musher replay --stats [INSTANCE]"),
    (Stopped, 0, "musher replay --with BINARY [INSTANCE]"),
    (Stopped, 0, "musher replay --with-config FILE [INSTANCE]"),
    (Stopped, 0, "musher replay web-1 --step"),
    (Stopped, 0, "musher replay web-1 --simulate"),
    // Cancelled by other tests, before a point of no return; here the guests are beyond theirs.
    (Read, 0, "musher saga cancel ID"),
    // The instance is younger than that here.
    (Read, 0, "musher replay web-1 --at -30s"),
    // A terminal: tests/screen.rs.
    (Read, 0, "musher replay --tui"),
    (Read, 0, "musher replay web-1 --tui"),
    // tests/readme.rs, tests/sleds.rs, tests/recovery.rs, and campaigns of their own in CI.
    (Read, 0, "musher demo"),
    (Read, 0, "musher serve"),
    (Read, 0, "musher serve --no-embedded-sleds"),
    (Read, 0, "musher serve --no-embedded-sleds --config day.toml"),
    (Read, 0, "musher serve --accept-loss"),
    (Read, 0, "musher sled run --name a"),
    (Read, 0, "musher sled run --name b --threads 64 --ram 256"),
    (
        Read,
        0,
        "musher sled run --name a --listen 192.0.2.7:7000 --control-plane http://192.0.2.1:12221 --key a.key",
    ),
    (Read, 0, "musher sled key --secret sleds.secret"),
    (Read, 0, "musher sled run --name s --count 1000"),
    (Read, 0, "musher sled run --name b --reboot &"),
    (Read, 0, "musher chaos run --seeds 0..2000 --jobs 2"),
    (Read, 0, "musher chaos prove"),
    // Named in a sentence, without what it needs.
    (Read, 0, "musher token create"),
    (Read, 0, "musher trace"),
    (Read, 0, "musher log verify --file"),
];

/// Pages whose commands are shown in the words of a shell. Those of docs/debugging.md are run by tests/incidents.rs.
const PAGES: [&str; 8] = [
    "README.md",
    "docs/cli.md",
    "docs/operations.md",
    "docs/external-api.md",
    "docs/lifecycle.md",
    "docs/storage.md",
    "docs/sleds.md",
    "docs/api.md",
];

/// The commands of a page: lines of its blocks without their remarks, and what stands in its sentences.
fn shown(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut take = |text: &str| {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.starts_with("musher ") {
            found.insert(line);
        }
    };
    for (nth, part) in page.split("```").enumerate() {
        if nth % 2 == 0 {
            part.split('`').skip(1).step_by(2).for_each(&mut take);
            // The table of questions leaves the program's name out.
            let questions = part.lines().filter_map(|line| line.strip_prefix("| `replay "));
            let asked = questions.map(|rest| format!("musher replay {}", rest.split('`').next().unwrap()));
            // Rows of the tables of commands and flags name it as a whole.
            let is_whole =
                |asked: &String| asked.ends_with(" INSTANCE") || asked.ends_with("replay [INSTANCE]");
            asked.filter(|asked| !is_whole(asked)).for_each(|asked| take(&asked));
        } else {
            let lines = part.lines().map(|line| line.trim_start().trim_start_matches("$ "));
            let bare = lines.map(|line| line.split(" #").next().unwrap().split(" 2>").next().unwrap());
            let bare = bare.map(|line| line.split(" > ").next().unwrap());
            bare.flat_map(|line| line.split("; ")).for_each(&mut take);
        }
    }
    found
}

fn page(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn every_command_on_a_page_for_people_is_in_the_story_and_the_other_way_round() {
    let told: BTreeSet<String> = STORY.iter().map(|(_, _, command)| (*command).to_owned()).collect();
    let mut everywhere = BTreeSet::new();
    for path in PAGES {
        let shown = shown(&page(path));
        let missing: Vec<_> = shown.difference(&told).filter(|it| !it.starts_with("musher demo:")).collect();
        assert!(missing.is_empty(), "{path} shows what no test runs: {missing:#?}");
        everywhere.extend(shown);
    }
    let mentioned: String = PAGES.map(page).concat();
    let gone: Vec<_> = told.difference(&everywhere).filter(|it| !mentioned.contains(it.as_str())).collect();
    assert!(gone.is_empty(), "no page shows them: {gone:#?}");
}

/// What stands for a name, an id or a place on a page.
struct Names {
    instance: &'static str,
    sled: &'static str,
    request: String,
    saga: String,
    vmm: String,
    dir: String,
}

impl Names {
    fn filled(&self, command: &str) -> Vec<String> {
        let noun = command.split(' ').nth(1).unwrap().to_owned();
        let mut before = String::new();
        let mut filled = Vec::new();
        for word in words(command).into_iter().skip(1) {
            let word = match (word.as_str(), noun.as_str()) {
                ("NAME", "sled") => self.sled.to_owned(),
                ("NAME", "timer") => "sled-watch".to_owned(),
                ("NAME" | "[INSTANCE]", _) => self.instance.to_owned(),
                ("ID", _) if before == "--vmm" => self.vmm.clone(),
                ("ID", "saga") => self.saga.clone(),
                ("ID" | "REQUEST", _) => self.request.clone(),
                ("TEXT", _) => "Created".to_owned(),
                ("BINARY", _) => env!("CARGO_BIN_EXE_musher").to_owned(),
                ("FILE", _) if before == "--with-config" => {
                    format!("{}/config/default.toml", env!("CARGO_MANIFEST_DIR"))
                }
                ("FILE", _) => format!("{}/{noun}-file", self.dir),
                ("DIR", _) if before == "--data" => format!("{}/data", self.dir),
                ("DIR", _) => format!("{}/{noun}-dir", self.dir),
                (place, _) if place.starts_with('/') => format!("{}{place}", self.dir),
                _ => word.clone(),
            };
            before.clone_from(&word);
            filled.push(word);
        }
        if ["expunge", "force-stop"].iter().any(|asks| filled.iter().any(|word| word == asks)) {
            // The terminal would ask.
            filled.push("--yes".to_owned());
        }
        filled
    }
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(output)))
}

fn run(dir: &Path, server: &str, args: &[String], code: i32) {
    let output = musher()
        .args(args)
        .current_dir(dir)
        .env("MUSHER_SERVER", server)
        .env("HOME", dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{}{}", stdout(&output), stderr(&output));
    assert!(!stdout(&output).is_empty() || code != 0 || is_quiet(args), "{args:?} says nothing");
}

/// What has nothing to say: of a guest that has written nothing, of no step that was asked for, into a file.
fn is_quiet(args: &[String]) -> bool {
    args[1] == "serial" || args.iter().any(|arg| arg == "--step" || arg == "--otlp")
}

fn tell(place: Place, dir: &Path, server: &str, names: &Names) {
    for (_, code, command) in STORY.iter().filter(|(told, _, _)| *told == place) {
        run(dir, server, &names.filled(command), *code);
    }
}

#[test]
fn commands_on_the_pages_work_as_shown_against_a_daemon_and_then_on_its_directory() {
    let (scratch, data) = scratch();
    let dir = scratch.path();
    for place in ["etc/musher", "var/backups"] {
        std::fs::create_dir_all(dir.join(place)).unwrap();
    }
    let daemon = Daemon::start(&data);
    // A request of which there is something to tell.
    assert_eq!(daemon.cli(&["instance", "create", "db-1", "--wait"]).status.code(), Some(0));
    let history = json(&daemon.cli(&["instance", "history", "db-1", "-o", "json"]));
    let request =
        history["items"][0]["request_id"].as_str().unwrap_or_else(|| panic!("{history}")).to_owned();
    let names = Names {
        instance: "web-1",
        sled: "sim-0",
        request,
        saga: String::new(),
        vmm: String::new(),
        dir: dir.display().to_string(),
    };
    tell(Quick, dir, &daemon.url, &names);
    // More than 1200 events would take long: the moment is one that there is.
    let server = daemon.url.clone();
    assert_eq!(daemon.signal("-TERM"), 0);
    for (_, code, command) in STORY.iter().filter(|(place, _, _)| *place == Stopped) {
        run(dir, &server, &names.filled(&command.replace("@1200", "@12")), *code);
    }
}

#[test]
fn commands_for_what_is_stuck_work_as_shown() {
    let (scratch, data) = scratch();
    let settings = [("MUSHER_EMBEDDED_SLEDS__BOOT_MS", "[600000,600000]")];
    let daemon = Daemon::start_where(&data, &settings);
    for name in ["web-0", "web-1"] {
        assert_eq!(daemon.cli(&["instance", "create", name]).status.code(), Some(0));
    }
    let all = json(&daemon.cli(&["saga", "list", "--under-way", "-o", "json"]));
    let explained = json(&daemon.cli(&["instance", "explain", "web-0", "-o", "json"]));
    let of_first = all.as_array().unwrap().iter().find(|it| it["instance_id"] == explained["instance"]);
    let saga = of_first.unwrap_or_else(|| panic!("{all}"))["id"].as_str().unwrap().to_owned();
    assert_eq!(daemon.cli(&["saga", "pause", &saga]).status.code(), Some(0));
    let vmm = explained["holds"][0]["vmm"].as_str().unwrap().to_owned();
    let names = Names {
        instance: "web-0",
        sled: "sim-3",
        request: String::new(),
        saga,
        vmm,
        dir: scratch.path().display().to_string(),
    };
    tell(Stuck, scratch.path(), &daemon.url, &names);
}

#[test]
fn what_is_not_run_here_is_at_least_a_command_with_such_flags() {
    for (_, _, command) in STORY.iter().filter(|(place, _, _)| *place == Read) {
        let mut args = words(command.trim_end_matches(" &").trim_end_matches(" --file"));
        args.push("--help".to_owned());
        let output = musher().args(&args[1..]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command}: {}", stderr(&output));
    }
}
