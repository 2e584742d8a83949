//! The decision of a watchdog: what was seen at each look comes in, what is to be told goes out. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_envelope::Monotonic;

use super::spec::{Checked, Spec};

/// Between two looks no more than so many times `look_every` counts as evidence. When more time has passed, the
/// watching thread itself did not run: the process was stopped, or the machine busy, and no task is to blame.
const GAP: u32 = 2;

/// A poll that is under way, as a look found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poll {
    /// The slot of its thread.
    pub slot: u64,
    /// Which poll of that thread: another number is another poll.
    pub number: u64,
    /// Whose.
    pub task: u64,
}

/// A runtime's heartbeat, as a look found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Which.
    pub heart: u64,
    /// Whether it has answered the last question; true if there was none.
    pub answered: bool,
}

/// What follows from a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A poll has been running for so long, and is.
    Blocks {
        /// The poll.
        poll: Poll,
        /// Since it was first seen.
        lasts: Duration,
    },
    /// A poll of which that was said is over.
    Ended {
        /// The poll.
        poll: Poll,
        /// From the look that first saw it to the one that no longer did.
        lasted: Duration,
    },
    /// Ask this heart.
    Ask(u64),
    /// A heart has not answered for so long.
    Silent {
        /// Which.
        heart: u64,
        /// Since it was asked.
        lasts: Duration,
    },
    /// A heart of which that was said has answered.
    Beats {
        /// Which.
        heart: u64,
        /// From the question to the look that found the answer.
        lasted: Duration,
    },
}

/// How long until the next look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// So long, whatever happens.
    For(Duration),
    /// So long, or until a poll begins.
    UntilPollOr(Duration),
    /// Until a poll begins.
    UntilPoll,
}

/// Something that is to be over soon.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    since: Monotonic,
    /// Time under our eyes; never more than has passed.
    evidence: Duration,
    is_told: bool,
}

impl Suspect {
    fn new(now: Monotonic) -> Self {
        Self { since: now, evidence: Duration::ZERO, is_told: false }
    }

    /// For how long it has been so, if that is to be told now.
    fn look(&mut self, now: Monotonic, step: Duration, limit: Duration) -> Option<Duration> {
        self.evidence = self.evidence.saturating_add(step);
        if self.is_told || self.evidence < limit {
            return None;
        }
        self.is_told = true;
        Some(now.saturating_since(self.since))
    }
}

/// What earlier looks saw. Bounded by the threads and runtimes there are.
#[derive(Debug)]
pub struct State {
    settings: Spec,
    looked: Option<Monotonic>,
    /// By slot.
    polls: BTreeMap<u64, (Poll, Suspect)>,
    /// By heart: the question that is open, or when the last one was answered.
    hearts: BTreeMap<u64, Result<Monotonic, Suspect>>,
    /// Looks in a row that found nothing to look at again soon.
    idle_looks: u32,
}

impl State {
    /// Nothing was seen yet.
    pub fn new(settings: Checked) -> Self {
        let (polls, hearts) = (BTreeMap::new(), BTreeMap::new());
        Self { settings: *settings.spec(), looked: None, polls, hearts, idle_looks: 0 }
    }

    /// Judges what a look found: all polls under way, and all hearts there are.
    pub fn look(&mut self, now: Monotonic, polls: &[Poll], beats: &[Beat]) -> Vec<Verdict> {
        let Spec { limit, look_every, beat_every } = self.settings;
        let passed = self.looked.map_or(Duration::ZERO, |looked| now.saturating_since(looked));
        let step = passed.min(look_every.saturating_mul(GAP));
        self.looked = Some(now);
        let mut verdicts = Vec::new();

        let mut before = std::mem::take(&mut self.polls);
        for &poll in polls {
            let known = before.remove(&poll.slot);
            let (is_same, mut suspect) = match known {
                Some((old, suspect)) if old.number == poll.number => (true, suspect),
                other => {
                    verdicts.extend(other.and_then(|(old, suspect)| ended(now, old, suspect)));
                    (false, Suspect::new(now))
                }
            };
            if is_same && let Some(lasts) = suspect.look(now, step, limit) {
                verdicts.push(Verdict::Blocks { poll, lasts });
            }
            self.polls.insert(poll.slot, (poll, suspect));
        }
        verdicts.extend(before.into_values().filter_map(|(old, suspect)| ended(now, old, suspect)));

        let mut before = std::mem::take(&mut self.hearts);
        for &Beat { heart, answered } in beats {
            let mut known = before.remove(&heart);
            if let Some(Err(suspect)) = &mut known {
                if answered {
                    if suspect.is_told {
                        let lasted = now.saturating_since(suspect.since);
                        verdicts.push(Verdict::Beats { heart, lasted });
                    }
                    known = Some(Ok(now));
                } else if let Some(lasts) = suspect.look(now, step, limit) {
                    verdicts.push(Verdict::Silent { heart, lasts });
                }
            }
            let known = match known {
                Some(Ok(answered)) if now.saturating_since(answered) < beat_every => Ok(answered),
                Some(Err(suspect)) => Err(suspect),
                _ => {
                    verdicts.push(Verdict::Ask(heart));
                    Err(Suspect::new(now))
                }
            };
            self.hearts.insert(heart, known);
        }
        let is_idle = self.polls.is_empty() && self.hearts.values().all(Result::is_ok);
        self.idle_looks = if is_idle { self.idle_looks + 1 } else { 0 };
        verdicts
    }

