//! The command line as the documents show it: every command on a page is run, or at least read, as it stands there;
//! the reference names every command and flag that there is; every error says what to do.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

#[path = "commands/hints.rs"]
mod hints;
#[path = "commands/pages.rs"]
mod pages;
#[path = "commands/reference.rs"]
mod reference;

mod daemon;

/// The words of a command line: quotes hold together what they enclose.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate().flat_map(|(nth, part)| match nth % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
        _ => vec![part.to_owned()],
    });
    parts.collect()
}
