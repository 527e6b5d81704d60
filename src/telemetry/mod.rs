//! The daemon's spans on their way to an OpenTelemetry collector (`docs/operations.md`, traces;
//! `docs/decisions/0057-spans-leave-through-a-layer-of-our-own.md`).
//!
//! Invariants:
//! * what serves never waits for a collector: spans go into a bounded queue, and are dropped when it is full;
//! * what is dropped is counted, and a collector that does not answer is said once, not once per span;
//! * without the feature `otel`, or without an endpoint, there is neither a span nor a task.

#[cfg(feature = "otel")]
mod exporter;
#[cfg(feature = "otel")]
mod layer;

use anyhow::bail;
use serde::Deserialize;

/// Section `telemetry` of the settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Spans, as OTLP.
    pub otlp: Otlp,
}

/// Where spans go.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// Base URL of a collector; empty for none.
    pub endpoint: String,
}

impl Otlp {
    /// The collector's base URL, if there shall be one.
    #[cfg_attr(not(feature = "otel"), expect(dead_code, reason = "a build without an exporter refuses one"))]
    pub fn endpoint(&self) -> Option<&str> {
        Some(self.endpoint.trim_end_matches('/')).filter(|endpoint| !endpoint.is_empty())
    }

    /// Whether this build can send spans there.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.endpoint.is_empty() {
            return Ok(());
        }
        if !cfg!(feature = "otel") {
            bail!(
                "the configuration is not valid: telemetry.otlp.endpoint is set, and this build exports no spans; build it with --features otel, or leave the key empty"
            );
        }
        let is_plain = reqwest::Url::parse(&self.endpoint)
            .is_ok_and(|url| url.scheme() == "http" && url.has_host() && url.query().is_none());
        if !is_plain {
            bail!(
                "the configuration is not valid: telemetry.otlp.endpoint is \"{}\"; it must be the http:// URL of a collector, such as http://127.0.0.1:4318 (a collector on this host can pass spans on over TLS)",
                self.endpoint
            );
        }
        Ok(())
    }
}

#[cfg(feature = "otel")]
pub use exporter::{Exporter, wanted};
#[cfg(feature = "otel")]
pub use layer::SpanLayer;

/// What nobody listens to in a build without an exporter.
#[cfg(not(feature = "otel"))]
pub type SpanLayer = tracing_subscriber::layer::Identity;

/// Nothing, in a build without an exporter.
#[cfg(not(feature = "otel"))]
pub fn wanted() -> tracing_subscriber::filter::Targets {
    tracing_subscriber::filter::Targets::new()
}

/// Nothing, in a build without an exporter.
#[cfg(not(feature = "otel"))]
pub struct Exporter;

#[cfg(not(feature = "otel"))]
impl Exporter {
    /// None: a build without it has refused an endpoint.
    pub fn start(_: &Settings, _: &std::sync::Arc<api::SpanTally>) -> Option<(Self, SpanLayer)> {
        None
    }

    /// Nothing is left.
    #[expect(clippy::unused_async, reason = "the same as with an exporter")]
    pub async fn finish(self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_plain_http_url_of_a_build_that_has_an_exporter() {
        let check = |endpoint: &str| {
            let refused = Otlp { endpoint: endpoint.to_owned() }.check().err();
            refused.map(|error| error.to_string())
        };
        assert_eq!(check(""), None);
        for bad in ["https://collector:4318", "collector:4318", "http://", "http://c/?a=b", "ftp://c"] {
            let refused = check(bad).unwrap_or_else(|| panic!("{bad} is taken"));
            assert!(refused.contains("telemetry.otlp.endpoint"), "{refused}");
        }
        let good = check("http://127.0.0.1:4318/");
        assert_eq!(good.is_none(), cfg!(feature = "otel"), "{good:?}");
    }
}
