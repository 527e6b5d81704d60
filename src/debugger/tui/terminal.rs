//! The terminal while it is a screen, and as it was before.
//!
//! Invariant: however this ends (a key, an error, a panic, a signal that can be caught), the terminal is as it was:
//! cooked, on its own screen, with a cursor.

use crate::exit::{Exit, Failure};
use ratatui::DefaultTerminal;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use std::io::IsTerminal as _;

/// A terminal that is a screen, until this is dropped.
pub struct Screen {
    /// What is drawn on.
    pub terminal: DefaultTerminal,
}

impl Screen {
    /// Makes a screen of the terminal. A panic from here on puts it back before it says anything.
    pub fn open() -> Result<Self, Failure> {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() || is_dumb {
            return Err(Failure::new(Exit::Usage, "--tui needs a terminal that can be drawn on").hint(
                "in a script: `replay INSTANCE --step` reads commands from stdin, `--history` prints all",
            ));
        }
        let terminal = ratatui::try_init().map_err(|error| {
            Failure::new(Exit::Refused, format!("the terminal cannot be drawn on: {error}"))
        })?;
        // What was set above puts back everything but the cursor.
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            put_back();
            told(panic);
        }));
        Ok(Self { terminal })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put_back();
    }
}

/// The terminal as it was.
pub fn put_back() {
    // There is nobody to tell that it cannot be put back.
    let _ = ratatui::try_restore();
    let _ = execute!(std::io::stdout(), Show);
}
