//! Crashes: a process that works on a store is killed at any moment, again and again, and afterwards every
//! answer it gave must hold.
//!
//! ```text
//!   this driver ──starts──► worker ──► store file         kill -9 at a drawn moment: early, under load, or
//!        │                    │                           the moment an acknowledgement is heard
//!        └── ledger ◄── pipe ─┘                           what was said before the kill is still in the pipe
//!   every few kills: `worker check`   ledger against file, and against every end of the feed seen before
//!   at the end:      `worker resolve` what was never answered is tried again, then checked once more
//! ```
//! A kill keeps the kernel's page cache, so this proves nothing about a power cut: `cargo xtask powercut` does.
//!
//! The work is cut into series, each with a seed, a file and up to [`KILLS_PER_SERIES`] kills of its own, so that
//! the file stays small and a long run can go on where it stopped (`--from`). A seed fixes the acts and the
//! moments of the kills; what a moment meets is up to the machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::worker::{self, Killed};
use super::{Chance, out};
use crate::examples;
use crate::process::{self, Ended};

/// Kills of one file. Its size is bounded by this, since the worker appends some megabytes a second.
const KILLS_PER_SERIES: u64 = 50;

/// Kills between two checks of everything.
const KILLS_PER_CHECK: u64 = 25;

/// A worker that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// One check or one resolution that takes longer hangs.
const CHECK_LIMIT: Duration = Duration::from_secs(300);

/// How often, from where, and how to report it.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The seed of the first series; the next has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often to kill, in all series together.
    #[arg(long, default_value_t = 300)]
    kills: u64,
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

/// What the whole run found. All of `lost` to `died` must be 0.
#[derive(Default, Serialize)]
struct Summary {
    passed: bool,
    seed: u64,
    from: u64,
    kills: u64,
    /// Kills before the worker had said a word: while it opened, made or recovered its file.
    kills_early: u64,
    acts: u64,
    acknowledged: u64,
    refused: u64,
    /// Tried and never answered.
    unknown: u64,
    /// Of those, there.
    unknown_there: u64,
    /// Of those, known to be there or not to be after they were tried again.
    unknown_resolved: u64,
    events: u64,
    lost: u64,
    doubled: u64,
    refused_visible: u64,
    torn: u64,
    order_broken: u64,
    both: u64,
    changed: u64,
    foreign: u64,
    /// Refused because the store could not, though nothing but a kill had happened to it.
    failed: u64,
    /// The worker ended by itself, or could not open its file again.
    died: u64,
    seconds: f64,
    violations: Vec<String>,
}

/// What `worker check` answers.
#[derive(Default, Deserialize)]
struct Report {
    acts: u64,
    acknowledged: u64,
    refused: u64,
    open: u64,
    open_there: u64,
    events: u64,
    lost: u64,
    doubled: u64,
    refused_visible: u64,
    torn: u64,
    order_broken: u64,
    both: u64,
    changed: u64,
    foreign: u64,
    failed: u64,
    violations: Vec<String>,
    head: Option<Head>,
}

#[derive(Deserialize)]
struct Head {
    position: u64,
    hash: String,
}

/// Runs the crashes. True when every promise was kept.
pub(super) fn run(store: &Arguments) -> Result<bool> {
    let worker = match &store.worker {
        Some(worker) => worker.clone(),
        None => examples::build_one("mainstay-sqlite", "store_worker")?,
    };
    let from = store.from.unwrap_or(store.seed);
    let mut summary = Summary { seed: store.seed, from, ..Summary::default() };
    let (began, out) = (Instant::now(), out()?);
    for series in 0..store.kills.div_ceil(KILLS_PER_SERIES) {
        let seed = store.seed + series;
        if seed < from {
            continue;
        }
        let kills = KILLS_PER_SERIES.min(store.kills - series * KILLS_PER_SERIES);
        let mut series = Series::begin(&worker, &out, seed)?;
        let sound = series.run(kills, &mut summary)?;
        summary.seconds = began.elapsed().as_secs_f64();
        eprintln!(
            "seed {seed}: {} kills, {} acts, {} events, {:.1} s",
            summary.kills, summary.acts, summary.events, summary.seconds
        );
        if !sound {
            eprintln!("what it left is kept in {}", series.folder.display());
            eprintln!("    to repeat it: cargo xtask crash store --seed {seed} --kills {KILLS_PER_SERIES}");
            break;
        }
        fs::remove_dir_all(&series.folder).context("the finished series can't be removed")?;
    }
    summary.passed = summary.violations.is_empty();
    for violation in &summary.violations {
        eprintln!("{violation}");
    }
    if store.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        println!(
            "{} kills ({} early), {} acknowledged, {} refused, {} unknown ({} of them there, {} resolved): \
             lost {}, doubled {}, refused but visible {}, torn {}, order broken {}, both {}, changed {}, foreign {}, \
             failed {}, died {}",
            summary.kills,
            summary.kills_early,
            summary.acknowledged,
            summary.refused,
            summary.unknown,
            summary.unknown_there,
            summary.unknown_resolved,
            summary.lost,
            summary.doubled,
            summary.refused_visible,
            summary.torn,
            summary.order_broken,
            summary.both,
            summary.changed,
            summary.foreign,
            summary.failed,
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
    /// As soon as so many acknowledgements were heard: the moment an answer that left too early is a lie.
    Heard(u64),
}

/// One file and its kills.
struct Series<'a> {
    program: &'a Path,
    folder: PathBuf,
    seed: u64,
    chance: Chance,
    /// Every line that any worker said, and what the checks saw.
    ledger: String,
    /// From here on no act was tried.
    next: u64,
}

