//! Orders from the paste to the end, and what is left after a restart.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::kit::{self, PROGRAM, Up, ended, get, place, text};

/// What a shell says to a line. curl may not be there; then the line is read here the way curl reads it.
fn paste(line: &str) -> String {
    let has_curl = Command::new("curl").arg("--version").output().is_ok();
    if line.starts_with("curl ") && !has_curl {
        let words = Command::new("sh").arg("-c").arg(format!("printf '%s\\n' {line}")).output().unwrap();
        let words = text(&words.stdout);
        let words: Vec<&str> = words.lines().collect();
        let after = |flag: &'static str| {
            words.windows(2).filter(move |pair| pair[0] == flag).map(|pair| pair[1]).collect::<Vec<_>>()
        };
        let headers: Vec<(&str, &str)> =
            after("-H").iter().filter_map(|header| header.split_once(": ")).collect();
        let headers: Vec<(&str, &str)> =
            headers.into_iter().filter(|(name, _)| *name != "Content-Type").collect();
        let url = words.iter().find(|word| word.starts_with("http")).unwrap();
        let body = after("-d").first().copied();
        let method = if body.is_some() { "POST" } else { "GET" };
        return kit::http(method, url, &headers, body).unwrap().1.to_string();
    }
    let pasted = Command::new("sh").arg("-c").arg(line).output().unwrap();
    assert!(pasted.status.success(), "{line}: {}", text(&pasted.stderr));
    text(&pasted.stdout)
}

fn balance(up: &Up) -> i64 {
    get(&format!("{}/accounts/alice", up.url("payment")))["minor"].as_i64().unwrap()
}

fn events(order: &Value) -> Vec<&str> {
    order["history"].as_array().unwrap().iter().map(|entry| entry["event"].as_str().unwrap()).collect()
}

fn story(up: &Up, order: &Value, data: &str) -> String {
    let id = order["correlation_id"].as_str().unwrap_or_else(|| panic!("{order}: {:?}", up.greeting));
    let shown = kit::mainstay(&["saga", "show", id, "--data", data]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    text(&shown.stdout)
}

#[test]
fn the_pasted_order_is_confirmed_one_beyond_the_stock_is_refunded_and_both_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    // A space and a quote: the lines are pasted into a shell.
    let data = folder.path().join("it's data");
    let shown = data.to_string_lossy().into_owned();
    let mut up = Up::start(&data);
    assert_eq!(balance(&up), 100_000);
    assert_eq!(up.order_of("started"), ["processor", "inventory", "payment", "order"]);

    // The three lines of the greeting, pasted one after the other.
    let line = |name: &str| up.greeting[name].as_str().unwrap().to_owned();
    let placed: Value = serde_json::from_str(&paste(&line("place"))).unwrap();
    assert_eq!(placed["status"], "PENDING", "{placed}");
    let confirmed = ended(&up, &placed);
    assert_eq!((&confirmed["status"], &confirmed["amount"]["minor"]), (&"CONFIRMED".into(), &500.into()));
    assert!(events(&confirmed).len() >= 2 && events(&confirmed)[0] == "OrderCreated", "{confirmed}");
    let seen: Value = serde_json::from_str(&paste(&line("see"))).unwrap();
    assert_eq!(seen["orders"][0]["id"], placed["id"], "{seen}");
    assert!(line("story").starts_with(PROGRAM), "{}", line("story"));
    let told = paste(&line("story"));
    for event in ["OrderCreated", "PaymentProcessed", "InventoryUpdated", "OrderConfirmed"] {
        assert!(told.contains(event), "{event} is missing in: {told}");
    }
    // Pasted again it is the same order.
    let again: Value = serde_json::from_str(&paste(&line("place"))).unwrap();
    assert_eq!(again["id"], placed["id"]);
    assert_eq!(balance(&up), 99_500);

    let cancelled = ended(&up, &place(&up, "beyond", 99));
    assert_eq!(cancelled["status"], "CANCELLED", "{cancelled}");
    let reason = cancelled["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("apple"), "{reason}");
    assert_eq!(balance(&up), 99_500);
    let told = story(&up, &cancelled, &shown);
    for event in ["OrderCreated", "PaymentProcessed", "StockShort", "PaymentRefunded", "OrderCancelled"] {
        assert!(told.contains(event), "{event} is missing in: {told}");
    }

    up.kill(Signal::INT);
    assert_eq!(up.end().code(), Some(0), "{:#?}", up.seen);
    assert_eq!(up.order_of("stopped"), ["order", "payment", "inventory", "processor"]);
    assert_eq!(up.order_of("killed"), Vec::<&str>::new());
    // Nothing runs; the stores and the logs tell the same, and their chains are whole.
    assert_eq!(story(&up, &cancelled, &shown), told);
    // Each event that others wait for says when it was published, which its store alone does not know.
    for event in ["OrderCreated", "PaymentProcessed", "StockShort", "PaymentRefunded"] {
        let line = told.lines().find(|line| line.contains(&format!("  {event}"))).unwrap();
        assert!(line.contains("► published +"), "{line}");
    }
    // Without its log, or with one that is none, a service's events are told without that.
    let log = |service: &str| data.join(service).join("log.db");
    std::fs::rename(log("order"), data.join("kept")).unwrap();
    let less = story(&up, &cancelled, &shown);
    assert_eq!(less.matches("published +").count(), told.matches("published +").count() - 1, "{less}");
    std::fs::write(log("order"), "no database at all, but long enough to have a header".repeat(9)).unwrap();
    assert_eq!(story(&up, &cancelled, &shown), less);
    std::fs::rename(data.join("kept"), log("order")).unwrap();
    for service in ["order", "payment", "inventory"] {
        let store = data.join(service).join("store.db");
        let verified = kit::mainstay(&["events", "verify", store.to_str().unwrap()]);
        assert!(verified.status.success(), "{}", text(&verified.stderr));
    }

    let up = Up::start(&data);
    let order = |id: &Value| get(&format!("{}/orders/{}", up.url("order"), id.as_str().unwrap()));
    assert_eq!((order(&confirmed["id"]), order(&cancelled["id"])), (confirmed, cancelled));
    // The demonstration data were there, so none were given away again.
    assert_eq!(balance(&up), 99_500);
}
