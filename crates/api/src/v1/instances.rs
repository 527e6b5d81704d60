//! Instances.

use super::recorded;
use crate::body::{Fields, not_allowed};
use crate::error::ApiError;
use crate::frame::Caller;
use crate::fresh::Arrived;
use crate::page::{Key, List, PageRequest, PageView, Place, SortBy};
use crate::query::Params;
use crate::refusal::command_error;
use crate::selector::{RawPath, instance, project_in_query};
use crate::state::App;
use crate::views::InstanceView;
use actors::instance::Ask;
use actors::{Accepted, NewInstance};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use lifecycle::spec::NCPUS_MAX;
use lifecycle::{AutoRestartPolicy, InstanceId, InstanceSpec, ProjectId, Size};
use projections::InstanceRow;
use std::sync::Arc;

const SORTS: &[SortBy] = &[SortBy::NameAscending, SortBy::NameDescending, SortBy::IdAscending];

const CREATE_FIELDS: &[&str] =
    &["name", "description", "hostname", "ncpus", "memory", "start", "auto_restart_policy"];

pub(super) async fn list(arrived: Arrived, params: Params) -> Result<Json<PageView<InstanceView>>, ApiError> {
    let PageRequest { resumed, limit } = PageRequest::read(List::Instances, &params)?;
    let place = match resumed {
        Some(place) => place,
        None => {
            let project = project_in_query(&params, &arrived).await?;
            Place::start(List::Instances, Some(project.id.uuid()), SORTS, &params)?
        }
    };
    let scan = place.scan(InstanceId::new)?;
    let project = ProjectId::new(place.within.unwrap_or_default());
    let page = arrived.fresh().await?.read(|model| model.instances(project, &scan, limit));
    let key = |row: &InstanceRow| Key { name: row.spec.name.clone(), id: row.id.uuid() };
    Ok(Json(place.page(page, key, InstanceView::from)))
}

async fn row(arrived: &Arrived, params: &Params, path: RawPath) -> Result<InstanceRow, ApiError> {
    let found = instance(path, params, arrived).await?;
    let row = arrived.fresh().await?.read(|model| model.instance(found.id));
    row.ok_or_else(|| found.not_found())
}

pub(super) async fn view(
    arrived: Arrived,
    params: Params,
    path: RawPath,
) -> Result<Json<InstanceView>, ApiError> {
    Ok(Json(row(&arrived, &params, path).await?.into()))
}

/// A list of what no instance has; the instance must exist all the same.
pub(super) async fn nothing(
    arrived: Arrived,
    params: Params,
    path: RawPath,
) -> Result<Json<PageView<()>>, ApiError> {
    row(&arrived, &params, path).await?;
    Ok(Json(PageView::empty()))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    arrived: Arrived,
    params: Params,
    body: Bytes,
) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body, CREATE_FIELDS)?;
    let unplaced = Unplaced::read(&fields)?;
    let start = fields.flag_or("start", true)?;
    let project = project_in_query(&params, &arrived).await?;
    let new = NewInstance { spec: unplaced.within(project.id), start };
    let created = app.control.create_instance(new, caller).await;
    let Accepted { instance, position } =
        created.map_err(|error| command_error(error, || project.not_found()))?;
    Ok(recorded(position, (StatusCode::CREATED, Json(InstanceView::from(*instance)))))
}

/// The body of a create: everything but the project.
struct Unplaced {
    name: String,
    description: String,
    hostname: String,
    size: Size,
    auto_restart: Option<AutoRestartPolicy>,
}

impl Unplaced {
    fn read(fields: &Fields) -> Result<Self, ApiError> {
        let name = fields.text("name")?.to_owned();
        let description = fields.text("description")?.to_owned();
        let hostname = fields.text("hostname")?.to_owned();
        let ncpus = u16::try_from(fields.number("ncpus")?)
            .map_err(|_| not_allowed("ncpus", format!("ncpus must be between 1 and {NCPUS_MAX}")))?;
        let memory = fields.number("memory")?;
        let auto_restart = match fields.optional_text("auto_restart_policy")? {
            None => None,
            Some("never") => Some(AutoRestartPolicy::Never),
            Some("best_effort") => Some(AutoRestartPolicy::BestEffort),
            Some(_) => {
                let problem = "auto_restart_policy must be \"never\" or \"best_effort\"";
                return Err(not_allowed("auto_restart_policy", problem));
            }
        };
        Ok(Self { name, description, hostname, size: Size { ncpus, memory }, auto_restart })
    }

    fn within(self, project: ProjectId) -> InstanceSpec {
        let Self { name, description, hostname, size, auto_restart } = self;
        InstanceSpec { project, name, description, hostname, size, auto_restart }
    }
}

/// What a request about one instance consists of; its body, if there is one, is not looked at.
type About = (State<Arc<App>>, Caller, Arrived, Params);

pub(super) async fn start(about: About, path: RawPath) -> Result<Response, ApiError> {
    order(about, path, Ask::Start).await
}

pub(super) async fn stop(about: About, path: RawPath) -> Result<Response, ApiError> {
    order(about, path, Ask::Stop).await
}

pub(super) async fn reboot(about: About, path: RawPath) -> Result<Response, ApiError> {
    order(about, path, Ask::Reboot).await
}

pub(super) async fn delete(about: About, path: RawPath) -> Result<Response, ApiError> {
    let Accepted { position, .. } = accepted(about, path, Ask::Delete).await?;
    Ok(recorded(position, StatusCode::NO_CONTENT))
}

async fn order(about: About, path: RawPath, ask: Ask) -> Result<Response, ApiError> {
    let Accepted { instance, position } = accepted(about, path, ask).await?;
    Ok(recorded(position, (StatusCode::ACCEPTED, Json(InstanceView::from(*instance)))))
}

async fn accepted(about: About, path: RawPath, ask: Ask) -> Result<Accepted, ApiError> {
    let (State(app), Caller(caller), arrived, params) = about;
    let found = instance(path, &params, &arrived).await?;
    let asked = app.control.ask(found.id, ask, caller).await;
    asked.map_err(|error| command_error(error, || found.not_found()))
}
