//! The live state: learns from every call, refuses when it must. `now` is an argument; nothing here waits.
//!
//! While closed, a call takes one load to be admitted and one addition to be counted; there is no lock and no
//! allocation. The lock is for the steps between states, which are rare.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::Monotonic;
use mainstay_envelope::sync::atomic::{AtomicU64, Ordering};
use mainstay_envelope::sync::{Mutex, MutexGuard, PoisonError};

use super::machine::{self, Admit, Machine, Phase, Probe};
use super::spec::{Checked, Mode};
use super::window::{Counts, Entry, Window};
use crate::live::{Link, Live};
use crate::outcome::Outcome;
use crate::record::{INPUTS, nanos};
use crate::refusal::{Refusal, Rule, Why};
use crate::scope::Scope;

/// A circuit breaker. A clone is another handle on the same.
#[derive(Clone)]
pub struct CircuitBreaker(Live<Core>);

/// What one set of settings goes with. Another set makes another one, around the same [`Shared`].
pub(super) struct Core {
    settings: Checked,
    /// The same one for all settings that say the same of it.
    window: Arc<Window>,
    shared: Arc<Shared>,
}

/// What no change of settings touches.
struct Shared {
    /// The kind of the phase in the lowest 2 bits, above it the generation: how many phases there were. Written
    /// under the lock of `machine`.
    gate: AtomicU64,
    machine: Mutex<Machine>,
    refused: AtomicU64,
    scope: Arc<Scope>,
}

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;

const fn kind(gate: u64) -> u64 {
    gate & 3
}

/// That a call was admitted. To be handed to [`CircuitBreaker::record`] or [`CircuitBreaker::release`] once; a
/// probe's ticket that is lost costs its slot until the probe limit. [`Guard`](super::Guard) does so on drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a call that is admitted and never recorded is never learnt from"]
pub struct Ticket {
    /// The phase it was admitted in, as the gate's word. None: it is not counted.
    gate: Option<u64>,
    started: u64,
}

impl Ticket {
    /// Whether its end decides if the breaker closes.
    pub const fn is_probe(&self) -> bool {
        matches!(self.gate, Some(gate) if kind(gate) == HALF_OPEN)
    }
}

/// What a change of settings did to what was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The window is as it was.
    WindowKept,
    /// The window has another size; the latest calls that fit are in it.
    WindowResampled,
    /// The window is of another kind and begins empty. State and open time are as they were.
    WindowEmptied,
}

/// How a breaker stands, for metrics and people.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snapshot {
    /// The state.
    pub phase: Phase,
    /// What the window holds.
    pub counts: Counts,
    /// Calls refused so far.
    pub refused: u64,
    /// How often it opened since it was last closed.
    pub opened: u32,
    /// What it does with what it learns.
    pub mode: Mode,
}

impl CircuitBreaker {
    /// A closed breaker that has learnt nothing.
    pub fn new(settings: Checked, scope: Arc<Scope>) -> Self {
        let shared = Shared {
            gate: AtomicU64::new(CLOSED),
            machine: Mutex::new(Machine::CLOSED),
            refused: AtomicU64::new(0),
            scope,
        };
        let window = Arc::new(Window::empty(settings.spec().window, settings.spec().shards));
        CircuitBreaker(Live::new(Core { settings, window, shared: Arc::new(shared) }))
    }

    /// May a call begin at `now`? Some nanoseconds; an admitted call's end is to be [`record`](Self::record)ed.
    ///
    /// # Errors
    /// Refused, with what is left of the open time.
    #[inline]
    pub fn check(&self, now: Monotonic) -> Result<Ticket, Refusal> {
        self.0.get().check(nanos(now), now)
    }

    /// Learns from a call's end. `outcome` as its classifier judged it; of a refusal of our own, see
    /// [`Why::outcome`]. The end of a call that began in an earlier phase says nothing about the present one.
    #[inline]
    pub fn record(&self, ticket: Ticket, now: Monotonic, outcome: Outcome) {
        self.0.get().record(&self.0, ticket, now, outcome);
    }

