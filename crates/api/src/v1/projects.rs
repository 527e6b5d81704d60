//! Projects.

use super::recorded;
use crate::body::Fields;
use crate::error::ApiError;
use crate::frame::Caller;
use crate::fresh::Arrived;
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
use lifecycle::ProjectId;
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
    let key =
        |project: &lifecycle::project::Project| Key { name: project.name.clone(), id: project.id.uuid() };
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
    body: Bytes,
) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body, &["name", "description"])?;
    let name = fields.text("name")?.to_owned();
    let description = fields.text("description")?.to_owned();
    let asked = app.control.ask_project(None, ProjectAsk::Create { name, description }, caller).await;
    let never = || ApiError::internal("a project that is being created was not found");
    let (project, position) = asked.map_err(|error| command_error(error, never))?;
    Ok(recorded(position, (StatusCode::CREATED, Json(ProjectView::from(project)))))
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
