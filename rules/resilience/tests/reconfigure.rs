//! What a change of settings keeps, of the policies of both directions, and that it is one for all rules.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

use std::sync::{Arc, Barrier};
use std::time::Duration;

use mainstay_envelope::{Clock, ManualClock, Monotonic, Priority, SeededChance};
use mainstay_resilience::bulkhead::Spec as Permits;
use mainstay_resilience::load_shed::{Adaptive, Limit, Sample, Spec as Shed};
use mainstay_resilience::{Breaker, Hedge, InboundSpec, Outcome, Policy, PolicySpec, Rate, Retry};
use proptest::prelude::*;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn outbound() -> PolicySpec {
    PolicySpec {
        rate_limit: Some(Rate::token_bucket(5, secs(1))),
        breaker: Some(Breaker::failure_rate(0.5).over(10).minimum_calls(4).open_for(secs(2))),
        bulkhead: Some(Permits::permits(3)),
        adaptive: Some(Adaptive { initial: 2, min: 1, max: 2, ..Adaptive::default() }),
        ..PolicySpec::default()
    }
}

fn inbound() -> InboundSpec {
    InboundSpec {
        deadline: Some(secs(5)),
        coarse_shed: Some(Limit::Fixed(4)),
        rate_limit: Some(Rate::token_bucket(3, secs(1))),
        load_shed: Some(Shed::fixed(2).queue(0)),
        bulkhead: Some(Permits::permits(3)),
    }
}

/// A policy of each direction, on a clock of their own, asked by hand.
struct Pair {
    clock: Arc<ManualClock>,
    out: Policy,
    inn: mainstay_resilience::InboundPolicy,
    held: Vec<Held>,
}

struct Held {
    _permits: [Option<mainstay_resilience::bulkhead::Permit>; 2],
    guards: Vec<mainstay_resilience::load_shed::Guard>,
}

/// What each rule said to one call.
type Verdicts = [bool; 7];

impl Pair {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let out = Policy::outbound("out").clock(Arc::clone(&shared)).chance(Arc::new(SeededChance::new(1)));
        let inn = Policy::inbound("in").clock(shared).chance(Arc::new(SeededChance::new(1)));
        let (out, inn) = (out.spec(outbound()).build().unwrap(), inn.spec(inbound()).build().unwrap());
        Pair { clock, out, inn, held: Vec::new() }
    }

    fn now(&self) -> Monotonic {
        self.out.scope().now()
    }

    /// Asks every rule, and holds what it gave.
    fn call(&mut self, who: u8, outcome: Outcome) -> Verdicts {
        let now = self.now();
        let breaker = self.out.breaker().check(now);
        if let Ok(ticket) = &breaker {
            self.out.breaker().record(*ticket, now, outcome);
        }
        let mut guards = Vec::new();
        let mut enter = |shed: &mainstay_resilience::load_shed::LoadShed| {
            let guard = shed.enter_now(Priority::Normal, None);
            let is_in = guard.is_ok();
            guards.extend(guard);
            is_in
        };
        let entered = [
            enter(self.out.adaptive().unwrap()),
            enter(self.inn.coarse_shed().unwrap()),
            enter(self.inn.load_shed().unwrap()),
        ];
        let full = Some(mainstay_envelope::Deadline::at(now));
        let permits =
            [self.out.bulkhead(), self.inn.bulkhead()].map(|bulkhead| match bulkhead.enter(now, full) {
                Ok(mainstay_resilience::bulkhead::Entered::Permit(permit)) => Some(permit),
                _ => None,
            });
        let [adaptive, coarse, shed] = entered;
        let verdicts = [
            self.out.rate_limit().unwrap().take(now, 1).is_ok(),
            breaker.is_ok(),
            permits.iter().all(Option::is_some),
            adaptive,
            coarse,
            shed,
            self.inn.rate_limit().unwrap().take(now, format!("caller {who}").as_str(), 1).is_ok(),
        ];
        self.held.push(Held { _permits: permits, guards });
        verdicts
    }

    /// A call ends.
    fn end(&mut self) {
        if !self.held.is_empty() {
            self.held.remove(0).guards.into_iter().for_each(|guard| guard.finish(Sample::Answered));
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Call(u8, bool),
    End,
    Pass(u64),
    /// Rules that are taken out, by bit, and put in again after a time.
    Without(u8, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0_u8..3, any::<bool>()).prop_map(|(who, fails)| Step::Call(who, fails)),
        2 => Just(Step::End),
        2 => (0_u64..900).prop_map(Step::Pass),
        2 => (any::<u8>(), 0_u64..900).prop_map(|(which, time)| Step::Without(which, time)),
    ]
}

