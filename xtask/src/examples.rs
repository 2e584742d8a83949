//! Runs every example of the default members to its end.
//!
//! An example takes no arguments, needs nothing but the machine, ends by itself and exits 0. One that
//! compiles but fails is worse than none: it is what a newcomer tries first.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process::{self, Ended};
use crate::tree;

/// An example that runs longer has no end.
const LIMIT: Duration = Duration::from_secs(60);

/// Which examples.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the example of this name.
    #[arg(long)]
    only: Option<String>,
}

/// Builds all examples and runs each. True when all of them exited 0.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let mut examples = build()?;
    if let Some(only) = &arguments.only {
        examples.retain(|example| example.name == *only);
        if examples.is_empty() {
            bail!("no default member has an example named {only}");
        }
    }
    if examples.is_empty() {
        // A check that checks nothing is not green.
        bail!("no default member has an example");
    }
    let mut passed = true;
    for example in &examples {
        passed &= run_one(example)?;
    }
    eprintln!("examples: {} run, {}", examples.len(), if passed { "all passed" } else { "not all passed" });
    Ok(passed)
}

struct Example {
    name: String,
    program: PathBuf,
}

/// Builds with the flags of the test step of `ci`, so that what it built is used again. A backend whose server is
/// another program has no examples here: they would need more than the machine.
fn build() -> Result<Vec<Example>> {
    const WHICH: [&str; 6] =
        ["--workspace", "--exclude", "bench-peers", "--exclude", "mainstay-postgres", "--examples"];
    let mut examples = build_with(&WHICH)?;
    examples.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(examples)
}

/// Builds one example; where it is.
pub(crate) fn build_one(package: &str, name: &str) -> Result<PathBuf> {
    let found = build_with(&["--package", package, "--example", name])?.pop();
    found
        .map(|example| example.program)
        .with_context(|| format!("cargo built no example {name} of {package}"))
}

fn build_with(which: &[&str]) -> Result<Vec<Example>> {
    let output = process::cargo()
        .args(["build", "--all-features", "--message-format=json-render-diagnostics"])
        .args(which)
        .current_dir(tree::root()?)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo can't be started")?;
    if !output.status.success() {
        bail!("it does not compile; to repeat it: cargo build --all-features {}", which.join(" "));
    }
    let text = String::from_utf8(output.stdout).context("cargo printed what is not UTF-8")?;
    built(&text)
}

/// Picks the programs of examples out of cargo's messages, one JSON object a line.
fn built(messages: &str) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    for line in messages.lines() {
        let message: Message = serde_json::from_str(line).context("cargo printed what we don't know")?;
        if let Message { executable: Some(program), target: Some(target) } = message
            && target.kind.iter().any(|kind| kind == "example")
        {
            examples.push(Example { name: target.name, program });
        }
    }
    Ok(examples)
}

fn run_one(example: &Example) -> Result<bool> {
    let began = Instant::now();
    let mut command = Command::new(&example.program);
    process::without_package(&mut command);
    // Standard output is the caller's: `ci --json` prints its summary there.
    command.current_dir(tree::root()?).stdout(std::io::stderr());
    let ended = process::run(&mut command, LIMIT)?;
    let seconds = began.elapsed().as_secs_f64();
    match ended {
        Ended::Exited(status) if status.success() => {
            eprintln!("example {} passed in {seconds:.1} s", example.name);
            return Ok(true);
        }
        Ended::Exited(status) => eprintln!("example {} failed: {status}", example.name),
        Ended::TimedOut => {
            eprintln!("example {} is still running after {} s; it was killed", example.name, LIMIT.as_secs());
        }
    }
    eprintln!("    to repeat it: cargo xtask examples --only {}", example.name);
    Ok(false)
}

#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_of_examples_are_picked() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"lib","kind":["lib"]},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"tool","kind":["bin"]},"executable":"/t/tool"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"bank","kind":["example"]},"executable":"/t/bank"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let names: Vec<String> = built(messages).unwrap().into_iter().map(|example| example.name).collect();
        assert_eq!(names, ["bank"]);
    }

    #[test]
    fn an_example_that_fails_or_does_not_start_is_noticed() {
        let example = |program: &str| Example { name: program.to_owned(), program: program.into() };
        assert!(run_one(&example("true")).unwrap());
        assert!(!run_one(&example("false")).unwrap());
        assert!(run_one(&example("no-such-program-anywhere")).is_err());
    }
}
