//! Which project, instance or sled a request means: a UUID, or a name within a project.
//!
//! Invariant: nothing is both. A name is never a UUID, so what a selector means does not depend on what
//! exists.

use crate::error::{ApiError, echo};
use crate::fresh::Arrived;
use crate::query::Params;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use lifecycle::spec::validate_name;
use lifecycle::{Instance, InstanceId, ProjectId, SledId};
use uuid::Uuid;

/// What a request calls an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    /// By id.
    Id(Uuid),
    /// By name.
    Name(String),
}

/// A path of one parameter, which may be anything.
pub(crate) type RawPath = Result<Path<String>, PathRejection>;

impl Selector {
    /// Reads a selector; `what` is the kind of object, for the message.
    pub(crate) fn parse(what: &str, text: &str) -> Result<Self, ApiError> {
        if let Ok(id) = Uuid::try_parse(text) {
            return Ok(Self::Id(id));
        }
        match validate_name("name", text) {
            Ok(()) => Ok(Self::Name(text.to_owned())),
            Err(invalid) => {
                let (shown, problem) = (echo(text), invalid.problem);
                Err(ApiError::invalid_request(format!(
                    "{what}: \"{shown}\" is neither a UUID nor a name: {problem}"
                )))
            }
        }
    }

    fn from_path(what: &str, path: RawPath) -> Result<Self, ApiError> {
        Self::parse(what, &path_text(path)?)
    }

    /// As the caller addressed it, for "not found".
    pub(crate) fn addressed(&self) -> String {
        match self {
            Self::Id(id) => format!("id \"{id}\""),
            Self::Name(name) => format!("name \"{name}\""),
        }
    }
}

/// The one parameter of a path, as text.
pub(crate) fn path_text(path: RawPath) -> Result<String, ApiError> {
    let malformed = |_| ApiError::invalid_request("the path is not percent-encoded UTF-8");
    path.map(|Path(text)| text).map_err(malformed)
}

/// The sled that a path means: always by id.
pub(crate) fn sled(path: RawPath) -> Result<SledId, ApiError> {
    let text = path_text(path)?;
    let id = Uuid::try_parse(&text);
    id.map(SledId::new)
        .map_err(|_| ApiError::invalid_request(format!("sled: \"{}\" is not a UUID", echo(&text))))
}

/// A project that was found.
pub(crate) struct FoundProject {
    pub(crate) id: ProjectId,
    pub(crate) selector: Selector,
}

/// An instance that was found, or an id that is still to be asked about.
pub(crate) struct FoundInstance {
    pub(crate) id: InstanceId,
    pub(crate) selector: Selector,
}

/// Finds the project that a path means.
pub(crate) async fn project_in_path(path: RawPath, arrived: &Arrived) -> Result<FoundProject, ApiError> {
    find_project(Selector::from_path("project", path)?, arrived).await
}

/// Finds the project that the query names; required.
pub(crate) async fn project_in_query(params: &Params, arrived: &Arrived) -> Result<FoundProject, ApiError> {
    let text = params.get("project")?.ok_or_else(|| {
        ApiError::invalid_request("query parameter \"project\" is required: the project's name or id")
    })?;
    find_project(Selector::parse("project", text)?, arrived).await
}

async fn find_project(selector: Selector, arrived: &Arrived) -> Result<FoundProject, ApiError> {
    let model = arrived.fresh().await?;
    let id = model.read(|model| match &selector {
        Selector::Id(id) => model.project(ProjectId::new(*id)).map(|project| project.id),
        Selector::Name(name) => model.project_by_name(name),
    });
    match id {
        Some(id) => Ok(FoundProject { id, selector }),
        None => Err(ApiError::not_found("project", &selector.addressed())),
    }
}

/// What path and query call an instance: a name comes with its project, an id does not.
fn instance_selector(path: RawPath, params: &Params) -> Result<Selector, ApiError> {
    let selector = Selector::from_path("instance", path)?;
    match (&selector, params.get("project")?.is_some()) {
        (Selector::Id(_), false) | (Selector::Name(_), true) => Ok(selector),
        (Selector::Id(_), true) => {
            Err(ApiError::invalid_request("when providing instance as an ID project should not be specified"))
        }
        (Selector::Name(_), false) => {
            Err(ApiError::invalid_request("instance should either be UUID or project should be specified"))
        }
    }
}

/// Finds the instance that path and query mean. One that is addressed by id is not looked up: whoever is
/// asked next knows whether it exists.
pub(crate) async fn instance(
    path: RawPath,
    params: &Params,
    arrived: &Arrived,
) -> Result<FoundInstance, ApiError> {
    let selector = instance_selector(path, params)?;
    match &selector {
        Selector::Id(id) => Ok(FoundInstance { id: InstanceId::new(*id), selector }),
        Selector::Name(name) => {
            let project = project_in_query(params, arrived).await?;
            let id = arrived.fresh().await?.read(|model| model.instance_by_name(project.id, name));
            match id {
                Some(id) => Ok(FoundInstance { id, selector }),
                None => Err(ApiError::not_found("instance", &selector.addressed())),
            }
        }
    }
}

/// Whether path and query mean this instance, which may be deleted by now, as may its project.
pub(crate) async fn means(
    instance: &Instance,
    path: RawPath,
    params: &Params,
    arrived: &Arrived,
) -> Result<bool, ApiError> {
    let name = match instance_selector(path, params)? {
        Selector::Id(id) => return Ok(id == instance.id.uuid()),
        Selector::Name(name) => name,
    };
    let project = instance.spec.project;
    let is_its_project = match Selector::parse("project", params.get("project")?.unwrap_or_default())? {
        Selector::Id(id) => id == project.uuid(),
        Selector::Name(named) => arrived
            .fresh()
            .await?
            .read(|model| model.project(project).is_none_or(|project| project.name == named)),
    };
    Ok(is_its_project && name == instance.spec.name)
}

impl FoundInstance {
    /// That there is none, in the caller's words.
    pub(crate) fn not_found(&self) -> ApiError {
        ApiError::not_found("instance", &self.selector.addressed())
    }
}

impl FoundProject {
    /// That there is none, in the caller's words.
    pub(crate) fn not_found(&self) -> ApiError {
        ApiError::not_found("project", &self.selector.addressed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_a_uuid_or_a_name_and_never_both() {
        let uuid = "a0b1c2d3-0000-4000-8000-000000000001";
        assert_eq!(Selector::parse("instance", uuid), Ok(Selector::Id(Uuid::try_parse(uuid).unwrap())));
        assert!(matches!(Selector::parse("instance", &uuid.replace('-', "")), Ok(Selector::Id(_))));
        assert_eq!(Selector::parse("instance", "web-1"), Ok(Selector::Name("web-1".to_owned())));
        for bad in ["", "Web", "größe", "a b", "a-", "💥"] {
            let error = Selector::parse("instance", bad).unwrap_err();
            assert_eq!((error.status.as_u16(), error.code), (400, Some("InvalidRequest")), "{bad}");
        }
    }
}
