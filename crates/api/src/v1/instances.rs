//! Instances.

use super::{recorded, repeat};
use crate::body::{Fields, not_allowed};
use crate::error::ApiError;
use crate::frame::Caller;
use crate::fresh::Arrived;
use crate::keyed::Once;
use crate::page::{Key, List, PageRequest, PageView, Place, SortBy};
use crate::query::Params;
use crate::refusal::command_error;
use crate::selector::{RawPath, instance, project_in_query};
use crate::state::App;
use crate::views::{InstanceView, Moment};
use actors::instance::Ask;
use actors::{Accepted, NewInstance};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use lifecycle::spec::NCPUS_MAX;
use lifecycle::{AutoRestartPolicy, InstanceId, InstanceSpec, ProjectId, Size, SpecChange};
use projections::InstanceRow;
use std::sync::Arc;
use uuid::Uuid;

const SORTS: &[SortBy] = &[SortBy::NameAscending, SortBy::NameDescending, SortBy::IdAscending];

const CREATE_FIELDS: &[&str] = &[
    "name",
    "description",
    "hostname",
    "ncpus",
    "memory",
    "start",
    "auto_restart_policy",
    "cpu_platform",
    "enable_jumbo_frames",
];

const UPDATE_FIELDS: &[&str] =
    &["ncpus", "memory", "auto_restart_policy", "boot_disk", "cpu_platform", "enable_jumbo_frames"];

pub(super) async fn list(
    State(app): State<Arc<App>>,
    arrived: Arrived,
    params: Params,
) -> Result<Json<PageView<InstanceView>>, ApiError> {
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
    let moment = app.moment();
    Ok(Json(place.page(page, key, |row| InstanceView::of_row(row, moment))))
}

async fn row(arrived: &Arrived, params: &Params, path: RawPath) -> Result<InstanceRow, ApiError> {
    let found = instance(path, params, arrived).await?;
    let row = arrived.fresh().await?.read(|model| model.instance(found.id));
    row.ok_or_else(|| found.not_found())
}

pub(super) async fn view(
    State(app): State<Arc<App>>,
    arrived: Arrived,
    params: Params,
    path: RawPath,
) -> Result<Json<InstanceView>, ApiError> {
    Ok(Json(InstanceView::of_row(row(&arrived, &params, path).await?, app.moment())))
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
    once: Once,
    params: Params,
    body: Bytes,
) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body, CREATE_FIELDS)?;
    let unplaced = Unplaced::read(&fields)?;
    let start = fields.flag_or("start", true)?;
    let project = project_in_query(&params, &arrived).await?;
    let new = NewInstance { spec: unplaced.within(project.id), start };
    let turn = once.turn(&app).await?;
    if let Some(position) = turn.recorded {
        let accepted = repeat::created(&app, position, &new)?;
        return Ok(answer_created(accepted, app.moment()));
    }
    let moment = app.moment();
    let created = turn.perform(async move { app.control.create_instance(new, caller).await }).await?;
    Ok(answer_created(created.map_err(|error| command_error(error, || project.not_found()))?, moment))
}

fn answer_created(Accepted { instance, position }: Accepted, moment: Moment) -> Response {
    recorded(position, (StatusCode::CREATED, Json(InstanceView::of(*instance, moment))))
}

/// The body of a create: everything but the project.
struct Unplaced {
    name: String,
    description: String,
    hostname: String,
    size: Size,
    auto_restart: Option<AutoRestartPolicy>,
    cpu_platform: Option<String>,
    jumbo_frames: bool,
}

impl Unplaced {
    fn read(fields: &Fields) -> Result<Self, ApiError> {
        let name = fields.text("name")?.to_owned();
        let description = fields.text("description")?.to_owned();
        let hostname = fields.text("hostname")?.to_owned();
        let (size, auto_restart) = (size(fields)?, auto_restart(fields)?);
        let cpu_platform = fields.optional_text("cpu_platform")?.map(str::to_owned);
        let jumbo_frames = fields.flag_or("enable_jumbo_frames", false)?;
        Ok(Self { name, description, hostname, size, auto_restart, cpu_platform, jumbo_frames })
    }

    fn within(self, project: ProjectId) -> InstanceSpec {
        let Self { name, description, hostname, size, auto_restart, cpu_platform, jumbo_frames } = self;
        InstanceSpec {
            project,
            name,
            description,
            hostname,
            size,
            auto_restart,
            cpu_platform,
            boot_disk: None,
            jumbo_frames,
        }
    }
}

fn size(fields: &Fields) -> Result<Size, ApiError> {
    let ncpus = u16::try_from(fields.number("ncpus")?)
        .map_err(|_| not_allowed("ncpus", format!("ncpus must be between 1 and {NCPUS_MAX}")))?;
    Ok(Size { ncpus, memory: fields.number("memory")? })
}

fn auto_restart(fields: &Fields) -> Result<Option<AutoRestartPolicy>, ApiError> {
    match fields.optional_text("auto_restart_policy")? {
        None => Ok(None),
        Some("never") => Ok(Some(AutoRestartPolicy::Never)),
        Some("best_effort") => Ok(Some(AutoRestartPolicy::BestEffort)),
        Some(_) => {
            let problem = "auto_restart_policy must be \"never\" or \"best_effort\"";
            Err(not_allowed("auto_restart_policy", problem))
        }
    }
}

/// The body of an update: everything that may change, as it shall be.
fn change(fields: &Fields) -> Result<SpecChange, ApiError> {
    let boot_disk = match fields.optional_text("boot_disk")? {
        None => None,
        Some(text) => Some(Uuid::try_parse(text).map_err(|_| {
            not_allowed("boot_disk", "boot_disk must be a disk's UUID: musher keeps it, and has no disks")
        })?),
    };
    Ok(SpecChange {
        size: size(fields)?,
        auto_restart: auto_restart(fields)?,
        cpu_platform: fields.optional_text("cpu_platform")?.map(str::to_owned),
        boot_disk,
        jumbo_frames: fields.flag_or("enable_jumbo_frames", false)?,
    })
}

pub(super) async fn update(about: About, path: RawPath, body: Bytes) -> Result<Response, ApiError> {
    let moment = about.0.moment();
    let change = Box::new(change(&Fields::parse(&body, UPDATE_FIELDS)?)?);
    let Accepted { instance, position } = accepted(about, path, Ask::Update { change }).await?;
    Ok(recorded(position, (StatusCode::OK, Json(InstanceView::of(*instance, moment)))))
}

/// What a request about one instance consists of; its body, if there is one, is not looked at.
pub(crate) type About = (State<Arc<App>>, Caller, Arrived, Once, Params);

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
    let moment = about.0.moment();
    let Accepted { instance, position } = accepted(about, path, ask).await?;
    Ok(recorded(position, (StatusCode::ACCEPTED, Json(InstanceView::of(*instance, moment)))))
}

/// Asks an instance, or answers as before what was asked with the same key.
pub(crate) async fn accepted(about: About, path: RawPath, ask: Ask) -> Result<Accepted, ApiError> {
    let (State(app), Caller(caller), arrived, once, params) = about;
    let turn = once.turn(&app).await?;
    if let Some(position) = turn.recorded {
        return repeat::ordered(&app, position, &ask, path, &params, &arrived).await;
    }
    let found = instance(path, &params, &arrived).await?;
    let id = found.id;
    let asked = turn.perform(async move { app.control.ask(id, ask, caller).await }).await?;
    asked.map_err(|error| command_error(error, || found.not_found()))
}
