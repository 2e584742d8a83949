//! A card processor, simulated: somebody whom Payment calls, who is not ours, and who is not always well.
//!
//! A process of its own, as the real one is somebody else's: what dies with Payment could not show that a charge
//! survives Payment's death. Its books are in its store, by idempotency key, so that it can be killed too; how it
//! behaves is in memory, and with each start it is well again.
//!
//! | request | what |
//! |---|---|
//! | `POST /charges` with `Idempotency-Key` | charges once for each key |
//! | `POST /voids` | makes sure that nothing is charged under a key, now or later |
//! | `GET /charges/{key}`, `GET /ledger` | the books |
//! | `PUT /behaviour`, `GET /behaviour` | slow, failing, flapping, hanging, declining, before the effect or after it |

mod api;
mod behaviour;
mod ledger;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::routing::{get, post, put};
use mainstay::flow::saga::{Failure, Incoming, Participant, Reactor};
use mainstay::flow::unit_of_work::Work;
use mainstay::messaging::Log;
use mainstay::store::Store;

use crate::openapi;
use crate::service::{self, App, ServeError, Wiring};
use behaviour::{Behaviour, Mode, Obstacle};
use ledger::Ledger;

/// The service's name: its folder's, and that of Payment's policy for it.
pub const NAME: &str = "processor";

/// It takes no part in any saga: it is somebody whom a participant asks.
pub fn participant() -> Participant {
    Participant::new(NAME)
}

/// Serves until told to stop; see [`Wiring`].
pub async fn serve<S: Store, L: Log>(wiring: Wiring<S, L>) -> Result<(), ServeError> {
    let app = App::new(&wiring, &participant())?;
    let processor = Processor { app: app.clone(), ledger: Ledger::new()?, temper: Arc::default() };
    let own = Router::new()
        .route("/charges", post(api::charge::<S>))
        .route("/charges/{key}", get(api::one::<S>))
        .route("/voids", post(api::void::<S>))
        .route("/ledger", get(api::ledger::<S>))
        .route("/behaviour", put(api::behave::<S>).get(api::behaviour::<S>))
        .with_state(processor);
    let routes = service::all(app.clone(), &openapi::processor(), own);
    service::serve(wiring, app, routes, Deaf, std::future::pending()).await
}

/// What the routes share.
#[derive(Debug, Clone)]
struct Processor<S: Store> {
    app: Arc<App<S>>,
    ledger: Ledger,
    temper: Arc<Temper>,
}

/// How it behaves now, and how many calls came since that was set.
#[derive(Debug, Default)]
struct Temper {
    behaviour: Mutex<Behaviour>,
    calls: AtomicU64,
}

impl Temper {
    fn get(&self) -> Behaviour {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
        self.calls.store(0, Ordering::Relaxed);
    }

    /// For the next call: what stands in its way, and whether its effect comes first and is a refusal.
    fn next(&self) -> (Obstacle, Behaviour) {
        let behaviour = self.get();
        (behaviour.obstacle(self.calls.fetch_add(1, Ordering::Relaxed)), behaviour)
    }
}

impl Behaviour {
    fn declines(self) -> bool {
        self.mode == Mode::Declining
    }
}

/// It follows nobody.
#[derive(Debug)]
struct Deaf;

impl<S: Store> Reactor<S> for Deaf {
    fn participant(&self) -> Participant {
        participant()
    }

    fn react(&self, _: &Work<'_, S>, message: &Incoming<'_>) -> Result<(), Failure> {
        Err(Failure::poisoned(format!("{} of {} is not declared", message.event_type(), message.from())))
    }
}
