//! `/metrics`: what people on call look at, in Prometheus' text format (`docs/external-api.md`, metrics).
//!
//! Invariants:
//! * no label value comes from outside: routes are those of the router, methods and states are known words;
//! * a scrape waits for nobody longer than `SLEDS_WAIT`: what does not answer in time is left out.

use crate::ops::attention;
use crate::saga_book::SAGA_BOUNDS_MS;
use crate::state::{App, Phase};
use actors::sled::SledStatus;
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lifecycle::RunState;
use lifecycle::ledger::SledLoad;
use projections::Stage;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// Upper bounds of the latency histogram, microseconds; beyond the last is "more".
const BOUNDS_MICROS: [u64; 11] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000, 30_000_000];

/// How long the sleds' actors may take to say how they are.
const SLEDS_WAIT: Duration = Duration::from_secs(2);

/// Requests of one route and method.
#[derive(Clone, Debug, Default)]
struct Route {
    statuses: BTreeMap<u16, u64>,
    /// Requests up to each bound, not cumulative; the last is "more".
    latencies: [u64; BOUNDS_MICROS.len() + 1],
    micros: u64,
}

/// Requests, counted by route, method, status and time.
#[derive(Debug, Default)]
pub(crate) struct Traffic(Mutex<BTreeMap<(String, &'static str), Route>>);

impl Traffic {
    /// Counts one. `route` is the router's pattern, none if none matched.
    pub(crate) fn note(&self, method: &Method, route: Option<&str>, status: StatusCode, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS_MICROS.len());
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let route = routes.entry((route.unwrap_or("none").to_owned(), word(method))).or_default();
        *route.statuses.entry(status.as_u16()).or_default() += 1;
        route.latencies[bucket] += 1;
        route.micros = route.micros.saturating_add(micros);
    }

    fn write(&self, page: &mut Page) {
        let routes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        page.head("musher_http_requests_total", "counter", "Requests answered.");
        for ((route, method), counted) in &routes {
            for (status, count) in &counted.statuses {
                let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
                page.sample("musher_http_requests_total", &labels, count);
            }
        }
        let name = "musher_http_request_seconds";
        page.head(name, "histogram", "Time from a request's head to its answer's head.");
        for ((route, method), counted) in &routes {
            let labels = format!("route=\"{route}\",method=\"{method}\"");
            let mut total = 0;
            for (nth, count) in counted.latencies.iter().enumerate() {
                total += count;
                let bound = BOUNDS_MICROS.get(nth).map_or_else(|| "+Inf".to_owned(), |it| seconds(*it));
                page.sample(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), total);
            }
            page.sample(&format!("{name}_sum"), &labels, seconds(counted.micros));
            page.sample(&format!("{name}_count"), &labels, total);
        }
    }
}

/// Methods are what clients send: only those that routes know have a name.
fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Microseconds as seconds, exactly.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The text as it grows.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a String takes everything");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        writeln!(self.0, "{name}{labels} {value}").expect("a String takes everything");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.sample(name, "", value);
    }
}

/// Everything, as it is now.
pub(crate) async fn scrape(State(app): State<Arc<App>>) -> Response {
    let mut page = Page::default();
    page.head("musher_build_info", "gauge", "Always 1; the build is the label.");
    page.sample("musher_build_info", &format!("version=\"{}\"", app.build), 1);
    let is_ready = u8::from(app.ready.phase() == Phase::Ready);
    page.gauge("musher_ready", "Whether the daemon serves.", is_ready);
    if let Some(took) = app.ready.recovered_in() {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        page.gauge(
            "musher_recovery_seconds",
            "From opening the log to serving, at this start.",
            seconds(micros),
        );
    }
    log(&app, &mut page);
    read_model(&app, &mut page);
    events(&app, &mut page);
    sagas(&app, &mut page);
    admission(&app, &mut page);
    timers(&app, &mut page);
    let sleds = sleds(&app, &mut page).await;
    page.gauge(
        "musher_attention",
        "Lines of /ops/v1/attention: what is quarantined, failed or stuck.",
        attention::count(&app, sleds.as_deref()),
    );
    let open = app.config.feeds_max - app.feeds.available_permits();
    page.gauge("musher_event_feeds_open", "Clients that follow /ops/v1/events.", open);
    page.head("musher_spans_total", "counter", "Spans on their way to a collector; lost ones were dropped.");
    let (exported, lost) = app.spans.counts();
    page.sample("musher_spans_total", "outcome=\"exported\"", exported);
    page.sample("musher_spans_total", "outcome=\"lost\"", lost);
    app.traffic.write(&mut page);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.0).into_response()
}

