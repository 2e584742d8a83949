//! What a run gives: counts in steps of 100 ms, and the three figures that are asked of them.

use std::fmt::{self, Display};
use std::time::Duration;

use mainstay_envelope::{Monotonic, Priority};

use super::plot::Plot;

/// How a request, or a call, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Good,
    Failed,
    Refused,
    Late,
}

/// Requests and what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Requests that came.
    pub offered: u64,
    /// Answered well and in time.
    pub good: u64,
    /// Answered in time that they are refused.
    pub refused: u64,
    /// Answered in time with a failure.
    pub failed: u64,
    /// Not answered in time.
    pub late: u64,
}

impl Tally {
    /// The share that was answered well and in time; 1 of nothing.
    pub fn success(&self) -> f64 {
        if self.offered == 0 { 1.0 } else { self.good as f64 / self.offered as f64 }
    }

    fn count(&mut self, end: End) {
        match end {
            End::Good => self.good += 1,
            End::Failed => self.failed += 1,
            End::Refused => self.refused += 1,
            End::Late => self.late += 1,
        }
    }
}

/// A tenth of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// What came in this time, and what became of it, whenever that was.
    pub of_arrivals: Tally,
    /// Good answers given in this time, whenever asked for.
    pub good: u32,
    /// Refusals given in this time.
    pub refused: u32,
}

/// One service, in steps of [`Report::BUCKET`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServiceReport {
    /// Its name.
    pub name: String,
    /// Calls that arrived there, retries included.
    pub calls: Vec<u32>,
    /// The limit of its load shedding, or of its first limited link, at the beginning of each step; 0 without.
    pub limit: Vec<u32>,
    /// What is under way within that limit.
    pub in_flight: Vec<u32>,
    /// What waits: for a permit, or for a worker.
    pub waiting: Vec<u32>,
    /// Calls that arrive for each request when nothing is retried.
    pub natural: f64,
}

/// What a run gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The scenario's.
    pub name: String,
    /// The seed that repeats it.
    pub seed: u64,
    /// All requests.
    pub total: Tally,
    /// The same by priority, the lowest first.
    pub by_priority: [Tally; 4],
    /// The same by time.
    pub buckets: Vec<Bucket>,
    /// The services, in the scenario's order.
    pub services: Vec<ServiceReport>,
}

impl Report {
    /// The step in which time is counted.
    pub const BUCKET: Duration = Duration::from_millis(100);

    pub(super) fn new(
        name: String,
        seed: u64,
        lasts: Duration,
        names: Vec<String>,
        links: Vec<Vec<usize>>,
    ) -> Self {
        let mut natural = vec![0.0; names.len()];
        if let Some(first) = natural.first_mut() {
            *first = 1.0;
        }
        // Links only go to later services, so each is complete when it is passed on.
        for (from, links) in links.iter().enumerate() {
            for to in links {
                natural[*to] += natural[from];
            }
        }
        let count = lasts.as_nanos().div_ceil(Self::BUCKET.as_nanos());
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let service = |(name, natural)| ServiceReport {
            name,
            natural,
            calls: vec![0; count],
            limit: vec![0; count],
            in_flight: vec![0; count],
            waiting: vec![0; count],
        };
        Report {
            name,
            seed,
            total: Tally::default(),
            by_priority: Default::default(),
            buckets: vec![Bucket::default(); count],
            services: names.into_iter().zip(natural).map(service).collect(),
        }
    }

    /// Good answers a second between `from` and `to`.
    pub fn goodput(&self, from: Duration, to: Duration) -> f64 {
        let good: u32 = self.between(&self.buckets, from, to).iter().map(|bucket| bucket.good).sum();
        per_second(good.into(), from, to)
    }

    /// What came between `from` and `to`, and what became of it.
    pub fn tally(&self, from: Duration, to: Duration) -> Tally {
        self.between(&self.buckets, from, to).iter().fold(Tally::default(), |sum, bucket| {
            let of = bucket.of_arrivals;
            Tally {
                offered: sum.offered + of.offered,
                good: sum.good + of.good,
                refused: sum.refused + of.refused,
                failed: sum.failed + of.failed,
                late: sum.late + of.late,
            }
        })
    }

    /// The work that retries make of one piece: calls that arrived at `service` between `from` and `to`, by those
    /// that would have arrived there for the same requests without a retry. 0 for a service that isn't there.
    pub fn amplification(&self, service: usize, from: Duration, to: Duration) -> f64 {
        let Some(report) = self.services.get(service) else { return 0.0 };
        let calls: u64 = self.between(&report.calls, from, to).iter().copied().map(u64::from).sum();
        let offered = self.tally(from, to).offered;
        if offered == 0 { 0.0 } else { calls as f64 / (offered as f64 * report.natural) }
    }

    /// How long after `trouble_ended` it takes until 99 of 100 requests are answered well, over every second from
    /// there to the end. None if that never comes.
    pub fn recovery(&self, trouble_ended: Duration) -> Option<Duration> {
        const SECOND: usize = 10;
        let first = index(trouble_ended);
        let is_well = |begin: usize| {
            let end = (begin + SECOND).min(self.buckets.len());
            let of = self.buckets[begin..end].iter().map(|bucket| bucket.of_arrivals);
            let (good, offered) = of.fold((0, 0), |sum, of| (sum.0 + of.good, sum.1 + of.offered));
            good * 100 >= offered * 99
        };
        let last_bad = (first..self.buckets.len()).rev().find(|begin| !is_well(*begin));
        match last_bad {
            None => Some(Duration::ZERO),
            // The second that begins last is cut off: nothing is known of what comes after it.
            Some(bad) if bad + SECOND >= self.buckets.len() => None,
            Some(bad) => Some((Self::BUCKET * u32::try_from(bad + 1).ok()?).saturating_sub(trouble_ended)),
        }
    }

