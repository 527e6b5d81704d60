//! The trace: one line per transition, in fixed columns, and its hash.
//!
//! The hash covers every line whether or not lines are kept, so that a run compared is the run replayed.

use crate::draws::mix;
use std::fmt::{self, Write as _};

/// Most lines kept: enough for any shrunk run, little enough for a long one.
const LINES_MAX: usize = 200_000;

/// Lines of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    is_kept: bool,
    lines: Vec<String>,
    scratch: String,
    hash: u64,
}

impl Trace {
    /// An empty trace; `is_kept` says whether the lines are wanted or their hash only.
    pub(crate) fn new(is_kept: bool) -> Self {
        Self { is_kept, lines: Vec::new(), scratch: String::new(), hash: 0 }
    }

    /// Adds a line: seconds, what happened, to whom, and the rest.
    pub(crate) fn line(
        &mut self,
        now_us: u64,
        what: &str,
        whom: &dyn fmt::Display,
        rest: fmt::Arguments<'_>,
    ) {
        self.scratch.clear();
        let seconds = now_us / 1_000_000;
        let millis = now_us / 1_000 % 1_000;
        let written = write!(self.scratch, "{seconds:>5}.{millis:03}  {what:<10} {whom:<6} {rest}");
        written.expect("writing to a string cannot fail");
        for chunk in self.scratch.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.hash = mix(self.hash ^ u64::from_le_bytes(word));
        }
        if self.is_kept && self.lines.len() < LINES_MAX {
            self.lines.push(self.scratch.trim_end().to_owned());
        }
    }

    /// The hash of all lines so far.
    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines kept.
    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}
