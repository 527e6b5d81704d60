//! Results as they come: rows of JSON for machines, sections of lines for people.
//!
//! Invariants:
//! * every number goes out as one row, and a row goes out as soon as it is measured;
//! * both forms show the same numbers.

use serde_json::Value;
use std::io::Write;

/// Where results go.
pub struct Report {
    is_json: bool,
    section: String,
}

impl Report {
    /// Rows of JSON, or lines for people.
    pub fn new(is_json: bool) -> Self {
        Self { is_json, section: String::new() }
    }

    /// Prints one row. Rows of one `bench` stand together under its name.
    pub fn row(&mut self, row: &Value) {
        let mut out = std::io::stdout().lock();
        // Whoever closed the pipe has read enough.
        drop(if self.is_json { writeln!(out, "{row}") } else { self.lines(&mut out, row) });
        drop(out.flush());
    }

    fn lines(&mut self, out: &mut impl Write, row: &Value) -> std::io::Result<()> {
        let Some(fields) = row.as_object() else { return Ok(()) };
        let section = fields.get("bench").and_then(Value::as_str).unwrap_or_default();
        if section != self.section {
            section.clone_into(&mut self.section);
            writeln!(out, "\n{section}")?;
        }
        let cells: Vec<String> = fields
            .iter()
            .filter(|(name, _)| *name != "bench")
            .map(|(name, value)| format!("{name} {}", text(value)))
            .collect();
        writeln!(out, "  {}", cells.join("  "))
    }
}

/// A value for people: rates without decimals, small numbers with three digits.
fn text(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if value.is_f64() && number.abs() >= 100.0 => format!("{number:.0}"),
        Some(number) if value.is_f64() => format!("{number:.2}"),
        _ => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    }
}
