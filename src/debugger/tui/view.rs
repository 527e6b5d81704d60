//! A model as a screen. Nothing is read or changed here.
//!
//! ```text
//!  title       what is looked at, and where one stands in it
//!  list        events, the chosen one in reverse
//!  tabs        state, lanes, saga, event
//!  panel       what is shown of the event
//!  help        keys, what is typed, or what there is to say
//! ```

use super::keys::HELP;
use super::model::{Asked, Focus, Model, Panel};
use super::panels;
use journal::StreamName;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};
use replay::browse::{Listed, Track};

/// Columns below which nothing could be read.
pub const COLUMNS_MIN: u16 = 80;
/// Rows below which nothing could be read.
pub const ROWS_MIN: u16 = 24;

/// Where the parts of a screen are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panes {
    title: Rect,
    heads: Rect,
    /// Events.
    pub list: Rect,
    tabs: Rect,
    /// What is shown of one.
    pub panel: Rect,
    help: Rect,
}

/// The parts of a screen of so many columns and rows.
pub fn panes((columns, rows): (u16, u16)) -> Panes {
    let fixed = Constraint::Length(1);
    let [title, heads, list, tabs, panel, help] =
        Layout::vertical([fixed, fixed, Constraint::Fill(2), fixed, Constraint::Fill(3), fixed])
            .areas(Rect::new(0, 0, columns, rows));
    Panes { title, heads, list, tabs, panel, help }
}

/// How parts of a screen look. Without colours everything can still be told apart.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    is_colored: bool,
}

impl Theme {
    /// With colours, or without.
    pub const fn new(is_colored: bool) -> Self {
        Self { is_colored }
    }

    fn colored(self, color: Color) -> Style {
        if self.is_colored { Style::new().fg(color) } else { Style::new() }
    }

    /// The line where one stands.
    pub fn chosen() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Headings.
    pub fn strong() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What matters less.
    pub fn quiet(self) -> Style {
        self.colored(Color::DarkGray)
    }

