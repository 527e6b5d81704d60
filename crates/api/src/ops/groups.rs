//! Anti-affinity groups of a project.

use crate::body::{Fields, not_allowed};
use crate::error::{ApiError, echo};
use crate::frame::Caller;
use crate::fresh::Arrived;
use crate::keyed::{Once, used_otherwise};
use crate::query::Params;
use crate::refusal::command_error;
use crate::selector::{FoundProject, RawPath, Selector, path_text, project_in_query};
use crate::state::App;
use crate::v1::recorded;
use crate::v1::repeat::together;
use actors::projects::ProjectAsk;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use eventlog::Position;
use journal::{Event, StreamName};
use lifecycle::project::GroupCommand;
use lifecycle::{GroupId, GroupPolicy, InstanceId, ProjectEvent, ProjectId};
use projections::{GroupRow, Order, PAGE_ROWS_MAX, Scan};
use replay::time::rfc3339;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = AntiAffinityGroup)]
pub(super) struct GroupView {
    #[schema(value_type = uuid::Uuid)]
    id: GroupId,
    #[schema(value_type = uuid::Uuid)]
    project_id: ProjectId,
    name: String,
    description: String,
    /// `allow` or `fail`.
    #[schema(value_type = String)]
    policy: GroupPolicy,
    /// What members are kept apart on: sleds.
    failure_domain: &'static str,
    #[schema(value_type = Vec<uuid::Uuid>)]
    members: Vec<InstanceId>,
    time_created: String,
    time_modified: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AntiAffinityGroups)]
pub(super) struct GroupsView {
    items: Vec<GroupView>,
    /// Whether the list goes on.
    is_cut_off: bool,
}

impl From<GroupRow> for GroupView {
    fn from(row: GroupRow) -> Self {
        Self {
            id: row.id,
            project_id: row.project,
            name: row.name,
            description: row.description,
            policy: row.policy,
            failure_domain: "sled",
            members: row.members,
            time_created: rfc3339(row.time_created),
            time_modified: rfc3339(row.time_modified),
        }
    }
}

pub(super) async fn list(arrived: Arrived, params: Params) -> Result<Json<GroupsView>, ApiError> {
    let project = project_in_query(&params, &arrived).await?;
    let scan = Scan::ByName { order: Order::Ascending, after: None };
    let page = arrived.fresh().await?.read(|model| model.groups(project.id, &scan, PAGE_ROWS_MAX));
    let items = page.rows.into_iter().map(GroupView::from).collect();
    Ok(Json(GroupsView { items, is_cut_off: !page.is_last }))
}

/// A group that was found, by id or by name within the project that the query names.
struct Found {
    id: GroupId,
    project: FoundProject,
    selector: Selector,
}

async fn find(text: &str, params: &Params, arrived: &Arrived) -> Result<Found, ApiError> {
    let selector = Selector::parse("anti-affinity-group", text)?;
    let project = project_in_query(params, arrived).await?;
    let id = arrived.fresh().await?.read(|model| match &selector {
        Selector::Id(id) => {
            model.group(GroupId::new(*id)).filter(|group| group.project == project.id).map(|group| group.id)
        }
        Selector::Name(name) => model.group_by_name(project.id, name),
    });
    match id {
        Some(id) => Ok(Found { id, project, selector }),
        None => Err(ApiError::not_found("anti-affinity-group", &selector.addressed())),
    }
}

pub(super) async fn view(
    arrived: Arrived,
    params: Params,
    path: RawPath,
) -> Result<Json<GroupView>, ApiError> {
    let found = find(&path_text(path)?, &params, &arrived).await?;
    let row = arrived.fresh().await?.read(|model| model.group(found.id));
    let row = row.ok_or_else(|| ApiError::not_found("anti-affinity-group", &found.selector.addressed()))?;
    Ok(Json(row.into()))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Caller(caller): Caller,
    arrived: Arrived,
    once: Once,
    params: Params,
    body: Bytes,
) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body, &["name", "description", "policy"])?;
    let (name, description) = (fields.text("name")?.to_owned(), fields.optional_text("description")?);
    let description = description.unwrap_or_default().to_owned();
    let policy = match fields.optional_text("policy")? {
        None | Some("allow") => GroupPolicy::Allow,
        Some("fail") => GroupPolicy::Fail,
        Some(other) => {
            let problem = format!("policy \"{}\" is neither \"allow\" nor \"fail\"", echo(other));
            return Err(not_allowed("policy", problem));
        }
    };
    let project = project_in_query(&params, &arrived).await?;
    let turn = once.turn(&app).await?;
    if let Some(position) = turn.recorded {
        let view = created_before(&app, position, project.id, (&name, &description, policy))?;
        return Ok(recorded(position.get(), (StatusCode::CREATED, Json(view))));
    }
    let group = GroupId::new(app.control.mint_request().uuid());
    let (id, command) = (project.id, GroupCommand::Create { group, name, description, policy });
    let ask = ProjectAsk::Group(command);
    let asked = turn.perform(async move { app.control.ask_project(Some(id), ask, caller).await }).await?;
    let (after, position) = asked.map_err(|error| command_error(error, || project.not_found()))?;
    let created = after.groups.get(&group).ok_or_else(|| ApiError::internal("a group was not created"))?;
    let view = GroupView {
        id: group,
        project_id: project.id,
        name: created.name.clone(),
        description: created.description.clone(),
        policy,
        failure_domain: "sled",
        members: Vec::new(),
        time_created: rfc3339(created.time_created),
        time_modified: rfc3339(created.time_modified),
    };
    Ok(recorded(position, (StatusCode::CREATED, Json(view))))
}

