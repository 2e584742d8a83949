//! What Inventory does when an order is paid: reserve all of it, or none.

use mainstay::flow::saga::{Failure, Incoming, Participant, Reactor};
use mainstay::flow::unit_of_work::Work;
use mainstay::store::{Refusal, Store, StreamName};

use super::{Shelves, participant};
use crate::domain::account::AccountEvent;
use crate::domain::reservation::{ReservationEvent, Reserve};
use crate::domain::stock::{Short, StockCommand};
use crate::domain::{OrderId, PricedLine};

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
        if let [line] = ask.lines.as_slice() {
            // One article, as most orders have: whether there is enough is found by taking it, in one reading.
            let available = match self.take(work, ask.order, line)? {
                Ok(()) => line.quantity.get(),
                Err(Short { available }) => available,
            };
            ask.available.push(available);
            self.decide(work, &ask)?;
            return Ok(());
        }
        for line in &ask.lines {
            let (stock, _) = work.state(&self.shelves.entity, &Shelves::stream(&line.sku)?)?;
            ask.available.push(stock.available());
        }
        if self.decide(work, &ask)? {
            for line in &ask.lines {
                self.take(work, ask.order, line)?.map_err(|short| {
                    Failure::poisoned(format!("order {}, article {}: {short}", ask.order, line.sku))
                })?;
            }
        }
        Ok(())
    }

    /// Records and publishes how the reservation ended: is everything reserved?
    fn decide<S: Store>(&self, work: &Work<'_, S>, ask: &Reserve) -> Result<bool, Failure> {
        let stream = StreamName::new(format!("reservation-{}", ask.order)).map_err(Refusal::from)?;
        // A reservation is never refused: that something is short is a fact.
        let Ok(decided) = work.act(&self.shelves.reservations, &stream, &ask.order.to_string(), ask)?;
        Ok(matches!(decided.events.as_slice(), [ReservationEvent::InventoryUpdated { .. }]))
    }

    /// Takes a line from its shelf, if there is enough.
    fn take<S: Store>(
        &self,
        work: &Work<'_, S>,
        order: OrderId,
        line: &PricedLine,
    ) -> Result<Result<(), Short>, Failure> {
        let command = StockCommand::Reserve { order, quantity: line.quantity };
        match work.command(&self.shelves.entity, &Shelves::stream(&line.sku)?, &command)? {
            Ok(stock) => {
                self.shelves.show(work, &line.sku, &stock.state)?;
                Ok(Ok(()))
            }
            Err(short) => Ok(Err(short)),
        }
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
