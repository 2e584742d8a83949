//! One callee hangs, in a call that waits or in one that blocks its thread: what the callers of the others see is the
//! same, call by call. Virtual time around whole policies.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

mod kit;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use kit::{Virtual, ms};
use mainstay_envelope::{Clock, SeededChance};
use mainstay_resilience::bulkhead::{BlockingPool, BlockingSpec};
use mainstay_resilience::{
    Breaker, Cloned, EveryErrorIsTransient, Facts, Failed, Policy, Retry, Safety, Scope, Why,
};
use tower_layer::Layer;
use tower_service::Service;

const CALLEES: usize = 3;
const CALLS: u64 = 200;
/// The one that falls ill.
const ILL: usize = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Illness {
    None,
    /// Its calls never answer.
    Hangs,
    /// Nor do they give back the thread they run on.
    Blocks,
}

/// One call as its caller saw it: when it began and ended, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    number: u64,
    began: Duration,
    ended: Duration,
    result: Result<u64, Option<Why>>,
}

#[derive(Clone)]
struct Callee {
    illness: Illness,
    pool: BlockingPool,
    /// Whoever waits here waits until the run is over.
    gate: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Service<u64> for Callee {
    type Response = u64;
    type Error = std::io::ErrorKind;
    type Future = Pin<Box<dyn Future<Output = Result<u64, std::io::ErrorKind>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, number: u64) -> Self::Future {
        let Callee { illness, pool, gate } = self.clone();
        Box::pin(async move {
            // Between 5 and 94 ms, some long enough for others to queue; one in nine fails.
            tokio::time::sleep(ms(5 + number * 37 % 90)).await;
            match illness {
                Illness::None if number % 9 == 4 => Err(std::io::ErrorKind::ConnectionReset),
                Illness::None => Ok(number),
                Illness::Hangs => std::future::pending().await,
                Illness::Blocks => {
                    let blocks = move || drop(gate.lock().map(|gate| gate.recv()));
                    let done = pool.run(None, blocks).await;
                    done.map(|()| number).map_err(|_| std::io::ErrorKind::WouldBlock)
                }
            }
        })
    }
}

fn policy(callee: usize, clock: Arc<dyn Clock>) -> Policy {
    Policy::outbound(format!("callee {callee}"))
        .clock(clock)
        .chance(Arc::new(SeededChance::new(callee as u64)))
        .total(ms(900))
        .attempt(ms(300))
        .retry(Retry::full_jitter(ms(10), ms(100)))
        .breaker(Breaker::failure_rate(0.5).over(20).minimum_calls(10).open_for(ms(200)))
        .bulkhead(4, 4)
        .build()
        .unwrap()
}

/// Callers of each callee, eighty a second, as the callers saw it.
fn run(illness: Illness, policies: impl Fn(usize, Arc<dyn Clock>) -> Policy) -> [Vec<Seen>; CALLEES] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let (open, gate) = mpsc::channel();
    let gate = Arc::new(Mutex::new(gate));
    let seen = runtime.unwrap().block_on(async {
        let clock: Arc<dyn Clock> = Arc::new(Virtual::new());
        let mut callers = Vec::new();
        for callee in 0..CALLEES {
            let policy = policies(callee, Arc::clone(&clock));
            let pool = BlockingSpec::threads(2).queue(2).check().unwrap();
            let service = Callee {
                illness: if callee == ILL { illness } else { Illness::None },
                pool: BlockingPool::new(pool, Arc::new(Scope::system("blocking"))),
                gate: Arc::clone(&gate),
            };
            for number in 0..CALLS {
                let (policy, service, clock) = (policy.clone(), service.clone(), Arc::clone(&clock));
                callers.push((callee, tokio::spawn(caller(policy, service, clock, number))));
            }
        }
        let mut seen = [const { Vec::new() }; CALLEES];
        for (callee, caller) in callers {
            seen[callee].push(caller.await.unwrap());
        }
        seen
    });
    drop(open);
    seen
}

async fn caller(policy: Policy, service: Callee, clock: Arc<dyn Clock>, number: u64) -> Seen {
    tokio::time::sleep(Duration::from_micros(12_500 * number)).await;
    let began = clock.now().since_origin();
    let facts = |_: &u64, now| Facts::unknown(now).with_safety(Safety::Safe);
    let mut stack = policy.layer(EveryErrorIsTransient).describe(Cloned(facts)).layer(service);
    std::future::poll_fn(|cx| Service::<u64>::poll_ready(&mut stack, cx)).await.unwrap();
    let result = stack.call(number).await;
    let result = result.map_err(|failed| match failed {
        Failed::Refused(refusal) => Some(refusal.why),
        Failed::Upstream(_) => None,
    });
    Seen { number, began, ended: clock.now().since_origin(), result }
}

#[test]
fn a_callee_that_hangs_changes_no_trace_of_another() {
    let healthy = run(Illness::None, policy);
    for illness in [Illness::Hangs, Illness::Blocks] {
        let ill = run(illness, policy);
        for callee in (0..CALLEES).filter(|callee| *callee != ILL) {
            assert_eq!(healthy[callee], ill[callee], "{illness:?}");
        }
        // It did hang, its own callers were turned away, and nobody waited for longer than the total.
        let refused = |why: fn(&Why) -> bool| {
            ill[ILL].iter().filter(|seen| matches!(&seen.result, Err(Some(found)) if why(found))).count()
        };
        assert!(ill[ILL].iter().all(|seen| seen.result.is_err()), "{illness:?}");
        assert!(refused(|why| matches!(why, Why::QueueFull { .. } | Why::BreakerOpen)) > 100, "{illness:?}");
        let longest = ill[ILL].iter().map(|seen| seen.ended - seen.began).max();
        assert!(longest <= Some(ms(901)), "{illness:?}: {longest:?}");
    }
    // What is equal is no row of nothings: there were answers, refusals, and failures that were tried again.
    let of = |is: fn(&Seen) -> bool| healthy[1].iter().filter(|seen| is(seen)).count();
    assert!(of(|seen| seen.result.is_ok()) > 100);
    assert!(of(|seen| matches!(seen.result, Err(Some(Why::QueueFull { .. })))) > 10);
    assert!(of(|seen| seen.number % 9 == 4 && seen.ended - seen.began > ms(100)) > 10);
}

/// What the equality above is worth: with one compartment for all, the traces are not equal.
#[test]
fn in_one_compartment_the_others_would_have_suffered() {
    let shared = |illness| {
        let one = std::cell::OnceCell::new();
        run(illness, move |_, clock| one.get_or_init(|| policy(0, clock)).clone())
    };
    assert_ne!(shared(Illness::None)[1], shared(Illness::Hangs)[1]);
}
