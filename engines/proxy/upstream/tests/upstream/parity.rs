//! One table of (wait, outcome), played to the rules in the process and over HTTP: the traces are one.
//!
//! In the process, a policy is worn by a function. Over HTTP it is worn by the client, and the same function answers
//! behind hyper's server, a trust boundary and an inbound policy; connections are in memory and time is virtual, so it
//! passes where somebody waits and nowhere else. Compared are: when each try began and what was known to it (time
//! left, priority, tokens), when one was given up, each call's end, its refusal's words, the breaker, what tokens are
//! left, and every decision of the policy with all that it was made of.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mainstay_envelope::{Clock, Context, Priority, RetryTokens, SeededChance};
use mainstay_resilience::http::ByStatus;
use mainstay_resilience::record::{Decision, Recording};
use mainstay_resilience::{Breaker, Facts, Failed, Hedge, OutboundBuilder, Policy, Retry, Safety};
use mainstay_upstream::inbound::{Arrivals, Receive};
use mainstay_upstream::{Client, HttpError, PolicyExt};
use tower_layer::Layer;
use tower_service::Service;

use super::kit::{Virtual, context, empty, http_over, ms, serve, with};

/// How the callee ends a try, once it has waited.
#[derive(Debug, Clone, Copy)]
enum End {
    Status(u16),
    /// 503, and when to come back, in seconds.
    Later(u64),
    /// 200, and it has spent so many of the tokens that came along.
    Spent(u8),
}
use End::{Later, Spent, Status};

/// A try that never ends by itself.
const NEVER: u64 = 3_600_000;

#[derive(Debug, Clone)]
struct Call {
    at: u64,
    deadline: Option<u64>,
    /// None: it begins here, and draws on the policy's bucket.
    tokens: Option<u8>,
    priority: Priority,
    safety: Safety,
    /// When its caller leaves.
    leaves: Option<u64>,
    /// What becomes of its tries: (wait, outcome).
    tries: Vec<(u64, End)>,
}

fn call(at: u64, tries: &[(u64, End)]) -> Call {
    let (tries, priority) = (tries.to_vec(), Priority::Normal);
    Call { at, deadline: None, tokens: None, priority, safety: Safety::Safe, leaves: None, tries }
}

impl Call {
    fn deadline(mut self, remaining: u64) -> Self {
        self.deadline = Some(remaining);
        self
    }
    fn tokens(mut self, tokens: u8) -> Self {
        self.tokens = Some(tokens);
        self
    }
    fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }
    fn once(mut self) -> Self {
        self.safety = Safety::Unsafe;
        self
    }
    fn keyed(mut self) -> Self {
        self.safety = Safety::Keyed;
        self
    }
    fn leaves(mut self, at: u64) -> Self {
        self.leaves = Some(at);
        self
    }
}

struct Row {
    name: &'static str,
    policy: fn(OutboundBuilder) -> OutboundBuilder,
    calls: Vec<Call>,
    /// How each call ends: so that both may not be wrong alike.
    ends: &'static [&'static str],
}

fn retries(policy: OutboundBuilder) -> OutboundBuilder {
    policy.total(ms(10_000)).attempt(ms(300)).retry(Retry::full_jitter(ms(50), ms(1_000)).max_attempts(3))
}

fn breaker(policy: OutboundBuilder) -> OutboundBuilder {
    policy.breaker(Breaker::failure_rate(0.5).over(4).minimum_calls(4).open_for(ms(5_000)))
}

