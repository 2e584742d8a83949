//! A saga by choreography: an order, its payment and its goods in three services, each with its own store. Nobody is in charge:
//! each reacts to what the others say. Three orders: one goes well, one is not paid, one is paid and then short of stock.
//!
//! Run it: `cargo run --example choreography`. The chapter: docs/guide/saga-choreography.md. As three processes over HTTP:
//! `mainstay up`.

use std::error::Error;
use std::sync::Arc;

use mainstay::flow::inbox::Follower;
use mainstay::flow::outbox::Relay;
use mainstay::flow::saga::{Failure, Graph, Incoming, Participant, Reactor};
use mainstay::flow::unit_of_work::{Entity, Publisher, Work, transact};
use mainstay::messaging::memory::Memory as Log;
use mainstay::store::memory::Memory;
use mainstay::store::{Abort, Refusal, Store, StreamName};
use mainstay::{Commands, Context, Decider, Event};

/// What the three say to one another. Each carries what the next one needs, so that nobody has to ask back.
#[derive(Clone, Debug, PartialEq, Event)]
enum Said {
    OrderCreated { order: String, minor: u64, apples: u64 },
    OrderConfirmed { order: String },
    OrderCancelled { order: String, reason: String },
    PaymentProcessed { order: String, minor: u64, apples: u64 },
    PaymentRefused { order: String },
    PaymentRefunded { order: String, minor: u64 },
    InventoryUpdated { order: String, apples: u64 },
    StockShort { order: String, minor: u64 },
}
use Said::*;

/// The state of any of the three: enough for an order's status, an account's money, a shelf's apples.
#[derive(Default)]
struct Thing {
    status: &'static str,
    money_out: u64,
    apples_out: u64,
}

/// The rules, as pure functions of state and question.
enum Ask {
    Say(Said),
    Pay { order: String, minor: u64, apples: u64, limit: u64 },
    Reserve { order: String, minor: u64, apples: u64, shelf: u64 },
}

impl Decider for Thing {
    type Command = Ask;
    type Event = Said;
    type Refusal = std::convert::Infallible;

    fn decide(&self, ask: &Ask) -> Result<Vec<Said>, Self::Refusal> {
        Ok(vec![match ask {
            Ask::Say(said) => said.clone(),
            Ask::Pay { order, minor, limit, .. } if self.money_out + minor > *limit => {
                PaymentRefused { order: order.clone() }
            }
            Ask::Pay { order, minor, apples, .. } => {
                PaymentProcessed { order: order.clone(), minor: *minor, apples: *apples }
            }
            Ask::Reserve { order, minor, apples, shelf } if self.apples_out + apples > *shelf => {
                StockShort { order: order.clone(), minor: *minor }
            }
            Ask::Reserve { order, apples, .. } => InventoryUpdated { order: order.clone(), apples: *apples },
        }])
    }

    fn evolve(&mut self, said: &Said) {
        match said {
            OrderCreated { .. } => self.status = "PENDING",
            OrderConfirmed { .. } => self.status = "CONFIRMED",
            OrderCancelled { .. } => self.status = "CANCELLED",
            PaymentProcessed { minor, .. } => self.money_out += minor,
            PaymentRefunded { minor, .. } => self.money_out -= minor,
            InventoryUpdated { apples, .. } => self.apples_out += apples,
            PaymentRefused { .. } | StockShort { .. } => {}
        }
    }
}

/// Decides on a stream and says, under the order's key, what came of it.
fn say<S: Store>(work: &Work<'_, S>, stream: &str, order: &str, ask: &Ask) -> Result<(), Refusal> {
    let Ok(_) = work.act(&Entity::<Thing>::replayed(), &StreamName::new(stream)?, order, ask)?;
    Ok(())
}

struct Order;
struct Payment;
struct Inventory;

impl<S: Store> Reactor<S> for Order {
    fn participant(&self) -> Participant {
        Participant::new("order")
            .starts("OrderCreated")
            .on("InventoryUpdated", "inventory")
            .ends()
            .on("PaymentRefused", "payment")
            .ends()
            .on("PaymentRefunded", "payment")
            .ends()
            .into()
    }

    fn react(&self, work: &Work<'_, S>, message: &Incoming<'_>) -> Result<(), Failure> {
        let said = match message.open()? {
            InventoryUpdated { order, .. } => OrderConfirmed { order },
            PaymentRefused { order } => OrderCancelled { order, reason: "not paid".into() },
            PaymentRefunded { order, .. } => OrderCancelled { order, reason: "out of stock".into() },
            other => return Err(Failure::poisoned(format!("not for the order service: {other:?}"))),
        };
        Ok(say(work, message.key(), message.key(), &Ask::Say(said))?)
    }
}

