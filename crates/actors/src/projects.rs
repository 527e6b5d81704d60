//! The projects' shell: the only writer of `project/*` streams. They are few and change rarely, so one
//! actor writes them all, one at a time.

use crate::answer::{CommandError, RequestContext};
use crate::env::Env;
use crate::ledger::LedgerHandle;
use crate::writer::{AppendError, OpenError, Writer};
use journal::{Event, StreamName};
use lifecycle::event::ProjectEvent;
use lifecycle::project::{GroupCommand, Project, decide_group, evolve};
use lifecycle::spec::{validate_description, validate_name};
use lifecycle::{InstanceId, ProjectId, Quota, Rejected};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What can be asked of a project.
#[derive(Clone, Debug)]
pub enum ProjectAsk {
    /// Create it.
    Create {
        /// Its name.
        name: String,
        /// Free text.
        description: String,
    },
    /// Change it; what is not given stays.
    Change {
        /// Its name afterwards.
        name: Option<String>,
        /// Its description afterwards.
        description: Option<String>,
    },
    /// Change what its instances may be charged together.
    SetQuota {
        /// The limits afterwards.
        quota: Quota,
    },
    /// Change its anti-affinity groups.
    Group(GroupCommand),
    /// Delete it.
    Delete,
}

/// One request.
pub(crate) struct ProjectMsg {
    id: ProjectId,
    ask: ProjectAsk,
    context: RequestContext,
    reply: oneshot::Sender<Result<(Project, u64), CommandError>>,
}

/// Handle to the projects.
#[derive(Clone)]
pub(crate) struct Projects {
    actor: ActorRef<ProjectMsg>,
}

impl Projects {
    /// Starts the actor under `parent`.
    pub(crate) async fn start(
        env: Arc<Env>,
        ledger: LedgerHandle,
        parent: ActorCell,
    ) -> Result<Self, SpawnErr> {
        let (actor, _) = Actor::spawn_linked(None, ProjectsActor, Shell { env, ledger }, parent).await?;
        Ok(Self { actor })
    }

    /// Its actor.
    pub(crate) fn cell(&self) -> ActorCell {
        self.actor.get_cell()
    }

    /// Does what is asked; answers the project afterwards and the position of its newest event.
    pub(crate) async fn ask(
        &self,
        id: ProjectId,
        ask: ProjectAsk,
        context: RequestContext,
    ) -> Result<(Project, u64), CommandError> {
        let gone = || CommandError::Unavailable("the daemon is shutting down".to_owned());
        let (reply, answer) = oneshot::channel();
        self.actor.cast(ProjectMsg { id, ask, context, reply }).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(CommandError::Unknown("the projects' actor restarts".to_owned())))
    }

    /// Lets the mailbox drain, then ends.
    pub(crate) async fn close(&self) {
        // It may have ended.
        let _ = self.actor.drain();
        let _ = self.actor.get_cell().wait(Some(std::time::Duration::from_secs(5))).await;
    }
}

struct ProjectsActor;

struct Shell {
    env: Arc<Env>,
    ledger: LedgerHandle,
}

impl Actor for ProjectsActor {
    type Msg = ProjectMsg;
    type State = Shell;
    type Arguments = Shell;

    async fn pre_start(&self, _: ActorRef<ProjectMsg>, shell: Shell) -> Result<Shell, ActorProcessingErr> {
        Ok(shell)
    }

    async fn handle(
        &self,
        _: ActorRef<ProjectMsg>,
        message: ProjectMsg,
        shell: &mut Shell,
    ) -> Result<(), ActorProcessingErr> {
        let ProjectMsg { id, ask, context, reply } = message;
        shell.env.let_others_go_first().await;
        // A caller that hung up finds the outcome by looking.
        let _ = reply.send(shell.perform(id, ask, context).await);
        Ok(())
    }
}

impl Shell {
    /// The stream is opened anew each time: the claim is the barrier, and nothing is kept in memory.
    async fn perform(
        &self,
        id: ProjectId,
        ask: ProjectAsk,
        context: RequestContext,
    ) -> Result<(Project, u64), CommandError> {
        let opened = Writer::open(Arc::clone(&self.env), StreamName::Project(id)).await;
        let (mut writer, records) = opened.map_err(open_error)?;
        let mut state = None;
        for record in &records {
            if let Event::Project(event) = &record.event {
                evolve(&mut state, event, record.meta);
            }
        }
        let events = self.decide(id, state.as_ref(), &ask, writer.position()).await?;
        if events.is_empty() {
            let project = state.expect("only what exists stays as it is");
            return Ok((project, writer.position()));
        }
        let recorded: Vec<Event> = events.iter().cloned().map(Event::from).collect();
        match writer.append(&recorded, &context.recorded()).await {
            Ok(metas) => {
                for (event, meta) in events.iter().zip(metas) {
                    evolve(&mut state, event, meta);
                }
                Ok((state.expect("an event leaves a project"), writer.position()))
            }
            Err(AppendError::Rehearsed(events)) => {
                self.ledger.drop_project(id);
                Err(CommandError::Rehearsed(events))
            }
            Err(AppendError::Refused(reason)) => {
                self.ledger.drop_project(id);
                Err(reason.into())
            }
            Err(AppendError::Lost(_)) => {
                self.ledger.drop_project(id);
                Err(CommandError::Unavailable("the project has a new owner; try again".to_owned()))
            }
            // It may be there: the grant stays until the log shows it, or the process ends with the log.
            Err(error @ AppendError::Unknown(_)) => Err(CommandError::Unknown(error.to_string())),
        }
    }

