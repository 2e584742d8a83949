//! What overload, outages and retries do to services with and without the rules: simulated, exact, for several seeds.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::time::Duration;

use mainstay_envelope::{Priority, RetryBucket};
use mainstay_resilience::load_shed::Spec;
use mainstay_resilience::sim::scenarios::{self, CAPACITY, OUTAGE, OVERLOAD, Tries};
use mainstay_resilience::sim::{Arrivals, Condition, Fan, Link, Load, Report, Scenario, Service, Work};

const SEEDS: [u64; 3] = [1, 2, 3];

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The number of the leaf in the scenarios of four hops.
const LEAF: usize = 4;

fn shed() -> mainstay_resilience::load_shed::Checked {
    Spec::fixed(10).check().unwrap()
}

// ---- overload ------------------------------------------------------------------------------------------

#[test]
fn at_ten_times_the_capacity_as_much_is_served_as_at_once_and_all_is_well_soon_after() {
    for seed in SEEDS {
        for (what, settings) in [("fixed", shed()), ("adaptive", Spec::adaptive().check().unwrap())] {
            let report = scenarios::overload(10.0, Some(settings)).run(seed);
            let goodput = report.goodput(OVERLOAD.0, OVERLOAD.1);
            assert!(goodput >= CAPACITY * 0.9, "{what}, seed {seed}: {goodput}");
            let back = report.recovery(OVERLOAD.1);
            assert!(back.is_some_and(|back| back <= secs(5)), "{what}, seed {seed}: {back:?}");
            // and before it, nothing is refused that fits
            let before = report.tally(secs(1), OVERLOAD.0);
            assert!(before.success() >= 0.99, "{what}, seed {seed}: {before:?}");
        }
    }
}

#[test]
fn without_shedding_the_same_overload_is_served_by_nobody_and_outlives_itself() {
    for seed in SEEDS {
        let report = scenarios::overload(10.0, None).run(seed);
        let goodput = report.goodput(OVERLOAD.0 + secs(2), OVERLOAD.1);
        assert!(goodput < CAPACITY * 0.1, "seed {seed}: {goodput}");
        let back = report.recovery(OVERLOAD.1);
        assert!(back.is_none_or(|back| back > secs(5)), "seed {seed}: {back:?}");
    }
}

#[test]
fn goodput_holds_at_every_load_up_to_a_hundred_times_the_capacity() {
    for times in [1.2, 2.0, 5.0, 20.0, 100.0] {
        let report = scenarios::overload(times, Some(shed())).run(1);
        let goodput = report.goodput(OVERLOAD.0, OVERLOAD.1);
        assert!(goodput >= CAPACITY * 0.9, "{times} times: {goodput}");
    }
}

#[test]
fn while_it_alone_fits_the_highest_priority_is_served() {
    for seed in SEEDS {
        let report = scenarios::priorities(shed()).run(seed);
        let of = |priority: Priority| report.by_priority[priority as usize];
        let critical = of(Priority::Critical);
        assert!(critical.offered > 2_000 && critical.success() >= 0.99, "seed {seed}: {critical:?}");
        // what is left goes to the next below, and to nobody below that
        assert!(of(Priority::Normal).good > 1_000, "seed {seed}: {:?}", of(Priority::Normal));
        for lowest in [Priority::Low, Priority::Background] {
            assert!(of(lowest).success() < 0.01, "seed {seed}: {lowest:?} {:?}", of(lowest));
        }
        let goodput = report.goodput(secs(1), secs(20));
        assert!(goodput >= CAPACITY * 0.9, "seed {seed}: {goodput}");
    }
}

#[test]
fn a_herd_passes_and_the_others_are_served_again_within_a_second() {
    for seed in SEEDS {
        let report = scenarios::herd(shed()).run(seed);
        let after = report.tally(secs(6), secs(15));
        assert!(after.success() >= 0.99, "seed {seed}: {after:?}");
    }
}

// ---- callees that misbehave ----------------------------------------------------------------------------

