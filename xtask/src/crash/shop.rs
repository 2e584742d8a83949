//! The shop under fire: `mainstay up` takes orders while its processes are killed, and afterwards the books agree.
//!
//! ```text
//!   clients ──orders, each with its key, again until answered──► order ─► payment ─► inventory
//!      └── books: what was acknowledged                            ▲        ▲           ▲      ▲
//!   this driver ── kill -9 every 0.2 to 2 s: a service, 1 in 20 times the supervisor ───┴──────┘
//!   at the end: quiet; every order final; orders, money and stock as in the books; chains proven; no effect twice
//! ```
//! The work is cut into series, each with a seed, a folder and up to [`KILLS_PER_SERIES`] kills, so that a long run
//! can go on where it stopped (`--from`). A seed fixes the orders and the moments of the kills.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::Value;

use super::books::{Asked, Books, Shown};
use super::client::{self, Shop, Wishes};
use super::{Chance, out};
use crate::process::{self, Ended};
use crate::tree;

/// Kills of one folder.
const KILLS_PER_SERIES: u64 = 50;

const SERVICES: [&str; 3] = ["order", "payment", "inventory"];

/// Every order is final so long after the last kill.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// The shop is up, or a killed service is back, within so long.
const UP_MAX: Duration = Duration::from_secs(60);

/// One question to a store takes no longer.
const ASK_MAX: Duration = Duration::from_secs(120);

/// How often a condition of another process is looked at.
const LOOK: Duration = Duration::from_millis(20);

const CLIENTS: u64 = 4;

/// Effects that happen at most once an order: in which service's store, under which type.
const ONCE: [(&str, &str); 5] = [
    ("order", "OrderCreated"),
    ("payment", "PaymentProcessed"),
    ("payment", "PaymentRefunded"),
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
    orders: u64,
    confirmed: u64,
    cancelled: u64,
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
        let folder = out.join(format!("shop-{seed}"));
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("{} can't be removed", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
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
            "{} kills ({} of the supervisor), {} orders ({} confirmed, {} cancelled), final within {:.1} s, {} violations",
            summary.kills,
            summary.kills_of_supervisor,
            summary.orders,
            summary.confirmed,
            summary.cancelled,
            summary.quiet_seconds_max,
            summary.violations.len()
        );
    }
    Ok(summary.passed)
}

/// The program with its tests' flags: what the lane has built already is used again.
fn build() -> Result<PathBuf> {
    let status = process::cargo()
        .args(["build", "--all-features", "--package", "mainstay-cli", "--bin", "mainstay"])
        .current_dir(tree::root()?)
        .stdout(std::io::stderr())
        .status()
        .context("cargo can't be started")?;
    if !status.success() {
        bail!("it does not compile; to repeat it: cargo build --all-features --package mainstay-cli");
    }
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => tree::root()?.join("target"),
    };
    Ok(target.join("debug/mainstay"))
}

/// One series: load under fire, then quiet, then the reckoning.
fn series_of(up: &mut Up<'_>, seed: u64, kills: u64, summary: &mut Summary) -> Result<()> {
    let (mut chance, shop) = (Chance(seed), Shop::new(up.port_base));
    up.start()?;
    let books = Mutex::new(open_books(&shop, seed)?);
    let (stop, fired) = (AtomicBool::new(false), AtomicBool::new(false));
    let wishes = Wishes {
        customers: customers().map(|(name, _)| name).collect(),
        skus: skus().map(|(name, _, _)| name).collect(),
        pause: Duration::from_millis(20),
    };
    let ran: Result<()> = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (shop, wishes, books, stop) = (shop.clone(), &wishes, &books, &stop);
            let chance = Chance(seed ^ (client + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            scope.spawn(move || {
                client::order_on(&shop, wishes, &format!("{seed}-{client}"), chance, books, stop);
            });
        }
        let ran = fire(up, kills, &mut chance, summary);
        fired.store(true, Ordering::Relaxed);
        // The supervisor may have been the last one hit; the clients insist on an answer until it is back.
        stop.store(true, Ordering::Relaxed);
        ran
    });
    ran?;
    let books = books.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut violations = match reckon(&shop, &books, summary) {
        Ok(violations) => violations,
        Err(error) => vec![format!("the books can't be compared: {error:#}")],
    };
    violations.extend(up.stop()?);
    violations.extend(look_into_stores(up)?);
    summary.violations.extend(violations.into_iter().map(|what| format!("seed {seed}: {what}")));
    Ok(())
}

/// Customers with the money they begin with: some of them run out of it.
fn customers() -> impl Iterator<Item = (String, u64)> {
    (0..10).map(|i| (format!("customer-{i}"), if i < 8 { 1_000_000_000 } else { 5_000 }))
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
    for (sku, quantity, minor) in skus() {
        shop.stock(&sku, quantity, minor)?;
        books.stocked.insert(sku.clone(), quantity);
        books.prices.insert(sku, minor);
    }
    let lines: BTreeMap<String, u64> = skus().map(|(sku, _, _)| (sku, 1)).collect();
    let asked = Asked { customer: "customer-0".into(), lines };
    let id = shop.is_priced(&asked, &format!("{seed}-first"), UP_MAX)?;
    books.acknowledge(&id, asked);
    Ok(books)
}

