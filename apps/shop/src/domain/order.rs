//! An order: PENDING until the others have spoken, then CONFIRMED or CANCELLED for good.
//!
//! ```text
//!            Create              Confirm
//!   (none) ─────────► PENDING ────────────► CONFIRMED
//!                        │ Cancel
//!                        └────────────────► CANCELLED
//! ```

use mainstay::{Decider, Event};
use serde::{Deserialize, Serialize};

use super::{Currency, CustomerId, LINES_MAX, Line, Minor, Money, OrderId, Price, PricedLine, Reason, Sku};

/// What happens to an order.
#[derive(Debug, Clone, PartialEq, Event)]
pub enum OrderEvent {
    /// It was made; nobody has paid yet.
    OrderCreated {
        /// Which.
        order: OrderId,
        /// Whose.
        customer: CustomerId,
        /// What, at which price.
        lines: Vec<PricedLine>,
        /// The sum of the lines.
        amount: Money,
    },
    /// Paid and reserved: final.
    OrderConfirmed {
        /// Which.
        order: OrderId,
    },
    /// It did not come through, and whatever was paid was given back: final.
    OrderCancelled {
        /// Which.
        order: OrderId,
        /// Why.
        reason: Reason,
    },
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Not made yet; never shown.
    #[default]
    None,
    /// Made; the others have not spoken yet.
    Pending,
    /// Paid and reserved.
    Confirmed,
    /// It did not come through.
    Cancelled,
}

impl Status {
    /// The name that is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Pending => "PENDING",
            Self::Confirmed => "CONFIRMED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Will it stay so?
    pub fn is_final(self) -> bool {
        matches!(self, Self::Confirmed | Self::Cancelled)
    }
}

/// What is asked of an order.
#[derive(Debug, Clone)]
pub enum OrderCommand {
    /// Make it, at these prices.
    Create {
        /// Its id, new.
        order: OrderId,
        /// Whose.
        customer: CustomerId,
        /// What; each article once.
        lines: Vec<Line>,
        /// The price of one piece, for each line.
        prices: Vec<Price>,
    },
    /// It is paid and reserved.
    Confirm {
        /// Which.
        order: OrderId,
    },
    /// It did not come through.
    Cancel {
        /// Which.
        order: OrderId,
        /// Why.
        reason: Reason,
    },
}

/// Why the rules say no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefusal {
    /// No line at all, or too many.
    #[error("an order has 1 to {LINES_MAX} lines")]
    Lines,
    /// Two lines of one article.
    #[error("article {0} stands in two lines; add their quantities")]
    Twice(Sku),
    /// Prices in different currencies can't be added.
    #[error("the articles are priced in {0} and {1}; order them apart")]
    Currencies(Currency, Currency),
    /// The sum is more than an order may cost.
    #[error("the order costs more than {} minor units; order less", Minor::MAX)]
    TooExpensive,
    /// There is an order with this id.
    #[error("there is such an order already")]
    Exists,
    /// There is none with this id.
    #[error("there is no such order")]
    Unknown,
    /// It is final, and otherwise than asked.
    #[error("the order is {} for good", .0.as_str())]
    Final(Status),
}

/// The state of one order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    status: Status,
}

impl Order {
    /// Where it stands.
    pub fn status(&self) -> Status {
        self.status
    }

    fn end(&self, to: Status, event: OrderEvent) -> Result<Vec<OrderEvent>, OrderRefusal> {
        match self.status {
            Status::None => Err(OrderRefusal::Unknown),
            Status::Pending => Ok(vec![event]),
            present if present == to => Ok(vec![]),
            present => Err(OrderRefusal::Final(present)),
        }
    }
}

impl Decider for Order {
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Refusal = OrderRefusal;

    fn decide(&self, command: &OrderCommand) -> Result<Vec<OrderEvent>, OrderRefusal> {
        match command {
            OrderCommand::Create { .. } if self.status != Status::None => Err(OrderRefusal::Exists),
            OrderCommand::Create { order, customer, lines, prices } => {
                check_lines(lines)?;
                let (lines, amount) = price(lines, prices)?;
                Ok(vec![OrderEvent::OrderCreated {
                    order: *order,
                    customer: customer.clone(),
                    lines,
                    amount,
                }])
            }
            OrderCommand::Confirm { order } => {
                self.end(Status::Confirmed, OrderEvent::OrderConfirmed { order: *order })
            }
            OrderCommand::Cancel { order, reason } => {
                let reason = reason.clone();
                self.end(Status::Cancelled, OrderEvent::OrderCancelled { order: *order, reason })
            }
        }
    }

    fn evolve(&mut self, event: &OrderEvent) {
        self.status = match event {
            OrderEvent::OrderCreated { .. } => Status::Pending,
            OrderEvent::OrderConfirmed { .. } => Status::Confirmed,
            OrderEvent::OrderCancelled { .. } => Status::Cancelled,
        };
    }
}

/// Checks what can be said of lines before their prices are known.
pub fn check_lines(lines: &[Line]) -> Result<(), OrderRefusal> {
    if lines.is_empty() || lines.len() > LINES_MAX {
        return Err(OrderRefusal::Lines);
    }
    for (i, line) in lines.iter().enumerate() {
        if lines[..i].iter().any(|other| other.sku == line.sku) {
            return Err(OrderRefusal::Twice(line.sku.clone()));
        }
    }
    Ok(())
}

