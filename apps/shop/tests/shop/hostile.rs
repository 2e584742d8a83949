//! Hostile requests, over real HTTP. Each case names the check it defends; where a patch in `mutations/` removes
//! that check, the case is what fails.

use std::time::{Duration, Instant};

use mainstay_shop::http::limits::Limits;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{Answer, Client, read};
use crate::kit::{Shop, limits, order_body};

/// One request to one service, and how it has to be answered.
struct Case {
    /// The check, as a patch or a reader finds it.
    defends: &'static str,
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
    status: u16,
    problem: &'static str,
}

impl Case {
    fn post(defends: &'static str, body: impl Into<Vec<u8>>, status: u16, problem: &'static str) -> Self {
        let headers = vec![("idempotency-key", "hostile".to_owned())];
        let (method, path) = ("POST", "/orders".to_owned());
        Self { defends, method, path, headers, body: Some(body.into()), status, problem }
    }

    fn put(defends: &'static str, body: impl Into<Vec<u8>>, status: u16, problem: &'static str) -> Self {
        Self {
            method: "PUT",
            path: "/stock/apple".into(),
            headers: vec![],
            ..Self::post(defends, body, status, problem)
        }
    }

    fn get(defends: &'static str, path: &str, status: u16, problem: &'static str) -> Self {
        Self {
            method: "GET",
            path: path.into(),
            headers: vec![],
            body: None,
            ..Self::post(defends, "", status, problem)
        }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn without_key(mut self) -> Self {
        self.headers.retain(|(name, _)| *name != "idempotency-key");
        self
    }

    /// `turn` makes its key its own: a case that is let through must not be what stops the next one.
    async fn run(&self, turn: usize, client: &Client) -> Result<(), String> {
        let own = format!("hostile-{turn}");
        let value = |value: &'_ str| if value == "hostile" { own.clone() } else { value.to_owned() };
        let headers: Vec<(&str, String)> =
            self.headers.iter().map(|(name, text)| (*name, value(text))).collect();
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = client.call(self.method, &self.path, &headers, self.body.as_deref()).await;
        let told = || format!("{}: {} {} got {answer:?}", self.defends, self.method, self.path);
        if answer.status != self.status {
            return Err(told());
        }
        if answer.problem() != self.problem {
            return Err(told());
        }
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        if detail.is_empty() || detail.len() > 500 {
            return Err(told());
        }
        Ok(())
    }
}

/// Runs all cases, then sees that nothing was done and that the service still serves. All that failed, by name.
async fn run(cases: Vec<Case>, client: &Client) {
    let mut failed = Vec::new();
    for (turn, case) in cases.iter().enumerate() {
        if let Err(why) = case.run(turn, client).await {
            failed.push(why);
        }
    }
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), cases.len(), failed.join("\n"));
    assert_eq!(client.get("/health/ready").await.status, 200);
}

fn order(customer: &str, sku: &str, quantity: impl Into<Value>) -> String {
    json!({ "customer": customer, "lines": [{ "sku": sku, "quantity": quantity.into() }] }).to_string()
}

async fn shop_with_apples() -> Shop {
    let shop = Shop::open().await;
    shop.stock("apple", 10, 150).await;
    shop
}

async fn nothing_was_ordered(shop: Shop) {
    assert_eq!(shop.order.get("/orders").await.json(), json!({ "orders": [] }));
    shop.close().await;
}

