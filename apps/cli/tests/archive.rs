//! Archived ranges on the command line: moved out, proved with and without their files, and told to readers.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};

use mainstay::sqlite::rusqlite::Connection;

fn mainstay(folder: &Path, arguments: &str) -> Output {
    let arguments = arguments.split(' ');
    Command::new(env!("CARGO_BIN_EXE_mainstay")).args(arguments).current_dir(folder).output().unwrap()
}

/// Runs a command that must succeed; what it printed.
fn done(folder: &Path, arguments: &str) -> String {
    let output = mainstay(folder, arguments);
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail with this code and these words.
fn fails(folder: &Path, arguments: &str, code: i32, words: &str) {
    let output = mainstay(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
    assert!(said.contains(words), "{arguments}: {words:?} is missing in: {said}");
}

/// A store of six events, of which a checkpoint at 2 and one at 4 are kept, and the first three are archived.
fn archived() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    done(path, "events key --private k.pem --public k.pub");
    let mut kept = String::new();
    for n in 1..=6 {
        done(path, &format!("events append s.db --stream a --type T --data {n}"));
        if n == 2 || n == 4 {
            kept.push_str(&done(path, "events checkpoint s.db --key k.pem"));
        }
    }
    std::fs::write(path.join("kept"), kept).unwrap();
    let said = done(path, "events archive s.db --before 4 --to old.jsonl");
    assert!(said.starts_with("positions 1 to 3 (3 events) are in old.jsonl; keep it\ndigest "), "{said}");
    folder
}

#[test]
fn the_chain_is_proved_across_the_marker_and_through_the_file() {
    let folder = archived();
    let path = folder.path();
    let proved = |more: &str| {
        let said =
            done(path, &format!("events verify s.db --checkpoint kept --public-key k.pub --json{more}"));
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        ["events", "archived", "archived_proved", "kept_heads_matched"]
            .map(|name| said[name].as_u64().unwrap())
    };
    assert_eq!(proved(""), [6, 3, 0, 2]);
    assert_eq!(proved(" --archive old.jsonl"), [6, 3, 3, 2]);
    let said = done(path, "events verify s.db");
    assert!(said.starts_with("6 events (3 archived, 0 of them proved by their files; the rest"), "{said}");
    // From a checkpoint in the middle of the range.
    let first = std::fs::read_to_string(path.join("kept")).unwrap().lines().next().unwrap().to_owned();
    std::fs::write(path.join("first"), first).unwrap();
    let line = done(path, "events checkpoint s.db --key k.pem --since first");
    assert!(line.contains("\"position\":6"), "{line}");
    assert_eq!(done(path, "events read s.db --after 3").lines().count(), 3);
    fails(path, "events read s.db", 2, "positions 1 to 3 are archived in old.jsonl");
    done(path, "events append s.db --stream a --type T --data 7 --expected 6");
    done(path, "events archive s.db --before 7 --to more.jsonl");
    let said = done(path, "events verify s.db --archive more.jsonl --archive old.jsonl");
    assert!(said.starts_with("7 events (6 archived, proved by their files), chain unbroken"), "{said}");
}

#[test]
fn a_changed_archive_or_marker_does_not_pass() {
    let folder = archived();
    let path = folder.path();
    let text = std::fs::read_to_string(path.join("old.jsonl")).unwrap();
    std::fs::write(path.join("forged"), text.replace("{\"text\":\"2\"}", "{\"text\":\"9\"}")).unwrap();
    fails(
        path,
        "events verify s.db --archive forged",
        2,
        "forged is no archive that this store has a marker of",
    );
    fails(path, "events verify s.db --archive gone", 2, "gone can't be read");
    // Whoever can write the store fits the marker to the forged file: the chain in it tells.
    let digest =
        mainstay::store::chain::digest_of(std::fs::File::open(path.join("forged")).unwrap()).unwrap();
    let marker = |sql: &str| {
        let conn = Connection::open(path.join("s.db")).unwrap();
        assert_eq!(conn.execute(&format!("update mainstay_archives set {sql}"), []).unwrap(), 1);
    };
    marker(&format!("digest = x'{digest}'"));
    fails(path, "events verify s.db --archive forged", 6, "the chain breaks at position 2");
    // Another last hash, also beside the event that is left of it: the next link tells.
    let other = "ab".repeat(32);
    marker(&format!("last_hash = x'{other}'"));
    fails(path, "events verify s.db", 6, "the marker of positions 1 to 3 is not that of what was archived");
    let conn = Connection::open(path.join("s.db")).unwrap();
    conn.execute(&format!("update mainstay_events set hash = x'{other}' where position = 3"), []).unwrap();
    fails(path, "events verify s.db", 6, "the chain breaks at position 4");
    conn.execute(&format!("update mainstay_events set hash = x'{other}' where position = 2"), []).unwrap();
    fails(
        path,
        "events verify s.db --checkpoint kept --public-key k.pub",
        6,
        "at position 2 the hash differs",
    );
}

#[test]
fn what_cannot_be_archived_is_said() {
    let folder = archived();
    let path = folder.path();
    fails(path, "events archive s.db --before 4 --to new.jsonl", 2, "that is not archived already");
    fails(path, "events archive s.db --before 9 --to new.jsonl", 2, "past the end of the feed, 6");
    fails(path, "events archive s.db --before 6 --to old.jsonl", 4, "the store is as it was");
    fails(path, "events archive gone.db --before 6 --to new.jsonl", 4, "there is no store");
    assert!(!path.join("new.jsonl").exists());
}