    /// Gives back what an admitted call took that was never made: nothing is learnt.
    pub fn release(&self, ticket: Ticket, now: Monotonic) {
        self.0.get().release(&self.0, ticket, now);
    }

    /// Other settings from now on. What was learnt stays: see [`Change`]. Calls that end in the very moment of a
    /// change of the window may be missing from the new one.
    pub fn reconfigure(&self, settings: Checked, now: Monotonic) -> Change {
        let mut change = Change::WindowKept;
        let shared = Arc::clone(&self.0.get().shared);
        // No step between states meanwhile: one that clears the window would clear the old one.
        let _steps = shared.lock();
        let _: Result<(), ()> = self.0.replace(|old| {
            if old.settings == settings {
                return Err(());
            }
            let (kind, shards) = (settings.spec().window, settings.spec().shards);
            let before = old.settings.spec();
            let window = if (kind, shards) == (before.window, before.shards) {
                Arc::clone(&old.window)
            } else {
                let resampled = old.window.resampled(kind, shards, nanos(now));
                change = if resampled.is_some() { Change::WindowResampled } else { Change::WindowEmptied };
                Arc::new(resampled.unwrap_or_else(|| Window::empty(kind, shards)))
            };
            Ok(Core { settings, window, shared: Arc::clone(&old.shared) })
        });
        change
    }

    /// The present settings.
    pub fn settings(&self) -> Checked {
        self.0.get().settings
    }

    /// How it stands.
    pub fn snapshot(&self, now: Monotonic) -> Snapshot {
        let core = self.0.get();
        let machine = *core.shared.lock();
        Snapshot {
            phase: machine.phase,
            counts: core.window.counts(nanos(now)),
            refused: core.shared.refused.load(Ordering::Relaxed),
            opened: machine.opened,
            mode: core.settings.spec().mode,
        }
    }

    /// Records the end of a call that counts the same whether it is now or as much earlier as a cheap reading of the clock may
    /// lag: where it went well, was not slow by any of them, and is counted by number. False if nothing was recorded.
    #[inline]
    pub(super) fn record_plain(&self, ticket: Ticket, outcome: Outcome) -> bool {
        let core = self.0.get();
        let latest = core.shared.scope.at_the_latest();
        let is_plain = matches!(outcome, Outcome::Success | Outcome::Permanent)
            && !ticket.is_probe()
            && matches!(*core.window, Window::Count(_))
            && nanos(latest).saturating_sub(ticket.started) <= core.settings.slow_after;
        if is_plain {
            core.record(&self.0, ticket, latest, outcome);
        }
        is_plain
    }

    /// As [`check`](Self::check), for who keeps the link with the call.
    #[inline]
    pub(super) fn check_linked(&mut self, now: Monotonic) -> Result<(Arc<Link<Core>>, Ticket), Refusal> {
        let link = self.0.refresh();
        let ticket = link.value().check(nanos(now), now)?;
        Ok((Arc::clone(link), ticket))
    }

    /// The breaker that a kept link belongs to.
    #[inline]
    pub(super) fn of(link: Arc<Link<Core>>) -> Self {
        CircuitBreaker(Live::from(link))
    }

    #[inline]
    pub(super) fn scope(&self) -> &Arc<Scope> {
        &self.0.get().shared.scope
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.0.get();
        let mut shown = f.debug_struct("CircuitBreaker");
        shown.field("policy", core.shared.scope.name()).field("phase", &core.shared.lock().phase);
        shown.finish_non_exhaustive()
    }
}

impl Core {
    #[inline]
    fn check(&self, now: u64, at: Monotonic) -> Result<Ticket, Refusal> {
        let gate = self.shared.gate.load(Ordering::Acquire);
        if kind(gate) == CLOSED && matches!(self.settings.spec().mode, Mode::Enforce | Mode::ObserveOnly) {
            if self.shared.scope.recorder().keeps_all() {
                self.keep_pass(at);
            }
            return Ok(Ticket { gate: Some(gate), started: now });
        }
        self.check_slowly(now, at)
    }