/// `[[[[…]]]]` in place of the lines.
fn deep(levels: usize) -> String {
    format!(r#"{{"customer":"alice","lines":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
}

#[tokio::test(flavor = "multi_thread")]
async fn shapes() {
    let shop = shop_with_apples().await;
    let of = |body: &str| body.to_owned();
    let cases = vec![
        Case::post("http/body.rs parse: no JSON", "{", 400, "malformed-json"),
        Case::post("http/body.rs parse: nothing", "", 400, "malformed-json"),
        Case::post(
            "http/body.rs parse: more after the end",
            of(&order("alice", "apple", 1)) + "{}",
            400,
            "malformed-json",
        ),
        Case::post(
            "http/body.rs parse: a number that is no JSON",
            order("alice", "apple", 1).replace(":1,", ":01,"),
            400,
            "malformed-json",
        ),
        Case::post("strict types: not an object", "[]", 422, "invalid"),
        Case::post("strict types: null", "null", 422, "invalid"),
        Case::post("strict types: a member is missing", r#"{"customer":"alice"}"#, 422, "invalid"),
        Case::post("strict types: quantity is a text", order("alice", "apple", "1"), 422, "invalid"),
        Case::post("strict types: quantity is a fraction", order("alice", "apple", 1.5), 422, "invalid"),
        Case::post("strict types: quantity is true", order("alice", "apple", true), 422, "invalid"),
        Case::post("strict types: quantity is null", order("alice", "apple", Value::Null), 422, "invalid"),
        Case::post(
            "strict types: quantity in floating point",
            order("alice", "apple", 1).replace(":1,", ":1e0,"),
            422,
            "invalid",
        ),
        Case::post(
            "strict types: customer is an object",
            r#"{"customer":{},"lines":[{"sku":"apple","quantity":1}]}"#,
            422,
            "invalid",
        ),
        Case::post("strict types: lines is an object", r#"{"customer":"alice","lines":{}}"#, 422, "invalid"),
        Case::post(
            "NewOrder deny_unknown_fields",
            r#"{"customer":"alice","lines":[{"sku":"apple","quantity":1}],"amount":1}"#,
            422,
            "invalid",
        ),
        Case::post(
            "Line deny_unknown_fields",
            r#"{"customer":"alice","lines":[{"sku":"apple","quantity":1,"minor":0}]}"#,
            422,
            "invalid",
        ),
        Case::post(
            "strict types: a member twice",
            r#"{"customer":"alice","customer":"bob","lines":[{"sku":"apple","quantity":1}]}"#,
            422,
            "invalid",
        ),
        Case::post("http/objects.rs: an array for the body", r#"["alice",[["apple",1]]]"#, 422, "invalid"),
        Case::post(
            "http/objects.rs: an array for the body alone",
            r#"["alice",[{"sku":"apple","quantity":1}]]"#,
            422,
            "invalid",
        ),
        Case::post(
            "http/objects.rs: an array for a line",
            r#"{"customer":"alice","lines":[["apple",1]]}"#,
            422,
            "invalid",
        ),
        Case::post("http/body.rs is_deeper: 9 levels", deep(8), 400, "too-deep"),
        Case::post("http/body.rs is_deeper: 30,000 levels", deep(30_000), 400, "too-deep"),
    ];
    run(cases, &shop.order).await;
    nothing_was_ordered(shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes() {
    let shop = shop_with_apples().await;
    let mut no_utf8 = order("alice", "apple", 1).into_bytes();
    let at = no_utf8.iter().position(|byte| *byte == b'a').unwrap();
    no_utf8[at] = 0xff;
    let mut overlong = order("alice", "apple", 1).into_bytes();
    overlong.splice(at..=at, [0xc0, 0x80]);
    let huge = order(&"a".repeat(70_000), "apple", 1);
    let good = || order("alice", "apple", 1);
    let cases = vec![
        Case::post("http/body.rs parse: invalid UTF-8", no_utf8, 400, "malformed-json"),
        Case::post("http/body.rs parse: overlong UTF-8", overlong, 400, "malformed-json"),
        Case::post(
            "strict names: a lone surrogate",
            good().replace("alice", r"\ud800"),
            400,
            "malformed-json",
        ),
        Case::post("http/body.rs read: 70,000 bytes announced", huge, 413, "too-large"),
        Case::post("http/body.rs check_media_type: text", good(), 415, "unsupported-media-type")
            .with("content-type", "text/plain"),
        Case::post("http/body.rs check_media_type: a form", good(), 415, "unsupported-media-type")
            .with("content-type", "application/x-www-form-urlencoded"),
        Case::post("http/body.rs check_media_type: compressed", good(), 415, "unsupported-media-type")
            .with("content-type", "application/json")
            .with("content-encoding", "gzip"),
    ];
    run(cases, &shop.order).await;
    nothing_was_ordered(shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values() {
    let shop = shop_with_apples().await;
    let names = ["", " ", "a b", "../etc", "a\nb", "\u{202e}ecila", "é", "a\u{0}", "-rf"];
    let mut cases = Vec::new();
    for name in names {
        cases.push(Case::post("domain/name.rs check: customer", order(name, "apple", 1), 422, "invalid"));
        cases.push(Case::post("domain/name.rs check: sku", order("alice", name, 1), 422, "invalid"));
    }
    let long = "a".repeat(65);
    cases.push(Case::post("domain/name.rs check: length", order(&long, "apple", 1), 422, "invalid"));
    for (defends, quantity) in [
        ("domain/money.rs Quantity: zero", json!(0)),
        ("domain/money.rs Quantity: negative", json!(-1)),
        ("domain/money.rs Quantity: too many", json!(1_000_001)),
        ("domain/money.rs Quantity: 2^63", json!(9_223_372_036_854_775_808_u64)),
        ("domain/money.rs Quantity: -2^63", json!(i64::MIN)),
    ] {
        cases.push(Case::post(defends, order("alice", "apple", quantity), 422, "invalid"));
    }
    let past = order("alice", "apple", 1).replace(":1,", ":18446744073709551617,");
    cases.push(Case::post("domain/money.rs Quantity: 2^64 + 1", past, 422, "invalid"));
    let apple = ("apple", 1);
    cases.push(Case::post(
        "order.rs check_lines: none",
        order_body("alice", &[]).to_string(),
        422,
        "invalid",
    ));
    let twice = order_body("alice", &[apple, apple]).to_string();
    cases.push(Case::post("order.rs check_lines: one article twice", twice, 422, "invalid"));
    let many: Vec<String> = (0..51).map(|i| format!("a{i}")).collect();
    let many: Vec<(&str, u64)> = many.iter().map(|sku| (sku.as_str(), 1)).collect();
    let many = order_body("alice", &many).to_string();
    cases.push(Case::post("order.rs check_lines: 51 lines", many, 422, "invalid"));
    cases.push(Case::post(
        "order/create.rs make: unknown sku",
        order("alice", "nothing", 1),
        422,
        "unknown-sku",
    ));
    run(cases, &shop.order).await;
    nothing_was_ordered(shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money() {
    let shop = shop_with_apples().await;
    let stock = |quantity: Value, minor: Value| {
        json!({ "quantity": quantity, "price": { "currency": "EUR", "minor": minor } }).to_string()
    };
    let good = || stock(json!(1), json!(1));
    run(
        vec![
            Case::put("domain/money.rs Minor: negative", stock(json!(1), json!(-1)), 422, "invalid"),
            Case::put(
                "domain/money.rs Minor: too much",
                stock(json!(1), json!(1_000_000_000_001_u64)),
                422,
                "invalid",
            ),
            Case::put("domain/money.rs Minor: a fraction", stock(json!(1), json!(0.01)), 422, "invalid"),
            Case::put("domain/money.rs StockQuantity: negative", stock(json!(-1), json!(1)), 422, "invalid"),
            Case::put(
                "domain/money.rs StockQuantity: too many",
                stock(json!(1_000_000_001), json!(1)),
                422,
                "invalid",
            ),
            Case::put(
                "http/objects.rs: an array for a price",
                r#"{"quantity":1,"price":["EUR",1]}"#,
                422,
                "invalid",
            ),
            Case::put(
                "http/objects.rs: an array for a count",
                r#"[1,{"currency":"EUR","minor":1}]"#,
                422,
                "invalid",
            ),
            Case::put("domain/money.rs Currency", good().replace("EUR", "eur"), 422, "invalid"),
            Case::put(
                "Money deny_unknown_fields",
                good().replace(r#""minor""#, r#""x":1,"minor""#),
                422,
                "invalid",
            ),
            Case::put(
                "NewStock deny_unknown_fields",
                good().replace("{\"price", "{\"x\":1,\"price"),
                422,
                "invalid",
            ),
        ],
        &shop.inventory,
    )
    .await;
    assert_eq!(shop.inventory.get("/stock/apple").await.json()["price"]["minor"], 150);

    // A price and a quantity that are each fine, and whose product is not.
    let most = 1_000_000_000_000;
    shop.stock("gold", 1_000_000, most).await;
    shop.stock("silver", 1, most).await;
    let both = order_body("alice", &[("gold", 1), ("silver", 1)]).to_string();
    run(
        vec![
            Case::post(
                "domain/order.rs price: the product",
                order("alice", "gold", 1_000_000),
                422,
                "refused",
            ),
            Case::post("domain/order.rs price: the sum", both, 422, "refused"),
        ],
        &shop.order,
    )
    .await;

    let account = |customer: &str, minor: Value| json!({ "customer": customer, "minor": minor }).to_string();
    let top_up = |defends, body: String, problem| Case {
        path: "/accounts".into(),
        headers: vec![],
        ..Case::post(defends, body, 422, problem)
    };
    run(
        vec![
            top_up("domain/money.rs Minor: negative", account("alice", json!(-5)), "invalid"),
            top_up("domain/name.rs check: customer", account("a/b", json!(5)), "invalid"),
            top_up("http/objects.rs: an array for a top-up", r#"["alice",5,"EUR"]"#.into(), "invalid"),
            top_up(
                "TopUp deny_unknown_fields",
                r#"{"customer":"alice","minor":1,"balance":5}"#.into(),
                "invalid",
            ),
        ],
        &shop.payment,
    )
    .await;
    assert_eq!(shop.payment.get("/accounts/alice").await.status, 404, "nothing was paid in");
    for _ in 0..1_000 {
        shop.top_up("rich", most).await;
    }
    run(
        vec![top_up("domain/account.rs TopUp: the bound", account("rich", json!(1)), "refused")],
        &shop.payment,
    )
    .await;
    assert_eq!(shop.balance("rich").await, 1_000 * most);
    nothing_was_ordered(shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_queries_and_headers() {
    let shop = shop_with_apples().await;
    let good = || order("alice", "apple", 1);
    let id = "018f3c5e-0000-7000-8000-00000000002a";
    let cases = vec![
        Case::get("an unknown path", "/admin", 404, "not-found"),
        Case::get("an unknown order", &format!("/orders/{id}"), 404, "not-found"),
        Case::get("domain/name.rs OrderId: no UUID", "/orders/7", 404, "not-found"),
        Case::get(
            "domain/name.rs OrderId: one spelling",
            &format!("/orders/{}", id.to_uppercase()),
            404,
            "not-found",
        ),
        Case::get("paths: encoded traversal", "/orders/..%2f..%2fetc%2fpasswd", 404, "not-found"),
        Case::get("paths: invalid UTF-8", "/orders/%ff%fe", 404, "not-found"),
        Case::get("paths: a zero byte", "/orders/%00", 404, "not-found"),
        Case { method: "DELETE", ..Case::get("methods", "/orders", 405, "method-not-allowed") },
        Case::get("Which deny_unknown_fields", "/orders?sort=asc", 400, "bad-query"),
        Case::get("query: a parameter twice", "/orders?limit=1&limit=2", 400, "bad-query"),
        Case::get("order/read.rs list: limit 0", "/orders?limit=0", 400, "bad-query"),
        Case::get("order/read.rs list: limit 201", "/orders?limit=201", 400, "bad-query"),
        Case::get("query: a limit that is no number", "/orders?limit=-1", 400, "bad-query"),
        Case::get("query: no such status", "/orders?status=LOST", 400, "bad-query"),
        Case::get("query: no customer's name", "/orders?customer=a%20b", 400, "bad-query"),
        Case::get("query: after is no order", "/orders?after=x", 400, "bad-query"),
        Case::post("service/once.rs required", good(), 400, "idempotency-key-missing").without_key(),
        Case::post("envelope: an empty key", good(), 400, "bad-header")
            .without_key()
            .with("idempotency-key", ""),
        Case::post("envelope: two keys", good(), 400, "bad-header").with("idempotency-key", "other"),
        Case::post("envelope: a key of 9,000 bytes", good(), 400, "bad-header")
            .without_key()
            .with("idempotency-key", &"k".repeat(9_000)),
        Case::post("http/host.rs check: a name that points here", good(), 421, "misdirected")
            .with("host", "evil.example"),
        Case::post("http/host.rs check: the same at our port", good(), 421, "misdirected")
            .with("host", "evil.example:7101"),
        Case::get("http/host.rs check: reading too", "/orders", 421, "misdirected")
            .with("host", "127.0.0.1.evil.example"),
        Case::post("http/host.rs check: two hosts", good(), 400, "bad-header")
            .with("host", "localhost")
            .with("host", "evil.example"),
        Case::post("service/edge.rs presented: no receipt", good(), 400, "bad-header")
            .with("mainstay-receipt", "r1.x.1"),
        Case::post("service/edge.rs begin: no time left", good(), 503, "deadline-over")
            .with("mainstay-remaining-ms", "0"),
    ];
    run(cases, &shop.order).await;
    // http/host.rs check: no host at all, and one in the target.
    for (head, status) in [
        ("GET /orders HTTP/1.1\r\nconnection: close\r\n\r\n", 400),
        ("GET http://evil.example/orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 421),
    ] {
        assert_eq!(shop.order.raw(head.as_bytes()).await.map(|answer| answer.status), Some(status), "{head}");
    }
    // The name of a gateway that the shop was told of.
    let answer = shop.order.call("GET", "/orders", &[("host", "shop.example")], None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // Nobody gets above what a stranger may: these are passed over.
    let sly = [
        ("idempotency-key", "sly"),
        ("mainstay-priority", "critical"),
        ("mainstay-retry-tokens", "2"),
        ("mainstay-caller", "\"root\""),
        ("mainstay-actor", "\"root\""),
        ("mainstay-remaining-ms", "999999999999999"),
        ("traceparent", "00-zz-zz-00"),
    ];
    let answer = shop.order.post("/orders", &sly, &order_body("alice", &[("apple", 1)])).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    shop.close().await;
}

/// The problem of an answer that came on a connection driven by hand.
fn problem(answer: Option<Answer>) -> (u16, String) {
    let answer = answer.expect("an answer");
    (answer.status, answer.problem())
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_endless() {
    let shop = shop_with_apples().await;
    let head = "POST /orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nidempotency-key: k\r\n\
                content-type: application/json\r\n";

    // http/body.rs read, its time: a body that never comes to its end.
    let mut slow = TcpStream::connect(shop.order.addr).await.unwrap();
    slow.write_all(format!("{head}content-length: 80\r\n\r\n{{\"cust").as_bytes()).await.unwrap();
    let began = Instant::now();
    assert_eq!(problem(read(slow).await), (408, "slow-body".into()));
    assert!(began.elapsed() < limits().body_time * 10, "{:?}", began.elapsed());

    // http/body.rs read, its size: 1 MB in chunks, without a length that would have told.
    let mut endless = TcpStream::connect(shop.order.addr).await.unwrap();
    endless.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    for _ in 0..256 {
        if endless.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let answer = read(endless).await;
    assert!(answer.is_none_or(|answer| answer.status == 413), "it is not read to its end");

    // http/server.rs, the time of the head: half a request, a byte now and then.
    let mut dripping = TcpStream::connect(shop.order.addr).await.unwrap();
    let began = Instant::now();
    let dripped = async {
        for byte in head.bytes().cycle() {
            if dripping.write_all(&[byte]).await.is_err() || began.elapsed() > Duration::from_secs(10) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    dripped.await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    // http/server.rs, the size of the head.
    let long = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(40_000));
    let answer = shop.order.raw(long.as_bytes()).await;
    assert!(answer.is_none_or(|answer| answer.status == 431), "a head of 40,000 bytes");

    // A smuggled second request: two lengths that differ are no HTTP (RFC 9112 §6.3).
    let two = format!("{head}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}}}");
    assert_eq!(shop.order.raw(two.as_bytes()).await.map(|answer| answer.status), Some(400));

    assert_eq!(shop.order.get("/health/ready").await.status, 200);
    nothing_was_ordered(shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_there_are_places_wait_and_are_served() {
    // http/server.rs, the number of connections.
    let few = Limits { connections_max: 2, ..limits() };
    let shop = Shop::with(few).await;
    let silent = [
        TcpStream::connect(shop.order.addr).await.unwrap(),
        TcpStream::connect(shop.order.addr).await.unwrap(),
    ];
    let began = Instant::now();
    // Both places are taken by silence; they are free again when the head's time is over.
    assert_eq!(shop.order.get("/health/live").await.status, 200);
    assert!(began.elapsed() >= few.head_time / 2, "it waited for a place: {:?}", began.elapsed());
    drop(silent);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_no_answers_is_hung_up_on() {
    // http/progress.rs. One place, taken by somebody who asks on and on and never reads.
    let few = Limits { connections_max: 1, write_time: Duration::from_millis(300), ..limits() };
    let shop = Shop::with(few).await;
    let mut deaf = TcpStream::connect(shop.order.addr).await.unwrap();
    let ask = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(256);
    let asking = async {
        // It ends when the service takes no more; without a bound both would stand still for ever.
        while deaf.write_all(&ask).await.is_ok() {}
    };
    tokio::time::timeout(Duration::from_secs(15), asking).await.expect("it was hung up on");
    assert_eq!(shop.order.get("/health/live").await.status, 200);
    drop(deaf);
    shop.close().await;
}
