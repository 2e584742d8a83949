//! The adaptive limit: as many calls at a time as go through without waiting for each other.
//!
//! In the family of Gradient2 (Netflix, "concurrency-limits"): the limit shrinks by the ratio of the response time
//! when nobody waits to the one that is measured now, and grows by its own square root while half of it is used.
//!
//! ```text
//!   gradient = tolerance · undisturbed / measured, in [0.5, 1]      limit' = limit · gradient + √limit
//! ```
//! What is different is where the undisturbed time comes from. A long average creeps up when overload lasts, and
//! a minimum never learns that the callee got slower. Here it is *measured*, always by the same experiment: with half
//! the concurrency, is the response time shorter? If so, calls waited for each other, and the limit was too high;
//! if not, that is how long the callee takes. Shrinking makes the experiment by itself; while the limit is used up and
//! does not shrink, a probe makes it now and then.

use std::time::Duration;

use mainstay_envelope::Monotonic;

use crate::load_shed::spec::Adaptive;

/// Fewer responses than this tell nothing: the mean of fifty exponential times is within a fifth, mostly.
const SAMPLES_MIN: u32 = 50;
/// With half the concurrency the response time must fall below this share, or the halving didn't help.
const HELPED: f64 = 0.75;
/// In one window the limit at most halves.
const GRADIENT_MIN: f64 = 0.5;

/// What one call told about the callee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// It answered; how long that took counts.
    Answered,
    /// It failed as an overloaded callee does: a timeout, a refusal of its own. How long that took says nothing.
    Overloaded,
    /// Nothing: the call was cancelled, or never reached the callee.
    Nothing,
}

/// A limit that follows what is measured. One owner; some nanoseconds a sample, and no allocation.
#[derive(Debug)]
pub struct Gradient {
    settings: Adaptive,
    limit: f64,
    /// The response time when nobody waits, in nanoseconds.
    undisturbed: Option<f64>,
    window: Window,
    /// The limit, and the response time with it, from which the limit is shrinking.
    descent: Option<(f64, f64)>,
    /// While probing: the limit, and the response time with it, before the probe.
    before_probe: Option<(f64, f64)>,
    next_probe: Monotonic,
    /// SplitMix64: spreads the probes.
    chance: u64,
}

#[derive(Debug)]
struct Window {
    began: Monotonic,
    /// Calls that began before are not counted: they met another limit.
    counts_from: Monotonic,
    nanos: f64,
    answered: u32,
    overloaded: u32,
    /// The most that were under way.
    peak: u32,
}

impl Window {
    fn new(began: Monotonic, counts_from: Monotonic) -> Self {
        Window { began, counts_from, nanos: 0.0, answered: 0, overloaded: 0, peak: 0 }
    }
}

impl Gradient {
    /// Begins at `initial`. `seed` is chance, drawn once: it spreads the probes of clients that began together.
    pub fn new(settings: Adaptive, now: Monotonic, seed: u64) -> Self {
        let mut gradient = Gradient {
            settings,
            limit: f64::from(settings.initial),
            undisturbed: None,
            window: Window::new(now, Monotonic::ORIGIN),
            descent: None,
            before_probe: None,
            next_probe: now,
            chance: seed,
        };
        // Soon: a process that starts into an overload has taken a disturbed time for an undisturbed one.
        gradient.next_probe = now + gradient.spread(settings.window * 10);
        gradient
    }

    /// The limit now.
    pub fn limit(&self) -> u32 {
        // Within `min` and `max`, which are 32 bits.
        self.limit as u32
    }

    /// The response time when nobody waits, as far as has been measured.
    pub fn undisturbed(&self) -> Option<Duration> {
        self.undisturbed.map(|nanos| Duration::from_nanos(nanos as u64))
    }

    /// Whether the limit is lowered at this moment to measure.
    pub fn is_probing(&self) -> bool {
        self.before_probe.is_some()
    }

    /// Counts a call that began at `began` and ended at `now`, while `in_flight` were under way, itself included.
    /// Answers true when the limit was set anew.
    pub fn record(&mut self, now: Monotonic, began: Monotonic, sample: Sample, in_flight: u32) -> bool {
        if sample == Sample::Nothing || began < self.window.counts_from {
            return false;
        }
        self.window.peak = self.window.peak.max(in_flight);
        if sample == Sample::Answered {
            self.window.answered += 1;
            self.window.nanos += now.saturating_since(began).as_nanos() as f64;
        } else {
            self.window.overloaded += 1;
        }
        let samples = self.window.answered + self.window.overloaded;
        if samples < SAMPLES_MIN || now.saturating_since(self.window.began) < self.settings.window {
            return false;
        }
        let next = Window::new(now, Monotonic::ORIGIN);
        let window = std::mem::replace(&mut self.window, next);
        self.close(now, &window);
        true
    }

