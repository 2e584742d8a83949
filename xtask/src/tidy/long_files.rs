//! The rule: a Rust file can be read in one sitting; past 500 lines it says why it is one thing.
//!
//! The reason stands in a line at the top that starts `//! Long:`. Files under a folder `tests/` are free: a
//! list of cases is read case by case.

use super::{Finding, Scene, syntax};

const LINES_MAX: usize = 500;

/// What the line at the top starts with.
const REASON: &str = "//! Long:";

pub(super) fn check(scene: &Scene, findings: &mut Vec<Finding>) {
    for source in &scene.sources {
        let lines = source.text.lines().count();
        if lines <= LINES_MAX || source.file.starts_with("tests/") || source.file.contains("/tests/") {
            continue;
        }
        if !syntax::head(&source.text).any(|head| head.starts_with(REASON) && head.len() > REASON.len()) {
            findings.push(Finding {
                rule: "long-files",
                file: source.file.clone(),
                line: 0,
                what: format!("{lines} lines, and its head does not say why it is one thing"),
                remedy: format!("split it, or add a line `{REASON} …` at the top"),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    fn tree(head: &str, lines: usize, file: &str) -> Vec<String> {
        let text = format!("{head}\n{}", "const _: u8 = 0;\n".repeat(lines - 1));
        Fixture::new().member("terms/a", "").file(file, &text).findings(check)
    }

    #[test]
    fn a_long_file_says_why() {
        let found = tree("//! About.", 501, "terms/a/src/b.rs");
        let expected = "terms/a/src/b.rs:0: 501 lines, and its head does not say why it is one thing";
        assert_eq!(found, [expected]);
        assert_eq!(tree("//! Long:", 501, "terms/a/src/b.rs").len(), 1);
    }

    #[test]
    fn short_explained_and_test_files_are_allowed() {
        assert!(tree("//! About.", 500, "terms/a/src/b.rs").is_empty());
        assert!(tree("//! Long: one table.", 501, "terms/a/src/b.rs").is_empty());
        assert!(tree("//! About.", 501, "terms/a/tests/b.rs").is_empty());
    }
}