    /// Everything is kept, so that it passed is kept, too.
    #[cold]
    fn keep_pass(&self, at: Monotonic) {
        let inputs = Machine::CLOSED.admit_inputs(self.settings.spec().mode, self.settings.timing());
        let (recorder, verdict) = (self.shared.scope.recorder(), Admit::Pass.verdict());
        recorder.plain(Rule::CircuitBreaker, machine::ADMIT, at, inputs, verdict);
    }

    /// Not closed, or not in force.
    #[cold]
    fn check_slowly(&self, now: u64, at: Monotonic) -> Result<Ticket, Refusal> {
        let mode = self.settings.spec().mode;
        let uncounted = Ticket { gate: None, started: now };
        match mode {
            Mode::Disabled => return Ok(uncounted),
            Mode::ForcedOpen => {
                let inputs = Machine::CLOSED.admit_inputs(mode, self.settings.timing());
                let verdict = machine::forced_verdict();
                return Err(self.refuse(at, inputs, verdict, Why::BreakerForcedOpen, None));
            }
            Mode::Enforce | Mode::ObserveOnly => {}
        }
        let timing = self.settings.timing();
        let mut machine = self.shared.lock();
        let before = *machine;
        let inputs = before.admit_inputs(mode, timing);
        let admit = machine.admit(timing, now);
        self.publish(before, &machine);
        // Under the lock: the word of the phase that it was admitted in.
        let gate = self.shared.gate.load(Ordering::Relaxed);
        drop(machine);
        let (why, wait) = match admit {
            Admit::Pass => return Ok(Ticket { gate: Some(gate), started: now }),
            Admit::Probe => {
                let recorder = self.shared.scope.recorder();
                recorder.notable(Rule::CircuitBreaker, machine::ADMIT, at, inputs, admit.verdict());
                return Ok(Ticket { gate: Some(gate), started: now });
            }
            _ if mode == Mode::ObserveOnly => return Ok(uncounted),
            Admit::Open(wait) => (Why::BreakerOpen, Some(wait)),
            Admit::ProbesUnderWay => (Why::ProbesUnderWay, None),
        };
        Err(self.refuse(at, inputs, admit.verdict(), why, wait))
    }

    fn refuse(
        &self,
        at: Monotonic,
        inputs: [u64; INPUTS],
        verdict: u64,
        why: Why,
        wait: Option<u64>,
    ) -> Refusal {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        let refusal =
            self.shared.scope.refuse(Rule::CircuitBreaker, machine::ADMIT, at, inputs, verdict, why);
        match wait {
            Some(wait) => refusal.after(Duration::from_nanos(wait)),
            None => refusal,
        }
    }

    #[inline]
    fn record(&self, live: &Live<Core>, ticket: Ticket, at: Monotonic, outcome: Outcome) {
        let Some(gate) = ticket.gate else { return };
        let now = nanos(at);
        let slow = now.saturating_sub(ticket.started) > self.settings.slow_after;
        let entry = match outcome {
            Outcome::Success | Outcome::Permanent => Entry::new(false, slow),
            Outcome::Transient { .. } => Entry::new(true, slow),
            // Neither success nor failure; that it was slow is known all the same.
            Outcome::Cancelled if slow => Entry::new(false, true),
            Outcome::Cancelled => return self.release(live, ticket, at),
        };
        if kind(gate) == HALF_OPEN {
            return self.probe_ended(live, ticket, at, Some(entry));
        }
        // What began in an earlier phase belongs to a window that was given up.
        if self.shared.gate.load(Ordering::Acquire) != gate || self.settings.spec().mode == Mode::Disabled {
            return;
        }
        self.window.record(now, entry);
        // Only what is bad can raise a rate; a success that merely completes the minimum opens nothing.
        if entry.is_bad() {
            self.judge(gate, now, at);
        }
    }

