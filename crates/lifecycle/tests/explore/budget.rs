//! How often the world may turn against an instance, or a user may want something of it, in one run: each
//! kind of move a small number of times. Everything else happens as often as there is reason for it.

/// What is left of each kind of move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Moves of all the kinds below together.
    pub moves: u8,
    /// Users' commands.
    pub start: u8,
    pub stop: u8,
    pub reboot: u8,
    pub delete: u8,
    pub migrate: u8,
    pub cancel: u8,
    /// Also one that vouches for its VMMs being dead, if they are.
    pub force_stop: u8,
    /// The guest shuts itself down.
    pub shutdown: u8,
    /// A VMM dies.
    pub crash: u8,
    /// Either side of a migration fails, at any phase.
    pub fail_migration: u8,
    /// A sled reboots.
    pub sled_reboot: u8,
    /// The control plane dies: only the log is left.
    pub restart: u8,
    /// A deadline passes, though things are under way.
    pub deadline: u8,
    /// A request is late: it arrives after any later one, its answer or none.
    pub late_request: u8,
    /// An answer is late.
    pub late_answer: u8,
    /// A report is late: a newer one overtakes it, or it comes twice.
    pub late_report: u8,
    /// An inventory is late: it speaks of an earlier moment.
    pub late_inventory: u8,
}

/// A kind of move.
pub type Kind = fn(&mut Budget) -> &mut u8;

impl Budget {
    /// Whether a move of this kind may still happen.
    pub fn allows(mut self, kind: Kind) -> bool {
        self.moves > 0 && *kind(&mut self) > 0
    }

    /// A move of this kind happens.
    pub fn spend(&mut self, kind: Kind) {
        assert!(self.allows(kind), "only what is allowed happens");
        *kind(self) -= 1;
        self.moves -= 1;
    }
}
