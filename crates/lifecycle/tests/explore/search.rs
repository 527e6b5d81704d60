//! The search: every situation that can be reached, nearest first, each looked at once.
//!
//! A situation counts once, whatever led to it: it is kept as a digest, with the step that first led to it. What
//! is not yet expanded when the bound is met is the frontier; that it is safe has been checked, and that it comes
//! to rest is checked like everywhere else.
//!
//! Rest: from a situation on, nothing more goes wrong, whatever is late arrives, everything wished is done, and
//! deadlines pass when nothing else happens. That must lead to where fold and sleds agree, soon.

use super::budget::Budget;
use super::fold::Folds;
use super::truth;
use super::world::{Step, World};
use lifecycle::DeadlineKind;
use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Rounds in which a situation must come to rest: a start, a migration and a restart one after the other, and
/// as much again.
const ROUNDS_MAX: usize = 100;

/// A step that led to a situation, and from which one.
struct Origin {
    parent: usize,
    depth: usize,
    step: Option<Step>,
}

/// What has been looked at.
#[derive(Debug, PartialEq, Eq)]
pub struct Explored {
    pub states: usize,
    pub folds: usize,
    /// Steps from the beginning to the farthest situation.
    pub depth: usize,
    /// Situations that were not expanded.
    pub frontier: usize,
    /// Situations from which the way to rest was followed.
    pub rested: usize,
}

/// How far to look.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Situations.
    pub states: usize,
    /// The way to rest is followed from one in so many.
    pub rest_stride: usize,
}

/// A property that does not hold, and the way to where it does not.
#[derive(Debug)]
pub struct Broken {
    pub what: String,
    pub way: Vec<Step>,
}

struct Search<'a> {
    folds: &'a mut Folds,
    seen: BTreeSet<u64>,
    origins: Vec<Origin>,
    open: VecDeque<(usize, World)>,
    /// Situations from which the way to rest is known.
    calm: BTreeSet<u64>,
    rested: usize,
}

fn digest(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Looks at everything that can be reached from `start`, within bounds.
pub fn explore(start: World, folds: &mut Folds, bounds: Bounds) -> Result<Explored, Broken> {
    let mut search = Search {
        folds,
        seen: BTreeSet::from([digest(&start)]),
        origins: vec![Origin { parent: 0, depth: 0, step: None }],
        open: VecDeque::from([(0, start)]),
        calm: BTreeSet::new(),
        rested: 0,
    };
    while search.seen.len() < bounds.states
        && let Some((id, world)) = search.open.pop_front()
    {
        search.expand(id, &world)?;
        if id.is_multiple_of(bounds.rest_stride) {
            search.rest(id, &world)?;
        }
    }
    let frontier = std::mem::take(&mut search.open);
    for (id, world) in frontier.iter().filter(|(id, _)| id.is_multiple_of(bounds.rest_stride)) {
        search.rest(*id, world)?;
    }
    Ok(Explored {
        states: search.seen.len(),
        folds: search.folds.len(),
        depth: search.origins.last().map_or(0, |origin| origin.depth),
        frontier: frontier.len(),
        rested: search.rested,
    })
}

impl Search<'_> {
    fn expand(&mut self, id: usize, world: &World) -> Result<(), Broken> {
        for step in world.steps(self.folds) {
            let after = world.take(self.folds, &step).map_err(|what| self.broken(id, &[step], what))?;
            let Some(next) = after else { continue };
            if self.seen.insert(digest(&next)) {
                truth::check(&next, self.folds).map_err(|what| self.broken(id, &[step], what))?;
                let depth = self.origins[id].depth + 1;
                self.open.push_back((self.origins.len(), next));
                self.origins.push(Origin { parent: id, depth, step: Some(step) });
            }
        }
        Ok(())
    }

    fn broken(&self, id: usize, then: &[Step], what: String) -> Broken {
        let mut way: Vec<Step> = then.iter().rev().copied().collect();
        let mut at = id;
        while let Some(step) = self.origins[at].step {
            way.push(step);
            at = self.origins[at].parent;
        }
        way.reverse();
        Broken { what, way }
    }

    fn rest(&mut self, id: usize, world: &World) -> Result<(), Broken> {
        self.rested += 1;
        let (mut world, mut way) = (world.clone(), Vec::new());
        come_to_rest(&mut world, self.folds, &mut self.calm, &mut way)
            .map_err(|what| self.broken(id, &way, format!("on the way to rest: {what}")))
    }
}

/// Follows the way to rest; `way` is what was done.
pub fn come_to_rest(
    world: &mut World,
    folds: &mut Folds,
    calm: &mut BTreeSet<u64>,
    way: &mut Vec<Step>,
) -> Result<(), String> {
    world.left = Budget::default();
    let mut passed = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let here = digest(world);
        if calm.contains(&here) {
            calm.extend(passed);
            return Ok(());
        }
        passed.push(here);
        let before = world.clone();
        round(world, folds, way)?;
        if *world == before {
            pass_deadlines(world, folds, way)?;
        }
        if *world == before {
            truth::check_rest(world, folds)?;
            calm.extend(passed);
            return Ok(());
        }
    }
    Err("it does not come to rest".to_owned())
}

/// One kind of thing after the other, each as often as it is due.
fn round(world: &mut World, folds: &mut Folds, way: &mut Vec<Step>) -> Result<(), String> {
    while !world.wire.is_empty() {
        let arrives = |step: &Step| matches!(step, Step::Arrive(..) | Step::Hear(_));
        let step = world.steps(folds).into_iter().find(arrives).expect("what is on the wire can arrive");
        go(world, folds, &step, way)?;
    }
    let kinds: [fn(&Step) -> bool; 6] = [
        |step| matches!(step, Step::RegisterSled(_)),
        |step| matches!(step, Step::TellOfBoot(_)),
        |step| matches!(step, Step::Call(_)),
        |step| matches!(step, Step::Proceed(_) | Step::MissTarget(_)),
        |step| matches!(step, Step::Report(_)),
        |step| matches!(step, Step::Inventory(_)),
    ];
    for is_of_kind in kinds {
        let due: Vec<Step> = world.steps(folds).into_iter().filter(is_of_kind).collect();
        for step in due {
            if world.steps(folds).contains(&step) {
                go(world, folds, &step, way)?;
            }
        }
    }
    Ok(())
}

fn pass_deadlines(world: &mut World, folds: &mut Folds, way: &mut Vec<Step>) -> Result<(), String> {
    for kind in folds.get(world.fold).deadlines.clone() {
        if kind == DeadlineKind::Restart {
            go(world, folds, &Step::Restart(0), way)?;
        } else {
            way.push(Step::Deadline(kind));
            *world = world.pass_deadline(folds, kind)?;
            truth::check(world, folds)?;
        }
    }
    Ok(())
}

fn go(world: &mut World, folds: &mut Folds, step: &Step, way: &mut Vec<Step>) -> Result<(), String> {
    way.push(*step);
    match world.take(folds, step)? {
        Some(next) => *world = next,
        None => drop(way.pop()),
    }
    truth::check(world, folds)
}

/// The way as people read it.
pub fn tell(broken: &Broken) -> String {
    let mut text = format!("{}\nafter", broken.what);
    for (step, nth) in broken.way.iter().zip(1..) {
        write!(text, "\n{nth:4} {step:?}").expect("a string takes text");
    }
    text.replace("00000000-0000-0000-0000-000000000", "")
}
