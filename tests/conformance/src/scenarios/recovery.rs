//! Recovery: deaths, damaged files, strangers at the journal, panics.

use crate::runner::{Scenario, Ways, whatever};
use crate::stage::{Diverged, Phase, Play, World, context, journal_config, spec};
use actors::CommandError;
use actors::instance::Ask;
use eventlog::journal::Recovery;
use eventlog::{Append, AppendContext, Journal, Log, StoreLock};
use futures::FutureExt;
use futures::executor::block_on;
use journal::StreamName;
use lifecycle::{Instance, InstanceEvent, InstanceId, RunState, SagaId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

type Script = for<'a> fn(&'a mut World) -> Play<'a>;

const fn once(name: &'static str, variants: usize, play: Script) -> Scenario {
    Scenario { name, sleds: 3, ways: Ways::Once, variants, play, after_failure: whatever }
}

/// The rows.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario { ways: Ways::Five, ..once("r01_death_at_every_append_of_a_life", 1, r01) },
        once("r02_finished_sagas_rest_and_steps_repeat", 2, r02),
        once("r03_damaged_files", 5, r03),
        once("r04_an_event_of_a_newer_schema", 1, r04),
        once("r05_a_second_daemon", 1, r05),
        once("r06_a_stale_writer", 1, r06),
        once("r07_panics", 3, r07),
        once("r08_a_poison_event", 1, r08),
        once("r09_snapshots_lost", 1, r09),
        once("r10_projections_lost", 1, r10),
    ]
}

fn r01(w: &mut World) -> Play<'_> {
    async move {
        w.arm();
        let id = w.create(spec(w.project, "web"), true).await?;
        w.until_state(id, RunState::Running).await?;
        let pair = w.migrate(id).await?;
        w.drive(pair, Phase::Resumed).await?;
        w.automatic();
        w.until("it has moved", |w| {
            w.state(id).active == Some(pair.target) && w.run_state(id) == RunState::Running
        })
        .await?;
        w.stop(id).await?;
        w.until_state(id, RunState::Stopped).await?;
        w.start(id).await?;
        w.until_state(id, RunState::Running).await?;
        w.stop(id).await?;
        w.until_state(id, RunState::Stopped).await?;
        w.want(id, &Ask::Delete, |state| state.deleted.is_some()).await?;
        w.settle().await?;
        let state = w.state(id);
        w.must(state.deleted.is_some() && state.vmms.is_empty(), "all of it was done, and all sagas ended")
    }
    .boxed_local()
}

/// The process dies 0: after a start has finished, 1: while its register has no answer.
fn r02(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create(spec(w.project, "web"), false).await?;
        w.arm();
        if w.variant == 1 {
            w.answer("register", sled_protocol::SledError::Timeout, 2);
        }
        w.start(id).await?;
        if w.variant == 0 {
            w.until_state(id, RunState::Running).await?;
        }
        let vmm = w.state(id).active;
        let count = |w: &World| {
            let effects = w.plan().seen().effects;
            effects.iter().filter(|effect| ["register", "set_running"].contains(effect)).count()
        };
        let before = count(w);
        w.crash().await;
        w.until_state(id, RunState::Running).await?;
        w.meanwhile(Duration::from_mins(5)).await;
        w.must(w.state(id).active == vmm, "the same key: it is the same VMM")?;
        let began = |event: &&InstanceEvent| matches!(event, InstanceEvent::StartBegan { .. });
        w.must(w.book().events_of(id).filter(began).count() == 1, "one saga")?;
        w.must((count(w) > before) == (w.variant == 1), "what is finished is not run again")?;
        w.settle().await
    }
    .boxed_local()
}

/// The newest file of the journal's directory with this extension.
fn newest(dir: &Path, extension: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    found.sort();
    found.pop().expect("there is one")
}