impl<'a> Series<'a> {
    fn begin(program: &'a Path, out: &Path, seed: u64) -> Result<Self> {
        let folder = worker::fresh(out, &format!("store-{seed}"))?;
        Ok(Series { program, folder, seed, chance: Chance(seed), ledger: String::new(), next: 0 })
    }

    /// True when everything was as promised.
    fn run(&mut self, kills: u64, summary: &mut Summary) -> Result<bool> {
        for kill in 1..=kills {
            let moment = self.moment();
            let (lines, ended) = self.kill_one(moment)?;
            summary.kills += 1;
            summary.kills_early += u64::from(lines == 0);
            if let Some(ended) = ended {
                let stderr = fs::read_to_string(self.folder.join("stderr")).unwrap_or_default();
                let last = stderr.lines().last().unwrap_or("it said nothing");
                summary.died += 1;
                summary.violations.push(format!("the worker ended by itself, {ended}: {last}"));
                return Ok(false);
            }
            if kill % KILLS_PER_CHECK == 0 && kill < kills && !self.check(summary)?.violations.is_empty() {
                return Ok(false);
            }
        }
        let before = self.check(summary)?;
        if !before.violations.is_empty() {
            return Ok(false);
        }
        let lines = match self.ask("resolve")? {
            Ok(lines) => lines,
            Err(why) => {
                summary.violations.push(format!("what was never answered can't be resolved: {why}"));
                return Ok(false);
            }
        };
        self.ledger.push_str(&lines);
        let after = self.check(summary)?;
        summary.unknown += before.open;
        summary.unknown_there += before.open_there;
        summary.unknown_resolved += before.open - after.open.min(before.open);
        summary.acts += after.acts;
        summary.acknowledged += after.acknowledged;
        summary.refused += after.refused;
        summary.events += after.events;
        if after.open > 0 {
            summary.violations.push(format!("{} acts stay unknown after they were tried again", after.open));
        }
        Ok(summary.violations.is_empty())
    }

