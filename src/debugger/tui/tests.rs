//! Screens of the recorded incidents, key by key. `UPDATE_EXPECT=1` writes them anew; look at the difference before
//! it is kept.

use super::keys::press;
use super::model::{Model, Over};
use super::terminal::Screen;
use super::view::{self, Theme};
use eventlog::portable::ExportReader;
use eventlog::{Position, ReadError, Record, StreamId, Version};
use lifecycle::Timestamp;
use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use replay::{Found, Source, find_instance};
use std::io::Read as _;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn recorded(name: &str) -> ExportReader {
    ExportReader::open(&root().join("tests/fixtures/logs/0.1.0").join(name)).unwrap()
}

fn open<'a>(source: &'a dyn Source, named: Option<&str>) -> Model<'a> {
    let instance = named.map(|named| match find_instance(source, "demo", named).unwrap() {
        Found::One(id) => id,
        other => panic!("{named}: {other:?}"),
    });
    Model::open(source, instance, "recorded".to_owned(), Timestamp::from_micros(1_795_380_500_000_000))
        .unwrap()
}

/// Presses keys as they are written: `<Name>` for those without a letter. A search is carried on to its end.
fn keys(model: &mut Model<'_>, written: &str) {
    let mut rest = written;
    while let Some(c) = rest.chars().next() {
        let (name, after) = match rest.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
            Some(parts) => parts,
            None => rest.split_at(c.len_utf8()),
        };
        let code = match name {
            "Up" => KeyCode::Up,
            "Down" => KeyCode::Down,
            "Left" => KeyCode::Left,
            "Right" => KeyCode::Right,
            "PgUp" => KeyCode::PageUp,
            "PgDn" => KeyCode::PageDown,
            "Home" => KeyCode::Home,
            "End" => KeyCode::End,
            "Tab" => KeyCode::Tab,
            "Enter" => KeyCode::Enter,
            "Esc" => KeyCode::Esc,
            "Back" => KeyCode::Backspace,
            letter => KeyCode::Char(letter.chars().next().unwrap()),
        };
        press(model, KeyEvent::new(code, KeyModifiers::NONE));
        while model.work() {}
        rest = after;
    }
}

fn screen(model: &mut Model<'_>, size: (u16, u16)) -> String {
    model.size = size;
    model.settle();
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| view::draw(frame, model, Theme::new(false))).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |row: u16| (0..size.0).map(|column| buffer[(column, row)].symbol()).collect::<String>();
    (0..size.1).map(|row| line(row).trim_end().to_owned() + "\n").collect()
}

fn expect(name: &str, found: &str) {
    let path: PathBuf = root().join("tests/fixtures/screens").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == found, "{name} is another screen; UPDATE_EXPECT=1 writes it anew:\n{found}");
}

#[test]
fn screens_of_the_incidents_are_as_they_were_looked_at() {
    let (stuck, lost, crash) = (
        recorded("stuck-in-stopping.musher"),
        recorded("migration-lost-its-race.musher"),
        recorded("crash-in-mid-start.musher"),
    );
    let table: [(&str, &dyn Source, Option<&str>, &str); 10] = [
        ("the-end-of-an-instance", &stuck, Some("web-1"), ""),
        ("all-events", &stuck, None, ""),
        ("from-all-events-to-one-instance", &stuck, None, "g@22<Enter><Enter>"),
        ("a-migration-is-cancelled", &lost, Some("web-1"), "g#16<Enter>"),
        ("only-what-changed", &lost, Some("web-1"), "g#16<Enter>x<Tab><Down><Down><Enter>"),
        ("lanes-of-a-migration", &lost, Some("web-1"), "g#16<Enter>2"),
        ("a-saga-in-mid-start", &crash, Some("web-1"), "g@18<Enter>3"),
        ("a-saga-that-is-done", &crash, Some("web-1"), "3"),
        ("an-event", &stuck, Some("web-1"), "/stoprequested<Enter>g#1<Enter>n4"),
        ("keys", &stuck, Some("web-1"), "?"),
    ];
    for (name, source, named, pressed) in table {
        let mut model = open(source, named);
        keys(&mut model, pressed);
        expect(name, &screen(&mut model, (80, 24)));
    }
    expect("a-larger-terminal", &screen(&mut open(&lost, Some("web-1")), (132, 40)));
    expect("a-terminal-that-is-too-small", &screen(&mut open(&lost, Some("web-1")), (60, 10)));
}

