//! Whether checkpoints are right: each is compared with the fold of the log from its beginning.

use crate::directory::{list, open};
use crate::error::{MakeError, Unusable};
use crate::make::fold_up_to;
use crate::past::Past;
use crate::state::State;
use eventlog::{Position, StoreId};
use std::path::{Path, PathBuf};

/// A checkpoint, compared.
#[derive(Debug)]
pub struct Compared {
    /// Its file.
    pub path: PathBuf,
    /// Where it says it is.
    pub position: Position,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of a comparison.
#[derive(Debug)]
pub enum Verdict {
    /// It is the fold.
    Same,
    /// It can be read, and is another state than the fold: it must not be used, and should never have been made.
    Differs(&'static str),
    /// It cannot be read; a start passes it over.
    Unusable(Unusable),
}

/// Compares every checkpoint in a directory with the fold of the log, oldest first. The log must be whole.
pub fn compare(dir: &Path, store: StoreId, past: &dyn Past) -> Result<Vec<Compared>, MakeError> {
    let (mut state, durable) = (State::default(), past.durable());
    let mut compared = Vec::new();
    for (position, path) in list(dir)? {
        let verdict = match open(&path, store) {
            Err(why) => Verdict::Unusable(why),
            Ok(_) if position > durable => Verdict::Unusable(Unusable::BeyondEnd { position, durable }),
            Ok(kept) => {
                fold_up_to(&mut state, past, position)?;
                if kept.anchor == state.anchor {
                    kept.difference(&state).map_or(Verdict::Same, Verdict::Differs)
                } else {
                    Verdict::Unusable(Unusable::OtherHistory)
                }
            }
        };
        compared.push(Compared { path, position, verdict });
    }
    Ok(compared)
}
