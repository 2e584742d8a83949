//! The decision of a CPU pool: who is let in, whose turn it is, who is never begun. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use mainstay_envelope::{Deadline, Monotonic};

use super::kinds::{JobStats, Kind, Kinds};
use super::spec::{Checked, Spec};

/// Names one piece of work of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Why work was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The pool is shut down.
    Closed,
    /// Its deadline has been reached already.
    DeadlineReached,
    /// All threads are at work and as much waits as may.
    QueueFull {
        /// As configured.
        capacity: u32,
    },
    /// It would not be done by its deadline.
    TooLate {
        /// What is left until the deadline.
        remaining: Duration,
        /// What it would have to wait for a thread, as far as can be foreseen.
        wait: Duration,
        /// What it would take then, as far as can be foreseen.
        run: Duration,
    },
}

/// What a free thread is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Run it.
    Begin(Ticket),
    /// Don't: its deadline has been reached. Tell who asked for it.
    Expired(Ticket),
}

/// How work that was begun came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It returned, and somebody waits for what it returned.
    Done,
    /// It had been told to stop before it returned.
    Stopped,
    /// It panicked.
    Panicked,
}

/// A piece of work that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningJob {
    /// Its name.
    pub name: &'static str,
    /// For how long it has been running.
    pub ran_for: Duration,
}

/// A pool in figures. The counts begin with the pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Threads.
    pub threads: u32,
    /// What runs.
    pub running: Vec<RunningJob>,
    /// How much waits.
    pub waiting: u32,
    /// Done, and somebody waited for it.
    pub done: u64,
    /// Begun, and told to stop before its end.
    pub stopped: u64,
    /// Ended in a panic.
    pub panicked: u64,
    /// Refused: as much waited as may.
    pub refused_full: u64,
    /// Refused: its deadline was reached, or could not be met.
    pub refused_late: u64,
    /// Admitted, and never begun: its deadline was reached while it waited.
    pub expired: u64,
    /// Admitted, and never begun: who had asked for it left.
    pub given_up: u64,
    /// What is known for each name, in the order of their coming.
    pub jobs: Vec<JobStats>,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    kind: Kind,
    deadline: Option<Deadline>,
}

#[derive(Debug)]
struct Running {
    ticket: Ticket,
    kind: Kind,
    began: Monotonic,
}

/// What waits and what runs. Work is known by its ticket; the work itself is the pool's.
#[derive(Debug)]
pub struct State {
    settings: Spec,
    next: u64,
    waiting: VecDeque<Waiting>,
    /// At most as many as there are threads.
    running: Vec<Running>,
    kinds: Kinds,
    /// The counts; the rest of it is filled in when asked for.
    counts: Stats,
    is_closed: bool,
}

impl State {
    /// Nothing waits, nothing runs.
    pub fn new(settings: Checked) -> Self {
        Self {
            settings: *settings.spec(),
            next: 0,
            waiting: VecDeque::new(),
            running: Vec::new(),
            kinds: Kinds::default(),
            counts: Stats::default(),
            is_closed: false,
        }
    }

