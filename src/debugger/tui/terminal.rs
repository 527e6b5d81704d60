//! The terminal while it is a screen, and as it was before.
//!
//! Invariant: however this ends (a key, an error, a panic, a signal that can be caught), the terminal is as it was:
//! cooked, on its own screen, with a cursor.

use crate::exit::{Exit, Failure};
use ratatui::DefaultTerminal;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;
use std::sync::{Mutex, PoisonError};

/// What the newest panic said. A panic that is caught, as one in a fold is, leaves the screen as it is and says nothing.
static SAID: Mutex<Option<String>> = Mutex::new(None);

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send>;

/// A terminal that is a screen, until this is dropped.
pub struct Screen {
    /// What is drawn on.
    pub terminal: DefaultTerminal,
    /// Who told of panics before.
    told_before: Option<Hook>,
}

impl Screen {
    /// Makes a screen of the terminal. A panic that ends whoever owns it puts it back before it says anything.
    pub fn open() -> Result<Self, Failure> {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() || is_dumb {
            return Err(Failure::new(Exit::Usage, "--tui needs a terminal that can be drawn on").hint(
                "in a script: `replay INSTANCE --step` reads commands from stdin, `--history` prints all",
            ));
        }
        let told_before = std::panic::take_hook();
        let terminal = ratatui::try_init();
        // What was set in there puts the terminal back at every panic, also at one that is caught.
        std::panic::set_hook(Box::new(|panic| {
            *SAID.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic.to_string());
        }));
        match terminal {
            Ok(terminal) => Ok(Self { terminal, told_before: Some(told_before) }),
            Err(error) => {
                std::panic::set_hook(told_before);
                Err(Failure::new(Exit::Refused, format!("the terminal cannot be drawn on: {error}")))
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put_back();
        if std::thread::panicking() {
            let said = SAID.lock().unwrap_or_else(PoisonError::into_inner).take();
            eprintln!("{}", said.unwrap_or_default());
        } else if let Some(told_before) = self.told_before.take() {
            std::panic::set_hook(told_before);
        }
    }
}

/// The terminal as it was.
pub fn put_back() {
    // There is nobody to tell that it cannot be put back.
    let _ = ratatui::try_restore();
    let _ = execute!(std::io::stdout(), Show);
}
