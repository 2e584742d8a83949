//! The circuit breaker as given / when / then, against a plain model, and its laws.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay_envelope::{Clock, Deadline, ManualClock, Monotonic, SeededChance};
use mainstay_resilience::circuit_breaker::{Change, CircuitBreaker, Counts, Mode, Phase, Spec, Window};
use mainstay_resilience::record::{Recorder, Recording};
use mainstay_resilience::{DecisionId, NotDone, Outcome, Refusal, Replayed, Scope, Why, replay};
use proptest::prelude::*;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// An arbitrary reading of a monotonic clock.
const START: Monotonic = Monotonic::from_origin(secs(5_000));

fn nanos(reading: Monotonic) -> u64 {
    reading.as_nanos()
}

fn scope() -> Arc<Scope> {
    let recorder = Recorder::new(Recording::All, 4_096, 7);
    Arc::new(Scope::new("test", Arc::new(ManualClock::default()), Arc::new(SeededChance::new(1)), recorder))
}

fn breaker(spec: Spec) -> CircuitBreaker {
    CircuitBreaker::new(spec.check().unwrap(), scope())
}

/// Opens at half of the last ten, from four calls on; open for 5 s.
fn ten() -> Spec {
    Spec::failure_rate(0.5).over(10).minimum_calls(4).open_for(secs(5))
}

/// A call at `now` that takes no time.
fn call(breaker: &CircuitBreaker, now: Monotonic, outcome: Outcome) -> Result<(), Refusal> {
    let ticket = breaker.check(now)?;
    breaker.record(ticket, now, outcome);
    Ok(())
}

fn calls(breaker: &CircuitBreaker, now: Monotonic, outcome: Outcome, n: usize) {
    (0..n).for_each(|_| call(breaker, now, outcome).unwrap());
}

fn phase(breaker: &CircuitBreaker) -> Phase {
    breaker.snapshot(START).phase
}

fn is_open(breaker: &CircuitBreaker) -> bool {
    matches!(phase(breaker), Phase::Open { .. })
}

const FAILED: Outcome = Outcome::TRANSIENT;

// ---- opening -------------------------------------------------------------------------------------------

#[test]
fn it_opens_within_its_window_however_many_calls_succeeded_before() {
    for successes in [0, 10, 1_000, 10_000] {
        let breaker = breaker(Spec::failure_rate(0.5).over(100).minimum_calls(20));
        calls(&breaker, START, Outcome::Success, successes);
        let failures = (1..=100).find(|_| {
            calls(&breaker, START, FAILED, 1);
            is_open(&breaker)
        });
        // Half of a window of a hundred; with none before, the minimum.
        let expected = match successes {
            0 => 20,
            10 => 10,
            _ => 50,
        };
        assert_eq!(failures, Some(expected), "after {successes} successes");
    }
}

#[test]
fn what_is_told_decides_whether_it_opens() {
    use Outcome::{Cancelled, Permanent, Success};
    for (case, told, opens) in [
        ("three of four", vec![FAILED, FAILED, FAILED, Success, FAILED], true),
        ("exactly half", vec![Success, Success, FAILED, FAILED], true),
        ("just below half", vec![Success, Success, Success, FAILED, FAILED], false),
        ("too few to say", vec![FAILED, FAILED, FAILED], false),
        ("a success that completes the minimum", vec![FAILED, FAILED, FAILED, Success], false),
        ("the callee answers no", vec![Permanent; 20], false),
        ("callers leave", vec![Cancelled; 20], false),
        (
            "callers leave between failures",
            vec![FAILED, Cancelled, FAILED, Cancelled, Cancelled, FAILED],
            false,
        ),
        ("an answer is a success", vec![Permanent, Permanent, Permanent, FAILED, FAILED], false),
    ] {
        let breaker = breaker(ten());
        for outcome in told {
            let _ = call(&breaker, START, outcome);
        }
        assert_eq!(is_open(&breaker), opens, "{case}");
    }
}

