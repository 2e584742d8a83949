//! A message that can't be handled, from the alarm to the operator's word.

use std::path::Path;

use mainstay::Context;
use mainstay::sqlite::{Options, Sqlite};
use mainstay::store::{Abort, OutboxRow, Store, Topic, Tx};
use rustix::process::Signal;
use serde_json::Value;

use super::kit::{Up, ended, mainstay, place, text, until};

/// Publishes what no order is in the order service's name; the correlation id.
fn poison(data: &Path, key: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cx = Context::system();
        let store = Sqlite::open(Options::new(data.join("order/store.db")).existing()).unwrap();
        let row = OutboxRow {
            topic: Topic::new("order").unwrap(),
            key: key.to_owned(),
            headers: vec![("id".into(), cx.new_id().to_string()), ("type".into(), "OrderCreated".into())],
            payload: br#"{"no":"order"}"#.to_vec(),
        };
        let publish = move |tx: &<Sqlite as Store>::Tx| Ok::<_, Abort<()>>(tx.outbox(&row)?);
        store.transact(&cx, publish).await.unwrap();
        cx.envelope().correlation().0.to_string()
    })
}

fn done(arguments: &[&str], data: &str) -> String {
    let output = mainstay(&[arguments, &["--data", data]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What waits, as JSON.
fn waiting(data: &str) -> Vec<Value> {
    let lines = done(&["dead-letter", "list", "--json"], data);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn refused(arguments: &[&str], code: i32, words: &str) {
    let output = mainstay(arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(words), "{arguments:?}: {said}");
}

#[test]
fn a_poisoned_message_waits_others_flow_and_the_operators_word_is_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let mut up = Up::start(folder.path());
    assert_eq!(done(&["dead-letter", "list"], data), "nothing waits: every message that came was handled\n");

    let correlation = poison(folder.path(), "a-key");
    let parked = until("the parked message", || waiting(data).pop());
    let id = parked["id"].as_str().unwrap();
    assert_eq!((&parked["service"], &parked["from"]), (&"payment".into(), &"order".into()), "{parked}");
    assert_eq!(
        (&parked["key"], &parked["is"], &parked["messages"]),
        (&"a-key".into(), &"dead".into(), &1.into())
    );
    // Others are not held up by it.
    assert_eq!(ended(&up, &place(&up, "another", 1))["status"], "CONFIRMED");

    let shown: Value = serde_json::from_str(&done(&["dead-letter", "show", id, "--json"], data)).unwrap();
    assert_eq!(
        (&shown["event"]["type"], &shown["event"]["data"]["no"]),
        (&"OrderCreated".into(), &"order".into())
    );
    let story = done(&["saga", "show", &correlation], data);
    assert!(story.contains("payment could not handle OrderCreated of order"), "{story}");

    // Tried again it fails again: it was parked anew, later than before.
    let told = done(&["dead-letter", "retry", id], data);
    assert!(told.contains("is tried again when payment looks"), "{told}");
    let alarms = |up: &Up| up.seen.iter().filter(|event| is_alarm(event)).count();
    while alarms(&up) < 2 {
        up.until(is_alarm);
    }
    assert_eq!(waiting(data).len(), 1);

    done(&["dead-letter", "discard", id, "--service", "payment"], data);
    until("an empty list", || waiting(data).is_empty().then_some(()));

    refused(&["dead-letter", "show", id, "--data", data], 2, "no message");
    refused(&["dead-letter", "retry", "nonsense", "--data", data], 2, "no message \"nonsense\" waits here");
    refused(&["dead-letter", "discard", id, "--service", "order", "--data", data], 2, "nothing was done");
    refused(&["dead-letter", "list", "--data", "no-such-folder"], 4, "there is no store of a service");
    refused(&["saga", "show", &correlation[1..], "--data", data], 2, "CORRELATION-ID");
    let nobody = "00000000-0000-4000-8000-000000000000";
    refused(&["saga", "show", nobody, "--data", data], 2, "nothing of correlation");
    up.kill(Signal::TERM);
    assert_eq!(up.end().code(), Some(0));
}

fn is_alarm(event: &Value) -> bool {
    event["event"] == "log" && event["line"].as_str().is_some_and(|line| line.contains("a-key"))
}

#[test]
fn the_declared_choreography_is_drawn_and_holds_together() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("saga.svg");
    let drawn = mainstay(&["saga", "graph", "--svg", svg.to_str().unwrap()]);
    assert!(drawn.status.success(), "{}", text(&drawn.stderr));
    for word in ["OrderCreated", "StockShort", "PaymentRefunded"] {
        assert!(text(&drawn.stdout).contains(word), "{word}: {}", text(&drawn.stdout));
        assert!(std::fs::read_to_string(&svg).unwrap().contains(word), "{word}");
    }
    assert!(text(&mainstay(&["saga", "graph", "--svg", "-"]).stdout).starts_with("<svg"));
    let drawn: Value = serde_json::from_str(&text(&mainstay(&["saga", "graph", "--json"]).stdout)).unwrap();
    assert_eq!(drawn["ok"], true);
}
