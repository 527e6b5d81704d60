//! Two sets of rules over one history part at the exact append where they decide differently, and nowhere else.

mod world;

use eventlog::Log;
use lifecycle::{Decision, Input, InstanceEvent, Policy, Span, Step, VmmState};
use replay::check_upgrade;
use replay::whatif::{
    Answer, Decided, Host, Question, Rules, RulesError, Side, Then, Under, WhatIf, WhatIfError, compare,
};
use std::sync::Arc;
use world::{World, id};

fn source(world: &World) -> Arc<dyn Log> {
    Arc::clone(&world.log)
}

fn walked() -> World {
    let mut world = World::simulated();
    world.walk(7, 4, 300);
    world
}

fn compared(world: &World, theirs: &mut dyn Rules) -> Result<WhatIf, WhatIfError> {
    let under = Under::Recorded(Policy::default());
    let mut ours = Host::default();
    let ours = Side { rules: &mut ours, under };
    compare(&source(world), None, ours, Side { rules: theirs, under }, &mut |_| {})
}

/// A start that goes back keeps what it reserved.
fn leaking() -> Host {
    Host::deciding(|state, input, policy| {
        let mut decision = lifecycle::decide(state, input, policy)?;
        if let Decision::Events(events) = &mut decision {
            for event in events {
                if let InstanceEvent::SagaUnwound { undone, .. } = event {
                    undone.retain(|step| *step != Step::Reserve);
                }
            }
        }
        Ok(decision)
    })
}

#[test]
fn the_same_rules_never_part() {
    let world = walked();
    let found = compared(&world, &mut Host::default()).unwrap();
    assert_eq!((found.instances, found.inputs_missing, found.differences.len()), (4, 0, 0));
    assert!(found.appends > 50, "the walk was too short: {}", found.appends);
}

#[test]
fn a_changed_rule_is_named_at_the_first_append_that_it_decides() {
    let world = walked();
    let found = compared(&world, &mut leaking()).unwrap();
    let source = source(&world);
    let mut expected = Vec::new();
    for id in world.folds.keys() {
        let entries = replay::history(&source, *id, 0, usize::MAX).unwrap();
        let unwound = entries.iter().find(|entry| {
            entry.event == "SagaUnwound"
                && entry.data["undone"].as_array().unwrap().iter().any(|step| step == "reserve")
        });
        expected.extend(unwound.map(|entry| (*id, entry.append)));
    }
    assert!(!expected.is_empty(), "the walk has no undone start");
    let mut parted: Vec<_> = found.differences.iter().map(|it| (it.instance, it.version)).collect();
    parted.sort_unstable();
    assert_eq!(parted, expected);
    for difference in &found.differences {
        assert_eq!(difference.ours.decided, Decided::Events(difference.recorded.clone()));
        assert_ne!(difference.ours.decided, difference.theirs.decided);
        assert!(difference.input.is_object() || difference.input.is_string(), "{}", difference.input);
    }
}

#[test]
fn other_limits_part_where_they_are_used() {
    let world = walked();
    let (mut ours, mut theirs) = (Host::default(), Host::default());
    let policy = Policy { start_deadline: Span::from_secs(7), ..Policy::default() };
    let found = compare(
        &source(&world),
        None,
        Side { rules: &mut ours, under: Under::Recorded(Policy::default()) },
        Side { rules: &mut theirs, under: Under::Fixed(policy) },
        &mut |_| {},
    );
    let found = found.unwrap();
    assert!(!found.differences.is_empty());
    for difference in found.differences {
        let Decided::Events(events) = difference.theirs.decided else { panic!("it decides") };
        assert!(events.iter().any(|event| event["deadline"] == 7_000_000), "{events:?}");
    }
}

/// Rules that cannot read stops, give too few answers, or none.
struct Odd(Host, &'static str);

impl Rules for Odd {
    fn ask(&mut self, question: &Question) -> Result<Vec<Answer>, RulesError> {
        let mut answers = self.0.ask(question)?;
        match self.1 {
            "silent" => return Err(RulesError("it has ended".to_owned())),
            "short" => drop(answers.pop()),
            _ => {
                let then = Then::CannotFollow("event 999 is not known".to_owned());
                answers[1] = Answer { decided: Decided::Unreadable("schema 9".to_owned()), then };
            }
        }
        Ok(answers)
    }
}

#[test]
fn rules_that_do_not_answer_end_the_comparison_and_those_that_cannot_read_differ() {
    let world = walked();
    for (how, says) in [("silent", "it has ended"), ("short", "were asked about")] {
        let error = compared(&world, &mut Odd(Host::default(), how)).unwrap_err();
        assert!(error.to_string().contains(says), "{how}: {error}");
    }
    let found = compared(&world, &mut Odd(Host::default(), "unreadable")).unwrap();
    assert!(
        found.differences.iter().any(|it| it.theirs.decided == Decided::Unreadable("schema 9".to_owned()))
    );
}

#[test]
fn what_a_host_is_asked_never_makes_it_panic() {
    let question: Question = serde_json::from_str(
        r#"{"appends":[{"instance":"10000000-0000-0000-0000-000000000001","input":"zz",
            "limits":{"start_deadline":1,"migrate_deadline":1,"restart_base":1,"restart_cap":1,
                      "restart_budget":1,"restart_stable":1},
            "records":[{"version":1,"position":1,"time_us":1,"kind":116,"schema":1,"codec":1,"payload":""}]},
           {"instance":"10000000-0000-0000-0000-000000000001","input":"0200",
            "limits":{"start_deadline":1,"migrate_deadline":1,"restart_base":1,"restart_cap":1,
                      "restart_budget":1,"restart_stable":1},
            "records":[{"version":2,"position":2,"time_us":1,"kind":9999,"schema":1,"codec":1,"payload":"0"}]}]}"#,
    )
    .unwrap();
    let answers = Host::default().ask(&question).unwrap();
    assert!(matches!(answers[0].decided, Decided::Unreadable(_)), "{:?}", answers[0]);
    assert!(matches!(answers[0].then, Then::CannotFollow(_)), "{:?}", answers[0]);
    assert!(matches!(answers[1].then, Then::CannotFollow(_)), "{:?}", answers[1]);
}

#[test]
fn a_history_that_holds_together_can_be_gone_on_with() {
    let mut world = walked();
    world.create(id(9), true);
    let found = check_upgrade(&source(&world), Policy::default(), &mut |_| {}).unwrap();
    assert_eq!((found.blocked.len(), found.decided_differently, found.instances), (0, 0, 5));
    assert!(found.sagas.iter().any(|saga| saga.instance == "web-9" && saga.step == Step::Register));
    assert!(found.tried > 5);
}

#[test]
fn what_this_build_cannot_fold_stands_in_the_way_of_an_upgrade() {
    let mut world = World::simulated();
    world.live(id(1));
    world.create(id(2), false);
    world.plant(
        id(2),
        &[InstanceEvent::VmmReaped {
            vmm: lifecycle::VmmId::new(world.folds[&id(1)][1].active.unwrap().uuid()),
        }],
        Input::Reconsider,
    );
    world.create(id(3), true);
    world.says(id(3), 1, VmmState::Starting);
    let found = check_upgrade(&source(&world), Policy::default(), &mut |_| {}).unwrap();
    assert!(found.blocked.iter().all(|it| it.instance == Some(id(2))), "{:?}", found.blocked);
    assert_eq!((found.blocked[0].version, found.blocked[0].event.as_str()), (2, "VmmReaped"));
}
