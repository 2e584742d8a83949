//! The rules of load shedding as given / when / then, its laws as properties, and the limit that measures.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers may fail the test"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_envelope::{Deadline, Monotonic, Priority};
use mainstay_resilience::load_shed::{
    Adaptive, Checked, Entered, GivenUp, Gradient, Limit, Next, Permit, Refused, Room, Sample, Spec, State,
    Ticket, replay,
};
use proptest::prelude::*;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// An arbitrary reading of a monotonic clock.
const START: Monotonic = Monotonic::from_origin(Duration::from_secs(5_000));

fn checked(spec: Spec) -> Checked {
    spec.check().unwrap()
}

fn state(spec: Spec) -> State<u32> {
    State::new(&checked(spec), START, 0)
}

/// Enters a call that finds a permit free.
fn admitted(state: &State<u32>, now: Monotonic) -> Permit {
    match state.enter(now, Priority::Normal, None, || 0) {
        Entered::Admitted(permit) => permit,
        other => panic!("{other:?}"),
    }
}

/// Enters a call that has to wait, and whom it took the place of.
fn waits(state: &State<u32>, now: Monotonic, priority: Priority, who: u32) -> (Ticket, Option<u32>) {
    match state.enter(now, priority, None, || who) {
        Entered::Waiting { ticket, evicted } => (ticket, evicted),
        other => panic!("{other:?}"),
    }
}

/// What is to be done: who begins, and who is given up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settled {
    begin: Vec<u32>,
    given_up: Vec<(u32, GivenUp)>,
}

fn settle(state: &State<u32>, now: Monotonic, permits: &mut Vec<Permit>) -> Settled {
    let mut settled = Settled::default();
    while let Some(next) = state.next(now) {
        match next {
            Next::Admit(who, permit) => {
                permits.push(permit);
                settled.begin.push(who);
            }
            Next::GiveUp(who, why) => settled.given_up.push((who, why)),
        }
    }
    settled
}

// ---- who goes first ------------------------------------------------------------------------------------

#[test]
fn the_highest_priority_begins_first_and_within_one_whoever_came_first() {
    let state = state(Spec::fixed(1).queue(10));
    let permit = admitted(&state, START);
    for (who, priority) in
        [(1, Priority::Background), (2, Priority::Normal), (3, Priority::Critical), (4, Priority::Normal)]
    {
        waits(&state, START, priority, who);
    }
    let mut permits = vec![permit];
    let mut order = Vec::new();
    while let Some(permit) = permits.pop() {
        state.complete(START, permit, Sample::Answered);
        order.extend(settle(&state, START, &mut permits).begin);
    }
    assert_eq!(order, [3, 2, 4, 1]);
    assert_eq!((state.in_flight(), state.waiting()), (0, 0));
}

#[test]
fn the_lowest_priority_is_given_up_first_and_nothing_for_its_equal() {
    let state = state(Spec::fixed(1).queue(2));
    let _under_way = admitted(&state, START);
    waits(&state, START, Priority::Low, 1);
    waits(&state, START, Priority::Background, 2);
    // when the queue is full: the lowest loses its place to what is above it
    assert_eq!(waits(&state, START, Priority::Normal, 3).1, Some(2));
    assert_eq!(waits(&state, START, Priority::Normal, 4).1, Some(1));
    // and what is no higher than all that wait is refused itself
    for priority in [Priority::Background, Priority::Low, Priority::Normal] {
        let refused = state.enter(START, priority, None, || 5);
        assert!(matches!(refused, Entered::Refused(Refused::QueueFull, _)), "{priority:?}: {refused:?}");
    }
    assert_eq!(waits(&state, START, Priority::Critical, 6).1, Some(3), "the longest of its priority");
    assert_eq!((state.in_flight(), state.waiting()), (1, 2));
}

#[test]
fn without_a_queue_the_limit_refuses_and_tells_itself() {
    let state = state(Spec::fixed(2).queue(0));
    let first = admitted(&state, START);
    let _second = admitted(&state, START);
    let refused = state.enter(START, Priority::Critical, None, || 1);
    assert!(matches!(refused, Entered::Refused(Refused::LimitReached { limit: 2 }, _)), "{refused:?}");
    state.complete(START, first, Sample::Answered);
    let third = admitted(&state, START + ms(1));
    assert_eq!(third.began(), START + ms(1));
}

