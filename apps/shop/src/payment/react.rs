//! What Payment does when an order was made, and when it can't be delivered.

use std::sync::Arc;

use mainstay::flow::saga::{Failure, Incoming, Participant, Reactor};
use mainstay::flow::unit_of_work::{Decided, Work};
use mainstay::store::Store;
use tokio::sync::Notify;

use super::card::{Ask, Due, Dues};
use super::{Ledger, participant};
use crate::domain::account::{Account, AccountCommand, AccountEvent};
use crate::domain::order::OrderEvent;
use crate::domain::reservation::ReservationEvent;
use crate::domain::{CustomerId, Money, OrderId};

/// See [`participant`].
#[derive(Debug)]
pub(super) struct PaymentReactor {
    pub(super) ledger: Ledger,
    pub(super) dues: Dues,
    /// Rung when something is to be asked of the card processor.
    pub(super) hint: Arc<Notify>,
}

impl PaymentReactor {
    fn act<S: Store>(
        &self,
        work: &Work<'_, S>,
        customer: &CustomerId,
        order: OrderId,
        command: &AccountCommand,
    ) -> Result<Decided<Account>, Failure> {
        let stream = Ledger::stream(customer)?;
        // Only the order is named: the text goes to the log and the dead letter, where customers have no business.
        let decided = work
            .act(&self.ledger.entity, &stream, &order.to_string(), command)?
            .map_err(|no| Failure::poisoned(format!("order {order}: {no}")))?;
        self.ledger.show(work, customer, &decided.state)?;
        Ok(decided)
    }

    /// Has something asked of the card processor, once this is committed.
    fn ask<S: Store>(
        &self,
        work: &Work<'_, S>,
        customer: CustomerId,
        order: OrderId,
        amount: Money,
        ask: Ask,
    ) -> Result<(), Failure> {
        self.dues.put(work.tx(), &Due::new(order, customer, amount, ask, work.at(), work.fact()))?;
        // Not an effect: whoever is rung looks at what is committed.
        self.hint.notify_one();
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
                    let lines_paid = lines.clone();
                    let charge = AccountCommand::Charge { order, customer: customer.clone(), amount, lines };
                    let decided = self.act(work, &customer, order, &charge)?;
                    if matches!(decided.events.as_slice(), [AccountEvent::CardChargeRequested { .. }]) {
                        self.ask(work, customer, order, amount, Ask::Charge { lines: lines_paid })?;
                    }
                    Ok(())
                }
                _ => Err(unexpected(message)),
            },
            _ => match message.open()? {
                ReservationEvent::StockShort { order, customer, amount, reason } => {
                    let refund = AccountCommand::Refund { order, amount, reason };
                    let decided = self.act(work, &customer, order, &refund)?;
                    if !decided.state.funding().is_prepaid() {
                        self.ask(work, customer, order, amount, Ask::Void)?;
                    }
                    Ok(())
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
