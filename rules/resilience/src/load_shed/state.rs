//! The decision: pure. `now` comes in; who may go, who waits and who is given up goes out.
//!
//! ```text
//!   enter ──► a permit is free and nobody waits ──────────────────────────► Admitted(permit)
//!     │                                                                        ▲      │ complete
//!     └► otherwise ──► queue, highest priority first ── next, when one is free ┘      ▼
//!          │full: the lowest is given up  │waited too long: given up          a sample for the limit
//! ```

mod gradient;
mod queue;

pub use gradient::{Gradient, Sample};
pub use queue::{GivenUp, Ticket};

use mainstay_envelope::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use mainstay_envelope::sync::{Mutex, MutexGuard, PoisonError};
use mainstay_envelope::{Deadline, Monotonic, Priority};

use super::spec::{Checked, Limit};
use crate::record::INPUTS;
use queue::Queue;

/// The right to be under way, until it is given to [`State::complete`]. Dropping it instead takes it out of the world.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that isn't completed is never free again"]
pub struct Permit {
    began: Monotonic,
}

impl Permit {
    /// When it was given.
    pub fn began(&self) -> Monotonic {
        self.began
    }
}

/// What a call that comes is told.
#[derive(Debug)]
pub enum Entered<W> {
    /// Begin.
    Admitted(Permit),
    /// Wait to be named by [`State::next`].
    Waiting {
        /// Its place.
        ticket: Ticket,
        /// Whom it took the place of, who is given up for it.
        evicted: Option<W>,
    },
    /// Not begun, and not waiting.
    Refused(Refused, Room),
}

/// Why a call was refused when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// As many are under way as may, and nobody may wait.
    LimitReached {
        /// The limit at that moment.
        limit: u32,
    },
    /// As many wait as may, none of them with a lower priority.
    QueueFull,
    /// Its deadline was reached: nobody waits for the answer.
    DeadlineReached,
}

/// What the decision on a call that comes reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Room {
    /// How many may be under way.
    pub limit: u32,
    /// How many are.
    pub in_flight: u32,
    /// How many wait.
    pub waiting: u32,
    /// How many may; 0 for a call that can't.
    pub capacity: u32,
    /// The lowest priority among those that wait; none if nobody waits or it wasn't looked at.
    pub lowest: Option<Priority>,
}

/// The decision on a call that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Begin,
    Wait,
    /// Wait, in the place of the lowest.
    OfLowest,
    Refused(Refused),
}

impl Room {
    fn decide(self, priority: Priority) -> Place {
        // Nobody overtakes those that wait.
        if self.waiting == 0 && self.in_flight < self.limit {
            Place::Begin
        } else if self.waiting < self.capacity {
            Place::Wait
        } else if self.lowest.is_some_and(|lowest| lowest < priority) {
            Place::OfLowest
        } else if self.capacity == 0 {
            Place::Refused(Refused::LimitReached { limit: self.limit })
        } else {
            Place::Refused(Refused::QueueFull)
        }
    }
}

/// The questions of which records are kept. The verdict is 0 for "no", 1 for "yes"; question 0 says which no.
pub(super) mod question {
    /// May it begin, or wait? Inputs: limit, under way, waiting, capacity, the lowest priority that waits plus 1 (0:
    /// none), its own priority, 1 if its deadline was reached. Verdict: as [`super::Place`], 0 to 4; 5: too late.
    pub(in crate::load_shed) const ENTER: u8 = 0;
    /// Has it waited too long? Inputs: since when, its deadline (both nanoseconds; without: the largest number), how
    /// long it may.
    pub(in crate::load_shed) const GIVE_UP: u8 = 1;
    /// Does it lose its place? Inputs: its priority, that of the one that came.
    pub(in crate::load_shed) const EVICT: u8 = 2;
}

