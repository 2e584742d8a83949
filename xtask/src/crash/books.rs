//! The books: what an outside client of the shop was told, and whether the shop's own state agrees.

use std::collections::{BTreeMap, BTreeSet};

/// One order as the client asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) customer: String,
    /// Quantity by sku.
    pub(super) lines: BTreeMap<String, u64>,
}

/// An order as the shop shows it in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) confirmed: bool,
    pub(super) minor: u64,
    /// It was cancelled because of its card.
    pub(super) card: Option<CardRefusal>,
}

/// Why a card did not pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CardRefusal {
    /// The processor said no.
    Declined,
    /// The processor did not answer for too long.
    Unavailable,
}

/// What was put into the shop, and what was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// Acknowledged money by customer.
    pub(super) paid_in: BTreeMap<String, u64>,
    /// Acknowledged stock by sku.
    pub(super) stocked: BTreeMap<String, u64>,
    /// Price by sku.
    pub(super) prices: BTreeMap<String, u64>,
    /// Customers whose money, and articles whose stock, can't run out: what these order of those must be confirmed.
    pub(super) inexhaustible: BTreeSet<String>,
    /// Customers whose orders a card pays: nothing lies on their accounts.
    pub(super) cards: BTreeSet<String>,
    /// Acknowledged orders by id.
    pub(super) orders: BTreeMap<String, Asked>,
    /// What the client itself saw go wrong.
    pub(super) violations: Vec<String>,
}

impl Books {
    /// Notes an acknowledgement. The same key has to give the same order each time, two keys never the same.
    pub(super) fn acknowledge(&mut self, id: &str, asked: Asked) {
        if self.orders.insert(id.to_owned(), asked).is_some() {
            self.violations.push(format!("order {id} was given for two keys"));
        }
    }

    /// What an order costs.
    pub(super) fn amount(&self, asked: &Asked) -> u64 {
        asked.lines.iter().map(|(sku, quantity)| self.prices.get(sku).unwrap_or(&0) * quantity).sum()
    }

    /// Compares with the shop's state at the end: orders by id, money by customer, stock by sku.
    pub(super) fn balance(
        &self,
        shown: &BTreeMap<String, Shown>,
        money: &BTreeMap<String, u64>,
        stock: &BTreeMap<String, u64>,
    ) -> Vec<String> {
        let mut violations = Vec::new();
        let (mut spent, mut taken) = (BTreeMap::<&str, u64>::new(), BTreeMap::<&str, u64>::new());
        for (id, asked) in &self.orders {
            let Some(order) = shown.get(id) else {
                violations
                    .push(format!("order {id} of {} was acknowledged and is not there", asked.customer));
                continue;
            };
            let amount = self.amount(asked);
            if order.minor != amount {
                violations
                    .push(format!("order {id} shows an amount of {}, {amount} was ordered", order.minor));
            }
            let sure = std::iter::once(&asked.customer).chain(asked.lines.keys());
            let by_card = self.cards.contains(&asked.customer);
            let excused = by_card && order.card.is_some();
            if !order.confirmed && !excused && sure.clone().all(|name| self.inexhaustible.contains(name)) {
                violations
                    .push(format!("order {id} was cancelled, though there were money and goods enough"));
            }
            if order.confirmed {
                // What a card pays is in its processor's ledger.
                *spent.entry(&asked.customer).or_default() += if by_card { 0 } else { amount };
                for (sku, quantity) in &asked.lines {
                    *taken.entry(sku).or_default() += quantity;
                }
            }
        }
        for id in shown.keys().filter(|id| !self.orders.contains_key(*id)) {
            violations
                .push(format!("order {id} is there and no key was answered with it: an order was doubled"));
        }
        for (customer, paid_in) in &self.paid_in {
            let (spent, has) = (spent.get(customer.as_str()).unwrap_or(&0), money.get(customer));
            if has.copied() != paid_in.checked_sub(*spent) {
                violations.push(format!(
                    "{customer} paid in {paid_in}, confirmed orders took {spent}, has {has:?}"
                ));
            }
        }
        for (sku, stocked) in &self.stocked {
            let (taken, has) = (taken.get(sku.as_str()).unwrap_or(&0), stock.get(sku));
            if has.copied() != stocked.checked_sub(*taken) {
                violations.push(format!(
                    "of {sku} {stocked} were stocked, confirmed orders took {taken}, there are {has:?}"
                ));
            }
        }
        violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map<V: Clone>(pairs: &[(&str, V)]) -> BTreeMap<String, V> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
    }

