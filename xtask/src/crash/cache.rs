//! Crashes: a process that writes through a write-back cache is killed, again and again, and the database ends with the
//! last acknowledged value of each key, never an older one over a newer.
//!
//! ```text
//!   this driver ──starts──► worker ──► journal, database     kill -9 between journal, flush and settlement (the worker
//!        │                    │                              stops at a drawn step and says so), or at a drawn moment
//!        └── ledger ◄── pipe ─┘                              what was said before the kill is still in the pipe
//!   after each kill: `worker check`   ledger against both files, and against every row seen before; every few kills, and
//!                                     at the end, with everything flushed
//! ```
//! A round is one kill. Rounds are cut into series, each with a seed and files of its own, so that a long run can go on
//! where it stopped (`--from`). A seed fixes the steps and the moments; what a moment meets is up to the machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::worker::{self, Killed};
use super::{Chance, out};
use crate::examples;
use crate::process::{self, Ended};

/// Rounds on the same files.
const ROUNDS_PER_SERIES: u64 = 25;

/// Rounds between two checks that flush everything: until then, what several processes left lies together.
const ROUNDS_PER_FLUSH: u64 = 5;

/// A worker that does not reach its step, or says nothing, for so long hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// As the worker calls them.
const STEPS: [&str; 6] =
    ["before-journal", "after-journal", "before-flush", "after-flush", "before-settle", "after-settle"];

/// How often, from where, and how to report it.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The seed of the first series; the next has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often to kill, in all series together.
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// Begin with the series of this seed, as if those before it had passed.
    #[arg(long)]
    from: Option<u64>,
    /// One JSON object on standard output at the end.
    #[arg(long)]
    json: bool,
    /// A worker that is built already.
    #[arg(long)]
    worker: Option<PathBuf>,
}

/// What the whole run found.
#[derive(Default, Serialize)]
struct Summary {
    passed: bool,
    seed: u64,
    from: u64,
    kills: u64,
    /// Of those, at a step: between journal, flush and settlement.
    kills_at_a_step: u64,
    /// Of those, before the worker had said a word: while it opened or recovered its files.
    kills_early: u64,
    /// Writes that were acknowledged, and all that were tried.
    acknowledged: u64,
    tried: u64,
    /// Kills that left writes which were not in the database yet.
    kills_with_pending: u64,
    /// The worker ended by itself, or its files could not be checked.
    died: u64,
    seconds: f64,
    violations: Vec<String>,
}

/// Runs the crashes. True when every promise was kept.
pub(super) fn run(cache: &Arguments) -> Result<bool> {
    let worker = match &cache.worker {
        Some(worker) => worker.clone(),
        None => examples::build_one("mainstay", "write_back_worker")?,
    };
    let from = cache.from.unwrap_or(cache.seed);
    let mut summary = Summary { seed: cache.seed, from, ..Summary::default() };
    let (began, out) = (Instant::now(), out()?);
    for series in 0..cache.rounds.div_ceil(ROUNDS_PER_SERIES) {
        let seed = cache.seed + series;
        if seed < from {
            continue;
        }
        let rounds = ROUNDS_PER_SERIES.min(cache.rounds - series * ROUNDS_PER_SERIES);
        let mut series = Series::begin(&worker, &out, seed)?;
        let sound = series.run(rounds, &mut summary)?;
        summary.seconds = began.elapsed().as_secs_f64();
        eprintln!(
            "seed {seed}: {} kills, {} writes acknowledged, {:.1} s",
            summary.kills, summary.acknowledged, summary.seconds
        );
        if !sound {
            eprintln!("what it left is kept in {}", series.folder.display());
            eprintln!("    to repeat it: cargo xtask crash cache --seed {seed} --rounds {ROUNDS_PER_SERIES}");
            break;
        }
        fs::remove_dir_all(&series.folder).context("the finished series can't be removed")?;
    }
    summary.passed = summary.violations.is_empty();
    for violation in &summary.violations {
        eprintln!("{violation}");
    }
    if cache.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        println!(
            "{} kills ({} at a step, {} early, {} with writes pending), {} writes acknowledged of {} tried: \
             {} violations, died {}",
            summary.kills,
            summary.kills_at_a_step,
            summary.kills_early,
            summary.kills_with_pending,
            summary.acknowledged,
            summary.tried,
            summary.violations.len(),
            summary.died
        );
    }
    Ok(summary.passed)
}

