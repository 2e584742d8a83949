//! The catalogue, and the figures.

use std::collections::BTreeMap;

use serde_json::json;

use crate::kit::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_is_loaded_once_for_many_and_anew_when_inventory_says_so() {
    let shop = Shop::open().await;
    assert_eq!(shop.order.get("/catalogue/apple").await.status, 404);
    // Known at once, though it was just remembered that there is none.
    let counted = shop.stock("apple", 10, 150).await;
    let article = |minor: u64, available: bool| json!({ "sku": "apple", "price": { "currency": "EUR", "minor": minor }, "available": available, "stale": false });
    let ask = async |receipt: &str| {
        shop.order.call("GET", "/catalogue/apple", &[("mainstay-receipt", receipt)], None).await.json()
    };
    assert_eq!(ask(counted.receipt()).await, article(150, true));
    for _ in 0..50 {
        shop.order.get("/catalogue/apple").await;
    }
    let stats = shop.order.get("/stats").await.json();
    let figure = |name: &str| {
        stats["metrics"][format!("mainstay_cache_{name}{{cache=\"catalogue\"}}")].as_f64().unwrap()
    };
    assert!(figure("loads_total") < 25.0, "{stats:#}");
    assert!(figure("hits_total") + figure("stale_total") > 25.0, "{stats:#}");
    let counted = shop.stock("apple", 0, 200).await;
    assert_eq!(ask(counted.receipt()).await, article(200, false));
    shop.close().await;
}

/// The text format of Prometheus, 0.0.4, as its own document describes it: figures by name and labels, kinds by name.
fn parsed(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    let (mut figures, mut kinds) = (BTreeMap::new(), BTreeMap::new());
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes twice");
            family = name.to_owned();
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let bare = name.split('{').next().unwrap();
            assert!(bare.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
            assert_eq!(bare, family, "{line} does not stand with its family");
            assert!(figures.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{name} comes twice");
        }
    }
    (figures, kinds)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_shows_its_figures_in_the_text_format_of_prometheus() {
    let shop = Shop::open().await;
    for (client, wanted) in [
        (
            &shop.order,
            vec![
                "mainstay_cache_entries{cache=\"catalogue\"}",
                "mainstay_bulkhead_permits{policy=\"inventory\"}",
            ],
        ),
        (
            &shop.payment,
            vec![
                "mainstay_circuit_breaker_state{policy=\"processor\",state=\"closed\"}",
                "mainstay_retry_budget_tokens{policy=\"processor\"}",
                "mainstay_retries_total{policy=\"processor\"}",
                "mainstay_retry_budget_refused_total{policy=\"processor\"}",
                "shop_card_outcomes_total{outcome=\"charged\"}",
            ],
        ),
        (&shop.inventory, vec!["mainstay_load_shed_limit{policy=\"inventory\"}"]),
        (
            &shop.processor,
            vec![
                "mainstay_watchdog_tasks",
                "mainstay_load_shed_refused_total{policy=\"processor\",priority=\"low\"}",
            ],
        ),
    ] {
        let answer = client.get("/metrics").await;
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let (figures, kinds) = parsed(std::str::from_utf8(&answer.body).unwrap());
        assert!(!kinds.is_empty());
        for name in wanted {
            assert!(figures.contains_key(name), "{name} is not among {figures:#?}");
        }
    }
    shop.close().await;
}
