//! The binary as people and scripts meet it: answers, exit codes, and what it says to bad input.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn mainstay(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must succeed; what it printed.
fn done(folder: &Path, arguments: &[&str]) -> String {
    let output = mainstay(folder, arguments, "");
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that must fail with this code and these words; nothing of it may be on standard output.
fn fails(folder: &Path, arguments: &[&str], input: &str, code: i32, words: &str) {
    let output = mainstay(folder, arguments, input);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(words), "{arguments:?}: {words:?} is missing in: {said}");
}

#[test]
fn an_appended_event_is_read_verified_and_not_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let id = "018f3b1e-0000-7000-8000-000000000001";
    let append =
        ["events", "append", "s.db", "--stream", "a", "--type", "T", "--data", r#"{"n":1}"#, "--id", id];
    let first: serde_json::Value =
        serde_json::from_str(&done(folder.path(), &[&append[..], &["--json"]].concat())).unwrap();
    assert_eq!((first["version"].as_u64(), first["repeated"].as_bool()), (Some(1), Some(false)));
    let again: serde_json::Value =
        serde_json::from_str(&done(folder.path(), &[&append[..], &["--json"]].concat())).unwrap();
    assert_eq!((again["version"].as_u64(), again["repeated"].as_bool()), (Some(1), Some(true)));

    let read = done(folder.path(), &["events", "read", "s.db", "--json"]);
    let event: serde_json::Value = serde_json::from_str(&read).unwrap();
    assert_eq!((event["stream"].as_str(), event["payload"]["n"].as_i64()), (Some("a"), Some(1)));

    let proved = done(folder.path(), &["events", "verify", "s.db"]);
    let head = proved.lines().find_map(|line| line.strip_prefix("head ")).unwrap().to_owned();
    done(folder.path(), &["events", "append", "s.db", "--stream", "a", "--type", "T", "--expected", "1"]);
    let proved = done(folder.path(), &["events", "verify", "s.db", "--head", &head]);
    assert!(proved.contains("2 events, chain unbroken, and the kept head matches"), "{proved}");
    let other = format!("1:{}", "0".repeat(64));
    fails(folder.path(), &["events", "verify", "s.db", "--head", &other], "", 6, "history was rewritten");
    let later = format!("3:{}", "0".repeat(64));
    fails(folder.path(), &["events", "verify", "s.db", "--head", &later], "", 6, "the end was cut off");
}

#[test]
fn reading_chooses_by_stream_type_tag_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let input = r#"{"stream":"a","type":"X","tags":["t:1"]}
{"stream":"b","type":"Y","tags":["t:1"]}

