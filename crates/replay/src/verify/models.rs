//! The read model against the folds: the one that is folded here from the whole log, and the one that a stopped
//! directory keeps.
//!
//! Invariant: a read model at a position is a function of the log up to there, however it got there.

use super::{Finding, FindingKind, Progress, VerifyReport};
use crate::at::At;
use crate::error::Error;
use crate::fleet::Folds;
use crate::source::{Flow, Source, each_record};
use lifecycle::Instance;
use projections::ReadModel;

/// Folds the read model from the log, compares `stored` with it at its position, and every instance of it with
/// the instance's own fold at the end. What differs is added to `report`.
pub fn verify_read_model(
    source: &dyn Source,
    stored: Option<&ReadModel>,
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Error> {
    let (mut model, mut folds) = (ReadModel::default(), Folds::default());
    let mut stored = stored.filter(|stored| stored.position().get() > 0);
    let mut gap = None;
    each_record(source, source.durable().get(), progress, &mut |record| {
        if let Err(error) = model.apply_record(&record) {
            gap = Some(error.to_string());
            return Ok(Flow::Break(()));
        }
        folds.take(record, At::Now);
        if let Some(stored) = stored.take_if(|stored| stored.position() == model.position()) {
            report.rows += model.instance_states().count() as u64;
            if *stored != model {
                let detail = "the cache's read model is not the fold up to its position; forget the cache";
                report.add(Finding::of_log(FindingKind::ReadModelDiffers, model.position().get(), detail));
            }
        }
        Ok(Flow::Continue(()))
    })?;
    let end = model.position().get();
    let differs = |detail: String| Finding::of_log(FindingKind::ReadModelDiffers, end, detail);
    if let Some(gap) = gap {
        report.add(differs(gap));
        return Ok(());
    }
    if let Some(stored) = stored {
        let detail = format!("the cache's read model is at position {}, beyond the log", stored.position());
        report.add(differs(detail));
    }
    for row in model.instance_states() {
        report.rows += 1;
        if folds.instances.get(&row.id).and_then(Option::as_ref) != Some(row) {
            report.add(of(row, "the read model's row is not the fold of its stream"));
        }
    }
    for state in folds.instances.values().flatten().filter(|state| state.deleted.is_none()) {
        if model.instance_state(state.id).is_none() {
            report.add(of(state, "the read model has no row of it"));
        }
    }
    Ok(())
}

fn of(state: &Instance, detail: &str) -> Finding {
    let place = (state.head.version, state.head.position);
    Finding::of_instance(FindingKind::ReadModelDiffers, state.id, place, detail)
}