/// Its end is read from a clock that may lag, where that is good enough: never where the call may have been slow.
#[test]
fn a_guarded_call_is_slow_from_the_first_nanosecond_past_the_limit_on() {
    for (window, limit) in [
        (ten(), ms(100)),
        (ten(), ms(10)),
        (Spec::failure_rate(0.5).over(secs(10)).minimum_calls(4), ms(100)),
    ] {
        for (took, slow) in [(Duration::ZERO, 0), (limit, 0), (limit + Duration::from_nanos(1), 1)] {
            let clock = ManualClock::default();
            let recorder = Recorder::new(Recording::All, 16, 7);
            let (time, chance) = (Arc::new(clock.clone()), Arc::new(SeededChance::new(1)));
            let scope = Arc::new(Scope::new("test", time, chance, recorder));
            let mut breaker = CircuitBreaker::new(window.slow(limit, 0.5).check().unwrap(), scope);
            let guard = breaker.admit(clock.now(), None).unwrap();
            clock.advance(took);
            guard.record(Outcome::Success);
            let counts = breaker.snapshot(clock.now()).counts;
            assert_eq!((counts.calls, counts.slow), (1, slow), "{took:?} of {limit:?}");
        }
    }
}

#[test]
fn slow_calls_open_it_too_whatever_came_of_them() {
    let took = |breaker: &CircuitBreaker, took: Duration, outcome| {
        let ticket = breaker.check(START).unwrap();
        breaker.record(ticket, START + took, outcome);
    };
    for (case, time, outcome, opens) in [
        ("slow successes", ms(101), Outcome::Success, true),
        ("exactly at the limit", ms(100), Outcome::Success, false),
        ("slow answers", ms(101), Outcome::Permanent, true),
        ("cancelled past the limit", ms(101), Outcome::Cancelled, true),
        ("cancelled before", ms(100), Outcome::Cancelled, false),
    ] {
        let breaker = breaker(ten().slow(ms(100), 0.5));
        for _ in 0..4 {
            took(&breaker, time, outcome);
        }
        assert_eq!(is_open(&breaker), opens, "{case}");
    }
    // Without the setting nothing is slow.
    let breaker = breaker(ten());
    for _ in 0..20 {
        took(&breaker, secs(1_000), Outcome::Success);
    }
    assert!(!is_open(&breaker));
}

#[test]
fn a_time_window_forgets_what_is_older() {
    let breaker = breaker(Spec::failure_rate(0.5).over(secs(10)).minimum_calls(4));
    calls(&breaker, START, FAILED, 3);
    // given three failures, when the fourth comes a window later, then it is alone
    calls(&breaker, START + secs(10), FAILED, 3);
    assert!(!is_open(&breaker));
    calls(&breaker, START + secs(18), FAILED, 1);
    assert!(is_open(&breaker));
}

// ---- open ----------------------------------------------------------------------------------------------

#[test]
fn an_open_breaker_refuses_and_says_for_how_long() {
    let breaker = breaker(ten());
    calls(&breaker, START, FAILED, 4);
    let refused = breaker.check(START + secs(2)).unwrap_err();
    assert_eq!((refused.why, refused.retry_after), (Why::BreakerOpen, Some(secs(3))));
    assert_eq!(refused.not_done, NotDone::Call);
    assert_ne!(refused.decision, DecisionId::UNRECORDED);
    let shown = refused.to_string();
    for part in ["circuit_breaker", "\"test\"", "look at the callee", "nothing happened", "3s"] {
        assert!(shown.contains(part), "{shown:?} does not say {part:?}");
    }
    assert_eq!(breaker.snapshot(START).refused, 1);
}

