//! The one binary: daemon, command line, replay and chaos.

fn main() {}
