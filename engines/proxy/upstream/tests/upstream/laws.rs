//! Laws of hops, over HTTP: however services call each other, deadlines and priorities only go down and tokens are never
//! made.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as Poller, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mainstay_envelope::{Clock, Context, Monotonic, Priority};
use mainstay_resilience::{Policy, Retry};
use mainstay_upstream::inbound::{Arrivals, Receive};
use mainstay_upstream::{Client, PolicyExt};
use proptest::prelude::*;
use tower_layer::Layer;
use tower_service::Service;

use super::kit::{Virtual, context, empty, http_over, ms, serve, with};

/// What a service does with each request.
#[derive(Debug, Clone)]
struct Hop {
    /// Works for so long before it calls on, in ms.
    works: u64,
    /// No request takes longer here.
    at_most: u64,
    /// Lowers the priority to this before it calls on.
    lowers_to: Priority,
    /// Spends a token of its own, if there is one.
    spends: bool,
    /// Calls the next one after each other so often, or else twice at once.
    calls: Option<usize>,
    /// Answers 503 so many times before 200.
    fails: u32,
    /// So many of its answers are never given.
    hangs: u32,
}

fn hop() -> impl Strategy<Value = Hop> {
    let priority = prop::sample::select(Priority::ALL.to_vec());
    let calls = prop::option::of(0_usize..3);
    (0_u64..40, 1_u64..400, priority, any::<bool>(), calls, 0_u32..3, 0_u32..2).prop_map(
        |(works, at_most, lowers_to, spends, calls, fails, hangs)| Hop {
            works,
            at_most,
            lowers_to,
            spends,
            calls,
            fails,
            hangs,
        },
    )
}

/// What is true of a request where it arrives.
#[derive(Debug, Clone, Copy)]
struct Seen {
    priority: Priority,
    until: Option<Monotonic>,
}

/// The ledger of all tokens, and what was seen to go up.
#[derive(Debug, Default)]
struct Ledger {
    /// Spent on purpose by a handler.
    spent: u32,
    /// Tries beyond the first of a call.
    retries: u32,
    wrong: Vec<String>,
}

#[derive(Clone)]
struct Handler {
    hop: Hop,
    next: Option<Client>,
    /// What callers have said, by the number of the call.
    said: Arc<Mutex<Vec<Seen>>>,
    /// How often each call came.
    came: Arc<Mutex<Vec<u32>>>,
    /// The same of the next hop.
    next_said: Arc<Mutex<Vec<Seen>>>,
    next_came: Arc<Mutex<Vec<u32>>>,
    ledger: Arc<Mutex<Ledger>>,
    left: Arc<Mutex<(u32, u32)>>,
}

/// Says what the caller is about to send; its number goes along as the path.
fn announce(said: &Mutex<Vec<Seen>>, came: &Mutex<Vec<u32>>, cx: &Context) -> String {
    let mut said = said.lock().unwrap();
    said.push(Seen {
        priority: cx.envelope().priority(),
        until: cx.envelope().deadline().map(|deadline| deadline.reading()),
    });
    came.lock().unwrap().push(0);
    format!("/{}", said.len() - 1)
}

impl Handler {
    fn check(&self, number: usize, cx: &Context) {
        let seen = self.said.lock().unwrap()[number];
        let mut ledger = self.ledger.lock().unwrap();
        let envelope = cx.envelope();
        if envelope.priority() > seen.priority {
            ledger.wrong.push(format!("priority went up: {:?} after {seen:?}", envelope.priority()));
        }
        let until = envelope.deadline().map(|deadline| deadline.reading());
        match (seen.until, until) {
            (Some(before), Some(now)) if now <= before => {}
            (None, _) => {}
            (before, now) => ledger.wrong.push(format!("deadline went up: {now:?} after {before:?}")),
        }
        let came = &mut self.came.lock().unwrap()[number];
        ledger.retries += u32::from(*came > 0);
        *came += 1;
    }