#[test]
fn the_open_time_grows_up_to_its_cap_and_begins_anew_once_closed() {
    let breaker = breaker(ten().open_growth(2, secs(30)));
    calls(&breaker, START, FAILED, 4);
    let mut now = START;
    let mut waits = Vec::new();
    for _ in 0..5 {
        let wait = breaker.check(now).unwrap_err().retry_after.unwrap();
        waits.push(wait.as_secs());
        now = now + wait;
        call(&breaker, now, FAILED).unwrap();
    }
    assert_eq!(waits, [5, 10, 20, 30, 30]);
    now = now + secs(30);
    call(&breaker, now, Outcome::Success).unwrap();
    assert_eq!(phase(&breaker), Phase::Closed);
    assert_eq!(breaker.snapshot(now).counts, Counts::default(), "it begins with an empty window");
    calls(&breaker, now, FAILED, 4);
    assert_eq!(breaker.check(now).unwrap_err().retry_after, Some(secs(5)));
}

// ---- half-open -----------------------------------------------------------------------------------------

/// Open, and its time is over at the instant that is returned.
fn due(spec: Spec) -> (CircuitBreaker, Monotonic) {
    let breaker = breaker(spec);
    let needed = spec.minimum_calls as usize;
    calls(&breaker, START, FAILED, needed);
    assert!(is_open(&breaker));
    (breaker, START + spec.open_for)
}

#[test]
fn a_single_probe_decides() {
    for (outcome, closes) in [(Outcome::Success, true), (Outcome::Permanent, true), (FAILED, false)] {
        let (breaker, now) = due(ten());
        let probe = breaker.check(now).unwrap();
        assert!(probe.is_probe());
        let other = breaker.check(now).unwrap_err();
        assert_eq!(other.why, Why::ProbesUnderWay);
        breaker.record(probe, now, outcome);
        assert_eq!(phase(&breaker) == Phase::Closed, closes, "{outcome:?}");
        assert_eq!(is_open(&breaker), !closes, "{outcome:?}");
    }
}

#[test]
fn several_probes_decide_together_and_as_soon_as_they_can() {
    use Outcome::Success;
    for (case, told, expected) in [
        ("half of four fail", vec![Success, FAILED, FAILED], "open"),
        ("three of four succeed", vec![FAILED, Success, Success, Success], "closed"),
        ("the first two fail", vec![FAILED, FAILED], "open"),
        ("the first three succeed", vec![Success, Success, Success], "closed"),
        ("not decided yet", vec![Success, FAILED], "half-open"),
    ] {
        let (breaker, now) = due(ten().probes(4));
        let probes: Vec<_> = (0..4).map(|_| breaker.check(now).unwrap()).collect();
        assert!(breaker.check(now).is_err(), "a fifth is refused");
        for (probe, outcome) in probes.into_iter().zip(told) {
            breaker.record(probe, now, outcome);
        }
        let reached = match phase(&breaker) {
            Phase::Closed => "closed",
            Phase::Open { .. } => "open",
            Phase::HalfOpen { .. } => "half-open",
        };
        assert_eq!(reached, expected, "{case}");
    }
}

#[test]
fn a_cancelled_probe_gives_its_slot_to_the_next_call() {
    let (breaker, now) = due(ten());
    for _ in 0..1_000 {
        let probe = breaker.check(now).unwrap();
        breaker.record(probe, now, Outcome::Cancelled);
    }
    call(&breaker, now, Outcome::Success).unwrap();
    assert_eq!(phase(&breaker), Phase::Closed);
}

#[test]
fn a_probe_of_which_nothing_is_heard_counts_as_failed() {
    let (breaker, now) = due(ten().probe_limit(secs(60)));
    let lost = breaker.check(now).unwrap();
    assert_eq!(breaker.check(now + secs(59)).unwrap_err().why, Why::ProbesUnderWay);
    let refused = breaker.check(now + secs(60)).unwrap_err();
    assert_eq!((refused.why, refused.retry_after), (Why::BreakerOpen, Some(secs(10))));
    // and what it says later is of no interest to a later phase
    let now = now + secs(70);
    let probe = breaker.check(now).unwrap();
    breaker.record(lost, now, FAILED);
    breaker.record(probe, now, Outcome::Success);
    assert_eq!(phase(&breaker), Phase::Closed);
}

