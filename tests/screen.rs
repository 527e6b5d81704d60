//! `replay --tui` and the prompt of `replay --step` in a terminal: keys go in as somebody would press them, and what is
//! read is what stands on the screen.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod daemon;

use daemon::{Daemon, musher, scratch, stderr};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use std::io::{Read as _, Write};
use std::num::NonZero;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Looks at a screen before it is given up: minutes, on a machine that is busy with other things.
const LOOKS_MAX: u32 = 6_000;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

const STUCK: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/logs/0.1.0/stuck-in-stopping.musher");

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

/// The command, whatever there is around it.
fn program() -> CommandBuilder {
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_musher"));
    command.cwd(env!("CARGO_MANIFEST_DIR"));
    command.env("TERM", "xterm-256color");
    for name in ["MUSHER_SERVER", "MUSHER_TOKEN", "OXIDE_HOST", "OXIDE_TOKEN", "RUST_LOG", "NO_COLOR"] {
        command.env_remove(name);
    }
    command
}

/// A terminal with a program in it.
struct Console {
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    parser: Arc<Mutex<vt100::Parser>>,
}

impl Console {
    fn start(args: &[&str], (columns, rows): (u16, u16)) -> Self {
        let mut command = program();
        command.args(args);
        Self::run(command, (columns, rows))
    }

