//! How the service stands, in figures: `GET /metrics`, in the text format of Prometheus (0.0.4).
//!
//! Names follow its convention: `mainstay_`, the pattern, what is counted, the unit; `_total` for what only grows. The
//! same rule has the same names in every service; `policy` says whose it is.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};

use mainstay::cache::Stats as CacheStats;
use mainstay::envelope::Monotonic;
use mainstay::resilience::Policy;
use mainstay::resilience::circuit_breaker::Phase;
use mainstay::runtime::watchdog::Stats as WatchdogStats;

/// The media type of the text format.
pub(crate) const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

type Source = Box<dyn Fn(&mut Text, Monotonic) + Send + Sync>;

/// Everything of a service that has figures. Each is asked when somebody looks, and costs nothing otherwise.
#[derive(Default)]
pub struct Metrics(Mutex<Vec<Source>>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Shows this from now on. It must not block.
    pub fn add(&self, source: impl Fn(&mut Text, Monotonic) + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    /// All figures at present.
    pub(super) fn text(&self, now: Monotonic) -> Text {
        let mut text = Text::default();
        for source in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            source(&mut text, now);
        }
        text
    }
}

/// Figures being written, those of one name together, as the format asks for.
#[derive(Debug, Default)]
pub struct Text(BTreeMap<&'static str, Family>);

#[derive(Debug)]
struct Family {
    kind: &'static str,
    help: &'static str,
    /// Labels as they are written, and the figure.
    samples: Vec<(String, f64)>,
}

/// Something that goes up and down.
pub fn gauge(text: &mut Text, name: &'static str, help: &'static str, labels: &[(&str, &str)], value: f64) {
    text.sample("gauge", name, help, labels, value);
}

/// Something that only grows. Its name ends in `_total`.
pub fn counter(text: &mut Text, name: &'static str, help: &'static str, labels: &[(&str, &str)], value: u64) {
    // Exact up to 2⁵³, as every figure of this format.
    text.sample("counter", name, help, labels, value as f64);
}

impl Text {
    fn sample(
        &mut self,
        kind: &'static str,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: f64,
    ) {
        let mut written = String::new();
        for (label, value) in labels {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let comma = if written.is_empty() { "" } else { "," };
            // A String takes everything.
            let _ = write!(written, "{comma}{label}=\"{value}\"");
        }
        let family = self.0.entry(name).or_insert(Family { kind, help, samples: Vec::new() });
        family.samples.push((written, value));
    }

    /// Each figure under its name, as JSON has it.
    pub(super) fn json(&self) -> serde_json::Map<String, serde_json::Value> {
        let families =
            self.0.iter().flat_map(|(name, family)| family.samples.iter().map(move |sample| (name, sample)));
        families.map(|(name, (labels, value))| (named(name, labels), (*value).into())).collect()
    }
}

fn named(name: &str, labels: &str) -> String {
    if labels.is_empty() { name.to_owned() } else { format!("{name}{{{labels}}}") }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, Family { kind, help, samples }) in &self.0 {
            writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
            for (labels, value) in samples {
                writeln!(f, "{} {value}", named(name, labels))?;
            }
        }
        Ok(())
    }
}

