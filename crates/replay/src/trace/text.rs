//! The tree as lines.

use super::{Node, Trace};
use std::fmt::Write as _;

/// A header, then one line per event, indented under what it followed from.
pub(super) fn render(trace: &Trace) -> String {
    let mut text = format!(
        "request {} by {} in {}, {}, {}",
        trace.request_id,
        trace.actor,
        trace.stream,
        trace.time,
        span(trace.duration_us)
    );
    if trace.is_under_way {
        text.push_str(", still under way");
    }
    text.push('\n');
    lines(&trace.events, "", &mut text);
    if trace.is_cut_off {
        text.push_str("... and more than was looked at\n");
    }
    text
}

fn lines(nodes: &[Node], indent: &str, text: &mut String) {
    for (nth, node) in nodes.iter().enumerate() {
        let is_last = nth + 1 == nodes.len();
        let (corner, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let _ = write!(text, "{indent}{corner}+{} {} #{}", span(node.after_us), node.event, node.version);
        let by = if node.because == super::Because::Together { "" } else { node.actor.as_str() };
        if !by.is_empty() {
            let _ = write!(text, " by {by}");
        }
        let _ = writeln!(text, ": {}", node.summary);
        lines(&node.children, &format!("{indent}{below}"), text);
    }
}

/// A time span in the unit that people read it in.
pub(super) fn span(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..10_000_000 => format!("{}.{} ms", micros / 1_000, micros / 100 % 10),
        _ => format!("{}.{} s", micros / 1_000_000, micros / 100_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn spans_have_the_unit_that_people_read() {
        for (micros, text) in
            [(0, "0 us"), (999, "999 us"), (1_250, "1.2 ms"), (812_000, "812.0 ms"), (61_500_000, "61.5 s")]
        {
            assert_eq!(span(micros), text);
        }
    }
}
