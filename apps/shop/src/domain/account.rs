//! An account: who pays, and out of what. Money on it never goes below zero, and a charge is given back whole.

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

/// Out of what an account pays. Chosen when it is opened, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Funding {
    /// Money that was paid in: an order is charged at once, in the transaction that learns of it.
    #[default]
    Prepaid,
    /// A card: an order is charged by the card processor, and nothing lies on the account.
    Card,
}

impl Funding {
    /// Is it the one that accounts had before there were others?
    pub fn is_prepaid(&self) -> bool {
        *self == Self::Prepaid
    }
}

/// What happens to an account.
#[derive(Debug, Clone, PartialEq, Event)]
pub enum AccountEvent {
    /// It is there, with nothing on it.
    AccountOpened {
        /// Whose.
        customer: CustomerId,
        /// What it is kept in, for good.
        currency: Currency,
        /// Out of what it pays, for good.
        #[serde(default, skip_serializing_if = "Funding::is_prepaid")]
        funding: Funding,
    },
    /// Money was paid in.
    AccountToppedUp {
        /// How much.
        minor: Minor,
    },
    /// The card processor is to be asked for what an order costs. Nobody else is told: how it ended is a fact of its own.
    CardChargeRequested {
        /// Which order.
        order: OrderId,
        /// How much.
        amount: Money,
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
        /// Out of what it pays; as it is when it says nothing, and prepaid when it is not there.
        funding: Option<Funding>,
        /// How much; may be 0, and of a card account has to be.
        minor: Minor,
    },
    /// Take what an order costs, or have it taken from the card.
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
    /// The card was charged for an order.
    CardCharged {
        /// Which order.
        order: OrderId,
        /// Who pays.
        customer: CustomerId,
        /// How much.
        amount: Money,
        /// What for.
        lines: Vec<PricedLine>,
    },
    /// The card was not charged for an order, and will not be.
    CardRefused {
        /// Which order.
        order: OrderId,
        /// Why.
        reason: Reason,
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
    /// Opened to pay otherwise.
    #[error("the account was opened to pay by other means; use another customer's")]
    OtherFunding,
    /// Nothing lies on a card account.
    #[error("a card account holds nothing; pay in 0")]
    NothingToPayIn,
    /// It would hold too much.
    #[error("an account holds at most {BALANCE_MAX} minor units; pay in less")]
    TooMuch,
}

/// The state of one account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    currency: Option<Currency>,
    balance: u64,
    /// Not in states that were kept before there were cards.
    #[serde(default)]
    funding: Funding,
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

    /// Out of what it pays.
    pub fn funding(&self) -> Funding {
        self.funding
    }

