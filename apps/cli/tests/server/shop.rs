//! The shop with its stores in a database.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::database::{Names, done, fails, password, schemas, server, url_of};
use super::kit::{PROGRAM, Up, ended, get, http, place, send, text};
use super::proxy::Proxy;

/// Those that `up` starts, in its order.
const SERVICES: [&str; 4] = ["order", "payment", "inventory", "processor"];

/// `up` with its stores in the database of this URL, which it finds in its environment.
fn start(data: &Path, store: &str) -> Up {
    // What is added comes last: the shell puts it there.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" --store env:STORE", PROGRAM]).env("STORE", store);
    let mut up = Up::spawn_by(command, data);
    up.greeting = up.until(|event| event["event"] == "up");
    up
}

fn balance(up: &Up) -> i64 {
    get(&format!("{}/accounts/alice", up.url("payment")))["minor"].as_i64().unwrap()
}

#[test]
fn orders_are_confirmed_and_cancelled_and_survive_kills_and_a_restart() {
    let (names, folder) = (Names::new(), tempfile::tempdir().unwrap());
    let (store, data) = (names.url(), folder.path().to_str().unwrap());
    let mut up = start(folder.path(), &store);
    assert_eq!(schemas(&names.0), 4);
    assert_eq!(balance(&up), 100_000);
    // The greeting's own order, pasted.
    let pasted = Command::new("sh").arg("-c").arg(up.greeting["place"].as_str().unwrap()).output().unwrap();
    assert!(pasted.status.success(), "{}", text(&pasted.stderr));
    let placed: Value = serde_json::from_slice(&pasted.stdout).unwrap();
    assert_eq!(placed["status"], "PENDING", "{placed}");
    let confirmed = ended(&up, &placed);
    assert_eq!((&confirmed["status"], &confirmed["amount"]["minor"]), (&"CONFIRMED".into(), &500.into()));
    let cancelled = ended(&up, &place(&up, "beyond", 99));
    assert_eq!(cancelled["status"], "CANCELLED", "{cancelled}");
    assert_eq!(balance(&up), 99_500);

    let story = |order: &Value, more: &[&str]| {
        let id = order["correlation_id"].as_str().unwrap();
        done(&store, &[&["saga", "show", id, "--data", data, "--store", "env:STORE"], more].concat())
    };
    let told = story(&cancelled, &[]);
    for event in ["OrderCreated", "PaymentProcessed", "StockShort", "PaymentRefunded", "OrderCancelled"] {
        assert!(told.contains(event), "{event} is missing in: {told}");
    }
    let shown = up.greeting["story"].as_str().unwrap();
    assert!(shown.ends_with("--store env:STORE") && !shown.contains(&password()), "{shown}");
    let waiting = done(&store, &["dead-letter", "list", "--data", data, "--store", "env:STORE"]);
    assert!(waiting.contains("nothing waits"), "{waiting}");

    // Whoever lists the machine's processes learns no password.
    for service in SERVICES {
        let line = std::fs::read(format!("/proc/{}/cmdline", up.pid_of(service))).unwrap();
        let line = text(&line);
        assert!(line.contains("--store") && !line.contains(&password()), "{line}");
    }

    for service in ["payment", "order"] {
        let old = up.pid_of(service);
        let order = place(&up, &format!("before-{service}"), 1);
        send(old, Signal::KILL);
        up.until(|event| event["event"] == "ready" && event["service"] == service);
        assert_ne!(up.pid_of(service), old);
        assert_eq!(ended(&up, &order)["status"], "CONFIRMED");
        assert_eq!(ended(&up, &place(&up, &format!("after-{service}"), 1))["status"], "CONFIRMED");
    }
    let left = balance(&up);
    up.kill(Signal::INT);
    assert_eq!(up.end().code(), Some(0), "{:#?}", up.seen);
    assert_eq!(up.order_of("stopped"), SERVICES);
    assert_eq!(up.order_of("killed"), Vec::<&str>::new());
    assert_eq!(story(&cancelled, &[]), told);
    for service in SERVICES {
        let verified = format!("{}_{service}", store);
        done(&verified, &["events", "verify", "env:STORE"]);
    }

    // Folder and stores belong together.
    let other = tempfile::tempdir().unwrap();
    let up_in = |data: &str, more: &[&str]| {
        [&["up", "--port-base", "0", "--data"], &[data][..], more].concat().join(" ")
    };
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let refused = |line: String, store: &str, said: &str| {
        let words = words(&line);
        fails(store, &words.iter().map(String::as_str).collect::<Vec<_>>(), 4, said);
    };
    let on_server = ["--store", "env:STORE"];
    refused(up_in(other.path().to_str().unwrap(), &on_server), &store, "is the store of another data folder");
    refused(up_in(data, &[]), &store, "are in a database");
    fails(
        &store,
        &["saga", "show", confirmed["correlation_id"].as_str().unwrap(), "--data", data],
        4,
        "--store",
    );
    let others = Names::new();
    refused(up_in(data, &on_server), &others.url(), "belongs to another store");

    let up = start(folder.path(), &store);
    let order = |id: &Value| get(&format!("{}/orders/{}", up.url("order"), id.as_str().unwrap()));
    assert_eq!((order(&confirmed["id"]), order(&cancelled["id"])), (confirmed, cancelled));
    assert_eq!(balance(&up), left);
}

