//! `mainstay policy` and `mainstay replay`, as people and scripts meet them.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mainstay::resilience::record::Recording;
use mainstay::resilience::{EveryErrorIsTransient, Facts, Policy, Retry, Safety};
use serde_json::Value;

fn mainstay(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mainstay")).args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must succeed; what it printed.
fn done(folder: &Path, arguments: &[&str]) -> String {
    let output = mainstay(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that must fail with this code; what it said on standard error, then what it printed.
fn fails(folder: &Path, arguments: &[&str], code: i32) -> (String, String) {
    let output = mainstay(folder, arguments);
    let (said, printed) = (text(&output.stderr), text(&output.stdout));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}{printed}");
    (said, printed)
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?} is no JSON: {error}"))
}

/// The document of the guide's example.
fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/mainstay.toml")
}

#[test]
fn a_right_document_is_told_to_be_right() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(document(), folder.path().join("mainstay.toml")).unwrap();
    let said = done(folder.path(), &["policy", "check", "mainstay.toml"]);
    let expected = "\
mainstay.toml: 2 policies, and nothing wrong
  payment     outbound  timeout, retry, breaker, bulkhead
  storefront  inbound   deadline, coarse_shed, rate_limit, load_shed
";
    assert_eq!(said, expected);
    let said = json(&done(folder.path(), &["policy", "check", "mainstay.toml", "--json"]));
    assert_eq!((&said["ok"], said["policies"].as_array().unwrap().len()), (&Value::Bool(true), 2));
}

#[test]
fn a_wrong_document_fails_with_every_mistake_and_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = "[policy.payment]\ntimeout = { total = 2 }\nbreker = {}\nretry = { methods = [\"POST\"] }\n";
    std::fs::write(folder.path().join("m.toml"), wrong).unwrap();
    let (said, printed) = fails(folder.path(), &["policy", "check", "m.toml"], 2);
    let expected = "\
error: m.toml: 3 mistakes, and nothing of it is used
m.toml:2:21: `policy.payment.timeout.total` is 2: a time is text with its unit, such as \"300ms\" or \"2s\"
 2 | timeout = { total = 2
   |                     ^
m.toml:3:1: `policy.payment.breker` is no setting; the nearest is `breaker`
 3 | breker
   | ^^^^^^
m.toml:4:21: `policy.payment.retry.methods` has POST, which is not idempotent: ";
    assert!(said.starts_with(expected) && printed.is_empty(), "{said}{printed}");

    let (_, printed) = fails(folder.path(), &["policy", "check", "m.toml", "--json"], 2);
    let lines: Vec<Value> = printed.lines().map(json).collect();
    let places: Vec<_> =
        lines[0]["mistakes"].as_array().unwrap().iter().map(|m| (&m["line"], &m["key"])).collect();
    assert_eq!(
        serde_json::to_string(&places).unwrap(),
        r#"[[2,"policy.payment.timeout.total"],[3,"policy.payment.breker"],[4,"policy.payment.retry.methods"]]"#
    );
    assert_eq!((&lines[0]["ok"], lines[1]["error"]["code"].as_u64()), (&Value::Bool(false), Some(2)));
    // What can't be shown, because it is wrong, fails alike.
    fails(folder.path(), &["policy", "show", "m.toml", "payment"], 2);
}

#[test]
fn what_is_no_document_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("latin"), b"[policy.a]\n# caf\xe9\n").unwrap();
    std::fs::write(folder.path().join("long"), " ".repeat((1 << 20) + 5)).unwrap();
    for (file, words) in [
        ("missing.toml", "missing.toml: the document can't be read"),
        (".", ".: the document can't be read"),
        ("latin", "latin:2: the document is not UTF-8"),
        ("long", "at most 1048576 are read"),
    ] {
        let (said, _) = fails(folder.path(), &["policy", "check", file], 2);
        assert!(said.contains(words), "{file}: {said}");
    }
}