#[test]
fn who_cannot_wait_gets_a_permit_or_the_reason() {
    let state = state(Spec::fixed(1).queue(5));
    let late = state.try_enter(START, Some(Deadline::at(START)));
    assert!(matches!(late, Err((Refused::DeadlineReached, _))), "{late:?}");
    let permit = state.try_enter(START, Some(Deadline::after(START, ms(1)))).unwrap();
    assert_eq!((state.in_flight(), state.waiting()), (1, 0));
    let full = state.try_enter(START, None);
    assert!(matches!(full, Err((Refused::LimitReached { limit: 1 }, _))), "{full:?}");
    state.complete(START, permit, Sample::Answered);
    assert_eq!(state.in_flight(), 0);
}

#[test]
fn a_permit_that_comes_back_while_a_call_gets_ready_to_wait_is_its_own() {
    let state = state(Spec::fixed(1).queue(5));
    let permit = admitted(&state, START);
    let entered = state.enter(START, Priority::Normal, None, || {
        state.complete(START, permit, Sample::Answered);
        1
    });
    assert!(matches!(entered, Entered::Admitted(_)), "{entered:?}");
    assert_eq!((state.in_flight(), state.waiting()), (1, 0));
}

#[test]
fn where_nobody_may_wait_no_waiter_is_made_whatever_was_set_before() {
    let none = |state: &State<u32>| {
        let refused = state.enter(START, Priority::Normal, None, || panic!("a refusal has to be cheap"));
        assert!(matches!(refused, Entered::Refused(Refused::LimitReached { .. }, _)), "{refused:?}");
    };
    let state = state(Spec::fixed(1).queue(0));
    let _under_way = admitted(&state, START);
    none(&state);
    state.reconfigure(&checked(Spec::fixed(1).queue(7)), START);
    assert_eq!(state.capacity(), 7);
    let (ticket, _) = waits(&state, START, Priority::Normal, 1);
    state.cancel(ticket).unwrap();
    state.reconfigure(&checked(Spec::fixed(1).queue(0)), START);
    none(&state);
}

#[test]
fn nobody_barges_in_while_others_wait() {
    let state = state(Spec::fixed(1).queue(5));
    let permit = admitted(&state, START);
    waits(&state, START, Priority::Normal, 1);
    state.complete(START, permit, Sample::Answered);
    // the permit is free, and it is the waiting one's
    assert!(state.try_enter(START, None).is_err());
    let (_, evicted) = waits(&state, START, Priority::Normal, 2);
    assert_eq!(evicted, None);
    let mut permits = Vec::new();
    assert_eq!(settle(&state, START, &mut permits).begin, [1]);
}

#[test]
fn what_is_past_its_deadline_is_not_begun() {
    let state = state(Spec::fixed(1).queue(5));
    let over = Some(Deadline::at(START));
    let refused = state.enter(START, Priority::Critical, over, || 1);
    assert!(matches!(refused, Entered::Refused(Refused::DeadlineReached, _)), "{refused:?}");
    let permit = admitted(&state, START);
    let soon = Some(Deadline::after(START, ms(3)));
    assert!(matches!(state.enter(START, Priority::Normal, soon, || 2), Entered::Waiting { .. }));
    assert_eq!(state.next_give_up(), Some(START + ms(3)));
    let mut permits = Vec::new();
    state.complete(START + ms(3), permit, Sample::Answered);
    let settled = settle(&state, START + ms(3), &mut permits);
    assert_eq!(settled, Settled { begin: vec![], given_up: vec![(2, GivenUp::Deadline)] });
}

#[test]
fn a_cancelled_waiter_leaves_its_place_and_takes_no_permit() {
    let state = state(Spec::fixed(1).queue(2));
    let permit = admitted(&state, START);
    let (ticket, _) = waits(&state, START, Priority::Normal, 1);
    waits(&state, START, Priority::Normal, 2);
    assert_eq!(state.cancel(ticket), Some(1));
    assert_eq!(state.cancel(ticket), None, "only once");
    assert_eq!(waits(&state, START, Priority::Normal, 3).1, None, "its place is free");
    let mut permits = Vec::new();
    state.complete(START, permit, Sample::Nothing);
    assert_eq!(settle(&state, START, &mut permits).begin, [2]);
}

// ---- records -------------------------------------------------------------------------------------------

