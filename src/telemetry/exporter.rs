//! Spans to a collector: OTLP as JSON over plain HTTP, in batches, by one task.
//!
//! Invariants:
//! * at most [`QUEUE_MAX`] spans wait, and one batch is under way;
//! * a batch that a collector does not take is dropped and counted; the next try waits, longer each time, up to
//!   [`PAUSE_MAX`];
//! * the log hears of a collector once when it stops answering, and once when it answers again.

use super::Settings;
use super::layer::{SpanLayer, TARGET};
use crate::serve::BUILD;
use api::SpanTally;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// Spans that may wait: a second of a busy daemon, a few megabytes.
const QUEUE_MAX: usize = 8_192;
/// Spans of one request to the collector.
const BATCH_MAX: usize = 512;
/// How long spans wait for others to share their request.
const GATHER: Duration = Duration::from_millis(200);
/// Longest pause between two tries at a collector that does not answer.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of the daemon waits for the last spans.
const FINISH_PATIENCE: Duration = Duration::from_secs(2);

/// A span that has ended, as a collector reads it.
pub(super) struct Finished(pub(super) Value);

/// The task that sends spans.
pub struct Exporter {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Starts it, on the current runtime; none without an endpoint.
    pub fn start(settings: &Settings, tally: &Arc<SpanTally>) -> Option<(Self, SpanLayer)> {
        let endpoint = settings.otlp.endpoint()?;
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let (stop, stopping) = watch::channel(false);
        let sender = Sender {
            url: format!("{endpoint}/v1/traces"),
            // Nobody's proxy is on the way to it.
            http: reqwest::Client::builder().no_proxy().build().ok()?,
            waiting,
            stopping,
            tally: Arc::clone(tally),
            failures: 0,
        };
        let layer = SpanLayer::new(queue, Arc::clone(tally));
        Some((Self { stop, task: tokio::spawn(sender.run()) }, layer))
    }

    /// Sends what is left, within bounds.
    pub async fn finish(self) {
        let _ = self.stop.send(true);
        // What a dead collector does not take is lost with the process.
        let _ = timeout(FINISH_PATIENCE, self.task).await;
    }
}

/// Which spans the layer gets to see.
pub fn wanted() -> Targets {
    Targets::new().with_target(TARGET, LevelFilter::DEBUG)
}

struct Sender {
    url: String,
    http: reqwest::Client,
    waiting: mpsc::Receiver<Finished>,
    stopping: watch::Receiver<bool>,
    tally: Arc<SpanTally>,
    /// Batches in a row that were not taken.
    failures: u32,
}

impl Sender {
    async fn run(mut self) {
        loop {
            let pause = pause(self.failures);
            let is_last = tokio::select! {
                biased;
                // A daemon that has let go of it is at its end as well.
                _ = self.stopping.wait_for(|stop| *stop) => true,
                () = sleep(pause) => false,
            };
            while let Some(batch) = self.next_batch() {
                let spans = batch.len();
                match self.deliver(batch).await {
                    Ok(()) => self.taken(spans),
                    Err(why) => {
                        self.not_taken(spans, &why);
                        break;
                    }
                }
            }
            if is_last {
                return;
            }
        }
    }

    fn next_batch(&mut self) -> Option<Vec<Value>> {
        let waiting = std::iter::from_fn(|| self.waiting.try_recv().ok());
        let batch: Vec<Value> = waiting.take(BATCH_MAX).map(|Finished(span)| span).collect();
        Some(batch).filter(|batch| !batch.is_empty())
    }

    async fn deliver(&self, spans: Vec<Value>) -> Result<(), String> {
        let service = [("service.name", "musher"), ("service.version", BUILD)]
            .map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}));
        let body = json!({"resourceSpans": [{
            "resource": {"attributes": service},
            "scopeSpans": [{"scope": {"name": "musher", "version": BUILD}, "spans": spans}],
        }]});
        let sent = timeout(PATIENCE, self.http.post(&self.url).json(&body).send()).await;
        match sent {
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            Ok(Ok(answer)) => Err(format!("it answers {}", answer.status())),
        }
    }

    fn taken(&mut self, spans: usize) {
        self.tally.exported(spans);
        if std::mem::take(&mut self.failures) > 0 {
            let (_, lost) = self.tally.counts();
            tracing::info!(collector = self.url, lost, "the collector takes spans again");
        }
    }

    fn not_taken(&mut self, spans: usize, why: &str) {
        self.tally.lost(spans);
        if self.failures == 0 {
            tracing::warn!(
                collector = self.url,
                why,
                "the collector does not take spans: they are dropped, and counted in musher_spans_total, until it does"
            );
        }
        self.failures = self.failures.saturating_add(1);
    }
}

/// Doubled from the gathering time with each failure, up to the longest.
fn pause(failures: u32) -> Duration {
    GATHER.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_at_a_dead_collector_come_ever_more_seldom_up_to_a_bound() {
        assert_eq!(pause(0), GATHER);
        assert_eq!(pause(3), GATHER * 8);
        assert_eq!((pause(16), pause(u32::MAX)), (PAUSE_MAX, PAUSE_MAX));
    }
}
