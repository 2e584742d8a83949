//! `mainstay bench shop`: orders through the whole shop, as an outside client sees them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use hyper::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::machine::Machine;
use super::ratio::{Ratio, Target, median};
use super::scratch::Scratch;
use super::shop_process::Shop;
use super::usage;
use crate::folder::Service;
use crate::http::Http;
use crate::output::Output;

/// Takes orders through order, payment and inventory, each its own process, until each order is final.
///
/// An order counts when this program, which is outside, has seen its final state. Three runs on one fresh data
/// folder: one order at a time; `--clients` at once; and a steady 70 % of what that gave, for a minute, in which
/// nothing may pile up.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to keep the shop's data; removed at the end.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Orders at once at saturation.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4_096))]
    clients: u64,
    /// How long the saturation lasts, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    saturated: u64,
    /// How long the steady load lasts, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    steady: u64,
    /// Pairs of a disk probe and some orders, one at a time.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=99))]
    pairs: u32,
}

/// Orders in each pair of the unloaded run.
const ORDERS_A_PAIR: u32 = 60;

/// Customers and articles: many enough that orders do not all meet at one.
const CUSTOMERS: u64 = 500;
const SKUS: u64 = 50;

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    unloaded: Latency,
    saturated: Saturated,
    steady: Steady,
    ratios: Vec<Ratio>,
    met: bool,
}

/// From the request to the final state seen, in microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    orders: u64,
    p50_us: u64,
    p99_us: u64,
}

#[derive(Debug, Serialize)]
struct Saturated {
    clients: u64,
    orders_per_second: f64,
    latency: Latency,
    /// Share of both cores' time in use, this program's included.
    cores_busy: f64,
    /// Share of time in which the disk had something to do; none where the kernel does not say.
    disk_busy: Option<f64>,
    /// CPU time of the three services, per order.
    cpu_us_per_order: f64,
    services: Vec<Used>,
}

/// What one service used, per order.
#[derive(Debug, Serialize)]
struct Used {
    service: Service,
    cpu_us_per_order: f64,
    /// Commits to store and log per order over the shop's whole run; each is one flush of the disk.
    commits_per_order: Option<f64>,
    memory_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Steady {
    seconds: u64,
    offered_per_second: f64,
    orders: u64,
    latency: Latency,
    /// Orders taken and not yet final, on average over the first and the last third.
    in_flight_first_third: f64,
    in_flight_last_third: f64,
    /// Memory of each service after a third of the time and at its end, in bytes.
    memory: Vec<Memory>,
}

#[derive(Debug, Serialize)]
struct Memory {
    service: Service,
    after_a_third: u64,
    at_the_end: u64,
}

pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    let folder = Scratch::make(&arguments.dir)?;
    output.progress("shop: starting");
    let mut shop = Shop::start(&folder.path().join("data")).await?;
    let report = measure(&arguments, &mut shop, folder.path(), output).await;
    let commits = shop.end().await?;
    let mut report = report?;
    let orders = report.unloaded.orders + report.saturated.latency.orders + report.steady.orders;
    for used in &mut report.saturated.services {
        used.commits_per_order =
            commits.get(&used.service).map(|commits| *commits as f64 / orders.max(1) as f64);
    }
    output.print(&report, human)?;
    Ok(())
}

async fn measure(arguments: &Arguments, shop: &mut Shop, folder: &Path, output: &Output) -> Result<Report> {
    output.progress("shop: filling accounts and shelves");
    let client = Client::new(shop);
    client.fill().await?;
    let machine = Machine::probe(folder)?;
    let (unloaded, bound) = unloaded(arguments, &client, folder, output).await?;
    output.progress(&format!("shop: {} orders at once", arguments.clients));
    let saturated = saturated(arguments, &client, shop, folder).await?;
    output.progress(&format!("shop: {} s at 70 %", arguments.steady));
    let steady = steady(arguments, &client, shop, saturated.orders_per_second * 0.7).await?;
    let busiest = saturated.disk_busy.unwrap_or(0.0).max(saturated.cores_busy);
    let growth = (steady.in_flight_last_third + 1.0) / (steady.in_flight_first_third + 1.0);
    let memory = steady.memory.iter().map(|m| m.at_the_end as f64 / m.after_a_third.max(1) as f64);
    let memory = memory.fold(0.0, f64::max);
    let ratios = vec![
        Ratio::of("unloaded p50 / (15 x fdatasync p50 + 2 ms)", &bound, Target::AtMost(1.0)),
        Ratio::of("busier of disk and cores at saturation", &[busiest], Target::AtLeast(0.85)),
        Ratio::of("CPU us an order, goal 600", &[saturated.cpu_us_per_order / 600.0], Target::AtMost(1.0)),
        Ratio::of("in flight at 70 %, last third / first third", &[growth], Target::AtMost(1.5)),
        Ratio::of("memory at 70 %, end / after a third", &[memory], Target::AtMost(1.2)),
    ];
    let met = ratios.iter().all(|ratio| ratio.met);
    Ok(Report { machine, unloaded, saturated, steady, ratios, met })
}