#[test]
fn what_began_in_an_earlier_phase_says_nothing_about_the_present_one() {
    let breaker = breaker(ten());
    let early: Vec<_> = (0..20).map(|_| breaker.check(START).unwrap()).collect();
    calls(&breaker, START, FAILED, 4);
    let now = START + secs(5);
    let probe = breaker.check(now).unwrap();
    for ticket in &early[..10] {
        breaker.record(*ticket, now, Outcome::Success);
        breaker.record(*ticket, now, FAILED);
    }
    assert!(matches!(phase(&breaker), Phase::HalfOpen { .. }), "none of them was a probe");
    breaker.record(probe, now, Outcome::Success);
    for ticket in &early[10..] {
        breaker.record(*ticket, now, FAILED);
    }
    assert_eq!(phase(&breaker), Phase::Closed);
    assert_eq!(breaker.snapshot(now).counts, Counts::default());
}

#[test]
fn phases_are_told_apart_however_many_there_were() {
    let breaker = breaker(Spec::failure_rate(0.5).over(4).minimum_calls(2).probes(1));
    let mut now = START;
    for _ in 0..40 {
        let of_an_earlier_phase = breaker.check(now).unwrap();
        calls(&breaker, now, FAILED, 2);
        assert!(is_open(&breaker));
        now = now + secs(3_600);
        calls(&breaker, now, Outcome::Success, 1);
        assert!(!is_open(&breaker));
        breaker.record(of_an_earlier_phase, now, FAILED);
        assert_eq!(breaker.snapshot(now).counts, Counts::default());
    }
}

#[test]
fn a_guard_that_is_dropped_gives_its_probe_back_and_one_that_is_late_blames_nobody() {
    let (mut breaker, now) = due(ten());
    drop(breaker.admit(now, None).unwrap());
    let guard = breaker.admit(now, None).unwrap();
    assert!(guard.is_probe());
    guard.release();
    // The scope's clock stands at its origin: every deadline up to there is over when the guard asks it.
    let over = Some(Deadline::at(Monotonic::ORIGIN));
    breaker.admit(now, over).unwrap().record(FAILED);
    assert!(matches!(phase(&breaker), Phase::HalfOpen { under_way: 0, failed: 0, .. }));
    breaker.admit(now, None).unwrap().record(FAILED);
    assert!(is_open(&breaker));
}

// ---- modes ---------------------------------------------------------------------------------------------

#[test]
fn modes_do_what_they_say() {
    // observe: learns and changes, and refuses nothing
    let (observer, now) = due(ten().mode(Mode::ObserveOnly));
    assert!(observer.check(START).is_ok());
    let probe = observer.check(now).unwrap();
    assert!(probe.is_probe() && !observer.check(now).unwrap().is_probe());
    observer.record(probe, now, Outcome::Success);
    assert_eq!(phase(&observer), Phase::Closed);

    // disabled: learns nothing
    let breaker = breaker(ten().mode(Mode::Disabled));
    calls(&breaker, START, FAILED, 20);
    assert_eq!((phase(&breaker), breaker.snapshot(START).counts), (Phase::Closed, Counts::default()));

    // forced open: refuses everything, without an end
    breaker.reconfigure(ten().mode(Mode::ForcedOpen).check().unwrap(), START);
    let refused = breaker.check(START).unwrap_err();
    assert_eq!((refused.why, refused.retry_after), (Why::BreakerForcedOpen, None));
    breaker.reconfigure(ten().check().unwrap(), START);
    assert!(breaker.check(START).is_ok());
}

#[test]
fn forcing_it_open_and_back_keeps_what_was_learnt() {
    let breaker = breaker(ten());
    calls(&breaker, START, FAILED, 3);
    for mode in [Mode::ForcedOpen, Mode::Disabled, Mode::ObserveOnly, Mode::Enforce] {
        let change = breaker.reconfigure(ten().mode(mode).check().unwrap(), START);
        assert_eq!(change, Change::WindowKept);
    }
    calls(&breaker, START, FAILED, 1);
    assert!(is_open(&breaker));
}

