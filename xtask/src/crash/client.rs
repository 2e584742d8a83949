//! The outside client: asks as anybody would, and tries again with the same key until it is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::Chance;
use super::books::{Asked, Books, CardRefusal, Shown};
use super::cards::{Entry, Status, Sums};
use crate::process;

/// One answer takes no longer; after it the request is tried again.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Between two tries of a request that was not answered.
const AGAIN: Duration = Duration::from_millis(50);

/// An effect that is not acknowledged after so long, though it was asked for again and again, is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pages of a list.
const PAGE: u64 = 100;

/// The services of one shop, and its card processor.
#[derive(Clone)]
pub(super) struct Shop {
    agent: ureq::Agent,
    base: u16,
}

/// What an answer says of the request.
enum Heard {
    /// Done, or found.
    Answer(Value),
    /// The shop says that the request is at fault.
    Refused(u16, Value),
    /// Not now, or nobody knows: ask again.
    Again(String),
}

impl Shop {
    pub(super) fn new(base: u16) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_MAX))
            .http_status_as_error(false)
            .build();
        Self { agent: config.into(), base }
    }

    fn url(&self, service: u16, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.base + service)
    }

    fn heard(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Heard {
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Heard::Again(error.to_string()),
        };
        let status = answer.status().as_u16();
        let body: Value = match answer.body_mut().read_json() {
            Ok(body) => body,
            Err(error) => return Heard::Again(format!("{status} with a body that ends early: {error}")),
        };
        match status {
            200 | 201 => Heard::Answer(body),
            // A fault inside is nobody's passing trouble.
            429 | 501.. => Heard::Again(format!("{status} {body}")),
            _ => Heard::Refused(status, body),
        }
    }

    /// Asks until there is an answer.
    fn insist(&self, what: &str, mut ask: impl FnMut(&Self) -> Heard) -> Result<Value> {
        let began = Instant::now();
        loop {
            let why = match ask(self) {
                Heard::Answer(answer) => return Ok(answer),
                Heard::Refused(status, body) => bail!("{what} was refused: {status} {body}"),
                Heard::Again(why) => why,
            };
            if began.elapsed() > PATIENCE || process::interrupted() {
                bail!("{what} was not answered within {PATIENCE:?}: {why}");
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn get(&self, service: u16, path: &str) -> Result<Value> {
        self.insist(path, |shop| Self::heard(shop.agent.get(shop.url(service, path)).call()))
    }

    fn post(&self, service: u16, path: &str, key: &str, body: &Value) -> Result<Value> {
        self.insist(path, |shop| {
            Self::heard(
                shop.agent.post(shop.url(service, path)).header("Idempotency-Key", key).send_json(body),
            )
        })
    }

    pub(super) fn pay_in(&self, customer: &str, minor: u64, key: &str) -> Result<()> {
        self.post(2, "/accounts", key, &json!({ "customer": customer, "minor": minor })).map(drop)
    }

    /// Opens an account whose orders are charged to a card.
    pub(super) fn open_card(&self, customer: &str, key: &str) -> Result<()> {
        let body = json!({ "customer": customer, "minor": 0, "funding": "card" });
        self.post(2, "/accounts", key, &body).map(drop)
    }

    /// Has the card processor behave so from now on.
    pub(super) fn behave(&self, behaviour: &Value) -> Result<()> {
        let path = "/behaviour";
        self.insist(path, |shop| Self::heard(shop.agent.put(shop.url(4, path)).send_json(behaviour)))
            .map(drop)
    }

    /// What became of an order's charge at the processor; none if it knows nothing of it.
    pub(super) fn charge(&self, order: &str) -> Result<Option<Entry>> {
        let path = format!("/charges/order-{order}");
        let answer =
            self.insist(&path, |shop| match Self::heard(shop.agent.get(shop.url(4, &path)).call()) {
                Heard::Refused(404, _) => Heard::Answer(Value::Null),
                heard => heard,
            })?;
        if answer.is_null() {
            return Ok(None);
        }
        let status = match answer["status"].as_str() {
            Some("CHARGED") => Status::Charged,
            Some("DECLINED") => Status::Declined,
            Some("VOIDED") => Status::Voided,
            _ => bail!("a charge without a status: {answer}"),
        };
        let charge = &answer["charge"];
        let charge = match (charge["card"].as_str(), charge["amount"]["minor"].as_u64()) {
            (Some(card), Some(minor)) => Some((card.to_owned(), minor)),
            _ if charge.is_null() => None,
            _ => bail!("a charge without a card or an amount: {answer}"),
        };
        Ok(Some(Entry { status, charge }))
    }

    /// The processor's sums. All prices are in euros.
    pub(super) fn ledger(&self) -> Result<Sums> {
        let answer = self.get(4, "/ledger")?;
        let of = |name: &str| number(&answer, &[&format!("/{name}")]);
        let (entries, charged) = (of("entries")?, of("charged")?);
        let (declined, voided) = (of("declined")?, of("voided")?);
        let net = answer["net"].as_object().into_iter().flatten().filter_map(|(_, net)| net.as_u64()).sum();
        Ok(Sums { entries, charged, declined, voided, net })
    }

    pub(super) fn stock(&self, sku: &str, quantity: u64, minor: u64) -> Result<()> {
        let body = json!({ "quantity": quantity, "price": { "currency": "EUR", "minor": minor } });
        let path = format!("/stock/{sku}");
        self.insist(&path, |shop| Self::heard(shop.agent.put(shop.url(3, &path)).send_json(&body))).map(drop)
    }

    /// Places an order; its id.
    pub(super) fn order(&self, key: &str, asked: &Asked) -> Result<String> {
        let lines: Vec<Value> =
            asked.lines.iter().map(|(sku, quantity)| json!({ "sku": sku, "quantity": quantity })).collect();
        let body = json!({ "customer": asked.customer, "lines": lines });
        let answer = self.post(1, "/orders", key, &body)?;
        match answer["id"].as_str() {
            Some(id) => Ok(id.to_owned()),
            None => bail!("an order was answered without an id: {answer}"),
        }
    }

    /// Waits until the order side knows a sku: its prices come from the inventory's facts.
    pub(super) fn is_priced(&self, asked: &Asked, key: &str, patience: Duration) -> Result<String> {
        let began = Instant::now();
        loop {
            match self.order(key, asked) {
                Ok(id) => return Ok(id),
                Err(error) if began.elapsed() > patience || !error.to_string().contains("refused: 422") => {
                    return Err(error);
                }
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
    }

    /// The order as it is shown; none while it is not final.
    pub(super) fn is_final(&self, id: &str) -> Result<Option<Shown>> {
        Ok(shown(&self.get(1, &format!("/orders/{id}"))?))
    }

    /// Every order of a customer.
    pub(super) fn orders_of(&self, customer: &str) -> Result<BTreeMap<String, Option<Shown>>> {
        let (mut all, mut after) = (BTreeMap::new(), String::new());
        loop {
            let page = self.get(1, &format!("/orders?customer={customer}&limit={PAGE}{after}"))?;
            for order in page["orders"].as_array().into_iter().flatten() {
                let Some(id) = order["id"].as_str() else { bail!("an order without an id: {order}") };
                if all.insert(id.to_owned(), shown(order)).is_some() {
                    bail!("order {id} stands on two pages");
                }
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(all),
            }
        }
    }

    /// Messages that are set aside, over all services.
    pub(super) fn parked(&self) -> Result<u64> {
        (1..=4).map(|service| number(&self.get(service, "/stats")?, &["/parked"])).sum()
    }

    pub(super) fn money(&self, customer: &str) -> Result<u64> {
        number(&self.get(2, &format!("/accounts/{customer}"))?, &["/minor", "/balance/minor"])
    }

    pub(super) fn stocked(&self, sku: &str) -> Result<u64> {
        number(&self.get(3, &format!("/stock/{sku}"))?, &["/quantity"])
    }
}

fn number(answer: &Value, pointers: &[&str]) -> Result<u64> {
    match pointers.iter().find_map(|pointer| answer.pointer(pointer)?.as_u64()) {
        Some(number) => Ok(number),
        None => bail!("no {} in {answer}", pointers.join(" or ")),
    }
}

fn shown(order: &Value) -> Option<Shown> {
    let minor = order["amount"]["minor"].as_u64()?;
    let confirmed = match order["status"].as_str()? {
        "CONFIRMED" => true,
        "CANCELLED" => false,
        _ => return None,
    };
    let card = order["reason"].as_str().and_then(card_refusal);
    Some(Shown { confirmed, minor, card })
}

/// Whether it was the card, as the reason says it to people.
fn card_refusal(reason: &str) -> Option<CardRefusal> {
    if reason.contains("the card was declined") {
        Some(CardRefusal::Declined)
    } else if reason.contains("the card processor did not answer") {
        Some(CardRefusal::Unavailable)
    } else {
        None
    }
}

/// What one client may order, and how fast.
pub(super) struct Wishes {
    pub(super) customers: Vec<String>,
    /// Of those, the ones who pay by card: nothing is paid into their accounts.
    pub(super) cards: BTreeSet<String>,
    pub(super) skus: Vec<String>,
    /// From the end of one order to the next.
    pub(super) pause: Duration,
}

impl Wishes {
    fn draw(&self, chance: &mut Chance) -> Asked {
        let pick =
            |chance: &mut Chance, from: &[String]| from[chance.below(from.len() as u64) as usize].clone();
        let customer = pick(chance, &self.customers);
        let lines = (0..=chance.below(3)).map(|_| (pick(chance, &self.skus), 1 + chance.below(3))).collect();
        Asked { customer, lines }
    }
}

/// Orders, one after another, until it is told to stop. Some are sent twice on purpose, some accounts topped up.
pub(super) fn order_on(
    shop: &Shop,
    wishes: &Wishes,
    name: &str,
    mut chance: Chance,
    books: &Mutex<Books>,
    stop: &AtomicBool,
) {
    let note = |change: &mut dyn FnMut(&mut Books)| {
        change(&mut books.lock().unwrap_or_else(PoisonError::into_inner))
    };
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (key, asked) = (format!("{name}-{number}"), wishes.draw(&mut chance));
        let done = shop.order(&key, &asked).and_then(|id| {
            note(&mut |books| books.acknowledge(&id, asked.clone()));
            if chance.below(10) == 0 {
                let again = shop.order(&key, &asked)?;
                if again != id {
                    bail!("key {key} was answered with {id}, then with {again}");
                }
            }
            if chance.below(20) == 0 && !wishes.cards.contains(&asked.customer) {
                shop.pay_in(&asked.customer, 100, &key)?;
                note(&mut |books| *books.paid_in.entry(asked.customer.clone()).or_default() += 100);
            }
            Ok(())
        });
        if let Err(error) = done {
            note(&mut |books| books.violations.push(format!("{key}: {error:#}")));
            return;
        }
        std::thread::sleep(wishes.pause);
    }
}
