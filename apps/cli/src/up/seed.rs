//! Demonstration data, placed through the services' HTTP interfaces as any client would.

use anyhow::Result;
use hyper::{Method, StatusCode};
use serde_json::json;

use super::addresses::Addresses;
use crate::folder::Service;
use crate::http::Http;

/// Whose account there is.
pub(super) const CUSTOMER: &str = "alice";
/// What is in stock.
pub(super) const SKU: &str = "apple";
/// What she has to spend, in cents: more than the whole stock costs, so that an order beyond it is paid first and
/// refunded then.
const MINOR: i64 = 100_000;
const QUANTITY: u64 = 100;
const PRICE: i64 = 250;
const CURRENCY: &str = "EUR";

/// Opens alice's account and lays apples in, unless they are there; returns when orders can be placed. What is
/// there is left as it is, so a second start gives nothing away.
pub(super) async fn seed(http: &Http, addresses: &Addresses) -> Result<()> {
    let payment = addresses.url(Service::Payment);
    let answer = http.send(Method::GET, &format!("{payment}/accounts/{CUSTOMER}"), &[], None).await?;
    if answer.status == StatusCode::NOT_FOUND {
        // One key for ever: two seeds at once, or one that was cut off and came again, open one account.
        let body = json!({ "customer": CUSTOMER, "minor": MINOR });
        let key = [("idempotency-key", "seed-demo")];
        let answer = http.send(Method::POST, &format!("{payment}/accounts"), &key, Some(&body)).await?;
        answer.success("alice's account")?;
    } else {
        answer.success("alice's account")?;
    }
    let stock = format!("{}/stock/{SKU}", addresses.url(Service::Inventory));
    let answer = http.send(Method::GET, &stock, &[], None).await?;
    if answer.status != StatusCode::NOT_FOUND {
        answer.success("the stock of apples")?;
        return Ok(());
    }
    let body = json!({ "quantity": QUANTITY, "price": { "currency": CURRENCY, "minor": PRICE } });
    let answer = http.send(Method::PUT, &stock, &[], Some(&body)).await?.success("the stock of apples")?;
    if let Some(receipt) = answer.header("mainstay-receipt") {
        // Returns when the price has reached the order service: an order for an unknown article is refused.
        let orders = format!("{}/orders?customer={CUSTOMER}", addresses.url(Service::Order));
        let answer = http.send(Method::GET, &orders, &[("mainstay-receipt", receipt)], None).await?;
        answer.success("the price of apples, as the order service knows it")?;
    }
    Ok(())
}
