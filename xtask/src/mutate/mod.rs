//! Mutations: for each named way to break the code, the test that must notice.
//!
//! A test that has never failed proves nothing. `mutations/*.toml` holds small, named edits of real code;
//! each says what it breaks and which tests catch it. This command applies them one at a time to a copy of
//! the tree, runs the tests, and fails when a mutation survives, when the test that defends the code is not
//! the one that failed, or when a test fails that nobody named.
//!
//! ```toml
//! name = "retry-jitter-lost"                    # also the name of its logs: a-z, 0-9, - and _
//! what = "The drawn wait is always the longest one, so that all callers return at once."
//! file = "rules/resilience/src/retry/state.rs"
//! find = "drawn % (longest + 1)"                # stands exactly once in the file, or the mutation is stale
//! replace = "longest"
//! command = ["cargo", "test", "-p", "mainstay-resilience"]
//! caught_by = ["retry::state::tests::jitter_covers_the_whole_range"]   # all of them must fail
//! also_fails = []                               # these may fail; any other failure is an error
//! gate = true                                   # optional; the gate runs it on every change
//! timeout_seconds = 300                         # optional; caught_by = ["timeout"] expects a hang,
//!                                               # ["exit"] the exit code 1 of a command that is no test
//! ```
//!
//! Instead of `file`, `find` and `replace` there may be several `[[edit]]` tables with these three keys.

mod libtest;
mod plan;
mod report;
mod workshop;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::tree::{self, Tree};
use plan::Mutation;
use report::{Report, Row, Verdict};
use workshop::{Run, Workshop};

/// A command that builds everything from nothing and is not mutated yet.
const UNMUTATED_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Which mutations, and how to report.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the mutation of this name.
    #[arg(long)]
    only: Option<String>,
    /// Only those that the gate runs on every change (`gate = true`): the store's, and one of each other room.
    #[arg(long, conflicts_with = "only")]
    gate: bool,
    /// One JSON object on standard output instead of the table.
    #[arg(long)]
    json: bool,
}

/// Runs the mutations. True when each was caught as it says.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let root = tree::root()?;
    let report = run_in(&root, &root.join("target/mutate"), arguments.only.as_deref(), arguments.gate)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(report.passed)
}

/// Runs the mutations of the checkout at `root`, building under `out`.
fn run_in(root: &Path, out: &Path, only: Option<&str>, gate: bool) -> Result<Report> {
    let tree = Tree::open(root)?;
    let mut mutations = plan::read(&tree)?;
    if let Some(only) = only {
        let names: Vec<String> = mutations.iter().map(|mutation| mutation.name.clone()).collect();
        mutations.retain(|mutation| mutation.name == only);
        ensure!(!mutations.is_empty(), "no mutation is named {only}; there are: {}", names.join(", "));
    }
    mutations.retain(|mutation| mutation.gate || !gate);
    if mutations.is_empty() {
        // A check that checks nothing is not green.
        bail!("there is no mutation in {}", root.join(plan::FOLDER).display());
    }
    let workshop = Workshop::open(&tree, out)?;
    let mut rows = Vec::new();
    for (command, mutations) in by_command(mutations) {
        rows.extend(run_group(&workshop, &command, &mutations)?);
    }
    Ok(Report::new(rows))
}

/// Mutations that run the same command one after another, so that they build on each other's builds.
fn by_command(mutations: Vec<Mutation>) -> BTreeMap<Vec<String>, Vec<Mutation>> {
    let mut groups: BTreeMap<Vec<String>, Vec<Mutation>> = BTreeMap::new();
    for mutation in mutations {
        groups.entry(mutation.command.clone()).or_default().push(mutation);
    }
    for mutations in groups.values_mut() {
        mutations.sort_by(|a, b| (a.first_file(), &a.name).cmp(&(b.first_file(), &b.name)));
    }
    groups
}

fn run_group(workshop: &Workshop, command: &[String], mutations: &[Mutation]) -> Result<Vec<Row>> {
    eprintln!("==> unmutated: {}", command.join(" "));
    let began = Instant::now();
    let run = workshop.run(command, &format!("unmutated-{}", mutations[0].name), UNMUTATED_LIMIT)?;
    eprintln!("<== unmutated: {} in {:.1} s", how(&run), began.elapsed().as_secs_f64());
    let mut rows = Vec::new();
    for mutation in mutations {
        let began = Instant::now();
        let verdict = match unusable(mutation, &run) {
            Some(verdict) => verdict,
            None => attempt(workshop, mutation)?,
        };
        let seconds = began.elapsed().as_secs_f64();
        let row = Row::new(mutation, verdict, seconds);
        eprintln!("{row} ({seconds:.1} s)");
        rows.push(row);
    }
    Ok(rows)
}

