//! Who may go, who waits, who is refused. The decision is two pure functions on two numbers; around them, one atomic
//! word for calls that needn't wait and a lock for those that do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use mainstay_envelope::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use mainstay_envelope::sync::{Mutex, MutexGuard, PoisonError};

use super::spec::Checked;
use crate::record::INPUTS;

/// How full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Load {
    /// Permits that are out.
    pub in_use: u32,
    /// Calls that wait for one.
    pub waiting: u32,
}

/// How full it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Limits {
    pub(super) permits: u32,
    pub(super) queue: u32,
}

/// What a call that comes is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Arrival {
    Go,
    Wait,
    Refuse,
}

impl Load {
    /// Nobody overtakes: while anybody waits, whoever comes waits, too.
    pub(super) const fn arrival(self, limits: Limits) -> Arrival {
        if self.waiting == 0 && self.in_use < limits.permits {
            Arrival::Go
        } else if self.waiting < limits.queue {
            Arrival::Wait
        } else {
            Arrival::Refuse
        }
    }

    /// Whether a permit that comes back goes to the first in the queue. Not while more are out than there are,
    /// because their number was lowered.
    pub(super) const fn passes_on(self, limits: Limits) -> bool {
        self.waiting > 0 && self.in_use <= limits.permits
    }

    const fn word(self) -> u64 {
        (self.waiting as u64) << 32 | self.in_use as u64
    }

    const fn of(word: u64) -> Self {
        Load { in_use: word as u32, waiting: (word >> 32) as u32 }
    }
}

impl Limits {
    const fn of(word: u64) -> Self {
        Limits { permits: word as u32, queue: (word >> 32) as u32 }
    }

    const fn word(self) -> u64 {
        (self.queue as u64) << 32 | self.permits as u64
    }
}

impl From<Option<Checked>> for Limits {
    /// Without settings nothing is limited; who is in is counted all the same, for when there are some.
    fn from(settings: Option<Checked>) -> Self {
        match settings {
            Some(settings) => Limits { permits: settings.spec().permits, queue: settings.spec().queue },
            None => Limits { permits: u32::MAX, queue: 0 },
        }
    }
}

