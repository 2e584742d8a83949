//! The decision about one child: pure. What happened and `now` come in, what is to be done goes out.

use std::time::Duration;

use mainstay_envelope::Monotonic;
use mainstay_resilience::retry::{self, Decision, Unbudgeted};
use mainstay_resilience::{Outcome, Safety};

use super::spec::Checked;

/// Where a child stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not started: those before it in the order are not ready yet.
    Waiting,
    /// Its process runs, and has not said that it is ready.
    Starting {
        /// It is killed when it has said nothing by then.
        ready_by: Monotonic,
    },
    /// It said that it is ready, and was heard since then often enough.
    Ready,
    /// It was ready, runs, and says that it can't serve now, or was not heard for too long. It is left alone: what
    /// is wrong with its disk or its peers a restart would not mend, and who stopped it lets it go on.
    Unready,
    /// Its process ended; the next one starts then.
    Backoff {
        /// When.
        until: Monotonic,
    },
    /// It was asked to finish what it has begun and to end.
    Draining {
        /// It is killed when it still runs then.
        kill_at: Monotonic,
    },
    /// It ended, as it was asked to; or it was never started.
    Stopped,
    /// It failed too often without being ready once; it is not started again.
    GaveUp,
}

/// What happened to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Its turn in the order has come.
    Start,
    /// It says that it is ready, for the first time or again.
    Ready,
    /// It says that it can't serve.
    Unready,
    /// Its process ended, or could not be started.
    Exited {
        /// It said, by its exit code, that the next one would end the same way. Believed of a child that was never
        /// ready; what once worked may work again when somebody has mended what it met.
        for_good: bool,
    },
    /// It is to finish and end.
    Drain,
    /// It is to end at once.
    Kill,
    /// Time has passed.
    Tick,
}

/// What is to be done to a child's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Start one.
    Spawn,
    /// Ask it to finish and end (SIGTERM).
    Terminate,
    /// End it (SIGKILL).
    Kill,
}

/// One child: its phase, and what its history means for the next start.
#[derive(Debug)]
pub struct State {
    settings: Checked,
    phase: Phase,
    /// Waits between starts. A new one when a process ran long enough.
    retry: retry::State<Unbudgeted>,
    /// Processes in a row that ended without being ready once.
    failed_starts: u32,
    /// When the process that runs became ready.
    ready_since: Option<Monotonic>,
    was_ready: bool,
    /// When a ready child that says nothing until then is taken for one that can't serve.
    silent_at: Monotonic,
    /// Its process was sent SIGKILL; what is left is to hear of its end.
    killed: bool,
}

