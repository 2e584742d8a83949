//! An open loop at multiples of what a service can do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mainstay::envelope::{Clock, Deadline, Priority, SystemClock};
use mainstay::resilience::Scope;
use mainstay::resilience::load_shed::{LoadShed, Sample, Spec};
use serde::Serialize;

use super::Check;

/// Calls that may be under way, each for [`WORK`]: two hundred a second.
const PERMITS: u32 = 10;
const WORK: Duration = Duration::from_millis(50);
const CAPACITY: f64 = 200.0;
/// Loads, in multiples of the capacity, one after the other, and what comes before the first and after the last.
const TIMES: [u32; 4] = [1, 2, 5, 10];
const USUAL: f64 = 0.5;
/// How long a caller waits.
const PATIENCE: Duration = Duration::from_secs(1);
/// Of a hundred calls so many are critical: at ten times the capacity, six tenths of it.
const CRITICAL_OF_100: u64 = 6;
/// How long it is watched after the overload.
const AFTER: Duration = Duration::from_secs(7);
/// How long refusals are counted to tell what one costs.
const REFUSING: Duration = Duration::from_millis(600);

#[derive(Debug, Serialize)]
pub(super) struct Figures {
    capacity_per_s: f64,
    steps: Vec<Step>,
    /// None: not well again while it was watched.
    back_after_ms: Option<u64>,
    /// CPU time of one refusal, in microseconds: the service's decision, its record and the error.
    refusal_us: f64,
}

/// One load.
#[derive(Debug, Serialize)]
struct Step {
    /// The load, in multiples of the capacity.
    times: u32,
    offered_per_s: f64,
    /// Good answers in time.
    goodput_per_s: f64,
    /// Shares of what came that were answered well.
    critical_good: f64,
    others_good: f64,
    /// CPU time of this process, client and all, for each call that came, in microseconds.
    cpu_us_per_call: f64,
}

/// A call that ended: when it came and when it was over, since the beginning, and how.
#[derive(Debug, Clone, Copy)]
struct Ended {
    came: Duration,
    over: Duration,
    is_critical: bool,
    good: bool,
}

pub(super) fn measure(seconds: u32) -> Result<(Figures, Vec<Check>)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    let figures = runtime.block_on(async { loads(Duration::from_secs(seconds.into())).await })?;
    let last = figures.steps.last().context("no load was tried")?;
    let least = figures.steps.iter().map(|step| step.goodput_per_s).fold(f64::INFINITY, f64::min);
    let back_s = figures.back_after_ms.map_or(f64::INFINITY, |ms| ms as f64 / 1e3);
    let checks = vec![
        Check::at_least("goodput at 1x to 10x, the least, of the capacity", least / CAPACITY, 0.9),
        Check::at_least("critical calls served at 10x, alone they fit", last.critical_good, 0.99),
        Check::at_most("back to 99 % after the overload, s", back_s, 5.0),
        Check::at_most("a refusal, us of CPU", figures.refusal_us, 20.0),
    ];
    Ok((figures, checks))
}

async fn loads(lasts: Duration) -> Result<Figures> {
    let shed = service()?;
    let ended = Arc::new(Mutex::new(Vec::new()));
    let began = Instant::now();
    let mut client = Client { shed, ended: Arc::clone(&ended), began, sent: 0 };
    client.ask(USUAL * CAPACITY, Duration::from_secs(1)).await;
    let mut spans = Vec::new();
    for times in TIMES {
        let (from, before) = (began.elapsed(), cpu());
        client.ask(CAPACITY * f64::from(times), lasts).await;
        spans.push((times, from, began.elapsed(), before, cpu()));
    }
    let over = began.elapsed();
    client.ask(USUAL * CAPACITY, AFTER).await;
    client.all_ended().await?;
    let ended = std::mem::take(&mut *ended.lock().unwrap_or_else(PoisonError::into_inner));
    let steps = spans.into_iter().map(|(times, from, to, before, after)| {
        let came: Vec<&Ended> = ended.iter().filter(|call| (from..to).contains(&call.came)).collect();
        let share = |critical: bool| {
            let of = came.iter().filter(|call| call.is_critical == critical);
            let (good, all) = of.fold((0, 0), |(good, all), call| (good + u32::from(call.good), all + 1));
            f64::from(good) / f64::from(all.max(1))
        };
        let good = ended.iter().filter(|call| call.good && (from..to).contains(&call.over)).count();
        let seconds = (to - from).as_secs_f64();
        Step {
            times,
            offered_per_s: came.len() as f64 / seconds,
            goodput_per_s: good as f64 / seconds,
            critical_good: share(true),
            others_good: share(false),
            cpu_us_per_call: (after - before).as_secs_f64() * 1e6 / came.len().max(1) as f64,
        }
    });
    let steps = steps.collect();
    let back_after_ms = back(&ended, over, AFTER).map(|time| time.as_millis() as u64);
    Ok(Figures { capacity_per_s: CAPACITY, steps, back_after_ms, refusal_us: refusal_us().await? })
}

fn service() -> Result<LoadShed> {
    let scope = Arc::new(Scope::system("service"));
    Ok(LoadShed::new(&scope, Spec::fixed(PERMITS).check()?))
}