/// Rows: question, when, what was recorded of it, the verdict.
#[test]
fn a_record_says_what_was_decided_and_what_is_no_record_is_not_decided() {
    const ENTER: u8 = 0;
    const GIVE_UP: u8 = 1;
    const EVICT: u8 = 2;
    let waited = |since, deadline, limit| [since, deadline, limit, 0, 0, 0, 0];
    let evict = |lowest, came| [lowest, came, 0, 0, 0, 0, 0];
    for (question, at, inputs, verdict) in [
        // Limit, under way, waiting, capacity, the lowest plus 1, its own, late.
        (ENTER, 0, [2, 1, 0, 0, 0, 2, 0], Some(0)),
        (ENTER, 0, [2, 2, 0, 1, 0, 2, 0], Some(1)),
        (ENTER, 0, [2, 1, 1, 2, 2, 2, 0], Some(1)),
        (ENTER, 0, [2, 2, 1, 1, 2, 2, 0], Some(2)),
        (ENTER, 0, [2, 2, 0, 0, 0, 3, 0], Some(3)),
        (ENTER, 0, [2, 2, 1, 1, 3, 2, 0], Some(4)),
        (ENTER, 0, [2, 1, 0, 0, 0, 2, 1], Some(5)),
        (ENTER, 0, [1 << 32, 1, 0, 0, 0, 2, 0], None),
        (ENTER, 0, [2, 1, 0, 0, 5, 2, 0], None),
        (ENTER, 0, [2, 1, 0, 0, 0, 4, 0], None),
        (GIVE_UP, 10, waited(5, u64::MAX, 5), Some(1)),
        (GIVE_UP, 10, waited(5, u64::MAX, 6), Some(0)),
        (GIVE_UP, 10, waited(5, 10, 100), Some(1)),
        (GIVE_UP, 10, waited(5, 11, 100), Some(0)),
        (EVICT, 0, evict(1, 2), Some(1)),
        (EVICT, 0, evict(2, 2), Some(0)),
        (EVICT, 0, evict(2, 1), Some(0)),
        (3, 0, [2, 1, 0, 0, 0, 2, 0], None),
    ] {
        assert_eq!(replay(question, at, inputs), verdict, "{question} at {at} of {inputs:?}");
    }
    let room = Room { limit: 2, in_flight: 1, waiting: 3, capacity: 4, lowest: Some(Priority::ALL[1]) };
    assert_eq!(room.inputs(Priority::ALL[3], Refused::QueueFull), [2, 1, 3, 4, 2, 3, 0]);
    let nobody = Room { lowest: None, ..room };
    assert_eq!(nobody.inputs(Priority::ALL[0], Refused::DeadlineReached), [2, 1, 3, 4, 0, 0, 1]);
}

// ---- how long one waits --------------------------------------------------------------------------------

#[test]
fn a_burst_may_wait_for_an_interval_and_what_stands_for_the_target() {
    // given the defaults: 5 ms while the queue stands, 100 ms otherwise
    let state = state(Spec::fixed(1).queue(1_000));
    let _under_way = admitted(&state, START);
    let mut permits = Vec::new();
    waits(&state, START, Priority::Normal, 0);
    // when a call comes each millisecond and none is served
    let mut given_up = BTreeMap::new();
    for at in 1..=200_u32 {
        let now = START + ms(at.into());
        waits(&state, now, Priority::Normal, at);
        for (who, why) in settle(&state, now, &mut permits).given_up {
            given_up.insert(who, (at - who, why));
        }
    }
    // then each may wait for the interval, until the first ones have waited for the target for as long as that
    let good = GivenUp::WaitedTooLong { limit: ms(100), is_standing: false };
    let standing = GivenUp::WaitedTooLong { limit: ms(5), is_standing: true };
    assert_eq!((given_up[&0], given_up[&4]), ((100, good), (100, good)));
    // and then all but the latest at once, and each after the target from there on
    assert_eq!(
        (given_up[&50], given_up[&100], given_up[&150]),
        ((55, standing), (5, standing), (5, standing))
    );
    assert_eq!(state.waiting(), 5);
}

#[test]
fn one_look_at_a_short_wait_begins_the_interval_anew() {
    let state = state(Spec::fixed(1).queue(1_000));
    let mut permits = vec![admitted(&state, START)];
    // given a queue that is never empty, whose first has waited for long, but for one moment
    for at in 0..=190_u32 {
        let now = START + ms(at.into());
        waits(&state, now, Priority::Normal, at);
        if at == 60 {
            // all but the latest are served
            while state.waiting() > 1 {
                state.complete(now, permits.pop().unwrap(), Sample::Answered);
                assert_eq!(settle(&state, now, &mut permits).given_up, []);
            }
        }
        // then it doesn't stand, though it has not been empty for far longer than an interval
        let given_up = settle(&state, now, &mut permits).given_up;
        assert!(given_up.is_empty() || at >= 160, "at {at}: {given_up:?}");
    }
}

