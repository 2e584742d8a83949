//! What `up` prints when everything runs: lines that work when pasted.

use std::collections::BTreeMap;
use std::path::Path;

use mainstay::Context;
use serde::Serialize;

use super::addresses::Addresses;
use super::seed::{CUSTOMER, SKU};
use crate::folder::Service;
use crate::place::Given;

/// The greeting, and its JSON form.
#[derive(Debug, Serialize)]
pub(super) struct Greeting {
    event: &'static str,
    /// By service.
    urls: BTreeMap<&'static str, String>,
    data: String,
    /// A shell line that places an order. Pasted twice it is the same order, because its key is the same.
    place: String,
    /// A shell line that shows it.
    see: String,
    /// A shell line that shows all that came of it.
    story: String,
}

impl Greeting {
    pub(super) fn new(cx: &Context, addresses: &Addresses, data: &Path, store: Option<&Given>) -> Self {
        let (key, correlation) = (cx.new_id(), cx.new_id());
        let order = addresses.url(Service::Order);
        let body = format!(r#"{{"customer":"{CUSTOMER}","lines":[{{"sku":"{SKU}","quantity":2}}]}}"#);
        // Without a password: it is the reader's to provide, by PGPASSWORD or ~/.pgpass.
        let store = store.map_or(String::new(), |store| format!(" --store {}", quoted(&store.shown())));
        let program = std::env::args().next().unwrap_or_else(|| "mainstay".to_owned());
        Self {
            event: "up",
            urls: Service::ALL.map(|service| (service.name(), addresses.url(service))).into(),
            data: data.display().to_string(),
            place: format!(
                "curl -sS {order}/orders -H 'Content-Type: application/json' -H 'Idempotency-Key: {key}' \
                 -H 'Mainstay-Correlation-Id: \"{correlation}\"' -d '{body}'"
            ),
            see: format!("curl -sS '{order}/orders?customer={CUSTOMER}'"),
            story: format!(
                "{} saga show {correlation} --data {}{store}",
                quoted(&program),
                quoted(&data.to_string_lossy())
            ),
        }
    }

    pub(super) fn text(&self) -> String {
        let url = |service: Service| self.urls.get(service.name()).map_or("", String::as_str);
        format!(
            "\nup, with its data in {} (Ctrl-C ends it)\n\n  order      {}   interface: /openapi.json\n  payment    {}\n  \
             inventory  {}\n  processor  {}   of cards, simulated\n\nplace an order:\n  {}\nsee the orders:\n  {}\nsee all that came of it:\n  {}\n",
            self.data,
            url(Service::Order),
            url(Service::Payment),
            url(Service::Inventory),
            url(Service::Processor),
            self.place,
            self.see,
            self.story
        )
    }
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    if !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c)) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
