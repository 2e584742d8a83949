//! Who is served when there is too much to do: the inbound rules, worn around every route.
//!
//! ```text
//! request ─► deadline (its own, and a grace) ─► load_shed (priority) ─► route
//!                                                    │ as many as may be under way are, and its turn does not come
//!                                                    ▼
//!                                               503 shed, Retry-After, decision
//! ```
//!
//! | given up | what |
//! |---|---|
//! | first | browsing: lists, the catalogue |
//! | then | one thing by its name; counts, top-ups |
//! | last | checkout: `POST /orders`, `POST /charges` |
//! | never | what tells how the service is (health, figures, its document), and who waits for an order, which has places of its own ([`Limits::waiting_max`]) |

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response};
use mainstay::Context;
use mainstay::envelope::{Deadline, Priority};
use mainstay::resilience::load_shed::Spec;
use mainstay::resilience::{Facts, Failed, InboundPolicy, Invalid, NotDone, Policy, Refusal, Rule};
use tower::{Layer, Service};

use super::answer::outcome_unknown;
use super::metrics::{Text, counter, gauge};
use crate::http::limits::Limits;
use crate::http::problem::{Fault, Problem};

/// How much longer than its deadline a request's work may take before it is cut off: the work looks at the
/// deadline by itself, and answers better than a cut does.
const GRACE: Duration = Duration::from_secs(1);

/// How long one may wait for its turn while there is too much to do, and at other times. Some commits: a request whose
/// turn comes later than that would be answered after its client has given up.
const WAIT: Duration = Duration::from_millis(100);
const BURST: Duration = Duration::from_millis(500);

/// The live state of the inbound rules of one service.
#[derive(Debug)]
pub(super) struct Admission {
    /// What most requests pass.
    shedding: InboundPolicy,
    /// The same for what is never given up.
    unshed: InboundPolicy,
    given_up: [AtomicU64; Priority::ALL.len()],
}

impl Admission {
    pub(super) fn new(name: &str, cx: &Context, limits: &Limits) -> Result<Self, Invalid> {
        let policy = || Policy::inbound(name).clock(Arc::clone(cx.clock())).chance(Arc::clone(cx.chance()));
        let shed = Spec::fixed(limits.under_way_max).queue(limits.queue_max).target(WAIT).interval(BURST);
        let (shedding, unshed) = (policy().load_shed(shed).build()?, policy().build()?);
        Ok(Self { shedding, unshed, given_up: Default::default() })
    }

    /// Has the request served, or says why not.
    pub(super) async fn serve(
        &self,
        cx: &Context,
        routes: Router,
        request: Request<Body>,
    ) -> Result<Response<Body>, Problem> {
        let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
        let policy = match priority(request.method(), request.uri().path(), request.headers()) {
            Some(_) => &self.shedding,
            None => &self.unshed,
        };
        let known = facts(cx);
        let describe = move |_: &Request<Body>, now| Facts { now, ..known.clone() };
        let served = policy.layer(describe).layer(routes).call(request).await;
        match served {
            Ok(answer) => Ok(answer),
            Err(Failed::Upstream(never)) => match never {},
            Err(Failed::Refused(refusal)) => Err(self.refused(cx, &refusal, writes)),
        }
    }

    fn refused(&self, cx: &Context, refusal: &Refusal, writes: bool) -> Problem {
        match (refusal.rule, refusal.not_done) {
            (Rule::Timeout, NotDone::Answer) if writes => {
                outcome_unknown(cx, "the store did not answer in time")
            }
            (Rule::Timeout, NotDone::Answer) => {
                Problem::new(Fault::DeadlineOver, "there was no answer in time; ask again")
            }
            (Rule::Timeout, NotDone::Call) => {
                Problem::new(Fault::DeadlineOver, "its time was over before its turn came; nothing was done")
            }
            _ => {
                let place = Priority::ALL.iter().position(|known| *known == cx.envelope().priority());
                if let Some(count) = place.and_then(|place| self.given_up.get(place)) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                let detail = format!("{}; nothing was done; send the same request again later", refusal.why);
                Problem::new(Fault::Shed, detail).decided(refusal)
            }
        }
    }

    /// How it stands.
    pub(super) fn show(&self, text: &mut Text) {
        let Some(shed) = self.shedding.load_shed() else { return };
        let policy = [("policy", self.shedding.name())];
        let [limit, under_way, waiting] = [shed.limit(), shed.in_flight(), shed.waiting()].map(f64::from);
        gauge(text, "mainstay_load_shed_limit", "Requests that may be under way at a time.", &policy, limit);
        gauge(text, "mainstay_load_shed_in_flight", "Requests that are under way.", &policy, under_way);
        gauge(text, "mainstay_load_shed_waiting", "Requests that wait for their turn.", &policy, waiting);
        for (priority, count) in Priority::ALL.iter().zip(&self.given_up) {
            let labels = [("policy", self.shedding.name()), ("priority", priority.as_str())];
            let help = "Requests refused because there was too much to do.";
            counter(text, "mainstay_load_shed_refused_total", help, &labels, count.load(Ordering::Relaxed));
        }
    }
}

/// What the rules know of a request.
fn facts(cx: &Context) -> Facts {
    let now = cx.now();
    let mut facts = Facts::of(cx.envelope(), now);
    facts.deadline = facts.deadline.map(|deadline| Deadline::at(deadline.reading() + GRACE));
    facts
}

/// How important a request is here; none of what is never given up. Of a stranger only what is asked for counts.
pub(super) fn priority(method: &Method, path: &str, headers: &HeaderMap) -> Option<Priority> {
    let mut parts = path.split('/').skip(1);
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match (reads, first, second) {
        (_, "health" | "openapi.json" | "stats" | "metrics" | "behaviour" | "ledger", _) => None,
        (true, "orders", Some(_)) if headers.contains_key("prefer") => None,
        (false, "orders" | "charges", _) => Some(Priority::Critical),
        (true, "catalogue", _) | (true, _, None) => Some(Priority::Low),
        _ => Some(Priority::Normal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkout_goes_before_browsing_and_health_is_never_given_up() {
        let of = |method: &str, path: &str| {
            priority(&Method::from_bytes(method.as_bytes()).unwrap(), path, &HeaderMap::new())
        };
        assert!(of("POST", "/orders") > of("GET", "/orders/1"));
        assert!(of("GET", "/orders/1") > of("GET", "/orders"));
        assert_eq!(of("GET", "/catalogue/apple"), of("GET", "/orders"));
        assert_eq!(of("PUT", "/stock/apple"), Some(Priority::Normal));
        for path in ["/health/ready", "/stats", "/metrics", "/openapi.json"] {
            assert_eq!(of("GET", path), None, "{path}");
        }
        let wait = HeaderMap::from_iter([("prefer".parse().unwrap(), "wait=5".parse().unwrap())]);
        assert_eq!(priority(&Method::GET, "/orders/1", &wait), None);
        assert_eq!(priority(&Method::GET, "/orders", &wait), Some(Priority::Low));
    }
}
