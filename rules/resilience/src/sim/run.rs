//! The run: every call's way through services and links, one event after the other.

mod keeping;
mod links;

use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::{Deadline, ManualClock, Monotonic, Priority, RetryBucket, RetryTokens, SeededChance};

use super::agenda::Agenda;
use super::chance::Dice;
use super::report::{End, Report};
use super::scenario::{Arrivals, Fan, Link, Load, Scenario, Service};
use super::server::{Piece, Server};
use crate::circuit_breaker::{self, CircuitBreaker};
use crate::load_shed::{self, Entered, Next, Permit, Sample};
use crate::outcome::Outcome;
use crate::rate_limit::TokenBucket;
use crate::record::Recorder;
use crate::retry::{self, Budget};
use crate::scope::Scope;

impl Scenario {
    /// Runs it. The same seed gives the same report.
    ///
    /// A link to a service that isn't there, or back to an earlier one, is left out: calls form a tree, in the order
    /// in which the services were added.
    pub fn run(&self, seed: u64) -> Report {
        let mut run = Run::new(self, seed);
        run.begin();
        while let Some(event) = run.agenda.next() {
            run.happen(event);
            if run.arrivals_ended && run.open_requests == 0 {
                break;
            }
        }
        run.report
    }
}

/// A call on its way. The generation tells calls apart that were kept in the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CallId {
    place: usize,
    generation: u32,
}

#[derive(Debug)]
enum Event {
    /// A request comes (true), or the rate changes before one would have come.
    Arrival(bool),
    Herd(u32),
    /// A call arrives at its service.
    Deliver(CallId),
    WorkEnds {
        service: usize,
        call: CallId,
        well: bool,
    },
    Try {
        call: CallId,
        link: usize,
    },
    Reply {
        to: CallId,
        link: usize,
        attempt: u32,
        end: End,
        tokens: RetryTokens,
    },
    TryTimesOut {
        call: CallId,
        link: usize,
        attempt: u32,
        by_deadline: bool,
    },
    /// Nobody waits for this call any more.
    Deadline(CallId),
    /// Somebody at this service may have waited for too long.
    GiveUp(usize),
    Measure,
}

#[derive(Debug)]
struct Call {
    service: usize,
    /// Who asked, through which of its links, at which try, and how long the way back is. None: a request.
    from: Option<(CallId, usize, u32, Duration)>,
    arrived: Monotonic,
    priority: Priority,
    deadline: Deadline,
    tokens: RetryTokens,
    permit: Option<Permit>,
    runs: Vec<LinkRun>,
    open_links: usize,
    has_failed: bool,
    /// The request's caller has left; a service without rules works on.
    is_told: bool,
}

/// One call's way through one link.
#[derive(Debug)]
struct LinkRun {
    retry: Option<retry::State<Supply>>,
    attempt: u32,
    /// What the try that is under way holds; none between two tries.
    under_way: Option<UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    ticket: Option<circuit_breaker::Ticket>,
    permit: Option<Permit>,
}

#[derive(Debug)]
enum Supply {
    Tokens(RetryTokens),
    Free,
}

impl Budget for Supply {
    fn spend(&self) -> bool {
        match self {
            Supply::Tokens(tokens) => tokens.spend(),
            Supply::Free => true,
        }
    }
}

struct Node<'a> {
    service: &'a Service,
    server: Server<CallId>,
    shed: Option<load_shed::State<CallId>>,
    limit: Option<TokenBucket>,
    links: Vec<LiveLink<'a>>,
    /// When it is looked next whether somebody waited for too long; one event at a time is enough.
    looks_at: Option<Monotonic>,
}

struct LiveLink<'a> {
    link: &'a Link,
    breaker: Option<CircuitBreaker>,
    limit: Option<load_shed::State<CallId>>,
}

