//! What is simulated: the load, the services, how they call each other, and what befalls them.

use std::time::Duration;

use mainstay_envelope::Priority;

use crate::{circuit_breaker, load_shed, rate_limit, retry};

/// A load, the services it meets (the first is where it comes in), and how long it lasts.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub(super) name: String,
    pub(super) services: Vec<Service>,
    pub(super) load: Load,
    pub(super) lasts: Duration,
}

impl Scenario {
    /// A scenario without services yet. `lasts` is how long requests come; the run goes on until each has its answer.
    pub fn new(name: impl Into<String>, load: Load, lasts: Duration) -> Self {
        Scenario { name: name.into(), services: Vec::new(), load, lasts }
    }

    /// Adds a service. The first is the one that the load comes to; links refer to services by their number here,
    /// from 0.
    #[must_use]
    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Who asks, how often, how urgently, and how long they wait. Open loop: nobody asks less because answers are late.
#[derive(Debug, Clone)]
pub struct Load {
    pub(super) steps: Vec<(Duration, f64)>,
    pub(super) herds: Vec<(Duration, u32)>,
    pub(super) arrivals: Arrivals,
    pub(super) mix: Vec<(Priority, f64)>,
    pub(super) deadline: Duration,
}

/// How requests follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// By chance, as independent users do (a Poisson process).
    Poisson,
    /// At equal distances.
    Even,
}

impl Load {
    /// `rate` requests a second from the beginning, by chance, of normal priority, each waiting for a second.
    pub fn constant(rate: f64) -> Self {
        Load {
            steps: vec![(Duration::ZERO, rate)],
            herds: Vec::new(),
            arrivals: Arrivals::Poisson,
            mix: vec![(Priority::Normal, 1.0)],
            deadline: Duration::from_secs(1),
        }
    }

    /// From `at` on, `rate` requests a second. Steps are given in the order of time.
    #[must_use]
    pub fn step(mut self, at: Duration, rate: f64) -> Self {
        self.steps.push((at, rate));
        self
    }

    /// At `at`, `requests` more at once: a herd.
    #[must_use]
    pub fn herd(mut self, at: Duration, requests: u32) -> Self {
        self.herds.push((at, requests));
        self
    }

    /// How requests follow each other.
    #[must_use]
    pub fn arrivals(mut self, arrivals: Arrivals) -> Self {
        self.arrivals = arrivals;
        self
    }

    /// What share of them has which priority. The shares count relative to their sum.
    #[must_use]
    pub fn mix(mut self, mix: impl IntoIterator<Item = (Priority, f64)>) -> Self {
        self.mix = mix.into_iter().collect();
        self
    }

    /// How long each waits for its answer.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

/// How long a piece of work takes a healthy worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Exactly so long.
    Exact(Duration),
    /// So long on average, exponentially distributed: most are shorter, some much longer.
    Exponential(Duration),
}

/// How well a service is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condition {
    /// It works.
    Healthy,
    /// Its work takes so many times as long.
    Slow(f64),
    /// This share of its work fails, after the usual time.
    Failing(f64),
    /// Everything fails at once, as when nobody listens.
    Down,
    /// What is begun never ends, and its worker with it.
    Hanging,
}

/// In which order a service makes its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fan {
    /// One after the other; the retry tokens of the request go along with each.
    #[default]
    Sequential,
    /// All at once; the tokens are divided.
    Parallel,
}

/// One service: rules on the way in, workers, calls to others.
#[derive(Debug, Clone)]
pub struct Service {
    pub(super) name: String,
    pub(super) workers: u32,
    pub(super) work: Work,
    pub(super) queue: usize,
    pub(super) conditions: Vec<(Duration, Condition)>,
    pub(super) shed: Option<load_shed::Checked>,
    pub(super) limit: Option<rate_limit::Checked>,
    pub(super) links: Vec<Link>,
    pub(super) fan: Fan,
}

impl Service {
    /// A service of so many workers, each doing one piece of `work` for a request, with a queue of a million in
    /// front of them and no rule at all: the server of the bad old days.
    pub fn new(name: impl Into<String>, workers: u32, work: Work) -> Self {
        Service {
            name: name.into(),
            workers,
            work,
            queue: 1_000_000,
            conditions: Vec::new(),
            shed: None,
            limit: None,
            links: Vec::new(),
            fan: Fan::Sequential,
        }
    }

    /// A service that does nothing but call others.
    pub fn caller(name: impl Into<String>) -> Self {
        Service::new(name, u32::MAX, Work::Exact(Duration::ZERO))
    }

    /// How many may wait for a worker; more are refused.
    #[must_use]
    pub fn queue(mut self, queue: usize) -> Self {
        self.queue = queue;
        self
    }

    /// From `at` on it is in this condition. Given in the order of time.
    #[must_use]
    pub fn from(mut self, at: Duration, condition: Condition) -> Self {
        self.conditions.push((at, condition));
        self
    }

    /// Between `from` and `to` it is in this condition and healthy by turns, `period` each.
    #[must_use]
    pub fn flapping(mut self, from: Duration, to: Duration, period: Duration, condition: Condition) -> Self {
        let mut at = from;
        let mut is_well = false;
        // A period of nothing would never get to the end.
        while at < to && !period.is_zero() {
            self.conditions.push((at, if is_well { Condition::Healthy } else { condition }));
            is_well = !is_well;
            at += period;
        }
        self.conditions.push((to, Condition::Healthy));
        self
    }

    /// Sheds load on the way in. A permit is held until the answer, calls to others included.
    #[must_use]
    pub fn shed(mut self, settings: load_shed::Checked) -> Self {
        self.shed = Some(settings);
        self
    }

    /// Limits the rate on the way in.
    #[must_use]
    pub fn limit(mut self, settings: rate_limit::Checked) -> Self {
        self.limit = Some(settings);
        self
    }

    /// Calls another service, after its own work.
    #[must_use]
    pub fn calls(mut self, link: Link) -> Self {
        self.links.push(link);
        self
    }

    /// The order in which it makes its calls.
    #[must_use]
    pub fn fan(mut self, fan: Fan) -> Self {
        self.fan = fan;
        self
    }
}

/// What retries may spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retries {
    /// The tokens that travel with the request. The first service lends them, as an edge does.
    Tokens(retry::Checked),
    /// As many as the settings allow, whatever the others do.
    Unbudgeted(retry::Checked),
}

/// One service's calls to another, with the rules they go through on the way out. What they do is safe to repeat.
#[derive(Debug, Clone)]
pub struct Link {
    pub(super) to: usize,
    pub(super) attempt: Duration,
    pub(super) latency: Duration,
    pub(super) retries: Option<Retries>,
    pub(super) breaker: Option<circuit_breaker::Checked>,
    pub(super) limit: Option<load_shed::Checked>,
}

impl Link {
    /// Calls to the service of that number. Each try may take `attempt`, and no longer than its request has left.
    pub fn to(service: usize, attempt: Duration) -> Self {
        let latency = Duration::from_micros(500);
        Link { to: service, attempt, latency, retries: None, breaker: None, limit: None }
    }

    /// The way there, and the way back. Default 0.5 ms.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Retries what failed.
    #[must_use]
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = Some(retries);
        self
    }

    /// Breaks the circuit.
    #[must_use]
    pub fn breaker(mut self, settings: circuit_breaker::Checked) -> Self {
        self.breaker = Some(settings);
        self
    }

    /// Limits how many calls are under way. Nobody waits here, whatever the settings' queue.
    #[must_use]
    pub fn limit(mut self, settings: load_shed::Checked) -> Self {
        self.limit = Some(settings);
        self
    }
}