fn table() -> Vec<Row> {
    let (ok, bad) = ((20, Status(200)), (20, Status(503)));
    let row = |name, policy, calls, ends| Row { name, policy, calls, ends };
    vec![
        row("success", retries, vec![call(0, &[ok])], &["20: 200"]),
        row("transient, then success", retries, vec![call(0, &[bad, ok]).tokens(2)], &["54: 200"]),
        row("transient three times", retries, vec![call(0, &[bad; 3]).keyed()], &["138: 503"]),
        row("permanent", retries, vec![call(0, &[(20, Status(404))])], &["20: 404"]),
        row("a request that can't be repeated", retries, vec![call(0, &[bad, ok]).once()], &["20: 503"]),
        row("Retry-After is kept", retries, vec![call(0, &[(20, Later(2)), ok])], &["2040: 200"]),
        row(
            "Retry-After beyond the deadline",
            retries,
            vec![call(0, &[(20, Later(2)), ok]).deadline(2_000)],
            &["20: 503"],
        ),
        row(
            "slow past the limit of a try",
            retries,
            vec![call(0, &[(NEVER, Status(200)), ok])],
            &["334: 200"],
        ),
        row(
            "the tokens of a lost answer are spent",
            retries,
            vec![call(0, &[(NEVER, Status(200)), ok]).tokens(2)],
            &["300: timeout AttemptTimedOut { limit: 300ms } Answer None"],
        ),
        row(
            "slow past the total",
            |policy| policy.total(ms(500)),
            vec![call(0, &[(NEVER, Status(200))])],
            &["500: timeout TotalTimedOut { limit: 500ms } Answer None"],
        ),
        row(
            "past its own deadline",
            retries,
            vec![call(0, &[(NEVER, Status(200))]).deadline(70), call(100, &[]).deadline(0)],
            &["70: timeout DeadlineRanOut Answer None", "100: timeout DeadlineReached Call None"],
        ),
        row(
            "the breaker opens, half-opens and closes",
            breaker,
            vec![
                call(0, &[ok]),
                call(100, &[ok]),
                call(200, &[bad]),
                call(300, &[bad]),
                call(400, &[]),
                call(5_330, &[(100, Status(200))]),
                call(5_340, &[]),
                call(5_500, &[ok]),
            ],
            &[
                "20: 200",
                "120: 200",
                "220: 503",
                "320: 503",
                "400: circuit_breaker BreakerOpen Call Some(4.92s)",
                "5430: 200",
                "5340: circuit_breaker ProbesUnderWay Call None",
                "5520: 200",
            ],
        ),
        row(
            "a probe that fails opens it for longer",
            breaker,
            vec![
                call(0, &[bad]),
                call(0, &[bad]),
                call(0, &[bad]),
                call(0, &[bad]),
                call(5_020, &[bad]),
                call(6_000, &[]),
            ],
            &[
                "20: 503",
                "20: 503",
                "20: 503",
                "20: 503",
                "5040: 503",
                "6000: circuit_breaker BreakerOpen Call Some(9.04s)",
            ],
        ),
        row(
            "the bulkhead is full",
            |policy| policy.bulkhead(1, 0),
            vec![call(0, &[(100, Status(200))]), call(50, &[]), call(101, &[ok])],
            &["100: 200", "50: bulkhead BulkheadFull { permits: 1 } Call None", "121: 200"],
        ),
        row(
            "the wait in the queue reaches the deadline",
            |policy| policy.bulkhead(1, 1),
            vec![
                call(0, &[(100, Status(200))]),
                call(10, &[ok]).deadline(50),
                call(70, &[ok]),
                call(80, &[]),
            ],
            &[
                "100: 200",
                "60: bulkhead DeadlineReached Call None",
                "120: 200",
                "80: bulkhead QueueFull { capacity: 1 } Call None",
            ],
        ),
        row(
            "the budget is exhausted",
            |policy| retries(policy).retry(Retry::full_jitter(ms(50), ms(1_000)).max_attempts(5)),
            vec![call(0, &[bad; 5]).tokens(1), call(1_000, &[bad; 5]).tokens(0)],
            &["54: 503", "1020: 503"],
        ),
        row("the callee spends a token", retries, vec![call(0, &[(20, Spent(1))]).tokens(2)], &["20: 200"]),
        row(
            "the caller leaves",
            |policy| retries(policy).bulkhead(1, 0),
            vec![
                call(0, &[(100, Status(200))]).leaves(50).tokens(2),
                call(40, &[]),
                call(60, &[ok]).priority(Priority::Background),
            ],
            &["50: left", "40: bulkhead BulkheadFull { permits: 1 } Call None", "80: 200"],
        ),
        row(
            "the second of two is faster",
            |policy| policy.hedge(Hedge::percentile(0.95).between(ms(50), ms(100))),
            vec![call(0, &[(NEVER, Status(200)), ok]).priority(Priority::Critical)],
            &["120: 200"],
        ),
    ]
}

/// What happened.
#[derive(Debug, Default, PartialEq)]
struct Trace {
    /// Of each call, what its caller saw and what the callee saw, each in the order of its own time. (Between the two
    /// there is none within a millisecond: a network has no say in that.)
    calls: Vec<(Vec<String>, Vec<String>)>,
    breaker: String,
    bucket: u32,
    decisions: Vec<Decision>,
}