{"stream":"a","type":"Y","payload":{"n":3}}
"#;
    let output = mainstay(folder.path(), &["events", "append", "s.db", "--lines"], input);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let positions = |arguments: &[&str]| {
        let lines = done(folder.path(), &[&["events", "read", "s.db", "--json"], arguments].concat());
        let event = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        lines.lines().map(|line| event(line)["position"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(positions(&[]), [1, 2, 3]);
    assert_eq!(positions(&["--type", "Y"]), [2, 3]);
    assert_eq!(positions(&["--tag", "t:1"]), [1, 2]);
    assert_eq!(positions(&["--tag", "t:1", "--type", "Y"]), [2]);
    assert_eq!(positions(&["--after", "2"]), [3]);
    assert_eq!(positions(&["--limit", "1"]), [1]);
    assert_eq!(positions(&["--stream", "a"]), [1, 3]);
    assert_eq!(positions(&["--stream", "a", "--backwards", "--limit", "1"]), [3]);
    let tail = done(folder.path(), &["events", "tail", "s.db", "--after", "1", "--limit", "2"]);
    assert_eq!(tail.lines().count(), 2, "{tail}");
}

/// Each line: arguments, input, exit code, and the words of the check that it meets.
#[test]
fn bad_input_is_answered_with_what_why_and_what_now() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    done(here, &["events", "append", "s.db", "--stream", "a", "--type", "T"]);
    std::fs::write(
        here.join("notes.txt"),
        "no database at all, but long enough to have a header of 100 bytes".repeat(9),
    )
    .unwrap();
    let long = "n".repeat(300);
    let append = |rest: &[&'static str]| [&["events", "append", "s.db"], rest].concat();
    fails(here, &["events", "read", "missing.db"], "", 4, "there is no store");
    fails(here, &["events", "read", "notes.txt"], "", 4, "is not a store");
    fails(here, &["events", "read", "."], "", 4, "it is a folder");
    fails(
        here,
        &["events", "append", "no/such/folder.db", "--stream", "a", "--type", "T"],
        "",
        4,
        "check the path",
    );
    fails(here, &["events", "read", "s.db", "--stream", "nobody"], "", 2, "has no event");
    fails(here, &["events", "read", "s.db", "--after", "99"], "", 2, "the feed ends at 1");
    fails(here, &["events", "read", "s.db", "--after", "-1"], "", 2, "unexpected argument");
    fails(here, &["events", "read", "s.db", "--type", ""], "", 2, "it is empty");
    fails(here, &["events", "append", "s.db", "--stream", &long, "--type", "T"], "", 2, "at most 256");
    fails(here, &append(&["--stream", "a\u{7}b", "--type", "T"]), "", 2, "control character U+0007");
    fails(here, &append(&["--stream", "a", "--type", "T", "--data", "{"]), "", 2, "--data is not JSON");
    fails(here, &append(&["--stream", "a", "--type", "T", "--id", "7"]), "", 2, "--id");
    fails(
        here,
        &append(&["--stream", "a", "--type", "T", "--expected", "soon"]),
        "",
        2,
        "give a version number",
    );
    fails(here, &append(&["--stream", "a", "--type", "T", "--expected", "5"]), "", 3, "has version 1");
    fails(
        here,
        &append(&["--stream", "a", "--type", "T", "--expected", "empty"]),
        "",
        3,
        "expected was no event",
    );
    fails(
        here,
        &append(&["--stream", "a", "--type", "T", "--tag", "x", "--tag", "x"]),
        "",
        2,
        "same tag twice",
    );
    fails(here, &append(&["--stream", "a"]), "", 2, "--type");
    fails(here, &["events", "verify", "s.db", "--head", "1"], "", 2, "it has no colon");
    fails(here, &["events", "verify", "s.db", "--head", "1:zz"], "", 2, "not a hash");
    fails(here, &["bench", "store", "--pairs", "0"], "", 2, "--pairs");
    fails(here, &["bench", "store", "--appenders", "0"], "", 2, "each from 1 to 100000");
    fails(here, &["nonsense"], "", 2, "unrecognized subcommand");
    let lines = append(&["--lines"]);
    fails(here, &lines, "{\"stream\":\"a\",\"type\":\"T\"}\n{\"steam\":\"a\"}\n", 2, "line 2");
    fails(here, &lines, "{\"steam\":\"a\"}\n", 2, "did you mean `stream`?");
    fails(here, &lines, "[1]\n", 2, "line 1");
    fails(here, &lines, "{\"stream\":\"a\",\"type\":\"T\",\"payload\":\n", 2, "line 1");
    fails(here, &lines, "{\"stream\":\"a\",\"type\":\"T\",\"expected\":9}\n", 3, "line 1");
    // One line of the good ones before a bad one was appended, and nothing else of all that.
    assert_eq!(done(here, &["events", "read", "s.db"]).lines().count(), 2);
}

/// What is on standard output is JSON for whoever asked for it, also when it went wrong.
#[test]
fn with_json_an_error_is_an_object() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, code, words) in [
        (&["events", "read", "missing.db", "--json"][..], 4, "there is no store"),
        (&["--json", "nonsense"], 2, "unrecognized subcommand 'nonsense'"),
        (&["events", "append", "s.db", "--stream", "a", "--json"], 2, "--type"),
        (&["events", "read", "s.db", "--after", "-1", "--json"], 2, "unexpected argument"),
        (&["saga", "graph", "--svg", "-", "--json"], 2, "nothing was drawn"),
        (&["--json", "saga", "graph", "--svg", "-"], 2, "nothing was drawn"),
    ] {
        let failed = mainstay(folder.path(), arguments, "");
        let said = text(&failed.stdout);
        let answer: serde_json::Value =
            serde_json::from_str(&said).unwrap_or_else(|_| panic!("{arguments:?}: no JSON: {said}"));
        assert_eq!((failed.status.code(), &answer["error"]["code"]), (Some(code), &code.into()), "{said}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(words) && !message.starts_with("error:"), "{arguments:?}: {message}");
        assert_eq!(text(&failed.stderr), "", "{arguments:?}");
    }
    // Not asked for: after `--` it is a value.
    fails(folder.path(), &["events", "read", "s.db", "--", "--json"], "", 2, "error: unexpected argument");
    assert!(done(folder.path(), &["saga", "graph", "--svg", "-"]).starts_with("<svg"));
    let drawn = done(folder.path(), &["saga", "graph", "--svg", "g.svg", "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&drawn).unwrap()["ok"], true);
    assert!(done(folder.path(), &["--help", "--json"]).contains("Exit codes:"));
}

/// The same as `mainstay`, with its standard output somewhere else; what it said on standard error, and its code.
fn writing_to(stdout: Stdio, folder: &Path, arguments: &[&str], input: &str) -> (Option<i32>, String) {
    std::fs::write(folder.join("input"), input).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(arguments)
        .current_dir(folder)
        .stdin(std::fs::File::open(folder.join("input")).unwrap())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    (output.status.code(), text(&output.stderr))
}

const TWO_LINES: &str = "{\"stream\":\"a\",\"type\":\"T\"}\n{\"stream\":\"a\",\"type\":\"T\"}\n";

#[test]
fn an_answer_that_can_not_be_written_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    done(here, &["events", "append", "s.db", "--stream", "a", "--type", "T"]);
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    for arguments in [
        &["events", "read", "s.db"][..],
        &["events", "read", "s.db", "--json"],
        &["events", "verify", "s.db"],
        &["saga", "graph"],
        &["saga", "graph", "--svg", "-"],
        &["--help"],
        &["--version"],
    ] {
        let (code, said) = writing_to(full(), here, arguments, "");
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        assert!(said.contains("could not be written to standard output: No space left"), "{said}");
    }
    // The code of what went wrong before stays, and its words go where they can be read.
    let (code, said) = writing_to(full(), here, &["events", "read", "missing.db", "--json"], "");
    assert!(code == Some(4) && said.contains("there is no store"), "{code:?}: {said}");

    let append = ["events", "append", "s.db", "--stream", "a", "--type", "T", "--id"];
    let id = "018f3b1e-0000-7000-8000-000000000001";
    let (code, said) = writing_to(full(), here, &[&append[..], &[id]].concat(), "");
    assert!(code == Some(1) && said.contains(&format!("event {id} was appended")), "{code:?}: {said}");
    let (code, said) = writing_to(full(), here, &["events", "append", "s.db", "--lines"], TWO_LINES);
    assert!(code == Some(1) && said.contains("line 1 and those before it were appended"), "{code:?}: {said}");
    assert_eq!(done(here, &["events", "read", "s.db"]).lines().count(), 3);
}

#[test]
fn a_reader_that_has_enough_is_a_failure_only_of_what_changes_something() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    done(here, &["events", "append", "s.db", "--stream", "a", "--type", "T"]);
    let gone = || Stdio::from(std::io::pipe().unwrap().1);
    for arguments in [&["events", "read", "s.db"][..], &["events", "verify", "s.db"], &["saga", "graph"]] {
        assert_eq!(writing_to(gone(), here, arguments, ""), (Some(0), String::new()), "{arguments:?}");
    }
    let (code, said) = writing_to(gone(), here, &["events", "append", "s.db", "--lines"], TWO_LINES);
    assert!(code == Some(1) && said.contains("nothing behind it was looked at"), "{code:?}: {said}");
    assert_eq!(done(here, &["events", "read", "s.db"]).lines().count(), 2);
}
