//! What the standard test harness printed.
//!
//! Read from two places, because either alone can be torn by what a test prints itself: the line of each test
//! (`test NAME ... FAILED`), and the list of names before the harness's last line.

use std::collections::BTreeSet;

/// The tests that ran, from any number of test programs one after another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tests {
    /// Passed everywhere they ran.
    pub(super) passed: BTreeSet<String>,
    pub(super) failed: BTreeSet<String>,
}

/// Reads the standard output of `cargo test`.
pub(super) fn parse(output: &str) -> Tests {
    let mut tests = Tests::default();
    let mut listed: Option<Vec<&str>> = None;
    for line in output.lines() {
        if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) {
            let name = name.strip_suffix(" - should panic").unwrap_or(name);
            if result == "ok" {
                tests.passed.insert(name.to_owned());
            } else if result.starts_with("FAILED") {
                tests.failed.insert(name.to_owned());
            }
        } else if line == "failures:" {
            listed = Some(Vec::new());
        } else if let Some(names) = &mut listed {
            match line.strip_prefix("    ") {
                Some(name) => names.push(name),
                // An empty line before any name: the list of what the tests printed, not of their names.
                None if line.is_empty() && !names.is_empty() => {}
                None if line.starts_with("test result: FAILED") => {
                    tests.failed.extend(names.iter().map(|name| (*name).to_owned()));
                    listed = None;
                }
                None => listed = None,
            }
        }
    }
    tests.passed.retain(|name| !tests.failed.contains(name));
    tests
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(set: &BTreeSet<String>) -> Vec<&str> {
        set.iter().map(String::as_str).collect()
    }

    const RED: &str = "
running 5 tests
test a::passes ... ok
test a::skipped ... ignored, slow
test a::panics - should panic ... ok
test a::fails ... FAILED
test a::late has been running for over 60 seconds
test a::late ... ok

failures:

---- a::fails stdout ----
thread 'a::fails' panicked at src/lib.rs:3:5:
    an indented line of the test's own
note: run with `RUST_BACKTRACE=1`


failures:
    a::fails

test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out
";

    #[test]
    fn a_red_run_names_what_failed_and_what_passed() {
        let tests = parse(RED);
        assert_eq!(names(&tests.failed), ["a::fails"]);
        assert_eq!(names(&tests.passed), ["a::late", "a::panics", "a::passes"]);
    }

    #[test]
    fn a_torn_line_is_made_good_by_the_list() {
        let torn = RED.replace("test a::fails ... FAILED", "test a::fails ... printed by the test\nFAILED");
        assert_eq!(names(&parse(&torn).failed), ["a::fails"]);
    }

    #[test]
    fn a_missing_list_is_made_good_by_the_lines() {
        let (lines, _) = RED.split_once("failures:").unwrap();
        assert_eq!(names(&parse(lines).failed), ["a::fails"]);
    }

    #[test]
    fn several_programs_and_doctests_are_one_run() {
        let second = "running 2 tests\ntest a::passes ... FAILED\ntest src/lib.rs - f (line 3) ... FAILED\n\
            \nfailures:\n    a::passes\n    src/lib.rs - f (line 3)\n\ntest result: FAILED. 0 passed\n";
        let tests = parse(&format!("{RED}{second}"));
        assert_eq!(names(&tests.failed), ["a::fails", "a::passes", "src/lib.rs - f (line 3)"]);
        assert!(!tests.passed.contains("a::passes"), "passing in one program doesn't make up for another");
    }

    #[test]
    fn a_test_can_not_name_another_by_printing_a_list() {
        let printed = "running 1 test\ntest a ... ok\nfailures:\n    b\nsomething else\n\
            test result: ok. 1 passed\n";
        assert_eq!(parse(printed).failed.len(), 0);
        assert_eq!(parse(""), Tests::default());
    }
}
