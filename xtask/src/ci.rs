//! The lanes: what a change must pass, in the order in which a mistake is cheapest to find.
//!
//! A lane is a list of commands that a person can type, so that "run it again" is a copy and a paste.
//! To add a step, add its line.
//!
//! What is built, and why: clippy and rustdoc share one check build, the tests and examples one dev build,
//! both with all features, because a test behind a feature that no lane turns on is a test nobody runs.
//! Features are additive here. One kind of feature is left to the full lane: `server-tests` of a backend
//! whose server it starts. No lane builds in release mode: the programs that need it build it once.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::engines;
use crate::process::{self, Ended};
use crate::tree;

/// Which lane, and how to report it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// `fast` is what a change must pass, `full` is what takes long; the gate runs both, in this order.
    #[arg(value_enum, default_value_t = Lane::Fast)]
    lane: Lane,
    /// One JSON object on standard output when the lane ends; the steps' own output goes to standard error.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Lane {
    Fast,
    Full,
}

/// One line of a lane: a name for the summary and the command as a person would type it.
struct Step {
    name: &'static str,
    command: &'static str,
}

const fn step(name: &'static str, command: &'static str) -> Step {
    Step { name, command }
}

/// No server, no network, no Python: what every machine with a Rust toolchain can run.
const FAST: &[Step] = &[
    step("format", "cargo fmt --all --check"),
    step("tidy", "cargo xtask tidy"),
    step("clippy", "cargo clippy --workspace --all-targets --all-features -- -D warnings"),
    step(
        "tests",
        "cargo test --workspace --exclude bench-peers --exclude mainstay-cli --exclude mainstay-postgres --all-features \
         --lib --bins --tests",
    ),
    step(
        "doctests",
        "cargo test --workspace --exclude bench-peers --exclude mainstay-cli --exclude mainstay-postgres --all-features \
         --doc",
    ),
    step("tests beside a server", "cargo test --package mainstay-cli --package mainstay-postgres"),
    step("examples", "cargo xtask examples"),
    step("documentation", "RUSTDOCFLAGS='-D warnings' cargo doc --workspace --all-features --no-deps"),
];

/// What takes long, beside what is in the fast lane.
const FULL: &[Step] = &[
    step("tests on a server", "cargo test --package mainstay-cli --package mainstay-postgres --all-features"),
    step("outside", "cargo xtask outside"),
    step("crash", "cargo xtask crash store --kills 300 --seed 1"),
    step("kills of write-back", "cargo xtask crash cache --rounds 12 --seed 1"),
    step("power cuts", "cargo xtask powercut --cuts 500 --seed 1"),
    step("faults of a server", "cargo xtask crash postgres --rounds 2 --seed 4"),
    step("kills of the shop", "cargo xtask crash shop --rounds 50 --seed 1"),
    step(
        "interleavings",
        "MAINSTAY_SCHEDULES='2000' cargo test --package mainstay-resilience --all-features --lib --test interleavings",
    ),
    step("jumps of the wall clock", "cargo xtask clock"),
    step("defects of peers", "cargo test --package bench-peers --test count_window"),
    step("openapi", "cargo xtask openapi"),
    step("mutations", "cargo xtask mutate --gate"),
];

/// What a person types for the servers that the full lane's steps have.
const SERVERS: &str = "cargo xtask engines up postgres && eval \"$(cargo xtask engines env postgres)\"";

/// A step that takes longer hangs: a lane is to end, red, rather than be cut off without a word.
const STEP_LIMIT: Duration = Duration::from_secs(30 * 60);

#[derive(Serialize)]
struct Summary {
    lane: Lane,
    passed: bool,
    seconds: f64,
    steps: Vec<Done>,
}

#[derive(Serialize)]
struct Done {
    name: &'static str,
    command: &'static str,
    passed: bool,
    seconds: f64,
}

