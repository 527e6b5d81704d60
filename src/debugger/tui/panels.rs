//! What is shown of the event where one stands: the state, lanes, the saga, or the event itself.

use super::model::{Focus, Model, Panel};
use super::tree::{Mark, Row};
use super::view::{Theme, plain};
use lifecycle::instance::SagaProgress;
use lifecycle::saga::definition;
use lifecycle::{InstanceEvent, Span as Duration, Timestamp, effects};
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use serde_json::Value;
use std::fmt::Write as _;

/// Widest lane, columns.
const LANE_COLUMNS_MAX: usize = 34;

/// The lines that are to be seen.
pub fn lines(model: &Model<'_>, theme: Theme, area: Rect) -> Vec<Line<'static>> {
    let height = usize::from(area.height);
    if let Some(trouble) = &model.detail.trouble
        && model.panel != Panel::Event
    {
        let lines = wrapped(trouble, usize::from(area.width));
        return lines.into_iter().map(|line| Line::styled(line, theme.bad())).collect();
    }
    match model.panel {
        Panel::State => tree(model, theme, height),
        Panel::Lanes => lanes(model, theme, usize::from(area.width)),
        Panel::Saga => saga(model, theme).into_iter().skip(model.scroll).take(height).collect(),
        Panel::Event => event(model, theme).into_iter().skip(model.scroll).take(height).collect(),
    }
}

/// How many lines there are of what scrolls.
pub fn lines_max(model: &Model<'_>) -> usize {
    let theme = Theme::new(false);
    match model.panel {
        Panel::State | Panel::Lanes => 0,
        Panel::Saga => saga(model, theme).len(),
        Panel::Event => event(model, theme).len(),
    }
}

/// Text in lines of at most so many columns, cut between words where it can be.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(20) - 1;
    let mut lines = vec![String::new()];
    for word in plain(text).split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let used = lines.last().map_or(0, |line| line.chars().count());
        if used > 0 && used + 1 + word.len() > width {
            lines.push(String::new());
        }
        while word.len() >= width {
            let rest = word.split_off(width - 1);
            lines.last_mut().expect("there is one").extend([' '].into_iter().chain(word));
            lines.push(String::new());
            word = rest;
        }
        lines.last_mut().expect("there is one").extend([' '].into_iter().chain(word));
    }
    lines
}

fn tree(model: &Model<'_>, theme: Theme, height: usize) -> Vec<Line<'static>> {
    if model.tree.is_empty() {
        let said = if model.is_only_changes {
            " this event changed nothing; x shows everything"
        } else {
            " no state"
        };
        return vec![Line::styled(said, theme.quiet())];
    }
    // Where one stands is always on the screen, and a line or two of what is around it.
    let around = 2.min(height / 4);
    let first = (model.tree_at + around + 1).saturating_sub(height);
    let first = first.min(model.tree.len().saturating_sub(height));
    model
        .tree
        .iter()
        .enumerate()
        .skip(first)
        .take(height)
        .map(|(nth, row)| {
            let line = field(row, theme);
            let is_chosen = nth == model.tree_at && model.focus == Focus::Detail;
            if is_chosen { line.style(Theme::chosen()) } else { line }
        })
        .collect()
}

fn field(row: &Row, theme: Theme) -> Line<'static> {
    let (sign, style) = match row.mark {
        Mark::Same => (' ', ratatui::style::Style::new()),
        Mark::Within => (' ', Theme::strong()),
        Mark::Changed => ('*', theme.changed()),
        Mark::Added => ('+', theme.good()),
        Mark::Removed => ('-', theme.bad()),
    };
    let branch = match row.is_open {
        None => "  ",
        Some(true) => "▾ ",
        Some(false) => "▸ ",
    };
    let mut spans = vec![
        Span::styled(format!("{sign} {}{branch}{}: ", "  ".repeat(row.depth), plain(&row.name)), style),
        Span::styled(plain(&row.value), style),
    ];
    spans.extend(row.was.as_ref().map(|was| Span::styled(format!("   (was {})", plain(was)), theme.quiet())));
    Line::from(spans)
}

