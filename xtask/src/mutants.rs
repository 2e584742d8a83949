//! cargo-mutants over the pure states: every operator changed, one at a time, and the tests that must notice.
//!
//! On demand, for it takes hours: part of no lane. (`cargo xtask mutate` is another thing: chosen defects, each with the
//! test that must fail.) cargo-mutants works in a copy of the tree. What survives is compared with the list of survivors
//! that change nothing (`rules/resilience/tests/mutants.md`): one that is not listed fails the command, and so does a
//! listed one that no longer survives. A run that was ended says nothing; `--resume` goes on with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{self, Ended};
use crate::tree;

/// What is changed, and how.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this file, as a path from the root; again for more. By default each `state.rs` of the resilience rules.
    #[arg(long)]
    file: Vec<String>,
    /// Go on where an earlier run was ended. What it caught is not tried again, whatever became of the tests since; a
    /// file whose code has changed is begun anew. Without, everything is.
    #[arg(long)]
    resume: bool,
    /// Mutants at a time; each builds on all cores it can get.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
}

const PACKAGE: &str = "mainstay-resilience";
const ROOM: &str = "rules/resilience/src/";
const LISTED: &str = "rules/resilience/tests/mutants.md";

/// Which tests judge a room's state, beside those in the source: its own. All of the package would do as well, and take
/// ten times as long. Fewer tests can only leave more alive.
const TESTS: &[(&str, &[&str])] = &[
    ("bulkhead", &["policy", "isolation", "interleavings"]),
    ("cache", &["cache"]),
    ("circuit_breaker", &["circuit_breaker", "interleavings"]),
    ("fallback", &["policy"]),
    ("hedge", &["policy"]),
    ("load_shed", &["load_shed", "shedding_layers"]),
    ("rate_limit", &["rate_limit", "interleavings"]),
    ("retry", &["retry"]),
    ("timeout", &["policy"]),
];

/// Tests that take so many times what they take on unchanged code hang; that is noticing, too. Relative, and never
/// less than so many seconds, for on a busy machine slowness would pass for noticing.
const TEST_LIMIT_TIMES: &str = "10";
const TEST_LIMIT_AT_LEAST_S: &str = "60";

/// One file's mutants, on a busy machine.
const LIMIT: Duration = Duration::from_secs(12 * 60 * 60);

/// Each cargo that the tool starts leads a process group of its own, which only the tool can end; and it has its copy
/// of the tree to remove.
const NOTICE: Duration = Duration::from_secs(30);

/// The code that the tool's lists are about.
const CODE: &str = "code.rs";
/// Stands among them once they are whole. A run that goes on begins a folder of its own.
const WHOLE: &str = "mutants.out/whole";

/// Survivors and how often each survived: a name without line and column may stand in several places.
type Survivors = BTreeMap<String, usize>;

/// Runs it file by file. True when nothing survived that is not listed.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    ensure_installed()?;
    let root = tree::root()?;
    let files = if arguments.file.is_empty() { states(&root)? } else { arguments.file.clone() };
    let text =
        std::fs::read_to_string(root.join(LISTED)).with_context(|| format!("{LISTED} can't be read"))?;
    let listed = listed(&text)?;
    let nothing = Survivors::new();
    let (mut new, mut gone) = (0, 0);
    for file in &files {
        ensure!(root.join(file).is_file(), "there is no file {file}; nothing of it was tried");
        let expected = listed.get(file).unwrap_or(&nothing);
        let missed = one(&root, file, expected, arguments)?;
        for (mutant, count) in beyond(&missed, expected) {
            eprintln!("mutants: {file}: {mutant}: {count} more survive than {LISTED} says");
            new += count;
        }
        for (mutant, count) in beyond(expected, &missed) {
            eprintln!("mutants: {file}: {mutant}: listed, and {count} fewer survive; take it from the list");
            gone += count;
        }
    }
    let files = files.len();
    eprintln!(
        "mutants: {files} files, {new} survivors that are not listed, {gone} listed that don't survive"
    );
    Ok(new == 0 && gone == 0)
}

