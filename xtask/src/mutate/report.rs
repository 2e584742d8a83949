//! What became of a mutation, and the table of all of them.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::plan::{Mutation, VIOLATED};
use super::workshop::Run;

/// How many lines of a failed build are shown; the log has them all.
const LINES_SHOWN: usize = 12;

/// What became of a mutation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every test that must fail failed, and none that nobody named. With the others that failed.
    Caught(Vec<String>),
    /// Tests that should have failed and did not, and those that did.
    Survived {
        missed: Vec<String>,
        failed: Vec<String>,
    },
    /// Tests failed that the mutation does not name.
    Unnamed(Vec<String>),
    /// The code it edits has moved on.
    Stale(String),
    DoesNotCompile(String),
    /// It hung and nobody expected that.
    TimedOut,
    /// The command failed without naming a test.
    Died(String),
    /// The run without the mutation makes it useless.
    NotTried(String),
}

/// Compares what failed with what the mutation says.
pub(super) fn judge(mutation: &Mutation, run: &Run) -> Verdict {
    if run.timed_out {
        return if mutation.expects_hang() { Verdict::Caught(Vec::new()) } else { Verdict::TimedOut };
    }
    let failed = &run.tests.failed;
    let survived = |missed| Verdict::Survived { missed, failed: failed.iter().cloned().collect() };
    if mutation.expects_hang() || run.passed {
        return survived(mutation.caught_by.clone());
    }
    if mutation.expects_exit() && failed.is_empty() && run.code == Some(VIOLATED) {
        return Verdict::Caught(Vec::new());
    }
    if failed.is_empty() {
        return if run.errors.contains("could not compile") {
            Verdict::DoesNotCompile(format!("{}see {}", first_error(&run.errors), run.log.display()))
        } else {
            Verdict::Died(format!("the command failed without naming a test; see {}", run.log.display()))
        };
    }
    let named = |names: &[String]| -> BTreeSet<String> { names.iter().cloned().collect() };
    let (expected, allowed) = (named(&mutation.caught_by), named(&mutation.also_fails));
    let missed: Vec<String> = expected.difference(failed).cloned().collect();
    if !missed.is_empty() {
        return survived(missed);
    }
    let others: Vec<String> = failed.difference(&expected).cloned().collect();
    let unnamed: Vec<String> = others.iter().filter(|name| !allowed.contains(*name)).cloned().collect();
    if unnamed.is_empty() { Verdict::Caught(others) } else { Verdict::Unnamed(unnamed) }
}

/// The beginning of the compiler's first error, each line ended.
fn first_error(errors: &str) -> String {
    errors
        .lines()
        .skip_while(|line| !line.starts_with("error"))
        .take(LINES_SHOWN)
        .fold(String::new(), |text, line| text + line + "\n")
}

/// One line of the report.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) what: String,
    pub(super) verdict: &'static str,
    pub(super) passed: bool,
    /// The tests that must fail.
    pub(super) caught_by: Vec<String>,
    /// What failed beside them and was named.
    pub(super) others: Vec<String>,
    pub(super) explanation: Option<String>,
    pub(super) seconds: f64,
}

impl Row {
    pub(super) fn new(mutation: &Mutation, verdict: Verdict, seconds: f64) -> Row {
        let mut others = Vec::new();
        let (verdict, explanation) = match verdict {
            Verdict::Caught(failed) => {
                others = failed;
                ("caught", None)
            }
            Verdict::Survived { .. } if mutation.expects_hang() => {
                ("SURVIVED", Some("it was expected to hang and did not".to_owned()))
            }
            Verdict::Survived { failed, .. } if failed.is_empty() => {
                ("SURVIVED", Some("no test failed".to_owned()))
            }
            Verdict::Survived { missed, failed } => {
                let text = format!("{} did not fail; these did: {}", missed.join(", "), failed.join(", "));
                ("SURVIVED", Some(text))
            }
            Verdict::Unnamed(names) => {
                let names = names.join(", ");
                let text = format!("{names} failed too; name it in also_fails, or find out why it fails");
                ("UNNAMED FAILURE", Some(text))
            }
            Verdict::Stale(why) => ("STALE", Some(format!("{why}; write it anew for the code as it is"))),
            Verdict::DoesNotCompile(why) => ("DOES NOT COMPILE", Some(why)),
            Verdict::TimedOut => {
                let text = format!("killed after {} s; a hang proves no test", mutation.limit.as_secs());
                ("HUNG", Some(text))
            }
            Verdict::Died(why) => ("DIED", Some(why)),
            Verdict::NotTried(why) => ("NOT TRIED", Some(why)),
        };
        Row {
            name: mutation.name.clone(),
            what: mutation.what.clone(),
            verdict,
            passed: verdict == "caught",
            caught_by: mutation.caught_by.clone(),
            others,
            explanation,
            seconds,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.verdict)?;
        match &self.explanation {
            Some(explanation) => write!(f, ": {explanation}"),
            None => write!(f, " by {}", self.caught_by.join(", ")),
        }
    }
}

/// Every mutation that was run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Each was caught as it says.
    pub(super) passed: bool,
    pub(super) rows: Vec<Row>,
}

impl Report {
    pub(super) fn new(mut rows: Vec<Row>) -> Report {
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Report { passed: rows.iter().all(|row| row.passed), rows }
    }
}