    /// Lets work in, to wait for its turn, or refuses it.
    ///
    /// # Errors
    /// [`Refused`], and nothing is kept of it.
    pub fn admit(
        &mut self,
        now: Monotonic,
        name: &'static str,
        deadline: Option<Deadline>,
    ) -> Result<Ticket, Refused> {
        let kind = self.kinds.named(name);
        match self.judge(now, kind, deadline) {
            Ok(()) => {}
            Err(refused) => {
                match refused {
                    Refused::Closed => {}
                    Refused::QueueFull { .. } => self.counts.refused_full += 1,
                    Refused::DeadlineReached | Refused::TooLate { .. } => self.counts.refused_late += 1,
                }
                return Err(refused);
            }
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.kinds.waits(kind);
        self.waiting.push_back(Waiting { ticket, kind, deadline });
        Ok(ticket)
    }

    fn judge(&mut self, now: Monotonic, kind: Kind, deadline: Option<Deadline>) -> Result<(), Refused> {
        if self.is_closed {
            return Err(Refused::Closed);
        }
        let remaining = deadline.map(|deadline| deadline.remaining(now));
        if remaining.is_some_and(|remaining| remaining.is_zero()) {
            return Err(Refused::DeadlineReached);
        }
        let Spec { threads, queue } = self.settings;
        if self.taken() >= u64::from(threads) + u64::from(queue) {
            return Err(Refused::QueueFull { capacity: queue });
        }
        let Some(remaining) = remaining else { return Ok(()) };
        let (wait, run) = (self.wait(now), self.kinds.get(kind).expected);
        if wait.saturating_add(run) <= remaining {
            return Ok(());
        }
        if run > remaining {
            self.kinds.refused_for_its_length(kind);
        }
        Err(Refused::TooLate { remaining, wait, run })
    }

    fn taken(&self) -> u64 {
        (self.running.len() + self.waiting.len()) as u64
    }

    /// What work that is admitted now has to wait, if all before it takes what is expected: what each thread has
    /// before it, on the average. One of them is free no later than that.
    fn wait(&self, now: Monotonic) -> Duration {
        let threads = self.settings.threads;
        if self.taken() < u64::from(threads) {
            return Duration::ZERO;
        }
        let ahead = self.running.iter().fold(self.kinds.expected_waiting(), |sum, job| {
            let ran_for = now.saturating_since(job.began);
            sum.saturating_add(self.kinds.get(job.kind).expected.saturating_sub(ran_for))
        });
        ahead / threads
    }

    /// What a thread that is free does next. None: nothing waits.
    pub fn next(&mut self, now: Monotonic) -> Option<Turn> {
        let Waiting { ticket, kind, deadline } = self.waiting.pop_front()?;
        self.kinds.waits_no_more(kind);
        if deadline.is_some_and(|deadline| deadline.remaining(now).is_zero()) {
            self.counts.expired += 1;
            return Some(Turn::Expired(ticket));
        }
        self.running.push(Running { ticket, kind, began: now });
        Some(Turn::Begin(ticket))
    }

    /// Nobody waits for it any more. True: it had not been begun and never will. False: it has been, or is over.
    pub fn give_up(&mut self, ticket: Ticket, deadline_reached: bool) -> bool {
        // In the order of their tickets, because they come in at the back only.
        let Ok(place) = self.waiting.binary_search_by_key(&ticket, |waiting| waiting.ticket) else {
            return false;
        };
        if let Some(waiting) = self.waiting.remove(place) {
            self.kinds.waits_no_more(waiting.kind);
        }
        match deadline_reached {
            true => self.counts.expired += 1,
            false => self.counts.given_up += 1,
        }
        true
    }

    /// Work that was begun is over.
    pub fn ended(&mut self, now: Monotonic, ticket: Ticket, end: End) {
        let Some(place) = self.running.iter().position(|job| job.ticket == ticket) else { return };
        let job = self.running.swap_remove(place);
        self.kinds.ran(job.kind, now.saturating_since(job.began), end == End::Done);
        match end {
            End::Done => self.counts.done += 1,
            End::Stopped => self.counts.stopped += 1,
            End::Panicked => self.counts.panicked += 1,
        }
    }

    /// Nothing is admitted or begun any more; what waits is forgotten.
    pub fn close(&mut self) {
        self.is_closed = true;
        for waiting in std::mem::take(&mut self.waiting) {
            self.kinds.waits_no_more(waiting.kind);
        }
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The pool in figures.
    pub fn stats(&self, now: Monotonic) -> Stats {
        let running = self.running.iter().map(|job| RunningJob {
            name: self.kinds.get(job.kind).name,
            ran_for: now.saturating_since(job.began),
        });
        Stats {
            threads: self.settings.threads,
            running: running.collect(),
            waiting: u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
            jobs: self.kinds.all().to_vec(),
            ..self.counts.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(millis))
    }

    fn until(millis: u64) -> Option<Deadline> {
        Some(Deadline::at(at(millis)))
    }

    fn pool(threads: u32, queue: u32) -> State {
        State::new(Spec::threads(threads).queue(queue).check().unwrap())
    }

    /// A pool of that size that has seen "hash" take 100 ms, and is idle at 1,000.
    fn experienced(threads: u32, queue: u32) -> State {
        let mut state = pool(threads, queue);
        let ticket = state.admit(at(0), "hash", None).unwrap();
        assert_eq!(state.next(at(900)), Some(Turn::Begin(ticket)));
        state.ended(at(1_000), ticket, End::Done);
        state
    }

    #[test]
    fn no_more_than_threads_and_queue_hold_is_let_in_and_it_is_begun_in_its_order() {
        let mut state = pool(2, 1);
        let tickets: Vec<Ticket> = (0..3).map(|_| state.admit(at(0), "hash", None).unwrap()).collect();
        assert_eq!(state.admit(at(0), "hash", None), Err(Refused::QueueFull { capacity: 1 }));
        assert_eq!(state.next(at(1)), Some(Turn::Begin(tickets[0])));
        assert_eq!(state.next(at(1)), Some(Turn::Begin(tickets[1])));
        assert_eq!(state.admit(at(2), "hash", None), Err(Refused::QueueFull { capacity: 1 }));
        state.ended(at(3), tickets[1], End::Panicked);
        assert!(state.admit(at(3), "hash", None).is_ok(), "its place is free");
        assert_eq!(state.next(at(4)), Some(Turn::Begin(tickets[2])));
        let stats = state.stats(at(5));
        assert_eq!((stats.running.len(), stats.waiting, stats.panicked, stats.refused_full), (2, 1, 1, 2));
    }

    #[test]
    fn what_was_given_up_or_expired_is_never_begun_and_frees_its_place() {
        let mut state = pool(1, 2);
        let left = state.admit(at(0), "hash", None).unwrap();
        let late = state.admit(at(0), "hash", until(10)).unwrap();
        let last = state.admit(at(0), "hash", until(11)).unwrap();
        assert!(state.admit(at(0), "hash", None).is_err());
        assert!(state.give_up(left, false));
        assert!(!state.give_up(left, false), "only once");
        assert!(state.admit(at(0), "hash", None).is_ok());
        assert_eq!(state.next(at(10)), Some(Turn::Expired(late)));
        assert_eq!(state.next(at(10)), Some(Turn::Begin(last)));
        assert!(!state.give_up(last, true), "it has been begun");
        let stats = state.stats(at(10));
        assert_eq!((stats.expired, stats.given_up, stats.waiting), (1, 1, 1));
    }

    #[test]
    fn a_deadline_that_cannot_be_met_is_refused_at_once() {
        let mut state = experienced(2, 8);
        // Idle: only how long it takes counts.
        assert!(state.admit(at(1_000), "hash", until(1_100)).is_ok());
        assert!(state.admit(at(1_000), "hash", None).is_ok());
        state.next(at(1_000));
        state.next(at(1_000));
        // Both threads are busy for 60 ms more; then it takes 100 itself.
        let refused = state.admit(at(1_040), "hash", until(1_199)).unwrap_err();
        let millis = Duration::from_millis;
        assert_eq!(refused, Refused::TooLate { remaining: millis(159), wait: millis(60), run: millis(100) });
        assert!(state.admit(at(1_040), "hash", until(1_200)).is_ok());
        // One waits now: half of its 100 ms more for each thread.
        assert!(state.admit(at(1_040), "hash", until(1_249)).is_err());
        assert!(state.admit(at(1_040), "hash", until(1_250)).is_ok());
        // What has no deadline is not judged by it, and what was never seen is only judged by the wait.
        assert!(state.admit(at(1_040), "hash", None).is_ok());
        assert!(state.admit(at(1_040), "never seen", until(1_251)).is_ok());
        assert_eq!(state.admit(at(1_040), "hash", until(1_040)), Err(Refused::DeadlineReached));
        assert_eq!(state.stats(at(1_040)).refused_late, 3);
    }

    #[test]
    fn what_was_slow_once_is_not_refused_for_ever() {
        let mut state = experienced(1, 1);
        let admitted = |state: &mut State| state.admit(at(2_000), "hash", until(2_010)).is_ok();
        // 100 ms are expected and 10 are left: an eighth less with each refusal, until it is tried again.
        let refusals = (0..1_000).take_while(|_| !admitted(&mut state)).count();
        assert_eq!(refusals, 18);
    }

    #[test]
    fn a_long_wait_does_not_make_work_look_short() {
        let mut state = experienced(1, 8);
        for _ in 0..3 {
            state.admit(at(1_000), "hash", None).unwrap();
        }
        for _ in 0..100 {
            assert!(state.admit(at(1_000), "hash", until(1_200)).is_err());
        }
        assert_eq!(state.stats(at(1_000)).jobs[0].expected, Duration::from_millis(100));
    }

    #[test]
    fn a_closed_pool_begins_nothing() {
        let mut state = pool(1, 8);
        state.admit(at(0), "hash", None).unwrap();
        state.close();
        assert_eq!(state.next(at(0)), None);
        assert_eq!(state.admit(at(0), "hash", None), Err(Refused::Closed));
    }
}
