//! The three states and every step between them: plain values, the same inputs give the same verdict.

use super::spec::{Checked, Mode};
use super::window::Counts;
use crate::record::INPUTS;

/// Where the breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Calls pass and are counted.
    Closed,
    /// Calls are refused until then, in nanoseconds of the policy's clock.
    Open {
        /// When probes may begin.
        until: u64,
    },
    /// Probes find out whether the callee is well again; everything else is refused.
    HalfOpen {
        /// When the latest probe began.
        since: u64,
        /// Probes not heard of yet.
        under_way: u16,
        /// Probes that succeeded.
        succeeded: u16,
        /// Probes that failed.
        failed: u16,
        /// Probes that were slow, whatever else.
        slow: u16,
    },
}

/// The phase, and what is remembered over phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) phase: Phase,
    /// How often it opened since it was last closed.
    pub(super) opened: u32,
}

/// What a call is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admit {
    Pass,
    Probe,
    /// Nanoseconds until a probe may begin.
    Open(u64),
    ProbesUnderWay,
}

/// What an ended probe was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) failed: bool,
    pub(super) slow: bool,
    /// It ended without a result: its slot goes to another.
    pub(super) given_back: bool,
}

/// The part of the settings that the steps read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rates {
    pub(super) failure: u32,
    pub(super) slow: u32,
}

/// Part of the settings, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    pub(super) open_for: u64,
    pub(super) open_cap: u64,
    pub(super) growth: u16,
    pub(super) probes: u16,
    pub(super) probe_limit: u64,
}

impl Checked {
    pub(super) fn rates(&self) -> Rates {
        Rates { failure: self.failure_rate, slow: self.slow_rate }
    }

    pub(super) fn timing(&self) -> Timing {
        let spec = self.spec();
        Timing {
            open_for: self.open_for,
            open_cap: self.open_cap,
            growth: small(spec.open_growth),
            probes: small(spec.probes),
            probe_limit: self.probe_limit,
        }
    }
}

fn small(checked: u32) -> u16 {
    u16::try_from(checked).unwrap_or(u16::MAX)
}

const MILLION: u64 = 1_000_000;

impl Rates {
    /// Whether `part` of `all` reaches `rate`. Exact: whole numbers only.
    const fn reached(part: u64, all: u64, rate: u32) -> bool {
        part.saturating_mul(MILLION) >= all.saturating_mul(rate as u64)
    }

    /// Whether a closed breaker opens on these counts.
    pub(super) const fn trip(self, counts: Counts, minimum_calls: u64) -> bool {
        counts.calls >= minimum_calls
            && (Self::reached(counts.failures, counts.calls, self.failure)
                || Self::reached(counts.slow, counts.calls, self.slow))
    }
}

impl Machine {
    pub(super) const CLOSED: Self = Machine { phase: Phase::Closed, opened: 0 };

    /// Opens, from whatever phase.
    pub(super) fn open(&mut self, timing: Timing, now: u64) {
        let growth = u64::from(timing.growth).saturating_pow(self.opened);
        let time = timing.open_for.saturating_mul(growth).min(timing.open_cap);
        self.opened = self.opened.saturating_add(1);
        self.phase = Phase::Open { until: now.saturating_add(time) };
    }

    pub(super) fn admit(&mut self, timing: Timing, now: u64) -> Admit {
        match &mut self.phase {
            Phase::Closed => Admit::Pass,
            Phase::Open { until } if now < *until => Admit::Open(*until - now),
            Phase::Open { .. } => {
                self.phase = Phase::HalfOpen { since: now, under_way: 1, succeeded: 0, failed: 0, slow: 0 };
                Admit::Probe
            }
            Phase::HalfOpen { since, under_way, succeeded, failed, .. } => {
                let asked = u32::from(*under_way) + u32::from(*succeeded) + u32::from(*failed);
                // None under way and no decision: the number of probes was lowered meanwhile.
                if asked < u32::from(timing.probes) || *under_way == 0 {
                    *under_way = under_way.saturating_add(1);
                    *since = now;
                    return Admit::Probe;
                }
                if now.saturating_sub(*since) < timing.probe_limit {
                    return Admit::ProbesUnderWay;
                }
                // Nothing was heard of any probe for too long: that is an answer.
                self.open(timing, now);
                match self.phase {
                    Phase::Open { until } => Admit::Open(until.saturating_sub(now)),
                    _ => Admit::ProbesUnderWay,
                }
            }
        }
    }

    /// Takes in how a probe of this half-open phase ended. Decides as soon as the probes still to come can't
    /// change the decision.
    pub(super) fn probe_ended(&mut self, rates: Rates, timing: Timing, probe: Probe, now: u64) {
        let Phase::HalfOpen { under_way, succeeded, failed, slow, .. } = &mut self.phase else { return };
        *under_way = under_way.saturating_sub(1);
        if probe.given_back {
            return;
        }
        *failed = failed.saturating_add(u16::from(probe.failed));
        *succeeded = succeeded.saturating_add(u16::from(!probe.failed));
        *slow = slow.saturating_add(u16::from(probe.slow));
        let all = u64::from(timing.probes);
        let to_come = all.saturating_sub(u64::from(*succeeded) + u64::from(*failed));
        let (failed, slow) = (u64::from(*failed), u64::from(*slow));
        let reached = |part, rate| Rates::reached(part, all, rate);
        if reached(failed, rates.failure) || reached(slow, rates.slow) {
            self.open(timing, now);
        } else if !reached(failed + to_come, rates.failure) && !reached(slow + to_come, rates.slow) {
            *self = Machine::CLOSED;
        }
    }
}