proptest! {
    /// Rules that are taken out and put in again decide as if they had been there all the time.
    #[test]
    fn what_is_taken_out_and_put_in_again_goes_on_from_where_it_was(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let (mut changed, mut left_alone) = (Pair::new(), Pair::new());
        for step in steps {
            match step {
                Step::Call(who, fails) => {
                    let outcome = if fails { Outcome::TRANSIENT } else { Outcome::Success };
                    prop_assert_eq!(changed.call(who, outcome), left_alone.call(who, outcome));
                }
                Step::End => {
                    changed.end();
                    left_alone.end();
                }
                Step::Pass(time) => {
                    changed.clock.advance(ms(time));
                    left_alone.clock.advance(ms(time));
                }
                Step::Without(which, time) => {
                    let bit = |n: u8| which >> n & 1 == 0;
                    let (out, inn) = (outbound(), inbound());
                    changed.out.reconfigure(&PolicySpec {
                        rate_limit: out.rate_limit.filter(|_| bit(0)),
                        breaker: out.breaker.filter(|_| bit(1)),
                        bulkhead: out.bulkhead.filter(|_| bit(2)),
                        adaptive: out.adaptive.filter(|_| bit(3)),
                        ..out
                    }).unwrap();
                    changed.inn.reconfigure(&InboundSpec {
                        coarse_shed: inn.coarse_shed.filter(|_| bit(4)),
                        load_shed: inn.load_shed.filter(|_| bit(5)),
                        rate_limit: inn.rate_limit.filter(|_| bit(6)),
                        bulkhead: inn.bulkhead.filter(|_| bit(7)),
                        ..inn
                    }).unwrap();
                    prop_assert_eq!(changed.out.rate_limit().is_some(), bit(0));
                    prop_assert_eq!(changed.inn.load_shed().is_some(), bit(5));
                    changed.clock.advance(ms(time));
                    left_alone.clock.advance(ms(time));
                    changed.out.reconfigure(&out).unwrap();
                    changed.inn.reconfigure(&inn).unwrap();
                    prop_assert_eq!((changed.out.spec(), changed.inn.spec()), (out, inn));
                }
            }
        }
    }
}

#[test]
fn of_two_changes_at_once_one_is_what_all_rules_go_by() {
    let ones = PolicySpec {
        timeout: Default::default(),
        retry: Some(Retry::exact(ms(1), ms(1))),
        breaker: Some(Breaker::failure_rate(0.1)),
        bulkhead: Some(Permits::permits(1)),
        rate_limit: Some(Rate::token_bucket(1, secs(1))),
        ..PolicySpec::default()
    };
    let twos = PolicySpec {
        hedge: Some(Hedge::default()),
        breaker: Some(Breaker::failure_rate(0.2)),
        bulkhead: Some(Permits::permits(2)),
        ..PolicySpec::default()
    };
    let policy = Policy::outbound("callee").build().unwrap();
    let start = Barrier::new(2);
    for _ in 0..300 {
        std::thread::scope(|scope| {
            for spec in [ones, twos] {
                let (policy, start) = (&policy, &start);
                scope.spawn(move || {
                    start.wait();
                    policy.reconfigure(&spec).unwrap();
                });
            }
        });
        let rules = (
            policy.hedge_delay().is_none(),
            policy.breaker().settings().spec().failure_rate == 0.1,
            policy.bulkhead().snapshot().permits == 1,
            policy.rate_limit().is_some(),
        );
        let is_ones = policy.spec() == ones;
        assert_eq!(rules, (is_ones, is_ones, is_ones, is_ones));
    }
}

#[test]
fn a_change_that_can_not_be_is_none() {
    let pair = Pair::new();
    let bad = InboundSpec { coarse_shed: Some(Limit::Fixed(2)), deadline: Some(ms(1)), ..inbound() };
    assert_eq!(pair.inn.reconfigure(&bad).unwrap_err().pattern(), "coarse_shed");
    assert_eq!(pair.inn.spec(), inbound());
    let bad = PolicySpec { rate_limit: None, pacing: Some(Rate::token_bucket(1, secs(1))), ..outbound() };
    assert_eq!(pair.out.reconfigure(&bad).unwrap_err().pattern(), "pacing");
    assert!(pair.out.rate_limit().is_some() && pair.out.spec() == outbound());
}