/// Where the written bytes end: the rest of a segment is zeros.
fn end_of(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Opens what is in the directory, as the daemon does: damage to what only one instance needs is borne.
fn reopen(dir: &Path) -> Result<Recovery, String> {
    let lock = StoreLock::acquire(dir).map_err(|error| error.to_string())?;
    let mut config = journal_config();
    config.critical = |stream| !matches!(StreamName::parse(stream), Some(StreamName::Instance(_)));
    let opened = Journal::open(&dir.join("journal"), config);
    drop(lock);
    opened.map(|(_, recovery)| recovery).map_err(|error| error.to_string())
}

/// 0: a torn batch at the end, 1: a flipped bit in a record, 2: a truncated file, 3: a missing file, 4: a
/// flipped bit in a checkpoint.
fn r03(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create_running("web").await?;
        w.stop(id).await?;
        w.until_state(id, RunState::Stopped).await?;
        w.settle().await?;
        let durable = w.book().position;
        let first_of_instance = w.book().history.iter().position(|r| r.stream == StreamName::Instance(id));
        if w.variant >= 2 {
            // A clean end writes down the heads, and where the tail is.
            w.restart().await;
        }
        w.bury();
        w.finish();
        let journal = w.dir().join("journal");
        let segment = newest(&journal, "seg");
        let mut bytes = std::fs::read(&segment).unwrap();
        let end = end_of(&bytes);
        match w.variant {
            0 => {
                let torn: Vec<u8> = bytes[end - 120..end - 40].to_vec();
                let needed = end + 8 + torn.len();
                bytes.resize(bytes.len().max(needed), 0);
                bytes[end..end + torn.len()].copy_from_slice(&torn);
                std::fs::write(&segment, &bytes).unwrap();
                let recovery = reopen(w.dir()).map_err(Diverged)?;
                w.must(recovery.durable >= durable, "nothing durable is lost")?;
                w.must(recovery.trimmed.is_some(), "and it says what it cut off")
            }
            1 => {
                w.must(first_of_instance.is_some(), "there is a record to damage")?;
                let at = find(&bytes, id.uuid().as_bytes()).expect("its stream is named in its records");
                bytes[at + 40] ^= 1;
                std::fs::write(&segment, &bytes).unwrap();
                let recovery = reopen(w.dir()).map_err(Diverged)?;
                w.must(recovery.durable == durable, "what follows is there")?;
                let is_named = recovery.quarantined.contains(&StreamName::Instance(id).id());
                w.must(is_named, &format!("that stream is quarantined: {recovery:?}"))
            }
            2 => {
                bytes.truncate(end / 2);
                std::fs::write(&segment, &bytes).unwrap();
                let refused = reopen(w.dir()).err();
                w.must(refused.is_some_and(|why| !why.is_empty()), "it refuses to open, and says why")
            }
            3 => {
                std::fs::remove_file(&segment).unwrap();
                let refused = reopen(w.dir()).err();
                w.must(refused.is_some_and(|why| !why.is_empty()), "it refuses to open, and says why")
            }
            _ => {
                let checkpoint = newest(&journal, "chk");
                let mut heads = std::fs::read(&checkpoint).unwrap();
                let middle = heads.len() / 2;
                heads[middle] ^= 1;
                std::fs::write(&checkpoint, &heads).unwrap();
                let recovery = reopen(w.dir()).map_err(Diverged)?;
                w.must(recovery.durable > durable, "it is only a cache")?;
                w.must(!recovery.notes.is_empty(), &format!("and it says so: {recovery:?}"))
            }
        }
    }
    .boxed_local()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn r04(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create_running("web").await?;
        let stream = StreamName::Instance(id).id();
        let log = w.journal();
        let record = log.read_all(w.book().position, 1).unwrap().remove(0);
        let claim = block_on(log.claim(stream)).unwrap();
        let event = eventlog::NewEvent {
            kind: record.kind,
            schema: record.schema + 100,
            codec: record.codec,
            time_us: record.time_us + 1,
            cause: eventlog::Cause::None,
            payload: record.payload,
        };
        let append = Append {
            stream,
            epoch: claim.epoch,
            expected: claim.head.version,
            events: vec![event],
            context: AppendContext::default(),
        };
        let appended = block_on(log.append(append));
        let is_there = matches!(appended, eventlog::AppendOutcome::Appended { .. });
        w.must(is_there, &format!("it is there: {appended:?}"))?;
        drop(log);
        let refused = w.crash_for_good().await;
        w.finish();
        w.clear_broken();
        let wanted = (record.schema + 100).to_string();
        let is_said = refused.as_ref().is_some_and(|why| why.contains(&wanted));
        w.must(is_said, &format!("it refuses to start, and names it: {refused:?}"))
    }
    .boxed_local()
}

fn r05(w: &mut World) -> Play<'_> {
    async move {
        w.create_running("web").await?;
        let refused = StoreLock::acquire(w.dir()).err().map(|error| error.to_string());
        let is_said = refused.as_ref().is_some_and(|why| why.contains("in use by another"));
        w.must(is_said, &format!("a second daemon is told: {refused:?}"))?;
        w.settle().await
    }
    .boxed_local()
}

fn r06(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create_running("web").await?;
        let before = w.state(id);
        let log = w.journal();
        block_on(log.claim(StreamName::Instance(id).id())).unwrap();
        drop(log);
        let fenced = w.ask(id, Ask::Stop).await;
        w.must(matches!(fenced, Err(CommandError::Unavailable(_))), &format!("it is fenced: {fenced:?}"))?;
        w.must(w.state(id) == before, "nothing is written")?;
        w.stop(id).await?;
        w.until_state(id, RunState::Stopped).await?;
        w.settle().await
    }
    .boxed_local()
}