#[test]
fn a_queue_that_was_empty_lately_lets_wait_for_the_whole_interval() {
    let state = state(Spec::fixed(1).queue(10));
    let permit = admitted(&state, START);
    waits(&state, START, Priority::Normal, 1);
    assert_eq!(state.next_give_up(), Some(START + ms(100)));
    let mut permits = Vec::new();
    assert_eq!(settle(&state, START + ms(99), &mut permits), Settled::default());
    state.complete(START + ms(99), permit, Sample::Answered);
    assert_eq!(settle(&state, START + ms(99), &mut permits).begin, [1]);
}

#[test]
fn what_is_starved_is_given_up_though_others_are_served() {
    // given critical calls that always find a permit soon, and a background one behind them
    let state = state(Spec::fixed(1).queue(10));
    let mut permits = vec![admitted(&state, START)];
    waits(&state, START, Priority::Background, 99);
    let mut given_up = Vec::new();
    for at in 1..=120_u32 {
        let now = START + ms(at.into());
        waits(&state, now, Priority::Critical, at);
        state.complete(now, permits.pop().unwrap(), Sample::Answered);
        let settled = settle(&state, now, &mut permits);
        assert_eq!(settled.begin, [at]);
        given_up.extend(settled.given_up.into_iter().map(|(who, _)| (at, who)));
    }
    assert_eq!(given_up, [(100, 99)]);
}

// ---- the settings change -------------------------------------------------------------------------------

#[test]
fn a_change_of_settings_keeps_who_is_there_and_what_was_learnt() {
    let state = state(Spec::fixed(2).queue(10));
    let mut permits = vec![admitted(&state, START), admitted(&state, START)];
    for who in 1..=3 {
        waits(&state, START, Priority::Normal, who);
    }
    // a lower limit and a smaller queue push nobody out
    state.reconfigure(&checked(Spec::fixed(1).queue(1)), START);
    assert_eq!(settle(&state, START, &mut permits), Settled::default());
    assert_eq!((state.in_flight(), state.waiting(), state.limit()), (2, 3, 1));
    state.complete(START, permits.pop().unwrap(), Sample::Answered);
    assert!(settle(&state, START, &mut permits).begin.is_empty(), "one is under way, as the limit says now");
    // a higher one lets go at once who waits
    state.reconfigure(&checked(Spec::fixed(3).queue(10)), START);
    assert_eq!(settle(&state, START, &mut permits).begin, [1, 2]);
    // a limit that becomes adaptive begins where it stood
    let range = Adaptive { initial: 50, ..Adaptive::default() };
    state.reconfigure(&checked(Spec { limit: Limit::Adaptive(range), ..Spec::fixed(1) }), START);
    assert_eq!(state.limit(), 4, "its lowest, which is above the 3 from before");
    state.reconfigure(
        &checked(Spec { limit: Limit::Adaptive(Adaptive { min: 9, ..range }), ..Spec::fixed(1) }),
        START,
    );
    assert_eq!(state.limit(), 9);
}

// ---- the limit that measures ---------------------------------------------------------------------------

/// A callee that works on `cores` at a time and lets the others wait, in steps of one window: the simplest there is.
struct Callee {
    gradient: Gradient,
    now: Monotonic,
    cores: f64,
    work: Duration,
    /// At most so many are asked at a time.
    demand: u32,
}

impl Callee {
    fn new(settings: Adaptive, cores: f64, work: Duration) -> Self {
        Callee { gradient: Gradient::new(settings, START, 7), now: START, cores, work, demand: u32::MAX }
    }

    fn under_way(&self) -> u32 {
        self.gradient.limit().min(self.demand)
    }

    fn response(&self) -> Duration {
        self.work.mul_f64((f64::from(self.under_way()) / self.cores).max(1.0))
    }

    /// Calls that all meet the limit of this moment, until it is set anew; or so many seconds of it.
    fn run(&mut self, time: Duration, sample: Sample) -> Vec<u32> {
        let (end, mut limits) = (self.now + time, Vec::new());
        while self.now < end {
            let (response, in_flight) = (self.response(), self.under_way());
            let began = self.now;
            self.now = self.now + response;
            for _ in 0..in_flight.max(1) {
                if self.gradient.record(self.now, began, sample, in_flight) {
                    limits.push(self.gradient.limit());
                }
            }
        }
        limits
    }
}

