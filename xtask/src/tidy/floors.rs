//! The rule: an edge between two crates goes down to a lower floor, never sideways, never up.
//!
//! ```text
//! apps  >  the facade (the package at the root)  >  engines  >  frame  >  models  >  rules  >  terms
//! ```
//!
//! Dev- and build-dependencies count: a test that reaches up would let the design do it too. A crate may be
//! its own dev-dependency, to test with a feature on. The one exception by name: `apps/cli`, the binary,
//! may use the other apps. Apart from the floors stand `xtask`, which uses no member, so that it works when
//! nothing else does, and `bench-peers`, which may use every floor below the apps; nobody uses either.

use std::cmp::Ordering;
use std::fmt;

use super::{Finding, Scene};
use crate::tree::{Dependency, Member};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Floor {
    Terms,
    Rules,
    Models,
    Frame,
    Engines,
    Facade,
    Apps,
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Floor::Terms => "terms",
            Floor::Rules => "rules",
            Floor::Models => "models",
            Floor::Frame => "frame",
            Floor::Engines => "engines",
            Floor::Facade => "the facade",
            Floor::Apps => "apps",
        })
    }
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    On(Floor),
    Xtask,
    BenchPeers,
}

fn place(directory: &str) -> Option<Place> {
    let floor = match directory.split('/').next()? {
        "" => Floor::Facade,
        "apps" => Floor::Apps,
        "engines" => Floor::Engines,
        "frame" => Floor::Frame,
        "models" => Floor::Models,
        "rules" => Floor::Rules,
        "terms" => Floor::Terms,
        "xtask" => return Some(Place::Xtask),
        "bench-peers" => return Some(Place::BenchPeers),
        _ => return None,
    };
    Some(Place::On(floor))
}

/// None when the edge is allowed, otherwise what is wrong with it.
fn objection(from: &Member, to: &Member, edge: &Dependency) -> Option<String> {
    let (upper, lower) = (place(&from.directory)?, place(&to.directory)?);
    if from.directory == to.directory && edge.kind == "dev" {
        return None;
    }
    match (upper, lower) {
        (Place::Xtask, _) => Some("xtask uses no member".into()),
        (_, Place::Xtask | Place::BenchPeers) => Some(format!("nobody uses {}", to.name)),
        (Place::BenchPeers, Place::On(floor)) => {
            (floor == Floor::Apps).then(|| "bench-peers uses no app; it may start one as a process".into())
        }
        (Place::On(Floor::Apps), Place::On(Floor::Apps)) if from.directory == "apps/cli" => None,
        (Place::On(upper), Place::On(lower)) => match upper.cmp(&lower) {
            Ordering::Greater => None,
            Ordering::Equal => Some(format!("both stand on the floor {upper}: that edge goes sideways")),
            Ordering::Less => Some(format!("{upper} is below {lower}: that edge goes up")),
        },
    }
}

pub(super) fn check(scene: &Scene, findings: &mut Vec<Finding>) {
    for from in &scene.members {
        if place(&from.directory).is_none() {
            findings.push(Finding {
                rule: "floors",
                file: from.manifest.clone(),
                line: 0,
                what: format!("{} stands on no floor", from.name),
                remedy: "move it into apps, engines, frame, models, rules or terms".into(),
            });
        }
        let manifest = scene.tree.text(&from.manifest).unwrap_or_default();
        for edge in &from.dependencies {
            let Some(directory) = &edge.directory else { continue };
            let line = line_of_key(&manifest, &edge.name);
            let Some(to) = scene.members.iter().find(|member| member.directory == *directory) else {
                findings.push(Finding {
                    rule: "floors",
                    file: from.manifest.clone(),
                    line,
                    what: format!("{} uses {} by path, which is no member", from.name, edge.name),
                    remedy: "make it a member of the workspace, or take it from a registry".into(),
                });
                continue;
            };
            if let Some(objection) = objection(from, to, edge) {
                let kind = if edge.kind.is_empty() { String::new() } else { format!("{}-", edge.kind) };
                findings.push(Finding {
                    rule: "floors",
                    file: from.manifest.clone(),
                    line,
                    what: format!("{} has the {kind}dependency {}: {objection}", from.name, to.name),
                    remedy: "declare a port on the lower floor and implement it on the upper one, or move \
                             the shared part down; a test that joins two engines lives in the root package"
                        .into(),
                });
            }
        }
    }
}

