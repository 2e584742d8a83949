//! The documents of the services.

use serde_json::{Value, json};

use super::parts::{Operation, document, object, reference};
use crate::domain::account::BALANCE_MAX;
use crate::http::limits::{DELAY_MS_MAX, PERIOD_MAX};
use crate::http::problem::Fault;

/// The document of the order service.
pub fn order() -> Value {
    let operations = [
        Operation {
            method: "post",
            path: "/orders",
            id: "createOrder",
            summary: "Makes an order",
            parameters: &["IdempotencyKey"],
            body: Some("NewOrder"),
            status: 201,
            answer: "Order",
            changes: true,
            faults: &[Fault::KeyMissing, Fault::KeyReused, Fault::UnknownSku, Fault::Refused],
        },
        Operation {
            method: "get",
            path: "/orders",
            id: "listOrders",
            summary: "Orders, the oldest first. A page may be short; there is more while `next` is there. With `status`, an \
                      order that takes on that status while the pages are read may be on none of them",
            parameters: &["Customer", "Status", "After", "Limit"],
            body: None,
            status: 200,
            answer: "Orders",
            changes: false,
            faults: &[Fault::BadQuery],
        },
        Operation {
            method: "get",
            path: "/orders/{id}",
            id: "getOrder",
            summary: "One order with its history",
            parameters: &["OrderId", "Prefer"],
            body: None,
            status: 200,
            answer: "Order",
            changes: false,
            faults: &[Fault::NotFound],
        },
        Operation {
            method: "get",
            path: "/catalogue/{sku}",
            id: "getArticle",
            summary: "What an article costs and whether it is there, for those who look around: some seconds old at most, \
                      older while Inventory does not answer",
            parameters: &["SkuPath"],
            body: None,
            status: 200,
            answer: "Article",
            changes: false,
            faults: &[Fault::NotFound, Fault::CalleeUnavailable],
        },
    ];
    let text = json!({ "type": "string" });
    let entry = json!({
        "type": "object",
        "required": ["at", "event"],
        "properties": { "at": { "type": "string", "format": "date-time" }, "event": text },
    });
    let schemas = json!({
        "Status": { "enum": ["PENDING", "CONFIRMED", "CANCELLED"] },
        "NewOrder": object(
            json!({ "customer": reference("schemas", "Name"), "lines": reference("schemas", "Lines") }),
            &[],
        ),
        "PricedLine": object(
            json!({
                "sku": reference("schemas", "Name"),
                "quantity": reference("schemas", "Quantity"),
                "minor": reference("schemas", "Minor"),
            }),
            &[],
        ),
        "Order": object(
            json!({
                "id": reference("schemas", "Uuid"),
                "customer": reference("schemas", "Name"),
                "status": reference("schemas", "Status"),
                "amount": reference("schemas", "Money"),
                "lines": { "type": "array", "items": reference("schemas", "PricedLine") },
                "reason": { "type": ["string", "null"] },
                "correlation_id": reference("schemas", "Uuid"),
                "history": { "type": "array", "items": entry },
            }),
            &[],
        ),
        "Article": object(
            json!({
                "sku": reference("schemas", "Name"),
                "price": reference("schemas", "Money"),
                "available": { "type": "boolean" },
                "stale": {
                    "description": "It is older than it should be, because Inventory is slow or does not answer.",
                    "type": "boolean",
                },
            }),
            &[],
        ),
        "Orders": object(
            json!({
                "orders": { "type": "array", "items": reference("schemas", "Order") },
                "next": reference("schemas", "Uuid"),
            }),
            &["next"],
        ),
    });
    document("Mainstay shop: orders", "Makes orders and tells how they went.", &operations, schemas)
}

/// The document of the payment service.
pub fn payment() -> Value {
    let operations = [
        Operation {
            method: "post",
            path: "/accounts",
            id: "topUp",
            summary: "Pays into an account, and opens it if need be",
            parameters: &["OptionalIdempotencyKey"],
            body: Some("TopUp"),
            status: 200,
            answer: "Account",
            changes: true,
            faults: &[Fault::KeyReused, Fault::Refused],
        },
        Operation {
            method: "get",
            path: "/accounts/{customer}",
            id: "getAccount",
            summary: "What is on an account",
            parameters: &["CustomerPath"],
            body: None,
            status: 200,
            answer: "Account",
            changes: false,
            faults: &[Fault::NotFound],
        },
    ];
    let schemas = json!({
        "Status": { "type": "string" },
        "TopUp": object(
            json!({
                "customer": reference("schemas", "Name"),
                "minor": reference("schemas", "Minor"),
                "currency": reference("schemas", "Currency"),
                "funding": reference("schemas", "Funding"),
            }),
            &["currency", "funding"],
        ),
        "Funding": {
            "description": "`prepaid`, which it is when nothing is said: orders are paid out of what was paid in. `card`: the card processor charges them, and nothing lies on the account, so `minor` is 0.",
            "enum": ["prepaid", "card"],
        },
        "Account": object(
            json!({
                "customer": reference("schemas", "Name"),
                "currency": reference("schemas", "Currency"),
                "minor": {
                    "description": format!("A payment brings it to {BALANCE_MAX} at most; refunds may go past that."),
                    "type": "integer",
                    "minimum": 0,
                },
                "funding": reference("schemas", "Funding"),
            }),
            &["funding"],
        ),
    });
    document("Mainstay shop: payment", "Keeps accounts, and charges orders to them.", &operations, schemas)
}

