//! What Order does when the others have spoken.

use std::sync::Arc;

use mainstay::flow::saga::{Failure, Incoming, Participant, Reactor};
use mainstay::flow::unit_of_work::{Entity, Work};
use mainstay::store::{Row, Store, Tx, ViewName};

use super::catalogue::Catalogue;
use super::row::{Entry, OrderRow};
use super::waiting::Waiting;
use super::{Orders, participant, stream};
use crate::domain::account::AccountEvent;
use crate::domain::order::{Order, OrderCommand};
use crate::domain::reservation::ReservationEvent;
use crate::domain::stock::StockEvent;
use crate::domain::{OrderId, Reason};
use crate::service::rows::{decode, encode};

/// See [`participant`].
#[derive(Debug)]
pub(super) struct OrderReactor {
    entity: Entity<Order>,
    view: ViewName,
    prices: ViewName,
    waiting: Arc<Waiting>,
    catalogue: Catalogue,
}

impl OrderReactor {
    pub(super) fn new<S: Store>(orders: &Orders<S>) -> Self {
        Self {
            entity: orders.entity.clone(),
            view: orders.view.clone(),
            prices: orders.prices.clone(),
            waiting: Arc::clone(&orders.waiting),
            catalogue: orders.catalogue.clone(),
        }
    }

    fn end<S: Store>(
        &self,
        work: &Work<'_, S>,
        message: &Incoming<'_>,
        order: OrderId,
        command: &OrderCommand,
        reason: Option<&Reason>,
    ) -> Result<(), Failure> {
        let stream = stream(order).map_err(mainstay::store::Refusal::from)?;
        let decided = work
            .command(&self.entity, &stream, command)?
            .map_err(|no| Failure::poisoned(format!("order {order}: {no}")))?;
        let Some(event) = decided.events.first() else { return Ok(()) };
        let key = order.to_string();
        let Some(bytes) = work.tx().view_get(&self.view, &key)? else {
            return Err(Failure::poisoned(format!("order {order} has no row; rebuild the view")));
        };
        let mut row: OrderRow = decode(&bytes)?;
        let cause = Entry::new(message.at(), message.event_type()).of(message.from());
        let name = mainstay::Event::event_type(event);
        row.end(decided.state.status(), reason, cause, Entry::new(work.at(), name));
        work.tx().view_put(&self.view, &row.row()?)?;
        // Not an effect: whoever is woken looks at what is committed.
        self.waiting.ends(order);
        Ok(())
    }
}

impl<S: Store> Reactor<S> for OrderReactor {
    fn participant(&self) -> Participant {
        participant()
    }

    fn react(&self, work: &Work<'_, S>, message: &Incoming<'_>) -> Result<(), Failure> {
        match (message.from(), message.event_type()) {
            ("inventory", "StockSet") => match message.open()? {
                StockEvent::StockSet { sku, price, .. } => {
                    work.tx().view_put(&self.prices, &Row::new(sku.as_str(), encode(&price)?))?;
                    // Not an effect: too early or once too often, it is loaded once more.
                    self.catalogue.changed(&sku);
                    Ok(())
                }
                StockEvent::StockReserved { .. } => Err(unexpected(message)),
            },
            ("inventory", _) => match message.open()? {
                ReservationEvent::InventoryUpdated { order } => {
                    self.end(work, message, order, &OrderCommand::Confirm { order }, None)
                }
                ReservationEvent::StockShort { .. } => Err(unexpected(message)),
            },
            _ => match message.open()? {
                AccountEvent::PaymentRefused { order, reason }
                | AccountEvent::PaymentRefunded { order, reason, .. } => {
                    let command = OrderCommand::Cancel { order, reason: reason.clone() };
                    self.end(work, message, order, &command, Some(&reason))
                }
                _ => Err(unexpected(message)),
            },
        }
    }
}

/// A message that the declaration does not name.
fn unexpected(message: &Incoming<'_>) -> Failure {
    Failure::poisoned(format!("{} of {} is not declared", message.event_type(), message.from()))
}
