//! Any settings that can mean what they say.

use std::time::Duration;

use mainstay_resilience::circuit_breaker::{Mode, Slow, Window};
use mainstay_resilience::rate_limit::Kind;
use mainstay_resilience::retry::Jitter;
use mainstay_resilience::{
    Adaptive, Breaker, Hedge, InboundSpec, Limit, PolicySpec, Rate, Retry, Shed, bulkhead, timeout,
};
use proptest::option::of;
use proptest::prelude::*;

pub(crate) fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z][a-z0-9_-]{0,12}", "\\PC{1,20}", Just("a.b \"c\"\\\u{7f}\n\t".to_owned())]
        .prop_filter("a name has up to 128 bytes", |name| (1..=128).contains(&name.len()))
}

/// Of every order of magnitude, whole in its unit or not.
fn time(nanos_max: u64) -> impl Strategy<Value = Duration> {
    let unit = prop::sample::select(vec![1, 1_000, 1_000_000, 1_000_000_000, 60_000_000_000]);
    (1..=nanos_max, unit)
        .prop_map(move |(nanos, unit): (u64, u64)| Duration::from_nanos((nanos / unit * unit).max(1)))
}

const SECOND: u64 = 1_000_000_000;

fn share() -> impl Strategy<Value = f64> {
    prop_oneof![Just(1.0), Just(1e-6), 1e-6..1.0_f64]
}

fn retry() -> impl Strategy<Value = Retry> {
    let jitter = prop::sample::select(vec![Jitter::None, Jitter::Full, Jitter::Decorrelated]);
    (time(SECOND), time(3_600 * SECOND), 1..=10_u32, jitter, 1..100_u32, of(time(3_600 * SECOND)))
        .prop_map(|(base, more, factor, jitter, max_attempts, total)| {
            let total = total.map(|total| base + total);
            Retry { base, cap: base + more, factor, jitter, max_attempts, total }
        })
        .prop_filter("checked", |spec| spec.check().is_ok())
}

fn hedge() -> impl Strategy<Value = Hedge> {
    (0.5..0.999_f64, time(SECOND), time(60 * SECOND), 1..u32::MAX).prop_map(
        |(percentile, at_least, more, minimum_calls)| Hedge {
            percentile,
            at_least,
            at_most: at_least + more,
            minimum_calls,
        },
    )
}

fn breaker() -> impl Strategy<Value = Breaker> {
    let window = prop_oneof![
        (1..=65_536_u32).prop_map(Window::Count),
        time(3_500 * SECOND).prop_map(|time| Window::Time(time + Duration::from_millis(100))),
    ];
    let mode = prop::sample::select(vec![Mode::Enforce, Mode::ObserveOnly, Mode::Disabled, Mode::ForcedOpen]);
    let slow = of((time(60 * SECOND), share()).prop_map(|(longer_than, rate)| Slow { longer_than, rate }));
    let times = (time(60 * SECOND), time(3_600 * SECOND), time(3_600 * SECOND));
    (share(), slow, window, 1..65_536_u32, times, 1..=10_u32, 1..=1_000_u32, mode).prop_map(
        |(failure_rate, slow, window, calls, (open_for, more, probe_limit), open_growth, probes, mode)| {
            let minimum_calls = match window {
                Window::Count(window) => 1 + calls % window,
                Window::Time(_) => calls,
            };
            let shards_max = match window {
                Window::Count(window) => (window / 16).clamp(1, 64),
                Window::Time(_) => 64,
            };
            let shards = 1 + calls % shards_max;
            let open_cap = open_for + more;
            Breaker {
                failure_rate,
                slow,
                window,
                minimum_calls,
                shards,
                open_for,
                open_growth,
                open_cap,
                probes,
                probe_limit,
                mode,
            }
        },
    )
}

