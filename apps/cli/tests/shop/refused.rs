//! What `up` refuses before anything is started.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use super::kit::{mainstay, text};

/// Fails with this code and all these words, and leaves no store behind.
fn refused(data: &Path, port_base: &str, code: i32, words: &[&str]) {
    let output = mainstay(&["up", "--data", data.to_str().unwrap(), "--port-base", port_base]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
    assert_eq!(text(&output.stdout), "", "nothing was to be started");
    for service in ["order", "payment", "inventory"] {
        assert!(!data.join(service).join("store.db").exists());
    }
}

#[test]
fn a_port_in_use_is_named_with_its_service_and_nothing_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let (_taken, base) = std::iter::repeat_with(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .take(100)
        .find_map(|taken| {
            let base = taken.local_addr().unwrap().port().checked_sub(3)?;
            // Its neighbours may be taken by others; this one is wanted alone.
            let free = |offset| TcpListener::bind((Ipv4Addr::LOCALHOST, base + offset)).is_ok();
            (free(1) && free(2)).then_some((taken, base))
        })
        .unwrap();
    let port = format!("port {}, for the inventory service, is in use", base + 3);
    refused(folder.path(), &base.to_string(), 2, &[&port, "nothing was started", "--port-base"]);
}

#[test]
fn a_folder_that_can_not_be_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").unwrap();
    refused(&file, "0", 4, &["this folder can't be made", "nothing was started", "--data"]);
    refused(&file.join("below"), "0", 4, &["this folder can't be made"]);
    // Rights would not stop an administrator, who may run this test; a folder in the way stops everybody.
    let data = folder.path().join("data");
    std::fs::create_dir_all(data.join("up.lock")).unwrap();
    refused(&data, "0", 4, &["up.lock: this file can't be written", "nothing was started"]);
    let data = folder.path().join("other");
    std::fs::create_dir_all(data.join("payment/lock")).unwrap();
    refused(&data, "0", 4, &["payment/lock: this file can't be written", "nothing was started"]);
}

#[test]
fn absurd_arguments_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    refused(folder.path(), "65533", 2, &["65533 is not in 0..=65531"]);
    refused(folder.path(), "-1", 2, &["unexpected argument '-1'"]);
}