fn ensure_installed() -> Result<()> {
    let version =
        process::cargo().args(["mutants", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if version.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    bail!(
        "cargo-mutants is not installed, so nothing was tried; to install it: cargo install --locked cargo-mutants"
    )
}

/// Every room's `state.rs`.
fn states(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join(ROOM)).with_context(|| format!("{ROOM} can't be read"))? {
        let name = entry?.file_name();
        let file = format!("{ROOM}{}/state.rs", name.to_string_lossy());
        if root.join(&file).is_file() {
            found.push(file);
        }
    }
    ensure!(!found.is_empty(), "no room of {ROOM} has a state.rs");
    found.sort();
    Ok(found)
}

/// The mutants of one file; who survived, now or in the run that this one goes on with.
fn one(root: &Path, file: &str, expected: &Survivors, arguments: &Arguments) -> Result<Survivors> {
    let out = root.join("target/mutants").join(file.trim_end_matches(".rs").replace('/', "-"));
    let text = std::fs::read_to_string(root.join(file)).with_context(|| format!("{file} can't be read"))?;
    let goes_on = arguments.resume && is_of(&out, code(&text));
    if goes_on && out.join(WHOLE).exists() {
        let survivors = survivors(&out)?;
        if survivors == *expected {
            eprintln!("mutants: {file}: all was tried, and what survives is listed; not tried again");
            return Ok(survivors);
        }
    }
    if !goes_on {
        if arguments.resume {
            eprintln!("mutants: {file}: nothing was tried of its code as it is now; begun anew");
        }
        begin(&out, code(&text)).with_context(|| format!("{} can't be written", out.display()))?;
    }
    let room = file.strip_prefix(ROOM).and_then(|rest| rest.split('/').next());
    let mut command = command(file, room, arguments, goes_on, &out);
    command.current_dir(root).stdout(std::io::stderr());
    eprintln!("mutants: {file}");
    let began = Instant::now();
    let ended = process::run_with_notice(&mut command, LIMIT, NOTICE)
        .with_context(|| format!("{file} was not done with; to go on: --resume"))?;
    match ended {
        // 0: all caught. 2: some survive. 3: some were caught by hanging.
        Ended::Exited(status) if matches!(status.code(), Some(0 | 2 | 3)) => {}
        Ended::Exited(status) => bail!("cargo-mutants failed ({status}); its logs are in {}", out.display()),
        Ended::TimedOut => bail!("still running after {} h; to go on: --resume", LIMIT.as_secs() / 3600),
    }
    let tally = Tally::read(&out)?;
    tally.is_whole().with_context(|| file.to_owned())?;
    std::fs::write(out.join(WHOLE), "").with_context(|| format!("{} can't be written", out.display()))?;
    for line in names(&out, "timeout.txt")?.lines() {
        eprintln!("mutants: {line}: its tests hung, or the machine was too busy; to be sure, try it again");
    }
    eprintln!("mutants: {file}: {tally}; {} s", began.elapsed().as_secs());
    survivors(&out)
}

/// An empty folder for what is found out about this code.
fn begin(out: &Path, code: &str) -> std::io::Result<()> {
    if out.exists() {
        std::fs::remove_dir_all(out)?;
    }
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join(CODE), code)
}

/// What mutants are made of: the file without the tests at its end, which change with every survivor that is dealt with.
fn code(text: &str) -> &str {
    text.split_once("#[cfg(test)]\nmod tests").map_or(text, |(code, _)| code)
}

/// Whether what lies there is about this code.
fn is_of(out: &Path, code: &str) -> bool {
    // One whose tool ended before it wrote anything has nothing to go on with.
    out.join("mutants.out").is_dir() && std::fs::read_to_string(out.join(CODE)).is_ok_and(|of| of == code)
}

/// How many mutants came to which end.
#[derive(Debug, Default)]
struct Tally {
    /// To be tried in this run.
    wanted: usize,
    caught: usize,
    hung: usize,
    unbuildable: usize,
    missed: usize,
    /// Caught or not to be built in the run that this one went on with. (What hung there is tried again.)
    before: usize,
}

impl Tally {
    fn read(out: &Path) -> Result<Tally> {
        let wanted: Vec<serde_json::Value> = serde_json::from_str(&names(out, "mutants.json")?)
            .context("cargo-mutants wrote a list of mutants that we don't know")?;
        let lines = |list| names(out, list).map(|text| text.lines().count());
        let is_resumed = out.join("mutants.out/previously_caught.txt").exists();
        Ok(Tally {
            wanted: wanted.len(),
            caught: lines("caught.txt")?,
            hung: lines("timeout.txt")?,
            unbuildable: lines("unviable.txt")?,
            missed: lines("missed.txt")?,
            before: if is_resumed { lines("previously_caught.txt")? } else { 0 },
        })
    }