impl State {
    /// A child that was not started yet.
    pub fn new(settings: Checked, now: Monotonic) -> Self {
        let retry = retry::State::new(settings.restart(), now, None, Unbudgeted);
        Self {
            settings,
            phase: Phase::Waiting,
            retry,
            failed_starts: 0,
            ready_since: None,
            was_ready: false,
            silent_at: now,
            killed: false,
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether one of its processes has ever been ready.
    pub fn was_ready(&self) -> bool {
        self.was_ready
    }

    /// Whether nothing of it runs or will run.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Stopped | Phase::GaveUp)
    }

    /// When it is to be given a [`Input::Tick`], if nothing happens before.
    pub fn due(&self) -> Option<Monotonic> {
        match self.phase {
            Phase::Backoff { until } => Some(until),
            Phase::Ready => Some(self.silent_at),
            Phase::Starting { ready_by: at } | Phase::Draining { kill_at: at } if !self.killed => Some(at),
            _ => None,
        }
    }

    /// Decides what follows. `draw` is 64 uniform random bits. What can't happen in a phase changes nothing:
    /// a child's last words may arrive late.
    pub fn on(&mut self, now: Monotonic, input: Input, draw: u64) -> Option<Act> {
        match (self.phase, input) {
            (Phase::Waiting, Input::Start) => self.spawn(now),
            (Phase::Backoff { until }, Input::Tick) if now >= until => self.spawn(now),
            (Phase::Starting { .. } | Phase::Ready | Phase::Unready, Input::Ready) => {
                self.phase = Phase::Ready;
                self.silent_at = now + self.settings.spec().heard_within;
                self.was_ready = true;
                self.failed_starts = 0;
                self.ready_since.get_or_insert(now);
                None
            }
            (Phase::Ready, Input::Unready) => {
                self.phase = Phase::Unready;
                None
            }
            (Phase::Ready, Input::Tick) if now >= self.silent_at => {
                self.phase = Phase::Unready;
                None
            }
            (Phase::Starting { ready_by: at } | Phase::Draining { kill_at: at }, Input::Tick)
                if now >= at && !self.killed =>
            {
                self.kill()
            }
            (Phase::Starting { .. } | Phase::Ready | Phase::Unready, Input::Exited { for_good }) => {
                self.ended(now, for_good, draw);
                None
            }
            (Phase::Draining { .. }, Input::Exited { .. }) => {
                self.phase = Phase::Stopped;
                None
            }
            (Phase::Starting { .. } | Phase::Ready | Phase::Unready, Input::Drain) => {
                self.phase = Phase::Draining { kill_at: now + self.settings.spec().drain_within };
                (!self.killed).then_some(Act::Terminate)
            }
            (
                Phase::Starting { .. } | Phase::Ready | Phase::Unready | Phase::Draining { .. },
                Input::Kill,
            ) => {
                self.phase = Phase::Draining { kill_at: now };
                if self.killed { None } else { self.kill() }
            }
            (Phase::Waiting | Phase::Backoff { .. }, Input::Drain | Input::Kill) => {
                self.phase = Phase::Stopped;
                None
            }
            _ => None,
        }
    }

    fn spawn(&mut self, now: Monotonic) -> Option<Act> {
        self.phase = Phase::Starting { ready_by: now + self.settings.spec().ready_within };
        self.ready_since = None;
        self.killed = false;
        Some(Act::Spawn)
    }

    fn kill(&mut self) -> Option<Act> {
        self.killed = true;
        Some(Act::Kill)
    }

    fn ended(&mut self, now: Monotonic, for_good: bool, draw: u64) {
        let ran = self.ready_since.map_or(Duration::ZERO, |since| now.saturating_since(since));
        if self.ready_since.is_none() {
            self.failed_starts = self.failed_starts.saturating_add(1);
        }
        if ran >= self.settings.spec().stable_after {
            self.retry = retry::State::new(self.settings.restart(), now, None, Unbudgeted);
        }
        let gave_up = self.failed_starts >= self.settings.spec().give_up_after;
        let outcome = if for_good && !self.was_ready { Outcome::Permanent } else { Outcome::TRANSIENT };
        self.phase = match self.retry.after(now, outcome, Safety::Safe, draw) {
            Decision::RetryAfter(wait) if !gave_up => Phase::Backoff { until: now + wait },
            _ => Phase::GaveUp,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::Spec;
    use super::*;

    const fn at(millis: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(millis))
    }

    /// Without chance: 100, 200, 400 ms …, at most 2 s.
    fn spec() -> Spec {
        Spec {
            restart: retry::Spec::exact(Duration::from_millis(100), Duration::from_secs(2)),
            ready_within: Duration::from_secs(10),
            heard_within: Duration::from_secs(20),
            stable_after: Duration::from_secs(5),
            give_up_after: 3,
            drain_within: Duration::from_secs(4),
        }
    }

    fn child() -> State {
        State::new(spec().check().unwrap(), at(0))
    }

    const EXIT: Input = Input::Exited { for_good: false };

    /// Given these inputs, each with its millisecond: what was to be done, in order, and where it stands.
    fn given(inputs: &[(u64, Input)]) -> (State, Vec<(u64, Act)>) {
        let mut state = child();
        let mut acts = Vec::new();
        for (now, input) in inputs {
            acts.extend(state.on(at(*now), *input, 0).map(|act| (*now, act)));
        }
        (state, acts)
    }

    #[test]
    fn it_starts_when_its_turn_comes_and_is_ready_when_it_says_so() {
        let (state, acts) = given(&[(0, Input::Tick), (5, Input::Start)]);
        assert_eq!(acts, [(5, Act::Spawn)]);
        assert_eq!(state.phase(), Phase::Starting { ready_by: at(10_005) });
        assert!(!state.was_ready());
        let (state, _) = given(&[(5, Input::Start), (9, Input::Ready)]);
        assert_eq!((state.phase(), state.due(), state.was_ready()), (Phase::Ready, Some(at(20_009)), true));
    }

    #[test]
    fn a_ready_child_that_is_not_heard_is_red_until_it_is_heard_again_and_nothing_is_done_to_it() {
        let heard = [(0, Input::Start), (10, Input::Ready), (15_000, Input::Ready)];
        // Given that it was heard at 15 s, when 20 s have not passed since, then it is green.
        let (state, _) = given(&[&heard[..], &[(20_010, Input::Tick), (34_999, Input::Tick)]].concat());
        assert_eq!((state.phase(), state.due()), (Phase::Ready, Some(at(35_000))));
        // When they have, it is red, and nothing more is due: it is not killed.
        let silent = [&heard[..], &[(35_000, Input::Tick), (999_999, Input::Tick)]].concat();
        let (state, acts) = given(&silent);
        assert_eq!((state.phase(), state.due(), &acts[..]), (Phase::Unready, None, &[(0, Act::Spawn)][..]));
        // When it is heard again, it is green, from then on for as long as before.
        let (state, acts) = given(&[&silent[..], &[(1_000_000, Input::Ready)]].concat());
        assert_eq!((state.phase(), state.due(), acts.len()), (Phase::Ready, Some(at(1_020_000)), 1));
        // What it was before counts on: it has been ready since 10 ms, and ends as one that ran long enough.
        let (state, _) = given(&[&silent[..], &[(1_000_000, EXIT)]].concat());
        assert_eq!(state.phase(), Phase::Backoff { until: at(1_000_100) });
    }

    #[test]
    fn a_child_that_ends_is_started_again_after_a_growing_wait() {
        let (state, acts) = given(&[
            (0, Input::Start),
            (10, Input::Ready),
            (20, EXIT),
            (119, Input::Tick),
            (120, Input::Tick),
            (130, Input::Ready),
            (140, EXIT),
        ]);
        assert_eq!(acts, [(0, Act::Spawn), (120, Act::Spawn)]);
        assert_eq!(state.phase(), Phase::Backoff { until: at(340) });
        assert_eq!(state.due(), Some(at(340)));
    }

    #[test]
    fn a_child_that_was_ready_long_enough_starts_with_the_first_wait_again() {
        let early =
            [(0, Input::Start), (10, Input::Ready), (20, EXIT), (120, Input::Tick), (130, Input::Ready)];
        let (state, _) = given(&[&early[..], &[(5_129, EXIT)]].concat());
        assert_eq!(state.phase(), Phase::Backoff { until: at(5_329) });
        let (state, _) = given(&[&early[..], &[(5_130, EXIT)]].concat());
        assert_eq!(state.phase(), Phase::Backoff { until: at(5_230) });
    }

    #[test]
    fn what_never_gets_ready_is_given_up_and_what_was_ready_once_never() {
        let (state, acts) = given(&[
            (0, Input::Start),
            (1, EXIT),
            (1_000, Input::Tick),
            (1_001, EXIT),
            (2_000, Input::Tick),
            (2_001, EXIT),
            (90_000, Input::Tick),
        ]);
        assert_eq!((state.phase(), acts.len()), (Phase::GaveUp, 3));
        let mut state = child();
        state.on(at(0), Input::Start, 0);
        for n in 1..100 {
            state.on(at(n * 10_000), Input::Ready, 0);
            state.on(at(n * 10_000 + 1), EXIT, 0);
            assert_eq!(state.on(at(n * 10_000 + 9_000), Input::Tick, 0), Some(Act::Spawn), "{n}");
        }
    }

    #[test]
    fn an_exit_for_good_is_not_tried_again_unless_it_has_worked_before() {
        let (state, _) = given(&[(0, Input::Start), (1, Input::Exited { for_good: true })]);
        assert_eq!((state.phase(), state.due()), (Phase::GaveUp, None));
        let (state, _) =
            given(&[(0, Input::Start), (1, Input::Ready), (2, Input::Exited { for_good: true })]);
        assert_eq!(state.phase(), Phase::Backoff { until: at(102) }, "it has worked before");
    }

    #[test]
    fn a_start_that_hangs_is_killed_once_and_tried_again() {
        let (mut state, acts) = given(&[(0, Input::Start), (9_999, Input::Tick), (10_000, Input::Tick)]);
        assert_eq!(acts, [(0, Act::Spawn), (10_000, Act::Kill)]);
        assert_eq!((state.due(), state.on(at(10_001), Input::Tick, 0)), (None, None));
        state.on(at(10_002), EXIT, 0);
        assert_eq!(state.phase(), Phase::Backoff { until: at(10_102) });
    }

    #[test]
    fn draining_ends_by_itself_or_by_force() {
        let ready = [(0, Input::Start), (1, Input::Ready), (10, Input::Drain)];
        let (state, acts) = given(&[&ready[..], &[(11, EXIT)]].concat());
        assert_eq!((acts[1], state.phase()), ((10, Act::Terminate), Phase::Stopped));
        let (mut state, acts) = given(&[&ready[..], &[(4_009, Input::Tick), (4_010, Input::Tick)]].concat());
        assert_eq!(acts[1..], [(10, Act::Terminate), (4_010, Act::Kill)]);
        assert_eq!((state.due(), state.is_over()), (None, false));
        state.on(at(4_011), EXIT, 0);
        assert!(state.is_over());
    }

    #[test]
    fn what_does_not_run_drains_at_once_and_stays_down() {
        for before in [&[][..], &[(0, Input::Start), (1, EXIT)][..]] {
            for input in [Input::Drain, Input::Kill] {
                let (state, acts) =
                    given(&[before, &[(2, input), (9_000, Input::Tick), (9_001, Input::Start)]].concat());
                assert_eq!((state.phase(), acts.len()), (Phase::Stopped, before.len() / 2), "{input:?}");
            }
        }
    }

    #[test]
    fn a_kill_does_not_wait_for_the_drain() {
        let (state, acts) =
            given(&[(0, Input::Start), (1, Input::Drain), (2, Input::Kill), (3, Input::Kill)]);
        assert_eq!(acts, [(0, Act::Spawn), (1, Act::Terminate), (2, Act::Kill)]);
        assert_eq!(state.due(), None);
    }

    #[test]
    fn a_child_that_is_red_is_left_alone_until_it_is_green_or_gone() {
        let red = [(0, Input::Start), (1, Input::Ready), (2, Input::Unready), (99_999, Input::Tick)];
        let (state, acts) = given(&red);
        assert_eq!((state.phase(), acts.len()), (Phase::Unready, 1));
        let (state, _) = given(&[&red[..], &[(100_000, Input::Ready)]].concat());
        assert_eq!(state.phase(), Phase::Ready);
        let (state, _) = given(&[&red[..], &[(100_000, EXIT)]].concat());
        assert_eq!(state.phase(), Phase::Backoff { until: at(100_100) });
    }

    #[test]
    fn late_words_of_an_ended_process_change_nothing() {
        let (state, _) = given(&[(0, Input::Start), (1, EXIT), (2, Input::Ready)]);
        assert_eq!((state.phase(), state.was_ready()), (Phase::Backoff { until: at(101) }, false));
        let (state, _) =
            given(&[(0, Input::Start), (1, Input::Drain), (2, Input::Ready), (3, EXIT), (4, EXIT)]);
        assert_eq!(state.phase(), Phase::Stopped);
    }
}