/// When a worker is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// So long after its start.
    After(Duration),
    /// When it says that it has stopped before this step, the so manyth time it comes there.
    At(&'static str, u64),
    /// As soon as so many acknowledgements were heard: the moment an answer that left too early is a lie.
    Heard(u64),
}

/// One pair of files and the kills around them.
struct Series<'a> {
    program: &'a Path,
    folder: PathBuf,
    seed: u64,
    chance: Chance,
    /// Every line that any worker said, and what the checks saw.
    ledger: String,
    /// A value that was not tried yet.
    next: u64,
}

impl<'a> Series<'a> {
    fn begin(program: &'a Path, out: &Path, seed: u64) -> Result<Self> {
        let folder = worker::fresh(out, &format!("cache-{seed}"))?;
        Ok(Series { program, folder, seed, chance: Chance(seed), ledger: String::new(), next: 1 })
    }

    /// True when everything was as promised.
    fn run(&mut self, rounds: u64, summary: &mut Summary) -> Result<bool> {
        for round in 1..=rounds {
            let moment = self.moment(round);
            let (lines, ended) = self.kill_one(moment)?;
            summary.kills += 1;
            summary.kills_at_a_step += u64::from(matches!(moment, Moment::At(..)));
            summary.kills_early += u64::from(lines == 0);
            if let Some(ended) = ended {
                summary.died += 1;
                let why = format!("seed {}, round {round}, {moment:?}: the worker ended: {ended}", self.seed);
                summary.violations.push(why);
                return Ok(false);
            }
            if !self.check(round, round % ROUNDS_PER_FLUSH == 0 || round == rounds, summary)? {
                return Ok(false);
            }
        }
        let said = |what: &str| self.ledger.lines().filter(|line| line.starts_with(what)).count() as u64;
        summary.tried += said("try ");
        summary.acknowledged += said("ack ");
        Ok(true)
    }

    /// Two of three rounds end at a step, each step in turn, so that none is left out; the others anywhere.
    fn moment(&mut self, round: u64) -> Moment {
        if !round.is_multiple_of(3) {
            let step = STEPS[(round * 2 / 3) as usize % STEPS.len()];
            return Moment::At(step, 1 + self.chance.below(23));
        }
        match self.chance.below(4) {
            0 => Moment::After(Duration::from_micros(self.chance.below(8_000))),
            1 => Moment::After(Duration::from_micros(15_000 + self.chance.below(150_000))),
            _ => Moment::Heard(1 + self.chance.below(60)),
        }
    }

    fn command(&self, command: &str) -> Command {
        let mut process = Command::new(self.program);
        process::without_package(&mut process);
        process.arg(command).arg("--folder").arg(&self.folder).stdin(Stdio::null());
        process
    }

    /// Starts a worker and kills it; how many lines it said and, if it was not our kill, how it ended.
    fn kill_one(&mut self, moment: Moment) -> Result<(u64, Option<String>)> {
        let log = self.folder.join("stderr");
        let mut command = self.command("append");
        command.args(["--from", &self.next.to_string()]);
        if let Moment::At(step, nth) = moment {
            command.args(["--halt", step, "--nth", &nth.to_string()]);
        }
        let after = if let Moment::After(after) = moment { after } else { PATIENCE };
        let mut heard = 0;
        let Killed { lines, late, struck, status } = worker::kill_one(&mut command, &log, after, |line| {
            let words: Vec<&str> = line.trim_end().split(' ').collect();
            let strikes = match words[..] {
                ["halted"] => true,
                ["try", _, value] => {
                    self.next = self.next.max(value.parse::<u64>().context("a value")? + 1);
                    false
                }
                ["ack", ..] => {
                    heard += 1;
                    moment == Moment::Heard(heard)
                }
                _ => bail!("the worker says {line:?}"),
            };
            if words.len() == 3 {
                self.ledger.push_str(line);
            }
            Ok(strikes)
        })?;
        let ended = if late && !matches!(moment, Moment::After(_)) {
            Some(format!("killed: it did not come so far within {PATIENCE:?}"))
        } else if late || struck {
            None
        } else {
            Some(format!("{status}: {}", last_line(&log)))
        };
        Ok((lines, ended))
    }

