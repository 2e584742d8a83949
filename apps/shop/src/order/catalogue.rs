//! GET /catalogue/{sku}: what an article costs and whether it is there, for those who look around.
//!
//! Inventory knows it, and is asked rarely: an answer is kept for a while and served to everybody, loaded once however
//! many ask, and served stale while it is loaded anew or while Inventory does not answer. It is browsing: what an order
//! costs is decided by Order's own price view, and whether there is enough by Inventory.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use mainstay::Context;
use mainstay::cache::{Cache, Load, Loaded, Loader, ReadThrough, Spec};
use mainstay::resilience::{Breaker, Failed, Invalid, Policy, Retry};
use mainstay::store::Store;
use mainstay::upstream::{Client, Http, HttpError, PolicyExt};
use serde::{Deserialize, Serialize};

use super::Orders;
use crate::domain::{Price, Sku};
use crate::http::problem::{Fault, Problem};
use crate::inventory;
use crate::service::rows::encode;
use crate::service::{App, Call, json, metrics, path};

/// How old an answer may be; a count or a new price is seen at once, by the fact that tells of it.
const FRESH: Duration = Duration::from_secs(2);
/// How much older while it is loaded anew, and while Inventory does not answer.
const REVALIDATE: Duration = Duration::from_secs(10);
const IF_ERROR: Duration = Duration::from_secs(300);
/// How long it is remembered that there is no such article. Its first count makes it known at once, too.
const ABSENT: Duration = Duration::from_secs(2);
/// Articles that are kept.
const ENTRIES_MAX: usize = 10_000;

/// Calls to Inventory that may be under way at a time, and that may wait for their turn.
const PERMITS: u32 = 16;
const QUEUE: u32 = 64;

/// What Inventory says of an article.
#[derive(Debug, Clone, Deserialize)]
struct Stock {
    quantity: u64,
    price: Price,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    sku: &'a Sku,
    price: Price,
    /// Was there any, when Inventory was asked?
    available: bool,
    /// Is it older than it should be, because Inventory is slow or does not answer?
    stale: bool,
}

/// The articles that are known here.
#[derive(Debug, Clone)]
pub(super) struct Catalogue {
    articles: ReadThrough<Sku, Stock, Inventory>,
    cx: Context,
}

/// Where they are loaded from.
#[derive(Debug)]
struct Inventory(Client);

impl Loader<Sku, Stock> for Inventory {
    type Error = Failed<HttpError>;

    async fn load(&self, load: &Load, sku: &Sku) -> Result<Loaded<Stock>, Failed<HttpError>> {
        // Many may wait for it: its retries are nobody's, and draw on the policy's own budget.
        let answer = self.0.get(&format!("/stock/{sku}")).begins_here().send(&load.cx()).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(Loaded::absent()),
            _ => Ok(Loaded::found(answer.json().map_err(Failed::Upstream)?)),
        }
    }
}

impl Catalogue {
    /// Of Inventory at this address. Shows its figures at the service's metrics.
    pub(super) fn new<S: Store>(url: &str, app: &App<S>) -> Result<Self, Invalid> {
        let (ms, second, cx) = (Duration::from_millis, Duration::from_secs(1), app.cx().clone());
        let policy = Policy::outbound(inventory::NAME)
            .clock(cx.clock().clone())
            .chance(cx.chance().clone())
            .total(second)
            .attempt(ms(300))
            .retry(Retry::full_jitter(ms(20), ms(200)).max_attempts(3))
            .breaker(Breaker::failure_rate(0.5).over(20).minimum_calls(5).open_for(second))
            .bulkhead(PERMITS, QUEUE)
            .build()?;
        let client =
            policy.client(Http::with(url, mainstay::upstream::Spec::default().connections(PERMITS))?);
        let spec = Spec::for_everybody(FRESH)
            .stale_while_revalidate(REVALIDATE)
            .stale_if_error(IF_ERROR)
            .negative_ttl(ABSENT)
            .entries_max(ENTRIES_MAX);
        let articles = Cache::builder("catalogue", spec).scope(policy.scope().clone()).build()?;
        let articles = articles.read_through(Inventory(client));
        let shown = articles.clone();
        app.metrics().add(move |text, now| {
            metrics::policy(text, &policy, now);
            metrics::cache(text, "catalogue", &shown.cache().stats());
        });
        Ok(Self { articles, cx })
    }

    /// It was counted or priced anew: whoever asks from now on is told what Inventory says then.
    pub(super) fn changed(&self, sku: &Sku) {
        self.articles.cache().invalidate(&self.cx, sku);
    }
}

/// One article.
pub(super) async fn one<S: Store>(
    State(orders): State<Orders<S>>,
    Call { cx }: Call,
    sku: Result<Path<String>, PathRejection>,
) -> Result<Response<Body>, Problem> {
    let sku: Sku = path(sku)?;
    let found = orders.catalogue.articles.get(&cx, &sku).await.map_err(|failed| unavailable(&failed))?;
    let Some(stock) = found else {
        return Err(Problem::new(Fault::NotFound, "there is no such article"));
    };
    let (price, available, stale) = (stock.price, stock.quantity > 0, !stock.is_fresh());
    let shown = encode(&Shown { sku: &sku, price, available, stale });
    let shown = shown.map_err(|error| Problem::new(Fault::Internal, "it can't be shown").because(error))?;
    Ok(json(StatusCode::OK, shown))
}

fn unavailable(failed: &Failed<std::sync::Arc<Failed<HttpError>>>) -> Problem {
    let detail =
        "Inventory does not answer and nothing is known here of this article; ask again a little later";
    let problem = Problem::new(Fault::CalleeUnavailable, detail);
    let refusal = failed.refusal().or_else(|| failed.upstream().and_then(|failed| failed.refusal()));
    match refusal {
        Some(refusal) => problem.decided(refusal),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use mainstay::messaging::memory::Memory as Log;
    use mainstay::store::memory::Memory;
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::*;
    use crate::domain::{Currency, Minor};
    use crate::order::participant;
    use crate::service::Wiring;

    #[tokio::test]
    async fn while_inventory_does_not_answer_what_is_known_is_told_as_stale_and_the_rest_is_a_503() {
        let at_order = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Nobody answers there any more.
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let cx = Context::system();
        let wiring = Wiring::new(Memory::new(), Log::new(1), at_order, cx.clone(), watch::channel(false).1);
        let app = App::new(&wiring, &participant()).unwrap();
        let catalogue = Catalogue::new(&format!("http://{gone}"), &app).unwrap();
        let [known, unknown] = ["apple", "pear"].map(|sku| Sku::new(sku).unwrap());
        let price = Price::new(Currency::EUR, Minor::new(150).unwrap());
        let kept = Loaded::found(Stock { quantity: 1, price }).ttl(Duration::from_nanos(1));
        catalogue.articles.cache().put(&cx, known.clone(), kept);
        let found = catalogue.articles.get(&cx, &known).await.unwrap().unwrap();
        assert_eq!((found.quantity, found.is_fresh()), (1, false));
        let failed = catalogue.articles.get(&cx, &unknown).await.unwrap_err();
        let answer = unavailable(&failed).into_response();
        assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (503, true));
    }
}