/// One order at a time; each pair's median beside the disk's of the same moment.
async fn unloaded(
    arguments: &Arguments,
    client: &Client,
    folder: &Path,
    output: &Output,
) -> Result<(Latency, Vec<f64>)> {
    let mut all = histogram()?;
    for _ in 0..ORDERS_A_PAIR {
        client.order().await?;
    }
    let mut bound = Vec::new();
    for pair in 1..=arguments.pairs {
        output.progress(&format!("shop: one order at a time, pair {pair} of {}", arguments.pairs));
        let disk = Machine::probe(folder)?.fdatasync_p50_us as f64;
        let mut took = Vec::new();
        for _ in 0..ORDERS_A_PAIR {
            let us = client.order().await?.as_micros() as u64;
            all.saturating_record(us);
            took.push(us as f64);
        }
        bound.push(median(&mut took) / (15.0 * disk + 2_000.0));
    }
    Ok((latency(&all), bound))
}

/// As many orders at once as asked for, each followed by the next.
async fn saturated(arguments: &Arguments, client: &Client, shop: &Shop, folder: &Path) -> Result<Saturated> {
    let (stop, all) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(histogram()?)));
    let mut clients = JoinSet::new();
    for _ in 0..arguments.clients {
        let (client, stop, all) = (client.clone(), Arc::clone(&stop), Arc::clone(&all));
        clients.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let took = client.order().await?;
                all.lock().await.saturating_record(took.as_micros() as u64);
            }
            anyhow::Ok(())
        });
    }
    // The first seconds fill caches and statements.
    tokio::time::sleep(Duration::from_secs(2)).await;
    all.lock().await.reset();
    let (began, machine) = (Instant::now(), usage::Busy::of(folder));
    let before = shop.processes()?;
    tokio::time::sleep(Duration::from_secs(arguments.saturated)).await;
    let after = shop.processes()?;
    let busy = machine.until_now();
    let (seconds, histogram) = (began.elapsed().as_secs_f64(), all.lock().await.clone());
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    let orders = histogram.len().max(1) as f64;
    let services: Vec<Used> = before
        .iter()
        .zip(&after)
        .map(|((service, before), (_, after))| Used {
            service: *service,
            cpu_us_per_order: after.cpu.saturating_sub(before.cpu).as_micros() as f64 / orders,
            commits_per_order: None,
            memory_bytes: Some(after.memory_bytes),
        })
        .collect();
    Ok(Saturated {
        clients: arguments.clients,
        orders_per_second: histogram.len() as f64 / seconds,
        latency: latency(&histogram),
        cores_busy: busy.cores,
        disk_busy: busy.disk,
        cpu_us_per_order: services.iter().map(|used| used.cpu_us_per_order).sum(),
        services,
    })
}

/// Orders at a fixed rate, whether the earlier ones are done or not. Latency counts from when an order was due.
async fn steady(arguments: &Arguments, client: &Client, shop: &Shop, rate: f64) -> Result<Steady> {
    let rate = rate.max(1.0);
    let in_flight = Arc::new(AtomicI64::new(0));
    let all = Arc::new(Mutex::new(histogram()?));
    let mut orders: JoinSet<Result<()>> = JoinSet::new();
    let (began, lasts) = (Instant::now(), Duration::from_secs(arguments.steady));
    let (mut sent, mut samples, mut after_a_third) = (0u64, Vec::new(), None);
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    while began.elapsed() < lasts {
        tick.tick().await;
        let due = (began.elapsed().as_secs_f64() * rate) as u64;
        for number in sent..due {
            let (client, in_flight, all) = (client.clone(), Arc::clone(&in_flight), Arc::clone(&all));
            let at = began + Duration::from_secs_f64(number as f64 / rate);
            in_flight.fetch_add(1, Ordering::Relaxed);
            orders.spawn(async move {
                let ended = client.order().await;
                in_flight.fetch_sub(1, Ordering::Relaxed);
                all.lock().await.saturating_record(at.elapsed().as_micros() as u64);
                ended.map(drop)
            });
        }
        sent = due;
        while let Some(ended) = orders.try_join_next() {
            ended??;
        }
        samples.push((began.elapsed().as_secs_f64(), in_flight.load(Ordering::Relaxed) as f64));
        if after_a_third.is_none() && began.elapsed() > lasts / 3 {
            after_a_third = Some(shop.processes()?);
        }
    }
    while let Some(ended) = orders.join_next().await {
        ended??;
    }
    let at_the_end = shop.processes()?;
    let third = lasts.as_secs_f64() / 3.0;
    let mean = |wanted: &dyn Fn(f64) -> bool| {
        let of: Vec<f64> = samples.iter().filter(|(at, _)| wanted(*at)).map(|(_, n)| *n).collect();
        of.iter().sum::<f64>() / of.len().max(1) as f64
    };
    let memory = after_a_third.unwrap_or_default().into_iter().zip(at_the_end);
    let histogram = all.lock().await.clone();
    Ok(Steady {
        seconds: arguments.steady,
        offered_per_second: rate,
        orders: histogram.len(),
        latency: latency(&histogram),
        in_flight_first_third: mean(&|at| at < third),
        in_flight_last_third: mean(&|at| at > 2.0 * third),
        memory: memory
            .map(|((service, before), (_, after))| Memory {
                service,
                after_a_third: before.memory_bytes,
                at_the_end: after.memory_bytes,
            })
            .collect(),
    })
}

fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 600_000_000, 3).context("no histogram")
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    Latency {
        orders: histogram.len(),
        p50_us: histogram.value_at_quantile(0.5),
        p99_us: histogram.value_at_quantile(0.99),
    }
}

/// The outside client.
#[derive(Clone)]
struct Client {
    http: Http,
    orders: Arc<str>,
    payment: Arc<str>,
    inventory: Arc<str>,
    next: Arc<AtomicU64>,
}

impl Client {
    fn new(shop: &Shop) -> Self {
        let url = |service| Arc::from(shop.url(service));
        Self {
            http: Http::new(),
            orders: url(Service::Order),
            payment: url(Service::Payment),
            inventory: url(Service::Inventory),
            next: Arc::default(),
        }
    }

    /// More money and goods than any run can take.
    async fn fill(&self) -> Result<()> {
        for customer in 0..CUSTOMERS {
            let body = json!({ "customer": format!("customer-{customer}"), "minor": 900_000_000_000_u64 });
            let key = format!("fill-{customer}");
            let url = format!("{}/accounts", self.payment);
            let answer =
                self.http.send(Method::POST, &url, &[("idempotency-key", &key)], Some(&body)).await?;
            answer.success("an account")?;
        }
        let mut receipt = String::new();
        for sku in 0..SKUS {
            let body = json!({ "quantity": 900_000_000, "price": { "currency": "EUR", "minor": 100 + sku } });
            let url = format!("{}/stock/sku-{sku}", self.inventory);
            let answer = self.http.send(Method::PUT, &url, &[], Some(&body)).await?.success("a stock")?;
            receipt = answer.header("mainstay-receipt").unwrap_or_default().to_owned();
        }
        // Until the prices have reached the order service.
        let url = format!("{}/orders?limit=1", self.orders);
        let seen = self.http.send(Method::GET, &url, &[("mainstay-receipt", &receipt)], None).await?;
        seen.success("the prices").map(drop)
    }

    /// One order, from the request until its final state is seen; how long that took.
    async fn order(&self) -> Result<Duration> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let body = json!({
            "customer": format!("customer-{}", number.wrapping_mul(0x9E37_79B9) % CUSTOMERS),
            "lines": [{ "sku": format!("sku-{}", number.wrapping_mul(0x85EB_CA6B) % SKUS), "quantity": 1 }],
        });
        let (url, key) = (format!("{}/orders", self.orders), format!("bench-{number}"));
        let began = Instant::now();
        let answer = self.http.send(Method::POST, &url, &[("idempotency-key", &key)], Some(&body)).await?;
        let order = answer.success("an order")?.json()?;
        let Some(id) = order["id"].as_str() else { bail!("an order without an id: {order}") };
        let url = format!("{}/orders/{id}", self.orders);
        loop {
            let answer = self.http.send(Method::GET, &url, &[("prefer", "wait=10")], None).await?;
            let order: Value = answer.success("the order")?.json()?;
            match order["status"].as_str() {
                Some("PENDING") if began.elapsed() < Duration::from_secs(60) => {}
                Some("CONFIRMED") => return Ok(began.elapsed()),
                _ => bail!("order {id} ended as {order}"),
            }
        }
    }
}

fn human(report: &Report) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    super::write_machine(&mut text, &report.machine);
    let ms = |us: u64| us as f64 / 1_000.0;
    let _ = writeln!(
        text,
        "one at a time   p50 {:.1} ms, p99 {:.1} ms",
        ms(report.unloaded.p50_us),
        ms(report.unloaded.p99_us)
    );
    let s = &report.saturated;
    let _ = writeln!(
        text,
        "{} at once      {:.0} orders/s, p50 {:.1} ms, p99 {:.1} ms; cores {:.0} % busy, disk {}",
        s.clients,
        s.orders_per_second,
        ms(s.latency.p50_us),
        ms(s.latency.p99_us),
        s.cores_busy * 100.0,
        s.disk_busy.map_or("unknown".into(), |busy| format!("{:.0} %", busy * 100.0))
    );
    for used in &s.services {
        let _ = writeln!(
            text,
            "  {:<10} {:>6.0} us of CPU an order, {} commits an order, {} MiB",
            used.service.name(),
            used.cpu_us_per_order,
            used.commits_per_order.map_or("?".into(), |commits| format!("{commits:.2}")),
            used.memory_bytes.unwrap_or(0) >> 20
        );
    }
    let steady = &report.steady;
    let _ = writeln!(
        text,
        "{} s at {:.0}/s   p50 {:.1} ms, p99 {:.1} ms; in flight {:.1}, in the end {:.1}",
        steady.seconds,
        steady.offered_per_second,
        ms(steady.latency.p50_us),
        ms(steady.latency.p99_us),
        steady.in_flight_first_third,
        steady.in_flight_last_third
    );
    super::write_ratios(&mut text, &report.ratios);
    text
}