/// A panic in 0: an instance's actor, 1: a sled's, 2: the ledger.
fn r07(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create_running("web").await?;
        let (sled, vmm) = w.active(id).expect("it runs");
        match w.variant {
            0 => {
                w.rot_ids();
                let lost = w.ask(id, Ask::Stop).await;
                w.must(matches!(lost, Err(CommandError::Unknown(_))), &format!("nobody knows: {lost:?}"))?;
                w.must(w.run_state(id) == RunState::Running, "nothing is written")?;
            }
            1 => {
                w.rot_connections();
                w.restart_agent(sled);
                w.meanwhile(Duration::from_secs(30)).await;
            }
            _ => {
                w.plan().skip_next_record();
                w.want(id, &Ask::Reboot, |_| false).await?;
                w.until("the process is to end", |w| w.fatal().is_some()).await?;
                w.crash().await;
                w.until_state(id, RunState::Running).await?;
            }
        }
        w.must(w.fatal().is_none(), "the daemon goes on")?;
        w.must(w.active(id) == Some((sled, vmm)), "the guest did not notice")?;
        w.stop(id).await?;
        w.until_state(id, RunState::Stopped).await?;
        w.settle().await
    }
    .boxed_local()
}

fn r08(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create(spec(w.project, "web"), false).await?;
        let other = w.create_running("other").await?;
        poison(w, id)?;
        w.expect_quarantine(id);
        w.crash().await;
        for _ in 0..20 {
            let refused = w.ask(id, Ask::Start).await;
            w.must(refused.is_err(), "it does not act")?;
            w.meanwhile(Duration::from_secs(2)).await;
        }
        let named = w.control.quarantined();
        w.must(named.iter().any(|(named, _)| *named == id), &format!("it is named: {named:?}"))?;
        w.stop(other).await?;
        w.until_state(other, RunState::Stopped).await?;
        w.start(other).await?;
        w.until_state(other, RunState::Running).await?;
        w.settle().await?;
        w.must(w.run_state(other) == RunState::Running, "the others are served")
    }
    .boxed_local()
}

/// Appends an event that cannot follow.
fn poison(w: &World, id: InstanceId) -> Result<(), Diverged> {
    w.book().poisoned = Some(id);
    let stream = StreamName::Instance(id);
    let log = w.journal();
    let claim = block_on(log.claim(stream.id())).unwrap();
    let saga = SagaId::new(Uuid::from_u128(0x0bad));
    let event = journal::Event::from(InstanceEvent::SagaEnded { saga, done: true });
    let now = w.state(id).head.time;
    let context = journal::Context::of(journal::Actor::Daemon);
    let append =
        journal::append(stream, claim.epoch, claim.head.version, &[event], &context, now, now, "conformance");
    let appended = block_on(log.append(append.map_err(|error| Diverged(error.to_string()))?));
    w.must(matches!(appended, eventlog::AppendOutcome::Appended { .. }), "it is there")
}

fn r09(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create_running("web").await?;
        for _ in 0..30 {
            w.want(id, &Ask::Reboot, |_| false).await?;
            w.until("it runs again", |w| {
                w.run_state(id) == RunState::Running && w.state(id).reboot.is_none()
            })
            .await?;
        }
        w.must(w.has_snapshot(id), "there is a snapshot")?;
        let before = w.state(id);
        w.crash().await;
        w.settle().await?;
        w.must(w.control.instance(id).await.is_ok_and(|live| *live == before), "with it, state is the same")?;
        w.lose_snapshots();
        w.crash().await;
        w.settle().await?;
        w.must(w.control.instance(id).await.is_ok_and(|live| *live == before), "and without it")?;
        let asked = w.control.ask(id, Ask::Stop, context()).await;
        w.must(asked.is_ok(), "and it goes on")
    }
    .boxed_local()
}

/// What a read model built from nothing says of every instance, once it has caught up.
async fn projected(w: &World) -> Result<BTreeMap<InstanceId, Instance>, Diverged> {
    let (model, projector) = projections::spawn(Arc::clone(w.control.log()), None);
    let end = w.book().position;
    let caught_up = model.wait_for(end).await;
    caught_up.map_err(|error| Diverged(error.to_string()))?;
    let states = model.read(|model| model.instance_states().map(|state| (state.id, state.clone())).collect());
    projector.abort();
    Ok(states)
}

fn r10(w: &mut World) -> Play<'_> {
    async move {
        let id = w.create_running("web").await?;
        w.create(spec(w.project, "other"), false).await?;
        w.settle().await?;
        let expected = w.book().instances.clone();
        w.must(projected(w).await? == expected, "the projection is the fold")?;
        w.crash().await;
        w.must(projected(w).await? == expected, "rebuilt from nothing, it is the same")?;
        w.stop(id).await?;
        w.until_state(id, RunState::Stopped).await?;
        w.settle().await?;
        let expected = w.book().instances.clone();
        w.must(projected(w).await? == expected, "and it goes on")
    }
    .boxed_local()
}
