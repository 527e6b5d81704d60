//! `replay --step`: on a terminal a prompt with editing, history and completion; from anything else, such as a script,
//! commands one per line.

use super::edited::{Line, Lines};
use super::past::Past;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::real::SystemClock;
use actors::Clock as _;
use lifecycle::InstanceId;
use replay::Session;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};

/// Longest line that is read, bytes: more is no command.
const LINE_BYTES_MAX: u64 = 4_096;

/// Reads commands until the end. On a terminal a command that cannot be carried out is told; in a script it ends
/// the walk.
pub fn run(past: &Past, id: InstanceId, at: Option<&str>) -> Outcome {
    let mut session =
        Session::open(past.source(), id, SystemClock.now()).map_err(|error| past.failure(error))?;
    if let Some(at) = at {
        let reply = session.run(&format!("goto {at}"));
        if reply.is_refused {
            return Err(Failure::new(Exit::Refused, reply.text));
        }
    }
    output::line(session.place());
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        from_terminal(&mut session)
    } else {
        from_script(&mut session)
    }
}

fn from_terminal(session: &mut Session<'_>) -> Outcome {
    let unread = |error| Failure::new(Exit::Refused, format!("the command cannot be read: {error}"));
    let mut lines = Lines::open(session.state()).map_err(unread)?;
    loop {
        let prompt = format!("#{}> ", session.entries()[session.at()].version);
        let reply = match lines.ask(&prompt, session.state()).map_err(unread)? {
            Line::Typed(line) => session.run(&line),
            Line::End => return Ok(()),
            Line::Interrupted => return Err(Failure::new(Exit::Interrupted, "interrupted")),
        };
        if !reply.text.is_empty() {
            output::line(reply.text);
        }
        if reply.is_over {
            return Ok(());
        }
    }
}

fn from_script(session: &mut Session<'_>) -> Outcome {
    let is_prompted = std::io::stdin().is_terminal();
    let mut stdin = std::io::stdin().lock();
    loop {
        if is_prompted {
            // Who does not see the prompt can still type.
            let _ = write!(std::io::stderr(), "#{}> ", session.entries()[session.at()].version);
        }
        let mut line = Vec::new();
        let read = stdin.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        read.map_err(|error| Failure::new(Exit::Refused, format!("the command cannot be read: {error}")))?;
        if line.is_empty() {
            return Ok(());
        }
        let reply = session.run(&String::from_utf8_lossy(&line));
        if reply.is_refused && !is_prompted {
            return Err(Failure::new(Exit::Refused, reply.text));
        }
        if !reply.text.is_empty() {
            output::line(reply.text);
        }
        if reply.is_over {
            return Ok(());
        }
    }
}
