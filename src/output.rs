//! Data on stdout: tables for people, documents with the API's keys for machines. Everything else is stderr.

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::OnceLock;

/// Shape of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table.
    #[default]
    Table,
    /// A table with every column.
    Wide,
    /// One JSON document.
    Json,
    /// One line of JSON per item.
    Jsonl,
    /// One YAML document.
    Yaml,
    /// Names only.
    Name,
}

/// Whether words are coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

static IS_COLORED: OnceLock<bool> = OnceLock::new();

/// Decides about colours, once, before anything is printed.
pub fn set_color(color: Color) {
    let is_wished = match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            let is_unwished = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            !is_unwished && std::io::stdout().is_terminal()
        }
    };
    // Who comes second does not decide.
    let _ = IS_COLORED.set(is_wished);
}

/// Prints a line. A reader that went away (`| head`) has what it wanted; any other failure to print is one of
/// the command, because its answer is lost.
pub fn line(text: impl AsRef<str>) {
    if let Err(error) = writeln!(std::io::stdout(), "{}", text.as_ref()) {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("error: the output cannot be written: {error}");
        std::process::exit(1);
    }
}

/// Prints a value as JSON.
pub fn json(value: &impl Serialize) {
    line(pretty(value));
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("\"unwritable: {error}\""))
}

