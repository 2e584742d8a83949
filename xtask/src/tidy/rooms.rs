//! The rule: a room exists because something is in it, and it is found where its name says.
//!
//! * Every crate holds code: some item beside module declarations, private imports and an empty `main`. The
//!   facade's code is its `pub use`. Every file of its `src/` holds at least one item.
//! * A crate is named `mainstay-<folder>`; the package at the root is `mainstay`; `xtask` and `bench-peers`
//!   are tools and go by their folder.
//! * Every manifest belongs to a member, so that no code escapes the checks. Projects in `tests/outside/`
//!   are outside on purpose.
//! * `cargo build` and `cargo test` at the root cover every member but `bench-peers`.

use syn::Item;

use super::syntax::{self, Source};
use super::{Finding, Scene};
use crate::tree::Member;

pub(super) fn check(scene: &Scene, findings: &mut Vec<Finding>) {
    for member in &scene.members {
        let mut add = |what: String, remedy: &str| {
            findings.push(Finding {
                rule: "rooms",
                file: member.manifest.clone(),
                line: 0,
                what,
                remedy: remedy.into(),
            });
        };
        let expected = expected_name(&member.directory);
        if member.name != expected {
            add(format!("{} is to be named {expected}", member.name), "rename the package or its folder");
        }
        let expected = member.directory != "bench-peers";
        if member.is_default != expected {
            let what = if expected { "is missing from" } else { "does not belong into" };
            add(
                format!("{} {what} default-members", member.name),
                "list every member but bench-peers under default-members in the root Cargo.toml",
            );
        }
        let sources: Vec<&Source> = scene.sources.iter().filter(|source| is_in(source, member)).collect();
        if !sources.iter().any(|source| holds_code(source, member.directory.is_empty())) {
            add(
                format!("{} holds no code: an empty room", member.name),
                "remove the crate until there is something to put in it",
            );
        }
        for source in sources {
            if source.syntax.as_ref().is_some_and(|syntax| syntax.items.is_empty()) {
                findings.push(Finding {
                    rule: "rooms",
                    file: source.file.clone(),
                    line: 0,
                    what: "this module holds nothing".into(),
                    remedy: "remove the file and its `mod` line until there is something to put in it".into(),
                });
            }
        }
    }
    for file in scene.tree.files() {
        let Some(directory) = file.strip_suffix("Cargo.toml") else { continue };
        let directory = directory.trim_end_matches('/');
        let is_known = file.starts_with("tests/outside/")
            || file == "Cargo.toml"
            || scene.members.iter().any(|member| member.directory == directory);
        if !is_known {
            findings.push(Finding {
                rule: "rooms",
                file: file.to_owned(),
                line: 0,
                what: "this manifest belongs to no member, so nothing checks its code".into(),
                remedy: "add it to `members` in the root Cargo.toml".into(),
            });
        }
    }
}

fn expected_name(directory: &str) -> String {
    match directory.rsplit('/').next() {
        None | Some("") => "mainstay".into(),
        Some(tool @ ("xtask" | "bench-peers")) if tool == directory => tool.into(),
        Some(folder) => format!("mainstay-{folder}"),
    }
}

/// Whether the file is one of the member's own `src/`.
fn is_in(source: &Source, member: &Member) -> bool {
    let rest = if member.directory.is_empty() {
        Some(source.file.as_str())
    } else {
        source.file.strip_prefix(member.directory.as_str()).and_then(|rest| rest.strip_prefix('/'))
    };
    rest.is_some_and(|rest| rest.starts_with("src/"))
}

fn holds_code(source: &Source, is_facade: bool) -> bool {
    let Some(syntax) = &source.syntax else { return true };
    syntax.items.iter().any(|item| is_code(item, is_facade))
}

fn is_code(item: &Item, is_facade: bool) -> bool {
    if syntax::is_test_only(syntax::attributes(item)) {
        return false;
    }
    match item {
        Item::Mod(module) => module
            .content
            .as_ref()
            .is_some_and(|(_, items)| items.iter().any(|item| is_code(item, is_facade))),
        Item::Use(import) => is_facade && matches!(import.vis, syn::Visibility::Public(_)),
        Item::ExternCrate(_) => false,
        Item::Fn(function) => function.sig.ident != "main" || !function.block.stmts.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    #[test]
    fn a_crate_with_code_and_the_right_name_is_a_room() {
        let found = Fixture::new()
            .member("terms/envelope", "")
            .member("engines/backends/sqlite", "")
            .member("xtask", "")
            .file("tests/outside/one/Cargo.toml", "[package]\nname = \"one\"\n[workspace]\n")
            .findings(check);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn an_empty_room_is_refused() {
        for text in [
            "//! To be written.\nmod b;\n",
            "fn main() {}\n",
            "use std::fmt;\n",
            "pub use std::fmt;\n",
            "#[cfg(test)]\nmod tests {\n    fn helper() {}\n}\n",
        ] {
            let found = Fixture::new()
                .member("terms/a", "")
                .file("terms/a/src/lib.rs", text)
                .file("terms/a/src/b.rs", "use std::fmt;\n")
                .findings(check);
            assert_eq!(found, ["terms/a/Cargo.toml:0: mainstay-a holds no code: an empty room"], "{text}");
        }
    }

    #[test]
    fn a_placeholder_module_is_refused() {
        let found =
            Fixture::new().member("terms/a", "").file("terms/a/src/b.rs", "//! Later.\n").findings(check);
        assert_eq!(found, ["terms/a/src/b.rs:0: this module holds nothing"]);
    }

    #[test]
    fn the_facade_may_be_re_exports_only() {
        let root = "[workspace]\nresolver = \"3\"\n\n[package]\nname = \"mainstay\"\nversion = \"0.1.0\"\n";
        let tree =
            |text: &str| Fixture::new().file("Cargo.toml", root).file("src/lib.rs", text).findings(check);
        assert!(tree("pub use std::fmt;\n").is_empty());
        assert_eq!(tree("use std::fmt;\n"), ["Cargo.toml:0: mainstay holds no code: an empty room"]);
    }

    #[test]
    fn a_wrong_name_is_refused() {
        let found = Fixture::new().named_member("terms/envelope", "mainstay-core", "").findings(check);
        assert_eq!(found, ["terms/envelope/Cargo.toml:0: mainstay-core is to be named mainstay-envelope"]);
    }

    #[test]
    fn a_manifest_of_no_member_is_refused() {
        let found = Fixture::new()
            .member("terms/a", "")
            .file("terms/forgotten/Cargo.toml", "[package]\nname = \"mainstay-forgotten\"\n")
            .findings(check);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("terms/forgotten/Cargo.toml:0: this manifest belongs to no member"));
    }

    #[test]
    fn default_members_are_all_but_the_comparisons() {
        let root = |default: &str| {
            format!(
                "[workspace]\nresolver = \"3\"\nmembers = [\"terms/a\", \"bench-peers\"]\n\
                 default-members = [{default}]\n"
            )
        };
        let tree = |default: &str| {
            Fixture::new()
                .file("Cargo.toml", &root(default))
                .member("terms/a", "")
                .named_member("bench-peers", "bench-peers", "")
                .findings(check)
        };
        assert_eq!(tree("\"terms/a\""), Vec::<String>::new());
        assert_eq!(
            tree("\"bench-peers\""),
            [
                "terms/a/Cargo.toml:0: mainstay-a is missing from default-members",
                "bench-peers/Cargo.toml:0: bench-peers does not belong into default-members"
            ]
        );
    }
}
