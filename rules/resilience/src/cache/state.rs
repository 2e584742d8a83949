//! The decisions: pure. Times, chance and what is known come in, a verdict goes out.
//!
//! [`Found`] and [`Times`] decide what a kept entry is good for at a moment; [`Arrival`] decides who loads, joins or is
//! turned away; [`Crew`] decides who leads a load that several wait for, for how long, and who takes over.

use std::time::Duration;

use mainstay_envelope::{Monotonic, Priority};

use super::spec::Spec;

/// The least δ: a load that took less counts as one millisecond, so that a clock that stood still during it (a
/// coarse one, or a virtual one) does not turn early refreshing off.
pub const LEAST_DELTA: Duration = Duration::from_millis(1);

/// −ln of the smallest `u` that [`unit`] makes, rounded up: 53·ln 2 = 36.74. No draw is worth more.
const LARGEST_DRAW: f64 = 36.75;

/// 64 random bits as a number uniform in (0, 1], in steps of 2⁻⁵³.
pub const fn unit(draw: u64) -> f64 {
    // Both conversions are exact: at most 2⁵³.
    ((draw >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

/// XFetch: whether a reader at `now` loads a value anew that expires at `expiry`, took `delta` to load and is still
/// served: `now − δ·β·ln(u) ≥ expiry`, with `u` uniform in (0, 1].
///
/// A. Vattani, F. Chierichetti, K. Lowenstein: "Optimal Probabilistic Cache Stampede Prevention", PVLDB 8(8), 2015.
/// With many readers, about one refreshes, some δ·β·ln(readers per δ) before the expiry. It is likely to be one, not
/// certain: several processes that cache the same value draw independently.
pub fn should_refresh(now: Monotonic, expiry: Monotonic, delta: Duration, beta: f64, u: f64) -> bool {
    now + scaled(delta, -u.ln() * beta) >= expiry
}

/// `time · factor`; zero for a factor that is none, the longest there is for one too large.
fn scaled(time: Duration, factor: f64) -> Duration {
    if factor.is_nan() || factor <= 0.0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

/// `time` shortened by up to `share` of it, as `draw` says. Never zero unless `time` is.
pub fn jittered(time: Duration, share: f64, draw: u64) -> Duration {
    let off = scaled(time, share * (1.0 - unit(draw)));
    time.saturating_sub(off)
}

/// When a kept entry is good for what. Instants of the clock of the process. How long past its expiry it may be served
/// is up to the settings of the moment, so that an operator can lengthen it while a source is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// When it was loaded or written.
    pub since: Monotonic,
    /// How long loading it took, at least [`LEAST_DELTA`].
    pub delta: Duration,
    /// Before this no chance makes a reader refresh it: spares every other hit the draw.
    pub early_from: Monotonic,
    /// Until this it is fresh.
    pub expiry: Monotonic,
}

/// What an entry is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it.
    Fresh,
    /// Serve it, and load it anew in the background: chance picked this reader.
    RefreshEarly,
    /// Serve it though it is stale, and load it anew in the background.
    Revalidate,
    /// Serve it though it is stale: the load failed a moment ago, and nobody is to try again yet.
    Stale,
    /// Load it; if that fails in a way that may pass, serve it.
    LoadOrStale,
    /// Load it.
    Load,
    /// Answer that there is none: that is known.
    Absent,
    /// Hand the error on with which loading it failed a moment ago.
    Failed,
}

/// What lies in the storage under a key. What a tag has invalidated counts as nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A value.
    Value {
        /// Its instants.
        times: Times,
        /// A load of it failed a moment ago, and nobody is to try again yet.
        held: bool,
    },
    /// That there is no value: known until then.
    Absent {
        /// Exclusive.
        until: Monotonic,
    },
    /// That loading it failed: remembered until then.
    Failed {
        /// Exclusive.
        until: Monotonic,
    },
}

impl Found {
    /// What it is good for at `now`. `draw` is asked for as [`Times::judge`] says.
    pub fn judge(&self, spec: &Spec, now: Monotonic, draw: impl FnOnce() -> u64) -> Verdict {
        match self {
            Self::Value { times, held } => times.judge(spec, now, *held, draw),
            Self::Absent { until } if now < *until => Verdict::Absent,
            Self::Failed { until } if now < *until => Verdict::Failed,
            Self::Nothing | Self::Absent { .. } | Self::Failed { .. } => Verdict::Load,
        }
    }
}

/// What somebody finds who asks for a value of which nothing usable is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Until when they can wait; none: for ever.
    pub until: Option<Monotonic>,
    /// Callers who wait, of all keys, before this one.
    pub waiting: usize,
    /// How many may.
    pub waiters_max: usize,
    /// A load of the key is under way that they may join.
    pub under_way: bool,
    /// Loads under way, of all keys; it counts only if there is none to join.
    pub loading: usize,
    /// How many may be.
    pub loads_max: usize,
}

/// What becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// They wait for the load that is under way.
    Join,
    /// They begin a load.
    Load,
    /// Refused: their deadline is reached.
    Late,
    /// Refused: as many wait as may.
    TooManyWait,
    /// Refused: as many loads are under way as may be.
    TooManyLoads,
}

impl Arrival {
    /// What becomes of them at `now`. What keeps them from waiting is asked before what keeps them from loading.
    pub fn admit(&self, now: Monotonic) -> Admission {
        if self.until.is_some_and(|until| until <= now) {
            Admission::Late
        } else if self.waiting >= self.waiters_max {
            Admission::TooManyWait
        } else if self.under_way {
            Admission::Join
        } else if self.loading >= self.loads_max {
            Admission::TooManyLoads
        } else {
            Admission::Load
        }
    }
}