// ---- recorded decisions ---------------------------------------------------------------------------------

/// "May this call pass?"
pub(super) const ADMIT: u8 = 0;
/// "Does it open?"
pub(super) const TRIP: u8 = 1;
/// "What does this probe's end mean?"
pub(super) const PROBE_ENDED: u8 = 2;

const FORCED: u64 = 5;

impl Mode {
    const fn number(self) -> u64 {
        match self {
            Mode::Enforce => 0,
            Mode::ObserveOnly => 1,
            Mode::Disabled => 2,
            Mode::ForcedOpen => 3,
        }
    }
}

impl Machine {
    fn words(&self) -> [u64; 3] {
        let opened = u64::from(self.opened) << 32;
        match self.phase {
            Phase::Closed => [opened, 0, 0],
            Phase::Open { until } => [opened | 1, until, 0],
            Phase::HalfOpen { since, under_way, succeeded, failed, slow } => {
                let counts = [under_way, succeeded, failed, slow];
                let counts = counts.iter().rev().fold(0, |word, count| word << 16 | u64::from(*count));
                [opened | 2, since, counts]
            }
        }
    }

    fn from_words([head, time, counts]: [u64; 3]) -> Option<Self> {
        let count = |n: u32| (counts >> (16 * n)) as u16;
        let phase = match head & 3 {
            0 => Phase::Closed,
            1 => Phase::Open { until: time },
            2 => Phase::HalfOpen {
                since: time,
                under_way: count(0),
                succeeded: count(1),
                failed: count(2),
                slow: count(3),
            },
            _ => return None,
        };
        Some(Machine { phase, opened: (head >> 32) as u32 })
    }

    /// What an admission reads: the machine, the mode and the timing.
    pub(super) fn admit_inputs(&self, mode: Mode, timing: Timing) -> [u64; INPUTS] {
        let [head, time, counts] = self.words();
        let small = u64::from(timing.probes) | u64::from(timing.growth) << 16;
        let head = head | mode.number() << 8;
        [head, time, counts, small, timing.probe_limit, timing.open_for, timing.open_cap]
    }

    /// What the end of a probe is judged by.
    pub(super) fn probe_inputs(&self, rates: Rates, timing: Timing, probe: Probe) -> [u64; INPUTS] {
        let [head, time, counts] = self.words();
        let bits = u64::from(probe.failed) | u64::from(probe.slow) << 1 | u64::from(probe.given_back) << 2;
        let small = u64::from(timing.probes) | u64::from(timing.growth) << 16;
        let rates = u64::from(rates.failure) | u64::from(rates.slow) << 32;
        [head | bits << 8, time, counts, small, rates, timing.open_for, timing.open_cap]
    }

    /// The phase as a verdict: its kind, and until when it is open.
    pub(super) fn verdict(&self) -> u64 {
        let [head, time, _] = self.words();
        match self.phase {
            Phase::Open { .. } => time << 2 | 1,
            _ => head & 3,
        }
    }
}

impl Admit {
    pub(super) fn verdict(self) -> u64 {
        match self {
            Admit::Pass => 1,
            Admit::Probe => 2,
            Admit::ProbesUnderWay => 3,
            // The wait is cut at 2⁶¹ ns, 73 years.
            Admit::Open(wait) => wait << 3 | 4,
        }
    }
}

pub(super) const fn forced_verdict() -> u64 {
    FORCED
}

/// What "does it open?" is judged by.
pub(super) fn trip_inputs(counts: Counts, minimum_calls: u64, rates: Rates) -> [u64; INPUTS] {
    let Counts { calls, failures, slow } = counts;
    [calls, failures, slow, minimum_calls, u64::from(rates.failure), u64::from(rates.slow), 0]
}

/// Decides a recorded question again: the verdict it must have had. None: no such question, or no such inputs.
pub(super) fn replay(question: u8, now: u64, inputs: [u64; INPUTS]) -> Option<u64> {
    match question {
        ADMIT => {
            let [head, time, counts, small, probe_limit, open_for, open_cap] = inputs;
            if (head >> 8) & 3 == Mode::ForcedOpen.number() {
                return Some(FORCED);
            }
            let timing = Timing {
                open_for,
                open_cap,
                growth: (small >> 16) as u16,
                probes: small as u16,
                probe_limit,
            };
            let mut machine = Machine::from_words([head, time, counts])?;
            Some(machine.admit(timing, now).verdict())
        }
        TRIP => {
            let [calls, failures, slow, minimum, failure_rate, slow_rate, _] = inputs;
            let rates = Rates { failure: failure_rate as u32, slow: slow_rate as u32 };
            Some(u64::from(rates.trip(Counts { calls, failures, slow }, minimum)))
        }
        PROBE_ENDED => {
            let [head, time, counts, small, rates, open_for, open_cap] = inputs;
            let rates = Rates { failure: rates as u32, slow: (rates >> 32) as u32 };
            let timing = Timing {
                open_for,
                open_cap,
                growth: (small >> 16) as u16,
                probes: small as u16,
                probe_limit: 0,
            };
            let bit = |n: u32| head >> (8 + n) & 1 == 1;
            let probe = Probe { failed: bit(0), slow: bit(1), given_back: bit(2) };
            let mut machine = Machine::from_words([head, time, counts])?;
            machine.probe_ended(rates, timing, probe, now);
            Some(machine.verdict())
        }
        _ => None,
    }
}