// ---- laws ----------------------------------------------------------------------------------------------

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A call begins, after a pause in milliseconds.
    Begin(u64),
    /// The call of this place ends, after a pause.
    End(prop::sample::Index, u64, Outcome),
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Success),
        3 => Just(FAILED),
        1 => Just(Outcome::Permanent),
        2 => Just(Outcome::Cancelled),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let pause = || prop_oneof![8 => 0_u64..20, 1 => 0_u64..8_000];
    prop_oneof![
        pause().prop_map(Step::Begin),
        (any::<prop::sample::Index>(), pause(), outcome())
            .prop_map(|(which, pause, o)| Step::End(which, pause, o)),
    ]
}

prop_compose! {
    fn spec()(
        size in 1_u32..30, minimum in 1_u32..30, rate in 1_u32..=100, slow in prop::option::of((1_u64..50, 1_u32..=100)),
        open in 1_u64..5_000, growth in 1_u32..4, probes in 1_u32..5, limit in 1_u64..20_000,
    ) -> Spec {
        let mut spec = Spec::failure_rate(f64::from(rate) / 100.0).over(size).minimum_calls(minimum.min(size));
        if let Some((longer_than, rate)) = slow {
            spec = spec.slow(ms(longer_than), f64::from(rate) / 100.0);
        }
        spec.open_for(ms(open)).open_growth(growth, ms(20_000)).probes(probes).probe_limit(ms(limit))
    }
}

/// The breaker as one would write it down for one thread: a queue of the last calls, and an enumeration.
struct Model {
    spec: Spec,
    window: VecDeque<(bool, bool)>,
    state: ModelState,
    opened: u32,
    /// Raised with every step between states.
    generation: u32,
}

enum ModelState {
    Closed,
    Open { until: Monotonic },
    HalfOpen { since: Monotonic, under_way: u32, ended: Vec<(bool, bool)> },
}

impl Model {
    fn new(spec: Spec) -> Self {
        Model { spec, window: VecDeque::new(), state: ModelState::Closed, opened: 0, generation: 0 }
    }

    fn enter(&mut self, state: ModelState) {
        self.state = state;
        self.generation += 1;
    }

    fn open(&mut self, now: Monotonic) {
        let factor = u64::from(self.spec.open_growth).pow(self.opened.min(20));
        let open =
            ms(u64::try_from(self.spec.open_for.as_millis()).unwrap() * factor).min(self.spec.open_cap);
        self.opened += 1;
        self.window.clear();
        self.enter(ModelState::Open { until: now + open });
    }

    fn begin(&mut self, now: Monotonic) -> Option<u32> {
        if let ModelState::Open { until } = self.state
            && now >= until
        {
            self.enter(ModelState::HalfOpen { since: now, under_way: 0, ended: Vec::new() });
        }
        match &mut self.state {
            ModelState::Closed => {}
            ModelState::Open { .. } => return None,
            ModelState::HalfOpen { since, under_way, ended } => {
                if *under_way + ended.len() as u32 >= self.spec.probes {
                    if now >= *since + self.spec.probe_limit {
                        self.open(now);
                    }
                    return None;
                }
                *under_way += 1;
                *since = now;
            }
        }
        Some(self.generation)
    }

    fn is_over(rate: f64, part: usize, of: usize) -> bool {
        // Rates are hundredths here, so that this is exact, too.
        part as u64 * 100 >= (rate * 100.0).round() as u64 * of as u64
    }

    fn bad(&self, ended: &[(bool, bool)], of: usize) -> bool {
        let failed = ended.iter().filter(|(failed, _)| *failed).count();
        let slow = ended.iter().filter(|(_, slow)| *slow).count();
        Self::is_over(self.spec.failure_rate, failed, of)
            || self.spec.slow.is_some_and(|limit| Self::is_over(limit.rate, slow, of))
    }