#[test]
fn a_limit_on_the_way_out_follows_a_callee_that_gets_slow_and_well_again() {
    for seed in SEEDS {
        let report = scenarios::slow_callee().unwrap().run(seed);
        // Ten times slower, the store can do a hundred a second; half of them are asked for at least.
        let goodput = report.goodput(OUTAGE.0 + secs(10), OUTAGE.1);
        assert!(goodput >= 50.0, "seed {seed}: {goodput}");
        let back = report.recovery(OUTAGE.1);
        assert!(back.is_some_and(|back| back <= secs(5)), "seed {seed}: {back:?}");
    }
}

#[test]
fn a_callee_that_flaps_is_back_in_use_soon_after_it_is_well() {
    for seed in SEEDS {
        let report = scenarios::flapping_callee().unwrap().run(seed);
        let back = report.recovery(OUTAGE.1);
        // The breaker's open time grows while its probes fail, to a minute at most; here to some seconds.
        assert!(back.is_some_and(|back| back <= secs(10)), "seed {seed}: {back:?}");
        // and while it was down, it was spared most calls
        let (calls, offered) =
            (&report.services[1].calls[100..400], report.tally(OUTAGE.0, OUTAGE.1).offered);
        let calls: u32 = calls.iter().sum();
        assert!(u64::from(calls) < offered * 3 / 4, "seed {seed}: {calls} of {offered}");
    }
}

/// Two callees of one front, each with its limit; the first one's workers hang. The other one's calls are what they
/// would be without it, to the last one.
#[test]
fn a_callee_that_hangs_changes_nothing_for_the_others() {
    let run = |condition: Condition| -> Report {
        let limit = || Spec::fixed(32).queue(0).check().unwrap();
        let link = |to| Link::to(to, Duration::from_millis(200)).limit(limit());
        let callee = |name: &str| Service::new(name, 32, Work::Exact(Duration::from_millis(5)));
        let front = Service::caller("front").fan(Fan::Parallel).calls(link(1)).calls(link(2));
        let load = Load::constant(500.0).arrivals(Arrivals::Even);
        Scenario::new("hang", load, secs(10))
            .service(front)
            .service(callee("ill").from(secs(2), condition))
            .service(callee("well"))
            .run(1)
    };
    let (well, ill) = (run(Condition::Healthy), run(Condition::Hanging));
    assert_eq!(well.services[2], ill.services[2]);
    assert!(ill.total.good < well.total.good, "nothing hung");
}

// ---- retries over hops ---------------------------------------------------------------------------------

#[test]
fn with_tokens_one_failure_in_a_hundred_at_the_leaf_reaches_nobody() {
    let failing = Condition::Failing(0.01);
    for seed in SEEDS {
        for report in [
            scenarios::chain(200.0, failing, Tries::Tokens).unwrap().run(seed),
            scenarios::tree(100.0, Fan::Sequential, failing, Tries::Tokens).unwrap().run(seed),
            scenarios::tree(100.0, Fan::Parallel, failing, Tries::Tokens).unwrap().run(seed),
        ] {
            let success = report.total.success();
            assert!(success >= 0.999, "{}, seed {seed}: {success}", report.name);
        }
    }
}