/// The rules around calls to a callee.
pub fn policy(text: &mut Text, policy: &Policy, now: Monotonic) {
    let labels = [("policy", policy.name())];
    let breaker = policy.breaker().snapshot(now);
    for (state, is_now) in [
        ("closed", matches!(breaker.phase, Phase::Closed)),
        ("open", matches!(breaker.phase, Phase::Open { .. })),
        ("half_open", matches!(breaker.phase, Phase::HalfOpen { .. })),
    ] {
        let labels = [("policy", policy.name()), ("state", state)];
        let help = "1 for the state that the circuit breaker is in, 0 for the others.";
        gauge(text, "mainstay_circuit_breaker_state", help, &labels, f64::from(u8::from(is_now)));
    }
    let help = "Calls that the circuit breaker refused.";
    counter(text, "mainstay_circuit_breaker_refused_total", help, &labels, breaker.refused);
    for (outcome, calls) in
        [("all", breaker.counts.calls), ("failed", breaker.counts.failures), ("slow", breaker.counts.slow)]
    {
        let labels = [("policy", policy.name()), ("outcome", outcome)];
        let help = "Calls in the circuit breaker's window.";
        gauge(text, "mainstay_circuit_breaker_window_calls", help, &labels, calls as f64);
    }
    let bulkhead = policy.bulkhead().snapshot();
    for (name, help, value) in [
        ("mainstay_bulkhead_permits", "Calls that may be under way at a time.", bulkhead.permits),
        ("mainstay_bulkhead_in_flight", "Calls that are under way.", bulkhead.load.in_use),
        ("mainstay_bulkhead_queue", "Calls that may wait for a permit.", bulkhead.queue),
        ("mainstay_bulkhead_waiting", "Calls that wait for a permit.", bulkhead.load.waiting),
    ] {
        gauge(text, name, help, &labels, f64::from(value));
    }
    counter(
        text,
        "mainstay_bulkhead_refused_total",
        "Calls that the bulkhead refused.",
        &labels,
        bulkhead.refused,
    );
    let retries = policy.retries().snapshot();
    let help = "Tries made after a failed one.";
    counter(text, "mainstay_retries_total", help, &labels, retries.made);
    let help = "Retries that the request's own tokens, or else the policy's bucket, did not pay for.";
    counter(text, "mainstay_retry_budget_refused_total", help, &labels, retries.budget_empty);
    let tokens = f64::from(policy.bucket().whole());
    gauge(text, "mainstay_retry_budget_tokens", "Retries that the budget has left.", &labels, tokens);
    if let Some(limit) = policy.rate_limit() {
        let help = "Calls that the rate limit would admit now.";
        gauge(text, "mainstay_rate_limit_left", help, &labels, f64::from(limit.left(now)));
    }
    if let Some(limit) = policy.adaptive() {
        let help = "Calls that may be under way at a time, as measured.";
        gauge(text, "mainstay_adaptive_limit", help, &labels, f64::from(limit.limit()));
        let help = "Calls that are under way.";
        gauge(text, "mainstay_adaptive_limit_in_flight", help, &labels, f64::from(limit.in_flight()));
    }
}

/// A cache.
pub fn cache(text: &mut Text, name: &str, stats: &CacheStats) {
    let labels = [("cache", name)];
    for (name, help, value) in [
        ("mainstay_cache_hits_total", "Answers from a fresh entry.", stats.hits),
        ("mainstay_cache_stale_total", "Answers from a stale entry.", stats.stale),
        ("mainstay_cache_misses_total", "Questions for which nothing usable was kept.", stats.misses),
        ("mainstay_cache_loads_total", "Loads begun.", stats.loads),
        ("mainstay_cache_load_failures_total", "Loads that ended with an error.", stats.failed),
        ("mainstay_cache_refused_total", "Questions that were refused.", stats.refused),
    ] {
        counter(text, name, help, &labels, value);
    }
    for (name, help, value) in [
        ("mainstay_cache_entries", "Entries kept.", stats.entries),
        ("mainstay_cache_loading", "Loads under way.", stats.loading),
        ("mainstay_cache_waiting", "Callers that wait for a load.", stats.waiting),
    ] {
        gauge(text, name, help, &labels, value as f64);
    }
}

/// The watchdog.
pub(super) fn watchdog(text: &mut Text, stats: &WatchdogStats) {
    gauge(text, "mainstay_watchdog_tasks", "Tasks that are watched.", &[], stats.tasks as f64);
    let help = "Polls that blocked their thread.";
    counter(text, "mainstay_watchdog_blocked_total", help, &[], stats.blocked);
    let help = "Times that the runtime did not come to its tasks.";
    counter(text, "mainstay_watchdog_silences_total", help, &[], stats.silences);
    let help = "The longest of both that is over.";
    gauge(text, "mainstay_watchdog_longest_seconds", help, &[], stats.longest.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_one_name_stand_together_and_labels_are_escaped() {
        let metrics = Metrics::default();
        metrics.add(|text, _| gauge(text, "b", "B.", &[("policy", "one")], 1.5));
        metrics.add(|text, _| counter(text, "a_total", "A.", &[], 2));
        metrics.add(|text, _| gauge(text, "b", "B.", &[("policy", "t\"w\\o"), ("state", "x")], 0.0));
        let text = metrics.text(Monotonic::ORIGIN);
        let expected = "# HELP a_total A.\n# TYPE a_total counter\na_total 2\n# HELP b B.\n# TYPE b gauge\n\
                        b{policy=\"one\"} 1.5\nb{policy=\"t\\\"w\\\\o\",state=\"x\"} 0\n";
        assert_eq!(text.to_string(), expected);
        assert_eq!(text.json()["b{policy=\"one\"}"], 1.5);
    }
}