    /// What is other than it was.
    pub fn changed(self) -> Style {
        self.colored(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// What has come, or went well.
    pub fn good(self) -> Style {
        self.colored(Color::Green)
    }

    /// What has gone, or went wrong.
    pub fn bad(self) -> Style {
        self.colored(Color::Red)
    }
}

/// Draws the screen.
pub fn draw(frame: &mut Frame<'_>, model: &Model<'_>, theme: Theme) {
    let area = frame.area();
    if area.width < COLUMNS_MIN || area.height < ROWS_MIN {
        let (columns, rows) = (area.width, area.height);
        let text = format!(
            "{columns}x{rows} is too small:\n{COLUMNS_MIN}x{ROWS_MIN} is the least.\nMake it larger, or q to quit."
        );
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let panes = panes((area.width, area.height));
    frame.render_widget(title(model, panes.title.width), panes.title);
    frame.render_widget(heads(model, theme), panes.heads);
    let lines: Vec<Line<'_>> = (model.top..)
        .zip(&model.rows)
        .map(|(place, listed)| {
            let line = row(model, listed, theme);
            if place == model.selected { line.style(Theme::chosen()) } else { line }
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), panes.list);
    frame.render_widget(tabs(model, theme, panes.tabs.width), panes.tabs);
    frame.render_widget(Paragraph::new(panels::lines(model, theme, panes.panel)), panes.panel);
    frame.render_widget(bottom(model, theme), panes.help);
    if model.is_helping {
        help(frame);
    }
}

/// Text from a log as it may stand on a terminal: what would move the cursor, or worse, is a dot.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

/// The text with ids cut to their beginnings, which is what they are known by.
fn short_ids(text: &str) -> String {
    let is_id = |word: &str| word.len() == 36 && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let words = text.split(' ').map(|word| if is_id(word) { &word[..8] } else { word });
    words.collect::<Vec<_>>().join(" ")
}

fn title(model: &Model<'_>, width: u16) -> Paragraph<'static> {
    let state = model.detail.after.instance();
    let what = match model.track() {
        Track::Log => "all events".to_owned(),
        Track::Instance(id) => state.map_or_else(|| id.to_string(), |state| state.spec.name.clone()),
    };
    let left = format!(" {} · {}", plain(&what), plain(&model.origin));
    let mut right = match model.track() {
        Track::Log => format!("@{} of {}", model.selected, model.last()),
        Track::Instance(_) => format!("#{} of {}", model.selected, model.last()),
    };
    if let Some(state) = state {
        let name = match model.track() {
            Track::Log => format!("{} ", plain(&state.spec.name)),
            Track::Instance(_) => String::new(),
        };
        right = format!("{right} · {name}{}", state.run_state());
    }
    let style = Theme::strong().add_modifier(Modifier::REVERSED);
    Paragraph::new(Line::from(spread(&left, &format!("{right} "), width))).style(style)
}

/// Two texts at both ends of a line; the left one gives way.
fn spread(left: &str, right: &str, width: u16) -> String {
    let room = usize::from(width).saturating_sub(right.chars().count() + 1);
    let left: String = left.chars().take(room).collect();
    format!("{left:<room$} {right}")
}

fn heads(model: &Model<'_>, theme: Theme) -> Line<'static> {
    let text = match model.track() {
        Track::Log => " POSITION  TIME          STREAM             EVENT               WHAT",
        Track::Instance(_) => " VERSION  TIME          EVENT               WHAT · BY WHOM",
    };
    Line::styled(text, theme.quiet().add_modifier(Modifier::BOLD))
}

/// One event in the list.
fn row(model: &Model<'_>, listed: &Listed, theme: Theme) -> Line<'static> {
    let hit = &listed.hit;
    let place = match model.track() {
        Track::Log => format!(" @{:<8} ", hit.position),
        Track::Instance(_) => format!(" #{:<7} ", hit.version),
    };
    let mut spans =
        vec![Span::raw(place), Span::styled(format!("{}  ", time_of_day(&hit.time)), theme.quiet())];
    if model.track() == Track::Log {
        spans.push(Span::styled(format!("{:<18.18} ", stream(listed)), theme.quiet()));
    }
    let event = if listed.is_read { Theme::strong() } else { theme.bad() };
    spans.push(Span::styled(format!("{:<19.19} ", hit.event), event));
    let begins = listed.append == hit.version;
    if !begins {
        spans.push(Span::styled("└ ", theme.quiet()));
    }
    spans.push(Span::raw(short_ids(&plain(&hit.summary))));
    if begins {
        spans.push(Span::styled(format!(" · {}", short_ids(&plain(&hit.actor))), theme.quiet()));
    }
    Line::from(spans)
}

/// Hours, minutes, seconds and milliseconds of a time in RFC 3339.
fn time_of_day(time: &str) -> String {
    let day = time.split_once('T').map_or(time, |(_, rest)| rest);
    format!("{:<12.12}", day.trim_end_matches('Z'))
}

fn stream(listed: &Listed) -> String {
    let short = |id: String| id.chars().take(8).collect::<String>();
    match listed.stream {
        Some(StreamName::Instance(id)) => format!("instance {}", short(id.to_string())),
        Some(StreamName::Project(id)) => format!("project {}", short(id.to_string())),
        Some(StreamName::Sled(id)) => format!("sled {}", short(id.to_string())),
        Some(StreamName::System) => "system".to_owned(),
        None => plain(&listed.hit.stream),
    }
}

fn tabs(model: &Model<'_>, theme: Theme, width: u16) -> Line<'static> {
    let mut spans = vec![Span::styled("──", theme.quiet())];
    let mut used = 2;
    for (nth, panel) in Panel::ALL.into_iter().enumerate() {
        let name = match panel {
            Panel::State => "State",
            Panel::Lanes => "Lanes",
            Panel::Saga => "Saga",
            Panel::Event => "Event",
        };
        let is_shown = panel == model.panel;
        let text = if is_shown { format!("[{} {name}]", nth + 1) } else { format!(" {} {name} ", nth + 1) };
        used += text.chars().count();
        let style = match (is_shown, model.focus) {
            (true, Focus::Detail) => Theme::strong().add_modifier(Modifier::REVERSED),
            (true, Focus::Events) => Theme::strong(),
            (false, _) => theme.quiet(),
        };
        spans.push(Span::styled(text, style));
    }
    spans.push(Span::styled("─".repeat(usize::from(width).saturating_sub(used)), theme.quiet()));
    Line::from(spans)
}

/// What is typed, found or wrong; else the keys.
fn bottom(model: &Model<'_>, theme: Theme) -> Line<'static> {
    if let Some((asked, text)) = &model.prompt {
        let (asks, hint) = match asked {
            Asked::Search => ("look for: ", ""),
            Asked::Moment => ("go to: ", "#7 @22 -30s first last"),
            Asked::Condition => ("on until: ", "run_state=stopping, C4"),
        };
        let hint = if text.is_empty() { hint } else { "" };
        return Line::from(vec![
            Span::styled(asks, Theme::strong()),
            Span::raw(plain(text)),
            Span::styled("█", Theme::strong()),
            Span::styled(hint, theme.quiet()),
        ]);
    }
    if let Some((_, at)) = &model.seek {
        return Line::styled(format!("looking, at {at} of {}; Esc ends it", model.last()), Theme::strong());
    }
    if let Some(said) = &model.said {
        return Line::styled(plain(said), theme.changed());
    }
    let one = match model.track() {
        Track::Log => "Enter follow",
        Track::Instance(_) => "a all",
    };
    let keys = format!("↑↓ event  Tab below  1-4 view  / find  n N next  g go  u until  {one}  ? keys  q");
    Line::styled(keys, theme.quiet())
}

fn help(frame: &mut Frame<'_>) {
    let width = HELP.iter().map(|(key, what)| key.len().max(14) + what.len() + 4).max().unwrap_or(0);
    let (width, height) = (u16::try_from(width).unwrap_or(u16::MAX), HELP.len() as u16 + 2);
    let [area] = Layout::horizontal([Constraint::Length(width)])
        .areas(frame.area().inner(ratatui::layout::Margin::new(1, 2)));
    let area = Rect { height: height.min(area.height), ..area };
    let mut lines = vec![Line::styled(" Keys (any of them closes this)", Theme::strong())];
    lines.extend(HELP.iter().map(|(key, what)| {
        Line::from(vec![Span::styled(format!(" {key:<14} "), Theme::strong()), Span::raw(*what)])
    }));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines), area);
}