#[test]
fn with_tokens_an_outage_of_the_leaf_is_not_multiplied() {
    // With it, what of the leaf's calls a request makes that is not retried: in the tree one after the other the first
    // of eight fails and the others are not made.
    let shapes = [
        (scenarios::chain(200.0, Condition::Down, Tries::Tokens).unwrap(), 1.0),
        (scenarios::tree(100.0, Fan::Sequential, Condition::Down, Tries::Tokens).unwrap(), 0.125),
        (scenarios::tree(50.0, Fan::Parallel, Condition::Down, Tries::Tokens).unwrap(), 1.0),
    ];
    for ((shape, once), seed) in shapes.iter().flat_map(|shape| SEEDS.map(|seed| (shape, seed))) {
        let report = shape.run(seed);
        let amplification = |from, to| report.amplification(LEAF, from, to) / once;
        // As soon as the hundred tokens are spent that the bucket begins with: a tenth of a token for each request, to
        // within the few retries that are under way when the count begins and ends, which are less than a thousandth.
        let spent = amplification(OUTAGE.0 + secs(5), OUTAGE.1);
        assert!(spent > 1.0 && spent <= 1.101, "{}, seed {seed}: {spent}", report.name);
        // And with them: the burst that the bucket is for, and no more. (A hundredth: requests that were half-way
        // through the tree when the leaf fell ill.)
        let offered = report.tally(OUTAGE.0, OUTAGE.1).offered as f64;
        let with_burst = amplification(OUTAGE.0, OUTAGE.1);
        let paid = 1.11 + f64::from(RetryBucket::MAX) / offered;
        assert!(with_burst <= paid, "{}, seed {seed}: {with_burst}, {paid} paid for", report.name);
        let back = report.recovery(OUTAGE.1);
        assert!(back.is_some_and(|back| back <= secs(5)), "{}, seed {seed}: {back:?}", report.name);
    }
    // and for a chain, where a retry is one call of the leaf, exactly, and over the whole run
    let report = shapes[0].0.run(1);
    let in_all = report.amplification(LEAF, Duration::ZERO, secs(50));
    assert!(in_all > 1.0 && in_all <= 1.1, "{in_all}");
    let calls: u32 = report.services[LEAF].calls.iter().sum();
    let paid = report.total.offered + report.total.offered / 10 + u64::from(RetryBucket::MAX);
    assert!(u64::from(calls) <= paid, "{calls} calls of the leaf, {paid} paid for");
}

#[test]
fn with_breakers_as_well_a_leaf_that_is_down_is_hardly_asked() {
    for seed in SEEDS {
        let report = scenarios::chain(500.0, Condition::Down, Tries::TokensAndBreakers).unwrap().run(seed);
        let amplification = report.amplification(LEAF, OUTAGE.0, OUTAGE.1);
        assert!(amplification < 0.05, "seed {seed}: {amplification}");
    }
}

#[test]
fn without_tokens_each_hop_multiplies_the_storm() {
    let report = scenarios::chain(50.0, Condition::Down, Tries::Unbudgeted).unwrap().run(1);
    // Three tries at each of four hops: 81 for each request, as far as its deadline allows.
    let amplification = report.amplification(LEAF, OUTAGE.0 + secs(5), OUTAGE.1);
    assert!(amplification > 50.0, "{amplification}");
}

// ---- the simulator itself ------------------------------------------------------------------------------

#[test]
fn a_seed_repeats_its_run_to_the_last_bit_and_another_one_does_not() {
    for shown in scenarios::all().unwrap() {
        if !["overload-adaptive", "flapping-callee", "tree-failing"].contains(&shown.name) {
            continue;
        }
        let (first, again) = (shown.scenario.run(5), shown.scenario.run(5));
        assert_eq!(first, again, "{}", shown.name);
        assert_eq!(first.plot().to_string(), again.plot().to_string());
        assert_ne!(first.buckets, shown.scenario.run(6).buckets, "{}", shown.name);
    }
}

#[test]
fn what_is_simulated_is_what_queueing_theory_says() {
    // given a queue M/M/10 at nine tenths of its capacity: by Erlang's C formula 67 % wait, 33 ms in the mean
    let load = Load::constant(CAPACITY * 0.9).deadline(secs(60));
    let service = Service::new("api", 10, Work::Exponential(Duration::from_millis(50)));
    let report = Scenario::new("M/M/10", load, secs(600)).service(service).run(1);
    assert_eq!(report.total.good, report.total.offered);
    let offered = report.total.offered as f64 / 600.0;
    assert!((offered - 180.0).abs() < 5.0, "{offered}");
    // By Little's law, the mean number that wait is the rate times the mean wait: 180 a second times 33 ms, 6.
    let waiting = &report.services[0].waiting[100..];
    let mean = waiting.iter().copied().map(f64::from).sum::<f64>() / waiting.len() as f64;
    assert!((4.5..7.5).contains(&mean), "{mean}");
}

#[test]
fn every_request_has_one_end() {
    for shown in scenarios::all().unwrap().into_iter().filter(|shown| shown.name != "chain-storm") {
        let total = shown.scenario.run(9).total;
        let ends = total.good + total.refused + total.failed + total.late;
        assert_eq!(ends, total.offered, "{}: {total:?}", shown.name);
    }
}
