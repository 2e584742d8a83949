//! The shop under fire: `mainstay up` takes orders while its processes are killed, and afterwards the books agree.
//!
//! ```text
//!   clients ──orders, each with its key, again until answered──► order ─► payment ─► inventory
//!      └── books: what was acknowledged                            ▲      ▲   └─► processor ▲      ▲
//!   this driver ── kill -9 every 0.2 to 2 s: one of them, 1 in 20 times the supervisor ──────┴──────┘
//!      └── now and then has the card processor be slow, fail, flap, hang, decline, lose its answers
//!   at the end: quiet; every order final; orders, money and stock as in the books; chains proven; no effect twice;
//!               the cards charged once for what was confirmed, and for nothing else
//! ```
//! The work is cut into series, each with a seed, a folder and up to [`KILLS_PER_SERIES`] kills, so that a long run
//! can go on where it stopped (`--from`). A seed fixes the orders and the moments of the kills.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::books::{Asked, Books, Shown};
use super::cards::{self, Entry};
use super::client::{self, Shop, Wishes};
use super::weather::Weather;
use super::worker::fresh;
use super::{Chance, out};
use crate::process;
use crate::shop::{LOOK, PROCESSOR, SERVICES, UP_MAX, Up, build};

/// Kills of one folder.
const KILLS_PER_SERIES: u64 = 50;

/// Every order is final so long after the last kill.
const QUIET_MAX: Duration = Duration::from_secs(60);

const CLIENTS: u64 = 4;

/// Effects that happen at most once an order: in which service's store, under which type.
const ONCE: [(&str, &str); 7] = [
    ("order", "OrderCreated"),
    ("payment", "PaymentProcessed"),
    ("payment", "PaymentRefunded"),
    ("payment", "PaymentRefused"),
    ("payment", "CardChargeRequested"),
    ("inventory", "InventoryUpdated"),
    ("order", "OrderConfirmed"),
];

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The seed of the first series; the next has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often to kill, in all series together.
    #[arg(long, default_value_t = 50)]
    rounds: u64,
    /// Begin with the series of this seed, as if those before it had passed.
    #[arg(long)]
    from: Option<u64>,
    /// The shop's ports follow this one.
    #[arg(long, default_value_t = 27_100)]
    port_base: u16,
    /// One JSON object on standard output at the end.
    #[arg(long)]
    json: bool,
    /// A `mainstay` that is built already.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// What the whole run found.
#[derive(Default, Serialize)]
struct Summary {
    passed: bool,
    seed: u64,
    from: u64,
    kills: u64,
    /// Of those, of the supervisor.
    kills_of_supervisor: u64,
    /// Of the others, those that met the card processor.
    kills_of_processor: u64,
    /// How often the processor was told to behave badly for a while.
    spells: u64,
    orders: u64,
    confirmed: u64,
    cancelled: u64,
    /// Of the orders, those to be paid by card.
    card_orders: u64,
    card_charged: u64,
    card_declined: u64,
    /// Cancelled because the processor did not answer for too long.
    card_given_up: u64,
    card_voided: u64,
    /// The longest wait for the last order to be final, after a series' last kill.
    quiet_seconds_max: f64,
    seconds: f64,
    violations: Vec<String>,
}