    #[cold]
    fn judge(&self, gate: u64, now: u64, at: Monotonic) {
        let (counts, rates) = (self.window.counts(now), self.settings.rates());
        let minimum = u64::from(self.settings.spec().minimum_calls);
        let recorder = self.shared.scope.recorder();
        let inputs = machine::trip_inputs(counts, minimum, rates);
        if !rates.trip(counts, minimum) {
            return recorder.plain(Rule::CircuitBreaker, machine::TRIP, at, inputs, 0);
        }
        let mut machine = self.shared.lock();
        // Somebody else may have opened it meanwhile; and it may be closed again.
        if self.shared.gate.load(Ordering::Relaxed) != gate {
            return;
        }
        recorder.notable(Rule::CircuitBreaker, machine::TRIP, at, inputs, 1);
        let before = *machine;
        machine.open(self.settings.timing(), now);
        self.publish(before, &machine);
    }

    fn release(&self, live: &Live<Core>, ticket: Ticket, at: Monotonic) {
        if ticket.is_probe() {
            self.probe_ended(live, ticket, at, None);
        }
    }

    #[cold]
    fn probe_ended(&self, live: &Live<Core>, ticket: Ticket, at: Monotonic, entry: Option<Entry>) {
        let probe = Probe {
            failed: entry.is_some_and(Entry::failed),
            slow: entry.is_some_and(Entry::slow),
            given_back: entry.is_none(),
        };
        let (rates, timing) = (self.settings.rates(), self.settings.timing());
        let mut machine = self.shared.lock();
        if Some(self.shared.gate.load(Ordering::Relaxed)) != ticket.gate {
            return;
        }
        let before = *machine;
        let inputs = before.probe_inputs(rates, timing, probe);
        machine.probe_ended(rates, timing, probe, nanos(at));
        let recorder = self.shared.scope.recorder();
        recorder.notable(Rule::CircuitBreaker, machine::PROBE_ENDED, at, inputs, machine.verdict());
        if machine.phase == Phase::Closed {
            // Before anybody may write to it again. The present one, which a change of settings can have put in the
            // place of ours until we had the lock.
            live.get().window.clear();
        }
        self.publish(before, &machine);
    }

    /// Under the lock: lets everybody see the new phase, as a new generation.
    fn publish(&self, before: Machine, after: &Machine) {
        let word = match after.phase {
            Phase::Closed => CLOSED,
            Phase::Open { .. } => OPEN,
            Phase::HalfOpen { .. } => HALF_OPEN,
        };
        let gate = self.shared.gate.load(Ordering::Relaxed);
        // Opening again counts as a new phase, though the kind may be the same.
        if word != kind(gate) || before.opened != after.opened {
            self.shared.gate.store(((gate >> 2) + 1) << 2 | word, Ordering::Release);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use mainstay_envelope::{Clock, ManualClock, SeededChance};

    use super::*;
    use crate::circuit_breaker::Spec;
    use crate::record::Recorder;

    #[test]
    fn a_plain_end_is_recorded_by_a_cheap_reading_and_a_probes_is_not() {
        let clock = ManualClock::default();
        let chance = Arc::new(SeededChance::new(1));
        let scope = Arc::new(Scope::new("test", Arc::new(clock.clone()), chance, Recorder::off()));
        let spec = Spec::failure_rate(0.5).over(10).minimum_calls(4).open_for(Duration::from_secs(5));
        let breaker = CircuitBreaker::new(spec.check().unwrap(), scope);
        let plain = breaker.check(clock.now()).unwrap();
        assert!(breaker.record_plain(plain, Outcome::Success));
        assert_eq!(breaker.snapshot(clock.now()).counts.calls, 1);
        for ticket in (0..10).map_while(|_| breaker.check(clock.now()).ok()) {
            breaker.record(ticket, clock.now(), Outcome::TRANSIENT);
        }
        clock.advance(Duration::from_secs(6));
        let probe = breaker.check(clock.now()).unwrap();
        // What the breaker then does begins at that moment: it is read exactly.
        assert!(!breaker.record_plain(probe, Outcome::Success));
        assert!(matches!(breaker.snapshot(clock.now()).phase, Phase::HalfOpen { .. }));
    }
}
