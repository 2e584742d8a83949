//! The settings of each rule: those of its `Spec`, by the same names.

use std::time::Duration;

use mainstay_resilience::bulkhead;
use mainstay_resilience::circuit_breaker::{Mode, Slow, Window};
use mainstay_resilience::rate_limit::Kind;
use mainstay_resilience::retry::Jitter;
use mainstay_resilience::timeout;
use mainstay_resilience::{Adaptive, Breaker, Hedge, Limit, Rate as RateSpec, Retry, Shed};
use toml::de::DeValue;

use super::repeats::Repeats;
use crate::form::Form;
use crate::value::{Rate, Setting, Value, Wrong, words};

words!(Jitter { "none" => Jitter::None, "full" => Jitter::Full, "decorrelated" => Jitter::Decorrelated });
words!(Mode {
    "enforce" => Mode::Enforce,
    "observe_only" => Mode::ObserveOnly,
    "disabled" => Mode::Disabled,
    "forced_open" => Mode::ForcedOpen,
});

/// The two kinds that refuse; the third is what `pacing` is.
#[derive(Clone, Copy, PartialEq)]
enum Refusing {
    TokenBucket,
    LeakyMeter,
}

words!(Refusing { "token_bucket" => Refusing::TokenBucket, "leaky_meter" => Refusing::LeakyMeter });

impl Setting for Window {
    fn read(value: &DeValue<'_>) -> Result<Self, Wrong> {
        match value {
            DeValue::Integer(_) => u32::read(value).map(Window::Count),
            DeValue::String(_) => Duration::read(value).map(Window::Time),
            _ => Err(Wrong::new(value, "it is a number of calls such as 100, or a time such as \"10s\"")),
        }
    }

    fn value(&self) -> Option<Value> {
        match self {
            Window::Count(calls) => calls.value(),
            Window::Time(time) => time.value(),
        }
    }
}

pub(super) fn timeouts<F: Form>(form: &mut F, spec: &mut timeout::Spec) {
    form.setting("total", &mut spec.total);
    form.setting("attempt", &mut spec.attempt);
}

pub(super) fn retry<F: Form>(form: &mut F, spec: &mut Retry, repeats: &mut Repeats) {
    form.setting("base", &mut spec.base);
    form.setting("cap", &mut spec.cap);
    form.setting("jitter", &mut spec.jitter);
    form.then(|| {
        if spec.jitter == Jitter::Decorrelated {
            spec.factor = Retry::decorrelated(spec.base, spec.cap).factor;
        }
    });
    form.setting("factor", &mut spec.factor);
    form.setting("max_attempts", &mut spec.max_attempts);
    form.setting("total", &mut spec.total);
    repeats.form(form);
}

pub(super) fn hedge<F: Form>(form: &mut F, spec: &mut Hedge, repeats: &mut Repeats) {
    form.setting("percentile", &mut spec.percentile);
    form.setting("at_least", &mut spec.at_least);
    form.setting("at_most", &mut spec.at_most);
    form.setting("minimum_calls", &mut spec.minimum_calls);
    repeats.form(form);
}

pub(super) fn breaker<F: Form>(form: &mut F, spec: &mut Breaker) {
    form.setting("failure_rate", &mut spec.failure_rate);
    // Both of its settings are needed, so there are none to begin with.
    let fresh = Slow { longer_than: Duration::ZERO, rate: 0.0 };
    let slow = |form: &mut F, slow: &mut Slow| {
        form.required("longer_than", &mut slow.longer_than);
        form.required("rate", &mut slow.rate);
    };
    form.section("slow", &mut spec.slow, fresh, slow, |_| Ok(()));
    form.setting("window", &mut spec.window);
    // What the builder's methods of these names set along with them.
    form.then(|| *spec = spec.over(spec.window));
    form.setting("minimum_calls", &mut spec.minimum_calls);
    form.setting("shards", &mut spec.shards);
    form.setting("open_for", &mut spec.open_for);
    form.then(|| *spec = spec.open_for(spec.open_for));
    form.setting("open_growth", &mut spec.open_growth);
    form.setting("open_cap", &mut spec.open_cap);
    form.setting("probes", &mut spec.probes);
    form.setting("probe_limit", &mut spec.probe_limit);
    form.setting("mode", &mut spec.mode);
}