#[test]
fn no_key_in_any_order_on_any_size_makes_it_panic() {
    let lost = recorded("migration-lost-its-race.musher");
    let all = [
        "<Up>",
        "<Down>",
        "<Left>",
        "<Right>",
        "<PgUp>",
        "<PgDn>",
        "<Home>",
        "<End>",
        "<Tab>",
        "<Enter>",
        "<Esc>",
        "1",
        "2",
        "3",
        "4",
        "a",
        "n",
        "N",
        "c",
        "x",
        "?",
        "/vmm<Enter>",
        "g#5<Enter>",
        "g@999<Enter>",
        "urun_state=running<Enter>",
        "uC4<Enter>",
        "unonsense<Enter>",
        "g<Back><Back>",
        "/\u{1b}é<Enter>",
    ];
    let sizes = [(80, 24), (200, 60), (81, 25), (0, 0), (1, 1), (79, 24), (500, 3), (80, 200)];
    let (mut draw, mut seen) = (0x9e37_79b9_7f4a_7c15_u64, 0);
    for named in [None, Some("web-1")] {
        let mut model = open(&lost, named);
        for nth in 0..2_000_usize {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            keys(&mut model, all[(draw >> 33) as usize % all.len()]);
            assert!((1..=model.last()).contains(&model.selected));
            seen += screen(&mut model, sizes[nth % sizes.len()]).len();
        }
        assert_eq!(model.over, None);
    }
    assert!(seen > 0);
}

#[test]
fn quit_and_interrupt_end_it_and_nothing_else_does() {
    let stuck = recorded("stuck-in-stopping.musher");
    let mut model = open(&stuck, None);
    keys(&mut model, "/q<Enter>gq<Esc>");
    assert_eq!(model.over, None, "what is typed is text");
    keys(&mut model, "q");
    assert_eq!(model.over, Some(Over::Quit));
    let mut model = open(&stuck, None);
    keys(&mut model, "/");
    press(&mut model, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert_eq!(model.over, Some(Over::Interrupted), "also while something is typed");
}

/// A history over and over, at rising positions: as long as one likes.
struct Long<'a> {
    once: &'a [Record],
    events: u64,
}

impl Long<'_> {
    fn record(&self, position: u64) -> Record {
        let length = self.once.len() as u64;
        let (round, nth) = ((position - 1) / length, (position - 1) % length);
        let mut record = self.once[usize::try_from(nth).unwrap()].clone();
        record.position = Position::new(position);
        record.previous = Position::new(match record.previous.get() {
            0 => 0,
            previous => previous + round * length,
        });
        record
    }
}

impl Source for Long<'_> {
    fn read_stream(&self, stream: StreamId, from: Version, limit: usize) -> Result<Vec<Record>, ReadError> {
        let own = (1..=self.once.len() as u64).map(|position| self.record(position));
        Ok(own.filter(|record| record.stream == stream && record.version >= from).take(limit).collect())
    }

    fn read_all(&self, from: Position, limit: usize) -> Result<Vec<Record>, ReadError> {
        assert!(limit <= 4_096, "nobody asks for more than a page: {limit}");
        let from = from.get().max(1);
        Ok((from..=self.events).take(limit).map(|position| self.record(position)).collect())
    }

    fn durable(&self) -> Position {
        Position::new(self.events)
    }
}

#[test]
fn a_million_events_are_looked_through_page_by_page() {
    let once = recorded("stuck-in-stopping.musher").read_all(Position::new(1), usize::MAX).unwrap();
    let long = Long { once: &once, events: 1_000_000 };
    let mut model = open(&long, None);
    keys(&mut model, "g@500000<Enter><PgUp><PgDn><Home><End>");
    for _ in 0..200 {
        keys(&mut model, "<PgUp><PgUp><PgUp>");
    }
    assert!(screen(&mut model, (80, 24)).contains("of 1000000"));
    assert!(model.events.pages_held() <= 8, "{}", model.events.pages_held());
    assert!(model.states_held() <= 4 * 66, "{}", model.states_held());
    // A search that finds nothing can be turned away from.
    keys(&mut model, "<Home>");
    press(&mut model, KeyEvent::new(KeyCode::Char('/'), KeyModifiers::NONE));
    for c in "no such words".chars() {
        press(&mut model, KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE));
    }
    press(&mut model, KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE));
    assert!(model.work() && model.work(), "it is not done in two slices");
    assert!(screen(&mut model, (80, 24)).contains("of 1000000; Esc ends it"));
    keys(&mut model, "<Esc>");
    assert!(!model.work());
}

