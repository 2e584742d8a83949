//! The copy of the tree that is broken and mended, and the builds made from it.
//!
//! The checkout itself is never touched: a mutation that outlives an interrupted run would be a bug planted
//! by our own tool. Files that did not change keep their times, so that cargo builds only what must be.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::libtest::{self, Tests};
use crate::process::{self, Ended};
use crate::tree::Tree;

/// A copied tree, its build directory and its logs.
pub(super) struct Workshop {
    tree: PathBuf,
    build: PathBuf,
    logs: PathBuf,
    /// Held as long as we work: two runs in one copy would mutate each other's code.
    _lock: File,
}

/// One run of a command.
#[derive(Debug)]
pub(super) struct Run {
    /// It exited with 0.
    pub(super) passed: bool,
    pub(super) timed_out: bool,
    /// What it exited with, when it exited.
    pub(super) code: Option<i32>,
    pub(super) tests: Tests,
    /// What it wrote to standard error; cargo's own messages are there.
    pub(super) errors: String,
    /// The file that holds what it wrote to standard error; standard output lies beside it.
    pub(super) log: PathBuf,
}

impl Workshop {
    /// Brings the copy under `out` up to date with the tree.
    pub(super) fn open(tree: &Tree, out: &Path) -> Result<Workshop> {
        let (copy, build, logs) = (out.join("tree"), out.join("build"), out.join("log"));
        for directory in [&copy, &build, &logs] {
            fs::create_dir_all(directory)
                .with_context(|| format!("{} can't be made", directory.display()))?;
        }
        let lock = File::create(out.join("lock")).context("the lock file can't be made")?;
        if lock.try_lock().is_err() {
            bail!("another `cargo xtask mutate` works in {}; wait for it", out.display());
        }
        for file in tree.files() {
            let (from, to) = (tree.root().join(file), copy.join(file));
            let text = fs::read(&from).with_context(|| format!("{file} can't be read"))?;
            if fs::read(&to).is_ok_and(|old| old == text) {
                continue;
            }
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder)?;
            }
            // `copy` and not `write`: a script must stay executable.
            fs::copy(&from, &to).with_context(|| format!("{file} can't be copied"))?;
        }
        remove_strangers(&copy, &copy, tree)?;
        Ok(Workshop { tree: copy, build, logs, _lock: lock })
    }

    /// The copy.
    pub(super) fn tree(&self) -> &Path {
        &self.tree
    }

    /// Writes the texts into the copy and gives back what was there before.
    pub(super) fn write(&self, texts: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
        let mut before = BTreeMap::new();
        for (file, text) in texts {
            let path = self.tree.join(file);
            let old = fs::read_to_string(&path).with_context(|| format!("{file} can't be read"))?;
            fs::write(&path, text).with_context(|| format!("{file} can't be written"))?;
            before.insert(file.clone(), old);
        }
        Ok(before)
    }

    /// Runs a command in the copy, its output in logs called `name`.
    pub(super) fn run(&self, command: &[String], name: &str, limit: Duration) -> Result<Run> {
        let (output, log) = (self.logs.join(format!("{name}.out")), self.logs.join(format!("{name}.err")));
        let mut process = to_process(command)?;
        process
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.build)
            .env("CARGO_TERM_COLOR", "never")
            // Into files and not pipes: a grandchild that keeps a pipe open would make us wait for ever.
            .stdout(File::create(&output).context("a log can't be made")?)
            .stderr(File::create(&log).context("a log can't be made")?);
        let ended = process::run(&mut process, limit)?;
        let read = |file: &Path| fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(Run {
            passed: matches!(&ended, Ended::Exited(status) if status.success()),
            timed_out: matches!(ended, Ended::TimedOut),
            code: match &ended {
                Ended::Exited(status) => status.code(),
                Ended::TimedOut => None,
            },
            tests: libtest::parse(&read(&output).context("a log can't be read")?),
            errors: read(&log).context("a log can't be read")?,
            log,
        })
    }
}