fn how(run: &Run) -> &'static str {
    match run {
        Run { passed: true, .. } => "green",
        Run { timed_out: true, .. } => "HUNG",
        Run { .. } => "RED",
    }
}

/// Why the mutation can't be tried, seen from the run without it.
fn unusable(mutation: &Mutation, unmutated: &Run) -> Option<Verdict> {
    if !unmutated.passed {
        return Some(Verdict::NotTried(format!(
            "the command is not green unmutated; see {}",
            unmutated.log.display()
        )));
    }
    let passed = &unmutated.tests.passed;
    let unknown: Vec<String> = mutation
        .expected_tests()
        .chain(mutation.also_fails.iter())
        .filter(|name| !passed.contains(*name))
        .map(|name| {
            let tail = format!("::{name}");
            match passed.iter().find(|test| test.ends_with(&tail)) {
                Some(near) => format!("{name} (is {near} meant?)"),
                None => name.clone(),
            }
        })
        .collect();
    (!unknown.is_empty())
        .then(|| Verdict::NotTried(format!("the command runs no test named {}", unknown.join(", "))))
}

/// Breaks the code, runs the tests, and puts the code back.
fn attempt(workshop: &Workshop, mutation: &Mutation) -> Result<Verdict> {
    let edited = match plan::edited(workshop.tree(), &mutation.edits) {
        Ok(edited) => edited,
        Err(stale) => return Ok(Verdict::Stale(format!("{stale:#}"))),
    };
    let originals = workshop.write(&edited)?;
    let run = workshop.run(&mutation.command, &mutation.name, mutation.limit);
    // Also when the run could not be started: the next mutation must find the code whole.
    workshop.write(&originals)?;
    Ok(report::judge(mutation, &run?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A crate with two tests of its own, in a checkout with the given mutations.
    fn checkout(mutations: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "Cargo.toml",
            "[package]\nname = \"sample\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n",
        );
        write(".gitignore", "/target\n");
        write(
            "src/lib.rs",
            "pub fn sum(a: u64, b: u64) -> u64 { a + b }\n\
             pub fn steps(mut n: u64) -> u64 { let all = n; while n > 0 { n -= 1; } all }\n\
             #[cfg(test)]\nmod tests {\n    use super::*;\n\
             #[test]\n    fn sums() { assert_eq!(sum(2, 3), 5); }\n\
             #[test]\n    fn ends() { assert_eq!(steps(9), 9); }\n}\n",
        );
        for (name, rest) in mutations {
            let file = if rest.contains("[[edit]]") { "" } else { "file = \"src/lib.rs\"\n" };
            let text = format!(
                "name = \"{name}\"\nwhat = \"Breaks it.\"\n{file}\
                 command = [\"cargo\", \"test\", \"--offline\", \"--lib\"]\n{rest}\n"
            );
            write(&format!("mutations/{name}.toml"), &text);
        }
        let status = Command::new("git").args(["init", "--quiet"]).current_dir(&directory).status().unwrap();
        assert!(status.success());
        directory
    }

    fn verdicts(mutations: &[(&str, &str)]) -> BTreeMap<String, String> {
        let directory = checkout(mutations);
        let before = std::fs::read_to_string(directory.path().join("src/lib.rs")).unwrap();
        let report = run_in(directory.path(), &directory.path().join("target/mutate"), None, false).unwrap();
        let after = std::fs::read_to_string(directory.path().join("src/lib.rs")).unwrap();
        assert_eq!(before, after, "the checkout itself is never touched");
        assert_eq!(report.passed, report.rows.iter().all(|row| row.passed));
        report
            .rows
            .into_iter()
            .map(|row| {
                let explanation = row.explanation.map(|text| format!(": {text}")).unwrap_or_default();
                (row.name, format!("{}{explanation}", row.verdict))
            })
            .collect()
    }

    #[test]
    fn each_way_a_mutation_can_end_is_told_apart() {
        let found = verdicts(&[
            ("caught", "find = \"a + b\"\nreplace = \"a * b\"\ncaught_by = [\"tests::sums\"]"),
            ("survives", "find = \"a + b\"\nreplace = \"b + a\"\ncaught_by = [\"tests::sums\"]"),
            ("elsewhere", "find = \"a + b\"\nreplace = \"a * b\"\ncaught_by = [\"tests::ends\"]"),
            (
                "unnamed",
                "caught_by = [\"tests::sums\"]\n\
                 [[edit]]\nfile = \"src/lib.rs\"\nfind = \"a + b\"\nreplace = \"a * b\"\n\
                 [[edit]]\nfile = \"src/lib.rs\"\nfind = \"let all = n;\"\nreplace = \"let all = 0;\"",
            ),
            (
                "named",
                "caught_by = [\"tests::sums\"]\nalso_fails = [\"tests::ends\"]\n\
                 [[edit]]\nfile = \"src/lib.rs\"\nfind = \"a + b\"\nreplace = \"a * b\"\n\
                 [[edit]]\nfile = \"src/lib.rs\"\nfind = \"let all = n;\"\nreplace = \"let all = 0;\"",
            ),
            ("broken", "find = \"a + b\"\nreplace = \"a +\"\ncaught_by = [\"tests::sums\"]"),
            (
                "hangs",
                "find = \"n -= 1\"\nreplace = \"n -= 0\"\ncaught_by = [\"timeout\"]\ntimeout_seconds = 5",
            ),
            ("stale", "find = \"a - b\"\nreplace = \"a * b\"\ncaught_by = [\"tests::sums\"]"),
            ("twice", "find = \"u64\"\nreplace = \"u32\"\ncaught_by = [\"tests::sums\"]"),
            ("misnamed", "find = \"a + b\"\nreplace = \"a * b\"\ncaught_by = [\"sums\"]"),
            ("died", "find = \"a + b\"\nreplace = \"std::process::abort()\"\ncaught_by = [\"tests::sums\"]"),
        ]);
        let starts = |name: &str, text: &str| {
            assert!(found[name].starts_with(text), "{name}: {}", found[name]);
        };
        starts("caught", "caught");
        starts("survives", "SURVIVED");
        starts("elsewhere", "SURVIVED: tests::ends did not fail; these did: tests::sums");
        starts("unnamed", "UNNAMED FAILURE: tests::ends");
        starts("named", "caught");
        starts("broken", "DOES NOT COMPILE");
        starts("hangs", "caught");
        starts("stale", "STALE: src/lib.rs holds the text to find 0 times");
        starts("twice", "STALE: src/lib.rs holds the text to find 5 times");
        starts("misnamed", "NOT TRIED: the command runs no test named sums (is tests::sums meant?)");
        starts("died", "DIED");
        assert_eq!(found.len(), 11);
    }

    #[test]
    fn a_command_that_is_red_unmutated_proves_nothing() {
        let directory =
            checkout(&[("caught", "find = \"a + b\"\nreplace = \"a * b\"\ncaught_by = [\"tests::sums\"]")]);
        let library = directory.path().join("src/lib.rs");
        let text = std::fs::read_to_string(&library).unwrap().replace("steps(9), 9", "steps(9), 8");
        std::fs::write(library, text).unwrap();
        let report = run_in(directory.path(), &directory.path().join("target/mutate"), None, false).unwrap();
        assert!(!report.passed);
        assert_eq!(report.rows[0].verdict, "NOT TRIED");
    }

    /// What a change makes stale is seen with the change, and not when all mutations are run some day.
    #[test]
    fn each_mutation_of_this_tree_finds_its_place() {
        let tree = Tree::open(&tree::root().unwrap()).unwrap();
        let mutations = plan::read(&tree).unwrap();
        assert!(!mutations.is_empty());
        let stale = mutations.iter().filter_map(|mutation| {
            let why = plan::edited(tree.root(), &mutation.edits).err()?;
            Some(format!("{}: {why:#}", mutation.name))
        });
        assert_eq!(stale.collect::<Vec<_>>(), Vec::<String>::new());
    }

    #[test]
    fn nothing_to_run_is_an_error() {
        let directory = checkout(&[]);
        let error = run_in(directory.path(), &directory.path().join("out"), None, false).unwrap_err();
        assert!(error.to_string().contains("there is no mutation"), "{error}");
        let directory =
            checkout(&[("caught", "find = \"a + b\"\nreplace = \"a * b\"\ncaught_by = [\"tests::sums\"]")]);
        let error =
            run_in(directory.path(), &directory.path().join("out"), Some("other"), false).unwrap_err();
        assert_eq!(error.to_string(), "no mutation is named other; there are: caught");
    }
}
