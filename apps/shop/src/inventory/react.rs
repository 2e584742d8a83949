//! What Inventory does when an order is paid: reserve all of it, or none.

use mainstay::flow::saga::{Failure, Incoming, Participant, Reactor};
use mainstay::flow::work::Work;
use mainstay::store::{Refusal, Store, StreamName};

use super::{Shelves, participant};
use crate::domain::account::AccountEvent;
use crate::domain::reservation::{ReservationEvent, Reserve};
use crate::domain::stock::StockCommand;

/// See [`participant`].
#[derive(Debug)]
pub(super) struct InventoryReactor {
    shelves: Shelves,
}

impl InventoryReactor {
    pub(super) fn new(shelves: Shelves) -> Self {
        Self { shelves }
    }

    fn reserve<S: Store>(&self, work: &Work<'_, S>, mut ask: Reserve) -> Result<(), Failure> {
        let order = ask.order;
        for line in &ask.lines {
            let (stock, _) = work.state(&self.shelves.entity, &Shelves::stream(&line.sku)?)?;
            ask.available.push(stock.available());
        }
        let stream = StreamName::new(format!("reservation-{order}")).map_err(Refusal::from)?;
        // A reservation is never refused: that something is short is a fact.
        let Ok(decided) = work.act(&self.shelves.reservations, &stream, &order.to_string(), &ask)?;
        if !matches!(decided.events.as_slice(), [ReservationEvent::InventoryUpdated { .. }]) {
            return Ok(());
        }
        for line in &ask.lines {
            let command = StockCommand::Reserve { order, quantity: line.quantity };
            let stock = work.command(&self.shelves.entity, &Shelves::stream(&line.sku)?, &command)?.map_err(
                |short| Failure::poisoned(format!("order {order}, article {}: {short}", line.sku)),
            )?;
            self.shelves.show(work, &line.sku, &stock.state)?;
        }
        Ok(())
    }
}

impl<S: Store> Reactor<S> for InventoryReactor {
    fn participant(&self) -> Participant {
        participant()
    }

    fn react(&self, work: &Work<'_, S>, message: &Incoming<'_>) -> Result<(), Failure> {
        match message.open()? {
            AccountEvent::PaymentProcessed { order, customer, amount, lines } => {
                let available = Vec::with_capacity(lines.len());
                self.reserve(work, Reserve { order, customer, amount, lines, available })
            }
            _ => Err(Failure::poisoned(format!(
                "{} of {} is not declared",
                message.event_type(),
                message.from()
            ))),
        }
    }
}