    /// A fifth of the kills come while the file is opened or recovered, the others under load.
    fn moment(&mut self) -> Moment {
        match self.below(5) {
            0 => Moment::After(Duration::from_micros(self.below(8_000))),
            1 | 2 => Moment::After(Duration::from_micros(15_000 + self.below(200_000))),
            _ => Moment::Heard(1 + self.below(400)),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.chance.below(bound)
    }

    fn command(&self, command: &str) -> Command {
        let mut process = Command::new(self.program);
        process::without_package(&mut process);
        process.arg(command).arg("--file").arg(self.folder.join("store.db"));
        process.args(["--seed", &self.seed.to_string(), "--writers", "4"]).stdin(Stdio::null());
        process
    }

    /// Starts a worker and kills it; how many lines it said and, if it was not our kill, how it ended.
    fn kill_one(&mut self, moment: Moment) -> Result<(u64, Option<String>)> {
        let log = self.folder.join("stderr");
        let mut command = self.command("append");
        command.args(["--from", &self.next.to_string()]);
        let after = if let Moment::After(after) = moment { after } else { PATIENCE };
        let mut heard = 0;
        let Killed { lines, late, struck, status } = worker::kill_one(&mut command, &log, after, |line| {
            if let Some(number) = line.strip_prefix("try ").and_then(|rest| rest.split(' ').next()) {
                self.next = self.next.max(number.parse::<u64>().context("a number of an act")? + 1);
            }
            self.ledger.push_str(line);
            heard += u64::from(line.starts_with("ack "));
            Ok(line.starts_with("ack ") && moment == Moment::Heard(heard))
        })?;
        let ended = if late && matches!(moment, Moment::Heard(_)) {
            Some(format!("killed: it said {heard} acknowledgements within {PATIENCE:?}"))
        } else {
            (!late && !struck).then(|| status.to_string())
        };
        Ok((lines, ended))
    }

    /// The ledger against the file. What it sees is part of the ledger from now on.
    fn check(&mut self, summary: &mut Summary) -> Result<Report> {
        let answer = match self.ask("check")? {
            Ok(answer) | Err(answer) => answer,
        };
        let Some(report) = answer.lines().last().and_then(|line| serde_json::from_str::<Report>(line).ok())
        else {
            summary.died += 1;
            summary.violations.push(format!("the file can't be checked: {answer}"));
            return Ok(Report { violations: vec![answer], ..Report::default() });
        };
        if let Some(head) = &report.head {
            self.ledger.push_str(&format!("seen {} {}\n", head.position, head.hash));
        }
        summary.lost += report.lost;
        summary.doubled += report.doubled;
        summary.refused_visible += report.refused_visible;
        summary.torn += report.torn;
        summary.order_broken += report.order_broken;
        summary.both += report.both;
        summary.changed += report.changed;
        summary.foreign += report.foreign;
        summary.failed += report.failed;
        summary.violations.extend(report.violations.iter().map(|what| format!("seed {}: {what}", self.seed)));
        Ok(report)
    }

    /// Runs a command of the worker that ends by itself; its output, or with an error also its complaint.
    fn ask(&self, command: &str) -> Result<Result<String, String>> {
        let path = |name: &str| self.folder.join(name);
        fs::write(path("ledger"), &self.ledger).context("the ledger can't be written")?;
        let mut process = self.command(command);
        process.arg("--ledger").arg(path("ledger"));
        process.stdout(File::create(path("stdout"))?).stderr(File::create(path("stderr"))?);
        let ended = process::run(&mut process, CHECK_LIMIT)?;
        let (output, complaint) = (fs::read_to_string(path("stdout"))?, fs::read_to_string(path("stderr"))?);
        Ok(match ended {
            Ended::Exited(status) if status.success() => Ok(output),
            Ended::Exited(_) => Err(complaint + &output),
            Ended::TimedOut => Err(format!("{command} did not end within {CHECK_LIMIT:?}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker written in shell, which says what it is told to and answers every check with `report`.
    fn worker(folder: &Path, says: &str, report: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join("worker");
        let script = format!(
            "#!/bin/sh\ncase $1 in append) {says} ;; check) echo '{report}' ;; resolve) echo 'refused 1 late' ;; esac\n"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn report(open: u64, lost: u64, violations: &str) -> String {
        format!(
            r#"{{"acts":2,"acknowledged":1,"refused":0,"open":{open},"open_there":0,"events":1,"lost":{lost},"doubled":0,"refused_visible":0,"torn":0,"order_broken":0,"both":0,"changed":0,"foreign":0,"failed":0,"violations":[{violations}],"head":{{"position":1,"hash":"h"}}}}"#
        )
    }

    #[test]
    fn what_was_said_before_a_kill_is_kept_and_the_next_number_follows() {
        let directory = tempfile::tempdir().unwrap();
        let says = "echo 'try 6 0'; echo 'try 7 0'; echo 'ack 6 1 new s=1'; exec sleep 100000";
        let worker = worker(directory.path(), says, &report(0, 0, ""));
        let mut series = Series::begin(&worker, directory.path(), 3).unwrap();
        assert_eq!(series.kill_one(Moment::Heard(1)).unwrap(), (3, None));
        assert_eq!(series.next, 8);
        assert_eq!(series.kill_one(Moment::After(Duration::ZERO)).unwrap().1, None);
        assert!(series.ledger.starts_with("try 6 0\ntry 7 0\nack 6 1 new s=1\n"));
    }

    #[test]
    fn a_worker_that_ends_by_itself_is_a_violation() {
        let directory = tempfile::tempdir().unwrap();
        let worker = worker(directory.path(), "echo 'it broke' >&2; exit 2", &report(0, 0, ""));
        let mut summary = Summary::default();
        let sound = Series::begin(&worker, directory.path(), 3).unwrap().run(50, &mut summary).unwrap();
        assert!(!sound && summary.died == 1);
        assert!(summary.violations[0].contains("it broke"), "{:?}", summary.violations);
    }

    #[test]
    fn a_loss_that_the_check_reports_fails_the_series_and_what_stays_unknown_does_too() {
        for (report, counts) in
            [(report(0, 1, "\"gone\""), (1, 1)), (report(1, 0, ""), (0, 1)), (report(0, 0, ""), (0, 0))]
        {
            let directory = tempfile::tempdir().unwrap();
            let says = "for i in 1 2 3 4 5; do for j in 1 2 3 4 5 6 7 8 9; do for k in 1 2 3 4 5 6 7 8 9; do \
                        echo \"try 1 0\"; echo \"ack 1 1 new s=1\"; done; done; done; exec sleep 100000";
            let worker = worker(directory.path(), says, &report);
            let mut summary = Summary::default();
            let mut series = Series::begin(&worker, directory.path(), 3).unwrap();
            let sound = series.run(2, &mut summary).unwrap();
            assert_eq!((summary.lost, summary.violations.len()), counts, "{:?}", summary.violations);
            assert_eq!(sound, counts == (0, 0));
            assert!(series.ledger.contains("seen 1 h\n"), "what a check saw must stay true");
        }
    }

    #[test]
    fn moments_are_drawn_early_under_load_and_at_an_acknowledgement() {
        let mut series = Series {
            program: Path::new(""),
            folder: PathBuf::new(),
            seed: 1,
            chance: Chance(1),
            ledger: String::new(),
            next: 0,
        };
        let moments: Vec<Moment> = (0..100).map(|_| series.moment()).collect();
        let early =
            |moment: &&Moment| matches!(moment, Moment::After(after) if *after < Duration::from_millis(10));
        assert!(moments.iter().filter(early).count() > 3);
        assert!(moments.iter().filter(|moment| matches!(moment, Moment::Heard(_))).count() > 20);
    }
}