struct Run<'a> {
    load: &'a Load,
    ends: Monotonic,
    agenda: Agenda<Event>,
    dice: Dice,
    nodes: Vec<Node<'a>>,
    calls: Vec<(u32, Option<Call>)>,
    free: Vec<usize>,
    bucket: RetryBucket,
    report: Report,
    open_requests: u64,
    arrivals_ended: bool,
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let dice = Dice::new(seed);
        let scope = || {
            let chance = Arc::new(SeededChance::new(dice.draw()));
            Arc::new(Scope::new("simulated", Arc::new(ManualClock::default()), chance, Recorder::off()))
        };
        let shed =
            |settings: &load_shed::Checked| load_shed::State::new(settings, Monotonic::ORIGIN, dice.draw());
        let live = |link: &'a Link| LiveLink {
            link,
            breaker: link.breaker.map(|settings| CircuitBreaker::new(settings, scope())),
            limit: link.limit.as_ref().map(shed),
        };
        let count = scenario.services.len();
        let node = |(number, service): (usize, &'a Service)| Node {
            service,
            server: Server::new(service),
            shed: service.shed.as_ref().map(shed),
            limit: service.limit.as_ref().map(TokenBucket::new),
            links: service
                .links
                .iter()
                .filter(|link| link.to > number && link.to < count)
                .map(live)
                .collect(),
            looks_at: None,
        };
        let nodes: Vec<Node<'a>> = scenario.services.iter().enumerate().map(node).collect();
        let links = nodes.iter().map(|node| node.links.iter().map(|live| live.link.to).collect()).collect();
        let names = scenario.services.iter().map(|service| service.name.clone()).collect();
        Run {
            load: &scenario.load,
            ends: Monotonic::from_origin(scenario.lasts),
            agenda: Agenda::new(),
            nodes,
            calls: Vec::new(),
            free: Vec::new(),
            bucket: RetryBucket::new(),
            report: Report::new(scenario.name.clone(), seed, scenario.lasts, names, links),
            open_requests: 0,
            arrivals_ended: false,
            dice,
        }
    }

    fn begin(&mut self) {
        if self.nodes.is_empty() {
            self.arrivals_ended = true;
            return;
        }
        self.plan_arrival();
        for (at, requests) in &self.load.herds {
            if *at < self.ends.since_origin() {
                self.agenda.at(Monotonic::from_origin(*at), Event::Herd(*requests));
            }
        }
        self.agenda.at(self.agenda.now(), Event::Measure);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival(is_request) => {
                if is_request {
                    self.arrive();
                }
                self.plan_arrival();
            }
            Event::Herd(requests) => (0..requests).for_each(|_| self.arrive()),
            Event::Deliver(call) => self.deliver(call),
            Event::WorkEnds { service, call, well } => self.work_ends(service, call, well),
            Event::Try { call, link } => self.attempt(call, link),
            Event::Reply { to, link, attempt, end, tokens } => self.reply(to, link, attempt, end, tokens),
            Event::TryTimesOut { call, link, attempt, by_deadline } => {
                let outcome = if by_deadline { Outcome::Cancelled } else { Outcome::TRANSIENT };
                if let Some(call_state) = self.call(call)
                    && call_state.runs[link].attempt == attempt
                    && call_state.runs[link].under_way.is_some()
                {
                    self.try_ends(call, link, outcome);
                }
            }
            Event::Deadline(call) => self.deadline(call),
            Event::GiveUp(service) => {
                // Of several looks that were entered, the last one enters the next.
                if self.nodes[service].looks_at.is_some_and(|at| at <= self.agenda.now()) {
                    self.nodes[service].looks_at = None;
                }
                self.settle(service);
            }
            Event::Measure => self.measure(),
        }
    }

    // ---- the load ------------------------------------------------------------------------------------------

    fn plan_arrival(&mut self) {
        let now = self.agenda.now().since_origin();
        let mut rate = 0.0;
        let mut until = self.ends.since_origin();
        for (at, step) in &self.load.steps {
            if *at <= now {
                rate = *step;
            } else {
                until = until.min(*at);
            }
        }
        let mean = if rate > 0.0 { Duration::try_from_secs_f64(1.0 / rate).ok() } else { None };
        let gap = mean.map(|mean| match self.load.arrivals {
            Arrivals::Even => mean,
            Arrivals::Poisson => self.dice.exponential(mean),
        });
        match gap {
            Some(gap) if now + gap < until => {
                self.agenda.at(Monotonic::from_origin(now + gap), Event::Arrival(true));
            }
            // The rate changes before: what would have come later is drawn anew, which chance allows.
            _ if until < self.ends.since_origin() => {
                self.agenda.at(Monotonic::from_origin(until), Event::Arrival(false));
            }
            _ => {}
        }
    }

    fn arrive(&mut self) {
        let now = self.agenda.now();
        let priority = self.priority();
        let deadline = Deadline::after(now, self.load.deadline);
        let tokens = self.bucket.lend();
        let call = self.new_call(0, None, priority, deadline, tokens);
        self.open_requests += 1;
        self.report.offered(now, priority);
        self.agenda.at(deadline.reading(), Event::Deadline(call));
        self.deliver(call);
    }

    fn priority(&self) -> Priority {
        let all: f64 = self.load.mix.iter().map(|(_, share)| share).sum();
        let mut point = self.dice.uniform() * all;
        for (priority, share) in &self.load.mix {
            point -= share;
            if point < 0.0 {
                return *priority;
            }
        }
        self.load.mix.last().map_or(Priority::Normal, |(priority, _)| *priority)
    }

    // ---- a call at its service -----------------------------------------------------------------------------

    fn deliver(&mut self, id: CallId) {
        let now = self.agenda.now();
        let Some(call) = self.call(id) else { return };
        let (service, priority, deadline) = (call.service, call.priority, call.deadline);
        let is_request = call.from.is_none();
        self.report.called(now, service);
        let node = &self.nodes[service];
        if node.limit.as_ref().is_some_and(|limit| limit.take(now, 1).is_err()) {
            return self.finish(id, End::Refused);
        }
        let Some(shed) = &node.shed else { return self.begin_work(id) };
        let entered = shed.enter(now, priority, Some(deadline), || id);
        // Whoever has rules also stops at the deadline. (A request has its deadline entered already.)
        if !is_request {
            self.agenda.at(deadline.reading(), Event::Deadline(id));
        }
        match entered {
            Entered::Admitted(permit) => {
                if let Some(call) = self.call_mut(id) {
                    call.permit = Some(permit);
                }
                self.begin_work(id);
            }
            Entered::Waiting { evicted, .. } => {
                if let Some(evicted) = evicted {
                    self.finish(evicted, End::Refused);
                }
                self.settle(service);
            }
            Entered::Refused(..) => self.finish(id, End::Refused),
        }
    }

    /// Lets go who may, gives up who waited for too long, and looks again when the next one has.
    fn settle(&mut self, service: usize) {
        let now = self.agenda.now();
        while let Some(next) = self.nodes[service].shed.as_ref().and_then(|shed| shed.next(now)) {
            match next {
                Next::Admit(id, permit) => match self.call_mut(id) {
                    Some(call) => {
                        call.permit = Some(permit);
                        self.begin_work(id);
                    }
                    // Its caller left just now.
                    None => self.release(service, permit, Sample::Nothing),
                },
                Next::GiveUp(id, _) => self.finish(id, End::Refused),
            }
        }
        let node = &mut self.nodes[service];
        if let Some(at) = node.shed.as_ref().and_then(load_shed::State::next_give_up)
            && node.looks_at.is_none_or(|looks_at| at < looks_at)
        {
            node.looks_at = Some(at);
            self.agenda.at(at, Event::GiveUp(service));
        }
    }

    fn release(&mut self, service: usize, permit: Permit, sample: Sample) {
        let now = self.agenda.now();
        if let Some(shed) = &self.nodes[service].shed {
            shed.complete(now, permit, sample);
        }
    }

    fn begin_work(&mut self, id: CallId) {
        let Some(service) = self.call(id).map(|call| call.service) else { return };
        match self.nodes[service].server.begin(id) {
            Ok(true) => self.work(service, id),
            Ok(false) => {}
            Err(_) => self.finish(id, End::Refused),
        }
    }

    fn work(&mut self, service: usize, call: CallId) {
        let piece = self.nodes[service].server.piece(self.agenda.now(), &self.dice);
        if let Piece::Ends { after, well } = piece {
            self.agenda.after(after, Event::WorkEnds { service, call, well });
        }
    }

    fn work_ends(&mut self, service: usize, id: CallId, well: bool) {
        // What was cancelled while it was queued is not begun.
        while let Some(next) = self.nodes[service].server.end() {
            if self.call(next).is_some() {
                self.work(service, next);
                break;
            }
            // The worker is still the one that was freed: it looks on.
        }
        if self.call(id).is_none() {
            return;
        }
        if !well {
            return self.finish(id, End::Failed);
        }
        let node = &self.nodes[service];
        let (links, fan) = (node.links.len(), node.service.fan);
        if links == 0 {
            return self.finish(id, End::Good);
        }
        let now = self.agenda.now();
        let runs = (0..links).map(|link| self.new_run(id, link, now)).collect();
        let Some(call) = self.call_mut(id) else { return };
        call.runs = runs;
        call.open_links = links;
        let at_once = if fan == Fan::Parallel { links } else { 1 };
        for link in 0..at_once {
            self.attempt(id, link);
        }
    }

    /// Its caller has left, or its time is over.
    fn deadline(&mut self, id: CallId) {
        let Some(call) = self.call_mut(id) else { return };
        let (service, is_request, is_told) = (call.service, call.from.is_none(), call.is_told);
        if self.nodes[service].shed.is_some() {
            return self.finish(id, End::Late);
        }
        if is_request && !is_told {
            if let Some(call) = self.call_mut(id) {
                call.is_told = true;
            }
            self.tell(id, End::Late);
        }
    }

    fn tell(&mut self, id: CallId, end: End) {
        let now = self.agenda.now();
        let Some(call) = self.call(id) else { return };
        let (arrived, priority) = (call.arrived, call.priority);
        self.report.ended(now, arrived, priority, end);
        self.open_requests -= 1;
    }

    fn finish(&mut self, id: CallId, end: End) {
        let now = self.agenda.now();
        if self.call(id).is_some_and(|call| call.from.is_none() && !call.is_told) {
            self.tell(id, end);
        }
        let Some((generation, place)) = self.calls.get_mut(id.place) else { return };
        let Some(mut call) = place.take() else { return };
        *generation += 1;
        self.free.push(id.place);
        for (link, run) in call.runs.iter_mut().enumerate() {
            if let Some(under_way) = run.under_way.take() {
                self.let_go(call.service, link, under_way, now, Outcome::Cancelled);
            }
        }
        if let Some(permit) = call.permit.take() {
            let sample = match end {
                End::Good => Sample::Answered,
                End::Failed | End::Refused => Sample::Overloaded,
                End::Late => Sample::Nothing,
            };
            self.release(call.service, permit, sample);
        }
        match call.from {
            Some((to, link, attempt, way)) => {
                self.agenda.after(way, Event::Reply { to, link, attempt, end, tokens: call.tokens });
            }
            None => self.bucket.give_back(call.tokens),
        }
        if self.nodes[call.service].shed.is_some() {
            self.settle(call.service);
        }
    }
}