/// A receipt of one service is seen by another as soon as it is presented: it is a position of the feed.
#[test]
fn a_presented_receipt_is_seen_by_another_service() {
    let (names, folder) = (Names::new(), tempfile::tempdir().unwrap());
    let up = start(folder.path(), &names.url());
    for round in 0..5 {
        let sku = format!("pear-{round}");
        let url = format!("{}/stock/{sku}", up.url("inventory"));
        let body = r#"{"quantity":5,"price":{"currency":"EUR","minor":100}}"#;
        // With a key the answer is recorded, receipt and all.
        let key = format!("stock-{round}");
        let headers = [("Idempotency-Key", key.as_str())];
        for _ in 0..2 {
            let (status, receipt) = receipt_of("PUT", &url, &headers, body);
            assert_eq!(status, 200, "{receipt}");
            let mark: u64 = receipt.rsplit('.').next().unwrap().parse().unwrap();
            assert!((1..1 << 60).contains(&mark), "a position: {receipt}");
            // An order for an article whose price has not arrived would be refused.
            let order = format!(r#"{{"customer":"alice","lines":[{{"sku":"{sku}","quantity":1}}]}}"#);
            let url = format!("{}/orders", up.url("order"));
            let headers = [("Idempotency-Key", key.as_str()), ("Mainstay-Receipt", receipt.as_str())];
            let (status, answer) = http("POST", &url, &headers, Some(&order)).unwrap();
            assert_eq!(status, 201, "{answer}");
        }
    }
}

/// The status and the receipt of an answer.
fn receipt_of(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut line = Command::new("curl");
    line.args(["-sS", "-i", "-X", method, url, "-H", "Content-Type: application/json", "-d", body]);
    for (name, value) in headers {
        line.args(["-H", &format!("{name}: {value}")]);
    }
    let answer = text(&line.output().unwrap().stdout);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let receipt = answer.lines().find_map(|line| line.strip_prefix("mainstay-receipt: "));
    (status, receipt.unwrap_or(&answer).trim().to_owned())
}

#[test]
fn a_lost_server_turns_services_red_and_they_go_on_when_it_is_back() {
    let (names, folder) = (Names::new(), tempfile::tempdir().unwrap());
    let options = server();
    let proxy = Proxy::to(format!("{}:{}", options.get_host(), options.get_port()));
    let parameters = format!("sslmode=disable&schema={}", names.0);
    let (user, database) = (options.get_username(), options.get_database().unwrap());
    let at = format!("127.0.0.1:{}", proxy.port);
    let mut up = start(folder.path(), &url_of(user, &password(), &at, database, &parameters));
    assert_eq!(ended(&up, &place(&up, "before", 1))["status"], "CONFIRMED");
    proxy.cut();
    let red = up.until(|event| event["event"] == "unready" && event["service"] == "order");
    assert!(red["reason"].as_str().unwrap().contains("server"), "{red}");
    proxy.mend();
    up.until(|event| event["event"] == "ready" && event["service"] == "order");
    assert_eq!(ended(&up, &place(&up, "after", 1))["status"], "CONFIRMED");
    up.kill(Signal::TERM);
    assert_eq!(up.end().code(), Some(0), "{:#?}", up.seen);
    assert_eq!(up.order_of("restarting"), Vec::<&str>::new(), "nobody had to be started again");
}
