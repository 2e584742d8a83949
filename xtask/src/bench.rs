//! Builds bench-peers in release mode and becomes it.
//!
//! No part of a lane: how fast a peer is on this machine at this moment is no property of a change.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::tree;

/// What bench-peers gets.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed on: `cargo xtask bench -- --help`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Comes back only when the program can't be built or started.
///
/// The program replaces this process instead of being its child: so a Ctrl-C reaches it and not us, and it ends
/// the server it started and removes its folder, where a child in a group of ours would just be killed.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let mut program = Command::new(build()?);
    process::without_package(&mut program);
    let error = program.args(&arguments.arguments).exec();
    Err(error).with_context(|| format!("{} can't be started", program.get_program().display()))
}

/// Builds it; where it is.
fn build() -> Result<PathBuf> {
    const BUILD: [&str; 4] = ["build", "--release", "--package", "bench-peers"];
    let output = process::cargo()
        .args(BUILD)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(tree::root()?)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo can't be started")?;
    if !output.status.success() {
        bail!("it does not compile; to repeat it: cargo {}", BUILD.join(" "));
    }
    let text = String::from_utf8(output.stdout).context("cargo printed what is not UTF-8")?;
    program(&text)?.context("cargo built no program bench-peers")
}

/// The program in cargo's messages, one JSON object a line.
fn program(messages: &str) -> Result<Option<PathBuf>> {
    for line in messages.lines() {
        let message: serde_json::Value =
            serde_json::from_str(line).context("cargo printed what we don't know")?;
        if message["target"]["name"] == "bench-peers"
            && let Some(program) = message["executable"].as_str()
        {
            return Ok(Some(program.into()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_what_was_built() {
        let others = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"mainstay"},"executable":"/t/mainstay"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"bench-peers"},"executable":null}"#,
            "\n",
        );
        assert_eq!(program(others).unwrap(), None);
        let own = r#"{"target":{"name":"bench-peers"},"executable":"/t/bench-peers"}"#;
        assert_eq!(program(&format!("{others}{own}\n")).unwrap(), Some("/t/bench-peers".into()));
        assert!(program("warning: text\n").is_err());
    }
}