/// Runs the lane, stops at its first failure. True when every step passed.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let steps = match arguments.lane {
        Lane::Fast => FAST,
        Lane::Full => FULL,
    };
    // Asked now, once: a step may build this program anew, and then Linux calls the file we run "deleted".
    let own = std::env::current_exe().context("where is this program?")?;
    // Kept until the last step has ended, and taken down also when one fails or the user interrupts.
    let servers = match arguments.lane {
        Lane::Fast => None,
        Lane::Full => {
            eprintln!("==> servers: as by `cargo xtask engines up postgres`");
            Some(engines::Lane::up().context("the lane's servers are not up, so none of its steps was run")?)
        }
    };
    let settings = servers.as_ref().map_or(Vec::new(), |servers| servers.settings().to_vec());
    let runner = Runner { own, quiet_stdout: arguments.json, limit: STEP_LIMIT, settings };
    let summary = runner.run(arguments.lane, steps)?;
    drop(servers);
    if arguments.json {
        println!("{}", serde_json::to_string(&summary)?);
    }
    Ok(summary.passed)
}

struct Runner {
    /// This program's file; `cargo xtask …` starts it directly instead of asking cargo whether it is fresh.
    own: PathBuf,
    /// Standard output belongs to the JSON summary, so the steps write to standard error.
    quiet_stdout: bool,
    limit: Duration,
    /// What every step finds in its environment: where the lane's servers are.
    settings: Vec<(&'static str, String)>,
}

impl Runner {
    fn run(&self, lane: Lane, steps: &[Step]) -> Result<Summary> {
        let started = Instant::now();
        let mut done = Vec::new();
        for step in steps {
            eprintln!("==> {}: {}", step.name, step.command);
            let began = Instant::now();
            let failure = self.attempt(step)?;
            let seconds = began.elapsed().as_secs_f64();
            done.push(Done { name: step.name, command: step.command, passed: failure.is_none(), seconds });
            if let Some(failure) = failure {
                eprintln!("<== {} failed after {seconds:.1} s: {failure}", step.name);
                eprintln!("    the steps after it were not run; to repeat it: {}", step.command);
                if !self.settings.is_empty() {
                    eprintln!("    it had servers; to have them again: {SERVERS}");
                }
                break;
            }
            eprintln!("<== {} passed in {seconds:.1} s", step.name);
        }
        // A step that was not run comes after one that failed.
        let passed = done.iter().all(|step| step.passed);
        let seconds = started.elapsed().as_secs_f64();
        if passed {
            let times: Vec<String> =
                done.iter().map(|step| format!("{} {:.1} s", step.name, step.seconds)).collect();
            eprintln!("==> passed in {seconds:.1} s ({})", times.join(", "));
        }
        Ok(Summary { lane, passed, seconds, steps: done })
    }

    /// None when the step passed, otherwise how it failed.
    fn attempt(&self, step: &Step) -> Result<Option<String>> {
        let mut command = self.to_process(step.command)?;
        if self.quiet_stdout {
            command.stdout(std::io::stderr());
        }
        Ok(match process::run(&mut command, self.limit)? {
            Ended::Exited(status) if status.success() => None,
            Ended::Exited(status) => Some(status.to_string()),
            Ended::TimedOut => Some(format!("still running after {} s, killed", self.limit.as_secs())),
        })
    }

