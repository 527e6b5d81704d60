//! Stored bytes never change: every event and input that was ever released decodes to what it was, and
//! the newest layouts encode to the same bytes. One file per (kind, schema) and per sort of input, one
//! example per line, in hex. `UPDATE_GOLDEN=1` writes the files of the newest layouts. A changed line of a file
//! that was released is a change of history; a new line is a variant that no build before could write.

#![allow(clippy::unwrap_used, reason = "tests; helpers outside of test functions too")]

mod examples;

use journal::{CODEC, decode_event, decode_input, encode_event, encode_input, event_kinds};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.is_ascii() && hex.len().is_multiple_of(2), "whole bytes in hex: {hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn event_file(kind: u16, schema: u16, name: &str) -> String {
    format!("event-{kind}-{schema}-{name}.hex")
}

fn input_schema(input: &lifecycle::Input) -> u16 {
    let stored = encode_input(input);
    u16::from_le_bytes([stored[0], stored[1]])
}

fn input_file(schema: u16, name: &str) -> String {
    format!("input-{schema}-{name}.hex")
}

/// The newest layouts of all examples, by file.
fn encoded() -> BTreeMap<String, Vec<String>> {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in examples::events() {
        let stored = encode_event(&event);
        assert_eq!(stored.codec, CODEC);
        let file = event_file(stored.kind.kind, stored.kind.schema, stored.kind.name);
        files.entry(file).or_default().push(hex(&stored.payload));
    }
    for (name, input) in examples::inputs() {
        let stored = encode_input(&input);
        files.entry(input_file(input_schema(&input), name)).or_default().push(hex(&stored));
    }
    files
}

/// The golden files, written first if that is asked for.
fn golden() -> &'static BTreeMap<String, Vec<String>> {
    static GOLDEN: OnceLock<BTreeMap<String, Vec<String>>> = OnceLock::new();
    GOLDEN.get_or_init(|| {
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
            std::fs::create_dir_all(directory()).unwrap();
            for (file, lines) in encoded() {
                std::fs::write(directory().join(file), lines.join("\n") + "\n").unwrap();
            }
        }
        read_directory()
    })
}

fn read_directory() -> BTreeMap<String, Vec<String>> {
    let files = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let lines = std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), lines)
        })
        .collect()
}

#[test]
fn the_newest_layouts_encode_to_the_golden_bytes() {
    let encoded = encoded();
    let golden = golden();
    for (file, lines) in &encoded {
        assert_eq!(golden.get(file), Some(lines), "{file}");
    }
}

#[test]
fn every_kind_and_every_input_has_golden_bytes() {
    let golden = golden();
    for kind in event_kinds() {
        let file = event_file(kind.kind, kind.schema, kind.name);
        assert!(golden.get(&file).is_some_and(|lines| !lines.is_empty()), "{file} is missing");
    }
    for (name, input) in examples::inputs() {
        let file = input_file(input_schema(&input), name);
        assert!(golden.get(&file).is_some_and(|lines| !lines.is_empty()), "{file} is missing");
    }
}

/// The examples of each file, whatever its schema: those of an older one are the first of the newest's.
fn examples_of(file: &str) -> Vec<Decoded> {
    let parts: Vec<_> = file.trim_end_matches(".hex").split('-').collect();
    match parts[..] {
        ["event", kind, _, _] => {
            let of_kind = |event: &journal::Event| event.kind().kind.to_string() == kind;
            examples::events().into_iter().filter(of_kind).map(Decoded::Event).collect()
        }
        ["input", _, name] => {
            let of_name = examples::inputs().into_iter().filter(|(of, _)| *of == name);
            of_name.map(|(_, input)| Decoded::Input(input)).collect()
        }
        _ => panic!("{file} is named like no golden file"),
    }
}

#[derive(Debug, PartialEq)]
enum Decoded {
    Event(journal::Event),
    Input(lifecycle::Input),
}

fn decoded(file: &str, line: &str) -> Decoded {
    let parts: Vec<_> = file.split('-').collect();
    let decoded = if parts[0] == "event" {
        let (kind, schema) = (parts[1].parse().unwrap(), parts[2].parse().unwrap());
        decode_event(kind, schema, CODEC, &bytes(line)).map(Decoded::Event)
    } else {
        decode_input(&bytes(line)).map(Decoded::Input)
    };
    decoded.unwrap_or_else(|problem| panic!("{file}: {line}: {problem}"))
}

#[test]
fn golden_bytes_of_any_schema_decode_to_the_examples() {
    let newest = encoded();
    for (file, lines) in golden() {
        let examples = examples_of(file);
        assert!(!lines.is_empty() && lines.len() <= examples.len(), "{file} has a line without an example");
        assert!(!newest.contains_key(file) || lines.len() == examples.len(), "{file} lacks an example");
        for (line, example) in lines.iter().zip(examples) {
            assert_eq!(decoded(file, line), example, "{file}: {line}");
        }
    }
}

#[test]
fn a_layout_that_was_replaced_keeps_its_golden_bytes() {
    let newest = encoded();
    let older: Vec<_> = golden().keys().filter(|file| !newest.contains_key(*file)).collect();
    let inputs =
        ["Absent", "Create", "Deadline", "Delete", "Gone", "Outcome", "Reboot", "Reconsider", "Report"];
    let inputs = inputs.into_iter().chain(["Start", "Stop"]).map(|name| input_file(1, name));
    let expected: Vec<_> = [event_file(100, 1, "Created")].into_iter().chain(inputs).collect();
    assert_eq!(older, expected.iter().collect::<Vec<_>>());
}

#[test]
fn numbers_are_given_once_and_by_sort_of_stream() {
    let kinds: Vec<_> = event_kinds().collect();
    assert!(kinds.windows(2).all(|pair| pair[0].kind < pair[1].kind), "in order, so none twice");
    assert!(kinds.iter().all(|kind| kind.schema >= 1));
    let examples: std::collections::BTreeSet<u16> =
        examples::events().iter().map(|event| event.kind().kind).collect();
    assert_eq!(examples.len(), kinds.len(), "an example of every kind");
    for event in examples::events() {
        let hundreds = match event {
            journal::Event::Instance(_) => 1,
            journal::Event::Project(_) => 2,
            journal::Event::Sled(_) => 3,
            journal::Event::System(_) => 4,
        };
        assert_eq!(event.kind().kind / 100, hundreds, "{}", journal::event_name(&event));
    }
}