impl<S: Store> Reactor<S> for Payment {
    fn participant(&self) -> Participant {
        Participant::new("payment")
            .on("OrderCreated", "order")
            .produces("PaymentProcessed")
            .fails_with("PaymentRefused")
            .on("StockShort", "inventory")
            .produces("PaymentRefunded")
            .into()
    }

    fn react(&self, work: &Work<'_, S>, message: &Incoming<'_>) -> Result<(), Failure> {
        let ask = match message.open()? {
            OrderCreated { order, minor, apples } => Ask::Pay { order, minor, apples, limit: 1_000 },
            StockShort { order, minor } => Ask::Say(PaymentRefunded { order, minor }),
            other => return Err(Failure::poisoned(format!("not for the payment service: {other:?}"))),
        };
        Ok(say(work, "account-ada", message.key(), &ask)?)
    }
}

impl<S: Store> Reactor<S> for Inventory {
    fn participant(&self) -> Participant {
        Participant::new("inventory")
            .on("PaymentProcessed", "payment")
            .produces("InventoryUpdated")
            .fails_with("StockShort")
            .into()
    }

    fn react(&self, work: &Work<'_, S>, message: &Incoming<'_>) -> Result<(), Failure> {
        let ask = match message.open()? {
            PaymentProcessed { order, minor, apples } => Ask::Reserve { order, minor, apples, shelf: 5 },
            other => return Err(Failure::poisoned(format!("not for the inventory: {other:?}"))),
        };
        Ok(say(work, "stock-apple", message.key(), &ask)?)
    }
}

/// A service: its store, and the log it publishes to.
#[derive(Default)]
struct Service {
    store: Memory,
    log: Log,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let cx = Context::system();
    let (order, payment, inventory) = (Service::default(), Service::default(), Service::default());

    // The whole flow, before anything runs: who reacts to what, and whether anything is left hanging.
    let of = |reactor: &dyn Reactor<Memory>| reactor.participant();
    let graph = Graph::of(&[of(&Order), of(&Payment), of(&Inventory)]);
    println!("{}", graph.text());
    assert!(graph.check().is_empty());

    let publisher = Publisher::new(&of(&Order))?;
    for (id, minor, apples) in [("order-1", 300, 3), ("order-2", 5_000, 1), ("order-3", 400, 4)] {
        transact(&order.store, &cx, &publisher, move |work| {
            let created = OrderCreated { order: id.into(), minor, apples };
            Ok::<_, Abort<std::convert::Infallible>>(say(work, id, id, &Ask::Say(created))?)
        })
        .await?;
    }

    // Each relay publishes, each service follows the others, until nothing moves any more.
    loop {
        let mut moved = 0;
        for service in [&order, &payment, &inventory] {
            moved += Relay::new(service.store.clone(), service.log.clone()).run_until_empty(&cx).await?;
        }
        for (from, log) in [("payment", &payment.log), ("inventory", &inventory.log)] {
            let follower = Follower::new(order.store.clone(), log.clone(), from, Arc::new(Order))?;
            moved += follower.run_until_caught_up(&cx).await?;
        }
        for (from, log) in [("order", &order.log), ("inventory", &inventory.log)] {
            let follower = Follower::new(payment.store.clone(), log.clone(), from, Arc::new(Payment))?;
            moved += follower.run_until_caught_up(&cx).await?;
        }
        let follower =
            Follower::new(inventory.store.clone(), payment.log.clone(), "payment", Arc::new(Inventory))?;
        moved += follower.run_until_caught_up(&cx).await?;
        if moved == 0 {
            break;
        }
    }

    let orders = Commands::<Thing, _>::new(order.store.clone());
    for (id, status) in [("order-1", "CONFIRMED"), ("order-2", "CANCELLED"), ("order-3", "CANCELLED")] {
        let (thing, _) = orders.state(&cx, id).await?;
        println!("{id}: {}", thing.status);
        assert_eq!(thing.status, status);
    }
    let (account, _) = Commands::<Thing, _>::new(payment.store).state(&cx, "account-ada").await?;
    let (stock, _) = Commands::<Thing, _>::new(inventory.store).state(&cx, "stock-apple").await?;
    println!("paid in the end: {}, apples gone: {}", account.money_out, stock.apples_out);
    assert_eq!((account.money_out, stock.apples_out), (300, 3));
    Ok(())
}