/// `cargo test` is told to go on after a failing program, or the tests after it would not be seen.
fn to_process(command: &[String]) -> Result<Command> {
    let Some((program, arguments)) = command.split_first() else { bail!("an empty command") };
    let mut process = if program == "cargo" { process::cargo() } else { Command::new(program) };
    process::without_package(&mut process);
    let goes_on = arguments.iter().any(|word| word == "--no-fail-fast");
    match arguments.split_first() {
        Some((test, rest)) if program == "cargo" && test == "test" && !goes_on => {
            process.args([test, "--no-fail-fast"]).args(rest);
        }
        _ => {
            process.args(arguments);
        }
    }
    Ok(process)
}

/// Removes what the tree no longer has: a deleted test file would go on being run.
fn remove_strangers(root: &Path, directory: &Path, tree: &Tree) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_strangers(root, &path, tree)?;
            continue;
        }
        let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
        if !tree.contains(&relative) {
            fs::remove_file(&path).with_context(|| format!("{relative} can't be removed"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkout() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let status = Command::new("git").args(["init", "--quiet"]).current_dir(&directory).status().unwrap();
        assert!(status.success());
        fs::write(directory.path().join(".gitignore"), "/out\n").unwrap();
        fs::write(directory.path().join("a.rs"), "one").unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        fs::write(directory.path().join("sub/b.rs"), "two").unwrap();
        directory
    }

    fn open(directory: &tempfile::TempDir) -> Result<Workshop> {
        Workshop::open(&Tree::open(directory.path()).unwrap(), &directory.path().join("out"))
    }

    #[test]
    fn the_copy_follows_the_tree_and_keeps_the_times_of_what_did_not_change() {
        let directory = checkout();
        let copy = |file: &str| directory.path().join("out/tree").join(file);
        drop(open(&directory).unwrap());
        let time = |file: &str| fs::metadata(copy(file)).unwrap().modified().unwrap();
        let before = time("a.rs");
        fs::write(directory.path().join("sub/b.rs"), "three").unwrap();
        drop(open(&directory).unwrap());
        assert_eq!(time("a.rs"), before);
        assert_eq!(fs::read_to_string(copy("sub/b.rs")).unwrap(), "three");
        fs::remove_file(directory.path().join("sub/b.rs")).unwrap();
        // What an interrupted run left broken is mended as well.
        fs::write(copy("a.rs"), "broken").unwrap();
        drop(open(&directory).unwrap());
        assert!(!copy("sub/b.rs").exists());
        assert_eq!(fs::read_to_string(copy("a.rs")).unwrap(), "one");
    }

    #[test]
    fn what_is_written_can_be_put_back() {
        let directory = checkout();
        let workshop = open(&directory).unwrap();
        let originals = workshop.write(&BTreeMap::from([("a.rs".into(), "broken".into())])).unwrap();
        assert_eq!(fs::read_to_string(workshop.tree().join("a.rs")).unwrap(), "broken");
        workshop.write(&originals).unwrap();
        assert_eq!(fs::read_to_string(workshop.tree().join("a.rs")).unwrap(), "one");
    }

    #[test]
    fn two_runs_do_not_share_a_workshop() {
        let directory = checkout();
        let first = open(&directory).unwrap();
        assert!(open(&directory).is_err());
        drop(first);
        assert!(open(&directory).is_ok());
    }

    #[test]
    fn cargo_test_goes_on_after_a_failing_program() {
        let words = |command: &[&str]| {
            let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            let process = to_process(&command).unwrap();
            process.get_args().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let expected = ["test", "--no-fail-fast", "-p", "x", "--", "y"];
        assert_eq!(words(&["cargo", "test", "-p", "x", "--", "y"]), expected);
        assert_eq!(words(&["cargo", "test", "--no-fail-fast"]), ["test", "--no-fail-fast"]);
        assert_eq!(words(&["cargo", "xtask", "crash"]), ["xtask", "crash"]);
    }
}
