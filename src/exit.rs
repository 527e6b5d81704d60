//! Exit codes and the one shape in which an error is told (`docs/cli.md`).

use std::fmt;
use std::process::ExitCode;

/// Why a command did not do what was asked. The number is its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done: what was asked for was a plan, and it has been shown.
    Done = 0,
    /// Refused, or something was found.
    Refused = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// A wait took too long.
    TimedOut = 3,
    /// The daemon cannot be reached.
    Unreachable = 4,
    /// Data is damaged.
    Damaged = 5,
    /// Interrupted.
    Interrupted = 130,
}

impl Exit {
    /// What to do where an error has nothing better to say; none where something was merely found, or asked for.
    const fn advice(self) -> Option<&'static str> {
        match self {
            Self::Done | Self::Refused | Self::Interrupted => None,
            Self::Usage => Some("`--help` after the command says what it takes"),
            Self::TimedOut => Some("the work goes on; `musher instance explain NAME` says what it waits for"),
            Self::Unreachable => {
                Some("is the daemon up? `musher ping`, and `musher doctor` on its host, tell")
            }
            Self::Damaged => {
                Some("`musher log verify` names the places; `musher log restore` brings a backup back")
            }
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error as people read it: what happened, what to do about it, and the request it belongs to.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, and why.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
    /// The request.
    pub request_id: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), hint: None, request_id: None }
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        if let Some(hint) = self.hint.as_deref().or(self.exit.advice()) {
            write!(f, "\n  hint: {hint}")?;
        }
        if let Some(request_id) = &self.request_id {
            write!(f, "\n  request: {request_id}")?;
        }
        Ok(())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Refused, format!("{error:#}"))
    }
}

/// What a command answers.
pub type Outcome = Result<(), Failure>;
