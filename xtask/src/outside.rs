//! Builds and runs every project under `tests/outside/`, as its author would.
//!
//! Such a project is no member of the workspace: it has its own lock file and sees what a user sees. That
//! shows what no test inside can: that the public names do, that the features can be chosen, and that cargo
//! finds versions beside the user's other libraries. A project takes no arguments, ends by itself and exits 0.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{self, Ended};
use crate::tree;

/// Its dependencies are built from nothing on a fresh checkout, a C library among them.
const BUILD_LIMIT: Duration = Duration::from_secs(25 * 60);

/// A project that runs longer has no end.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// Which projects.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the project in the folder of this name.
    #[arg(long)]
    only: Option<String>,
}

/// Builds and runs each project. True when all of them exited 0.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let root = tree::root()?;
    let projects = projects(&root.join("tests/outside"), arguments.only.as_deref())?;
    // One folder for all: what two projects use in the same version is built once.
    let target = root.join("target/outside");
    let mut passed = 0;
    for project in &projects {
        match attempt(project, &target)? {
            None => passed += 1,
            Some(failure) => {
                eprintln!("outside {} failed: {failure}", project.name);
                eprintln!("    to repeat it: cargo xtask outside --only {}", project.name);
            }
        }
    }
    eprintln!("outside: {passed} of {} projects passed", projects.len());
    Ok(passed == projects.len())
}

struct Project {
    name: String,
    folder: PathBuf,
}

/// The folders that hold a manifest, by name.
fn projects(under: &Path, only: Option<&str>) -> Result<Vec<Project>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(under).with_context(|| format!("{} can't be read", under.display()))? {
        let folder = entry?.path();
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        if folder.join("Cargo.toml").is_file() && only.is_none_or(|only| only == name) {
            found.push(Project { name: name.to_owned(), folder });
        }
    }
    if found.is_empty() {
        // A check that checks nothing is not green.
        match only {
            Some(only) => bail!("tests/outside has no project {only}"),
            None => bail!("tests/outside has no project"),
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// None when the project was built with its lock file as it is, and exited 0; otherwise how it failed.
fn attempt(project: &Project, target: &Path) -> Result<Option<String>> {
    let Project { name, folder } = project;
    let cargo = |command: &str| {
        let mut cargo = process::cargo();
        cargo.args([command, "--locked"]).current_dir(folder).env("CARGO_TARGET_DIR", target);
        cargo
    };
    let began = Instant::now();
    eprintln!("outside {name}: building");
    if let Some(failure) = step(cargo("build"), BUILD_LIMIT)? {
        return Ok(Some(format!(
            "it was not built ({failure}); if cargo says that its lock file has to change, run `cargo build` in \
             tests/outside/{name}, look at what changed and commit it: its users will have to do the same"
        )));
    }
    let built = began.elapsed().as_secs_f64();
    eprintln!("outside {name}: built in {built:.1} s, running");
    let began = Instant::now();
    if let Some(failure) = step(cargo("run"), RUN_LIMIT)? {
        return Ok(Some(format!("it was built, and running it ended with {failure}")));
    }
    eprintln!("outside {name}: passed in {:.1} s", began.elapsed().as_secs_f64());
    Ok(None)
}

/// None when the command exited 0, otherwise how it ended.
fn step(mut command: Command, limit: Duration) -> Result<Option<String>> {
    // Standard output is the caller's: `ci --json` prints its summary there.
    command.stdout(std::io::stderr());
    Ok(match process::run(&mut command, limit)? {
        Ended::Exited(status) if status.success() => None,
        Ended::Exited(status) => Some(status.to_string()),
        Ended::TimedOut => Some(format!("no end after {} s; it was killed", limit.as_secs())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a project for each program text, with a lock file as cargo writes it.
    fn outside(programs: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, main) in programs {
            let project = folder.path().join(name);
            std::fs::create_dir_all(project.join("src")).unwrap();
            let manifest = format!(
                "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n"
            );
            std::fs::write(project.join("Cargo.toml"), manifest).unwrap();
            std::fs::write(project.join("src/main.rs"), main).unwrap();
            let status = process::cargo()
                .args(["generate-lockfile", "--offline"])
                .current_dir(&project)
                .status()
                .unwrap();
            assert!(status.success());
        }
        folder
    }

    fn outcome(folder: &tempfile::TempDir, name: &str) -> Option<String> {
        let project = projects(folder.path(), Some(name)).unwrap().pop().unwrap();
        attempt(&project, &folder.path().join("target")).unwrap()
    }

    #[test]
    fn projects_are_found_by_their_manifest() {
        let folder = outside(&[("two", ""), ("one", "")]);
        std::fs::create_dir(folder.path().join("no-project")).unwrap();
        let names = |only| -> Vec<String> {
            projects(folder.path(), only).unwrap().into_iter().map(|project| project.name).collect()
        };
        assert_eq!(names(None), ["one", "two"]);
        assert_eq!(names(Some("two")), ["two"]);
        assert!(projects(folder.path(), Some("no-project")).is_err());
        assert!(projects(&folder.path().join("no-project"), None).is_err());
    }

    #[test]
    fn a_project_passes_when_it_exits_0_in_its_own_folder() {
        let program =
            r#"fn main() { assert!(std::fs::read_to_string("Cargo.toml").unwrap().contains("good")); }"#;
        assert_eq!(outcome(&outside(&[("good", program)]), "good"), None);
    }

    #[test]
    fn a_project_that_fails_or_does_not_compile_is_noticed() {
        let folder =
            outside(&[("fails", "fn main() { std::process::exit(3) }"), ("broken", "fn main() { x }")]);
        let failure = outcome(&folder, "fails").unwrap();
        assert!(failure.starts_with("it was built, and running it ended with exit status: 3"), "{failure}");
        let failure = outcome(&folder, "broken").unwrap();
        assert!(failure.starts_with("it was not built"), "{failure}");
    }

    #[test]
    fn a_lock_file_that_does_not_fit_the_manifest_is_not_mended() {
        let folder = outside(&[("stale", "fn main() {}")]);
        let lock = folder.path().join("stale/Cargo.lock");
        let text = std::fs::read_to_string(&lock).unwrap().replace("0.1.0", "0.0.9");
        std::fs::write(&lock, &text).unwrap();
        let failure = outcome(&folder, "stale").unwrap();
        assert!(failure.contains("lock file has to change"), "{failure}");
        assert_eq!(std::fs::read_to_string(&lock).unwrap(), text);
    }
}
