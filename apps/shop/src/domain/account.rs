//! An account: who pays. It never goes below zero, and a charge is given back whole.

use mainstay::{Decider, Event};
use serde::{Deserialize, Serialize};

use super::{Currency, CustomerId, Minor, Money, OrderId, PricedLine, Reason};

/// The most that a top-up may bring an account to, in minor units: a ninth of 2⁵³, up to which every reader of JSON
/// keeps integers exactly (RFC 8259 §6).
///
/// A refund may go past it: what was charged is given back whatever was paid in meanwhile. By how much is bounded by
/// the orders that were charged and are not decided yet; some 8,000 of the dearest, of one customer and all refunded,
/// would pass 2⁵³. A sum that does not fit into 64 bits is refused.
pub const BALANCE_MAX: u64 = 1_000_000_000_000_000;

/// What happens to an account.
#[derive(Debug, Clone, PartialEq, Event)]
pub enum AccountEvent {
    /// It is there, with nothing on it.
    AccountOpened {
        /// Whose.
        customer: CustomerId,
        /// What it is kept in, for good.
        currency: Currency,
    },
    /// Money was paid in.
    AccountToppedUp {
        /// How much.
        minor: Minor,
    },
    /// An order was charged.
    PaymentProcessed {
        /// Which order.
        order: OrderId,
        /// Who paid.
        customer: CustomerId,
        /// How much.
        amount: Money,
        /// What was paid for.
        lines: Vec<PricedLine>,
    },
    /// An order could not be charged; nothing was taken.
    PaymentRefused {
        /// Which order.
        order: OrderId,
        /// Why.
        reason: Reason,
    },
    /// What an order had cost was given back.
    PaymentRefunded {
        /// Which order.
        order: OrderId,
        /// How much.
        amount: Money,
        /// Why.
        reason: Reason,
    },
}

/// What is asked of an account.
#[derive(Debug, Clone)]
pub enum AccountCommand {
    /// Pay in; opens the account if need be.
    TopUp {
        /// Whose.
        customer: CustomerId,
        /// In what; the account's own when it says nothing.
        currency: Option<Currency>,
        /// How much; may be 0.
        minor: Minor,
    },
    /// Take what an order costs.
    Charge {
        /// Which order.
        order: OrderId,
        /// Who pays.
        customer: CustomerId,
        /// How much.
        amount: Money,
        /// What for.
        lines: Vec<PricedLine>,
    },
    /// Give back what an order had cost.
    Refund {
        /// Which order.
        order: OrderId,
        /// How much.
        amount: Money,
        /// Why.
        reason: Reason,
    },
}

/// Why the rules say no. (A charge that can't be paid is no refusal: that it was refused is a fact.)
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountRefusal {
    /// Nobody opened it.
    #[error("there is no such account")]
    Unknown,
    /// Kept in another currency.
    #[error("the account is kept in {account}, not in {given}")]
    OtherCurrency {
        /// The account's.
        account: Currency,
        /// As asked.
        given: Currency,
    },
    /// It would hold too much.
    #[error("an account holds at most {BALANCE_MAX} minor units; pay in less")]
    TooMuch,
}

/// The state of one account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    currency: Option<Currency>,
    balance: u64,
}

impl Account {
    /// What it is kept in; none before it is opened.
    pub fn currency(&self) -> Option<Currency> {
        self.currency
    }

    /// What is on it, in minor units.
    pub fn balance(&self) -> u64 {
        self.balance
    }

    fn charge(&self, amount: Money) -> Result<(), Reason> {
        let currency = self.currency.ok_or(Reason::NoAccount)?;
        if currency != amount.currency {
            return Err(Reason::OtherCurrency { account: currency, order: amount.currency });
        }
        if self.balance < amount.minor.get() {
            return Err(Reason::InsufficientFunds { balance: self.balance, amount: amount.minor, currency });
        }
        Ok(())
    }
}

impl Decider for Account {
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Refusal = AccountRefusal;

    fn decide(&self, command: &AccountCommand) -> Result<Vec<AccountEvent>, AccountRefusal> {
        match command {
            AccountCommand::TopUp { customer, currency, minor } => {
                let account = self.currency.or(*currency).unwrap_or(Currency::EUR);
                if let Some(given) = currency.filter(|given| *given != account) {
                    return Err(AccountRefusal::OtherCurrency { account, given });
                }
                let after = self.balance.checked_add(minor.get());
                if after.is_none_or(|after| after > BALANCE_MAX) {
                    return Err(AccountRefusal::TooMuch);
                }
                let opened = AccountEvent::AccountOpened { customer: customer.clone(), currency: account };
                let opened = self.currency.is_none().then_some(opened);
                let paid = (minor.get() > 0).then_some(AccountEvent::AccountToppedUp { minor: *minor });
                Ok(opened.into_iter().chain(paid).collect())
            }
            AccountCommand::Charge { order, customer, amount, lines } => {
                Ok(vec![match self.charge(*amount) {
                    Ok(()) => AccountEvent::PaymentProcessed {
                        order: *order,
                        customer: customer.clone(),
                        amount: *amount,
                        lines: lines.clone(),
                    },
                    Err(reason) => AccountEvent::PaymentRefused { order: *order, reason },
                }])
            }
            AccountCommand::Refund { order, amount, reason } => {
                let account = self.currency.ok_or(AccountRefusal::Unknown)?;
                if account != amount.currency {
                    return Err(AccountRefusal::OtherCurrency { account, given: amount.currency });
                }
                self.balance.checked_add(amount.minor.get()).ok_or(AccountRefusal::TooMuch)?;
                let reason = reason.clone();
                Ok(vec![AccountEvent::PaymentRefunded { order: *order, amount: *amount, reason }])
            }
        }
    }