/// Decides a recorded decision again. None if they are not the inputs of one of these questions.
pub fn replay(question: u8, at: u64, inputs: [u64; INPUTS]) -> Option<u64> {
    match question {
        question::ENTER => {
            let small = |at: usize| u32::try_from(inputs[at]).ok();
            let priority = |number: u64| Priority::ALL.get(usize::try_from(number).ok()?).copied();
            let lowest = match inputs[4].checked_sub(1) {
                Some(number) => Some(priority(number)?),
                None => None,
            };
            let room = Room {
                limit: small(0)?,
                in_flight: small(1)?,
                waiting: small(2)?,
                capacity: small(3)?,
                lowest,
            };
            Some(if inputs[6] != 0 { 5 } else { room.decide(priority(inputs[5])?).number() })
        }
        question::GIVE_UP => {
            Some((queue::is_over(at, inputs[0], inputs[1], inputs[2]) != queue::Over::No).into())
        }
        question::EVICT => Some((inputs[0] < inputs[1]).into()),
        _ => None,
    }
}

impl Place {
    fn number(self) -> u64 {
        match self {
            Place::Begin => 0,
            Place::Wait => 1,
            Place::OfLowest => 2,
            Place::Refused(refused) => refused.number(),
        }
    }
}

impl Refused {
    /// As a record has it.
    pub(super) fn number(self) -> u64 {
        match self {
            Refused::LimitReached { .. } => 3,
            Refused::QueueFull => 4,
            Refused::DeadlineReached => 5,
        }
    }
}

impl Room {
    /// As a record has it.
    pub fn inputs(self, priority: Priority, refused: Refused) -> [u64; INPUTS] {
        let Room { limit, in_flight, waiting, capacity, lowest } = self;
        let lowest = lowest.map_or(0, |lowest| lowest as u32 + 1);
        let late = u32::from(refused == Refused::DeadlineReached);
        [limit, in_flight, waiting, capacity, lowest, priority as u32, late].map(u64::from)
    }
}

/// What is to be done with one that waited.
#[derive(Debug)]
pub enum Next<W> {
    /// It may begin.
    Admit(W, Permit),
    /// It is given up.
    GiveUp(W, GivenUp),
}

/// The state of one limit with its queue, shared by reference. `W` is what waits: a waker, a call's number.
///
/// While nobody waits, a call costs one compare-and-swap to enter and one to leave, and an adaptive limit a short
/// lock that nobody ever waits for (a sample that finds it taken is left out). Who has to wait takes a lock.
#[derive(Debug)]
pub struct State<W> {
    /// Under way in the upper half, waiting in the lower: one word, so that nobody can begin to wait just after
    /// the last permit was given back unseen.
    counts: AtomicU64,
    limit: AtomicU32,
    adaptive: Mutex<Option<Gradient>>,
    queue: Mutex<Queue<W>>,
    /// Whether anybody may wait at all.
    has_queue: AtomicBool,
    /// Drawn once, when the state was made.
    seed: u64,
}

const ONE_UNDER_WAY: u64 = 1 << 32;

fn under_way(counts: u64) -> u32 {
    (counts >> 32) as u32
}

fn waiting(counts: u64) -> u32 {
    counts as u32
}

impl<W> State<W> {
    /// Nothing under way. `seed` is 64 random bits: they spread the measurements of clients that began together.
    pub fn new(settings: &Checked, now: Monotonic, seed: u64) -> Self {
        let spec = settings.spec();
        let (limit, adaptive) = match spec.limit {
            Limit::Fixed(limit) => (limit, None),
            Limit::Adaptive(adaptive) => (adaptive.initial, Some(Gradient::new(adaptive, now, seed))),
        };
        State {
            counts: AtomicU64::new(0),
            limit: AtomicU32::new(limit),
            adaptive: Mutex::new(adaptive),
            queue: Mutex::new(Queue::new(spec)),
            has_queue: AtomicBool::new(spec.queue > 0),
            seed,
        }
    }