    /// Nothing found to change, or some of it not tried, is no proof of anything.
    fn is_whole(&self) -> Result<()> {
        let Tally { wanted, caught, hung, unbuildable, missed, before } = *self;
        ensure!(wanted + before > 0, "there is nothing to change, so nothing was proved");
        let tried = caught + hung + unbuildable + missed;
        ensure!(
            tried == wanted,
            "{tried} of {wanted} mutants were tried, which proves nothing of the others"
        );
        Ok(())
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { wanted, caught, hung, unbuildable, missed, before } = self;
        write!(
            f,
            "{wanted} mutants: {caught} caught, {hung} hung, {unbuildable} don't build, {missed} survive"
        )?;
        if *before > 0 { write!(f, "; {before} done with before") } else { Ok(()) }
    }
}

fn tests(room: Option<&str>) -> &'static [&'static str] {
    TESTS.iter().find(|(name, _)| Some(*name) == room).map_or(&[], |(_, tests)| tests)
}

fn command(file: &str, room: Option<&str>, arguments: &Arguments, goes_on: bool, out: &Path) -> Command {
    let tests = tests(room);
    let mut command = process::cargo();
    command.args(["mutants", "--package", PACKAGE, "--all-features", "--colors", "never", "--file", file]);
    command.args(["--timeout-multiplier", TEST_LIMIT_TIMES, "--minimum-test-timeout", TEST_LIMIT_AT_LEAST_S]);
    command.args(["--jobs", &arguments.jobs.to_string(), "--output"]).arg(out);
    if goes_on {
        command.arg("--iterate");
    }
    // A target folder that is shared would be one for the tree and its copy.
    command.env_remove("CARGO_TARGET_DIR").env("CARGO_PROFILE_TEST_DEBUG", "0");
    if !tests.is_empty() {
        // Said to cargo when it builds, too: all of the package's tests would be built for each mutant.
        command.arg("--cargo-arg=--lib");
        for test in tests {
            command.arg(format!("--cargo-arg=--test={test}"));
        }
        // In the source, too, the other rooms' tests judge nothing here, and some take long.
        command.args(["--", "--"]);
        for (other, _) in TESTS.iter().filter(|(other, _)| Some(*other) != room) {
            command.args(["--skip", &format!("{other}::")]);
        }
    }
    command
}

fn survivors(out: &Path) -> Result<Survivors> {
    let mut survivors = Survivors::new();
    for line in names(out, "missed.txt")?.lines() {
        *survivors.entry(unplaced(line)?).or_default() += 1;
    }
    Ok(survivors)
}

/// One of the lists that the tool leaves behind.
fn names(out: &Path, list: &str) -> Result<String> {
    let file: PathBuf = out.join("mutants.out").join(list);
    std::fs::read_to_string(&file).with_context(|| format!("{} can't be read", file.display()))
}

/// `path:line:column: what` without where it stands, which changes with every edit above it.
fn unplaced(line: &str) -> Result<String> {
    let what = line.splitn(4, ':').nth(3).with_context(|| format!("not a mutant as we know them: {line}"))?;
    Ok(what.trim().to_owned())
}

/// The list, by file.
fn listed(text: &str) -> Result<BTreeMap<String, Survivors>> {
    let mut files: BTreeMap<String, Survivors> = BTreeMap::new();
    let mut file = None;
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            file = Some(heading.trim().to_owned());
        } else if let Some(entry) = line.strip_prefix("- `") {
            let file = file.clone().with_context(|| format!("no file above: {line}"))?;
            let (mutant, rest) =
                entry.split_once('`').with_context(|| format!("no end of the name: {line}"))?;
            let (times, reason) = match rest.trim_start().strip_prefix('(') {
                None => (1, rest),
                Some(rest) => {
                    let (times, reason) =
                        rest.split_once(" times)").with_context(|| format!("how many times? {line}"))?;
                    (times.parse().with_context(|| format!("how many times? {line}"))?, reason)
                }
            };
            let reason = reason.strip_prefix(':').map_or("", str::trim);
            ensure!(!reason.is_empty(), "without a reason: {line}");
            *files.entry(file).or_default().entry(mutant.to_owned()).or_default() += times;
        }
    }
    Ok(files)
}

