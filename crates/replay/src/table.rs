//! Text tables for people: columns padded to their widest cell, the last one ragged.

use crate::history::Entry;
use std::fmt::Write as _;

/// A table of a history, oldest first. A line that begins an append shows who; what was decided with it
/// is marked instead.
pub fn history_table(entries: &[Entry]) -> String {
    let header = ["VERSION", "POSITION", "TIME", "EVENT", "BY", "WHAT"].map(str::to_owned);
    let mut rows = vec![header];
    for entry in entries {
        let by = if entry.append == entry.version { entry.actor.clone() } else { "└".to_owned() };
        rows.push([
            format!("#{}", entry.version),
            format!("@{}", entry.position),
            entry.time.clone(),
            entry.event.to_owned(),
            by,
            entry.summary.clone(),
        ]);
    }
    grid(&rows)
}

/// Rows of as many cells as the first one.
pub(crate) fn grid<Row: AsRef<[String]>>(rows: &[Row]) -> String {
    let rows: Vec<&[String]> = rows.iter().map(AsRef::as_ref).collect();
    let mut widths = vec![0; rows.first().map_or(0, |row| row.len())];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(*row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row.iter()) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_do_not_trail() {
        let rows = [["A", "B"], ["größe", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(grid(&rows), "A      B\ngröße  x\n");
    }
}
