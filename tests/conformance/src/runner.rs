//! Plays scenarios: every way, every place where the way can strike.
//!
//! The places are counted, not guessed: the basic run tells how many appends and effects there are, and each
//! of them is the place of one run.
//!
//! What runs side by side (pushes to several sleds, two sides' reports) takes turns as the runtime likes: a
//! push whose wish was withdrawn before its turn never leaves, two facts may share an append. So two runs can
//! differ by a place or two at the end. A run that ended before its place is played again; a place that no
//! play reaches is counted as such, and how many may be is bounded.

use crate::stage::{Diverged, Play, Point, Seen, Way, World};
use std::fmt::Write as _;

/// One scenario.
pub struct Scenario {
    /// Its name, which begins with its id and is the name of its test.
    pub name: &'static str,
    /// Sleds of the stage.
    pub sleds: usize,
    /// In which ways it is played.
    pub ways: Ways,
    /// How many variants it has, each played in every way.
    pub variants: usize,
    /// What happens and what must be so: in every way but fail-at to the end, in fail-at as far as it comes.
    pub play: for<'a> fn(&'a mut World) -> Play<'a>,
    /// What must be so at rest after a definite failure, however far the play came.
    pub after_failure: fn(&World) -> Result<(), Diverged>,
}

/// In which ways a scenario is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// Basic, twice, fail-at, lost-at and crash-at every place.
    Five,
    /// As written: it says itself what goes wrong.
    Once,
}

/// How often a scenario was played in each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runs in which nothing goes wrong, or the scenario says what.
    pub basic: usize,
    /// Runs in which everything is delivered twice.
    pub twice: usize,
    /// Runs with an effect refused.
    pub fail_at: usize,
    /// Runs with an answer lost.
    pub lost_at: usize,
    /// Runs with a death.
    pub crash_at: usize,
}

/// How often a run that ended before its place is played again.
const PLAYS_MAX: usize = 6;

/// What one run has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Places {
    effects: usize,
    appends: usize,
    /// Places whose presence is a matter of turns: pushes among the effects, one append.
    loose: usize,
    /// The run went as far as the place of its way.
    has_struck: bool,
}

impl Counts {
    /// All runs.
    pub const fn all(self) -> usize {
        self.basic + self.twice + self.fail_at + self.lost_at + self.crash_at
    }

    /// Runs of a scenario with so many effects and appends, per variant.
    const fn add(&mut self, ways: Ways, effects: usize, appends: usize) {
        self.basic += 1;
        if matches!(ways, Ways::Five) {
            self.twice += 1;
            self.fail_at += effects;
            self.lost_at += effects;
            self.crash_at += 2 * (effects + appends);
        }
    }
}

/// A way that has places, at the n-th of them.
type At = fn(usize) -> Way;

/// The scenario of this name is played in all its ways. Fails with every run that failed.
pub fn run(scenario: &Scenario) -> Counts {
    let (mut counts, mut failures) = (Counts::default(), String::new());
    for variant in 0..scenario.variants {
        let mut try_way = |way| {
            play(scenario, way, variant).unwrap_or_else(|failure| {
                let _ = writeln!(failures, "{} variant {variant} {way:?}: {failure}", scenario.name);
                Places { has_struck: true, ..Places::default() }
            })
        };
        let basic = try_way(Way::Basic);
        counts.add(scenario.ways, basic.effects, basic.appends);
        if scenario.ways == Ways::Once {
            continue;
        }
        try_way(Way::Twice);
        let of_effects: [At; 4] = [
            Way::FailAt,
            Way::LostAt,
            |n| Way::CrashAt(Point::BeforeEffect(n)),
            |n| Way::CrashAt(Point::AfterEffect(n)),
        ];
        let of_appends: [At; 2] =
            [|n| Way::CrashAt(Point::BeforeAppend(n)), |n| Way::CrashAt(Point::AfterAppend(n))];
        let places = of_effects
            .iter()
            .map(|at| (at, basic.effects, basic.loose))
            .chain(of_appends.iter().map(|at| (at, basic.appends, 1)));
        for (at, count, loose) in places {
            let missed: Vec<usize> =
                (0..count).filter(|n| !(0..PLAYS_MAX).any(|_| try_way(at(*n)).has_struck)).collect();
            // A run in which nothing went wrong proves nothing about what does.
            assert!(
                missed.len() <= loose && missed.iter().all(|n| n + loose >= count),
                "{} variant {variant}: no play of {:?} went as far as {missed:?} of {count}",
                scenario.name,
                at(0),
            );
        }
    }
    assert!(failures.is_empty(), "{failures}");
    counts
}

/// How often the scenario is played, from its basic runs alone.
pub fn count(scenario: &Scenario) -> Counts {
    let mut counts = Counts::default();
    for variant in 0..scenario.variants {
        let basic = play(scenario, Way::Basic, variant).unwrap_or_default();
        counts.add(scenario.ways, basic.effects, basic.appends);
    }
    counts
}

/// The history of the scenario's basic run: raw material for properties of the core.
pub fn history(scenario: &Scenario, variant: usize) -> Vec<journal::Recorded> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::open(Way::Basic, variant, scenario.sleds).await;
        (scenario.play)(&mut world).await.unwrap();
        std::mem::take(&mut world.book().history)
    })
}

/// One run. Answers the places that the plan saw.
fn play(scenario: &Scenario, way: Way, variant: usize) -> Result<Places, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::open(way, variant, scenario.sleds).await;
        let played = (scenario.play)(&mut world).await;
        let rested = world.settle().await;
        let seen = world.plan().seen();
        let ended = match way {
            // Where it leads after a refusal is another story; that it ends well is this one.
            Way::FailAt(_) => rested.and_then(|()| (scenario.after_failure)(&world)),
            _ => played.and(rested),
        };
        let broken = world.broken();
        let verdict = broken.map_or(ended, |broken| Err(Diverged(broken)));
        verdict.map_err(|Diverged(what)| {
            let (lives, tail) = (world.lives(), world.book().tail(24));
            format!("{what}\n  lives: {lives}, effects: {:?}\n{tail}", seen.effects)
        })?;
        Ok(Places {
            effects: seen.effects.len(),
            appends: seen.appends,
            loose: seen.effects.iter().filter(|effect| is_push(effect)).count(),
            has_struck: has_struck(way, &seen),
        })
    })
}

/// Whether an effect brings a desired state somewhere, rather than a command: it goes side by side with others.
fn is_push(effect: &str) -> bool {
    effect.starts_with("put_") || effect.starts_with("delete_")
}

fn has_struck(way: Way, seen: &Seen) -> bool {
    match way {
        Way::Basic | Way::Twice => true,
        Way::FailAt(n) | Way::LostAt(n) | Way::CrashAt(Point::BeforeEffect(n) | Point::AfterEffect(n)) => {
            seen.effects.len() > n
        }
        Way::CrashAt(Point::BeforeAppend(n) | Point::AfterAppend(n)) => seen.appends > n,
    }
}

/// That nothing more is asked than rest and invariants.
pub fn whatever(_: &World) -> Result<(), Diverged> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_that_does_not_come_true_fails() {
        let scenario = Scenario {
            name: "x00_never",
            sleds: 1,
            ways: Ways::Once,
            variants: 1,
            play: |w| Box::pin(async move { w.must(false, "the impossible") }),
            after_failure: whatever,
        };
        let failure = play(&scenario, Way::Basic, 0).unwrap_err();
        assert!(failure.contains("the impossible"), "{failure}");
    }
}