fn log(app: &App, page: &mut Page) {
    let log = app.control.log();
    let stats = log.stats();
    page.gauge("musher_log_durable_position", "Last durable position.", stats.durable);
    page.gauge("musher_log_streams", "Streams in the log.", stats.streams);
    page.gauge("musher_log_segments", "Segments of the log.", stats.segments);
    page.gauge("musher_log_bytes", "Bytes of records since the start of the store.", stats.bytes);
    page.counter("musher_log_appends_total", "Appends made durable since the start.", stats.appends);
    page.counter(
        "musher_log_batches_total",
        "Group commits since the start; appends per batch is their ratio.",
        stats.batches,
    );
    page.counter("musher_log_syncs_total", "Syncs since the start.", stats.syncs);
    let name = "musher_log_sync_seconds";
    page.head(name, "summary", "Time that syncs took.");
    page.sample(&format!("{name}_sum"), "", seconds(stats.sync_micros));
    page.sample(&format!("{name}_count"), "", stats.syncs);
    page.gauge("musher_log_waiting", "Appends that wait for the writer.", stats.waiting);
    page.gauge("musher_log_refuses", "Whether appends are refused.", u8::from(log.refusal().is_some()));
    page.gauge(
        "musher_log_quarantined_streams",
        "Streams that are damaged and neither read nor extended.",
        log.quarantined().len(),
    );
}

fn read_model(app: &App, page: &mut Page) {
    let health = app.projections.health();
    let behind = app.control.log().durable().get().saturating_sub(health.position.get());
    page.gauge("musher_read_model_lag", "Positions that the read model is behind the log.", behind);
    let is_following = u8::from(health.stage == Stage::Following);
    page.gauge("musher_read_model_following", "Whether the read model follows the log.", is_following);
    page.gauge("musher_instances_live", "Instances whose actor is in memory.", app.control.live_instances());
    let mut states: BTreeMap<&'static str, u64> =
        RunState::ALL.iter().map(|state| (state.as_str(), 0)).collect();
    app.projections.read(|model| {
        for instance in model.instance_states().filter(|instance| instance.deleted.is_none()) {
            *states.entry(instance.run_state().as_str()).or_default() += 1;
        }
    });
    page.head("musher_instances", "gauge", "Instances by the state that users see.");
    for (state, count) in states {
        page.sample("musher_instances", &format!("state=\"{state}\""), count);
    }
}

fn events(app: &App, page: &mut Page) {
    let Some(watcher) = &app.watcher else {
        return;
    };
    let seen = watcher.events();
    let name = "musher_events_total";
    page.head(
        name,
        "counter",
        "Events recorded since the start; ReportAnomalous are reports that cannot follow.",
    );
    for kind in journal::event_kinds() {
        let count = seen.get(&kind.kind).copied().unwrap_or_default();
        page.sample(name, &format!("event=\"{}\",kind=\"{}\"", kind.name, kind.kind), count);
    }
}

fn sagas(app: &App, page: &mut Page) {
    let Some(watcher) = &app.watcher else {
        return;
    };
    let by_kind = watcher.sagas();
    page.head("musher_sagas_total", "counter", "Sagas that have ended since the start.");
    for (kind, sagas) in &by_kind {
        for outcome in ["done", "not_done", "unwound"] {
            let count = sagas.outcomes.get(outcome).copied().unwrap_or_default();
            page.sample("musher_sagas_total", &format!("kind=\"{kind}\",outcome=\"{outcome}\""), count);
        }
    }
    let name = "musher_saga_seconds";
    page.head(name, "histogram", "Time from a saga's first event to its last, by recorded times.");
    for (kind, sagas) in &by_kind {
        let labels = format!("kind=\"{kind}\"");
        let mut total = 0;
        for (nth, count) in sagas.took.iter().enumerate() {
            total += count;
            let bound = SAGA_BOUNDS_MS.get(nth).map_or_else(|| "+Inf".to_owned(), |it| seconds(it * 1_000));
            page.sample(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), total);
        }
        page.sample(&format!("{name}_sum"), &labels, seconds(sagas.micros));
        page.sample(&format!("{name}_count"), &labels, total);
    }
}

fn admission(app: &App, page: &mut Page) {
    let counts = app.control.counts();
    page.gauge("musher_requests_waiting", "Requests that wait for their instance.", counts.waiting);
    page.counter(
        "musher_admission_refusals_total",
        "Requests and reports turned away because too much was waiting.",
        counts.turned_away,
    );
    page.head("musher_reports_total", "counter", "Reports of sleds about their VMMs.");
    for (outcome, count) in [
        ("accepted", counts.reports_accepted),
        ("stale", counts.reports_stale),
        ("refused", counts.reports_refused),
    ] {
        page.sample("musher_reports_total", &format!("outcome=\"{outcome}\""), count);
    }
}