#[test]
fn a_policy_is_shown_with_its_defaults_in_the_order_of_the_stack() {
    let folder = tempfile::tempdir().unwrap();
    let said =
        "[policy.pay]\ntimeout.total = \"2s\"\nbreaker = { slow = { longer_than = \"1s\", rate = 0.5 } }\n";
    std::fs::write(folder.path().join("m.toml"), said).unwrap();
    let shown = done(folder.path(), &["policy", "show", "m.toml", "pay"]);
    let expected = r#"pay, outbound, outside in

  call
   │
   ├─ timeout (total)
   │    total = "2s"
   │
   ├─ circuit_breaker
   │    failure_rate = 0.5       default
   │    slow.longer_than = "1s"
   │    slow.rate = 0.5
   │    window = 100             default
   │    minimum_calls = 20       default
   │    shards = 1               default
   │    open_for = "5s"          default
   │    open_growth = 2          default
   │    open_cap = "1min"        default
   │    probes = 1               default
   │    probe_limit = "1min"     default
   │    mode = "enforce"         default
   ▼
  pay
"#;
    assert_eq!(shown, expected);

    let shown = json(&done(folder.path(), &["policy", "show", "m.toml", "pay", "--json"]));
    assert_eq!(shown["settings"]["breaker"]["slow"]["rate"], 0.5);
    assert_eq!(shown["stack"][1]["place"], "circuit_breaker");
    let first = &shown["stack"][0]["settings"][0];
    assert_eq!((&first["key"], &first["default"]), (&Value::from("total"), &Value::Bool(false)));

    let (said, _) = fails(folder.path(), &["policy", "show", "m.toml", "payment"], 2);
    assert!(said.contains(r#"there is no policy "payment"; there is "pay""#), "{said}");
}

/// A recording of a policy whose callee fails.
fn record(path: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let wait = std::time::Duration::from_nanos(1);
        let retry = Retry::exact(wait, wait);
        let policy = Policy::outbound("pay").retry(retry).record(Recording::All, 64).build().unwrap();
        let safe = |now| Facts::unknown(now).with_safety(Safety::Safe);
        let fails = |_| async { Err::<(), _>("no route") };
        policy.call(safe, EveryErrorIsTransient, fails).await.unwrap_err();
        policy.scope().save(std::fs::File::create(path).unwrap()).unwrap();
    });
}

#[test]
fn a_recording_is_decided_again_and_an_altered_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    record(&here.join("pay.recording"));
    let said = done(here, &["replay", "pay.recording"]);
    assert!(
        said.starts_with("pay: ") && said.contains("bit for bit the same") && said.contains("retry 5"),
        "{said}"
    );
    let told = json(&done(here, &["replay", "pay.recording", "--json"]));
    assert_eq!((&told["ok"], &told["rules"]["retry"], &told["lost"]), (&true.into(), &5.into(), &0.into()));

    // A verdict, then an input, of the third decision is another one.
    let recording = std::fs::read_to_string(here.join("pay.recording")).unwrap();
    let third = recording.lines().nth(3).unwrap();
    let verdict = third.rfind("\"verdict\"").unwrap();
    let altered = recording.replace(third, &format!("{}\"verdict\":\"7f\"}}", &third[..verdict]));
    std::fs::write(here.join("altered"), &altered).unwrap();
    let (said, _) = fails(here, &["replay", "altered"], 1);
    assert!(
        said.starts_with("error: altered:4: decision ") && said.contains("recorded verdict is 7f"),
        "{said}"
    );
    let (_, printed) = fails(here, &["replay", "altered", "--json"], 1);
    let told = json(printed.lines().next().unwrap());
    assert_eq!((&told["first"]["line"], &told["first"]["recorded"]), (&4.into(), &"7f".into()));
    assert_eq!((&told["ok"], &told["different"]), (&false.into(), &1.into()));

    // What can't be decided again is no success either.
    let unknown =
        recording.replacen("\"rule\":\"retry\",\"question\":0", "\"rule\":\"retry\",\"question\":200", 1);
    std::fs::write(here.join("unknown"), &unknown).unwrap();
    let (said, _) = fails(here, &["replay", "unknown"], 1);
    assert!(said.contains("this build can't decide it again"), "{said}");

    // And what is broken, cut or of another version is refused with its line.
    let cut = &recording[..recording.trim_end().rfind('\n').unwrap() + 1];
    for (file, broken, words) in [
        ("empty", String::new(), "empty: line 1 of the recording is wrong: it is empty"),
        ("notes", "no recording".into(), "notes: line 1 of the recording is wrong: it begins no recording"),
        ("cut", cut.to_owned(), "the recording ends after"),
        (
            "newer",
            recording.replacen("\"v\":1", "\"v\":2", 1),
            "it is of version 2, and this build reads version 1",
        ),
        ("broken", recording.replace(third, &third[1..]), "broken: line 4 of the recording is wrong"),
    ] {
        std::fs::write(here.join(file), broken).unwrap();
        let (said, _) = fails(here, &["replay", file], 2);
        assert!(said.contains(words), "{file}: {said}");
    }
    let (said, _) = fails(here, &["replay", "missing"], 2);
    assert!(said.contains("missing: the recording can't be read"), "{said}");
}