/// Runs the crashes. True when every promise was kept.
pub(super) fn run(arguments: &Arguments) -> Result<bool> {
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => build()?,
    };
    let from = arguments.from.unwrap_or(arguments.seed);
    let mut summary = Summary { seed: arguments.seed, from, ..Summary::default() };
    let (began, out) = (Instant::now(), out()?);
    for series in 0..arguments.rounds.div_ceil(KILLS_PER_SERIES) {
        let seed = arguments.seed + series;
        if seed < from {
            continue;
        }
        let kills = KILLS_PER_SERIES.min(arguments.rounds - series * KILLS_PER_SERIES);
        let folder = fresh(&out, &format!("shop-{seed}"))?;
        let mut up = Up::new(&binary, &folder, arguments.port_base);
        let ran = series_of(&mut up, seed, kills, &mut summary);
        up.end();
        ran?;
        summary.seconds = began.elapsed().as_secs_f64();
        eprintln!(
            "seed {seed}: {} kills, {} orders, {:.1} s",
            summary.kills, summary.orders, summary.seconds
        );
        if !summary.violations.is_empty() {
            eprintln!("what it left is kept in {}", folder.display());
            eprintln!("    to repeat it: cargo xtask crash shop --seed {seed} --rounds {kills}");
            break;
        }
        fs::remove_dir_all(&folder).context("the finished series can't be removed")?;
    }
    summary.passed = summary.violations.is_empty();
    for violation in summary.violations.iter().take(20) {
        eprintln!("{violation}");
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        println!(
            "{} kills ({} of the supervisor, {} of the card processor), {} spells of bad behaviour, {} orders ({} confirmed, {} cancelled), final within {:.1} s, {} violations",
            summary.kills,
            summary.kills_of_supervisor,
            summary.kills_of_processor,
            summary.spells,
            summary.orders,
            summary.confirmed,
            summary.cancelled,
            summary.quiet_seconds_max,
            summary.violations.len()
        );
        println!(
            "{} of the orders by card: {} charged, {} declined, {} given up, {} voided",
            summary.card_orders,
            summary.card_charged,
            summary.card_declined,
            summary.card_given_up,
            summary.card_voided
        );
    }
    Ok(summary.passed)
}

/// One series: load under fire, then quiet, then the reckoning.
fn series_of(up: &mut Up<'_>, seed: u64, kills: u64, summary: &mut Summary) -> Result<()> {
    let (mut chance, shop) = (Chance(seed), Shop::new(up.port_base));
    up.start()?;
    let books = Mutex::new(open_books(&shop, seed)?);
    let stop = AtomicBool::new(false);
    let wishes = Wishes {
        customers: customers().map(|(name, _)| name).chain(cards()).collect(),
        cards: cards().collect(),
        skus: skus().map(|(name, _, _)| name).collect(),
        pause: Duration::from_millis(20),
    };
    let ran: Result<Instant> = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (shop, wishes, books, stop) = (shop.clone(), &wishes, &books, &stop);
            let chance = Chance(seed ^ (client + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            scope.spawn(move || {
                client::order_on(&shop, wishes, &format!("{seed}-{client}"), chance, books, stop);
            });
        }
        let ran = fire(up, &shop, kills, &mut chance, summary).map(|()| Instant::now());
        // The supervisor may have been the last one hit; the clients insist on an answer until it is back.
        stop.store(true, Ordering::Relaxed);
        ran
    });
    let quiet_since = ran?;
    let books = books.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut violations = books.violations.clone();
    match reckon(&shop, &books, quiet_since, summary) {
        Ok(found) => violations.extend(found),
        Err(error) => violations.push(format!("the books can't be compared: {error:#}")),
    }
    // The first key of all, long after it was answered.
    let (key, asked) = first(seed);
    match shop.order(&key, &asked) {
        Ok(id) if books.orders.get(&id) == Some(&asked) => {}
        other => violations.push(format!("key {key} is answered anew with {other:?}")),
    }
    violations.extend(up.stop()?);
    violations.extend(look_into_stores(up)?);
    summary.violations.extend(violations.into_iter().map(|what| format!("seed {seed}: {what}")));
    Ok(())
}

/// Customers with the money they begin with: some of them run out of it.
fn customers() -> impl Iterator<Item = (String, u64)> {
    (0..10).map(|i| (format!("customer-{i}"), if i < 8 { 1_000_000_000 } else { 5_000 }))
}

/// Customers who pay by card.
fn cards() -> impl Iterator<Item = String> {
    (0..4).map(|i| format!("card-{i}"))
}

/// Articles with stock and price: one of them runs out.
fn skus() -> impl Iterator<Item = (String, u64, u64)> {
    (0..6).map(|i| (format!("sku-{i}"), if i < 5 { 1_000_000 } else { 60 }, 100 + 7 * i))
}