    async fn serve(self, number: usize, cx: Context) -> Response<Full<Bytes>> {
        self.check(number, &cx);
        let Hop { works, lowers_to, spends, calls, .. } = self.hop;
        let envelope = cx.envelope().clone().lower_priority(lowers_to);
        let cx = cx.with_envelope(envelope);
        tokio::time::sleep(ms(works)).await;
        if spends && cx.envelope().tokens().spend() {
            self.ledger.lock().unwrap().spent += 1;
        }
        if let Some(next) = &self.next {
            let call = async |cx: &Context| {
                let target = announce(&self.next_said, &self.next_came, cx);
                // What becomes of it is not what is asked here.
                drop(next.get(&target).send(cx).await);
            };
            match calls {
                Some(times) => {
                    for _ in 0..times {
                        call(&cx).await;
                    }
                }
                None => {
                    let beside = cx.outgoing("beside", 0, cx.envelope().tokens().split());
                    tokio::join!(call(&cx), call(&beside));
                    cx.envelope().tokens().give_back(beside.envelope().tokens().clone());
                }
            }
        }
        let (hangs, fails) = {
            let mut left = self.left.lock().unwrap();
            let now = *left;
            left.0 = now.0.saturating_sub(1);
            if now.0 == 0 {
                left.1 = now.1.saturating_sub(1);
            }
            (now.0 > 0, now.1 > 0)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        empty(if fails { 503 } else { 200 })
    }
}

impl<B> Service<Request<B>> for Handler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let cx = request.extensions().get::<Context>().unwrap().clone();
        let number = request.uri().path()[1..].parse().unwrap();
        let handler = self.clone();
        Box::pin(async move { Ok(handler.serve(number, cx).await) })
    }
}

/// A client whose calls go through these services, one behind the other.
struct Chain {
    client: Client,
    said: Arc<Mutex<Vec<Seen>>>,
    came: Arc<Mutex<Vec<u32>>>,
}

fn chain(hops: &[Hop], clock: &Arc<Virtual>, ledger: &Arc<Mutex<Ledger>>) -> Option<Chain> {
    let (first, behind) = hops.split_first()?;
    let next = chain(behind, clock, ledger);
    let (said, came) = <(Arc<_>, Arc<_>)>::default();
    let handler = Handler {
        hop: first.clone(),
        left: Arc::new(Mutex::new((first.hangs, first.fails))),
        next_said: next.as_ref().map(|next| Arc::clone(&next.said)).unwrap_or_default(),
        next_came: next.as_ref().map(|next| Arc::clone(&next.came)).unwrap_or_default(),
        next: next.map(|next| next.client),
        said: Arc::clone(&said),
        came: Arc::clone(&came),
        ledger: Arc::clone(ledger),
    };
    let time = || Arc::clone(clock) as Arc<dyn Clock>;
    let inbound = Policy::inbound("hop").clock(time()).deadline(ms(first.at_most)).build().unwrap();
    let receive = Receive::from_ours(context(clock, 3));
    let service = receive.layer(inbound.layer(Arrivals).layer(handler));
    let outbound = Policy::outbound("hop").clock(time()).attempt(ms(200)).retry(Retry::exact(ms(10), ms(20)));
    let client = outbound.build().unwrap().client(http_over(move |io| serve(io, service.clone()), clock));
    Some(Chain { client, said, came })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_hop_only_lowers_deadline_and_priority_and_makes_no_tokens(
        hops in prop::collection::vec(hop(), 1..4),
        deadline in 1_u64..1_000, tokens in 0_u8..=2, at in 0_usize..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let (ledger, left) = runtime.unwrap().block_on(async {
            let (clock, ledger) = (Virtual::new(), Arc::default());
            let chain = chain(&hops, &clock, &ledger).unwrap();
            let cx = with(&context(&clock, 4), Some(deadline), tokens, Priority::ALL[at]);
            let target = announce(&chain.said, &chain.came, &cx);
            drop(chain.client.get(&target).send(&cx).await);
            let left = cx.envelope().tokens().left();
            // What still runs somewhere ends by its deadline, and gives nothing back.
            tokio::time::sleep(ms(2_000)).await;
            assert_eq!(cx.envelope().tokens().left(), left);
            (Arc::try_unwrap(ledger).map(|ledger| ledger.into_inner().unwrap()), left)
        });
        let ledger = match ledger {
            Ok(ledger) => ledger,
            Err(shared) => std::mem::take(&mut *shared.lock().unwrap()),
        };
        prop_assert_eq!(ledger.wrong, Vec::<String>::new());
        let used = ledger.spent + ledger.retries + u32::from(left);
        prop_assert!(used <= u32::from(tokens), "{used} of {tokens}: {} spent, {} retries, {left} left",
            ledger.spent, ledger.retries);
    }
}