    fn charge(&self, amount: Money) -> Result<(), Reason> {
        let currency = self.currency.ok_or(Reason::NoAccount)?;
        if currency != amount.currency {
            return Err(Reason::OtherCurrency { account: currency, order: amount.currency });
        }
        if self.funding.is_prepaid() && self.balance < amount.minor.get() {
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
            AccountCommand::TopUp { customer, currency, funding, minor } => {
                let pays = if self.currency.is_some() { self.funding } else { funding.unwrap_or_default() };
                if funding.is_some_and(|given| given != pays) {
                    return Err(AccountRefusal::OtherFunding);
                }
                if !pays.is_prepaid() && minor.get() > 0 {
                    return Err(AccountRefusal::NothingToPayIn);
                }
                let account = self.currency.or(*currency).unwrap_or(Currency::EUR);
                if let Some(given) = currency.filter(|given| *given != account) {
                    return Err(AccountRefusal::OtherCurrency { account, given });
                }
                let after = self.balance.checked_add(minor.get());
                if after.is_none_or(|after| after > BALANCE_MAX) {
                    return Err(AccountRefusal::TooMuch);
                }
                let (customer, currency, funding) = (customer.clone(), account, pays);
                let opened = AccountEvent::AccountOpened { customer, currency, funding };
                let opened = self.currency.is_none().then_some(opened);
                let paid = (minor.get() > 0).then_some(AccountEvent::AccountToppedUp { minor: *minor });
                Ok(opened.into_iter().chain(paid).collect())
            }
            AccountCommand::Charge { order, customer, amount, lines } => {
                Ok(vec![match self.charge(*amount) {
                    Ok(()) if !self.funding.is_prepaid() => {
                        AccountEvent::CardChargeRequested { order: *order, amount: *amount }
                    }
                    Ok(()) => AccountEvent::PaymentProcessed {
                        order: *order,
                        customer: customer.clone(),
                        amount: *amount,
                        lines: lines.clone(),
                    },
                    Err(reason) => AccountEvent::PaymentRefused { order: *order, reason },
                }])
            }
            AccountCommand::CardCharged { order, customer, amount, lines } => {
                Ok(vec![AccountEvent::PaymentProcessed {
                    order: *order,
                    customer: customer.clone(),
                    amount: *amount,
                    lines: lines.clone(),
                }])
            }
            AccountCommand::CardRefused { order, reason } => {
                Ok(vec![AccountEvent::PaymentRefused { order: *order, reason: reason.clone() }])
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
            AccountEvent::AccountOpened { currency, funding, .. } => {
                (self.currency, self.funding) = (Some(*currency), *funding);
            }
            // What a card pays lies at its processor.
            AccountEvent::PaymentProcessed { .. } | AccountEvent::PaymentRefunded { .. }
                if !self.funding.is_prepaid() => {}
            AccountEvent::AccountToppedUp { minor } => {
                self.balance = self.balance.saturating_add(minor.get())
            }
            AccountEvent::PaymentProcessed { amount, .. } => {
                self.balance = self.balance.saturating_sub(amount.minor.get());
            }
            AccountEvent::PaymentRefused { .. } | AccountEvent::CardChargeRequested { .. } => {}
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

    fn opened(currency: Currency, funding: Funding) -> AccountEvent {
        AccountEvent::AccountOpened { customer: alice(), currency, funding }
    }

    fn holding(number: u64) -> Given<Account> {
        given([
            opened(Currency::EUR, Funding::Prepaid),
            AccountEvent::AccountToppedUp { minor: minor(number) },
        ])
    }

    fn top_up(number: u64, currency: Option<&str>) -> AccountCommand {
        let currency = currency.map(|text| Currency::new(text).unwrap());
        AccountCommand::TopUp { customer: alice(), currency, funding: None, minor: minor(number) }
    }

    fn charge(amount: Money) -> AccountCommand {
        AccountCommand::Charge { order: ORDER, customer: alice(), amount, lines: vec![] }
    }

    #[test]
    fn the_first_top_up_opens_the_account() {
        let opened = |currency: &str| opened(Currency::new(currency).unwrap(), Funding::Prepaid);
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
        let full: Vec<_> = std::iter::once(opened(Currency::EUR, Funding::Prepaid))
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

    #[test]
    fn a_card_account_asks_the_processor_and_holds_nothing_whatever_comes_of_it() {
        let card = || given::<Account>([opened(Currency::EUR, Funding::Card)]);
        let open = |funding, number| AccountCommand::TopUp {
            customer: alice(),
            currency: None,
            funding: Some(funding),
            minor: minor(number),
        };
        given_nothing::<Account>().when(open(Funding::Card, 0)).then([opened(Currency::EUR, Funding::Card)]);
        given_nothing::<Account>().when(open(Funding::Card, 1)).refused(AccountRefusal::NothingToPayIn);
        card().when(top_up(1, None)).refused(AccountRefusal::NothingToPayIn);
        card().when(open(Funding::Prepaid, 0)).refused(AccountRefusal::OtherFunding);
        holding(5).when(open(Funding::Card, 0)).refused(AccountRefusal::OtherFunding);

        let (order, amount) = (ORDER, euros(300));
        card().when(charge(amount)).then([AccountEvent::CardChargeRequested { order, amount }]);
        let usd = Money::new(Currency::new("USD").unwrap(), minor(1));
        let reason = Reason::OtherCurrency { account: Currency::EUR, order: usd.currency };
        card().when(charge(usd)).then([AccountEvent::PaymentRefused { order, reason }]);
        let charged = AccountCommand::CardCharged { order, customer: alice(), amount, lines: vec![] };
        card().when(charged).then_state(|account| assert_eq!(account.balance(), 0));
        let refund = AccountCommand::Refund { order, amount, reason: short() };
        card().when(refund).then_state(|account| assert_eq!(account.balance(), 0));
    }

    #[test]
    fn accounts_from_before_there_were_cards_are_prepaid_and_are_still_written_as_they_were() {
        let old: Account = serde_json::from_str(r#"{"currency":"EUR","balance":5}"#).unwrap();
        assert_eq!((old.funding(), old.balance()), (Funding::Prepaid, 5));
        let event = opened(Currency::EUR, Funding::Prepaid);
        let bytes = event.encode().unwrap();
        assert_eq!(bytes, br#"{"customer":"alice","currency":"EUR"}"#);
        assert_eq!(AccountEvent::decode(event.event_type(), 1, &bytes).unwrap(), event);
    }
}