/// The callee, and what is seen of both sides.
#[derive(Clone)]
struct World {
    clock: Arc<Virtual>,
    calls: Arc<Vec<Call>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Of the whole row: its calls share connections.
    client: Arc<OnceLock<Client>>,
}

#[derive(Default)]
struct Seen {
    tries: usize,
    by_caller: Vec<String>,
    by_callee: Vec<String>,
}

impl World {
    fn new(calls: Vec<Call>) -> Self {
        let seen = calls.iter().map(|_| Seen::default()).collect();
        World {
            clock: Virtual::new(),
            calls: Arc::new(calls),
            seen: Arc::new(Mutex::new(seen)),
            client: Arc::default(),
        }
    }

    fn caller_says(&self, call: usize, what: &str) {
        let line = format!("{}: {what}", self.clock.ms());
        self.seen.lock().unwrap()[call].by_caller.push(line);
    }

    fn callee_says(&self, call: usize, what: &str) {
        let line = format!("{}: {what}", self.clock.ms());
        self.seen.lock().unwrap()[call].by_callee.push(line);
    }

    /// Serves a try of a call.
    async fn act(
        &self,
        call: usize,
        left: Option<Duration>,
        priority: Priority,
        tokens: &RetryTokens,
    ) -> End {
        let number = {
            let seen = &mut self.seen.lock().unwrap()[call];
            seen.tries += 1;
            seen.tries - 1
        };
        let left = left.map(|left| left.as_millis());
        let lent = tokens.left();
        self.callee_says(
            call,
            &format!("try {number}: {left:?} ms left, {}, {lent} tokens", priority.as_str()),
        );
        let mut gone = GivenUp { world: self, call, number, is_done: false };
        let (wait, end) = *self.calls[call].tries.get(number).expect("it is not tried so often");
        tokio::time::sleep(ms(wait)).await;
        gone.is_done = true;
        if let Spent(count) = end {
            for _ in 0..count {
                assert!(tokens.spend());
            }
        }
        end
    }
}

/// Tells of a try that was dropped.
struct GivenUp<'a> {
    world: &'a World,
    call: usize,
    number: usize,
    is_done: bool,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.world.callee_says(self.call, &format!("try {} was given up", self.number));
        }
    }
}

fn answer(end: End) -> Response<Full<Bytes>> {
    let mut answer = match end {
        Status(status) => empty(status),
        Later(_) => empty(503),
        Spent(_) => empty(200),
    };
    if let Later(seconds) = end {
        answer.headers_mut().insert("retry-after", seconds.into());
    }
    answer
}

/// What a call ended with, told alike by both.
fn told<T, E>(result: &Result<T, Failed<E>>, status: impl Fn(&T) -> u16) -> String {
    match result {
        Ok(answer) => status(answer).to_string(),
        Err(Failed::Refused(refusal)) => {
            let (rule, why, not_done, after) =
                (refusal.rule, &refusal.why, refusal.not_done, refusal.retry_after);
            format!("{rule} {why:?} {not_done:?} {after:?}")
        }
        Err(Failed::Upstream(_)) => "failed".to_owned(),
    }
}

type Ending = Pin<Box<dyn Future<Output = String>>>;