    /// Turns a typed command into a process: leading `NAME='value'` settings, then words without quotes.
    fn to_process(&self, text: &str) -> Result<Command> {
        let mut settings = Vec::new();
        let mut rest = text;
        while let Some((name, after)) = rest.split_once("='")
            && !name.contains(' ')
        {
            let (value, after) =
                after.split_once('\'').with_context(|| format!("unclosed quote in: {text}"))?;
            settings.push((name, value));
            rest = after.trim_start();
        }
        let words: Vec<&str> = rest.split_whitespace().collect();
        let (mut command, arguments) = match words.as_slice() {
            ["cargo", "xtask", arguments @ ..] => (Command::new(&self.own), arguments),
            ["cargo", arguments @ ..] => (process::cargo(), arguments),
            [program, arguments @ ..] => (Command::new(program), arguments),
            [] => bail!("a step without a command"),
        };
        let servers = self.settings.iter().map(|(name, value)| (*name, value.as_str()));
        command.args(arguments).envs(servers).envs(settings).current_dir(tree::root()?);
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner() -> Runner {
        let limit = Duration::from_secs(60);
        Runner { own: "xtask".into(), quiet_stdout: false, limit, settings: Vec::new() }
    }

    #[test]
    fn a_lane_stops_at_its_first_failure() {
        let steps = [step("one", "true"), step("two", "false"), step("three", "true")];
        let summary = runner().run(Lane::Fast, &steps).unwrap();
        assert!(!summary.passed);
        let seen: Vec<_> = summary.steps.iter().map(|step| (step.name, step.passed)).collect();
        assert_eq!(seen, [("one", true), ("two", false)]);
    }

    #[test]
    fn a_lane_passes_when_every_step_does() {
        let steps = [step("one", "true"), step("two", "true")];
        assert!(Runner { quiet_stdout: true, ..runner() }.run(Lane::Full, &steps).unwrap().passed);
    }

    #[test]
    fn a_step_that_hangs_fails() {
        let steps = [step("hang", "sleep 100000")];
        let hasty = Runner { limit: Duration::from_millis(50), ..runner() };
        let summary = hasty.run(Lane::Fast, &steps).unwrap();
        assert!(!summary.passed);
    }

    #[test]
    fn a_step_that_can_not_be_started_is_an_error() {
        let steps = [step("missing", "no-such-program-anywhere")];
        assert!(runner().run(Lane::Fast, &steps).is_err());
    }

    #[test]
    fn settings_before_a_command_reach_it() {
        let command = runner().to_process("FLAGS='-D warnings' OTHER='1' env --version").unwrap();
        let settings: Vec<_> = command.get_envs().collect();
        assert!(settings.contains(&("FLAGS".as_ref(), Some("-D warnings".as_ref()))), "{settings:?}");
        assert!(settings.contains(&("OTHER".as_ref(), Some("1".as_ref()))), "{settings:?}");
        assert_eq!(command.get_program(), "env");
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["--version"]);
    }

    #[test]
    fn every_step_finds_the_servers_in_its_environment() {
        let settings = vec![("WHERE_THE_SERVER_IS", "here".to_owned())];
        let steps = [step("asks", "printenv WHERE_THE_SERVER_IS")];
        assert!(!runner().run(Lane::Full, &steps).unwrap().passed);
        assert!(Runner { settings, ..runner() }.run(Lane::Full, &steps).unwrap().passed);
    }

    #[test]
    fn what_the_fast_lane_leaves_out_is_tested_without_a_server_and_with_one() {
        let commands = || FAST.iter().chain(FULL).map(|step| step.command);
        let tests = |package: &str, with_a_server: bool| {
            commands().any(|command| {
                let words: Vec<&str> = command.split(' ').collect();
                command.starts_with("cargo test ")
                    && words.windows(2).any(|pair| pair == ["--package", package])
                    && words.contains(&"--all-features") == with_a_server
            })
        };
        for command in commands() {
            let words: Vec<&str> = command.split(' ').collect();
            for pair in words.windows(2).filter(|pair| pair[0] == "--exclude" && pair[1] != "bench-peers") {
                for with_a_server in [false, true] {
                    assert!(tests(pair[1], with_a_server), "{}: no step tests it, {with_a_server}", pair[1]);
                }
            }
        }
    }

    #[test]
    fn every_step_has_its_own_name_and_a_command_that_parses() {
        let mut names = std::collections::BTreeSet::new();
        for step in FAST.iter().chain(FULL) {
            assert!(names.insert(step.name), "{} twice", step.name);
            runner().to_process(step.command).unwrap();
        }
    }
}