#[test]
fn the_limit_finds_what_goes_through_without_waiting() {
    // given a callee of 100 cores, and far more asked of it
    let mut callee = Callee::new(Adaptive::default(), 100.0, ms(20));
    callee.run(Duration::from_secs(30), Sample::Answered);
    let limits = callee.run(Duration::from_secs(60), Sample::Answered);
    // then the limit stays near it: it lets the callee work fully, and no more than the tolerance wait
    let mean = limits.iter().copied().map(f64::from).sum::<f64>() / limits.len() as f64;
    assert!((100.0..=180.0).contains(&mean), "{mean}");
    assert!(limits.iter().all(|limit| *limit <= 200), "it does not creep up: {:?}", limits.iter().max());
}

#[test]
fn an_overload_that_lasts_does_not_pass_for_the_usual() {
    // given a process that starts into an overload: its first measurement is ten times too long
    let settings = Adaptive { initial: 1_000, ..Adaptive::default() };
    let mut callee = Callee::new(settings, 100.0, ms(20));
    callee.run(Duration::from_secs(10), Sample::Answered);
    assert!((100..=200).contains(&callee.gradient.limit()), "{}", callee.gradient.limit());
    let undisturbed = callee.gradient.undisturbed().unwrap();
    assert!(undisturbed < ms(30), "{undisturbed:?}");
}

#[test]
fn a_callee_that_got_slower_by_itself_is_still_used_fully_and_one_that_recovers_too() {
    let mut callee = Callee::new(Adaptive::default(), 100.0, ms(20));
    callee.run(Duration::from_secs(20), Sample::Answered);
    // when it takes ten times as long for a reason of its own, then halving doesn't help, and that is noticed
    callee.work = ms(200);
    callee.run(Duration::from_secs(30), Sample::Answered);
    assert!(callee.gradient.limit() >= 80, "{}", callee.gradient.limit());
    // when it is well again, then at once
    callee.work = ms(20);
    callee.run(Duration::from_secs(5), Sample::Answered);
    assert!((80..=200).contains(&callee.gradient.limit()), "{}", callee.gradient.limit());
    assert!(callee.gradient.undisturbed().unwrap() < ms(30));
}

#[test]
fn a_callee_of_whom_all_fails_is_asked_less_and_more_again_when_it_answers() {
    let mut callee = Callee::new(Adaptive::default(), 100.0, ms(20));
    callee.run(Duration::from_secs(20), Sample::Answered);
    callee.run(Duration::from_secs(10), Sample::Overloaded);
    assert!(callee.gradient.limit() <= 8, "{}", callee.gradient.limit());
    callee.run(Duration::from_secs(10), Sample::Answered);
    assert!(callee.gradient.limit() >= 80, "{}", callee.gradient.limit());
}

#[test]
fn measuring_refuses_nothing_that_fits() {
    // given a load that is well below the limit
    let mut callee = Callee::new(Adaptive { initial: 100, ..Adaptive::default() }, 100.0, ms(20));
    callee.demand = 30;
    for _ in 0..600 {
        callee.run(ms(100), Sample::Answered);
        // then no probe ever lowers it below what is asked
        assert!(
            callee.gradient.limit() >= 60 && !callee.gradient.is_probing(),
            "{}",
            callee.gradient.limit()
        );
    }
}

#[test]
fn what_calls_tell_at_their_end_sets_the_limit_they_meet() {
    let spec = Spec { limit: Limit::Adaptive(Adaptive::default()), ..Spec::fixed(1) };
    for (sample, is_lowered) in [(Sample::Overloaded, true), (Sample::Nothing, false)] {
        let state = state(spec);
        let (before, mut now) = (state.limit(), START);
        for _ in 0..1_000 {
            let permit = admitted(&state, now);
            now = now + ms(20);
            state.complete(now, permit, sample);
        }
        assert_eq!(state.limit() < before, is_lowered, "{sample:?}: {}", state.limit());
    }
}

#[test]
fn cancelled_calls_say_nothing_about_the_callee() {
    let mut gradient = Gradient::new(Adaptive::default(), START, 1);
    for n in 0..10_000_u64 {
        let now = START + ms(n);
        assert!(!gradient.record(now, START, Sample::Nothing, 20));
    }
    assert_eq!((gradient.limit(), gradient.undisturbed()), (20, None));
}

