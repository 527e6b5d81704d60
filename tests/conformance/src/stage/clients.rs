//! What clients and operators do: they ask, and what they do not know the outcome of they look up before they
//! try again.

use super::world::{Diverged, World, context, spec};
use actors::instance::Ask;
use actors::{Accepted, CommandError, NewInstance};
use lifecycle::sled::SledCommand;
use lifecycle::{Instance, InstanceId, InstanceSpec, RunState, SledId};
use std::sync::Arc;
use std::time::Duration;

/// How often a client tries again what it does not know the outcome of.
const TRIES_MAX: usize = 8;

/// What a client waits before it tries again.
const BETWEEN_TRIES: Duration = Duration::from_millis(500);

impl World {
    /// Asks once. A death in between is an unknown outcome.
    pub async fn ask(&mut self, id: InstanceId, ask: Ask) -> Result<Accepted, CommandError> {
        let control = self.control.clone();
        self.bounded(async move { control.ask(id, ask, context()).await }).await
    }

    /// Creates once; a death in between is an unknown outcome.
    pub async fn try_create(&mut self, spec: InstanceSpec, start: bool) -> Result<Accepted, CommandError> {
        let control = self.control.clone();
        let new = NewInstance { spec, start };
        self.bounded(async move { control.create_instance(new, context()).await }).await
    }

    /// Asks a sled's command as an operator does, until it is answered.
    pub async fn want_sled(&mut self, sled: SledId, command: &SledCommand) -> Result<(), Diverged> {
        for _ in 0..TRIES_MAX {
            let (control, command) = (self.control.clone(), command.clone());
            let call = async move { control.ask_sled(sled, command, context()).await.map(drop) };
            if self.unless_it_dies(call).await.is_ok() {
                return Ok(());
            }
            self.meanwhile(BETWEEN_TRIES).await;
        }
        Err(Diverged(format!("{command:?} was not done")))
    }

    async fn bounded(
        &mut self,
        call: impl Future<Output = Result<Accepted, CommandError>>,
    ) -> Result<Accepted, CommandError> {
        let answer = self.unless_it_dies(call).await;
        if let Ok(accepted) = &answer {
            self.told = self.told.max(accepted.position);
        }
        answer
    }

    /// The answer; if the process dies before it, nobody knows, and another follows.
    async fn unless_it_dies<T>(
        &mut self,
        call: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        let life = Arc::clone(&self.life);
        let answer = tokio::select! {
            biased;
            answer = call => answer,
            () = life.died() => Err(CommandError::Unknown("the daemon died".to_owned())),
        };
        if self.life.is_dead() {
            self.revive().await;
        }
        answer
    }

    /// Creates as a client does: what it does not know it looks up by name before it tries again.
    pub async fn create(&mut self, spec: InstanceSpec, start: bool) -> Result<InstanceId, Diverged> {
        let mut last = String::new();
        for _ in 0..TRIES_MAX {
            match self.try_create(spec.clone(), start).await {
                Ok(accepted) => return Ok(accepted.instance.id),
                Err(error) => last = error.to_string(),
            }
            if let Some(id) = self.book().ledger.instance_by_name(spec.project, &spec.name) {
                return Ok(id);
            }
        }
        Err(Diverged(format!("not created: {last}")))
    }

    /// Creates and starts an instance that is not restarted by itself, and waits until it runs.
    pub async fn create_running(&mut self, name: &str) -> Result<InstanceId, Diverged> {
        let id = self.create(spec(self.project, name), true).await?;
        self.until_state(id, RunState::Running).await?;
        Ok(id)
    }

    /// Asks as a client does: after an unknown outcome it looks whether it was done before it tries again.
    pub async fn want(
        &mut self,
        id: InstanceId,
        ask: &Ask,
        is_done: impl Fn(&Instance) -> bool,
    ) -> Result<(), Diverged> {
        let mut last = String::new();
        for _ in 0..TRIES_MAX {
            match self.ask(id, ask.clone()).await {
                Ok(_) | Err(CommandError::NotConfirmed { .. } | CommandError::VmmMissing) => return Ok(()),
                Err(error) => last = error.to_string(),
            }
            if is_done(&self.state(id)) {
                return Ok(());
            }
            self.meanwhile(BETWEEN_TRIES).await;
        }
        Err(Diverged(format!("{ask:?} was not done: {last}")))
    }

    /// Starts it as a client does.
    pub async fn start(&mut self, id: InstanceId) -> Result<(), Diverged> {
        let is_begun = |state: &Instance| state.saga.is_some() || state.active.is_some();
        self.want(id, &Ask::Start, is_begun).await
    }

    /// Stops it as a client does.
    pub async fn stop(&mut self, id: InstanceId) -> Result<(), Diverged> {
        self.want(id, &Ask::Stop, |state| state.intent == lifecycle::Intent::Stopped).await
    }

    /// Waits until it is visibly so.
    pub async fn until_state(&mut self, id: InstanceId, wanted: RunState) -> Result<(), Diverged> {
        self.until(&format!("{id} is {wanted}"), |w| w.run_state(id) == wanted).await
    }
}