    fn books() -> Books {
        let mut books = Books {
            paid_in: map(&[("alice", 1_000)]),
            stocked: map(&[("apple", 10)]),
            prices: map(&[("apple", 100)]),
            inexhaustible: ["bob".to_owned(), "apple".to_owned()].into(),
            ..Books::default()
        };
        for (id, quantity) in [("1", 2), ("2", 50)] {
            books.acknowledge(id, Asked { customer: "alice".into(), lines: map(&[("apple", quantity)]) });
        }
        books
    }

    fn shown(confirmed: bool, minor: u64) -> Shown {
        Shown { confirmed, minor, card: None }
    }

    #[test]
    fn books_that_agree_have_no_violation() {
        let orders = map(&[("1", shown(true, 200)), ("2", shown(false, 5_000))]);
        assert!(books().balance(&orders, &map(&[("alice", 800)]), &map(&[("apple", 8)])).is_empty());
    }

    #[test]
    fn an_order_paid_by_card_takes_stock_and_nothing_from_the_account() {
        let orders = map(&[("1", shown(true, 200)), ("2", shown(false, 5_000))]);
        let mut books = books();
        books.cards.insert("alice".into());
        books.paid_in.insert("alice".into(), 0);
        assert!(books.balance(&orders, &map(&[("alice", 0)]), &map(&[("apple", 8)])).is_empty());
        let found = books.balance(&orders, &map(&[("alice", 200)]), &map(&[("apple", 8)]));
        assert!(found.len() == 1 && found[0].contains("paid in"), "{found:?}");
        let found = books.balance(&orders, &map(&[("alice", 0)]), &map(&[("apple", 10)]));
        assert!(found.len() == 1 && found[0].contains("stocked"), "{found:?}");
    }

    #[test]
    fn every_disagreement_is_found() {
        let right = map(&[("1", shown(true, 200)), ("2", shown(false, 5_000))]);
        let extra = map(&[("1", shown(true, 200)), ("2", shown(false, 5_000)), ("3", shown(false, 1))]);
        let cases = [
            ("is not there", map(&[("1", shown(true, 200))]), 800, 8),
            ("doubled", extra, 800, 8),
            ("paid in", right.clone(), 600, 8),
            ("paid in", right.clone(), 1_000, 8),
            ("stocked", right.clone(), 800, 6),
            ("amount", map(&[("1", shown(true, 201)), ("2", shown(false, 5_000))]), 800, 8),
            ("stocked", map(&[("1", shown(false, 200)), ("2", shown(false, 5_000))]), 1_000, 8),
        ];
        for (word, orders, money, stock) in cases {
            let found = books().balance(&orders, &map(&[("alice", money)]), &map(&[("apple", stock)]));
            assert!(found.len() == 1 && found[0].contains(word), "{word}: {found:?}");
        }
        let mut given_up = books();
        given_up.acknowledge("4", Asked { customer: "bob".into(), lines: map(&[("apple", 1)]) });
        let mut orders = right.clone();
        orders.insert("4".into(), shown(false, 100));
        let found = given_up.balance(&orders, &map(&[("alice", 800)]), &map(&[("apple", 8)]));
        assert!(found.len() == 1 && found[0].contains("though there were"), "{found:?}");
        let mut declined = shown(false, 100);
        declined.card = Some(CardRefusal::Declined);
        orders.insert("4".into(), declined);
        let found = given_up.balance(&orders, &map(&[("alice", 800)]), &map(&[("apple", 8)]));
        assert!(found.len() == 1 && found[0].contains("though there were"), "bob has no card: {found:?}");
        given_up.cards.insert("bob".into());
        assert!(given_up.balance(&orders, &map(&[("alice", 800)]), &map(&[("apple", 8)])).is_empty());
        let mut twice = books();
        twice.acknowledge("1", Asked { customer: "alice".into(), lines: BTreeMap::new() });
        assert!(twice.violations[0].contains("two keys"));
    }
}