/// Kills, and sees to it that what was killed comes back.
fn fire(up: &mut Up<'_>, kills: u64, chance: &mut Chance, summary: &mut Summary) -> Result<()> {
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(200 + chance.below(1_800)));
        if process::interrupted() {
            bail!("interrupted; what was done so far is in {}", up.folder.display());
        }
        if chance.below(20) == 0 {
            up.kill()?;
            up.start()?;
            summary.kills_of_supervisor += 1;
        } else {
            up.kill_service(SERVICES[chance.below(3) as usize])?;
        }
        summary.kills += 1;
    }
    Ok(())
}

/// Waits for quiet, and compares the books with what the shop shows.
fn reckon(shop: &Shop, books: &Books, summary: &mut Summary) -> Result<Vec<String>> {
    let began = Instant::now();
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
    let (mut money, mut stock) = (BTreeMap::new(), BTreeMap::new());
    let mut violations = Vec::new();
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

/// A running `mainstay up`.
struct Up<'a> {
    binary: &'a Path,
    folder: &'a Path,
    port_base: u16,
    child: Option<Child>,
}

impl<'a> Up<'a> {
    fn new(binary: &'a Path, folder: &'a Path, port_base: u16) -> Self {
        Self { binary, folder, port_base, child: None }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts the supervisor and waits until every service has its process.
    fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.join("up.log"))?;
        let mut command = Command::new(self.binary);
        process::without_package(&mut command);
        command.arg("up").arg("--data").arg(self.data()).args(["--port-base", &self.port_base.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{} can't be started", self.binary.display()))?;
        self.child = Some(child);
        for service in SERVICES {
            self.service(service)?;
        }
        Ok(())
    }

    /// The process of a service, as soon as there is one.
    fn service(&mut self, name: &str) -> Result<Pid> {
        let began = Instant::now();
        loop {
            let child = self.child.as_mut().context("the shop is not running")?;
            if let Some(status) = child.try_wait()? {
                bail!(
                    "`mainstay up` ended by itself, {status}; see {}",
                    self.folder.join("up.log").display()
                );
            }
            if let Some(pid) = child_of(child.id(), name) {
                return Ok(pid);
            }
            if began.elapsed() > UP_MAX {
                bail!("{name} is not back within {UP_MAX:?}; see {}", self.folder.join("up.log").display());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn kill_service(&mut self, name: &str) -> Result<()> {
        let pid = self.service(name)?;
        // It fails only when the process has ended meanwhile, and then another kill has met it.
        let _ = kill_process(pid, Signal::KILL);
        Ok(())
    }

    /// Kills the supervisor alone. Its children notice, and a new one waits for them.
    fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("the supervisor can't be killed")?;
            child.wait()?;
        }
        Ok(())
    }

    /// Ends the shop as a user does; what was wrong with that.
    fn stop(&mut self) -> Result<Option<String>> {
        let Some(mut child) = self.child.take() else { return Ok(Some("the shop was not running".into())) };
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(
                    (!status.success()).then(|| format!("`mainstay up` ended with {status} after SIGTERM"))
                );
            }
            if began.elapsed() > UP_MAX {
                self.child = Some(child);
                self.end();
                return Ok(Some(format!("`mainstay up` did not end within {UP_MAX:?} after SIGTERM")));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Leaves nothing running, whatever has happened.
    fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let services: Vec<Pid> = SERVICES.iter().filter_map(|name| child_of(child.id(), name)).collect();
        // Failures mean that they are gone already.
        let _ = child.kill();
        let _ = child.wait();
        for pid in services {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Asks a store; its answer as JSON lines, or its complaint.
    fn ask(&self, words: &[&str], store: &Path, options: &[&str]) -> Result<Result<String, String>> {
        let path = |name: &str| self.folder.join(name);
        let mut command = Command::new(self.binary);
        process::without_package(&mut command);
        command.args(words).arg(store).args(options).arg("--json");
        command.stdout(File::create(path("stdout"))?).stderr(File::create(path("stderr"))?);
        let ended = process::run(&mut command, ASK_MAX)?;
        let (output, complaint) = (fs::read_to_string(path("stdout"))?, fs::read_to_string(path("stderr"))?);
        Ok(match ended {
            Ended::Exited(status) if status.success() => Ok(output),
            Ended::Exited(_) => Err(complaint + &output),
            Ended::TimedOut => Err(format!("no answer within {ASK_MAX:?}")),
        })
    }
}

/// The child of a process that runs `service NAME`.
fn child_of(parent: u32, name: &str) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok();
    let candidates: Vec<u32> = match children {
        Some(children) => children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
        None => Vec::new(),
    };
    let all = || {
        let entries = fs::read_dir("/proc").ok().into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| {
            // The parent's id is the second word after the name, which stands in brackets.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            rest.split(' ').nth(1).and_then(|id| id.parse().ok()) == Some(parent)
        })
    };
    let is_service = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.windows(2).any(|pair| pair == [b"service".as_slice(), name.as_bytes()])
    };
    // The list of children is of the thread that started them, which need not be the first one.
    let found = candidates.into_iter().find(is_service).or_else(|| all().find(is_service))?;
    Pid::from_raw(i32::try_from(found).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_found_among_the_children_and_nobody_else() {
        let mut child = Command::new("sh")
            .args(["-c", "read line; exit 0", "service", "order"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(child_of(std::process::id(), "order"), Some(Pid::from_child(&child)));
        assert_eq!(child_of(std::process::id(), "payment"), None);
        assert_eq!(child_of(child.id(), "order"), None);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
