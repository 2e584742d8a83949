//! A policy that a document says is the one that the builder builds: the same settings, the same decisions.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

mod kit;
mod specs;

use std::time::Duration;

use mainstay_fleet::{Document, Inbound, Outbound, Policy as Said, Repeats};
use mainstay_resilience::circuit_breaker::Mode;
use mainstay_resilience::retry::Jitter;
use mainstay_resilience::{
    Adaptive, Breaker, Hedge, InboundBuilder, Limit, OutboundBuilder, Policy, Rate, Retry, Shed,
};
use proptest::prelude::*;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn read(text: &str) -> Document {
    Document::read("mainstay.toml", text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// Each row: what the builder is told, and a document that says the same.
fn outbound() -> Vec<(OutboundBuilder, &'static str)> {
    let payment = || Policy::outbound("payment");
    vec![
        (payment(), "[policy.payment]"),
        (
            payment()
                .total(secs(2))
                .attempt(ms(300))
                .retry(Retry::full_jitter(ms(50), secs(1)))
                .breaker(Breaker::failure_rate(0.5).over(100).open_for(secs(5)))
                .bulkhead(32, 64),
            r#"
            [policy.payment]
            direction = "outbound"
            timeout = { total = "2s", attempt = "300ms" }
            retry = { base = "50ms", cap = "1s", methods = ["GET", "PUT"] }
            breaker = { failure_rate = 0.5, window = 100, open_for = "5s" }
            bulkhead = { permits = 32, queue = 64 }
            "#,
        ),
        // Defaults that follow from other settings: fewer calls, a longer cap, a larger factor, a burst.
        (
            payment()
                .retry(Retry::decorrelated(ms(50), secs(1)).max_attempts(3).total(secs(1)))
                .breaker(Breaker::failure_rate(1.0).over(10).open_for(secs(120)).slow(ms(200), 0.25))
                .rate_limit(Rate::token_bucket(40, secs(1))),
            r#"
            [policy.payment.retry]
            jitter = "decorrelated"
            max_attempts = 3
            total = "1s"
            methods = ["GET"]
            [policy.payment.breaker]
            failure_rate = 1
            window = 10
            open_for = "2min"
            slow = { longer_than = "200ms", rate = 0.25 }
            [policy.payment.rate_limit]
            rate = "40/s"
            "#,
        ),
        (
            payment()
                .attempt(ms(400))
                .hedge(Hedge::percentile(0.9).between(ms(20), ms(200)).minimum_calls(10))
                .pacing(Rate::leaky_queue(100, secs(1), 5))
                .adaptive(Adaptive { initial: 4, min: 2, ..Adaptive::default() })
                .breaker(
                    Breaker::failure_rate(0.3)
                        .over(secs(2))
                        .minimum_calls(5)
                        .probes(2)
                        .open_growth(3, secs(30)),
                ),
            r#"
            [policy.payment]
            timeout.attempt = "0.4s"
            hedge = { percentile = 0.9, at_least = "20ms", at_most = "200ms", minimum_calls = 10, methods = ["GET"] }
            pacing = { rate = "100/s", queue = 5 }
            adaptive = { initial = 4, min = 2 }
            [policy.payment.breaker]
            failure_rate = 0.3
            window = "2s"
            minimum_calls = 5
            probes = 2
            open_growth = 3
            open_cap = "30s"
            "#,
        ),
        (
            payment()
                .retry(Retry::exact(ms(100), ms(800)).factor(3))
                .breaker(Breaker::failure_rate(0.5).mode(Mode::ObserveOnly).probe_limit(secs(9)))
                .rate_limit(Rate::leaky_meter(60, secs(60)).burst(9)),
            r#"
            [policy.payment]
            retry = { base = "100ms", cap = "800ms", jitter = "none", factor = 3, methods = ["POST"], idempotency_key = true }
            breaker = { mode = "observe_only", probe_limit = "9s" }
            rate_limit = { rate = "60/min", kind = "leaky_meter", burst = 9 }
            "#,
        ),
    ]
}

fn inbound() -> Vec<(InboundBuilder, &'static str)> {
    let orders = || Policy::inbound("orders");
    vec![
        (orders(), "[policy.orders]\ndirection = \"inbound\""),
        (
            orders()
                .deadline(secs(2))
                .coarse_shed(Limit::Fixed(30))
                .rate_limit(Rate::token_bucket(20, secs(1)).burst(8).keys_max(500))
                .load_shed(Shed::fixed(4).queue(6))
                .bulkhead(3, 2),
            r#"
            [policy.orders]
            direction = "inbound"
            deadline = "2s"
            coarse_shed.limit = 30
            rate_limit = { rate = "20/s", burst = 8, keys_max = 500 }
            load_shed = { limit = 4, queue = 6 }
            bulkhead = { permits = 3, queue = 2 }
            "#,
        ),
        (
            orders()
                .coarse_shed(Limit::Adaptive(Adaptive::default()))
                .load_shed(Shed::adaptive().target(ms(10)).interval(ms(50))),
            r#"
            [policy.orders]
            direction = "inbound"
            coarse_shed = {}
            load_shed = { target = "10ms", interval = "50ms" }
            "#,
        ),
    ]
}

#[test]
fn a_document_says_what_the_builder_says_and_decides_alike() {
    for (n, (builder, text)) in outbound().into_iter().enumerate() {
        let document = read(text);
        let said = document.outbound("payment").unwrap();
        let (_, again) = (outbound(), said.builder());
        let (built, trace) = kit::outbound(builder);
        assert_eq!(*said.spec(), built, "{text}");
        let (spec, other) = kit::outbound(again);
        assert_eq!((spec, &other), (built, &trace), "{text}");
        assert!(n == 0 || !trace.decisions.is_empty(), "nothing was decided by {text}");
    }
    for (n, (builder, text)) in inbound().into_iter().enumerate() {
        let document = read(text);
        let said = document.inbound("orders").unwrap();
        let (built, trace) = kit::inbound(builder);
        assert_eq!(*said.spec(), built, "{text}");
        assert_eq!(kit::inbound(said.builder()), (built, trace.clone()), "{text}");
        assert!(n == 0 || !trace.decisions.is_empty(), "nothing was decided by {text}");
    }
}

#[test]
fn other_settings_decide_otherwise() {
    // The comparison above would be worth nothing if all policies left the same trace.
    let traces: Vec<kit::Trace> =
        outbound().into_iter().map(|(builder, _)| kit::outbound(builder).1).collect();
    for (n, trace) in traces.iter().enumerate() {
        assert!(traces[..n].iter().all(|other| other != trace), "{n}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_as_the_same(
        (name, spec) in (specs::name(), specs::outbound()),
        (route, inbound) in (specs::name(), specs::inbound()),
    ) {
        let mut document = Document::default();
        document.insert(Said::Outbound(Outbound::new(name.clone(), spec)));
        document.insert(Said::Inbound(Inbound::new(route.clone(), inbound)));
        let text = document.to_string();
        let again = Document::read("again.toml", &text).map_err(|mistakes| TestCaseError::fail(mistakes.to_string()))?;
        prop_assert_eq!(&again, &document, "{}", text);
        prop_assert_eq!(again.to_string(), text);
        if name != route {
            prop_assert_eq!(*again.outbound(&name).unwrap().spec(), spec);
        }
        prop_assert_eq!(*again.inbound(&route).unwrap().spec(), inbound);
        // What is accepted can be built.
        prop_assert!(again.inbound(&route).unwrap().builder().build().is_ok());
    }
}

#[test]
fn what_was_left_to_its_default_is_known_and_methods_are_kept() {
    let document = read(outbound()[4].1);
    let said = document.outbound("payment").unwrap();
    assert!(said.repeats().keyed() && said.repeats().methods().len() == 1);
    assert_ne!(*said.repeats(), Repeats::default());
    assert_eq!(said.spec().retry.unwrap().jitter, Jitter::None);
    assert!(document.is_given("payment", "retry.base") && document.is_given("payment", "retry"));
    for defaulted in ["retry.max_attempts", "bulkhead", "timeout.total"] {
        assert!(!document.is_given("payment", defaulted), "{defaulted}");
    }
    assert_eq!(read(&document.to_string()), document);
}

#[test]
fn the_places_are_those_of_the_stack() {
    let drawn = include_str!("../../../rules/resilience/src/stack.rs");
    let drawn: Vec<&str> = drawn.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let places = |heading: &str| -> Vec<String> {
        let from = drawn.iter().position(|line| line.trim_start().starts_with(heading)).unwrap();
        let places = drawn[from + 1..].iter().skip_while(|line| !line.contains("request ─►"));
        let places = places.take_while(|line| !line.trim_start().starts_with("─►"));
        places
            .map(|line| line.replace("request ─►", "").split(" ..").next().unwrap().trim().to_owned())
            .collect()
    };
    let document = read("[policy.o]\n[policy.i]\ndirection = \"inbound\"");
    for (name, heading) in [("o", "outbound, outside in"), ("i", "inbound, outside in")] {
        let said: Vec<&str> =
            document.policy(name).unwrap().places().iter().map(|place| place.name).collect();
        assert_eq!(said, places(heading), "{heading}");
    }
}
