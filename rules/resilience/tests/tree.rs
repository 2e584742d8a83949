//! The crate stands alone: what comes with it is counted.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::collections::BTreeSet;
use std::process::Command;

/// The crates that building this one builds, itself included.
fn tree(features: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--package", "mainstay-resilience", "--edges", "normal,build"])
        .args(["--prefix", "none", "--format", "{p}"])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap();
    // Name and version; the rest of a line marks what was listed before.
    listed.lines().filter(|line| !line.is_empty()).map(|line| line.split(' ').take(2).collect()).collect()
}

/// Every feature but the model checker's, which is for tests.
fn features() -> String {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let section = manifest.split("[features]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap();
    let names = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let names: Vec<&str> = names.filter(|name| !name.starts_with('#') && *name != "shuttle").collect();
    assert!(["cache", "default", "sim", "stack"].iter().all(|name| names.contains(name)), "{names:?}");
    names.join(",")
}

#[test]
fn it_brings_no_more_than_sixty_crates_and_no_server_or_database() {
    let all = features();
    for (features, most) in [(&["--features", &all][..], 60), (&[], 55), (&["--no-default-features"], 45)] {
        let tree = tree(features);
        assert!(tree.len() <= most, "{} crates with {features:?}: {tree:#?}", tree.len());
        for absent in ["hyper", "axum", "tower", "rusqlite", "sqlx", "reqwest", "tonic", "rand"] {
            let found = tree.iter().find(|name| name.starts_with(&format!("{absent}v")));
            assert_eq!(found, None, "with {features:?}");
        }
    }
}
