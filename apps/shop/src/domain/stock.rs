//! The stock of one article: how many there are, and what one costs.

use mainstay::{Decider, Event};
use serde::{Deserialize, Serialize};

use super::{OrderId, Price, Quantity, Sku, StockQuantity};

/// What happens to the stock of an article.
#[derive(Debug, Clone, PartialEq, Event)]
pub enum StockEvent {
    /// It was counted anew, and priced.
    StockSet {
        /// Which article.
        sku: Sku,
        /// How many there are now.
        quantity: StockQuantity,
        /// What one costs from now on.
        price: Price,
    },
    /// So many are an order's now.
    StockReserved {
        /// Which order.
        order: OrderId,
        /// How many.
        quantity: Quantity,
    },
}

/// What is asked of the stock of an article.
#[derive(Debug, Clone)]
pub enum StockCommand {
    /// Count and price it anew.
    Set {
        /// Which article.
        sku: Sku,
        /// How many there are.
        quantity: StockQuantity,
        /// What one costs.
        price: Price,
    },
    /// Reserve for an order.
    Reserve {
        /// Which order.
        order: OrderId,
        /// How many.
        quantity: Quantity,
    },
}

/// There are not as many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("only {available} are there")]
pub struct Short {
    /// How many there are.
    pub available: u64,
}

/// The state of one article's stock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    available: u64,
    price: Option<Price>,
}

impl Stock {
    /// How many there are.
    pub fn available(&self) -> u64 {
        self.available
    }

    /// What one costs; none of an article that was never counted.
    pub fn price(&self) -> Option<Price> {
        self.price
    }
}

impl Decider for Stock {
    type Command = StockCommand;
    type Event = StockEvent;
    type Refusal = Short;

    fn decide(&self, command: &StockCommand) -> Result<Vec<StockEvent>, Short> {
        match command {
            StockCommand::Set { sku, quantity, price } => {
                Ok(vec![StockEvent::StockSet { sku: sku.clone(), quantity: *quantity, price: *price }])
            }
            StockCommand::Reserve { quantity, .. } if quantity.get() > self.available => {
                Err(Short { available: self.available })
            }
            StockCommand::Reserve { order, quantity } => {
                Ok(vec![StockEvent::StockReserved { order: *order, quantity: *quantity }])
            }
        }
    }

    fn evolve(&mut self, event: &StockEvent) {
        match event {
            StockEvent::StockSet { quantity, price, .. } => {
                self.available = quantity.get();
                self.price = Some(*price);
            }
            // `decide` never reserves more than there are.
            StockEvent::StockReserved { quantity, .. } => {
                self.available = self.available.saturating_sub(quantity.get());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay::command::{given, given_nothing};
    use uuid::Uuid;

    use super::*;
    use crate::domain::{Currency, Minor};

    const ORDER: OrderId = OrderId(Uuid::from_u128(7));

    fn set(quantity: u64) -> StockEvent {
        StockEvent::StockSet {
            sku: Sku::new("apple").unwrap(),
            quantity: StockQuantity::new(quantity).unwrap(),
            price: Price::new(Currency::EUR, Minor::new(150).unwrap()),
        }
    }

    fn reserve(quantity: u64) -> StockCommand {
        StockCommand::Reserve { order: ORDER, quantity: Quantity::new(quantity).unwrap() }
    }

    fn reserved(quantity: u64) -> StockEvent {
        StockEvent::StockReserved { order: ORDER, quantity: Quantity::new(quantity).unwrap() }
    }

    #[test]
    fn no_more_is_reserved_than_there_is() {
        given::<Stock>([set(5)]).when(reserve(5)).then([reserved(5)]);
        given::<Stock>([set(5), reserved(5)]).when(reserve(1)).refused(Short { available: 0 });
        given::<Stock>([set(5)]).when(reserve(6)).refused(Short { available: 5 });
        given_nothing::<Stock>().when(reserve(1)).refused(Short { available: 0 });
    }

    #[test]
    fn a_count_replaces_what_was_there() {
        given::<Stock>([set(5), reserved(3), set(9)])
            .when(reserve(9))
            .then_state(|stock| assert_eq!(stock.available(), 0));
    }
}
