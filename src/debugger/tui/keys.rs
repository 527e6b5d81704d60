//! What each key does.

use super::model::{Asked, Focus, Model, Over, Panel, TYPED_CHARS_MAX};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use replay::browse::Direction;

/// Every key, as `?` explains them.
pub const HELP: [(&str, &str); 17] = [
    ("Up Down, k j", "the event before, the next; in the lower half: a line"),
    ("PgUp PgDn", "a screen up or down"),
    ("Home End", "the first event, the last"),
    ("Tab", "to the lower half, and back"),
    ("1 2 3 4", "state, lanes, saga, event; in the list also Left, Right"),
    ("Enter", "list: only its instance; state: open or close a field"),
    ("a", "all events of the log again"),
    ("/", "look for a text: names, fields, actors, requests"),
    ("n N", "the next event that mentions it, the one before"),
    ("g", "go to #VERSION, @POSITION, a time (RFC 3339), -30s, first, last"),
    ("u", "on to where FIELD=VALUE first holds, or C4 is broken"),
    ("Left Right", "state: close or open a field; lanes: the lanes beside"),
    ("c", "state: the next field that this event changed"),
    ("x", "state: only what this event changed, or everything"),
    ("Esc", "ends a search, closes this"),
    ("Ctrl-L", "draws the screen anew"),
    ("q, Ctrl-C", "out of here"),
];

/// Carries a key out, and reads what is to be seen then. Answers whether the screen shall be drawn from nothing.
pub fn press(model: &mut Model<'_>, key: KeyEvent) -> bool {
    if key.kind == KeyEventKind::Release {
        return false;
    }
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    if is_control && key.code == KeyCode::Char('c') {
        model.over = Some(Over::Interrupted);
        return false;
    }
    if is_control && key.code == KeyCode::Char('l') {
        return true;
    }
    model.said = None;
    if model.seek.is_some() {
        // It reads on meanwhile: whatever else is pressed would be about another place.
        match key.code {
            KeyCode::Esc => {
                model.seek = None;
                model.said = Some("the search was ended".to_owned());
            }
            KeyCode::Char('q') => model.over = Some(Over::Quit),
            _ => {}
        }
        return false;
    }
    if model.prompt.is_some() {
        typed(model, key.code, is_control);
    } else if model.is_helping {
        model.is_helping = false;
    } else if !is_control {
        anywhere(model, key.code);
    }
    model.settle();
    false
}

fn typed(model: &mut Model<'_>, code: KeyCode, is_control: bool) {
    let Some((asked, mut text)) = model.prompt.take() else {
        return;
    };
    match code {
        KeyCode::Esc => return,
        KeyCode::Enter => return ask(model, asked, text.trim()),
        KeyCode::Backspace if text.is_empty() => return,
        KeyCode::Backspace => drop(text.pop()),
        KeyCode::Char('u') if is_control => text.clear(),
        KeyCode::Char(c) if !is_control && text.chars().count() < TYPED_CHARS_MAX => text.push(c),
        _ => {}
    }
    model.prompt = Some((asked, text));
}

fn ask(model: &mut Model<'_>, asked: Asked, text: &str) {
    match (asked, text) {
        (Asked::Search, "") => again(model, Direction::Forward),
        (_, "") => {}
        (Asked::Search, _) => model.search(text, Direction::Forward),
        (Asked::Moment, _) => {
            if let Err(why) = model.go_to(text) {
                model.said = Some(why);
            }
        }
        (Asked::Condition, _) => model.until(text),
    }
}

fn again(model: &mut Model<'_>, direction: Direction) {
    match model.searched.clone() {
        Some(text) => model.search(&text, direction),
        None => model.said = Some("nothing was looked for: / begins".to_owned()),
    }
}

