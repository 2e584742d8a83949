//! What Payment does when an order was made, and when it can't be delivered.

use mainstay::flow::saga::{Failure, Incoming, Participant, Reactor};
use mainstay::flow::unit_of_work::Work;
use mainstay::store::Store;

use super::{Ledger, participant};
use crate::domain::account::AccountCommand;
use crate::domain::order::OrderEvent;
use crate::domain::reservation::ReservationEvent;
use crate::domain::{CustomerId, OrderId};

/// See [`participant`].
#[derive(Debug)]
pub(super) struct PaymentReactor(pub(super) Ledger);

impl PaymentReactor {
    fn act<S: Store>(
        &self,
        work: &Work<'_, S>,
        customer: &CustomerId,
        order: OrderId,
        command: &AccountCommand,
    ) -> Result<(), Failure> {
        let stream = Ledger::stream(customer)?;
        // Only the order is named: the text goes to the log and the dead letter, where customers have no business.
        let decided = work
            .act(&self.0.entity, &stream, &order.to_string(), command)?
            .map_err(|no| Failure::poisoned(format!("order {order}: {no}")))?;
        self.0.show(work, customer, &decided.state)?;
        Ok(())
    }
}

impl<S: Store> Reactor<S> for PaymentReactor {
    fn participant(&self) -> Participant {
        participant()
    }

    fn react(&self, work: &Work<'_, S>, message: &Incoming<'_>) -> Result<(), Failure> {
        match message.from() {
            "order" => match message.open()? {
                OrderEvent::OrderCreated { order, customer, lines, amount } => {
                    let charge = AccountCommand::Charge { order, customer: customer.clone(), amount, lines };
                    self.act(work, &customer, order, &charge)
                }
                _ => Err(unexpected(message)),
            },
            _ => match message.open()? {
                ReservationEvent::StockShort { order, customer, amount, reason } => {
                    self.act(work, &customer, order, &AccountCommand::Refund { order, amount, reason })
                }
                ReservationEvent::InventoryUpdated { .. } => Err(unexpected(message)),
            },
        }
    }
}

/// A message that the declaration does not name.
fn unexpected(message: &Incoming<'_>) -> Failure {
    Failure::poisoned(format!("{} of {} is not declared", message.event_type(), message.from()))
}
