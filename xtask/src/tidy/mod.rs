//! The rules of the source tree, each held by a check that has been seen to fail.
//!
//! A rule that only stands in a document is kept until the first hurried day. Each check lives in its own
//! file together with its rule in words and two tests: one tree that breaks the rule, and one that
//! looks similar and keeps it. The real tree is checked by `cargo xtask tidy` and by `cargo test`.

mod floors;
mod long_files;
mod machine_paths;
mod newcomer;
mod pure_state;
mod requirements;
mod rings;
mod rooms;
mod syntax;
mod unsafe_code;

use std::fmt;

use anyhow::Result;
use serde::Serialize;

use crate::tree::{self, Member, Tree};
use syntax::Source;

/// How to report.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// Everything a check may look at, read once.
struct Scene {
    tree: Tree,
    members: Vec<Member>,
    /// Every Rust file of the tree.
    sources: Vec<Source>,
}

impl Scene {
    fn open(root: &std::path::Path) -> Result<Scene> {
        let tree = Tree::open(root)?;
        let members = tree.members()?;
        let sources = syntax::read(&tree);
        Ok(Scene { tree, members, sources })
    }
}

/// A place where a rule is broken.
#[derive(Debug, Serialize)]
struct Finding {
    rule: &'static str,
    file: String,
    /// 1-based; 0 when the whole file is meant.
    line: usize,
    /// What is wrong.
    what: String,
    /// How to make it right.
    remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": [{}] {}\n    to do: {}", self.rule, self.what, self.remedy)
    }
}

/// A check adds what it finds.
type Check = fn(&Scene, &mut Vec<Finding>);

/// Every check. To add one: a file with its rule, its line here.
const CHECKS: &[Check] = &[
    syntax::check,
    floors::check,
    rooms::check,
    rings::check,
    pure_state::check,
    requirements::check,
    unsafe_code::check,
    machine_paths::check,
    long_files::check,
    newcomer::check,
];

/// Checks the whole tree. True when no rule is broken.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let scene = Scene::open(&tree::root()?)?;
    let findings = findings(&scene);
    if arguments.json {
        let report = serde_json::json!({
            "passed": findings.is_empty(),
            "checks": CHECKS.len(),
            "files": scene.tree.files().count(),
            "findings": findings,
        });
        println!("{report}");
    } else {
        for finding in &findings {
            eprintln!("{finding}");
        }
        let files = scene.tree.files().count();
        eprintln!("tidy: {} checks, {files} files, {} findings", CHECKS.len(), findings.len());
    }
    Ok(findings.is_empty())
}

fn findings(scene: &Scene) -> Vec<Finding> {
    let mut findings = Vec::new();
    for check in CHECKS {
        check(scene, &mut findings);
    }
    findings.sort_by(|a, b| (&a.file, a.line, a.rule).cmp(&(&b.file, b.line, b.rule)));
    findings
}

#[cfg(test)]
mod fixture;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_is_tidy() {
        let scene = Scene::open(&tree::root().unwrap()).unwrap();
        let findings: Vec<String> = findings(&scene).iter().map(Finding::to_string).collect();
        assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
    }

    #[test]
    fn a_finding_names_the_place_the_rule_and_what_to_do() {
        let finding = Finding {
            rule: "floors",
            file: "a/Cargo.toml".into(),
            line: 7,
            what: "a uses b".into(),
            remedy: "move it".into(),
        };
        assert_eq!(finding.to_string(), "a/Cargo.toml:7: [floors] a uses b\n    to do: move it");
    }
}
