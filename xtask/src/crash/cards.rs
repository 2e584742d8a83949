//! The card processor's books against the shop's orders: an outsider's ledger knows nothing of what a card paid for
//! beyond the orders that were confirmed, and nothing less.

use std::collections::BTreeMap;

use super::books::{Books, CardRefusal, Shown};

/// What became of one key at the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Charged,
    Declined,
    Voided,
}

/// One key's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) status: Status,
    /// Whose card, and how much in minor units; none of a key that was voided before it was charged.
    pub(super) charge: Option<(String, u64)>,
}

/// The processor's sums.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sums {
    pub(super) entries: u64,
    pub(super) charged: u64,
    pub(super) declined: u64,
    pub(super) voided: u64,
    /// Charged and not voided, in minor units.
    pub(super) net: u64,
}

impl Sums {
    /// What the sums have to be, if these are all the entries there are.
    fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        entries.fold(Self::default(), |mut sums, entry| {
            sums.entries += 1;
            sums.declined += u64::from(entry.status == Status::Declined);
            sums.voided += u64::from(entry.status == Status::Voided);
            if entry.status != Status::Declined {
                sums.charged += u64::from(entry.charge.is_some());
            }
            if let (Status::Charged, Some((_, minor))) = (entry.status, &entry.charge) {
                sums.net += minor;
            }
            sums
        })
    }
}

/// How the orders that were to be paid by card ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ends {
    pub(super) orders: u64,
    pub(super) charged: u64,
    pub(super) declined: u64,
    /// Cancelled because the processor did not answer for too long.
    pub(super) given_up: u64,
    /// Nothing may be charged under their keys any more: given up, or beyond the stock.
    pub(super) voided: u64,
}

/// Compares the final orders with the processor's entries, by order, and its sums.
pub(super) fn settle(
    books: &Books,
    shown: &BTreeMap<String, Shown>,
    entries: &BTreeMap<String, Entry>,
    sums: &Sums,
) -> (Ends, Vec<String>) {
    let (mut ends, mut violations) = (Ends::default(), Vec::new());
    let told = Sums::of(entries.values());
    if *sums != told {
        violations.push(format!("the processor's ledger says {sums:?}, the orders account for {told:?}"));
    }
    let by_card = books.orders.iter().filter(|(_, asked)| books.cards.contains(&asked.customer));
    for (id, asked) in by_card {
        // That it is not there is said where all orders are compared.
        let Some(order) = shown.get(id) else { continue };
        let entry = entries.get(id);
        let status = entry.map(|entry| entry.status);
        ends.orders += 1;
        ends.charged += u64::from(status == Some(Status::Charged));
        ends.declined += u64::from(order.card == Some(CardRefusal::Declined));
        ends.given_up += u64::from(order.card == Some(CardRefusal::Unavailable));
        ends.voided += u64::from(status == Some(Status::Voided));
        if order.confirmed {
            let due = Entry {
                status: Status::Charged,
                charge: Some((asked.customer.clone(), books.amount(asked))),
            };
            if entry != Some(&due) {
                violations.push(format!("order {id} is confirmed; its charge is {entry:?}, due was {due:?}"));
            }
        } else if status == Some(Status::Charged) {
            violations.push(format!("order {id} is cancelled, and its card is charged for good: {entry:?}"));
        } else if order.card == Some(CardRefusal::Declined) && status != Some(Status::Declined) {
            violations
                .push(format!("order {id} says that its card was declined, which it was not: {entry:?}"));
        }
    }
    (ends, violations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::books::Asked;

    fn entry(status: Status, charge: Option<u64>) -> Entry {
        Entry { status, charge: charge.map(|minor| ("carol".to_owned(), minor)) }
    }

    fn order(confirmed: bool, card: Option<CardRefusal>) -> Shown {
        Shown { confirmed, minor: 200, card }
    }

    fn books() -> Books {
        let mut books = Books {
            prices: [("apple".to_owned(), 100)].into(),
            cards: ["carol".to_owned()].into(),
            ..Books::default()
        };
        for (id, customer) in
            [("paid", "carol"), ("declined", "carol"), ("given up", "carol"), ("short", "carol"), ("a", "al")]
        {
            let lines = [("apple".to_owned(), 2)].into();
            books.acknowledge(id, Asked { customer: customer.into(), lines });
        }
        books
    }

    fn shown() -> BTreeMap<String, Shown> {
        [
            ("paid", order(true, None)),
            ("declined", order(false, Some(CardRefusal::Declined))),
            ("given up", order(false, Some(CardRefusal::Unavailable))),
            ("short", order(false, None)),
            ("a", order(true, None)),
        ]
        .map(|(id, order)| (id.to_owned(), order))
        .into()
    }

    fn entries() -> BTreeMap<String, Entry> {
        [
            ("paid", entry(Status::Charged, Some(200))),
            ("declined", entry(Status::Declined, Some(200))),
            ("given up", entry(Status::Voided, None)),
            ("short", entry(Status::Voided, Some(200))),
        ]
        .map(|(id, entry)| (id.to_owned(), entry))
        .into()
    }

    const SUMS: Sums = Sums { entries: 4, charged: 2, declined: 1, voided: 2, net: 200 };

    #[test]
    fn a_ledger_that_agrees_has_no_violation_and_is_counted() {
        let (ends, violations) = settle(&books(), &shown(), &entries(), &SUMS);
        assert_eq!(violations, Vec::<String>::new());
        assert_eq!(ends, Ends { orders: 4, charged: 1, declined: 1, given_up: 1, voided: 2 });
        // A key that was never charged and never voided stands for nothing.
        let mut entries = entries();
        entries.remove("given up");
        let sums = Sums { entries: 3, voided: 1, ..SUMS };
        assert!(settle(&books(), &shown(), &entries, &sums).1.is_empty());
    }

    #[test]
    fn every_disagreement_with_the_ledger_is_found() {
        let other = Entry { charge: Some(("al".into(), 200)), ..entry(Status::Charged, None) };
        let less = Sums { charged: 1, net: 0, ..SUMS };
        let twice = Sums { entries: 5, charged: 3, net: 400, ..SUMS };
        let kept = Sums { voided: 1, net: 400, ..SUMS };
        let never = Sums { declined: 0, voided: 3, ..SUMS };
        let cases: [(&str, &str, Option<Entry>, Sums); 8] = [
            ("is confirmed", "paid", None, Sums { entries: 3, ..less.clone() }),
            (
                "is confirmed",
                "paid",
                Some(entry(Status::Voided, Some(200))),
                Sums { voided: 3, net: 0, ..SUMS },
            ),
            ("is confirmed", "paid", Some(entry(Status::Charged, Some(199))), Sums { net: 199, ..SUMS }),
            ("is confirmed", "paid", Some(other), SUMS),
            ("charged for good", "short", Some(entry(Status::Charged, Some(200))), kept),
            ("which it was not", "declined", Some(entry(Status::Voided, None)), never),
            // Two charges, one of them under a key that is no order's.
            ("ledger says", "paid", Some(entry(Status::Charged, Some(200))), twice),
            ("ledger says", "paid", Some(entry(Status::Charged, Some(200))), Sums { net: 201, ..SUMS }),
        ];
        for (words, id, changed, sums) in cases {
            let mut entries = entries();
            match changed {
                Some(entry) => drop(entries.insert(id.to_owned(), entry)),
                None => drop(entries.remove(id)),
            }
            let (_, found) = settle(&books(), &shown(), &entries, &sums);
            assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}");
        }
    }
}
