//! One round: two processes work on a store of their own, something under them breaks and is mended, and they have to go
//! on by themselves; then the books are compared with the store.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::super::Chance;
use super::Fault;
use super::clients::{Client, longest_pause, now_ms, wait_until};
use super::proxy::{Mode, Proxy};
use super::servers::Servers;
use super::small_disk::SmallDisk;
use crate::process;

/// Two processes: two candidates for the sequencer, and writers that do not share a handle.
const CLIENTS: usize = 2;

/// The store is made, and work is under way.
const WARM_MAX: Duration = Duration::from_secs(60);
const WARM_ACKS: usize = 40;

/// Everybody works again so long after the server is whole. A connection that fell silent is given up in this time.
const RECOVERED_MAX: Duration = Duration::from_secs(60);
const RECOVERED_ACKS: usize = 20;

/// A full disk is noticed within so long, or nobody needs more room.
const FULL_MAX: Duration = Duration::from_secs(4);

/// Longer than the lease of a sequencer, which is 3 s; shorter than the time limit of a closure, which is 5 s: one that was
/// under way in the stopped process would be refused, and rightly.
const STOPPED_MS: Range<u64> = 3_500..4_500;

/// What a round works with.
pub(super) struct Desk<'a> {
    pub(super) program: &'a Path,
    pub(super) servers: &'a mut Servers,
    pub(super) disk: Option<&'a SmallDisk>,
    pub(super) folder: &'a Path,
    pub(super) fault: Fault,
    pub(super) seed: u64,
}

/// What a round came to.
#[derive(Debug, Default, Serialize)]
pub(super) struct Round {
    pub(super) fault: &'static str,
    pub(super) seed: u64,
    /// What exactly was done.
    pub(super) how: String,
    acts: u64,
    acknowledged: u64,
    events: u64,
    effects: u64,
    /// Acts that were at first answered as unknown.
    unknown: u64,
    /// Tries that were refused as passing.
    passing: u64,
    /// From the fault to its mending.
    broken_ms: i64,
    /// From the mending to the first acknowledgement that each process had again.
    pub(super) recovered_ms: i64,
    /// The longest time without any acknowledgement, and without any progress of the feed, the fault included.
    acks_stood_ms: i64,
    feed_stood_ms: i64,
    /// Asynchronous failover: what was acknowledged and lost, how long before the kill the first of it was acknowledged, how
    /// long it may have been by the replica's own last round, and by what a probe announced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lost: Option<Lost>,
    pub(super) violations: Vec<String>,
}

/// See [`Round::lost`].
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct Lost {
    pub(super) acts: u64,
    pub(super) window_ms: i64,
    pub(super) bound_ms: i64,
    pub(super) announced_ms: Option<i64>,
}

/// Moments of a fault.
struct Broke {
    how: String,
    at: i64,
    mended: i64,
    /// Of an asynchronous failover: when the server was dead, the replica's last round, and what a probe announced for
    /// that moment.
    failover: Option<(i64, i64, Option<i64>)>,
}

/// What `fault_client check` answers.
#[derive(Deserialize)]
struct Report {
    acts: u64,
    acknowledged: u64,
    events: u64,
    effects: u64,
    unknown: u64,
    passing: u64,
    lost: u64,
    lost_since: Option<i64>,
    violations: Vec<String>,
}