/// The value as a document, if the format is one for machines.
pub fn document(format: Format, value: &impl Serialize) -> Option<String> {
    let value = serde_json::to_value(value).unwrap_or(Value::Null);
    match (format, &value) {
        (Format::Table | Format::Wide | Format::Name, _) => None,
        (Format::Json, _) => Some(pretty(&value)),
        (Format::Jsonl, Value::Array(items)) => {
            Some(items.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
        (Format::Jsonl, _) => Some(value.to_string()),
        (Format::Yaml, _) => Some(yaml(&value)),
    }
}

/// Prints a value if the format is one for machines; answers whether it was.
pub fn structured(format: Format, value: &impl Serialize) -> bool {
    match document(format, value) {
        None => false,
        // A list of lines without a line is nothing.
        Some(text) if text.is_empty() => true,
        Some(text) => {
            line(text);
            true
        }
    }
}

/// A column of a list.
pub struct Column {
    /// Its header.
    pub header: &'static str,
    /// Whether it is only shown where there is room.
    pub is_wide: bool,
    /// Its cell of an item.
    pub cell: fn(&Value) -> String,
}

impl Column {
    /// One that is always shown.
    pub const fn new(header: &'static str, cell: fn(&Value) -> String) -> Self {
        Self { header, is_wide: false, cell }
    }

    /// One for `-o wide`.
    pub const fn wide(header: &'static str, cell: fn(&Value) -> String) -> Self {
        Self { header, is_wide: true, cell }
    }
}

/// A list in the wished format, without the last line's end.
pub fn list(format: Format, has_headers: bool, items: &[Value], columns: &[Column]) -> String {
    if let Some(document) = document(format, &items) {
        return document;
    }
    if format == Format::Name {
        return items.iter().map(name).collect::<Vec<_>>().join("\n");
    }
    let shown: Vec<&Column> =
        columns.iter().filter(|column| !column.is_wide || format == Format::Wide).collect();
    let headers: Vec<&str> =
        if has_headers { shown.iter().map(|it| it.header).collect() } else { Vec::new() };
    let rows = items.iter().map(|item| shown.iter().map(|column| (column.cell)(item)).collect());
    grid(&headers, rows)
}

/// One item in the wished format: its keys and values below each other for people.
pub fn one(format: Format, item: &Value, rows: &[(&str, String)]) -> String {
    if let Some(document) = document(format, item) {
        return document;
    }
    if format == Format::Name {
        return name(item);
    }
    let lines = rows.iter().map(|(key, value)| format!("{key:<12} {}", colored(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// What an item is called.
fn name(item: &Value) -> String {
    item["name"].as_str().or_else(|| item["id"].as_str()).unwrap_or("-").to_owned()
}

/// The text of a key, empty if there is none.
pub fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// Prints rows under headers, without borders, so that columns can be cut and grepped.
pub fn table(headers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let text = grid(headers, rows);
    if !text.is_empty() {
        line(text);
    }
}

fn grid(headers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let header = headers.iter().map(|header| header.to_uppercase()).collect::<Vec<_>>();
    let mut all: Vec<Vec<String>> = if header.is_empty() { Vec::new() } else { vec![header] };
    all.extend(rows);
    let mut widths: Vec<usize> = Vec::new();
    for row in &all {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let lines = all.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            let gap = " ".repeat(width - cell.chars().count() + 2);
            format!("{}{gap}", colored(cell))
        });
        cells.collect::<String>().trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A colour of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// What was.
    Red = 31,
    /// What is.
    Green = 32,
}

/// Whether there are colours.
pub fn is_colored() -> bool {
    IS_COLORED.get().copied().unwrap_or(false)
}

/// The text in a colour, if there are any.
pub fn painted(paint: Paint, text: &str) -> String {
    if IS_COLORED.get().copied().unwrap_or(false) {
        format!("\x1b[{}m{text}\x1b[0m", paint as u8)
    } else {
        text.to_owned()
    }
}

/// States in the colour of how they are; everything else as it is.
fn colored(word: &str) -> String {
    let code = match word {
        _ if !IS_COLORED.get().copied().unwrap_or(false) => return word.to_owned(),
        "running" | "in service" => 32,
        "failed" | "unreachable" => 31,
        "creating" | "starting" | "stopping" | "rebooting" | "migrating" | "repairing" | "cordoned" => 33,
        _ => return word.to_owned(),
    };
    format!("\x1b[{code}m{word}\x1b[0m")
}

/// Block style; texts are quoted as in JSON, which YAML reads.
pub fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write_yaml(value, 0, &mut text);
    text.trim_end().to_owned()
}

fn write_yaml(value: &Value, indent: usize, text: &mut String) {
    let pad = "  ".repeat(indent);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let is_plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                let key = if is_plain { key.clone() } else { Value::from(key.as_str()).to_string() };
                let _ = write!(text, "{pad}{key}:");
                write_below(value, indent + 1, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let _ = write!(text, "{pad}-");
                write_below(item, indent + 1, text);
            }
        }
        scalar => {
            let _ = writeln!(text, "{pad}{scalar}");
        }
    }
}

/// What stands behind a key or a dash: on the same line if it has no lines of its own.
fn write_below(value: &Value, indent: usize, text: &mut String) {
    let is_block = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        text.push('\n');
        write_yaml(value, indent, text);
    } else {
        let _ = writeln!(text, " {value}");
    }
}

/// Memory for people.
pub fn gib(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 30) {
        format!("{} GiB", bytes >> 30)
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_has_the_shape_that_is_asked_for() {
        let items = [json!({"name": "größe", "id": "1"}), json!({"name": "b", "id": "22"})];
        let columns = [Column::new("name", |it| text(it, "name")), Column::wide("id", |it| text(it, "id"))];
        for (format, headers, expected) in [
            (Format::Table, true, "NAME\ngröße\nb"),
            (Format::Wide, true, "NAME   ID\ngröße  1\nb      22"),
            (Format::Wide, false, "größe  1\nb      22"),
            (Format::Name, true, "größe\nb"),
            (Format::Jsonl, true, "{\"id\":\"1\",\"name\":\"größe\"}\n{\"id\":\"22\",\"name\":\"b\"}"),
            (Format::Yaml, true, "-\n  id: \"1\"\n  name: \"größe\"\n-\n  id: \"22\"\n  name: \"b\""),
        ] {
            assert_eq!(list(format, headers, &items, &columns), expected, "{format:?}");
        }
        assert_eq!(
            serde_json::from_str::<Value>(&list(Format::Json, true, &items, &columns)).unwrap(),
            json!(items)
        );
        assert_eq!(list(Format::Jsonl, true, &[], &columns), "");
    }

    #[test]
    fn yaml_is_blocks_of_json_scalars() {
        let value = json!({"a": [], "b": {"c d": null, "e": [1, "x: y\n"]}, "f": {}, "g": true});
        let expected = "a: []\nb:\n  \"c d\": null\n  e:\n    - 1\n    - \"x: y\\n\"\nf: {}\ng: true";
        assert_eq!(yaml(&value), expected);
        assert_eq!(yaml(&json!("text")), "\"text\"");
    }
}