fn anywhere(model: &mut Model<'_>, code: KeyCode) {
    match code {
        KeyCode::Char('q') => model.over = Some(Over::Quit),
        KeyCode::Char('?') | KeyCode::F(1) => model.is_helping = true,
        KeyCode::Tab | KeyCode::BackTab => {
            model.focus = match model.focus {
                Focus::Events => Focus::Detail,
                Focus::Detail => Focus::Events,
            };
        }
        KeyCode::Char(digit @ '1'..='4') => show(model, Panel::ALL[digit as usize - '1' as usize]),
        KeyCode::Char('/') => model.prompt = Some((Asked::Search, String::new())),
        KeyCode::Char('g') => model.prompt = Some((Asked::Moment, String::new())),
        KeyCode::Char('u') => model.prompt = Some((Asked::Condition, String::new())),
        KeyCode::Char('n') => again(model, Direction::Forward),
        KeyCode::Char('N') => again(model, Direction::Back),
        KeyCode::Char('a') => model.turn(false),
        KeyCode::Char('c') => {
            show(model, Panel::State);
            model.focus = Focus::Detail;
            model.next_change();
        }
        KeyCode::Char('x') => model.is_only_changes = !model.is_only_changes,
        _ => match (model.focus, model.panel) {
            (Focus::Events, _) => in_list(model, code),
            (Focus::Detail, Panel::State) => in_tree(model, code),
            (Focus::Detail, Panel::Lanes) => in_lanes(model, code),
            (Focus::Detail, Panel::Saga | Panel::Event) => in_text(model, code),
        },
    }
}

fn show(model: &mut Model<'_>, panel: Panel) {
    if model.panel != panel {
        model.panel = panel;
        model.scroll = 0;
    }
}

fn in_list(model: &mut Model<'_>, code: KeyCode) {
    let nth = Panel::ALL.iter().position(|panel| *panel == model.panel).unwrap_or(0);
    match code {
        KeyCode::Enter => model.turn(true),
        KeyCode::Left => show(model, Panel::ALL[nth.saturating_sub(1)]),
        KeyCode::Right => show(model, Panel::ALL[(nth + 1).min(Panel::ALL.len() - 1)]),
        _ => along(model, code),
    }
}

/// Along the events.
fn along(model: &mut Model<'_>, code: KeyCode) {
    let screen = i64::from(super::view::panes(model.size).list.height.max(2)) - 1;
    match code {
        KeyCode::Up | KeyCode::Char('k') => model.walk(-1),
        KeyCode::Down | KeyCode::Char('j') => model.walk(1),
        KeyCode::PageUp => model.walk(-screen),
        KeyCode::PageDown => model.walk(screen),
        KeyCode::Home => model.selected = 1,
        KeyCode::End => model.selected = model.last(),
        _ => {}
    }
}

fn in_tree(model: &mut Model<'_>, code: KeyCode) {
    let screen = usize::from(super::view::panes(model.size).panel.height.max(2)) - 1;
    match code {
        KeyCode::Enter | KeyCode::Char(' ') => model.turn_branch(None),
        KeyCode::Right => model.turn_branch(Some(true)),
        KeyCode::Left => model.turn_branch(Some(false)),
        // The next look at the lines brings it back to the last.
        _ => moved(&mut model.tree_at, code, screen),
    }
}

fn in_lanes(model: &mut Model<'_>, code: KeyCode) {
    match code {
        KeyCode::Left => model.lane_first = model.lane_first.saturating_sub(1),
        KeyCode::Right => model.lane_first += 1,
        _ => along(model, code),
    }
}

fn in_text(model: &mut Model<'_>, code: KeyCode) {
    let screen = usize::from(super::view::panes(model.size).panel.height.max(2)) - 1;
    moved(&mut model.scroll, code, screen);
    model.scroll = model.scroll.min(super::panels::lines_max(model).saturating_sub(screen + 1));
}

fn moved(line: &mut usize, code: KeyCode, screen: usize) {
    *line = match code {
        KeyCode::Up | KeyCode::Char('k') => line.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => line.saturating_add(1),
        KeyCode::PageUp => line.saturating_sub(screen),
        KeyCode::PageDown => line.saturating_add(screen),
        KeyCode::Home => 0,
        KeyCode::End => usize::MAX,
        _ => *line,
    };
}