fn lanes(model: &Model<'_>, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let window = match &model.lanes {
        Ok(window) => window,
        Err(why) => return vec![Line::styled(format!(" {}", plain(why)), theme.quiet())],
    };
    let (rows, lanes) = (&window.lanes.rows, &window.lanes.lanes);
    let shown: Vec<usize> = (0..lanes.len()).skip(model.lane_first).collect();
    let cell = |row: usize, lane: usize| match rows[row].cells.get(lane).and_then(Option::as_ref) {
        Some(text) => plain(text),
        None if window.passes(lane, row) => "│".to_owned(),
        None => String::new(),
    };
    let widths: Vec<usize> = shown
        .iter()
        .map(|&lane| {
            let cells = (0..rows.len()).map(|row| cell(row, lane).chars().count());
            let label = lanes[lane].label.chars().count();
            cells.chain([label]).max().unwrap_or(0).min(LANE_COLUMNS_MAX)
        })
        .collect();
    let line = |head: String, texts: Vec<String>| {
        let mut text = head;
        for (width, cell) in widths.iter().zip(texts) {
            let _ = write!(text, "{cell:<width$.width$}  ");
        }
        text.chars().take(width).collect::<String>()
    };
    let more = if model.lane_first > 0 { "<" } else { " " };
    let labels = shown.iter().map(|&lane| plain(&lanes[lane].label)).collect();
    let mut lines = vec![Line::styled(line(format!("{more}VERSION  AFTER       "), labels), Theme::strong())];
    let here = model.detail.listed.as_ref().map(|listed| listed.hit.version);
    for (nth, row) in rows.iter().enumerate() {
        let head = format!(" #{:<7} {:<11} ", row.version, replay::lanes::after(row.since_first_us));
        let text = line(head, shown.iter().map(|&lane| cell(nth, lane)).collect());
        let is_here = Some(row.version) == here;
        lines.push(if is_here { Line::styled(text, Theme::chosen()) } else { Line::raw(text) });
    }
    lines
}