pub(super) fn bulkhead<F: Form>(form: &mut F, spec: &mut bulkhead::Spec) {
    form.required("permits", &mut spec.permits);
    form.setting("queue", &mut spec.queue);
    form.setting("wait", &mut spec.wait);
}

/// A limit that refuses, for each key if it `is_keyed`.
pub(super) fn rate_limit<F: Form>(form: &mut F, spec: &mut RateSpec, is_keyed: bool) {
    rate(form, spec);
    form.then(|| spec.burst = spec.permits);
    let mut kind = match spec.kind {
        Kind::LeakyMeter => Refusing::LeakyMeter,
        Kind::TokenBucket | Kind::LeakyQueue => Refusing::TokenBucket,
    };
    form.setting("kind", &mut kind);
    form.then(|| {
        spec.kind = match kind {
            Refusing::TokenBucket => Kind::TokenBucket,
            Refusing::LeakyMeter => Kind::LeakyMeter,
        }
    });
    form.setting("burst", &mut spec.burst);
    if is_keyed {
        form.setting("keys_max", &mut spec.keys_max);
    } else {
        form.meaningless(&["keys_max"], "calls to one callee are limited together, so there are no keys");
    }
    form.meaningless(&["queue"], "what comes faster is refused and never waits; `pacing` makes it wait");
}

/// A limit that makes its callers wait.
pub(super) fn pacing<F: Form>(form: &mut F, spec: &mut RateSpec) {
    rate(form, spec);
    form.required("queue", &mut spec.queue);
    form.meaningless(&["burst"], "what is paced leaves one by one; `rate_limit` has bursts");
}

fn rate<F: Form>(form: &mut F, spec: &mut RateSpec) {
    let mut rate = Rate { permits: spec.permits, per: spec.per };
    form.required("rate", &mut rate);
    form.then(|| (spec.permits, spec.per) = (rate.permits, rate.per));
}

pub(super) fn load_shed<F: Form>(form: &mut F, spec: &mut Shed) {
    limit(form, &mut spec.limit);
    form.setting("queue", &mut spec.queue);
    form.setting("target", &mut spec.target);
    form.setting("interval", &mut spec.interval);
}

/// `limit` where it is fixed, the settings of an [`Adaptive`] where it is not.
pub(super) fn limit<F: Form>(form: &mut F, limit: &mut Limit) {
    let (mut fixed, mut measured) = match *limit {
        Limit::Fixed(fixed) => (Some(fixed), None),
        Limit::Adaptive(adaptive) => (None, Some(adaptive)),
    };
    form.setting("limit", &mut fixed);
    if let Some(fixed) = fixed {
        form.then(|| *limit = Limit::Fixed(fixed));
        return form.meaningless(&ADAPTIVE, "`limit` is a fixed one, so nothing is measured");
    }
    if let Some(measured) = &mut measured {
        adaptive(form, measured);
        *limit = Limit::Adaptive(*measured);
    }
}

/// The settings of [`adaptive`].
const ADAPTIVE: [&str; 6] = ["initial", "min", "max", "tolerance", "window", "probe_every"];

pub(super) fn adaptive<F: Form>(form: &mut F, spec: &mut Adaptive) {
    form.setting("initial", &mut spec.initial);
    form.setting("min", &mut spec.min);
    form.setting("max", &mut spec.max);
    form.setting("tolerance", &mut spec.tolerance);
    form.setting("window", &mut spec.window);
    form.setting("probe_every", &mut spec.probe_every);
}