/// Fills accounts and shelves, and waits until orders can be taken.
fn open_books(shop: &Shop, seed: u64) -> Result<Books> {
    let mut books = Books::default();
    for (customer, minor) in customers() {
        shop.pay_in(&customer, minor, &format!("{seed}-open-{customer}"))?;
        books.paid_in.insert(customer, minor);
    }
    for customer in cards() {
        shop.open_card(&customer, &format!("{seed}-open-{customer}"))?;
        books.paid_in.insert(customer.clone(), 0);
        books.inexhaustible.insert(customer.clone());
        books.cards.insert(customer);
    }
    for (sku, quantity, minor) in skus() {
        shop.stock(&sku, quantity, minor)?;
        books.stocked.insert(sku.clone(), quantity);
        books.prices.insert(sku, minor);
    }
    books.inexhaustible.extend(customers().filter(|(_, minor)| *minor > 1_000_000).map(|(name, _)| name));
    books.inexhaustible.extend(skus().filter(|(_, quantity, _)| *quantity > 1_000).map(|(name, _, _)| name));
    let (key, asked) = first(seed);
    let id = shop.is_priced(&asked, &key, UP_MAX)?;
    let by_card = Asked { customer: "card-0".into(), ..asked.clone() };
    books.acknowledge(&id, asked);
    books.acknowledge(&shop.order(&format!("{seed}-first-by-card"), &by_card)?, by_card);
    Ok(books)
}

/// The first order: one of everything.
fn first(seed: u64) -> (String, Asked) {
    let lines: BTreeMap<String, u64> = skus().map(|(sku, _, _)| (sku, 1)).collect();
    (format!("{seed}-first"), Asked { customer: "customer-0".into(), lines })
}

/// Takes one order to its end, so that each service has heard of those it follows.
pub(super) fn warm_up(port_base: u16) -> Result<()> {
    let shop = Shop::new(port_base);
    let books = open_books(&shop, 0)?;
    let violations = reckon(&shop, &books, Instant::now(), &mut Summary::default())?;
    if let Some(violation) = violations.first() {
        bail!("the first order went wrong: {violation}");
    }
    Ok(())
}

/// Kills, and sees to it that what was killed comes back. The card processor behaves well in the end.
fn fire(up: &mut Up<'_>, shop: &Shop, kills: u64, chance: &mut Chance, summary: &mut Summary) -> Result<()> {
    let mut weather = Weather::default();
    for _ in 0..kills {
        if let Some(behaviour) = weather.change(chance) {
            shop.behave(&behaviour)?;
        }
        std::thread::sleep(Duration::from_millis(200 + chance.below(1_800)));
        if process::interrupted() {
            bail!("interrupted; what was done so far is in {}", up.folder.display());
        }
        let mut processor_met = true;
        if chance.below(20) == 0 {
            up.kill()?;
            up.start()?;
            summary.kills_of_supervisor += 1;
        } else {
            let first = chance.below(SERVICES.len() as u64) as usize;
            let mut met = vec![SERVICES[first]];
            // Now and then two at once.
            if chance.below(10) == 0 {
                met.push(SERVICES[(first + 1) % SERVICES.len()]);
            }
            for service in &met {
                up.kill_service(service)?;
            }
            processor_met = met.contains(&PROCESSOR);
            summary.kills_of_processor += u64::from(processor_met);
        }
        if let (true, Some(behaviour)) = (processor_met, weather.again()) {
            shop.behave(behaviour)?;
        }
        summary.kills += 1;
    }
    summary.spells += weather.spells;
    shop.behave(&Weather::fair())
}