    /// How long to wait with the next look. Before each sleep that a poll may end there is a whole pause that none can,
    /// so that ever so many short polls cost no more than two looks in each `look_every`.
    pub fn pause(&mut self) -> Pause {
        let Spec { look_every, beat_every, .. } = self.settings;
        if self.idle_looks < 2 {
            return Pause::For(look_every);
        }
        self.idle_looks = 0;
        if self.hearts.is_empty() { Pause::UntilPoll } else { Pause::UntilPollOr(beat_every) }
    }
}

fn ended(now: Monotonic, poll: Poll, suspect: Suspect) -> Option<Verdict> {
    suspect.is_told.then(|| Verdict::Ended { poll, lasted: now.saturating_since(suspect.since) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(since: u64) -> Monotonic {
        Monotonic::from_origin(millis(since))
    }

    /// Looks every 20 ms; what blocks for 50 ms is told.
    fn state() -> State {
        State::new(Spec::default().check().unwrap())
    }

    fn poll(slot: u64, number: u64) -> Poll {
        Poll { slot, number, task: 7 }
    }

    #[test]
    fn what_blocks_is_told_while_it_does_and_once_more_when_it_ends() {
        let mut state = state();
        let long = poll(1, 3);
        for now in [0, 20, 40] {
            assert_eq!(state.look(at(now), &[long], &[]), []);
        }
        assert_eq!(state.look(at(60), &[long], &[]), [Verdict::Blocks { poll: long, lasts: millis(60) }]);
        assert_eq!(state.look(at(80), &[long], &[]), [], "once");
        let over = Verdict::Ended { poll: long, lasted: millis(100) };
        assert_eq!(state.look(at(100), &[], &[]), [over]);
        assert_eq!(state.look(at(120), &[], &[]), []);
    }

    #[test]
    fn a_thread_that_is_always_busy_with_short_polls_blocks_nobody() {
        let mut state = state();
        for n in 0..100 {
            assert_eq!(state.look(at(n * 20), &[poll(1, 2 * n + 1)], &[]), []);
        }
        // The next one on the same thread blocks, and the one after it tells that it is over.
        for n in 100..103 {
            assert_eq!(state.look(at(n * 20), &[poll(1, 999)], &[]), []);
        }
        assert!(matches!(state.look(at(2_060), &[poll(1, 999)], &[])[..], [Verdict::Blocks { .. }]));
        let verdicts = state.look(at(2_080), &[poll(1, 1_001)], &[]);
        assert_eq!(verdicts, [Verdict::Ended { poll: poll(1, 999), lasted: millis(80) }]);
    }

    #[test]
    fn each_thread_is_judged_by_itself() {
        let mut state = state();
        let mut told = Vec::new();
        for now in 0..10 {
            let polls = [poll(1, 1), poll(2, 2 * now + 1), poll(3, 5)];
            told.extend(state.look(at(now * 20), &polls, &[]));
        }
        let slots: Vec<u64> = told
            .iter()
            .map(|verdict| match verdict {
                Verdict::Blocks { poll, .. } => poll.slot,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(slots, [1, 3]);
    }

    #[test]
    fn a_process_that_was_stopped_blames_nobody() {
        let mut state = state();
        let short = poll(1, 1);
        assert_eq!(state.look(at(0), &[short], &[]), []);
        assert_eq!(state.look(at(60_000), &[short], &[]), [], "the watching thread did not run either");
        assert_eq!(state.look(at(60_020), &[], &[]), []);
    }

    #[test]
    fn a_heart_is_asked_and_a_silent_one_told_until_it_beats_again() {
        let mut state = state();
        let beat = |answered| [Beat { heart: 4, answered }];
        assert_eq!(state.look(at(0), &[], &beat(true)), [Verdict::Ask(4)]);
        assert_eq!(state.pause(), Pause::For(millis(20)));
        assert_eq!(state.look(at(20), &[], &beat(true)), [], "it has answered");
        assert_eq!(state.look(at(269), &[], &beat(true)), [], "not yet");
        assert_eq!(state.pause(), Pause::UntilPollOr(millis(250)));
        assert_eq!(state.look(at(270), &[], &beat(true)), [Verdict::Ask(4)]);
        assert_eq!(state.look(at(290), &[], &beat(false)), []);
        assert_eq!(state.look(at(310), &[], &beat(false)), []);
        let silent = Verdict::Silent { heart: 4, lasts: millis(60) };
        assert_eq!(state.look(at(330), &[], &beat(false)), [silent]);
        assert_eq!(state.look(at(350), &[], &beat(false)), [], "once");
        let beats = Verdict::Beats { heart: 4, lasted: millis(100) };
        assert_eq!(state.look(at(370), &[], &beat(true)), [beats]);
        // A runtime that is gone is nobody's silence.
        assert_eq!(state.look(at(640), &[], &beat(true)), [Verdict::Ask(4)]);
        assert_eq!(state.look(at(900), &[], &[]), []);
    }

    #[test]
    fn it_sleeps_only_when_nothing_is_under_way_and_not_at_once() {
        let mut state = state();
        state.look(at(0), &[poll(1, 1)], &[]);
        assert_eq!(state.pause(), Pause::For(millis(20)));
        // Short polls wake it again and again, and each time it comes too late to see one.
        for n in 1..100 {
            state.look(at(n * 20), &[], &[]);
            assert_eq!(state.pause(), Pause::For(millis(20)), "a whole pause first");
            state.look(at(n * 20 + 10), &[], &[]);
            assert_eq!(state.pause(), Pause::UntilPoll);
        }
    }
}