impl Times {
    /// Of what was loaded from `begun` to `now`, by these settings. `ttl`: what the loader asked for in place of
    /// [`Spec::ttl`], cut to [`super::LONGEST`]. `draw` spreads the expiry.
    pub fn of_load(spec: &Spec, ttl: Option<Duration>, begun: Monotonic, now: Monotonic, draw: u64) -> Self {
        let delta = now.saturating_since(begun).max(LEAST_DELTA);
        let ttl = jittered(ttl.unwrap_or(spec.ttl).min(super::LONGEST), spec.ttl_jitter, draw);
        let expiry = now + ttl;
        let earliest = scaled(delta, LARGEST_DRAW * spec.early_refresh);
        Times {
            since: now,
            delta,
            early_from: Monotonic::from_origin(expiry.since_origin().saturating_sub(earliest)),
            expiry,
        }
    }

    /// Of what is remembered for `time` and then gone: that there is no value, that a load failed.
    pub fn of_absence(time: Duration, share: f64, now: Monotonic, draw: u64) -> Self {
        let expiry = now + jittered(time, share, draw);
        Times { since: now, delta: LEAST_DELTA, early_from: expiry, expiry }
    }

    /// What it is good for at `now`. `held`: a load failed a moment ago and nobody is to try again yet. `draw` is
    /// asked for only where chance has a say: late in the life of what is fresh.
    ///
    /// An entry expires *at* its expiry: from that instant on it is not fresh.
    pub fn judge(&self, spec: &Spec, now: Monotonic, held: bool, draw: impl FnOnce() -> u64) -> Verdict {
        if now < self.early_from {
            return Verdict::Fresh;
        }
        if now < self.expiry {
            let refresh =
                !held && should_refresh(now, self.expiry, self.delta, spec.early_refresh, unit(draw()));
            return if refresh { Verdict::RefreshEarly } else { Verdict::Fresh };
        }
        let stale = now.saturating_since(self.expiry);
        match (stale < spec.stale_while_revalidate, stale < spec.stale_if_error) {
            (false, false) => Verdict::Load,
            _ if held => Verdict::Stale,
            (true, _) => Verdict::Revalidate,
            (false, true) => Verdict::LoadOrStale,
        }
    }

    /// Whether it may be served at `now` in place of an error.
    pub fn covers_errors(&self, spec: &Spec, now: Monotonic) -> bool {
        now < self.expiry
            || now.saturating_since(self.expiry) < spec.stale_if_error.max(spec.stale_while_revalidate)
    }
}

/// Loads of one value that may be begun after the leader of the first died: one. A source that kills its loads kills
/// the next one, too, and a thousand waiters would try it one after another.
pub const HAND_OVERS: u8 = 1;

/// Those who wait for one load: what its leader may spend, and who follows it when it dies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crew {
    priority: Priority,
    deadline: Monotonic,
    limit: Monotonic,
    waiting: usize,
    /// Of those, how many could lead a load of their own.
    able: usize,
    handed_over: u8,
    vacant: bool,
}

/// What follows when a leader died, or a waiter left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Go on as before.
    Unchanged,
    /// The load is nobody's: the first of the able waiters that takes it leads.
    Vacant,
    /// Nobody will load it any more: all who wait get to know it.
    Over,
}

impl Crew {
    /// The crew of a load that begins at `now` and may last until `limit`, for one caller (who may be nobody: a load
    /// in the background). Without a deadline a caller waits until the limit.
    pub fn new(priority: Priority, deadline: Option<Monotonic>, limit: Monotonic) -> Self {
        let deadline = deadline.unwrap_or(limit).min(limit);
        Crew { priority, deadline, limit, waiting: 0, able: 0, handed_over: 0, vacant: false }
    }

    /// One more waits. The load gets the highest priority and the latest deadline of all.
    pub fn join(&mut self, priority: Priority, deadline: Option<Monotonic>, able: bool) {
        self.priority = self.priority.max(priority);
        self.deadline = self.deadline.max(deadline.unwrap_or(self.limit)).min(self.limit);
        self.waiting += 1;
        self.able += usize::from(able);
    }

    /// One leaves. What it brought (priority, deadline) stays: the load is under way with it. The load goes on,
    /// also when it was the last: what it brings is kept for the next caller.
    pub fn leave(&mut self, able: bool) -> Next {
        self.waiting -= 1;
        self.able -= usize::from(able);
        if self.vacant && self.able == 0 { Next::Over } else { Next::Unchanged }
    }

    /// The leader died: it panicked, was cancelled, or did not end in time.
    pub fn died(&mut self) -> Next {
        if self.handed_over >= HAND_OVERS || self.able == 0 {
            return Next::Over;
        }
        self.handed_over += 1;
        self.vacant = true;
        Next::Vacant
    }

    /// An able waiter asks to lead, with a load that may last until `limit`; true for exactly one of them. It is able
    /// no more.
    pub fn take_over(&mut self, deadline: Option<Monotonic>, limit: Monotonic) -> bool {
        if !std::mem::take(&mut self.vacant) {
            return false;
        }
        self.able -= 1;
        self.limit = limit;
        self.deadline = self.deadline.max(deadline.unwrap_or(limit)).min(limit);
        true
    }

    /// The highest priority of all who ever waited.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The latest deadline of all who ever waited, at most the limit of the load.
    pub fn deadline(&self) -> Monotonic {
        self.deadline
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether it was handed over.
    pub fn was_handed_over(&self) -> bool {
        self.handed_over > 0
    }
}

#[cfg(test)]
mod tests;
