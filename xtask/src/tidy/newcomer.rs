//! The rule: who comes new finds the two commands, and the gate runs what they run.
//!
//! README.md names the command that runs the main job and the one that runs the checks; `.ci/run` is
//! executable and runs both lanes of `cargo xtask ci`, the fast one first.

use std::os::unix::fs::PermissionsExt;

use super::{Finding, Scene};

/// What runs the main job, and what runs the checks.
const COMMANDS: [&str; 2] = ["cargo run --release -- up", "cargo xtask ci"];

/// The lines of the gate, in their order.
const LANES: [&str; 2] = ["cargo xtask ci", "cargo xtask ci full"];

const GATE: &str = ".ci/run";

pub(super) fn check(scene: &Scene, findings: &mut Vec<Finding>) {
    let mut add = |file: &str, what: String, remedy: &str| {
        let (rule, line) = ("newcomer", 0);
        findings.push(Finding { rule, file: file.to_owned(), line, what, remedy: remedy.into() });
    };
    let readme = scene.tree.text("README.md").unwrap_or_default();
    for command in COMMANDS {
        if !readme.contains(command) {
            add("README.md", format!("it does not name `{command}`"), "name it, and run it in that form");
        }
    }
    let gate = scene.tree.text(GATE).unwrap_or_default();
    let lines: Vec<&str> = gate.lines().map(str::trim).filter(|line| LANES.contains(line)).collect();
    if lines != LANES {
        add(GATE, format!("it does not run {} in this order", LANES.join(" and ")), "one line each");
    }
    let mode = std::fs::metadata(scene.tree.root().join(GATE)).map(|file| file.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o111 == 0) {
        add(GATE, "it is not executable".into(), "chmod +x it");
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    const README: &str = "# X\n\n    cargo run --release -- up\n    cargo xtask ci\n";
    const RUN: &str = "#!/usr/bin/env bash\nset -euo pipefail\ncargo xtask ci\ncargo xtask ci full\n";

    fn tree(readme: &str, gate: &str, mode: u32) -> Vec<String> {
        let fixture = Fixture::new().member("terms/a", "").file("README.md", readme).file(GATE, gate);
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(fixture.path().join(GATE), permissions).unwrap();
        fixture.findings(check)
    }

    #[test]
    fn both_commands_and_both_lanes() {
        assert_eq!(tree(README, RUN, 0o755), Vec::<String>::new());
    }

    #[test]
    fn a_missing_command_lane_or_right_is_found() {
        let found = tree("# X\n\n    cargo xtask ci\n", RUN, 0o755);
        assert_eq!(found, ["README.md:0: it does not name `cargo run --release -- up`"]);
        assert_eq!(tree("    cargo run --release -- up\n", RUN, 0o755).len(), 1);
        for gate in ["cargo xtask ci\n", "cargo xtask ci full\ncargo xtask ci\n", "# cargo xtask ci full\n"] {
            let found = tree(README, gate, 0o755);
            assert_eq!(found.len(), 1, "{gate}: {found:?}");
            assert!(found[0].starts_with(".ci/run:0: it does not run"), "{found:?}");
        }
        assert_eq!(tree(README, RUN, 0o644), [".ci/run:0: it is not executable"]);
        assert_eq!(Fixture::new().member("terms/a", "").findings(check).len(), 3);
    }
}