// ---- the laws ------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    Enter(Priority),
    Complete,
    Cancel(usize),
    Pass(u64),
    Reconfigure(u32, u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4_usize).prop_map(|at| Step::Enter(Priority::ALL[at])),
        3 => Just(Step::Complete),
        1 => any::<prop::sample::Index>().prop_map(|at| Step::Cancel(at.index(1_000))),
        2 => (0..40_u64).prop_map(Step::Pass),
        1 => (1..5_u32, 0..6_u32).prop_map(|(limit, queue)| Step::Reconfigure(limit, queue)),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    /// Whatever happens: each call gets one verdict, none waits while a permit is free, and no more are under way than
    /// the highest limit there was.
    #[test]
    fn every_call_gets_one_verdict_and_no_permit_is_lost(limit in 1..5_u32, queue in 0..6_u32, steps in steps()) {
        let state = state(Spec::fixed(limit).queue(queue));
        let (mut now, mut highest, mut limit) = (START, limit, limit);
        let mut permits = Vec::new();
        // Those that wait, by number, with their tickets; and all that had a verdict.
        let mut waiting: BTreeMap<u32, Ticket> = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            let number = u32::try_from(number).unwrap();
            match step {
                Step::Enter(priority) => match state.enter(now, priority, None, || number) {
                    Entered::Admitted(permit) => {
                        prop_assert!(waiting.is_empty(), "it barged in");
                        permits.push(permit);
                    }
                    Entered::Waiting { ticket, evicted } => {
                        prop_assert_eq!(ticket.priority(), priority);
                        if let Some(evicted) = evicted {
                            let lost = waiting.remove(&evicted);
                            prop_assert!(lost.is_some_and(|lost| lost.priority() < priority), "{:?}", lost);
                        }
                        waiting.insert(number, ticket);
                    }
                    Entered::Refused(refused, _) => {
                        prop_assert!(!matches!(refused, Refused::DeadlineReached));
                        let lower = waiting.values().any(|held| held.priority() < priority);
                        prop_assert!(!lower, "refused though a lower one waits");
                    }
                },
                Step::Complete => {
                    if let Some(permit) = permits.pop() {
                        state.complete(now, permit, Sample::Answered);
                    }
                }
                Step::Cancel(at) => {
                    if let Some(who) = waiting.keys().copied().nth(at % waiting.len().max(1)) {
                        let ticket = waiting.remove(&who).unwrap();
                        prop_assert_eq!(state.cancel(ticket), Some(who));
                    }
                }
                Step::Pass(millis) => now = now + ms(millis),
                Step::Reconfigure(new, queue) => {
                    (limit, highest) = (new, highest.max(new));
                    state.reconfigure(&checked(Spec::fixed(new).queue(queue)), now);
                }
            }
            let settled = settle(&state, now, &mut permits);
            for who in settled.begin.iter().chain(settled.given_up.iter().map(|(who, _)| who)) {
                prop_assert!(waiting.remove(who).is_some(), "{} had its verdict before", who);
            }
            prop_assert_eq!(state.waiting() as usize, waiting.len());
            prop_assert_eq!(state.in_flight() as usize, permits.len());
            prop_assert!(permits.len() <= highest as usize);
            prop_assert!(waiting.is_empty() || permits.len() >= limit as usize, "one waits though a permit is free");
            if let Some(at) = state.next_give_up() {
                prop_assert!(at > now, "somebody has waited too long and is not given up");
            }
        }
    }
}

#[test]
fn racing_calls_lose_no_permit_and_none_waits_for_ever() {
    // given a small limit and a queue, and threads that come, wait for their turn and go
    let state: State<std::sync::mpsc::Sender<Permit>> = State::new(
        &checked(
            Spec::fixed(2).queue(100).target(Duration::from_secs(3_000)).interval(Duration::from_secs(3_000)),
        ),
        START,
        0,
    );
    let tell_next = || {
        while let Some(next) = state.next(START) {
            match next {
                Next::Admit(who, permit) => who.send(permit).unwrap(),
                Next::GiveUp(_, why) => panic!("{why:?}"),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let (tell, told) = std::sync::mpsc::channel();
                    let permit = match state.enter(START, Priority::Normal, None, || tell) {
                        Entered::Admitted(permit) => permit,
                        Entered::Waiting { .. } => {
                            tell_next();
                            // Ends only when somebody names this call: a lost wake-up would hang here.
                            told.recv().unwrap()
                        }
                        Entered::Refused(refused, _) => panic!("{refused:?}"),
                    };
                    assert!(state.in_flight() <= 2);
                    state.complete(START, permit, Sample::Answered);
                    tell_next();
                }
            });
        }
    });
    assert_eq!((state.in_flight(), state.waiting()), (0, 0));
}
