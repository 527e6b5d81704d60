//! Lines from a terminal, with editing, history and completion.

use lifecycle::Instance;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};

/// Lines that are remembered.
const HISTORY_LINES_MAX: usize = 1_000;

/// A prompt. What was typed is remembered until it goes away, and nowhere written.
pub struct Lines {
    editor: Editor<Offers, MemHistory>,
}

/// What came of a prompt.
pub enum Line {
    /// This was typed.
    Typed(String),
    /// There is nothing more to come.
    End,
    /// Ctrl-C.
    Interrupted,
}

/// Words that a line may go on with, by the state where one stands.
struct Offers {
    state: Instance,
}

impl Lines {
    /// On the terminal of this process.
    pub fn open(state: &Instance) -> Result<Self, ReadlineError> {
        let config = Config::builder()
            .max_history_size(HISTORY_LINES_MAX)?
            .history_ignore_dups(true)?
            .auto_add_history(true)
            .completion_type(CompletionType::List)
            .build();
        let history = MemHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history)?;
        editor.set_helper(Some(Offers { state: state.clone() }));
        Ok(Self { editor })
    }

    /// Asks for the next line; `state` says what it may be about.
    pub fn ask(&mut self, prompt: &str, state: &Instance) -> Result<Line, ReadlineError> {
        if let Some(offers) = self.editor.helper_mut() {
            offers.state = state.clone();
        }
        match self.editor.readline(prompt) {
            Ok(line) => Ok(Line::Typed(line)),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
            Err(error) => Err(error),
        }
    }
}

impl Completer for Offers {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let (start, mut words) = replay::completions(&self.state, line.get(..pos).unwrap_or(line));
        // Behind a command its argument comes.
        if let ([command], 0) = (words.as_mut_slice(), start) {
            command.push(' ');
        }
        Ok((start, words))
    }
}

impl Hinter for Offers {
    type Hint = String;
}

impl Highlighter for Offers {}
impl Validator for Offers {}
impl Helper for Offers {}
