//! Sagas, under way and over: steps, timing, how they ended.

use super::migrations::{Rows, RowsView, seconds, uuid};
use super::verbs::accepted;
use crate::error::ApiError;
use crate::frame::Caller;
use crate::fresh::Arrived;
use crate::keyed::Once;
use crate::query::Params;
use crate::refusal::command_error;
use crate::selector::{RawPath, path_text};
use crate::state::App;
use crate::v1::repeat;
use actors::instance::Ask;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use lifecycle::instance::{Pause, PauseCause};
use lifecycle::saga::{SagaKind, definition};
use lifecycle::{InstanceId, Origin, SagaId, Step, VmmId};
use projections::{Order, SagaOutcome, SagaRow};
use replay::time::rfc3339;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

#[derive(Serialize, ToSchema)]
#[schema(as = Saga)]
pub(super) struct SagaView {
    #[schema(value_type = uuid::Uuid)]
    id: SagaId,
    #[schema(value_type = String)]
    kind: SagaKind,
    #[schema(value_type = uuid::Uuid)]
    instance_id: InstanceId,
    #[schema(value_type = uuid::Uuid)]
    vmm_id: VmmId,
    /// `user`, `creation` or `automatic`.
    #[schema(value_type = String)]
    origin: Origin,
    steps: Vec<StepView>,
    time_started: String,
    deadline_s: u64,
    time_ended: Option<String>,
    /// Seconds from beginning to end.
    took_s: Option<f64>,
    /// Since when and why it is held at its step; none if it is not.
    pause: Option<PauseView>,
    /// `done`, `not_done` or `unwound`; none while it is under way.
    outcome: Option<&'static str>,
    /// Why it went back, if it did.
    #[schema(schema_with = word_or_object)]
    reason: Option<lifecycle::instance::UnwindReason>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SagaPause)]
struct PauseView {
    since: String,
    /// `requested` or `failures`.
    cause: &'static str,
    /// How often in a row its step had failed, if that is why.
    failures: Option<u32>,
}

impl From<Pause> for PauseView {
    fn from(pause: Pause) -> Self {
        let (cause, failures) = match pause.cause {
            PauseCause::Requested => ("requested", None),
            PauseCause::Failures { count } => ("failures", Some(count)),
        };
        Self { since: rfc3339(pause.since), cause, failures }
    }
}

/// A word, or an object of one word, as the log has it.
fn word_or_object() -> Object {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Object, Type::Null])).build()
}

#[derive(Serialize, ToSchema)]
#[schema(as = SagaStep)]
struct StepView {
    #[schema(value_type = String)]
    step: Step,
    does: &'static str,
    /// `complete`, `current`, `pending` or `undone`.
    state: &'static str,
    /// Since when it is the current one, or when the saga ended at it.
    since: Option<String>,
    is_point_of_no_return: bool,
}

impl From<SagaRow> for SagaView {
    fn from(row: SagaRow) -> Self {
        let undone: &[Step] = match row.end.as_ref().map(|end| &end.outcome) {
            Some(SagaOutcome::Unwound { undone, .. }) => undone,
            _ => &[],
        };
        let is_done = matches!(row.end.as_ref().map(|end| &end.outcome), Some(SagaOutcome::Done));
        let state = |step: Step| match () {
            () if undone.contains(&step) => "undone",
            () if step < row.step || is_done => "complete",
            () if step == row.step => "current",
            () => "pending",
        };
        let steps = definition(row.kind).steps.iter().map(|def| StepView {
            step: def.step,
            does: def.name,
            state: state(def.step),
            since: (def.step == row.step).then(|| rfc3339(row.step_started)),
            is_point_of_no_return: def.is_point_of_no_return,
        });
        let (outcome, reason) = match row.end.as_ref().map(|end| &end.outcome) {
            None => (None, None),
            Some(SagaOutcome::Done) => (Some("done"), None),
            Some(SagaOutcome::NotDone) => (Some("not_done"), None),
            Some(SagaOutcome::Unwound { reason, .. }) => (Some("unwound"), Some(*reason)),
        };
        Self {
            id: row.id,
            kind: row.kind,
            instance_id: row.instance,
            vmm_id: row.vmm,
            origin: row.origin,
            steps: steps.collect(),
            time_started: rfc3339(row.started),
            deadline_s: row.deadline.micros() / 1_000_000,
            time_ended: row.end.as_ref().map(|end| rfc3339(end.at)),
            took_s: row.end.as_ref().map(|end| seconds(end.at.since(row.started))),
            pause: row.pause.filter(|_| row.end.is_none()).map(PauseView::from),
            outcome,
            reason,
        }
    }
}

pub(super) async fn list(arrived: Arrived, params: Params) -> Result<Json<RowsView<SagaView>>, ApiError> {
    let Rows { after, limit, among } = Rows::read(&params)?;
    let page = arrived
        .fresh()
        .await?
        .read(|model| model.sagas(among, Order::Ascending, after.map(SagaId::new), limit));
    let next_after = page.rows.last().filter(|_| !page.is_last).map(|row| row.id.uuid());
    Ok(Json(RowsView { items: page.rows.into_iter().map(SagaView::from).collect(), next_after }))
}

async fn row(arrived: &Arrived, path: RawPath) -> Result<SagaRow, ApiError> {
    let id = uuid("saga", &path_text(path)?)?;
    let row = arrived.fresh().await?.read(|model| model.saga(SagaId::new(id)).cloned());
    row.ok_or_else(|| ApiError::not_found("saga", &format!("id \"{id}\"")))
}

pub(super) async fn view(arrived: Arrived, path: RawPath) -> Result<Json<SagaView>, ApiError> {
    Ok(Json(row(&arrived, path).await?.into()))
}

/// What can be asked of a saga that is under way.
macro_rules! verbs {
    ($($verb:ident: $ask:ident),*) => {$(
        pub(super) async fn $verb(
            app: State<Arc<App>>,
            caller: Caller,
            arrived: Arrived,
            once: Once,
            path: RawPath,
        ) -> Result<Response, ApiError> {
            ask(app, caller, arrived, once, path, |saga| Ask::$ask { saga }).await
        }
    )*};
}

verbs!(cancel: CancelSaga, pause: PauseSaga, resume: ResumeSaga, retry: RetrySaga);

async fn ask(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    arrived: Arrived,
    once: Once,
    path: RawPath,
    wanted: fn(SagaId) -> Ask,
) -> Result<Response, ApiError> {
    let turn = once.turn(&app).await?;
    if let Some(position) = turn.recorded {
        let saga = SagaId::new(uuid("saga", &path_text(path)?)?);
        return repeat::of_saga(&app, position, &wanted(saga)).map(accepted);
    }
    let row = row(&arrived, path).await?;
    let (instance, saga) = (row.instance, row.id);
    let asked = turn.perform(async move { app.control.ask(instance, wanted(saga), caller).await }).await?;
    let gone = || ApiError::not_found("saga", &format!("id \"{saga}\""));
    asked.map(accepted).map_err(|error| command_error(error, gone))
}
