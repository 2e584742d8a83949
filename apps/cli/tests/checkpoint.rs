//! Signed checkpoints on the command line: made, kept, and believed or not.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

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
    assert_eq!(output.stdout, b"", "{arguments}");
}

fn append(folder: &Path, store: &str, times: usize) {
    for _ in 0..times {
        done(folder, &format!("events append {store} --stream a --type T --data {{}}"));
    }
}

/// A store of three events, a pair of keys, and a checkpoint in `kept`.
fn kept() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    append(path, "s.db", 3);
    done(path, "events key --private k.pem --public k.pub");
    std::fs::write(path.join("kept"), done(path, "events checkpoint s.db --key k.pem")).unwrap();
    folder
}

#[test]
fn a_checkpoint_kept_elsewhere_is_matched_while_the_store_grows() {
    let folder = kept();
    let path = folder.path();
    let line: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path.join("kept")).unwrap()).unwrap();
    assert_eq!((line["kind"].as_str(), line["position"].as_u64()), (Some("mainstay checkpoint 1"), Some(3)));
    append(path, "s.db", 2);
    // What follows the first is proved anew, and both stand in one file.
    let mut both = std::fs::read_to_string(path.join("kept")).unwrap();
    both.push_str(&done(path, "events checkpoint s.db --key k.pem --since kept"));
    std::fs::write(path.join("kept"), both).unwrap();
    append(path, "s.db", 1);
    let proved = done(path, "events verify s.db --checkpoint kept --public-key k.pub --json");
    let proved: serde_json::Value = serde_json::from_str(&proved).unwrap();
    assert_eq!((proved["events"].as_u64(), proved["kept_heads_matched"].as_u64()), (Some(6), Some(2)));
}

#[test]
fn the_private_key_is_its_owners_only_and_no_file_is_overwritten() {
    let folder = kept();
    let path = folder.path();
    let mode = |file: &str| std::fs::metadata(path.join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("k.pem"), 0o600);
    let before = std::fs::read(path.join("k.pem")).unwrap();
    fails(path, "events key --private k.pem --public other.pub", 4, "k.pem was not made");
    fails(path, "events key --private other.pem --public k.pub", 4, "k.pub was not made");
    assert_eq!(std::fs::read(path.join("k.pem")).unwrap(), before);
    assert!(!path.join("other.pem").exists() && !path.join("other.pub").exists());

    std::fs::set_permissions(path.join("k.pem"), std::fs::Permissions::from_mode(0o640)).unwrap();
    fails(path, "events checkpoint s.db --key k.pem", 4, "can be used by others (mode 640)");
}

#[test]
fn a_checkpoint_that_proves_nothing_is_refused_with_its_reason() {
    let folder = kept();
    let path = folder.path();
    let line = std::fs::read_to_string(path.join("kept")).unwrap();
    let verify = "events verify s.db --checkpoint forged --public-key k.pub";
    let forge = |text: &str| std::fs::write(path.join("forged"), text).unwrap();

    forge(&line.replace("\"position\":3", "\"position\":2"));
    fails(path, verify, 2, "forged, line 1: the checkpoint's signature does not hold");
    forge(&format!("{line}\nnonsense\n"));
    fails(path, verify, 2, "forged, line 3: this is no checkpoint");
    forge("\n");
    fails(path, verify, 2, "holds no checkpoint");
    fails(path, "events verify s.db --checkpoint gone --public-key k.pub", 2, "gone can't be read");
    fails(path, "events verify s.db --checkpoint kept --public-key k.pem", 2, "it is the private key");
    std::fs::set_permissions(path.join("kept"), std::fs::Permissions::from_mode(0o600)).unwrap();
    fails(
        path,
        "events checkpoint s.db --key kept",
        2,
        "kept: this is no private key to sign with: it is not PEM",
    );
    fails(path, "events verify s.db --checkpoint kept", 2, "--public-key");
    done(path, "events key --private o.pem --public o.pub");
    fails(path, "events verify s.db --checkpoint kept --public-key o.pub", 2, "names the key");
    append(path, "t.db", 3);
    fails(
        path,
        "events verify t.db --checkpoint kept --public-key k.pub",
        2,
        "it says nothing about what is here",
    );
}

#[test]
fn a_store_that_lost_its_end_or_was_written_anew_does_not_match() {
    let folder = kept();
    let path = folder.path();
    // The copy is the same store: what is appended to both is another history.
    for file in ["s.db", "s.db-wal", "s.db-shm"] {
        let _ = std::fs::copy(path.join(file), path.join(file.replace("s.db", "copy.db")));
    }
    append(path, "s.db", 2);
    std::fs::write(path.join("later"), done(path, "events checkpoint s.db --key k.pem")).unwrap();
    let verify = "events verify copy.db --checkpoint later --public-key k.pub";
    fails(path, verify, 6, "the feed ends at 3, but 5 was seen before");
    fails(path, "events checkpoint copy.db --key k.pem --since later", 6, "the feed ends at 3, but 5");
    append(path, "copy.db", 2);
    fails(path, verify, 6, "at position 5 the hash differs");
    fails(path, "events checkpoint copy.db --key k.pem --since later", 6, "at position 5 the hash differs");
    done(path, "events verify copy.db --checkpoint kept --public-key k.pub");
}