fn bulkhead() -> impl Strategy<Value = bulkhead::Spec> {
    (1..=1_000_000_u32, 0..=65_536_u32, time(3_600 * SECOND))
        .prop_map(|(permits, queue, wait)| bulkhead::Spec::permits(permits).queue(queue).wait(wait))
}

fn rate_limit() -> impl Strategy<Value = Rate> {
    let kind = prop::sample::select(vec![Kind::TokenBucket, Kind::LeakyMeter]);
    (kind, 1..1_000_u32, time(3_600 * SECOND), 1..500_u32)
        .prop_map(|(kind, permits, per, burst)| {
            let spec = Rate::token_bucket(permits, per + Duration::from_millis(1)).burst(burst);
            Rate { kind, ..spec }
        })
        .prop_filter("checked", |spec| spec.check().is_ok())
}

fn pacing() -> impl Strategy<Value = Rate> {
    (1..1_000_u32, time(3_600 * SECOND), 1..=100_000_u32)
        .prop_map(|(permits, per, queue)| Rate::leaky_queue(permits, per + Duration::from_secs(1), queue))
}

fn adaptive() -> impl Strategy<Value = Adaptive> {
    (1..100_u32, 0..100_u32, 0..1_000_u32, 1.01..10.0_f64, time(60 * SECOND), time(60 * SECOND)).prop_map(
        |(min, more, most, tolerance, window, probe)| Adaptive {
            min,
            initial: min + more,
            max: min + more + most,
            tolerance,
            window,
            probe_every: window * 10 + probe,
        },
    )
}

fn limit() -> impl Strategy<Value = Limit> {
    prop_oneof![(1..=1_000_000_u32).prop_map(Limit::Fixed), adaptive().prop_map(Limit::Adaptive)]
}

fn load_shed() -> impl Strategy<Value = Shed> {
    (limit(), 0..=100_000_u32, time(SECOND), time(3_000 * SECOND))
        .prop_map(|(limit, queue, target, more)| Shed { limit, queue, target, interval: target + more })
}

/// Either, both if the retry makes one try, or neither.
fn tries() -> impl Strategy<Value = (Option<Retry>, Option<Hedge>)> {
    prop_oneof![
        of(retry()).prop_map(|retry| (retry, None)),
        hedge().prop_map(|hedge| (None, Some(hedge))),
        (retry(), hedge()).prop_map(|(retry, hedge)| (Some(retry.max_attempts(1)), Some(hedge))),
    ]
}

fn timeouts() -> impl Strategy<Value = timeout::Spec> {
    (of(time(60 * SECOND)), of(time(60 * SECOND))).prop_map(|(attempt, more)| {
        let total = more.map(|more| attempt.unwrap_or_default() + more);
        timeout::Spec { total, attempt }
    })
}

pub(crate) fn outbound() -> impl Strategy<Value = PolicySpec> {
    let limits = (of(rate_limit()), of(pacing()), of(bulkhead()), of(adaptive()));
    (timeouts(), limits, tries(), of(breaker()))
        .prop_map(|(timeout, (rate_limit, pacing, bulkhead, adaptive), (retry, hedge), breaker)| PolicySpec {
            timeout,
            rate_limit,
            pacing,
            retry,
            hedge,
            breaker,
            bulkhead,
            adaptive,
        })
        .prop_filter("checked", |spec| spec.check().is_ok())
}

pub(crate) fn inbound() -> impl Strategy<Value = InboundSpec> {
    let keyed = (rate_limit(), 1..=10_000_000_usize).prop_map(|(rate, keys_max)| Rate { keys_max, ..rate });
    (of(time(3_600 * SECOND)), of(limit()), of(keyed), of(load_shed()), of(bulkhead()))
        .prop_map(|(deadline, coarse_shed, rate_limit, load_shed, bulkhead)| InboundSpec {
            deadline,
            coarse_shed,
            rate_limit,
            load_shed,
            bulkhead,
        })
        .prop_filter("checked", |spec| spec.check().is_ok())
}
