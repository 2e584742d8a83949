//! What each decision has to be, case by case.

use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Monotonic {
    Monotonic::from_origin(Duration::from_millis(millis))
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_draw_is_above_zero_and_at_most_one() {
    assert_eq!(unit(u64::MAX), 1.0);
    assert_eq!(unit(0), 2.0_f64.powi(-53));
    assert!(-unit(0).ln() < LARGEST_DRAW);
}

#[test]
fn xfetch_refreshes_by_its_formula() {
    // −ln(e⁻²) = 2: two δ·β before the expiry, and not a nanosecond earlier.
    let u = (-2.0_f64).exp();
    let expiry = at(10_000);
    for (beta, early) in [(1.0, 200), (0.5, 100), (3.0, 600)] {
        let from = at(10_000 - early);
        assert!(should_refresh(from + Duration::from_micros(1), expiry, ms(100), beta, u), "β {beta}");
        let before = Monotonic::from_nanos(from.as_nanos() - 1_000);
        assert!(!should_refresh(before, expiry, ms(100), beta, u), "β {beta}");
    }
    assert!(!should_refresh(at(9_999), expiry, ms(100), 0.0, u), "β 0 turns it off");
    assert!(should_refresh(expiry, expiry, ms(100), 0.0, 1.0), "what is expired is always loaded");
    assert!(!should_refresh(at(0), expiry, ms(100), f64::NAN, u));
    assert!(should_refresh(at(0), expiry, Duration::MAX, 10.0, u));
    assert!(!should_refresh(at(9_999), expiry, ms(100), -1.0, u), "no factor");
}

#[test]
fn an_entry_goes_through_its_life_in_order_and_each_end_is_exclusive() {
    let spec = Spec::for_everybody(ms(1_000))
        .ttl_jitter(0.0)
        .early_refresh(0.0)
        .stale_while_revalidate(ms(100))
        .stale_if_error(ms(500));
    let times = Times::of_load(&spec, None, at(40), at(50), 0);
    assert_eq!((times.since, times.delta, times.expiry), (at(50), ms(10), at(1_050)));
    let never = || panic!("no chance is needed");
    for (now, verdict) in [
        (50, Verdict::Fresh),
        (1_049, Verdict::Fresh),
        (1_050, Verdict::Revalidate),
        (1_149, Verdict::Revalidate),
        (1_150, Verdict::LoadOrStale),
        (1_549, Verdict::LoadOrStale),
        (1_550, Verdict::Load),
    ] {
        assert_eq!(times.judge(&spec, at(now), false, never), verdict, "{now}");
        assert_eq!(times.covers_errors(&spec, at(now)), now < 1_550, "{now}");
    }
}

#[test]
fn chance_has_a_say_from_where_the_largest_draw_reaches_the_expiry() {
    let spec = Spec::for_everybody(ms(1_000)).ttl_jitter(0.0).early_refresh(2.0);
    let times = Times::of_load(&spec, None, at(40), at(50), 0);
    // 36.75 · β · δ before it.
    assert_eq!(times.early_from, at(1_050 - 735));
}

#[test]
fn what_may_not_be_served_stale_covers_no_error_from_its_expiry_on() {
    let spec = Spec::for_everybody(ms(1_000)).ttl_jitter(0.0);
    let spec = spec.stale_while_revalidate(Duration::ZERO).stale_if_error(Duration::ZERO);
    let times = Times::of_load(&spec, None, at(50), at(50), 0);
    assert!(times.covers_errors(&spec, at(1_049)) && !times.covers_errors(&spec, at(1_050)));
}

#[test]
fn what_is_known_to_be_absent_is_known_until_then() {
    let times = Times::of_absence(ms(100), 0.0, at(50), 0);
    let expected = Times { since: at(50), delta: LEAST_DELTA, early_from: at(150), expiry: at(150) };
    assert_eq!(times, expected);
    let spec = Spec::for_everybody(ms(1_000)).stale_while_revalidate(ms(50));
    let until = at(150);
    let (value, held) = (Found::Value { times, held: false }, Found::Value { times, held: true });
    for (found, now, verdict) in [
        (Found::Nothing, 0, Verdict::Load),
        (Found::Absent { until }, 149, Verdict::Absent),
        (Found::Absent { until }, 150, Verdict::Load),
        (Found::Failed { until }, 149, Verdict::Failed),
        (Found::Failed { until }, 150, Verdict::Load),
        (value, 149, Verdict::Fresh),
        (value, 150, Verdict::Revalidate),
        (held, 150, Verdict::Stale),
    ] {
        let judged = found.judge(&spec, at(now), || panic!("no chance is needed"));
        assert_eq!(judged, verdict, "{found:?} at {now}");
    }
}

#[test]
fn who_comes_joins_loads_or_is_turned_away() {
    let free =
        Arrival { until: None, waiting: 1, waiters_max: 2, under_way: false, loading: 1, loads_max: 2 };
    let joins = Arrival { under_way: true, ..free };
    for (arrival, admission) in [
        (free, Admission::Load),
        (Arrival { until: Some(at(11)), ..free }, Admission::Load),
        (Arrival { until: Some(at(10)), ..free }, Admission::Late),
        (Arrival { until: Some(at(9)), waiting: 2, ..free }, Admission::Late),
        (Arrival { waiting: 2, loading: 2, ..free }, Admission::TooManyWait),
        (Arrival { waiting: 3, ..joins }, Admission::TooManyWait),
        (joins, Admission::Join),
        (Arrival { loading: 2, ..joins }, Admission::Join),
        (Arrival { loading: 2, ..free }, Admission::TooManyLoads),
        (Arrival { loading: 3, ..free }, Admission::TooManyLoads),
    ] {
        assert_eq!(arrival.admit(at(10)), admission, "{arrival:?}");
    }
}

#[test]
fn a_load_whose_leader_died_is_handed_over_once_with_a_limit_of_its_own() {
    let mut crew = Crew::new(Priority::Low, Some(at(20)), at(100));
    crew.join(Priority::Normal, Some(at(50)), true);
    crew.join(Priority::Low, Some(at(30)), true);
    assert_eq!((crew.priority(), crew.deadline(), crew.was_handed_over()), (Priority::Normal, at(50), false));
    assert!(!crew.take_over(None, at(100)), "it has a leader");
    assert_eq!((crew.died(), crew.was_handed_over()), (Next::Vacant, true));
    assert!(crew.take_over(Some(at(150)), at(200)));
    assert_eq!(crew.deadline(), at(150));
    crew.join(Priority::Low, None, true);
    assert_eq!((crew.deadline(), crew.waiting()), (at(200), 3));
    assert_eq!(crew.died(), Next::Over, "another one would die of it, too");
}

#[test]
fn a_load_that_takes_no_time_counts_as_a_millisecond() {
    let spec = Spec::for_everybody(ms(1_000)).ttl_jitter(0.0);
    assert_eq!(Times::of_load(&spec, None, at(50), at(50), 0).delta, LEAST_DELTA);
    assert_eq!(Times::of_load(&spec, None, at(50), at(20), 0).delta, LEAST_DELTA, "nor less");
}

#[test]
fn while_a_failure_is_remembered_nobody_tries_again_that_can_be_served() {
    let spec = Spec::for_everybody(ms(1_000)).ttl_jitter(0.0);
    let spec = spec.stale_while_revalidate(ms(100)).stale_if_error(ms(200));
    let times = Times::of_load(&spec, None, at(0), at(100), 0);
    for (now, free, held) in [
        (1_099, Verdict::RefreshEarly, Verdict::Fresh),
        (1_100, Verdict::Revalidate, Verdict::Stale),
        (1_200, Verdict::LoadOrStale, Verdict::Stale),
        (1_300, Verdict::Load, Verdict::Load),
    ] {
        assert_eq!(times.judge(&spec, at(now), false, || 0), free, "{now}");
        assert_eq!(times.judge(&spec, at(now), true, || 0), held, "{now}");
    }
}

proptest! {
    #[test]
    fn no_draw_refreshes_before_early_from_and_none_is_asked_for(
        ttl in 1_u64..100_000, delta in 0_u64..10_000, beta in 0.0_f64..=10.0, draw: u64, at_share in 0.0_f64..1.0,
    ) {
        let spec = Spec::for_everybody(ms(ttl)).ttl_jitter(0.0).early_refresh(beta);
        let times = Times::of_load(&spec, None, at(0), at(delta), 0);
        let life = times.expiry.saturating_since(times.since);
        let now = times.since + life.mul_f64(at_share);
        if now < times.early_from {
            prop_assert!(!should_refresh(now, times.expiry, times.delta, beta, unit(draw)));
        }
    }

    #[test]
    fn jitter_only_shortens_and_by_no_more_than_its_share(
        millis in 1_u64..1_000_000, share in 0.0_f64..=0.5, draw: u64,
    ) {
        let time = ms(millis);
        let short = jittered(time, share, draw);
        prop_assert!(short <= time);
        prop_assert!(short >= time.mul_f64(1.0 - share).saturating_sub(Duration::from_nanos(1)));
    }

    /// Random waiters, deaths and departures: at most one leads, nobody is forgotten.
    #[test]
    fn a_crew_has_one_leader_or_a_vacancy_or_is_over(steps in prop::collection::vec(0_u8..4, 1..60)) {
        let mut crew = Crew::new(Priority::Low, Some(at(10)), at(1_000));
        let (mut leads, mut able, mut unable, mut over, mut hand_overs) = (true, 0_usize, 0_usize, false, 0_u8);
        for (n, step) in steps.into_iter().enumerate() {
            if over {
                break;
            }
            match step {
                0 => {
                    let deadline = at(n as u64 * 7);
                    crew.join(Priority::ALL[n % 4], Some(deadline), n % 3 != 0);
                    if n % 3 != 0 { able += 1 } else { unable += 1 }
                    prop_assert!(crew.deadline() >= deadline.min(at(1_000)));
                    prop_assert!(crew.priority() >= Priority::ALL[n % 4]);
                }
                1 if leads => {
                    leads = false;
                    match crew.died() {
                        Next::Over => {
                            over = true;
                            prop_assert!(able == 0 || hand_overs == HAND_OVERS);
                        }
                        Next::Vacant => prop_assert!(able > 0 && hand_overs < HAND_OVERS),
                        Next::Unchanged => prop_assert!(false, "a death changes something"),
                    }
                }
                2 if able > 0 => {
                    let took = crew.take_over(None, at(1_000));
                    prop_assert_eq!(took, !leads, "only a vacancy can be taken, and any vacancy can");
                    if took {
                        leads = true;
                        able -= 1;
                        unable += 1;
                        hand_overs += 1;
                        prop_assert!(!crew.take_over(None, at(1_000)), "by one");
                    }
                }
                3 if able + unable > 0 => {
                    let leaves_able = able > 0 && (unable == 0 || n % 2 == 0);
                    if leaves_able { able -= 1 } else { unable -= 1 }
                    if crew.leave(leaves_able) == Next::Over {
                        over = true;
                        prop_assert!(!leads && able == 0, "given up only when nobody could lead");
                    } else {
                        prop_assert!(leads || able > 0, "a vacancy that nobody can take");
                    }
                }
                _ => {}
            }
            prop_assert_eq!(crew.waiting(), able + unable);
        }
    }
}
