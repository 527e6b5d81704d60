//! Projects.

use super::{recorded, unreadable};
use crate::body::Fields;
use crate::error::ApiError;
use crate::frame::Caller;
use crate::fresh::Arrived;
use crate::keyed::{Once, used_otherwise};
use crate::page::{Key, List, PageRequest, PageView, Place, SortBy};
use crate::query::Params;
use crate::refusal::command_error;
use crate::selector::{RawPath, project_in_path};
use crate::state::App;
use crate::views::ProjectView;
use actors::projects::ProjectAsk;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use eventlog::Position;
use journal::Event;
use lifecycle::ProjectId;
use lifecycle::event::ProjectEvent;
use lifecycle::project::Project;
use std::sync::Arc;

const SORTS: &[SortBy] = &[SortBy::NameAscending, SortBy::NameDescending, SortBy::IdAscending];

pub(super) async fn list(arrived: Arrived, params: Params) -> Result<Json<PageView<ProjectView>>, ApiError> {
    let PageRequest { resumed, limit } = PageRequest::read(List::Projects, &params)?;
    let place = match resumed {
        Some(place) => place,
        None => Place::start(List::Projects, None, SORTS, &params)?,
    };
    let scan = place.scan(ProjectId::new)?;
    let page = arrived.fresh().await?.read(|model| model.projects(&scan, limit));
    let key = |project: &Project| Key { name: project.name.clone(), id: project.id.uuid() };
    Ok(Json(place.page(page, key, ProjectView::from)))
}

pub(super) async fn view(arrived: Arrived, path: RawPath) -> Result<Json<ProjectView>, ApiError> {
    let found = project_in_path(path, &arrived).await?;
    let project = arrived.fresh().await?.read(|model| model.project(found.id).cloned());
    project.map(|project| Json(project.into())).ok_or_else(|| found.not_found())
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    once: Once,
    body: Bytes,
) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body, &["name", "description"])?;
    let name = fields.text("name")?.to_owned();
    let description = fields.text("description")?.to_owned();
    let turn = once.turn(&app).await?;
    if let Some(position) = turn.recorded {
        let (project, position) = created(&app, position, &name, &description)?;
        return Ok(recorded(position, (StatusCode::CREATED, Json(ProjectView::from(project)))));
    }
    let ask = ProjectAsk::Create { name, description };
    let asked = turn.perform(async move { app.control.ask_project(None, ask, caller).await }).await?;
    let never = || ApiError::internal("a project that is being created was not found");
    let (project, position) = asked.map_err(|error| command_error(error, never))?;
    Ok(recorded(position, (StatusCode::CREATED, Json(ProjectView::from(project)))))
}

/// The project as it was created by an earlier request with the same key; refused if that asked for another.
fn created(app: &App, position: Position, name: &str, description: &str) -> Result<(Project, u64), ApiError> {
    let records = app.control.log().read_all(position, 1).map_err(|error| unreadable(&error))?;
    let first = records.first().ok_or_else(|| ApiError::internal("a durable position cannot be read"))?;
    let recorded = journal::read(first).map_err(|error| unreadable(&error))?;
    let asked_the_same = matches!(
        &recorded.event,
        Event::Project(ProjectEvent::Created { name: created, description: about, .. })
            if created == name && about == description
    );
    if !asked_the_same {
        return Err(used_otherwise());
    }
    let project = journal::fold_project([first]).map_err(|error| unreadable(&error))?;
    let project = project.ok_or_else(|| ApiError::internal("a creation leaves no project"))?;
    Ok((project, recorded.meta.position))
}

pub(super) async fn update(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    arrived: Arrived,
    path: RawPath,
    body: Bytes,
) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body, &["name", "description"])?;
    let name = fields.optional_text("name")?.map(str::to_owned);
    let description = fields.optional_text("description")?.map(str::to_owned);
    let found = project_in_path(path, &arrived).await?;
    let asked =
        app.control.ask_project(Some(found.id), ProjectAsk::Change { name, description }, caller).await;
    let (project, position) = asked.map_err(|error| command_error(error, || found.not_found()))?;
    Ok(recorded(position, Json(ProjectView::from(project))))
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    arrived: Arrived,
    path: RawPath,
) -> Result<Response, ApiError> {
    let found = project_in_path(path, &arrived).await?;
    let asked = app.control.ask_project(Some(found.id), ProjectAsk::Delete, caller).await;
    let (_, position) = asked.map_err(|error| command_error(error, || found.not_found()))?;
    Ok(recorded(position, StatusCode::NO_CONTENT))
}
