//! `replay --tui`: a history on a screen. Keys change a [`model`], which reads what is to be shown; [`view`] draws it.
//!
//! Invariants:
//! * between two keys nothing is read but for a search that is under way, slice by slice;
//! * an error while one looks is shown on the screen; only what makes it impossible to begin ends the command.

mod keys;
mod model;
mod panels;
mod terminal;
mod tree;
mod view;

#[cfg(test)]
mod tests;

use super::args::ReplayArgs;
use super::past::Past;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::real::SystemClock;
use actors::Clock as _;
use lifecycle::InstanceId;
use model::{Model, Over};
use ratatui::crossterm::event::{Event, poll, read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use terminal::{Screen, put_back};
use tokio::signal::unix::{SignalKind, signal};
use view::Theme;

/// Longest wait for a key before signals are looked after.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Longest wait for the screen to end by itself after a signal.
const ENDED_MAX: Duration = Duration::from_secs(1);

/// Opens the screen on an instance, or on all events.
pub fn run(past: &Past, instance: Option<InstanceId>, args: &ReplayArgs) -> Outcome {
    let mut model = Model::open(past.source(), instance, origin(args), SystemClock.now())
        .map_err(|error| past.failure(error))?;
    if let Some(at) = &args.at {
        model.go_to(at).map_err(|why| Failure::new(Exit::Refused, why))?;
    }
    let is_ended = end_on_signals()?;
    let mut screen = Screen::open()?;
    tokio::task::block_in_place(|| look(&mut screen, &mut model, &is_ended))
        .map_err(|error| Failure::new(Exit::Refused, format!("the terminal went away: {error}")))?;
    drop(screen);
    match model.over {
        Some(Over::Quit) | None => Ok(()),
        Some(Over::Interrupted) => Err(Failure::new(Exit::Interrupted, "interrupted")),
    }
}

/// Where it is read from, as a title.
fn origin(args: &ReplayArgs) -> String {
    let past = &args.past;
    let named = |path: &std::path::Path| path.display().to_string();
    match (&past.file, &past.backup) {
        _ if past.live => "live".to_owned(),
        (Some(file), _) => file.file_name().map_or_else(|| named(file), |name| name.display().to_string()),
        (None, Some(backup)) => named(backup),
        (None, None) => named(&past.data),
    }
}

/// A flag that rises with a signal to end. Whoever waits on a terminal that went away never looks at it: some time
/// after the signal the process ends whatever it does.
fn end_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let is_ended = Arc::new(AtomicBool::new(false));
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind)
            .map_err(|error| Failure::new(Exit::Refused, format!("signals cannot be heard: {error}")))?;
        let is_ended = is_ended.clone();
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                is_ended.store(true, Ordering::Relaxed);
                tokio::time::sleep(ENDED_MAX).await;
                put_back();
                std::process::exit(i32::from(Exit::Interrupted as u8));
            }
        });
    }
    Ok(is_ended)
}

/// Draws, waits for a key, carries it out, until it is over.
fn look(screen: &mut Screen, model: &mut Model<'_>, is_ended: &AtomicBool) -> std::io::Result<()> {
    let theme = Theme::new(output::is_colored());
    let mut is_stale = true;
    while model.over.is_none() {
        if is_ended.load(Ordering::Relaxed) {
            model.over = Some(Over::Interrupted);
            return Ok(());
        }
        if is_stale {
            let size = screen.terminal.size()?;
            if (size.width, size.height) != model.size {
                model.size = (size.width, size.height);
                model.settle();
            }
            screen.terminal.draw(|frame| view::draw(frame, model, theme))?;
        }
        let is_busy = model.seek.is_some();
        is_stale = is_busy;
        if poll(if is_busy { Duration::ZERO } else { WAIT_MAX })? {
            is_stale = true;
            match read()? {
                Event::Key(key) if keys::press(model, key) => screen.terminal.clear()?,
                _ => {}
            }
        }
        model.work();
    }
    Ok(())
}
