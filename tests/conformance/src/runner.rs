//! Plays scenarios: every way, every place where the way can strike.
//!
//! The places are counted, not guessed: the basic run tells how many appends and effects there are, and each
//! of them is the place of one run.

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
                (0, 0)
            })
        };
        let (effects, appends) = try_way(Way::Basic);
        counts.add(scenario.ways, effects, appends);
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
        for (at, count) in
            of_effects.iter().map(|at| (at, effects)).chain(of_appends.iter().map(|at| (at, appends)))
        {
            for n in 0..count {
                try_way(at(n));
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    counts
}

/// How often the scenario is played, from its basic runs alone.
pub fn count(scenario: &Scenario) -> Counts {
    let mut counts = Counts::default();
    for variant in 0..scenario.variants {
        let (effects, appends) = play(scenario, Way::Basic, variant).unwrap_or_default();
        counts.add(scenario.ways, effects, appends);
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

/// One run. Answers the effects and appends that the plan saw.
fn play(scenario: &Scenario, way: Way, variant: usize) -> Result<(usize, usize), String> {
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
        let verdict = verdict.and_then(|()| must_have_struck(way, &seen));
        verdict.map_err(|Diverged(what)| {
            let (lives, tail) = (world.lives(), world.book().tail(24));
            format!("{what}\n  lives: {lives}, effects: {:?}\n{tail}", seen.effects)
        })?;
        Ok((seen.effects.len(), seen.appends))
    })
}

/// A run in which nothing went wrong proves nothing about what does.
fn must_have_struck(way: Way, seen: &Seen) -> Result<(), Diverged> {
    let has_struck = match way {
        Way::Basic | Way::Twice => true,
        Way::FailAt(n) | Way::LostAt(n) | Way::CrashAt(Point::BeforeEffect(n) | Point::AfterEffect(n)) => {
            seen.effects.len() > n
        }
        Way::CrashAt(Point::BeforeAppend(n) | Point::AfterAppend(n)) => seen.appends > n,
    };
    if has_struck { Ok(()) } else { Err(Diverged("nothing went wrong".to_owned())) }
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