    #[expect(clippy::disallowed_methods, reason = "somebody has to read what a real program writes")]
    fn run(command: CommandBuilder, (columns, rows): (u16, u16)) -> Self {
        let size = PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let parser = Arc::new(Mutex::new(vt100::Parser::new(cells(rows), cells(columns), 1_000)));
        let (mut output, shared) = (pair.master.try_clone_reader().unwrap(), parser.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shared.lock().unwrap().process(&bytes[..count]);
            }
        });
        let keys = pair.master.take_writer().unwrap();
        Self { master: pair.master, keys, child, parser }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn shown(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    /// Waits until the screen is as it should be.
    #[expect(clippy::disallowed_methods, reason = "a real screen is looked at every now and then")]
    fn until(&self, what: &str, is_so: impl Fn(&vt100::Screen) -> bool) -> String {
        for _ in 0..LOOKS_MAX {
            if is_so(self.parser.lock().unwrap().screen()) {
                return self.shown();
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        panic!("{what} is never shown:\n{}", self.shown());
    }

    fn shows(&self, text: &str) -> String {
        self.until(text, |screen| screen.contents().contains(text))
    }

    /// Waits for the prompt: what is typed before it is there may be taken for something else.
    fn asks(&self, version: u64) {
        let prompt = format!("#{version}>");
        self.until(&prompt, |screen| {
            screen.contents().lines().last().is_some_and(|line| line.trim_end() == prompt)
        });
    }

    fn resize(&self, columns: u16, rows: u16) {
        self.parser.lock().unwrap().screen_mut().set_size(cells(rows), cells(columns));
        self.master.resize(PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 }).unwrap();
    }

    /// Whether the terminal is one for typing again: it echoes and waits for whole lines.
    fn is_cooked(&self) -> bool {
        const LOCAL: u32 = 0o1 | 0o2 | 0o10; // ISIG, ICANON, ECHO of Linux.
        self.master.get_termios().unwrap().local_flags.bits() & LOCAL == LOCAL
    }

    /// Waits for the end; the terminal has to be as it was.
    fn ends(mut self, code: u32) {
        let status = self.child.wait().unwrap();
        assert_eq!(status.exit_code(), code, "{}", self.shown());
        self.until("the screen as it was", |screen| !screen.alternate_screen() && !screen.hide_cursor());
        assert!(self.is_cooked(), "the terminal is left raw");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.process_id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

#[test]
fn a_history_is_looked_through_on_a_screen() {
    let mut console = Console::start(&["replay", "web-1", "--tui", "--file", STUCK], (80, 24));
    let shown = console.shows("#9 of 9 · stopping");
    assert!(shown.contains("run_state: stopping") && shown.contains("(was running)"), "{shown}");
    assert!(shown.contains("/ find") && shown.contains("? keys"), "the keys are told: {shown}");
    console.press("\u{1b}[A");
    console.shows("#8 of 9 · running");
    console.press("g#1\r");
    console.shows("#1 of 9 · stopped");
    console.press("/stoprequested\r");
    console.shows("#8 of 9 · running");
    console.press("2");
    console.shows("WEB-1");
    console.press("3");
    console.shows("no saga is under way here");
    console.press("urun_state=stopping\r");
    console.shows("run_state is stopping");
    console.press("a");
    console.shows("@22 of 29");
    console.press("/no such words\r");
    console.shows("nothing more is found on that side");
    console.resize(60, 20);
    console.shows("60x20 is too small");
    console.resize(120, 40);
    let large = console.shows("@22 of 29");
    assert!(large.lines().count() > 24, "it fills what there is: {large}");
    console.press("q");
    console.ends(0);
}

#[test]
fn however_it_ends_the_terminal_is_as_it_was() {
    let open = || {
        let console = Console::start(&["replay", "--tui", "--file", STUCK], (80, 24));
        console.shows("@29 of 29");
        assert!(!console.is_cooked(), "keys come one by one");
        console
    };
    let mut console = open();
    console.press("/half a wo");
    console.shows("half a wo");
    console.press("\u{3}");
    console.ends(130);
    for signal in ["-TERM", "-INT", "-HUP"] {
        let console = open();
        console.signal(signal);
        console.ends(130);
    }
}

#[test]
fn a_terminal_that_goes_away_takes_the_command_with_it() {
    let mut command = program();
    command.args(["replay", "--tui", "--file", STUCK]);
    let size = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
    let pair = native_pty_system().openpty(size).unwrap();
    let mut child = pair.slave.spawn_command(command).unwrap();
    drop(pair.slave);
    // Whoever reads holds the terminal: what is read is read here, so that it can be let go of.
    let mut output = pair.master.try_clone_reader().unwrap();
    let (mut shown, mut bytes) = (String::new(), [0; 4_096]);
    while !shown.contains("29") {
        let count = output.read(&mut bytes).unwrap();
        assert!(count > 0, "it ended before: {shown}");
        shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    drop((output, pair.master));
    assert!(child.wait().unwrap().exit_code() > 0);
}

#[test]
fn a_prompt_remembers_and_completes() {
    let mut console = Console::start(&["replay", "web-1", "--step", "--file", STUCK], (100, 40));
    console.asks(9);
    console.press("goto #1\r");
    console.asks(1);
    console.press("print spec.na\t\r");
    console.shows("print spec.name");
    console.shows("\"web-1\"");
    console.asks(1);
    console.press("unt\trun_state=running\r");
    console.shows("run_state is running");
    console.asks(6);
    // Twice up is what was typed before that; its creation says the name too.
    console.press("\u{1b}[A\u{1b}[A\r");
    console.until("the older line", |screen| screen.contents().matches("\"web-1\"").count() == 3);
    console.asks(6);
    console.press("nonsense\r");
    console.shows("is no command");
    console.asks(6);
    console.press("quit\r");
    console.ends(0);
    let mut console = Console::start(&["replay", "web-1", "--step", "--file", STUCK], (100, 40));
    console.asks(9);
    console.press("\u{3}");
    console.ends(130);
    let mut console = Console::start(&["replay", "web-1", "--step", "--file", STUCK], (100, 40));
    console.asks(9);
    console.press("\u{4}");
    console.ends(0);
}

#[test]
fn a_screen_wants_a_terminal_and_a_history_that_can_be_read() {
    let output = musher().args(["replay", "--tui", "--file", STUCK]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = stderr(&output);
    assert!(told.contains("--tui needs a terminal") && told.contains("--step"), "{told}");
    assert!(output.stdout.is_empty());
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(STUCK).unwrap();
    bytes[200] ^= 1;
    let damaged = dir.path().join("damaged.musher");
    std::fs::write(&damaged, bytes).unwrap();
    for (args, code, said) in [
        (vec!["replay", "--tui", "--file", damaged.to_str().unwrap()], 5, "frame 1, at position 1"),
        (vec!["replay", "nobody", "--tui", "--file", STUCK], 1, "holds no instance"),
        (vec!["replay", "web-1", "--tui", "--at", "#99", "--file", STUCK], 1, "there is no #99"),
    ] {
        let console = Console::start(&args, (80, 24));
        console.shows(said);
        console.ends(code);
    }
}

#[test]
fn every_place_that_is_read_is_shown() {
    let (dir, data) = scratch();
    let daemon = Daemon::start(&data);
    assert_eq!(daemon.cli(&["instance", "create", "web-1", "--wait"]).status.code(), Some(0));
    let backup = dir.path().join("backup").display().to_string();
    assert_eq!(daemon.cli(&["log", "backup", "--to", &backup]).status.code(), Some(0));
    let look = |place: &[&str]| {
        let args = [&["replay", "web-1", "--tui"], place].concat();
        let mut console = Console::start(&args, (80, 24));
        console.shows("run_state: running");
        console.press("q");
        console.ends(0);
    };
    look(&["--live", "--server", &daemon.url]);
    look(&["--backup", &backup]);
    assert_eq!(daemon.signal("-TERM"), 0);
    look(&["--data", data.to_str().unwrap()]);
}