/// The lines with their prices, and their sum. Checked at every step: a sum that does not fit is refused.
fn price(lines: &[Line], prices: &[Price]) -> Result<(Vec<PricedLine>, Money), OrderRefusal> {
    let currency = prices.first().ok_or(OrderRefusal::Lines)?.currency;
    let mut sum: u64 = 0;
    let mut priced = Vec::with_capacity(lines.len());
    for (line, price) in lines.iter().zip(prices) {
        if price.currency != currency {
            return Err(OrderRefusal::Currencies(currency, price.currency));
        }
        let cost = price.minor.get().checked_mul(line.quantity.get()).ok_or(OrderRefusal::TooExpensive)?;
        sum = sum.checked_add(cost).ok_or(OrderRefusal::TooExpensive)?;
        priced.push(PricedLine { sku: line.sku.clone(), quantity: line.quantity, minor: price.minor });
    }
    let minor = Minor::new(sum).map_err(|_| OrderRefusal::TooExpensive)?;
    if priced.len() != lines.len() {
        return Err(OrderRefusal::Lines);
    }
    Ok((priced, Money::new(currency, minor)))
}

#[cfg(test)]
mod tests {
    use mainstay::command::{given, given_nothing};
    use uuid::Uuid;

    use super::*;
    use crate::domain::Quantity;

    const ORDER: OrderId = OrderId(Uuid::from_u128(7));

    fn line(sku: &str, quantity: u64) -> Line {
        Line { sku: Sku::new(sku).unwrap(), quantity: Quantity::new(quantity).unwrap() }
    }

    fn euros(minor: u64) -> Price {
        Price::new(Currency::EUR, Minor::new(minor).unwrap())
    }

    fn create(lines: Vec<Line>, prices: Vec<Price>) -> OrderCommand {
        OrderCommand::Create { order: ORDER, customer: CustomerId::new("alice").unwrap(), lines, prices }
    }

    fn created() -> OrderEvent {
        OrderEvent::OrderCreated {
            order: ORDER,
            customer: CustomerId::new("alice").unwrap(),
            lines: vec![PricedLine {
                sku: Sku::new("apple").unwrap(),
                quantity: Quantity::new(2).unwrap(),
                minor: Minor::new(150).unwrap(),
            }],
            amount: euros(300),
        }
    }

    #[test]
    fn an_order_costs_the_sum_of_its_lines() {
        given_nothing::<Order>().when(create(vec![line("apple", 2)], vec![euros(150)])).then([created()]);
        given_nothing::<Order>()
            .when(create(vec![line("apple", 2), line("pear", 3)], vec![euros(150), euros(7)]))
            .then_state(|order| assert_eq!(order.status(), Status::Pending));
    }

    #[test]
    fn an_order_that_can_not_be_priced_is_refused() {
        let usd = Price::new(Currency::new("USD").unwrap(), Minor::new(1).unwrap());
        let many: Vec<Line> = (0..=LINES_MAX).map(|i| line(&format!("a{i}"), 1)).collect();
        let prices = vec![euros(1); many.len()];
        for (command, why) in [
            (create(vec![], vec![]), OrderRefusal::Lines),
            (create(many, prices), OrderRefusal::Lines),
            (create(vec![line("a", 1), line("b", 1)], vec![euros(1)]), OrderRefusal::Lines),
            (
                create(vec![line("a", 1), line("a", 2)], vec![euros(1), euros(1)]),
                OrderRefusal::Twice(Sku::new("a").unwrap()),
            ),
            (
                create(vec![line("a", 1), line("b", 1)], vec![euros(1), usd]),
                OrderRefusal::Currencies(Currency::EUR, Currency::new("USD").unwrap()),
            ),
            (create(vec![line("a", 1_000_000)], vec![euros(Minor::MAX)]), OrderRefusal::TooExpensive),
            (
                create(vec![line("a", 1), line("b", 1)], vec![euros(Minor::MAX), euros(1)]),
                OrderRefusal::TooExpensive,
            ),
        ] {
            given_nothing::<Order>().when(command).refused(why);
        }
    }

    #[test]
    fn an_order_ends_once_and_the_same_end_again_changes_nothing() {
        let confirmed = OrderEvent::OrderConfirmed { order: ORDER };
        let cancelled = OrderEvent::OrderCancelled { order: ORDER, reason: Reason::NoAccount };
        let confirm = || OrderCommand::Confirm { order: ORDER };
        let cancel = || OrderCommand::Cancel { order: ORDER, reason: Reason::NoAccount };
        given::<Order>([created()]).when(confirm()).then([confirmed.clone()]);
        given::<Order>([created()]).when(cancel()).then([cancelled.clone()]);
        given::<Order>([created(), confirmed.clone()]).when(confirm()).then::<OrderEvent>([]);
        given::<Order>([created(), confirmed]).when(cancel()).refused(OrderRefusal::Final(Status::Confirmed));
        given::<Order>([created(), cancelled])
            .when(confirm())
            .refused(OrderRefusal::Final(Status::Cancelled));
        given_nothing::<Order>().when(confirm()).refused(OrderRefusal::Unknown);
        given::<Order>([created()])
            .when(create(vec![line("apple", 2)], vec![euros(150)]))
            .refused(OrderRefusal::Exists);
    }
}