    fn evolve(&mut self, event: &AccountEvent) {
        // `decide` has refused what would not fit into 64 bits; saturating says so without a panic.
        match event {
            AccountEvent::AccountOpened { currency, .. } => self.currency = Some(*currency),
            AccountEvent::AccountToppedUp { minor } => {
                self.balance = self.balance.saturating_add(minor.get())
            }
            AccountEvent::PaymentProcessed { amount, .. } => {
                self.balance = self.balance.saturating_sub(amount.minor.get());
            }
            AccountEvent::PaymentRefused { .. } => {}
            AccountEvent::PaymentRefunded { amount, .. } => {
                self.balance = self.balance.saturating_add(amount.minor.get());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay::command::{Given, given, given_nothing};
    use uuid::Uuid;

    use super::*;
    use crate::domain::Sku;

    const ORDER: OrderId = OrderId(Uuid::from_u128(7));

    fn alice() -> CustomerId {
        CustomerId::new("alice").unwrap()
    }

    fn minor(number: u64) -> Minor {
        Minor::new(number).unwrap()
    }

    fn euros(number: u64) -> Money {
        Money::new(Currency::EUR, minor(number))
    }

    fn short() -> Reason {
        Reason::StockShort { sku: Sku::new("apple").unwrap(), wanted: 2, available: 1 }
    }

    fn holding(number: u64) -> Given<Account> {
        given([
            AccountEvent::AccountOpened { customer: alice(), currency: Currency::EUR },
            AccountEvent::AccountToppedUp { minor: minor(number) },
        ])
    }

    fn top_up(number: u64, currency: Option<&str>) -> AccountCommand {
        let currency = currency.map(|text| Currency::new(text).unwrap());
        AccountCommand::TopUp { customer: alice(), currency, minor: minor(number) }
    }

    fn charge(amount: Money) -> AccountCommand {
        AccountCommand::Charge { order: ORDER, customer: alice(), amount, lines: vec![] }
    }

    #[test]
    fn the_first_top_up_opens_the_account() {
        let opened = |currency: &str| AccountEvent::AccountOpened {
            customer: alice(),
            currency: Currency::new(currency).unwrap(),
        };
        let paid = |number| AccountEvent::AccountToppedUp { minor: minor(number) };
        given_nothing::<Account>().when(top_up(5, None)).then([opened("EUR"), paid(5)]);
        given_nothing::<Account>().when(top_up(0, Some("USD"))).then([opened("USD")]);
        holding(5).when(top_up(7, None)).then([paid(7)]);
        holding(5).when(top_up(7, Some("EUR"))).then_state(|account| assert_eq!(account.balance(), 12));
        holding(5).when(top_up(0, None)).then::<AccountEvent>([]);
    }

    #[test]
    fn a_top_up_in_another_currency_or_past_the_bound_is_refused() {
        let usd = Currency::new("USD").unwrap();
        holding(5)
            .when(top_up(7, Some("USD")))
            .refused(AccountRefusal::OtherCurrency { account: Currency::EUR, given: usd });
        let full: Vec<_> =
            std::iter::once(AccountEvent::AccountOpened { customer: alice(), currency: Currency::EUR })
                .chain((0..1_000).map(|_| AccountEvent::AccountToppedUp { minor: minor(Minor::MAX) }))
                .collect();
        given::<Account>(full.clone()).when(top_up(1, None)).refused(AccountRefusal::TooMuch);
        let refund = AccountCommand::Refund { order: ORDER, amount: euros(300), reason: short() };
        given::<Account>(full)
            .when(refund)
            .then_state(|account| assert_eq!(account.balance(), BALANCE_MAX + 300));
    }

    #[test]
    fn a_charge_takes_what_the_order_costs_or_says_why_not() {
        let processed = AccountEvent::PaymentProcessed {
            order: ORDER,
            customer: alice(),
            amount: euros(300),
            lines: vec![],
        };
        holding(300).when(charge(euros(300))).then([processed]);
        holding(300).when(charge(euros(300))).then_state(|account| assert_eq!(account.balance(), 0));
        let refused = |reason| [AccountEvent::PaymentRefused { order: ORDER, reason }];
        let (amount, currency) = (minor(300), Currency::EUR);
        holding(299).when(charge(euros(300))).then(refused(Reason::InsufficientFunds {
            balance: 299,
            amount,
            currency,
        }));
        holding(299).when(charge(euros(300))).then_state(|account| assert_eq!(account.balance(), 299));
        given_nothing::<Account>().when(charge(euros(1))).then(refused(Reason::NoAccount));
        let usd = Currency::new("USD").unwrap();
        holding(300)
            .when(charge(Money::new(usd, minor(1))))
            .then(refused(Reason::OtherCurrency { account: Currency::EUR, order: usd }));
    }

    #[test]
    fn a_refund_gives_back_what_was_charged() {
        let refund = || AccountCommand::Refund { order: ORDER, amount: euros(300), reason: short() };
        let refunded = AccountEvent::PaymentRefunded { order: ORDER, amount: euros(300), reason: short() };
        holding(0).when(refund()).then([refunded]);
        given_nothing::<Account>().when(refund()).refused(AccountRefusal::Unknown);
    }
}