/// The group as it was created by an earlier request with the same key; refused if that asked for another.
fn created_before(
    app: &App,
    position: Position,
    project: ProjectId,
    asked: (&str, &str, GroupPolicy),
) -> Result<GroupView, ApiError> {
    let events = together(app, position)?;
    let first = events.first().filter(|first| first.stream == StreamName::Project(project));
    let first = first.ok_or_else(used_otherwise)?;
    let time = rfc3339(first.meta.time);
    match &first.event {
        Event::Project(ProjectEvent::GroupCreated { group, name, description, policy })
            if (name.as_str(), description.as_str(), *policy) == asked =>
        {
            Ok(GroupView {
                id: *group,
                project_id: project,
                name: name.clone(),
                description: description.clone(),
                policy: *policy,
                failure_domain: "sled",
                members: Vec::new(),
                time_created: time.clone(),
                time_modified: time,
            })
        }
        _ => Err(used_otherwise()),
    }
}

/// What a request about one group consists of; only posts have a key.
type About = (State<Arc<App>>, Caller, Arrived, Once, Params);

pub(super) async fn delete(about: About, path: RawPath) -> Result<Response, ApiError> {
    let text = path_text(path)?;
    change(about, &text, |group| GroupCommand::Delete { group }).await
}

/// Group and member of a path.
type RawMember = Result<Path<(String, String)>, PathRejection>;

pub(super) async fn join(about: About, path: RawMember) -> Result<Response, ApiError> {
    let (text, member) = member(&about, path).await?;
    change(about, &text, |group| GroupCommand::Join { group, instance: member }).await
}

pub(super) async fn leave(about: About, path: RawMember) -> Result<Response, ApiError> {
    let (text, member) = member(&about, path).await?;
    change(about, &text, |group| GroupCommand::Leave { group, instance: member }).await
}

async fn member(about: &About, path: RawMember) -> Result<(String, InstanceId), ApiError> {
    let malformed = |_| ApiError::invalid_request("the path is not percent-encoded UTF-8");
    let Path((group, member)) = path.map_err(malformed)?;
    let (_, _, arrived, _, params) = about;
    let id = match Selector::parse("instance", &member)? {
        Selector::Id(id) => Some(InstanceId::new(id)),
        Selector::Name(name) => {
            let project = project_in_query(params, arrived).await?;
            arrived.fresh().await?.read(|model| model.instance_by_name(project.id, &name))
        }
    };
    let id = id.ok_or_else(|| ApiError::not_found("instance", &format!("name \"{}\"", echo(&member))))?;
    Ok((group, id))
}

async fn change(
    about: About,
    text: &str,
    command: impl FnOnce(GroupId) -> GroupCommand,
) -> Result<Response, ApiError> {
    let (State(app), Caller(caller), arrived, once, params) = about;
    let found = find(text, &params, &arrived).await?;
    let (project, command) = (found.project.id, command(found.id));
    let turn = once.turn(&app).await?;
    if let Some(position) = turn.recorded {
        let position = changed_before(&app, position, project, &command)?;
        return Ok(recorded(position, StatusCode::NO_CONTENT));
    }
    let ask = ProjectAsk::Group(command);
    let asked =
        turn.perform(async move { app.control.ask_project(Some(project), ask, caller).await }).await?;
    let (_, position) = asked.map_err(|error| {
        let rejected = match &error {
            actors::CommandError::Rejected(lifecycle::Rejected::NoSuchInstance(id)) => {
                ApiError::not_found("instance", &format!("id \"{id}\""))
            }
            _ => found.project.not_found(),
        };
        command_error(error, || rejected)
    })?;
    Ok(recorded(position, StatusCode::NO_CONTENT))
}

/// Where an earlier request with the same key let the instance join; refused if it asked for something else.
/// Only joins have a key. Members that are gone leave first: the last event is the join.
fn changed_before(
    app: &App,
    position: Position,
    project: ProjectId,
    command: &GroupCommand,
) -> Result<u64, ApiError> {
    let events = together(app, position)?;
    let last = events.last().filter(|last| last.stream == StreamName::Project(project));
    let last = last.ok_or_else(used_otherwise)?;
    match (&last.event, command) {
        (
            Event::Project(ProjectEvent::GroupJoined { group, instance }),
            GroupCommand::Join { group: asked, instance: member },
        ) if (group, instance) == (asked, member) => Ok(last.meta.position),
        _ => Err(used_otherwise()),
    }
}