    fn end(&mut self, generation: u32, took: Duration, now: Monotonic, outcome: Outcome) {
        if generation != self.generation {
            return;
        }
        let slow = self.spec.slow.is_some_and(|slow| took > slow.longer_than);
        let entry = match outcome {
            Outcome::Cancelled if !slow => None,
            outcome => Some((outcome == FAILED, slow)),
        };
        let probes = self.spec.probes as usize;
        match (&mut self.state, entry) {
            (ModelState::Closed, Some(entry)) => {
                let Window::Count(size) = self.spec.window else { panic!("the model counts") };
                self.window.push_back(entry);
                if self.window.len() > size as usize {
                    self.window.pop_front();
                }
                let enough = self.window.len() >= self.spec.minimum_calls as usize;
                let held: Vec<_> = self.window.iter().copied().collect();
                if (entry.0 || entry.1) && enough && self.bad(&held, held.len()) {
                    self.open(now);
                }
            }
            (ModelState::HalfOpen { under_way, ended, .. }, entry) => {
                *under_way -= 1;
                let Some(entry) = entry else { return };
                ended.push(entry);
                let ended = ended.clone();
                let mut worst = ended.clone();
                worst.resize(probes.max(ended.len()), (true, true));
                if self.bad(&ended, probes) {
                    self.open(now);
                } else if !self.bad(&worst, probes) {
                    self.opened = 0;
                    self.window.clear();
                    self.enter(ModelState::Closed);
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn it_does_what_the_plain_model_does(spec in spec(), steps in prop::collection::vec(step(), 1..300)) {
        let (breaker, mut model) = (breaker(spec), Model::new(spec));
        let mut now = START;
        let mut under_way = Vec::new();
        for step in steps {
            match step {
                Step::Begin(pause) => {
                    now = now + ms(pause);
                    let (ticket, expected) = (breaker.check(now), model.begin(now));
                    prop_assert_eq!(ticket.is_ok(), expected.is_some());
                    if let (Ok(ticket), Some(generation)) = (ticket, expected) {
                        under_way.push((ticket, generation, now));
                    }
                }
                Step::End(_, pause, _) if under_way.is_empty() => now = now + ms(pause),
                Step::End(which, pause, outcome) => {
                    now = now + ms(pause);
                    let (ticket, generation, began) = under_way.swap_remove(which.index(under_way.len()));
                    breaker.record(ticket, now, outcome);
                    model.end(generation, now.saturating_since(began), now, outcome);
                }
            }
            let snapshot = breaker.snapshot(now);
            let same = match (&model.state, snapshot.phase) {
                (ModelState::Closed, Phase::Closed) => snapshot.counts.calls == model.window.len() as u64,
                (ModelState::Open { until }, Phase::Open { until: real }) => nanos(*until) == real,
                (ModelState::HalfOpen { under_way, .. }, Phase::HalfOpen { under_way: real, .. }) => {
                    *under_way == u32::from(real)
                }
                _ => false,
            };
            prop_assert!(same, "{:?}", snapshot);
        }
    }

    /// Whatever happened, calls cancelled, lost or late: once the callee is well, the way is open again in bounded time.
    #[test]
    fn it_never_wedges(spec in spec(), steps in prop::collection::vec(step(), 1..300)) {
        let breaker = breaker(spec);
        let mut now = START;
        let mut under_way = Vec::new();
        for step in steps {
            match step {
                Step::Begin(pause) => {
                    now = now + ms(pause);
                    under_way.extend(breaker.check(now));
                }
                Step::End(which, pause, outcome) => {
                    now = now + ms(pause);
                    if !under_way.is_empty() {
                        let ticket = under_way.swap_remove(which.index(under_way.len()));
                        breaker.record(ticket, now, outcome);
                    }
                }
            }
        }
        // Whoever is still under way is never heard of again.
        let patience = spec.probe_limit + spec.open_cap;
        for _ in 0..=2 * spec.probes + 2 {
            now = now + patience;
            // Each of these calls ends well at once.
            let _ = call(&breaker, now, Outcome::Success);
            let _ = call(&breaker, now, Outcome::Success);
        }
        prop_assert_eq!(breaker.snapshot(now).phase, Phase::Closed);
    }

    #[test]
    fn every_recorded_decision_is_decided_again_bit_for_bit(
        spec in spec(), steps in prop::collection::vec(step(), 1..200),
    ) {
        let scope = scope();
        let breaker = CircuitBreaker::new(spec.check().unwrap(), Arc::clone(&scope));
        let mut now = START;
        let mut under_way = Vec::new();
        for step in steps {
            match step {
                Step::Begin(pause) => {
                    now = now + ms(pause);
                    match breaker.check(now) {
                        Ok(ticket) => under_way.push(ticket),
                        Err(refused) => {
                            let found = scope.recorder().find(refused.decision).unwrap();
                            prop_assert_eq!(found.id, refused.decision);
                        }
                    }
                }
                Step::End(which, pause, outcome) => {
                    now = now + ms(pause);
                    if !under_way.is_empty() {
                        let ticket = under_way.swap_remove(which.index(under_way.len()));
                        breaker.record(ticket, now, outcome);
                    }
                }
            }
        }
        let decisions = scope.recorder().decisions();
        prop_assert!(!decisions.is_empty() || under_way.is_empty());
        for decision in decisions {
            prop_assert_eq!(replay(&decision), Replayed::Same, "{}", decision);
            // and it survives its way through a file
            prop_assert_eq!(decision.to_string().parse(), Ok(decision));
            let mut altered = decision;
            altered.verdict ^= 1;
            prop_assert_ne!(replay(&altered), Replayed::Same);
        }
    }

    /// A change of settings keeps what was learnt.
    #[test]
    fn other_settings_keep_what_was_learnt(
        before in spec(), after in spec(), told in prop::collection::vec(outcome(), 0..60), in_time: bool,
    ) {
        let breaker = breaker(before);
        for outcome in told {
            let _ = call(&breaker, START, outcome);
        }
        let old = breaker.snapshot(START);
        let after = if in_time { after.over(secs(10)) } else { after };
        let change = breaker.reconfigure(after.check().unwrap(), START);
        let new = breaker.snapshot(START);
        prop_assert_eq!((new.phase, new.opened), (old.phase, old.opened));
        match (before.window, after.window) {
            (Window::Count(size), Window::Count(other)) => {
                let expected = if size == other { Change::WindowKept } else { Change::WindowResampled };
                prop_assert_eq!(change, expected);
                prop_assert_eq!(new.counts.calls, old.counts.calls.min(u64::from(other)));
                if other >= size {
                    prop_assert_eq!(new.counts, old.counts);
                }
            }
            _ => {
                prop_assert_eq!(change, Change::WindowEmptied);
                prop_assert_eq!(new.counts, Counts::default());
            }
        }
    }
}

// ---- many threads --------------------------------------------------------------------------------------

#[test]
fn threads_side_by_side_get_one_probe_between_them() {
    for _ in 0..200 {
        let (breaker, now) = due(ten());
        let probes = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (breaker, probes) = (breaker.clone(), &probes);
                scope.spawn(move || {
                    probes.fetch_add(u32::from(breaker.check(now).is_ok()), Ordering::Relaxed)
                });
            }
        });
        assert_eq!(probes.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn settings_that_change_under_load_lose_no_state_and_wedge_nothing() {
    let breaker = breaker(ten());
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let breaker = breaker.clone();
            scope.spawn(move || {
                for i in 0..5_000 {
                    let now = START + ms(i);
                    let outcome = if (i + thread) % 3 == 0 { FAILED } else { Outcome::Success };
                    let _ = call(&breaker, now, outcome);
                }
            });
        }
        for i in 0..500_u32 {
            let size = 5 + i % 20;
            breaker.reconfigure(ten().over(size).minimum_calls(4).check().unwrap(), START);
        }
    });
    let later = START + secs(1_000);
    call(&breaker, later, Outcome::Success).unwrap();
    assert_eq!(breaker.snapshot(later).phase, Phase::Closed);
}