impl Desk<'_> {
    /// Runs the round. An error means that it could not be carried out.
    pub(super) fn run(&mut self) -> Result<Round> {
        let mut chance = Chance(self.seed);
        let schema = format!("crash_{}_{}", self.fault.name().replace('-', "_"), self.seed);
        self.servers.raise()?;
        let sync = if self.fault == Fault::Failover { "on" } else { "off" };
        self.servers.fault(&["sync", sync])?;
        self.ask(&["drop", "--url", self.servers.url(), "--schema", &schema])?;
        let proxy = Proxy::start(self.servers.address()?)?;
        let url = self.servers.url_at(proxy.port)?;
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            let (seed, client) = (self.seed.to_string(), client.to_string());
            let words = ["work", "--url", &url, "--schema", &schema, "--seed", &seed, "--process", &client];
            clients.push(Client::start(self.program, &words)?);
        }
        let mut round = Round { fault: self.fault.name(), seed: self.seed, ..Round::default() };
        let is_warm =
            |client: &Client| client.heard().acks.len() >= WARM_ACKS && !client.heard().seen.is_empty();
        if !wait_until(WARM_MAX, || Ok(clients.iter().all(is_warm)))? {
            bail!("the clients do not come to work within {WARM_MAX:?}, before anything was broken");
        }
        thread::sleep(Duration::from_millis(200 + chance.below(600)));

        let broke = self.break_and_mend(&proxy, &clients, &schema, &mut chance, &mut round.violations)?;
        let works = |client: &Client| {
            let heard = client.heard();
            let since = heard.acks.iter().filter(|at| **at > broke.mended).count();
            since >= RECOVERED_ACKS && heard.seen.iter().any(|at| *at > broke.mended)
        };
        if !wait_until(RECOVERED_MAX, || Ok(clients.iter().all(works)))? {
            round
                .violations
                .push(format!("not everybody works again {RECOVERED_MAX:?} after the server was whole"));
        }
        thread::sleep(Duration::from_millis(200));
        clients.iter_mut().for_each(Client::end);
        let (mut books, mut acks, mut seen) = (String::new(), Vec::new(), Vec::new());
        for client in clients {
            let (heard, wrong) = client.ended()?;
            round.violations.extend(wrong);
            let first = heard.acks.iter().filter(|at| **at > broke.mended).min();
            round.recovered_ms = round.recovered_ms.max(first.map_or(i64::MAX, |at| at - broke.mended));
            books.push_str(&heard.books);
            acks.extend(heard.acks);
            seen.extend(heard.seen);
        }
        proxy.forget();
        round.broken_ms = broke.mended - broke.at;
        (round.acks_stood_ms, round.feed_stood_ms) =
            (longest_pause(acks, broke.at), longest_pause(seen, broke.at));
        round.how.clone_from(&broke.how);
        self.check(&schema, &books, &broke, &mut round)?;
        if round.violations.is_empty() {
            self.ask(&["drop", "--url", self.servers.url(), "--schema", &schema])?;
        }
        Ok(round)
    }

    fn break_and_mend(
        &mut self,
        proxy: &Proxy,
        clients: &[Client],
        schema: &str,
        chance: &mut Chance,
        violations: &mut Vec<String>,
    ) -> Result<Broke> {
        match self.fault {
            Fault::Kill => self.kill(chance),
            Fault::Failover | Fault::FailoverAsync => self.fail_over(proxy, schema, chance),
            Fault::Cut => self.cut(proxy, chance),
            Fault::Full => self.fill(clients, chance),
            Fault::Stop => stop(clients, chance, violations),
        }
    }

    fn kill(&mut self, chance: &mut Chance) -> Result<Broke> {
        let at = now_ms();
        self.servers.fault(&["kill-leader"])?;
        let pause = chance.below(800);
        thread::sleep(Duration::from_millis(pause));
        self.servers.fault(&["start-leader"])?;
        Ok(Broke { how: format!("killed, started after {pause} ms"), at, mended: now_ms(), failover: None })
    }

    fn fail_over(&mut self, proxy: &Proxy, schema: &str, chance: &mut Chance) -> Result<Broke> {
        let is_async = self.fault == Fault::FailoverAsync;
        let mut how = String::from("killed, the furthest promoted");
        let watch = match is_async {
            true => Some(Client::start(self.program, &["watch", "--url", self.servers.admin()])?),
            false => None,
        };
        if let Some(watch) = &watch {
            let told = || Ok(!watch.heard().books.is_empty());
            if !wait_until(WARM_MAX, told)? {
                bail!("the probe of what a failover would lose says nothing");
            }
            // Every other time the replicas stand for a moment: on a loopback they are never behind by themselves.
            if self.seed % 2 == 1 {
                let stand = 50 + chance.below(300);
                for receiver in self.servers.receivers() {
                    kill_process(receiver, Signal::TERM).context("a replica's receiver can't be ended")?;
                }
                thread::sleep(Duration::from_millis(stand));
                how.push_str(&format!(", its replicas {stand} ms behind"));
            }
        }
        let at = now_ms();
        self.servers.fault(&["kill-leader"])?;
        let dead = now_ms();
        self.servers.fault(&["promote", "furthest"])?;
        let failover = match watch {
            Some(watch) => {
                let announced = announced(&watch.heard().books, at, dead);
                let (beat, _) =
                    pair(&self.ask(&["beat", "--url", self.servers.url(), "--schema", schema])?)?;
                Some((dead, beat, announced))
            }
            None => None,
        };
        proxy.lead_to(self.servers.address()?);
        Ok(Broke { how, at, mended: now_ms(), failover })
    }

    fn cut(&self, proxy: &Proxy, chance: &mut Chance) -> Result<Broke> {
        let at = now_ms();
        let wait = |millis: u64| thread::sleep(Duration::from_millis(millis));
        let how = match self.seed % 5 {
            0 => {
                proxy.silence();
                "what is connected falls silent for ever".to_owned()
            }
            1 => {
                let lasts = 100 + chance.below(500);
                proxy.set(Mode::HoldAnswers);
                wait(lasts);
                proxy.reset();
                proxy.set(Mode::Pass);
                format!("no answer for {lasts} ms, then a reset")
            }
            2 => {
                let lasts = 300 + chance.below(2_700);
                proxy.set(Mode::Hold);
                wait(lasts);
                proxy.set(Mode::Pass);
                format!("nothing for {lasts} ms, then everything")
            }
            3 => {
                let lasts = 200 + chance.below(800);
                proxy.set(Mode::Refuse);
                proxy.reset();
                wait(lasts);
                proxy.set(Mode::Pass);
                format!("a reset, and no connection for {lasts} ms")
            }
            _ => {
                proxy.reset();
                "a reset".to_owned()
            }
        };
        Ok(Broke { how, at, mended: now_ms(), failover: None })
    }

    fn fill(&mut self, clients: &[Client], chance: &mut Chance) -> Result<Broke> {
        let disk = self.disk.context("the rounds with a full disk have one of their own")?;
        let left = chance.below(2 << 20);
        let at = now_ms();
        disk.fill(left)?;
        // Until somebody is hurt, and a moment longer.
        let hurt = wait_until(FULL_MAX, || {
            Ok(clients.iter().any(|client| client.heard().troubled.iter().any(|when| *when > at)))
        })?;
        thread::sleep(Duration::from_millis(chance.below(1_000)));
        disk.widen()?;
        // A server that could not write its log has ended.
        self.servers.raise()?;
        let noticed = if hurt { "noticed" } else { "waited for, or not noticed" };
        Ok(Broke { how: format!("{left} bytes left; {noticed}"), at, mended: now_ms(), failover: None })
    }

    fn check(&self, schema: &str, books: &str, broke: &Broke, round: &mut Round) -> Result<()> {
        let file = self.folder.join(format!("{schema}.books"));
        fs::write(&file, books).context("the books can't be written")?;
        let (file_text, seed) = (file.display().to_string(), self.seed.to_string());
        let mut words = vec!["check", "--url", self.servers.url(), "--schema", schema, "--seed", &seed];
        words.extend(["--books", &file_text]);
        let (from, to);
        if let Some((_, beat, _)) = broke.failover {
            (from, to) = (beat.to_string(), broke.mended.to_string());
            words.extend(["--lost-from", &from, "--lost-to", &to]);
        }
        let answer = self.ask(&words)?;
        let report: Report = serde_json::from_str(answer.trim())
            .with_context(|| format!("the check of {schema} says: {answer}"))?;
        (round.acts, round.acknowledged) = (report.acts, report.acknowledged);
        (round.events, round.effects) = (report.events, report.effects);
        (round.unknown, round.passing) = (report.unknown, report.passing);
        if let Some((dead, beat, announced)) = broke.failover {
            let lost = Lost {
                acts: report.lost,
                window_ms: report.lost_since.map_or(0, |since| dead - since),
                bound_ms: dead - beat,
                announced_ms: announced,
            };
            if lost.announced_ms.is_some_and(|announced| lost.window_ms > announced) {
                round.violations.push(format!("more was lost than was announced: {lost:?}"));
            }
            round.lost = Some(lost);
        }
        round.violations.extend(report.violations);
        if round.violations.is_empty() {
            fs::remove_file(&file).context("the books can't be removed")?;
        }
        Ok(())
    }

    /// Runs the program to its end; what it said. That a check found something is no error here.
    fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(self.program);
        process::without_package(&mut command);
        let output =
            command.args(words).stdin(Stdio::null()).output().context("the program can't be started")?;
        if output.status.code().is_none_or(|code| code > 1) {
            bail!("{}: {}", words[0], String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).context("an answer that is not UTF-8")
    }
}