#[test]
fn what_cannot_be_folded_is_shown_where_it_stands_and_the_rest_stays_usable() {
    let mut once = recorded("stuck-in-stopping.musher").read_all(Position::new(1), usize::MAX).unwrap();
    let broken = once.iter().position(|record| record.version.get() == 3).unwrap();
    once[broken].payload = vec![0xff; 3].into();
    let events = once.len() as u64;
    let source = Long { once: &once, events };
    let mut model = open(&source, None);
    keys(&mut model, &format!("g@{}<Enter>", broken + 1));
    let shown = screen(&mut model, (80, 24));
    assert!(shown.contains("cannot be"), "{shown}");
    keys(&mut model, "<Home>");
    let shown = screen(&mut model, (80, 24));
    assert!(shown.contains("@1 of") && !shown.contains("cannot be"), "{shown}");
    keys(&mut model, "4<End>");
    assert!(screen(&mut model, (80, 24)).contains("position"), "the last event is shown all the same");
}

#[test]
fn what_would_move_the_cursor_is_a_dot() {
    assert_eq!(view::plain("a\u{1b}[2Jb\r\n\tc\u{9b}"), "a·[2Jb···c·");
}

/// A screen that panics, for the test below: it needs a terminal of its own, and ends the program that it is in.
#[test]
#[ignore = "panics on a screen: run in a terminal of its own by the test below"]
fn a_screen_that_panics() {
    let mut screen = Screen::open().unwrap();
    // As in the fold of an event that does not fit.
    let caught = std::panic::catch_unwind(|| panic!("a mistake that is caught"));
    assert!(caught.is_err());
    screen.terminal.draw(|frame| frame.render_widget("drawn", frame.area())).unwrap();
    panic!("a mistake while drawing");
}

#[test]
fn a_panic_puts_the_terminal_back_before_it_says_anything() {
    const LOCAL: u32 = 0o1 | 0o2 | 0o10; // ISIG, ICANON, ECHO of Linux.
    let size = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
    let pair = native_pty_system().openpty(size).unwrap();
    let mut command = CommandBuilder::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", "--test-threads=1"]);
    command.arg("debugger::tui::tests::a_screen_that_panics");
    command.env("TERM", "xterm-256color");
    let before = pair.master.get_termios().unwrap().local_flags.bits() & LOCAL;
    let mut child = pair.slave.spawn_command(command).unwrap();
    // The other end is kept open here: what is read comes to its end once the program says so itself.
    let mut output = pair.master.try_clone_reader().unwrap();
    let (mut said, mut bytes) = (Vec::new(), [0; 4_096]);
    let parser = |said: &[u8]| {
        let mut parser = vt100::Parser::new(24.try_into().unwrap(), 80.try_into().unwrap(), 0);
        parser.process(said);
        parser
    };
    while !String::from_utf8_lossy(&said).contains("test result: FAILED") {
        let count = output.read(&mut bytes).unwrap();
        assert!(count > 0, "it ended before: {}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&bytes[..count]);
    }
    assert!(!child.wait().unwrap().success());
    let text = String::from_utf8_lossy(&said);
    let drawn = text.find("drawn").expect("there was a screen");
    let mistake = text.find("a mistake while drawing").expect("the panic is told");
    assert!(parser(&said[..drawn]).screen().alternate_screen(), "it was drawn on a screen of its own");
    assert!(!text.contains("a mistake that is caught"), "what is caught is not told, and leaves the screen");
    let told = parser(&said[..mistake]);
    assert!(
        !told.screen().alternate_screen() && !told.screen().hide_cursor(),
        "it is told where one reads it"
    );
    assert_eq!(
        pair.master.get_termios().unwrap().local_flags.bits() & LOCAL,
        before,
        "keys are echoed again"
    );
    drop(pair.slave);
}
