//! What users and the restart policy ask for, and the ledger's part in it: room on a sled.

use super::fold::Folds;
use super::world::{SLEDS, World, sled_id, sled_index};
use lifecycle::input::{MigrateGrant, StartGrant};
use lifecycle::{Command, DeadlineKind, Input, MigrationId, OpId, Purpose, SagaId, VmmId};
use uuid::Uuid;

const OPS: u128 = 0x500;
const SAGAS: u128 = 0x600;
const MIGRATIONS: u128 = 0x700;
const VMMS: u128 = 0x800;

/// What a user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// With the sled on which the ledger would place it.
    Start(usize),
    Stop,
    Reboot,
    Delete,
    Migrate,
    CancelMigration,
    ForceStop,
    /// Only made when it is true.
    AssertDead,
}

impl World {
    pub fn ask(&mut self, folds: &mut Folds, wish: Wish) -> Result<(), String> {
        let op = |left: u8, kind: u128| OpId::new(Uuid::from_u128(OPS + kind * 0x10 + u128::from(left)));
        let reason = || "for the sake of the test".to_owned();
        let command = match wish {
            Wish::Start(sled) => {
                self.left.spend(|left| &mut left.start);
                return self.start(folds, sled);
            }
            Wish::Migrate => {
                self.left.spend(|left| &mut left.migrate);
                return self.migrate(folds);
            }
            Wish::Stop => {
                self.left.spend(|left| &mut left.stop);
                Command::Stop { op: op(self.left.stop, 1) }
            }
            Wish::Reboot => {
                self.left.spend(|left| &mut left.reboot);
                Command::Reboot { op: op(self.left.reboot, 2) }
            }
            Wish::Delete => {
                self.left.spend(|left| &mut left.delete);
                Command::Delete
            }
            Wish::CancelMigration => {
                self.left.spend(|left| &mut left.cancel);
                Command::CancelMigration
            }
            Wish::ForceStop => {
                self.left.spend(|left| &mut left.force_stop);
                Command::ForceStop { assert_dead: false, reason: reason() }
            }
            Wish::AssertDead => {
                self.left.spend(|left| &mut left.force_stop);
                Command::ForceStop { assert_dead: true, reason: reason() }
            }
        };
        self.give(folds, &Input::Command(command)).map(drop)
    }

    fn grant(&mut self, sled: usize) -> StartGrant {
        self.allocated += 1;
        let nth = u128::from(self.allocated);
        StartGrant {
            saga: SagaId::new(Uuid::from_u128(SAGAS + nth)),
            vmm: VmmId::new(Uuid::from_u128(VMMS + nth)),
            sled: sled_id(sled),
        }
    }

    fn start(&mut self, folds: &mut Folds, sled: usize) -> Result<(), String> {
        if self.give(folds, &Input::Command(Command::Start { grant: None }))?.is_some() {
            let grant = Some(self.grant(sled));
            self.give(folds, &Input::Command(Command::Start { grant }))?;
        }
        Ok(())
    }

    fn migrate(&mut self, folds: &mut Folds) -> Result<(), String> {
        let wanted = self.give(folds, &Input::Command(Command::Migrate { grant: None }))?;
        if let Some(Purpose::Migrate { source }) = wanted {
            let StartGrant { saga, vmm, sled } = self.grant(SLEDS - 1 - sled_index(source));
            let migration = MigrationId::new(Uuid::from_u128(MIGRATIONS + u128::from(self.allocated)));
            let grant = Some(MigrateGrant { saga, migration, vmm, sled });
            self.give(folds, &Input::Command(Command::Migrate { grant }))?;
        }
        Ok(())
    }

    pub fn restart(&mut self, folds: &mut Folds, sled: usize) -> Result<(), String> {
        if self.give(folds, &Input::Deadline(DeadlineKind::Restart))?.is_some() {
            let grant = self.grant(sled);
            self.give(folds, &Input::Restart(Ok(grant)))?;
        }
        Ok(())
    }
}