    /// The ledger against the files. What it sees is part of the ledger from now on.
    fn check(&mut self, round: u64, flush: bool, summary: &mut Summary) -> Result<bool> {
        let path = |name: &str| self.folder.join(name);
        fs::write(path("ledger"), &self.ledger).context("the ledger can't be written")?;
        let mut process = self.command("check");
        process.arg("--ledger").arg(path("ledger")).args(["--flush", if flush { "yes" } else { "no" }]);
        process.stdout(File::create(path("stdout"))?).stderr(File::create(path("stderr"))?);
        let ended = process::run(&mut process, PATIENCE)?;
        let answer = fs::read_to_string(path("stdout"))?;
        let mut broken = Vec::new();
        let mut answered = false;
        for line in answer.lines() {
            match line.split_once(' ') {
                Some(("seen", _)) => self.ledger.push_str(&format!("{line}\n")),
                Some(("pending", count)) => {
                    answered = true;
                    summary.kills_with_pending += u64::from(count != "0");
                }
                Some(("violation", what)) => broken.push(what.to_owned()),
                _ => bail!("the check says {line:?}"),
            }
        }
        let sound = matches!(ended, Ended::Exited(status) if status.success());
        if !answered || (!sound && broken.is_empty()) {
            summary.died += 1;
            broken.push(format!("the files can't be checked: {}", last_line(&path("stderr"))));
        }
        let told = |what: &String| format!("seed {}, round {round}: {what}", self.seed);
        summary.violations.extend(broken.iter().map(told));
        Ok(broken.is_empty())
    }
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or("it said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker written in shell, which says what it is told to.
    fn worker(folder: &Path, says: &str, answers: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join("worker");
        let script = format!("#!/bin/sh\ncase $1 in append) {says} ;; check) {answers} ;; esac\n");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn series(says: &str, answers: &str, rounds: u64) -> (bool, Summary, String) {
        let directory = tempfile::tempdir().unwrap();
        let worker = worker(directory.path(), says, answers);
        let mut summary = Summary::default();
        let mut series = Series::begin(&worker, directory.path(), 3).unwrap();
        let sound = series.run(rounds, &mut summary).unwrap();
        (sound, summary, series.ledger)
    }

    #[test]
    fn what_was_said_before_a_kill_is_kept_and_a_check_adds_what_it_saw() {
        let says = "echo 'try k1 7'; echo 'ack k1 7'; echo halted; exec sleep 100000";
        let (sound, summary, ledger) = series(says, "echo 'seen k1 9 7'; echo 'pending 1'", 2);
        assert!(sound, "{:?}", summary.violations);
        assert_eq!((summary.kills, summary.kills_at_a_step, summary.kills_with_pending), (2, 2, 2));
        assert_eq!((summary.acknowledged, summary.tried), (2, 2));
        assert_eq!(ledger, "try k1 7\nack k1 7\nseen k1 9 7\n".repeat(2));
    }

    #[test]
    fn a_broken_promise_a_worker_that_ends_and_files_that_can_not_be_checked_fail_the_series() {
        let halts = "echo halted; exec sleep 100000";
        for (says, answers, words, died) in [
            (
                halts,
                "echo 'pending 0'; echo 'violation k1: 3 in the database'; exit 1",
                "3 in the database",
                0,
            ),
            ("echo 'it broke' >&2; exit 2", "echo 'pending 0'", "it broke", 1),
            (halts, "echo 'no such file' >&2; exit 2", "no such file", 1),
            (halts, "true", "can't be checked", 1),
        ] {
            let (sound, summary, _) = series(says, answers, 2);
            assert!(!sound && summary.died == died, "{answers}: {:?}", summary.violations);
            assert!(summary.violations[0].contains(words), "{:?}", summary.violations);
        }
    }

    #[test]
    fn every_series_kills_at_every_step_and_at_moments_that_are_none() {
        let mut series = Series {
            program: Path::new(""),
            folder: PathBuf::new(),
            seed: 1,
            chance: Chance(1),
            ledger: String::new(),
            next: 1,
        };
        let moments: Vec<Moment> = (1..=ROUNDS_PER_SERIES).map(|round| series.moment(round)).collect();
        for step in STEPS {
            let at = |moment: &&Moment| matches!(moment, Moment::At(name, _) if *name == step);
            assert!(moments.iter().filter(at).count() >= 2, "{step}: {moments:?}");
        }
        assert!(moments.iter().any(|moment| matches!(moment, Moment::After(_))));
        assert!(moments.iter().any(|moment| matches!(moment, Moment::Heard(_))));
    }
}