impl fmt::Display for Report {
    /// The table, the failures after it in full.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |names: &[String]| if names.is_empty() { "–".to_owned() } else { names.join(", ") };
        let cells = |row: &Row| {
            let caught_by = if row.passed { names(&row.caught_by) } else { row.verdict.to_owned() };
            [row.name.clone(), caught_by, names(&row.others)]
        };
        let mut lines = vec![["mutation", "caught by", "other failing tests"].map(str::to_owned)];
        lines.extend(self.rows.iter().map(cells));
        let width =
            |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
        let (first, second) = (width(0), width(1));
        for [name, caught_by, others] in &lines {
            writeln!(f, "{name:first$} | {caught_by:second$} | {others}")?;
        }
        for row in self.rows.iter().filter(|row| !row.passed) {
            writeln!(f, "\n{row}\n    what it breaks: {}", row.what)?;
            writeln!(f, "    to repeat it: cargo xtask mutate --only {}", row.name)?;
        }
        let caught = self.rows.iter().filter(|row| row.passed).count();
        writeln!(f, "\n{caught} of {} mutations caught", self.rows.len())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::libtest::Tests;
    use super::*;

    fn mutation(caught_by: &[&str], also_fails: &[&str]) -> Mutation {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Mutation {
            name: "m".into(),
            what: "Breaks.".into(),
            edits: Vec::new(),
            command: Vec::new(),
            caught_by: owned(caught_by),
            also_fails: owned(also_fails),
            limit: Duration::from_secs(9),
            gate: false,
        }
    }

    fn run(failed: &[&str], errors: &str) -> Run {
        let failed: BTreeSet<String> = failed.iter().map(|name| (*name).to_owned()).collect();
        let tests = Tests { passed: BTreeSet::new(), failed };
        Run {
            passed: false,
            timed_out: false,
            code: Some(101),
            tests,
            errors: errors.into(),
            log: "m.err".into(),
        }
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn survived(missed: &[&str], failed: &[&str]) -> Verdict {
        Verdict::Survived { missed: owned(missed), failed: owned(failed) }
    }

    #[test]
    fn every_named_test_must_fail_and_no_other() {
        let judged = |caught_by: &[&str], also: &[&str], failed: &[&str]| {
            judge(&mutation(caught_by, also), &run(failed, ""))
        };
        assert_eq!(judged(&["a"], &[], &["a"]), Verdict::Caught(vec![]));
        assert_eq!(judged(&["a"], &["b", "c"], &["a", "b"]), Verdict::Caught(owned(&["b"])));
        assert_eq!(judged(&["a", "b"], &[], &["a"]), survived(&["b"], &["a"]));
        assert_eq!(judged(&["a"], &["b"], &["b"]), survived(&["a"], &["b"]));
        assert_eq!(judged(&["a"], &["b"], &["a", "b", "c"]), Verdict::Unnamed(owned(&["c"])));
    }

    #[test]
    fn a_hang_is_caught_only_where_one_is_expected() {
        let hung = Run { timed_out: true, ..run(&["a"], "") };
        assert_eq!(judge(&mutation(&["timeout"], &[]), &hung), Verdict::Caught(vec![]));
        assert_eq!(judge(&mutation(&["a"], &[]), &hung), Verdict::TimedOut);
        let judged = judge(&mutation(&["timeout"], &[]), &run(&["a"], ""));
        assert_eq!(judged, survived(&["timeout"], &["a"]));
    }

    #[test]
    fn an_exit_code_is_a_catch_only_where_one_is_expected_and_only_the_code_of_a_violation() {
        let ended = |code, errors: &str| Run { code, ..run(&[], errors) };
        let exit = mutation(&["exit"], &[]);
        assert_eq!(judge(&exit, &ended(Some(1), "2 violations")), Verdict::Caught(vec![]));
        assert!(matches!(judge(&mutation(&["a"], &[]), &ended(Some(1), "")), Verdict::Died(_)));
        assert!(matches!(judge(&exit, &ended(Some(2), "error: the check can't be run")), Verdict::Died(_)));
        assert!(matches!(judge(&exit, &ended(None, "")), Verdict::Died(_)), "killed by a signal");
        assert!(matches!(judge(&exit, &ended(Some(101), "could not compile")), Verdict::DoesNotCompile(_)));
        assert_eq!(judge(&exit, &Run { passed: true, ..run(&[], "") }), survived(&["exit"], &[]));
    }

    #[test]
    fn a_failure_without_a_test_is_never_a_catch() {
        let compile =
            "   Compiling a\nerror[E0308]: mismatched types\n --> src/lib.rs\nerror: could not compile";
        let Verdict::DoesNotCompile(shown) = judge(&mutation(&["a"], &[]), &run(&[], compile)) else {
            panic!("not recognised")
        };
        assert!(shown.starts_with("error[E0308]: mismatched types\n --> src/lib.rs\n"), "{shown}");
        assert!(matches!(judge(&mutation(&["a"], &[]), &run(&[], "signal: 6")), Verdict::Died(_)));
        let green = Run { passed: true, ..run(&[], "") };
        assert_eq!(judge(&mutation(&["a"], &[]), &green), survived(&["a"], &[]));
    }

    #[test]
    fn one_that_survives_makes_the_whole_run_fail() {
        let row = |verdict| Row::new(&mutation(&["a"], &[]), verdict, 1.0);
        assert!(Report::new(vec![row(Verdict::Caught(vec![]))]).passed);
        let report = Report::new(vec![row(Verdict::Caught(owned(&["b"]))), row(survived(&["a"], &[]))]);
        assert!(!report.passed);
        let text = report.to_string();
        assert!(text.contains("mutation | caught by | other failing tests"), "{text}");
        assert!(text.contains("m        | a         | b"), "{text}");
        assert!(text.contains("m        | SURVIVED  | –"), "{text}");
        assert!(text.contains("m: SURVIVED: no test failed"), "{text}");
        assert!(text.ends_with("1 of 2 mutations caught\n"), "{text}");
    }
}