    /// Other settings; what was measured stays.
    pub fn reconfigure(&mut self, settings: Adaptive) {
        self.settings = settings;
        self.set(self.limit);
    }

    /// Moves the limit to `limit`, as where it stands when it was fixed before.
    pub fn begin_at(&mut self, limit: u32) {
        self.set(f64::from(limit));
    }

    fn close(&mut self, now: Monotonic, window: &Window) {
        let answered = f64::from(window.answered);
        let failed = f64::from(window.overloaded) / (answered + f64::from(window.overloaded));
        // A callee of whom all fails: shrink, and learn no time from it.
        let mean = (window.answered > 0).then(|| window.nanos / answered);
        if let Some((limit, disturbed)) = self.before_probe {
            return self.step_probe(now, (limit, disturbed), mean.unwrap_or(disturbed));
        }
        let mut gradient = 1.0 - failed / 2.0;
        if let Some(mean) = mean {
            gradient *= self.gradient_of(mean);
        }
        let is_half_used = f64::from(window.peak) * 2.0 >= self.limit;
        let is_used_up = window.peak >= self.limit();
        let growth = if is_half_used { self.limit.sqrt() } else { 0.0 };
        self.set(self.limit * gradient.max(GRADIENT_MIN) + growth);
        // Only while it is used up: at other times halving it could do nothing but refuse what fits.
        if let Some(mean) = mean
            && is_used_up
            && now >= self.next_probe
        {
            self.before_probe = Some((self.limit, mean));
            self.descent = None;
            self.halve(now, self.limit);
        }
    }

    /// The ratio of the undisturbed time, with tolerance, to `mean`; at most 1. Learns on the way.
    fn gradient_of(&mut self, mean: f64) -> f64 {
        let tolerance = self.settings.tolerance;
        let undisturbed = match self.undisturbed {
            // Faster than undisturbed by more than chance: the callee recovered.
            Some(known) if mean * tolerance >= known => known,
            _ => mean,
        };
        self.undisturbed = Some(undisturbed);
        let gradient = (tolerance * undisturbed / mean).min(1.0);
        if gradient >= 1.0 {
            self.descent = None;
            return gradient;
        }
        let (limit, before) = *self.descent.get_or_insert((self.limit, mean));
        if self.limit > limit / 2.0 {
            return gradient;
        }
        if mean >= before * HELPED {
            // Half the concurrency and no faster: it is not ours that wait for each other.
            self.undisturbed = Some(mean);
            self.descent = None;
            return 1.0;
        }
        self.descent = Some((self.limit, mean));
        gradient
    }

    /// One halving is measured: another one, or back.
    fn step_probe(&mut self, now: Monotonic, before: (f64, f64), mean: f64) {
        let (_, last) = self.descent.unwrap_or(before);
        let can_halve = self.limit > f64::from(self.settings.min);
        if mean < last * HELPED && can_halve {
            self.descent = Some((self.limit, mean));
            self.halve(now, self.limit);
            return;
        }
        // With half of it, no faster: so long does it take. (At the lowest limit: as near as one gets.)
        let undisturbed = mean.min(last);
        self.undisturbed = Some(undisturbed);
        self.before_probe = None;
        self.descent = None;
        let (limit, disturbed) = before;
        self.set(limit * (self.settings.tolerance * undisturbed / disturbed).min(1.0));
        self.next_probe = now + self.spread(self.settings.probe_every);
        self.window = Window::new(now, now);
    }

    fn halve(&mut self, now: Monotonic, from: f64) {
        self.set(from / 2.0);
        self.window = Window::new(now, now);
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(f64::from(self.settings.min), f64::from(self.settings.max));
    }

    /// Between 0.75 and 1.25 of `time`.
    fn spread(&mut self, time: Duration) -> Duration {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let uniform = (z ^ (z >> 31)) as f64 / u64::MAX as f64;
        time.mul_f64(0.75 + uniform / 2.0)
    }
}