struct Client {
    shed: LoadShed,
    ended: Arc<Mutex<Vec<Ended>>>,
    began: Instant,
    sent: u64,
}

impl Client {
    /// Asks `rate` times a second, at equal distances, for so long, and waits for nothing.
    async fn ask(&mut self, rate: f64, lasts: Duration) {
        let from = Instant::now();
        let mut asked = 0;
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        while from.elapsed() < lasts {
            ticks.tick().await;
            let due = (from.elapsed().min(lasts).as_secs_f64() * rate) as u64;
            for _ in asked..due {
                self.sent += 1;
                let is_critical = self.sent * CRITICAL_OF_100 % 100 < CRITICAL_OF_100;
                tokio::spawn(call(self.shed.clone(), Arc::clone(&self.ended), self.began, is_critical));
            }
            asked = due.max(asked);
        }
    }

    /// Waits until every call has ended, as each does by its own patience.
    async fn all_ended(&self) -> Result<()> {
        let all = async {
            while (self.ended.lock().unwrap_or_else(PoisonError::into_inner).len() as u64) < self.sent {
                tokio::time::sleep(WORK).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE * 100, all).await;
        waited.context("calls have not ended long after their time; nothing is reported")
    }
}

async fn call(shed: LoadShed, ended: Arc<Mutex<Vec<Ended>>>, began: Instant, is_critical: bool) {
    let priority = if is_critical { Priority::Critical } else { Priority::Normal };
    let came = began.elapsed();
    let served = async {
        let deadline = Deadline::after(SystemClock.now(), PATIENCE);
        let guard = shed.enter(priority, Some(deadline)).await.ok()?;
        tokio::time::sleep(WORK).await;
        guard.finish(Sample::Answered);
        Some(())
    };
    let good = matches!(tokio::time::timeout(PATIENCE, served).await, Ok(Some(())));
    let call = Ended { came, over: began.elapsed(), is_critical, good };
    ended.lock().unwrap_or_else(PoisonError::into_inner).push(call);
}

/// When, after `over`, 99 of 100 calls of every second are answered well, to the end of what was watched.
fn back(ended: &[Ended], over: Duration, watched: Duration) -> Option<Duration> {
    const STEP: Duration = Duration::from_millis(100);
    const SECOND: Duration = Duration::from_secs(1);
    let is_well = |from: Duration| {
        let of = ended.iter().filter(|call| (from..from + SECOND).contains(&call.came));
        let (good, all) = of.fold((0, 0), |(good, all), call| (good + u32::from(call.good), all + 1));
        good * 100 >= all * 99
    };
    let steps = (watched - SECOND).as_millis() / STEP.as_millis();
    let begins = |step: u128| over + STEP * u32::try_from(step).unwrap_or(u32::MAX);
    match (0..=steps).rev().find(|step| !is_well(begins(*step))) {
        None => Some(Duration::ZERO),
        Some(bad) if bad == steps => None,
        Some(bad) => Some(begins(bad + 1) - over),
    }
}

/// CPU time of one refusal where everything is taken: this process does nothing else meanwhile.
async fn refusal_us() -> Result<f64> {
    let scope = Arc::new(Scope::system("service"));
    let shed = LoadShed::new(&scope, Spec::fixed(PERMITS).queue(0).check()?);
    let held: Vec<_> = (0..PERMITS).map(|_| shed.enter_now(Priority::Normal, None)).collect();
    let (before, began, mut refused) = (cpu(), Instant::now(), 0_u64);
    while began.elapsed() < REFUSING {
        for _ in 0..100 {
            refused += u64::from(shed.enter(Priority::Normal, None).await.is_err());
        }
    }
    let spent = cpu() - before;
    drop(held);
    anyhow::ensure!(refused > 0, "nothing was refused where everything was taken");
    Ok(spent.as_secs_f64() * 1e6 / refused as f64)
}

/// What this process has used so far, all its threads.
fn cpu() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(spent.tv_sec).unwrap_or(0), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

impl Figures {
    pub(super) fn write(&self, text: &mut String) {
        use std::fmt::Write;
        for step in &self.steps {
            let _ = writeln!(
                text,
                "{:>2}x {:>6.0} calls/s: {:>5.1} good/s, critical {:.2} %, others {:.2} %, {:.1} us of CPU a call, client and all",
                step.times,
                step.offered_per_s,
                step.goodput_per_s,
                step.critical_good * 100.0,
                step.others_good * 100.0,
                step.cpu_us_per_call,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_back_when_every_later_second_is_well() {
        let call = |ms: u64, good: bool| {
            let came = Duration::from_millis(ms);
            Ended { came, over: came, is_critical: false, good }
        };
        let over = Duration::from_secs(10);
        let watched = Duration::from_secs(7);
        let well: Vec<_> = (10_000..18_000).step_by(10).map(|ms| call(ms, true)).collect();
        assert_eq!(back(&well, over, watched), Some(Duration::ZERO));
        // two of the hundred calls of a second fail, 2.5 s after it: the seconds that hold them begin up to then
        let mut late = well.clone();
        late.extend([call(12_501, false), call(12_502, false)]);
        assert_eq!(back(&late, over, watched), Some(Duration::from_millis(2_600)));
        let mut never = well;
        never.extend([call(16_950, false), call(16_951, false)]);
        assert_eq!(back(&never, over, watched), None);
    }
}