/// What of `these` is more than in `those`, and by how much.
fn beyond(these: &Survivors, those: &Survivors) -> Survivors {
    let more = |(name, count): (&String, &usize)| {
        let more = count.saturating_sub(those.get(name).copied().unwrap_or(0));
        (more > 0).then(|| (name.clone(), more))
    };
    these.iter().filter_map(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survivors_of(names: &[(&str, usize)]) -> Survivors {
        names.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn a_list_is_read_by_file_and_each_entry_has_a_reason() {
        let text = "# Title\n\nWords.\n\n## a.rs\n\n- `replace | with ^ in word`: no bit in common.\n- `x` (2 times): same\n  \
                    number.\n## b.rs\n- `y`: why\n";
        let listed = listed(text).unwrap();
        assert_eq!(listed["a.rs"], survivors_of(&[("replace | with ^ in word", 1), ("x", 2)]));
        assert_eq!(listed["b.rs"], survivors_of(&[("y", 1)]));
        for bad in ["## a\n- `x`", "## a\n- `x`:", "- `x`: why", "## a\n- `x: why", "## a\n- `x` (2): why"] {
            assert!(super::listed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_survivor_that_is_not_listed_or_survives_more_often_is_new() {
        let missed = survivors_of(&[("x", 2), ("y", 1)]);
        assert_eq!(beyond(&missed, &survivors_of(&[("x", 2), ("y", 1), ("z", 1)])), Survivors::new());
        assert_eq!(beyond(&missed, &survivors_of(&[("x", 1)])), survivors_of(&[("x", 1), ("y", 1)]));
    }

    #[test]
    fn a_mutant_is_known_wherever_it_stands() {
        let line = "rules/x/state.rs:83:53: replace | with ^ in Load::word";
        assert_eq!(unplaced(line).unwrap(), "replace | with ^ in Load::word");
        assert!(unplaced("whatever").is_err());
    }

    #[test]
    fn a_test_added_at_the_end_changes_no_code() {
        let file = "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn f() {}\n}\n";
        assert_eq!(code(file), "fn f() {}\n\n");
        assert_eq!(code("#[cfg(test)]\nfn f() {}\n"), "#[cfg(test)]\nfn f() {}\n");
    }

    #[test]
    fn a_run_that_found_nothing_or_left_some_untried_proves_nothing() {
        let out = tempfile::tempdir().unwrap();
        let lists = out.path().join("mutants.out");
        std::fs::create_dir(&lists).unwrap();
        let write = |name: &str, text: &str| std::fs::write(lists.join(name), text).unwrap();
        let verdict = || Tally::read(out.path()).unwrap().is_whole();
        assert!(Tally::read(out.path()).is_err(), "no lists");
        for list in ["caught.txt", "timeout.txt", "unviable.txt", "missed.txt"] {
            write(list, "");
        }
        write("mutants.json", "[]");
        assert!(verdict().is_err(), "nothing to change");
        write("mutants.json", "[{}, {}, {}]");
        write("caught.txt", "a\n");
        write("missed.txt", "b\n");
        assert!(verdict().is_err(), "two of three");
        write("timeout.txt", "c\n");
        verdict().unwrap();
        // All that is left of a run that is gone on with was done before.
        write("mutants.json", "[]");
        ["caught.txt", "missed.txt", "timeout.txt"].iter().for_each(|list| write(list, ""));
        write("previously_caught.txt", "a\nc\n");
        verdict().unwrap();
    }

    #[test]
    fn what_lies_there_is_gone_on_with_only_for_the_same_code() {
        let out = tempfile::tempdir().unwrap();
        std::fs::write(out.path().join(CODE), "fn f() {}").unwrap();
        assert!(!is_of(out.path(), "fn f() {}"), "nothing was tried");
        std::fs::create_dir(out.path().join("mutants.out")).unwrap();
        assert!(is_of(out.path(), "fn f() {}") && !is_of(out.path(), "fn g() {}"));
    }

    #[test]
    fn the_tree_has_its_states_and_a_list_that_can_be_read() {
        let root = tree::root().unwrap();
        let states = states(&root).unwrap();
        let text = std::fs::read_to_string(root.join(LISTED)).unwrap();
        for file in listed(&text).unwrap().keys() {
            assert!(states.contains(file), "{file} is listed and is no state");
        }
        for file in &states {
            let room = file.strip_prefix(ROOM).unwrap().split('/').next();
            assert!(!tests(room).is_empty(), "{file}: which tests judge it?");
        }
    }
}
