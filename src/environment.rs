//! What a daemon's control plane works with: clock, log, sleds, and the limits that its settings give.

use crate::config::Config;
use crate::real::{SystemClock, SystemIds};
use crate::serve::BUILD;
use actors::{Env, Fatal, Limits, PushLimits, SledConnector, TimerPeriods};
use eventlog::Log;
use eventlog::cache::Cache;
use lifecycle::restart::RestartPolicy;
use lifecycle::{Policy, Span};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// All of it.
pub fn environment(
    config: &Config,
    log: Arc<dyn Log>,
    cache: Option<Arc<dyn Cache>>,
    connector: Arc<dyn SledConnector>,
    fatal: Fatal,
) -> Env {
    let defaults = Limits::default();
    Env {
        clock: Arc::new(SystemClock),
        ids: Arc::new(SystemIds),
        log,
        cache,
        connector,
        // Simulated like the sleds: what is pushed to them starts empty with each daemon.
        switch: Some(Arc::new(sim_sled::network::SimSwitch::default())),
        producers: Some(Arc::new(sim_sled::network::SimProducers::default())),
        policy: policy(config),
        limits: Limits {
            instance_queue_max: config.instances.queue_max,
            commands_max: config.instances.commands_max,
            sled_calls_max: config.sleds.calls_max,
            order_answer: Duration::from_secs(config.instances.order_answer_s),
            sled_call: config.sleds.call.times(),
            sled_unanswered_max: config.sleds.unanswered_max,
            sled_probe: Duration::from_secs(config.sleds.probe_s),
            push: PushLimits { call: config.sleds.call.devices(), ..PushLimits::default() },
            sled_lease: Some(config.sleds.lease_s).filter(|seconds| *seconds > 0),
            sled_lease_grace: Duration::from_secs(config.sleds.lease_grace_s),
            inventory_period: Duration::from_secs(config.sleds.inventory_s),
            restarts_max: config.instances.restarts_max,
            drain_parallel: config.sleds.drain_parallel,
            drain_period: Duration::from_secs(config.timers.sled_drain_s),
            passivate_after: Duration::from_secs(config.instances.passivate_after_s),
            retention: config.retention.retention(),
            timers: TimerPeriods {
                retention: Duration::from_secs(config.retention.period_s),
                ..periods(&config.timers)
            },
            ..defaults
        },
        build: BUILD.to_owned(),
        fatal,
    }
}

/// Limits that decisions use.
pub fn policy(config: &Config) -> Policy {
    let instances = &config.instances;
    Policy {
        start_deadline: Span::from_secs(instances.start_deadline_s),
        migrate_deadline: Span::from_secs(instances.migrate_deadline_s),
        restart: RestartPolicy {
            base: Span::from_secs(instances.restart_base_s),
            cap: Span::from_secs(instances.restart_cap_s),
            budget: instances.restart_budget,
            stable: Span::from_secs(instances.restart_stable_s),
        },
        pause_after_failures: NonZeroU32::new(instances.pause_after_failures),
    }
}

fn periods(timers: &crate::config::Timers) -> TimerPeriods {
    TimerPeriods {
        instance_updater: Duration::from_secs(timers.instance_updater_s),
        vmm_reaper: Duration::from_secs(timers.vmm_reaper_s),
        reincarnation: Duration::from_secs(timers.reincarnation_s),
        stuck_saga: Duration::from_secs(timers.stuck_saga_s),
        passivation: Duration::from_secs(timers.passivation_s),
        ..TimerPeriods::default()
    }
}