/// The document of the inventory service.
pub fn inventory() -> Value {
    let operations = [
        Operation {
            method: "put",
            path: "/stock/{sku}",
            id: "setStock",
            summary: "Counts and prices an article",
            parameters: &["SkuPath", "OptionalIdempotencyKey"],
            body: Some("NewStock"),
            status: 200,
            answer: "Stock",
            changes: true,
            faults: &[Fault::NotFound, Fault::KeyReused],
        },
        Operation {
            method: "get",
            path: "/stock/{sku}",
            id: "getStock",
            summary: "How many there are of an article, and its price",
            parameters: &["SkuPath"],
            body: None,
            status: 200,
            answer: "Stock",
            changes: false,
            faults: &[Fault::NotFound],
        },
    ];
    let schemas = json!({
        "Status": { "type": "string" },
        "NewStock": object(
            json!({ "quantity": reference("schemas", "StockQuantity"), "price": reference("schemas", "Money") }),
            &[],
        ),
        "Stock": object(
            json!({
                "sku": reference("schemas", "Name"),
                "quantity": reference("schemas", "StockQuantity"),
                "price": reference("schemas", "Money"),
            }),
            &[],
        ),
    });
    document("Mainstay shop: inventory", "Keeps the stock, and reserves it for orders.", &operations, schemas)
}

/// The document of the card processor.
pub fn processor() -> Value {
    let get = |path, id, summary, parameters, answer, faults| Operation {
        method: "get",
        path,
        id,
        summary,
        parameters,
        body: None,
        status: 200,
        answer,
        changes: false,
        faults,
    };
    let operations = [
        Operation {
            method: "post",
            path: "/charges",
            id: "charge",
            summary: "Charges a card, once for each key",
            parameters: &["IdempotencyKey"],
            body: Some("Charge"),
            status: 201,
            answer: "Entry",
            changes: false,
            faults: &[
                Fault::KeyMissing,
                Fault::KeyReused,
                Fault::CardDeclined,
                Fault::ChargeVoided,
                Fault::Simulated,
                Fault::OutcomeUnknown,
            ],
        },
        Operation {
            method: "post",
            path: "/voids",
            id: "void",
            summary: "Makes sure that nothing is charged under a key, now or later",
            parameters: &["OptionalIdempotencyKey"],
            body: Some("Void"),
            status: 200,
            answer: "Entry",
            changes: false,
            faults: &[Fault::Simulated, Fault::OutcomeUnknown],
        },
        get("/charges/{key}", "getCharge", "What became of a key", &["KeyPath"], "Entry", &[Fault::NotFound]),
        get("/ledger", "getLedger", "The sums of the books", &[], "Ledger", &[]),
        get("/behaviour", "getBehaviour", "How it behaves", &[], "Behaviour", &[]),
        Operation {
            method: "put",
            path: "/behaviour",
            id: "setBehaviour",
            summary: "From now on, and until it is started anew, it behaves so",
            parameters: &[],
            body: Some("Behaviour"),
            status: 200,
            answer: "Behaviour",
            changes: false,
            faults: &[],
        },
    ];
    let key = json!({ "type": "string", "pattern": "^[A-Za-z0-9._~-]{1,255}$" });
    let charge = json!({ "card": reference("schemas", "Name"), "amount": reference("schemas", "Money") });
    let count = || reference("schemas", "Count");
    let schemas = json!({
        "Status": { "enum": ["CHARGED", "DECLINED", "VOIDED"] },
        "Charge": object(charge, &[]),
        "Void": object(json!({ "charge": key }), &[]),
        "Entry": object(
            json!({ "key": key, "status": reference("schemas", "Status"), "charge": reference("schemas", "Charge") }),
            &["charge"],
        ),
        "Ledger": object(
            json!({
                "entries": count(), "charged": count(), "declined": count(), "voided": count(),
                "net": {
                    "description": "Charged and not voided, in minor units, by currency.",
                    "type": "object", "additionalProperties": count(),
                },
            }),
            &[],
        ),
        "Behaviour": object(
            json!({
                "mode": { "enum": ["well", "slow", "failing", "flapping", "hanging", "declining"] },
                "delay_ms": {
                    "description": "Of `slow`.", "type": "integer", "minimum": 1, "maximum": DELAY_MS_MAX,
                },
                "period": {
                    "description": "Of `flapping`: so many calls are answered, the next so many fail, and so on.",
                    "type": "integer", "minimum": 1, "maximum": PERIOD_MAX,
                },
                "after_effect": {
                    "description": "It does what it was asked for, and only then is slow, fails or hangs.",
                    "type": "boolean",
                },
            }),
            &["delay_ms", "period", "after_effect"],
        ),
    });
    document(
        "A card processor, simulated",
        "Charges cards, and behaves as it is told to.",
        &operations,
        schemas,
    )
}