    /// A call comes. `waiter` is asked for only if it may have to wait. Follow with [`next`](Self::next), until it
    /// answers none, if the answer is to wait.
    #[inline]
    pub fn enter(
        &self,
        now: Monotonic,
        priority: Priority,
        deadline: Option<Deadline>,
        waiter: impl FnOnce() -> W,
    ) -> Entered<W> {
        if deadline.is_some_and(|deadline| deadline.reading() <= now) {
            return Entered::Refused(
                Refused::DeadlineReached,
                self.room(self.counts.load(Ordering::Acquire)),
            );
        }
        if self.take_free(|counts| waiting(counts) == 0) {
            return Entered::Admitted(Permit { began: now });
        }
        // Without a place to wait in, no waiter is made and no lock taken: a refusal has to be cheap.
        if !self.has_queue.load(Ordering::Acquire) {
            let room = self.room(self.counts.load(Ordering::Acquire));
            if let (0, Place::Refused(refused)) = (room.waiting, room.decide(priority)) {
                return Entered::Refused(refused, room);
            }
        }
        self.enter_queue(now, priority, deadline, waiter)
    }

    /// A call that can't wait comes.
    ///
    /// # Errors
    /// Why not, when no permit is free or others wait for one. Nothing is changed then.
    pub fn try_enter(&self, now: Monotonic, deadline: Option<Deadline>) -> Result<Permit, (Refused, Room)> {
        if deadline.is_some_and(|deadline| deadline.reading() <= now) {
            return Err((Refused::DeadlineReached, self.room(self.counts.load(Ordering::Acquire))));
        }
        let mut counts = self.counts.load(Ordering::Acquire);
        loop {
            let room = self.room(counts);
            if let Place::Refused(refused) = room.decide(Priority::Critical) {
                return Err((refused, room));
            }
            let more = counts + ONE_UNDER_WAY;
            match self.counts.compare_exchange_weak(counts, more, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(Permit { began: now }),
                Err(newer) => counts = newer,
            }
        }
    }

    /// A call ends. Gives its permit back and counts what it told about the callee. Follow with
    /// [`next`](Self::next), until it answers none.
    #[inline]
    pub fn complete(&self, now: Monotonic, permit: Permit, sample: Sample) {
        if sample != Sample::Nothing
            && let Ok(mut adaptive) = self.adaptive.try_lock()
            && let Some(gradient) = &mut *adaptive
        {
            let in_flight = under_way(self.counts.load(Ordering::Relaxed));
            if gradient.record(now, permit.began, sample, in_flight) {
                self.limit.store(gradient.limit(), Ordering::Release);
            }
        }
        self.counts.fetch_sub(ONE_UNDER_WAY, Ordering::AcqRel);
    }

    /// What is to be done now with those that wait: to be called after each call that enters, ends or is
    /// cancelled, and at [`next_give_up`](Self::next_give_up), each time until it answers none.
    #[inline]
    pub fn next(&self, now: Monotonic) -> Option<Next<W>> {
        if waiting(self.counts.load(Ordering::Acquire)) == 0 {
            return None;
        }
        self.next_of_queue(now)
    }

    /// A call that waits was cancelled. None if it was named already: then its permit, if it got one, is to be
    /// completed with [`Sample::Nothing`].
    pub fn cancel(&self, ticket: Ticket) -> Option<W> {
        let mut queue = self.queue();
        let waiter = queue.cancel(ticket)?;
        self.counts.fetch_sub(1, Ordering::AcqRel);
        Some(waiter)
    }

    /// When somebody has waited for too long, if nothing happens before; none if nobody waits.
    pub fn next_give_up(&self) -> Option<Monotonic> {
        self.queue().next_give_up()
    }