/// The saga under way, or the one that this event ended.
fn saga(model: &Model<'_>, theme: Theme) -> Vec<Line<'static>> {
    let quiet = |text: &str| vec![Line::styled(format!(" {text}"), theme.quiet())];
    let Some(after) = model.detail.after.instance() else {
        return quiet("sagas are of an instance: this event is of none");
    };
    let before = model.detail.before.instance().and_then(|before| before.saga.as_ref());
    let mut lines = match (&after.saga, before) {
        (Some(saga), _) => steps(saga, None, model, theme),
        (None, Some(saga)) => steps(saga, Some(is_done(model)), model, theme),
        (None, None) => quiet("no saga is under way here"),
    };
    let wished = effects(after);
    lines.push(Line::raw(""));
    if wished.is_empty() {
        lines.push(Line::styled(" nothing would be sent now", theme.quiet()));
    }
    lines.extend(wished.iter().map(|effect| {
        let (name, vmm, sled) = (effect.name(), short(effect.vmm()), short(effect.sled()));
        Line::raw(format!(" would be sent now: {name} VMM {vmm} to sled {sled}"))
    }));
    lines
}

/// Whether the event says that a saga reached its goal.
fn is_done(model: &Model<'_>) -> bool {
    let listed = model.detail.listed.as_ref();
    listed.is_some_and(|listed| {
        serde_json::from_value::<InstanceEvent>(listed.hit.data.clone())
            .is_ok_and(|event| matches!(event, InstanceEvent::SagaEnded { done: true, .. }))
    })
}

fn steps(saga: &SagaProgress, ended: Option<bool>, model: &Model<'_>, theme: Theme) -> Vec<Line<'static>> {
    let all = definition(saga.kind);
    let now = model.detail.after.instance().map_or(saga.started, |after| after.head.time);
    let how = match ended {
        None => format!("under way for {}", lasted(saga.started, now)),
        Some(true) => format!("done with this event, after {}", lasted(saga.started, now)),
        Some(false) => format!("ended or undone with this event, after {}", lasted(saga.started, now)),
    };
    let mut lines = vec![
        Line::styled(format!(" {} {} · {how}", all.name, short(saga.id)), Theme::strong()),
        Line::styled(
            format!(
                " VMM {} · began {} · given up after {} before the point of no return",
                short(saga.vmm),
                replay::time::rfc3339(saga.started),
                seconds(saga.deadline)
            ),
            theme.quiet(),
        ),
        Line::raw(""),
    ];
    let at = all.steps.iter().position(|step| step.step == saga.step).unwrap_or(0);
    for (nth, step) in all.steps.iter().enumerate() {
        let (sign, style) = match (ended, nth.cmp(&at)) {
            (Some(true), _) | (_, std::cmp::Ordering::Less) => ('✓', theme.good()),
            (None, std::cmp::Ordering::Equal) => ('▶', theme.changed()),
            (Some(false), std::cmp::Ordering::Equal) => ('✗', theme.bad()),
            (_, std::cmp::Ordering::Greater) => ('·', theme.quiet()),
        };
        let mut text = format!("  {sign} {}. {}", nth + 1, step.name);
        if nth == at && ended.is_none() {
            let _ = write!(text, "  (for {})", lasted(saga.step_started, now));
        }
        if step.is_point_of_no_return {
            text.push_str("  [point of no return]");
        }
        lines.push(Line::styled(text, style));
    }
    lines
}

fn lasted(from: Timestamp, to: Timestamp) -> String {
    seconds(Duration::from_micros(to.micros().saturating_sub(from.micros())))
}

fn seconds(span: Duration) -> String {
    replay::lanes::after(span.micros())
}

fn short(id: impl std::fmt::Display) -> String {
    id.to_string().chars().take(8).collect()
}

fn event(model: &Model<'_>, theme: Theme) -> Vec<Line<'static>> {
    let Some(listed) = &model.detail.listed else {
        return vec![Line::styled(" no event", theme.quiet())];
    };
    let hit = &listed.hit;
    let what = format!("{}: {}", hit.event, hit.summary);
    let what = wrapped(&what, usize::from(model.size.0));
    let mut lines: Vec<Line<'static>> =
        what.into_iter().map(|line| Line::styled(line, Theme::strong())).collect();
    let mut add = |name: &str, text: String| {
        lines.push(Line::from(vec![
            Span::styled(format!(" {name:<9} "), theme.quiet()),
            Span::raw(plain(&text)),
        ]));
    };
    add("stream", format!("{} #{}", hit.stream, hit.version));
    add("position", format!("@{} at {}", hit.position, hit.time));
    add("by", hit.actor.clone());
    if let Some(reason) = &listed.reason {
        add("reason", reason.clone());
    }
    if let Some(request) = &hit.request_id {
        add("request", request.clone());
    }
    if let Some(cause) = listed.cause {
        add("cause", format!("the event at @{cause}"));
    }
    if listed.append != hit.version {
        add("append", format!("decided together with #{}", listed.append));
    }
    if hit.data != Value::Null {
        let text = serde_json::to_string_pretty(&hit.data).unwrap_or_default();
        lines.extend(text.lines().map(|line| Line::raw(format!(" {}", plain(line)))));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_words_and_a_long_word_within() {
        let text = format!("one two {} three", "x".repeat(50));
        let lines = wrapped(&text, 30);
        assert_eq!(lines[0], " one two");
        assert!(lines.iter().all(|line| line.chars().count() <= 30), "{lines:?}");
        assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
    }
}
