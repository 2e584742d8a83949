//! `events` on a URL does what it does on a file.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::database::{Names, done, fails, schemas};
use super::kit::{PROGRAM, text};

const STORE: &str = "env:STORE";

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

#[test]
fn an_appended_event_is_read_verified_and_not_doubled() {
    let names = Names::new();
    let url = names.url();
    let id = "018f3b1e-0000-7000-8000-000000000001";
    let append = [
        "events",
        "append",
        STORE,
        "--stream",
        "a",
        "--type",
        "T",
        "--data",
        r#"{"n":1}"#,
        "--id",
        id,
        "--json",
    ];
    let first = json(&done(&url, &append));
    assert_eq!((&first["version"], &first["repeated"]), (&1.into(), &false.into()));
    // The one that is run next finds it in the feed: it was given its place before the command ended.
    let event = json(&done(&url, &["events", "read", STORE, "--json"]));
    assert_eq!(
        (&event["position"], &event["stream"], &event["payload"]["n"]),
        (&1.into(), &"a".into(), &1.into())
    );
    let again = json(&done(&url, &append));
    assert_eq!((&again["version"], &again["repeated"]), (&1.into(), &true.into()));

    let proved = done(&url, &["events", "verify", STORE]);
    let head = proved.lines().find_map(|line| line.strip_prefix("head ")).unwrap().to_owned();
    // Given as an argument, a URL is the same.
    done("", &["events", "append", &url, "--stream", "a", "--type", "U", "--tag", "t:1", "--expected", "1"]);
    let proved = done(&url, &["events", "verify", STORE, "--head", &head]);
    assert!(proved.contains("2 events, chain unbroken, and the kept head matches"), "{proved}");
    let other = format!("1:{}", "0".repeat(64));
    fails(&url, &["events", "verify", STORE, "--head", &other], 6, "history was rewritten");
    fails(
        &url,
        &["events", "append", STORE, "--stream", "a", "--type", "T", "--expected", "5"],
        3,
        "has version 2",
    );
    fails(&url, &["events", "read", STORE, "--after", "99"], 2, "the feed ends at 2");
    fails(&url, &["events", "read", STORE, "--stream", "nobody"], 2, "has no event");
    fails(
        &url,
        &["events", "archive", STORE, "--before", "1", "--to", "x"],
        2,
        "a store on a server is not archived",
    );

    let positions = |arguments: &[&str]| {
        let lines = done(&url, &[&["events", "read", STORE, "--json"], arguments].concat());
        lines.lines().map(|line| json(line)["position"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(positions(&["--type", "U"]), [2]);
    assert_eq!(positions(&["--tag", "t:1"]), [2]);
    assert_eq!(positions(&["--stream", "a", "--backwards"]), [2, 1]);
    assert_eq!(positions(&["--limit", "1"]), [1]);
    assert_eq!(schemas(&names.0), 1);
}

#[test]
fn a_tail_sees_what_others_append() {
    let names = Names::new();
    let url = names.url();
    done(&url, &["events", "append", STORE, "--stream", "a", "--type", "T"]);
    let mut tail = Command::new(PROGRAM)
        .args(["events", "tail", STORE, "--after", "0", "--limit", "3"])
        .env("STORE", &url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut append = Command::new(PROGRAM)
        .args(["events", "append", STORE, "--lines"])
        .env("STORE", &url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = b"{\"stream\":\"b\",\"type\":\"T\"}\n{\"stream\":\"b\",\"type\":\"T\"}\n{\"steam\":1}\n";
    append.stdin.take().unwrap().write_all(lines).unwrap();
    // The good lines before the bad one.
    let appended = append.wait_with_output().unwrap();
    assert_eq!((appended.status.code(), text(&appended.stdout).lines().count()), (Some(2), 2));
    let status = super::kit::until("the end of the tail", || tail.try_wait().unwrap());
    let seen = std::io::read_to_string(tail.stdout.take().unwrap()).unwrap();
    assert!(status.success() && seen.lines().count() == 3, "{seen}");
    assert!(seen.lines().last().unwrap().contains("b@2"), "{seen}");
}