    /// How many may be under way.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Acquire)
    }

    /// How many are under way.
    pub fn in_flight(&self) -> u32 {
        under_way(self.counts.load(Ordering::Acquire))
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        waiting(self.counts.load(Ordering::Acquire))
    }

    /// How many may wait.
    pub fn capacity(&self) -> u32 {
        // At most a hundred thousand.
        self.queue().capacity as u32
    }

    /// Changes the settings and keeps what was learnt: what is under way stays so, who waits keeps its place, also
    /// beyond a smaller queue, and a limit that was measured goes on from where it was, as far as its new range
    /// allows. A limit that becomes adaptive begins where it was fixed. Follow with [`next`](Self::next).
    pub fn reconfigure(&self, settings: &Checked, now: Monotonic) {
        let spec = settings.spec();
        let mut adaptive = self.adaptive.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = match (spec.limit, &mut *adaptive) {
            (Limit::Fixed(limit), learnt) => {
                *learnt = None;
                limit
            }
            (Limit::Adaptive(new), Some(gradient)) => {
                gradient.reconfigure(new);
                gradient.limit()
            }
            (Limit::Adaptive(new), none) => {
                let gradient = none.insert(Gradient::new(new, now, self.seed));
                gradient.begin_at(self.limit());
                gradient.limit()
            }
        };
        self.limit.store(limit, Ordering::Release);
        self.has_queue.store(spec.queue > 0, Ordering::Release);
        self.queue().reconfigure(spec);
    }

    /// Counts one more under way if there is room and `also` holds of the same counts.
    #[inline]
    fn take_free(&self, also: impl Fn(u64) -> bool) -> bool {
        let mut counts = self.counts.load(Ordering::Acquire);
        let limit = self.limit.load(Ordering::Acquire);
        loop {
            if under_way(counts) >= limit || !also(counts) {
                return false;
            }
            let more = counts + ONE_UNDER_WAY;
            match self.counts.compare_exchange_weak(counts, more, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(newer) => counts = newer,
            }
        }
    }

    #[cold]
    fn enter_queue(
        &self,
        now: Monotonic,
        priority: Priority,
        deadline: Option<Deadline>,
        waiter: impl FnOnce() -> W,
    ) -> Entered<W> {
        // Before anything is counted or locked: it is the caller's code.
        let waiter = waiter();
        let mut queue = self.queue();
        let lowest = queue.lowest();
        let mut counts = self.counts.load(Ordering::Acquire);
        loop {
            // At most a hundred thousand.
            let room = Room { capacity: queue.capacity as u32, lowest, ..self.room(counts) };
            let more = match room.decide(priority) {
                Place::Begin => ONE_UNDER_WAY,
                Place::Wait => 1,
                // One that takes another's place changes nothing in the counts.
                Place::OfLowest => 0,
                Place::Refused(refused) => return Entered::Refused(refused, room),
            };
            // What waits changes only under the lock, so a failed exchange only means another one under way.
            match self.counts.compare_exchange_weak(
                counts,
                counts + more,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) if more == ONE_UNDER_WAY => return Entered::Admitted(Permit { began: now }),
                Ok(_) => {
                    let evicted = if more == 0 { queue.evict_lowest() } else { None };
                    return Entered::Waiting { ticket: queue.push(now, priority, deadline, waiter), evicted };
                }
                Err(newer) => counts = newer,
            }
        }
    }

    /// What a decision reads that has no queue.
    fn room(&self, counts: u64) -> Room {
        Room {
            limit: self.limit(),
            in_flight: under_way(counts),
            waiting: waiting(counts),
            capacity: 0,
            lowest: None,
        }
    }

    #[cold]
    fn next_of_queue(&self, now: Monotonic) -> Option<Next<W>> {
        let mut queue = self.queue();
        if let Some((waiter, why)) = queue.give_up(now) {
            self.counts.fetch_sub(1, Ordering::AcqRel);
            return Some(Next::GiveUp(waiter, why));
        }
        if queue.len() == 0 || !self.take_free(|_| true) {
            return None;
        }
        let waiter = queue.pop(now)?;
        self.counts.fetch_sub(1, Ordering::AcqRel);
        Some(Next::Admit(waiter, Permit { began: now }))
    }

    fn queue(&self) -> MutexGuard<'_, Queue<W>> {
        // Nothing of the caller's runs under it, so nothing is half done in there.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