/// The first line of a manifest that sets `key`, 0 when it is set in a way we don't recognise.
fn line_of_key(manifest: &str, key: &str) -> usize {
    manifest
        .lines()
        .position(|line| {
            line.trim_start().strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
        })
        .map_or(0, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    /// A tree with the edge `from` → `to` of the given kind, and what the check says of it.
    fn edge(from: &str, kind: &str, to: &str) -> Vec<String> {
        let up = "../".repeat(from.split('/').count());
        let folder = to.rsplit('/').next().unwrap();
        let name = if folder == "xtask" { "xtask".into() } else { format!("mainstay-{folder}") };
        let table = format!("[{kind}]\n{name} = {{ path = \"{up}{to}\" }}");
        Fixture::new().member(from, &table).member(to, "").findings(check)
    }

    #[test]
    fn down_is_allowed() {
        for (from, to) in [
            ("rules/resilience", "terms/envelope"),
            ("models/store", "rules/resilience"),
            ("frame/runtime", "models/store"),
            ("engines/backends/sqlite", "models/store"),
            ("apps/shop", "engines/flow"),
            ("apps/cli", "apps/control"),
            ("bench-peers", "engines/flow"),
        ] {
            assert_eq!(edge(from, "dependencies", to), Vec::<String>::new(), "{from} -> {to}");
        }
    }

    #[test]
    fn up_sideways_and_apart_are_refused() {
        for (from, to, why) in [
            ("terms/envelope", "rules/resilience", "terms is below rules: that edge goes up"),
            ("models/store", "engines/flow", "models is below engines: that edge goes up"),
            ("engines/flow", "engines/backends/sqlite", "both stand on the floor engines"),
            ("terms/envelope", "terms/derive", "both stand on the floor terms"),
            ("apps/shop", "apps/cli", "both stand on the floor apps"),
            ("xtask", "terms/envelope", "xtask uses no member"),
            ("engines/flow", "xtask", "nobody uses xtask"),
            ("apps/cli", "bench-peers", "nobody uses mainstay-bench-peers"),
            ("bench-peers", "apps/cli", "bench-peers uses no app"),
        ] {
            let found = edge(from, "dependencies", to);
            assert_eq!(found.len(), 1, "{from} -> {to}: {found:?}");
            assert!(found[0].starts_with(&format!("{from}/Cargo.toml:7: ")), "{found:?}");
            assert!(found[0].contains(why), "{found:?}");
        }
    }

    #[test]
    fn dev_and_build_dependencies_count() {
        for kind in ["dev-dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"] {
            assert_eq!(edge("models/store", kind, "engines/flow").len(), 1, "{kind}");
        }
    }

    #[test]
    fn the_facade_stands_between_apps_and_engines() {
        let root = |manifest: &str| {
            format!(
                "[workspace]\nresolver = \"3\"\nmembers = [\"apps/a\", \"engines/e\"]\n\n[package]\nname = \
                     \"mainstay\"\nversion = \"0.1.0\"\nedition = \"2024\"\n{manifest}"
            )
        };
        let tree = |manifest: &str| {
            Fixture::new()
                .file("Cargo.toml", &root(manifest))
                .file("src/lib.rs", "//! The facade.\n")
                .member("apps/a", "")
                .member("engines/e", "")
                .findings(check)
        };
        assert!(tree("[dependencies]\nmainstay-e = { path = \"engines/e\" }\n").is_empty());
        let found = tree("[dev-dependencies]\nmainstay-a = { path = \"apps/a\" }\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("the facade is below apps: that edge goes up"), "{found:?}");
    }

    #[test]
    fn a_member_on_no_floor_and_a_path_to_no_member_are_refused() {
        let found = Fixture::new().member("common", "").findings(check);
        assert_eq!(found, ["common/Cargo.toml:0: mainstay-common stands on no floor"]);
        let root = "[workspace]\nresolver = \"3\"\nmembers = [\"terms/a\"]\nexclude = [\"tests/outside\"]\n";
        let found = Fixture::new()
            .file("Cargo.toml", root)
            .member("terms/a", "[dependencies]\nmainstay-b = { path = \"../../tests/outside/b\" }")
            .member("tests/outside/b", "[workspace]")
            .findings(check);
        assert_eq!(found, ["terms/a/Cargo.toml:7: mainstay-a uses mainstay-b by path, which is no member"]);
    }
}