    /// The whole run as a picture: requests, calls at each service, and what the limits did.
    pub fn plot(&self) -> Plot {
        let buckets = |of: fn(&Bucket) -> u32| smooth(self.buckets.iter().map(of).collect());
        let mut plot = Plot::new(format!("{}, seed {}", self.name, self.seed), Self::BUCKET)
            .panel("requests a second, mean of half a second")
            .series(
                "offered",
                buckets(|bucket| u32::try_from(bucket.of_arrivals.offered).unwrap_or(u32::MAX)),
            )
            .series("good", buckets(|bucket| bucket.good))
            .series("refused", buckets(|bucket| bucket.refused));
        if self.services.len() > 1 {
            plot = plot.panel("calls a second, with retries");
            for service in &self.services {
                plot = plot.series(&service.name, smooth(service.calls.clone()));
            }
        }
        for service in &self.services {
            let as_is = |counts: &[u32]| counts.iter().copied().map(f64::from).collect::<Vec<f64>>();
            if service.limit.iter().any(|limit| *limit > 0) {
                plot = plot
                    .panel(format!("{}: calls at a time", service.name))
                    .series("limit", as_is(&service.limit))
                    .series("under way", as_is(&service.in_flight))
                    .series("waiting", as_is(&service.waiting));
            } else if service.waiting.iter().any(|waiting| *waiting > 100) {
                plot = plot
                    .panel(format!("{}: the queue", service.name))
                    .series("waiting", as_is(&service.waiting));
            }
        }
        plot
    }

    pub(super) fn offered(&mut self, now: Monotonic, priority: Priority) {
        self.total.offered += 1;
        self.by_priority[priority as usize].offered += 1;
        if let Some(bucket) = self.buckets.get_mut(index(now.since_origin())) {
            bucket.of_arrivals.offered += 1;
        }
    }

    pub(super) fn ended(&mut self, now: Monotonic, arrived: Monotonic, priority: Priority, end: End) {
        self.total.count(end);
        self.by_priority[priority as usize].count(end);
        if let Some(bucket) = self.buckets.get_mut(index(arrived.since_origin())) {
            bucket.of_arrivals.count(end);
        }
        if let Some(bucket) = self.buckets.get_mut(index(now.since_origin())) {
            match end {
                End::Good => bucket.good += 1,
                End::Refused => bucket.refused += 1,
                End::Failed | End::Late => {}
            }
        }
    }

    pub(super) fn called(&mut self, now: Monotonic, service: usize) {
        if let Some(calls) = self.services[service].calls.get_mut(index(now.since_origin())) {
            *calls += 1;
        }
    }

    pub(super) fn measured(
        &mut self,
        now: Monotonic,
        service: usize,
        limit: u32,
        in_flight: u32,
        waiting: u32,
    ) {
        let at = index(now.since_origin());
        let report = &mut self.services[service];
        for (counts, count) in
            [(&mut report.limit, limit), (&mut report.in_flight, in_flight), (&mut report.waiting, waiting)]
        {
            if let Some(place) = counts.get_mut(at) {
                *place = count;
            }
        }
    }

    fn between<'a, T>(&self, steps: &'a [T], from: Duration, to: Duration) -> &'a [T] {
        let end = index(to).min(steps.len());
        &steps[index(from).min(end)..end]
    }
}

fn index(at: Duration) -> usize {
    usize::try_from(at.as_nanos() / Report::BUCKET.as_nanos()).unwrap_or(usize::MAX)
}

/// Counts of each step as a rate a second: the mean of the step, the two before it and the two after it. Single steps
/// hold so few that chance is all one would see.
fn smooth(counts: Vec<u32>) -> Vec<f64> {
    const AROUND: usize = 2;
    let mean = |at: usize| {
        let near = &counts[at.saturating_sub(AROUND)..(at + AROUND + 1).min(counts.len())];
        let sum: u64 = near.iter().copied().map(u64::from).sum();
        sum as f64 / (near.len() as f64 * Report::BUCKET.as_secs_f64())
    };
    (0..counts.len()).map(mean).collect()
}

fn per_second(count: u64, from: Duration, to: Duration) -> f64 {
    let seconds = to.saturating_sub(from).as_secs_f64();
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// The figures of the whole run, for people.
impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { offered, good, refused, failed, late } = self.total;
        writeln!(f, "{} (seed {})", self.name, self.seed)?;
        writeln!(f, "  requests {offered}, good {good}, refused {refused}, failed {failed}, late {late}")?;
        for (priority, tally) in Priority::ALL.iter().zip(&self.by_priority).rev() {
            if tally.offered > 0 && tally.offered < offered {
                let (share, name) = (tally.success() * 100.0, priority.as_str());
                writeln!(f, "  {name:>12}: {share:.2} % of {} good", tally.offered)?;
            }
        }
        let lasts = Self::BUCKET * u32::try_from(self.buckets.len()).unwrap_or(u32::MAX);
        for (number, service) in self.services.iter().enumerate().skip(1) {
            let times = self.amplification(number, Duration::ZERO, lasts);
            writeln!(f, "  {:>12}: {times:.3} times the calls that the requests need", service.name)?;
        }
        Ok(())
    }
}