fn timers(app: &App, page: &mut Page) {
    let timers = app.control.timers();
    page.head("musher_timer_runs_total", "counter", "Runs of each reaper.");
    for timer in &timers {
        page.sample("musher_timer_runs_total", &format!("timer=\"{}\"", timer.name.as_str()), timer.runs);
    }
    page.head("musher_timer_found_total", "counter", "What each reaper found in all runs.");
    for timer in &timers {
        page.sample("musher_timer_found_total", &format!("timer=\"{}\"", timer.name.as_str()), timer.found);
    }
}

async fn sleds(app: &App, page: &mut Page) -> Option<Vec<(SledLoad, Option<SledStatus>)>> {
    let Ok(Ok(sleds)) = timeout(SLEDS_WAIT, app.control.sleds()).await else {
        return None;
    };
    let (mut reachable, mut unreachable, mut calls, mut cordoned) = (0_u64, 0_u64, 0, 0_u64);
    let (mut open, mut held_back) = (0_u64, 0_u64);
    for (load, status) in &sleds {
        match status {
            Some(status) if status.unreachable.is_none() && status.last_contact.is_some() => reachable += 1,
            Some(_) | None => unreachable += 1,
        }
        calls += status.as_ref().map_or(0, |status| status.calls);
        cordoned += u64::from(!load.is_provisionable);
        open += u64::from(status.as_ref().is_some_and(|status| status.circuit.is_some()));
        held_back += status.as_ref().map_or(0, |status| status.held_back);
    }
    page.head("musher_sleds", "gauge", "Sleds by whether they can be reached; not heard from yet is not.");
    page.sample("musher_sleds", "reachable=\"true\"", reachable);
    page.sample("musher_sleds", "reachable=\"false\"", unreachable);
    page.gauge("musher_sleds_cordoned", "Sleds that take no new instances.", cordoned);
    page.gauge("musher_sled_calls", "Calls to sleds that are under way.", calls);
    let what = "Sleds that are sent nothing but inventories, because they do not answer.";
    page.gauge("musher_sled_circuits_open", what, open);
    let what = "Calls that such sleds were not sent.";
    page.counter("musher_sled_calls_held_back_total", what, held_back);
    let counts = app.control.sled_calls();
    let name = "musher_sled_answers_total";
    page.head(name, "counter", "Answers of sleds over HTTP, refusals included.");
    for count in &counts {
        page.sample(name, &format!("call=\"{}\"", count.kind.name()), count.answers);
    }
    let name = "musher_sled_answer_bytes_total";
    page.head(name, "counter", "Bytes of the bodies of sleds' answers.");
    for count in &counts {
        page.sample(name, &format!("call=\"{}\"", count.kind.name()), count.bytes);
    }
    Some(sleds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_known_words_only() {
        let traffic = Traffic::default();
        let propfind = Method::from_bytes(b"PROPFIND").unwrap();
        let took = |ms| Duration::from_millis(ms);
        traffic.note(&Method::GET, Some("/v1/instances/{instance}"), StatusCode::OK, took(2));
        traffic.note(&Method::GET, Some("/v1/instances/{instance}"), StatusCode::OK, took(99_999));
        traffic.note(&propfind, None, StatusCode::NOT_FOUND, Duration::ZERO);
        let mut page = Page::default();
        traffic.write(&mut page);
        let route = "route=\"/v1/instances/{instance}\",method=\"GET\"";
        for line in [
            format!("musher_http_requests_total{{{route},status=\"200\"}} 2"),
            "musher_http_requests_total{route=\"none\",method=\"other\",status=\"404\"} 1".to_owned(),
            format!("musher_http_request_seconds_bucket{{{route},le=\"0.001\"}} 0"),
            format!("musher_http_request_seconds_bucket{{{route},le=\"0.0025\"}} 1"),
            format!("musher_http_request_seconds_bucket{{{route},le=\"30\"}} 1"),
            format!("musher_http_request_seconds_bucket{{{route},le=\"+Inf\"}} 2"),
            format!("musher_http_request_seconds_sum{{{route}}} 100.001"),
            format!("musher_http_request_seconds_count{{{route}}} 2"),
        ] {
            assert!(page.0.lines().any(|it| it == line), "{line} in\n{}", page.0);
        }
    }
}