/// Waits for quiet, and compares the books with what the shop shows.
fn reckon(shop: &Shop, books: &Books, began: Instant, summary: &mut Summary) -> Result<Vec<String>> {
    let mut shown: BTreeMap<String, Shown> = BTreeMap::new();
    for id in books.orders.keys() {
        loop {
            if let Some(order) = shop.is_final(id)? {
                shown.insert(id.clone(), order);
                break;
            }
            if began.elapsed() > QUIET_MAX {
                return Ok(vec![format!("order {id} is not final {QUIET_MAX:?} after the last kill")]);
            }
            std::thread::sleep(LOOK);
        }
    }
    summary.quiet_seconds_max = summary.quiet_seconds_max.max(began.elapsed().as_secs_f64());
    let mut violations = Vec::new();
    if began.elapsed() > QUIET_MAX {
        violations.push(format!("the last order was final {:?} after the last kill", began.elapsed()));
    }
    let parked = shop.parked()?;
    if parked > 0 {
        violations.push(format!("{parked} messages are parked, though nothing was wrong with any"));
    }
    let (mut money, mut stock) = (BTreeMap::new(), BTreeMap::new());
    for customer in books.paid_in.keys() {
        money.insert(customer.clone(), shop.money(customer)?);
        for (id, order) in shop.orders_of(customer)? {
            match order {
                Some(order) => drop(shown.insert(id, order)),
                None => violations.push(format!("order {id} is listed as not final")),
            }
        }
    }
    for sku in books.stocked.keys() {
        stock.insert(sku.clone(), shop.stocked(sku)?);
    }
    summary.orders += shown.len() as u64;
    summary.confirmed += shown.values().filter(|order| order.confirmed).count() as u64;
    summary.cancelled += shown.values().filter(|order| !order.confirmed).count() as u64;
    violations.extend(books.balance(&shown, &money, &stock));
    violations.extend(reckon_cards(shop, books, &shown, began, summary)?);
    Ok(violations)
}

/// Compares with the card processor, until it agrees: an order is final while its void is still on its way.
fn reckon_cards(
    shop: &Shop,
    books: &Books,
    shown: &BTreeMap<String, Shown>,
    began: Instant,
    summary: &mut Summary,
) -> Result<Vec<String>> {
    let by_card = || books.orders.iter().filter(|(_, asked)| books.cards.contains(&asked.customer));
    let (ends, violations) = loop {
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        for (id, _) in by_card() {
            entries.extend(shop.charge(id)?.map(|entry| (id.clone(), entry)));
        }
        let (ends, violations) = cards::settle(books, shown, &entries, &shop.ledger()?);
        if violations.is_empty() || began.elapsed() > QUIET_MAX {
            break (ends, violations);
        }
        std::thread::sleep(LOOK);
    };
    summary.card_orders += ends.orders;
    summary.card_charged += ends.charged;
    summary.card_declined += ends.declined;
    summary.card_given_up += ends.given_up;
    summary.card_voided += ends.voided;
    Ok(violations)
}

/// Proves each store's chain, and that no effect is recorded twice.
fn look_into_stores(up: &Up<'_>) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for service in SERVICES {
        let store = up.data().join(service).join("store.db");
        if let Err(why) = up.ask(&["events", "verify"], &store, &[])? {
            violations.push(format!("{service}'s chain does not hold: {why}"));
        }
    }
    for (service, event) in ONCE {
        let store = up.data().join(service).join("store.db");
        let lines = match up.ask(&["events", "read"], &store, &["--type", event])? {
            Ok(lines) => lines,
            Err(why) => {
                violations.push(format!("{service}'s events can't be read: {why}"));
                continue;
            }
        };
        let mut seen = BTreeSet::new();
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).with_context(|| format!("{service}: {line}"))?;
            // What an effect is for: the order in its payload, else the stream that is the order's.
            let order = line["payload"]["order"].as_str().or(line["stream"].as_str()).unwrap_or_default();
            if !seen.insert(order.to_owned()) {
                violations.push(format!("{event} is recorded twice for {order}"));
            }
        }
        if seen.is_empty() && event == "OrderCreated" {
            violations.push(format!("{service} has no {event} at all: the check looks for another name"));
        }
    }
    Ok(violations)
}