/// Stops the process of the active sequencer for longer than its lease: the other one has to take over meanwhile, and the
/// first one, going on, must do no harm.
fn stop(clients: &[Client], chance: &mut Chance, violations: &mut Vec<String>) -> Result<Broke> {
    let active = |client: &&Client| client.heard().active.is_some();
    if !wait_until(WARM_MAX, || Ok(clients.iter().any(|client| active(&client))))? {
        bail!("no client's sequencer is the active one");
    }
    let stopped = clients.iter().find(active).context("the active sequencer is gone")?;
    let (_, epoch) = stopped.heard().active.unwrap_or_default();
    let lasts = STOPPED_MS.start + chance.below(STOPPED_MS.end - STOPPED_MS.start);
    let at = now_ms();
    stopped.signal(Signal::STOP)?;
    thread::sleep(Duration::from_millis(lasts));
    let others = clients.iter().filter(|client| !std::ptr::eq(*client, stopped));
    let took_over = others.filter_map(|client| client.heard().active).find(|(_, new)| *new > epoch);
    stopped.signal(Signal::CONT)?;
    let how = match took_over {
        Some((since, _)) => format!("stopped for {lasts} ms, followed after {} ms", since - at),
        None => {
            violations.push(format!("the sequencer stood for {lasts} ms, and nobody took over"));
            format!("stopped for {lasts} ms, followed by nobody")
        }
    };
    Ok(Broke { how, at, mended: now_ms(), failover: None })
}

/// How much a probe announced that a failover would lose at `dead`: what it said last before `at`, and the time since then;
/// in milliseconds, none when it knew no bound.
fn announced(said: &str, at: i64, dead: i64) -> Option<i64> {
    let mut last = None;
    for line in said.lines() {
        let Some((when, seconds)) = line.split_once(' ') else { continue };
        let Ok(when) = when.parse::<i64>() else { continue };
        if when > at {
            break;
        }
        last = Some((when, seconds.parse::<f64>().ok()));
    }
    let (when, seconds) = last?;
    Some((seconds? * 1_000.0).ceil() as i64 + dead - when)
}

fn pair(text: &str) -> Result<(i64, i64)> {
    let (first, second) =
        text.trim().split_once(' ').with_context(|| format!("two numbers, not {text:?}"))?;
    Ok((first.parse()?, second.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_announced_last_before_the_kill_counts_and_grows_until_it() {
        let said = "100 0.010000\n120 0.020500\n140 -\n";
        assert_eq!(announced(said, 130, 150), Some(21 + 30));
        assert_eq!(announced(said, 119, 150), Some(10 + 50));
        assert_eq!(announced(said, 145, 150), None);
        assert_eq!(announced("", 145, 150), None);
    }
}
