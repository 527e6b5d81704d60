//! `musher chaos …`.
use crate::cli::ChaosVerb;
use std::process::ExitCode;
pub fn run(_verb: ChaosVerb) -> ExitCode {
    ExitCode::SUCCESS
}