    /// Validates, and asks the ledger for what is shared. No events mean that nothing changes.
    async fn decide(
        &self,
        id: ProjectId,
        state: Option<&Project>,
        ask: &ProjectAsk,
        position: u64,
    ) -> Result<Vec<ProjectEvent>, CommandError> {
        let gone = |_| CommandError::Unavailable("the ledger is not available".to_owned());
        if let ProjectAsk::Create { name, description } = ask {
            if state.is_some() {
                return Err(Rejected::NameTaken { what: "project", name: name.clone() }.into());
            }
            validate_name("name", name).map_err(Rejected::from)?;
            validate_description(description).map_err(Rejected::from)?;
            let vni = self.ledger.grant_project(id, name.clone()).await.map_err(gone)??;
            let (name, description) = (name.clone(), description.clone());
            return Ok(vec![ProjectEvent::Created { id, name, description, vni }]);
        }
        let project = state.filter(|project| project.deleted.is_none()).ok_or(Rejected::NoSuchProject(id))?;
        match ask {
            ProjectAsk::Create { .. } => unreachable!("handled above"),
            ProjectAsk::Change { name, description } => {
                let name = name.as_ref().unwrap_or(&project.name);
                let description = description.as_ref().unwrap_or(&project.description);
                validate_name("name", name).map_err(Rejected::from)?;
                validate_description(description).map_err(Rejected::from)?;
                if *name != project.name {
                    self.is_name_free(name, position).await?;
                }
                let is_news = *name != project.name || *description != project.description;
                let (name, description) = (name.clone(), description.clone());
                Ok(is_news.then_some(ProjectEvent::Changed { name, description }).into_iter().collect())
            }
            ProjectAsk::SetQuota { quota } => {
                let set = ProjectEvent::QuotaSet { quota: *quota };
                Ok((*quota != project.quota).then_some(set).into_iter().collect())
            }
            ProjectAsk::Group(command) => self.decide_group(project, command).await,
            ProjectAsk::Delete => {
                self.ledger.grant_project_delete(id, position).await.map_err(gone)??;
                Ok(vec![ProjectEvent::Deleted])
            }
        }
    }

    /// Only instances of the project join; those that are deleted leave.
    async fn decide_group(
        &self,
        project: &Project,
        command: &GroupCommand,
    ) -> Result<Vec<ProjectEvent>, CommandError> {
        let joins = match command {
            GroupCommand::Join { instance, .. } => Some(*instance),
            _ => None,
        };
        let (id, members) = (project.id, project.groups.values().flat_map(|group| group.members.clone()));
        let asked: Vec<InstanceId> = members.chain(joins).collect();
        let look = self.ledger.look(self.env.log.durable().get(), move |ledger| {
            let is_there = |instance: &InstanceId| ledger.project_of(*instance) == Some(id);
            asked.into_iter().filter(is_there).collect::<BTreeSet<InstanceId>>()
        });
        let there = look.await.map_err(|gone| CommandError::Unavailable(gone.to_string()))?;
        if let Some(instance) = joins.filter(|instance| !there.contains(instance)) {
            return Err(Rejected::NoSuchInstance(instance).into());
        }
        Ok(decide_group(project, command, |instance| there.contains(&instance))?)
    }

    /// Names of projects are only ever taken through this actor, one request at a time, so a look is enough
    /// once the fold has caught up with the log.
    async fn is_name_free(&self, name: &str, position: u64) -> Result<(), CommandError> {
        let after = position.max(self.env.log.durable().get());
        let wanted = name.to_owned();
        let taken = self.ledger.look(after, move |ledger| ledger.is_project_name_taken(&wanted)).await;
        match taken {
            Ok(false) => Ok(()),
            Ok(true) => Err(Rejected::NameTaken { what: "project", name: name.to_owned() }.into()),
            Err(_) => Err(CommandError::Unavailable("the ledger is not available".to_owned())),
        }
    }
}

fn open_error(error: OpenError) -> CommandError {
    CommandError::Unavailable(error.to_string())
}
