//! A charge, and the death of the process that asked for it.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::kit::{Up, ended, get, http, send, until};

fn put(url: &str, body: &Value) {
    let (status, answer) = http("PUT", url, &[], Some(&body.to_string())).unwrap();
    assert_eq!(status, 200, "{url}: {answer}");
}

#[test]
fn a_card_is_charged_once_though_payment_is_killed_between_the_charge_and_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::start(folder.path());
    let (payment, processor) = (up.url("payment"), up.url("processor"));
    let account = json!({ "customer": "carol", "minor": 0, "funding": "card" }).to_string();
    assert_eq!(http("POST", &format!("{payment}/accounts"), &[], Some(&account)).unwrap().0, 200);
    let behaviour = format!("{processor}/behaviour");
    put(&behaviour, &json!({ "mode": "hanging", "after_effect": true }));

    let order = json!({ "customer": "carol", "lines": [{ "sku": "apple", "quantity": 2 }] }).to_string();
    let orders = format!("{}/orders", up.url("order"));
    let (status, order) = http("POST", &orders, &[("Idempotency-Key", "by-card")], Some(&order)).unwrap();
    assert_eq!(status, 201, "{order}");
    // The card is charged, Payment has not heard of it, and dies.
    let ledger = format!("{processor}/ledger");
    until("the charge", || (get(&ledger)["charged"] == 1).then_some(()));
    send(up.pid_of("payment"), Signal::KILL);
    put(&behaviour, &json!({ "mode": "well" }));
    up.until(|event| event["event"] == "ready" && event["service"] == "payment");
    assert_eq!(ended(&up, &order)["status"], "CONFIRMED");
    let books = get(&ledger);
    assert_eq!((&books["charged"], &books["net"]["EUR"]), (&json!(1), &json!(500)), "{books}");
    // The books outlive the processor, too.
    send(up.pid_of("processor"), Signal::KILL);
    up.until(|event| event["event"] == "ready" && event["service"] == "processor");
    assert_eq!(get(&ledger), books);
    up.kill(Signal::TERM);
    assert_eq!(up.end().code(), Some(0), "{:#?}", up.seen);
}
