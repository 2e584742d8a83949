//! The pairs of runs, and what they come to.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::Arguments;
use crate::cpu;
use crate::load::{self, Load};
use crate::machine::Machine;
use crate::ratio::{Ratio, Target, median};
use crate::redis::{self, Server};

const PAYLOAD: usize = 250;
const STREAMS: u64 = 10_000;

/// The goal, at every number of clients.
const GOAL: f64 = 1.0;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    peer: String,
    payload_bytes: usize,
    figures: Vec<Figure>,
    ratios: Vec<Ratio>,
    /// Is every goal met?
    met: bool,
}

/// Medians over the pairs of one comparison, and the machine before it.
#[derive(Debug, Serialize)]
struct Figure {
    clients: u32,
    ours: Side,
    /// Events in one commit of the store, on average.
    ours_mean_group: f64,
    redis: Side,
    machine: Machine,
}

#[derive(Debug, Serialize)]
struct Side {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// CPU time for each event. Of the store: of this whole process, its load too. Of Redis: of the server only.
    cpu_us: Option<f64>,
}

/// One column of numbers for each quantity of one side.
#[derive(Default)]
struct Runs {
    rate: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    cpu: Vec<f64>,
}

impl Runs {
    fn note(&mut self, rate: f64, p50_us: f64, p99_us: f64, cpu_us: Option<f64>) {
        self.rate.push(rate);
        self.p50.push(p50_us);
        self.p99.push(p99_us);
        self.cpu.extend(cpu_us);
    }

    fn side(&mut self) -> Side {
        let cpu_us = (!self.cpu.is_empty()).then(|| median(&mut self.cpu));
        let (p50_us, p99_us) = (median(&mut self.p50), median(&mut self.p99));
        Side { per_second: median(&mut self.rate), p50_us, p99_us, cpu_us }
    }
}

/// Runs all comparisons in `folder`.
pub(crate) async fn measure(arguments: &Arguments, folder: &Path) -> Result<Report> {
    let peer = format!("Redis {}, XADD, appendfsync always", redis::version().await?);
    let (mut figures, mut ratios) = (Vec::new(), Vec::new());
    for &clients in &arguments.clients {
        let (figure, ratio) = compare(arguments, folder, clients).await?;
        figures.push(figure);
        ratios.push(ratio);
    }
    progress("");
    let met = ratios.iter().all(|ratio| ratio.met);
    Ok(Report { peer, payload_bytes: PAYLOAD, figures, ratios, met })
}

async fn compare(arguments: &Arguments, folder: &Path, clients: u32) -> Result<(Figure, Ratio)> {
    let lasts = Duration::from_millis(arguments.millis);
    let load = Load { payload: PAYLOAD, streams: STREAMS, lasts };
    let (file, data) = (folder.join("store.db"), folder.join("redis"));
    let own = std::process::id();
    let machine = Machine::probe(folder)?;
    // redis-benchmark takes a number of requests, not a time: each run is sized by the rate of the one before.
    progress(&format!("{clients} clients: a first look at Redis"));
    let mut rate = add(&data, clients, u64::from(clients) * 20 + 200).await?.rate;
    let (mut ours, mut theirs) = (Runs::default(), Runs::default());
    let (mut ratios, mut groups) = (Vec::new(), Vec::new());
    for pair in 1..=arguments.pairs {
        progress(&format!("{clients} clients: pair {pair} of {}", arguments.pairs));
        // Who goes first alternates, so that a machine that grows slower or faster favours nobody.
        for is_ours in [pair % 2 == 1, pair % 2 == 0] {
            if is_ours {
                let store = load::seed(&file, load).await?;
                let before = cpu::used_us(own);
                let measured = load::append(store, clients as usize, load, None).await?;
                let used = cpu::used_us(own).zip(before).map(|(after, before)| (after - before) as f64);
                load::remove(&file)?;
                let cpu_us = used.map(|us| us / measured.events as f64);
                ours.note(measured.rate(), measured.us(0.5), measured.us(0.99), cpu_us);
                groups.push(measured.events as f64 / measured.groups.commits().max(1) as f64);
            } else {
                let records = ((rate * lasts.as_secs_f64()) as u64).max(u64::from(clients));
                let measured = add(&data, clients, records).await?;
                rate = measured.rate;
                theirs.note(measured.rate, measured.p50_us, measured.p99_us, measured.cpu_us);
            }
        }
        if let (Some(ours), Some(theirs)) = (ours.rate.last(), theirs.rate.last()) {
            ratios.push(ours / theirs);
        }
    }
    let ours_mean_group = median(&mut groups);
    let figure = Figure { clients, ours: ours.side(), ours_mean_group, redis: theirs.side(), machine };
    let ratio = Ratio::of(format!("{clients} clients: store / Redis"), &ratios, Target::AtLeast(GOAL));
    Ok((figure, ratio))
}

/// One load on a fresh server.
async fn add(folder: &Path, clients: u32, records: u64) -> Result<redis::Measured> {
    let mut server = Server::start(folder).await?;
    let measured = server.add(clients, records, PAYLOAD).await?;
    server.stop()?;
    Ok(measured)
}

/// A word on long work, if somebody is looking.
pub(crate) fn progress(text: &str) {
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        // Nobody is left to tell when standard error is gone.
        let _ = write!(stderr, "\r\x1b[2K{text}");
        let _ = stderr.flush();
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { per_second, p50_us, p99_us, cpu_us } = self;
        let cpu = cpu_us.map_or("unknown".into(), |us| format!("{us:.1}"));
        write!(f, "{per_second:>12.0} {p50_us:>7.0} {p99_us:>7.0} {cpu:>7}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Mainstay's SQLite store beside {}; {}-byte events", self.peer, self.payload_bytes)?;
        writeln!(f, "clients          per second  p50 us  p99 us  CPU us  mean group")?;
        for Figure { clients, ours, ours_mean_group, redis, machine } in &self.figures {
            writeln!(f, "{clients:>7}  store {ours}  {ours_mean_group:>10.1}")?;
            writeln!(f, "         Redis {redis}")?;
            let pressure =
                machine.cpu_pressure_some_avg10.map_or("unknown".into(), |some| format!("{some} %"));
            let (p50, p99) = (machine.fdatasync_p50_us, machine.fdatasync_p99_us);
            writeln!(f, "         before: fdatasync p50 {p50} us, p99 {p99} us; CPU pressure {pressure}")?;
        }
        writeln!(
            f,
            "CPU of the store includes the load that is put on it; that of Redis is the server's alone."
        )?;
        for (index, ratio) in self.ratios.iter().enumerate() {
            let Ratio { what, median, low, high, pairs, target, met } = ratio;
            let met = if *met { "met" } else { "MISSED" };
            let end = if index + 1 == self.ratios.len() { "" } else { "\n" };
            write!(
                f,
                "{what:<28} {median:.2} [{low:.2}, {high:.2}] over {pairs} pairs, goal {target}: {met}{end}"
            )?;
        }
        Ok(())
    }
}
