//! What the ledger grants, and the commands that are made of it.

use super::instance_shell::Grants;
use super::{World, names};
use crate::coverage::Sometimes;
use crate::scenario::Verb;
use lifecycle::input::StartGrant;
use lifecycle::{Command, InstanceId, InstanceSpec, Rejected, Shortage, Size};

const GIB: u64 = 1 << 30;

impl World {
    /// The next number of an instance; it counts over all lives, as real ids are never used twice.
    fn mint(&mut self, instance: u16) -> u64 {
        let minted = self.minted.entry(instance).or_insert(0);
        *minted += 1;
        *minted
    }

    /// Room for a VMM, held until it is journaled or dropped.
    pub(super) fn grant_room(
        &mut self,
        id: InstanceId,
        size: Size,
        grants: &mut Grants,
    ) -> Result<StartGrant, Shortage> {
        let instance = names::instance_number(id);
        let nth = self.mint(instance);
        let vmm = names::vmm(instance, nth);
        let dice = self.draws.at("place", vmm.uuid().as_u128(), 0);
        let sled = self.control().ledger.grant_room(id, vmm, size, dice)?;
        grants.vmm = Some(vmm);
        Ok(StartGrant { saga: names::saga(instance, nth), vmm, sled })
    }

    /// What was granted and will not be journaled is free again; rooms before what holds them.
    pub(super) fn drop_grants(&mut self, grants: Grants) {
        if grants.vmm.is_none() && grants.instance.is_none() {
            return;
        }
        self.note(Sometimes::GrantDropped);
        let ledger = &mut self.control().ledger;
        if let Some(vmm) = grants.vmm {
            ledger.drop_room(vmm);
        }
        if let Some(instance) = grants.instance {
            ledger.drop_instance(instance);
        }
    }

    /// The command that a request makes.
    pub(super) fn command(
        &mut self,
        id: InstanceId,
        request: usize,
        verb: &str,
        grants: &mut Grants,
    ) -> Result<Command, Rejected> {
        let asked = self.clients.request(request);
        let (op, asked) = (names::op(asked.id), asked.verb);
        Ok(match verb {
            "create" => self.create(id, asked, grants)?,
            "start" => Command::Start { grant: None },
            "stop" => Command::Stop { op },
            "reboot" => Command::Reboot { op },
            _ => Command::Delete,
        })
    }

    fn create(&mut self, id: InstanceId, verb: Verb, grants: &mut Grants) -> Result<Command, Rejected> {
        let (start, ncpus) = match verb {
            Verb::Create { start, ncpus } => (start, ncpus),
            Verb::Start | Verb::Stop | Verb::Reboot | Verb::Delete => (false, 1),
        };
        if self.shell(id).state.is_some() {
            return Err(Rejected::IdTaken(id));
        }
        let size = Size { ncpus, memory: u64::from(ncpus) * GIB };
        size.validate()?;
        let spec = InstanceSpec {
            project: names::project(),
            name: names::entity(id).to_string(),
            description: String::new(),
            hostname: names::entity(id).to_string(),
            size,
            auto_restart: None,
        };
        let address = self.control().ledger.grant_instance(id, names::project(), &spec.name)?;
        grants.instance = Some(id);
        let start = start.then(|| self.grant_room(id, size, grants));
        Ok(Command::Create { id, spec: Box::new(spec), address, start })
    }
}