/// Plays a row; `make` makes a call, in one place or the other.
async fn play(row: &Row, make: impl Fn(&World, &Policy, usize, Context) -> Ending) -> Trace {
    let world = World::new(row.calls.clone());
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    let builder = Policy::outbound("callee")
        .clock(clock)
        .chance(Arc::new(SeededChance::new(11)))
        .record(Recording::All, 4_096);
    let policy = (row.policy)(builder).build().unwrap();
    let process = context(&world.clock, 1);
    let calls = row.calls.iter().enumerate().map(|(number, call)| {
        let (world, policy, process) = (&world, &policy, &process);
        let make = &make;
        async move {
            tokio::time::sleep(ms(call.at)).await;
            let cx = with(process, call.deadline, call.tokens.unwrap_or(0), call.priority);
            let ending = make(world, policy, number, cx.clone());
            let stays = ms(call.leaves.unwrap_or(NEVER) - call.at);
            let end = tokio::time::timeout(stays, ending).await;
            match end {
                Ok(end) => world.caller_says(number, &end),
                Err(_) => world.caller_says(number, "left"),
            }
            let phase = policy.breaker().snapshot(world.clock.now()).phase;
            world.caller_says(number, &format!("{phase:?}, {} tokens", cx.envelope().tokens().left()));
        }
    });
    join(calls.map(|call| Box::pin(call) as Pin<Box<dyn Future<Output = ()> + '_>>).collect()).await;
    // What is given up only now would be missing.
    tokio::time::sleep(ms(1)).await;
    let calls = std::mem::take(&mut *world.seen.lock().unwrap());
    let calls = calls.into_iter().map(|seen| (seen.by_caller, seen.by_callee)).collect();
    let breaker = format!("{:?}", policy.breaker().snapshot(world.clock.now()));
    Trace { calls, breaker, bucket: policy.bucket().whole(), decisions: policy.decisions() }
}

/// All at once, in this task.
async fn join(mut futures: Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) {
    std::future::poll_fn(|poller| {
        futures.retain_mut(|future| future.as_mut().poll(poller).is_pending());
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// In the process: the policy around a function, which lends and takes back tokens as the wire does.
fn in_process(world: &World, policy: &Policy, number: usize, cx: Context) -> Ending {
    let (world, policy) = (world.clone(), policy.clone());
    Box::pin(async move {
        let call = world.calls[number].clone();
        let facts = move |now| {
            let mut facts = Facts::of(cx.envelope(), now).with_safety(call.safety);
            facts.tokens = facts.tokens.filter(|_| call.tokens.is_some());
            facts
        };
        let make = move |facts: Facts| {
            let world = world.clone();
            async move {
                let own = facts.tokens.clone().unwrap_or_default();
                let lent = own.take_all();
                let left = facts.deadline.map(|deadline| deadline.remaining(world.clock.now()));
                let end = world.act(number, left, facts.priority, &lent).await;
                own.give_back(lent);
                Ok::<_, Infallible>(answer(end))
            }
        };
        let result = policy.call(facts, ByStatus::default(), make).await;
        told(&result, |answer| answer.status().as_u16())
    })
}

/// The same function, behind a server.
#[derive(Clone)]
struct Handler(World);

impl<B: Send + 'static> Service<Request<B>> for Handler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let world = self.0.clone();
        Box::pin(async move {
            let cx = request.extensions().get::<Context>().unwrap();
            let number = request.uri().path().rsplit('/').next().unwrap().parse().unwrap();
            let (left, envelope) = (cx.remaining(), cx.envelope());
            Ok(answer(world.act(number, left, envelope.priority(), envelope.tokens()).await))
        })
    }
}

fn over_http(world: &World, policy: &Policy, number: usize, cx: Context) -> Ending {
    let served = world.clone();
    let client = world.client.get_or_init(|| {
        let clock = Arc::clone(&served.clock) as Arc<dyn Clock>;
        let inbound = Policy::inbound("callee").clock(clock).build().unwrap();
        let receive = Receive::from_ours(context(&served.clock, 2));
        let service = receive.layer(inbound.layer(Arrivals).layer(Handler(served.clone())));
        policy.client(http_over(move |io| serve(io, service.clone()), &served.clock))
    });
    let client = client.clone();
    let call = world.calls[number].clone();
    Box::pin(async move {
        let target = format!("/calls/{number}");
        let result = match (call.safety, call.tokens) {
            (Safety::Safe, Some(_)) => client.get(&target).send(&cx).await,
            (Safety::Safe, None) => client.get(&target).begins_here().send(&cx).await,
            (Safety::Keyed, _) => client.post(&target).key(&cx, "call").begins_here().send(&cx).await,
            (Safety::Unsafe, _) => client.post(&target).begins_here().send(&cx).await,
        };
        if let Err(Failed::Upstream(error)) = &result {
            panic!("{error}");
        }
        told::<_, HttpError>(&result, |answer| answer.status().as_u16())
    })
}

#[tokio::test(start_paused = true)]
async fn in_the_process_and_over_http_the_traces_are_one() {
    for row in table() {
        let direct = play(&row, in_process).await;
        let http = play(&row, over_http).await;
        let ends = direct.calls.iter().map(|(by_caller, _)| by_caller[0].as_str());
        assert_eq!(ends.collect::<Vec<_>>(), row.ends, "{}", row.name);
        assert_eq!(direct, http, "{}", row.name);
    }
}
