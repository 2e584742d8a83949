//! The reservation of one order: all of its lines, or none.

use mainstay::{Decider, Event};
use serde::{Deserialize, Serialize};

use super::{CustomerId, Money, OrderId, PricedLine, Reason};

/// How a reservation ended.
#[derive(Debug, Clone, PartialEq, Event)]
pub enum ReservationEvent {
    /// Everything is reserved.
    InventoryUpdated {
        /// For which order.
        order: OrderId,
    },
    /// Something is short; nothing was reserved.
    StockShort {
        /// For which order.
        order: OrderId,
        /// Who had paid.
        customer: CustomerId,
        /// How much.
        amount: Money,
        /// What is short.
        reason: Reason,
    },
}

/// Reserve what an order has paid for.
#[derive(Debug, Clone)]
pub struct Reserve {
    /// Which order.
    pub order: OrderId,
    /// Who paid.
    pub customer: CustomerId,
    /// How much.
    pub amount: Money,
    /// What for; each article once.
    pub lines: Vec<PricedLine>,
    /// How many there are of each line's article, in the order of the lines.
    pub available: Vec<u64>,
}

/// The state of a reservation: there is nothing to remember, it is decided once (the inbox sees to that).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {}

impl Decider for Reservation {
    type Command = Reserve;
    type Event = ReservationEvent;
    type Refusal = std::convert::Infallible;

    fn decide(&self, ask: &Reserve) -> Result<Vec<ReservationEvent>, Self::Refusal> {
        // A line without a count is short: zip would pass it over.
        let available = ask.available.iter().copied().chain(std::iter::repeat(0));
        let short =
            ask.lines.iter().zip(available).find(|(line, available)| line.quantity.get() > *available);
        Ok(vec![match short {
            None => ReservationEvent::InventoryUpdated { order: ask.order },
            Some((line, available)) => ReservationEvent::StockShort {
                order: ask.order,
                customer: ask.customer.clone(),
                amount: ask.amount,
                reason: Reason::StockShort { sku: line.sku.clone(), wanted: line.quantity.get(), available },
            },
        }])
    }

    fn evolve(&mut self, _: &ReservationEvent) {}
}

#[cfg(test)]
mod tests {
    use mainstay::command::given_nothing;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{Currency, Minor, Quantity, Sku};

    const ORDER: OrderId = OrderId(Uuid::from_u128(7));

    fn ask(available: &[u64]) -> Reserve {
        let line = |sku: &str, quantity| PricedLine {
            sku: Sku::new(sku).unwrap(),
            quantity: Quantity::new(quantity).unwrap(),
            minor: Minor::new(100).unwrap(),
        };
        Reserve {
            order: ORDER,
            customer: CustomerId::new("alice").unwrap(),
            amount: Money::new(Currency::EUR, Minor::new(500).unwrap()),
            lines: vec![line("apple", 2), line("pear", 3)],
            available: available.to_vec(),
        }
    }

    fn short(sku: &str, wanted: u64, available: u64) -> ReservationEvent {
        ReservationEvent::StockShort {
            order: ORDER,
            customer: CustomerId::new("alice").unwrap(),
            amount: Money::new(Currency::EUR, Minor::new(500).unwrap()),
            reason: Reason::StockShort { sku: Sku::new(sku).unwrap(), wanted, available },
        }
    }

    #[test]
    fn all_lines_are_reserved_or_none() {
        given_nothing::<Reservation>()
            .when(ask(&[2, 3]))
            .then([ReservationEvent::InventoryUpdated { order: ORDER }]);
        given_nothing::<Reservation>().when(ask(&[1, 3])).then([short("apple", 2, 1)]);
        given_nothing::<Reservation>().when(ask(&[2, 2])).then([short("pear", 3, 2)]);
        given_nothing::<Reservation>().when(ask(&[2])).then([short("pear", 3, 0)]);
    }
}