/// A call in the queue.
#[derive(Debug, Default)]
pub(super) struct Waiter {
    /// Set under the queue's lock, once.
    granted: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Waiter {
    /// Whether its turn has come; if not, `waker` is told when it does.
    pub(super) fn poll(&self, waker: &Waker) -> bool {
        let mut kept = lock(&self.waker);
        if self.granted.load(Ordering::Acquire) {
            return true;
        }
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
        false
    }

    fn grant(&self) {
        // Under the waker's lock: a poll either sees the grant or has left its waker before.
        let waker = {
            let mut waker = lock(&self.waker);
            self.granted.store(true, Ordering::Release);
            waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The permits and the queue of one bulkhead.
#[derive(Debug)]
pub(super) struct State {
    /// A [`Load`]. `waiting` changes only under the queue's lock; `in_use` grows outside of it only while nobody
    /// waits.
    load: AtomicU64,
    /// [`Limits`].
    limits: AtomicU64,
    /// As many as `waiting` says, the first to go in front.
    queue: Mutex<VecDeque<Arc<Waiter>>>,
}

/// What became of a call that came.
#[derive(Debug)]
pub(super) enum Admission {
    Go,
    Wait(Arc<Waiter>),
    Refuse(Load, Limits),
}

impl State {
    pub(super) fn new(limits: Limits) -> Self {
        State {
            load: AtomicU64::new(0),
            limits: AtomicU64::new(limits.word()),
            queue: Mutex::new(VecDeque::new()),
        }
    }

    #[inline]
    pub(super) fn load(&self) -> Load {
        Load::of(self.load.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn limits(&self) -> Limits {
        Limits::of(self.limits.load(Ordering::Relaxed))
    }

    /// A call comes. One exchange where it may go.
    #[inline]
    pub(super) fn arrive(&self) -> Admission {
        if let Ok(()) = self.go() {
            return Admission::Go;
        }
        self.arrive_at_a_queue()
    }

    /// There was no permit at once.
    #[cold]
    fn arrive_at_a_queue(&self) -> Admission {
        let mut queue = lock(&self.queue);
        loop {
            // Again, under the lock: now nobody can begin or stop waiting.
            let load = match self.go() {
                Ok(()) => return Admission::Go,
                Err(load) => load,
            };
            let limits = self.limits();
            match load.arrival(limits) {
                Arrival::Refuse => return Admission::Refuse(load, limits),
                // A permit came back in between.
                Arrival::Go => {}
                Arrival::Wait => {
                    let waits = Load { waiting: load.waiting + 1, ..load };
                    // Only as long as the load is what was judged: a permit that comes back unseen would leave
                    // somebody waiting with nobody to wake him.
                    if self.exchange(load, waits) {
                        let waiter = Arc::new(Waiter::default());
                        queue.push_back(Arc::clone(&waiter));
                        return Admission::Wait(waiter);
                    }
                }
            }
        }
    }

    /// Takes a permit if one may be taken at once, else says what the load was.
    #[inline]
    fn go(&self) -> Result<(), Load> {
        loop {
            let load = self.load();
            if load.arrival(self.limits()) != Arrival::Go {
                return Err(load);
            }
            if self.exchange(load, Load { in_use: load.in_use + 1, ..load }) {
                return Ok(());
            }
        }
    }

    /// A permit comes back: it goes to the first who waits, or is free.
    #[inline]
    pub(super) fn leave(&self) {
        loop {
            let load = self.load();
            if !load.passes_on(self.limits()) {
                if self.exchange(load, Load { in_use: load.in_use.saturating_sub(1), ..load }) {
                    return;
                }
                continue;
            }
            let mut queue = lock(&self.queue);
            // The one who waited may have left before the lock was had.
            if self.load().passes_on(self.limits())
                && let Some(first) = queue.pop_front()
            {
                self.change_waiting(|waiting| waiting.saturating_sub(1));
                drop(queue);
                first.grant();
                return;
            }
        }
    }

    /// A waiting call is dropped. If its turn had come, the turn goes on to the next.
    pub(super) fn give_up(&self, waiter: &Arc<Waiter>) {
        let mut queue = lock(&self.queue);
        let place = queue.iter().position(|other| Arc::ptr_eq(other, waiter));
        match place {
            Some(place) => {
                queue.remove(place);
                self.change_waiting(|waiting| waiting.saturating_sub(1));
            }
            // It was taken out to be granted, so it has a permit.
            None => {
                drop(queue);
                self.leave();
            }
        }
    }

    /// Other limits. Permits that are out stay out, whoever waits stays in the queue.
    pub(super) fn reconfigure(&self, limits: Limits) {
        let mut granted = Vec::new();
        let mut queue = lock(&self.queue);
        self.limits.store(limits.word(), Ordering::Relaxed);
        loop {
            let load = self.load();
            if load.waiting == 0 || load.in_use >= limits.permits {
                break;
            }
            let next = Load { in_use: load.in_use + 1, waiting: load.waiting - 1 };
            if self.exchange(load, next) {
                granted.extend(queue.pop_front());
            }
        }
        drop(queue);
        granted.iter().for_each(|waiter| waiter.grant());
    }

    #[inline]
    fn exchange(&self, from: Load, to: Load) -> bool {
        let exchanged =
            self.load.compare_exchange_weak(from.word(), to.word(), Ordering::AcqRel, Ordering::Relaxed);
        exchanged.is_ok()
    }

    fn change_waiting(&self, change: impl Fn(u32) -> u32) {
        let new = |word| {
            let load = Load::of(word);
            Some(Load { waiting: change(load.waiting), ..load }.word())
        };
        // The closure always answers, so this can't fail.
        let _ = self.load.fetch_update(Ordering::AcqRel, Ordering::Relaxed, new);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// ---- recorded decisions ---------------------------------------------------------------------------------

/// "May this call go?"
pub(super) const ARRIVE: u8 = 0;
/// "Has it waited too long?"
pub(super) const WAITED: u8 = 1;

impl Arrival {
    pub(super) const fn verdict(self) -> u64 {
        match self {
            Arrival::Go => 0,
            Arrival::Wait => 1,
            Arrival::Refuse => 2,
        }
    }
}

pub(super) fn arrival_inputs(load: Load, limits: Limits) -> [u64; INPUTS] {
    let mut inputs = [0; INPUTS];
    let words = [load.in_use, load.waiting, limits.permits, limits.queue];
    inputs.iter_mut().zip(words).for_each(|(input, word)| *input = u64::from(word));
    inputs
}

/// `until` in nanoseconds.
pub(super) fn waited_inputs(until: u64) -> [u64; INPUTS] {
    let mut inputs = [0; INPUTS];
    if let Some(first) = inputs.first_mut() {
        *first = until;
    }
    inputs
}

pub(super) fn replay(question: u8, at: u64, inputs: [u64; INPUTS]) -> Option<u64> {
    let [first, second, third, fourth, ..] = inputs;
    match question {
        ARRIVE => {
            let load = Load { in_use: first as u32, waiting: second as u32 };
            let limits = Limits { permits: third as u32, queue: fourth as u32 };
            Some(load.arrival(limits).verdict())
        }
        WAITED => Some(u64::from(at >= first)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(permits: u32, queue: u32) -> Limits {
        Limits { permits, queue }
    }

    #[test]
    fn who_comes_goes_waits_or_is_refused() {
        use Arrival::{Go, Refuse, Wait};
        for (in_use, waiting, expected) in [
            (0, 0, Go),
            (1, 0, Go),
            (2, 0, Wait),
            (2, 1, Wait),
            (2, 2, Refuse),
            (2, 3, Refuse),
            // A free permit is the first waiter's.
            (1, 1, Wait),
            (1, 2, Refuse),
            // More are out than there are.
            (5, 0, Wait),
        ] {
            assert_eq!(Load { in_use, waiting }.arrival(limits(2, 2)), expected, "{in_use} {waiting}");
        }
        assert_eq!(Load { in_use: 2, waiting: 0 }.arrival(limits(2, 0)), Refuse);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Arrive,
        Leave,
        GiveUp(prop::sample::Index),
        Limits(u32, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Arrive),
            3 => Just(Step::Leave),
            2 => any::<prop::sample::Index>().prop_map(Step::GiveUp),
            1 => (1_u32..6, 0_u32..6).prop_map(|(permits, queue)| Step::Limits(permits, queue)),
        ]
    }

    proptest! {
        /// Against the plain model: a set of who is in and a queue of who waits.
        #[test]
        fn permits_are_conserved_and_handed_on_in_order(
            permits in 1_u32..5, queue in 0_u32..5, steps in prop::collection::vec(step(), 1..120),
        ) {
            let state = State::new(limits(permits, queue));
            let mut present = limits(permits, queue);
            let (mut inside, mut line) = (0_u32, Vec::<Arc<Waiter>>::new());
            let is_granted = |waiter: &Arc<Waiter>| waiter.granted.load(Ordering::Relaxed);
            for step in steps {
                match step {
                    Step::Arrive => {
                        let load = Load { in_use: inside, waiting: line.len() as u32 };
                        match (state.arrive(), load.arrival(present)) {
                            (Admission::Go, Arrival::Go) => inside += 1,
                            (Admission::Wait(waiter), Arrival::Wait) => line.push(waiter),
                            (Admission::Refuse(was, _), Arrival::Refuse) => prop_assert_eq!(was, load),
                            (got, expected) => prop_assert!(false, "{:?}, not {:?}", got, expected),
                        }
                    }
                    Step::Leave if inside == 0 => {}
                    Step::Leave => {
                        state.leave();
                        if inside <= present.permits && !line.is_empty() {
                            prop_assert!(is_granted(&line.remove(0)), "the first gets it");
                        } else {
                            inside -= 1;
                        }
                    }
                    Step::GiveUp(_) if line.is_empty() => {}
                    Step::GiveUp(which) => {
                        let waiter = line.remove(which.index(line.len()));
                        state.give_up(&waiter);
                    }
                    Step::Limits(permits, queue) => {
                        present = limits(permits, queue);
                        state.reconfigure(present);
                        while inside < permits && !line.is_empty() {
                            inside += 1;
                            prop_assert!(is_granted(&line.remove(0)), "a new permit is the first's");
                        }
                    }
                }
                prop_assert!(!line.iter().any(is_granted), "nobody overtakes");
                let load = Load { in_use: inside, waiting: line.len() as u32 };
                prop_assert_eq!(state.load(), load);
            }
        }
    }

    #[test]
    fn what_is_recorded_is_these_numbers() {
        for (load, (permits, queue), verdict) in
            [((3, 0), (4, 9), 0), ((4, 0), (4, 9), 1), ((3, 8), (4, 9), 1), ((3, 9), (4, 9), 2)]
        {
            let (in_use, waiting) = load;
            let inputs = arrival_inputs(Load { in_use, waiting }, limits(permits, queue));
            assert_eq!(inputs[..5], [in_use, waiting, permits, queue, 0].map(u64::from));
            assert_eq!(replay(ARRIVE, 0, inputs), Some(verdict), "{load:?}");
        }
        let inputs = waited_inputs(7);
        assert_eq!(inputs[..2], [7, 0]);
        assert_eq!([6, 7, 8].map(|at| replay(WAITED, at, inputs)), [Some(0), Some(1), Some(1)]);
        assert_eq!(replay(WAITED + 1, 7, inputs), None, "no question of this version");
    }

    #[test]
    fn a_granted_waiter_that_leaves_hands_its_permit_on() {
        let state = State::new(limits(1, 2));
        assert!(matches!(state.arrive(), Admission::Go));
        let [Admission::Wait(first), Admission::Wait(second)] = [state.arrive(), state.arrive()] else {
            panic!("two wait");
        };
        state.leave();
        assert!(first.poll(Waker::noop()) && !second.poll(Waker::noop()));
        state.give_up(&first);
        assert!(second.poll(Waker::noop()));
        state.give_up(&second);
        assert_eq!(state.load(), Load::default());
    }

    #[test]
    fn threads_that_come_wait_leave_and_give_up_lose_no_permit() {
        let state = State::new(limits(2, 4));
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let state = &state;
                scope.spawn(move || {
                    for i in 0..5_000_u32 {
                        match state.arrive() {
                            Admission::Go => state.leave(),
                            Admission::Wait(waiter) if (i + thread) % 3 == 0 => state.give_up(&waiter),
                            Admission::Wait(waiter) => {
                                // Everybody who is in leaves, so every turn comes.
                                while !waiter.poll(Waker::noop()) {
                                    std::thread::yield_now();
                                }
                                state.leave();
                            }
                            Admission::Refuse(..) => {}
                        }
                        assert!(state.load().in_use <= 2);
                    }
                });
            }
        });
        assert_eq!(state.load(), Load::default());
    }
}
