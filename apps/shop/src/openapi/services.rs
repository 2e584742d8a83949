//! The three documents.

use serde_json::{Value, json};

use super::parts::{Operation, document, object, reference};
use crate::domain::account::BALANCE_MAX;
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
            }),
            &["currency"],
        ),
        "Account": object(
            json!({
                "customer": reference("schemas", "Name"),
                "currency": reference("schemas", "Currency"),
                "minor": {
                    "description": format!("A payment brings it to {BALANCE_MAX} at most; refunds may go past that."),
                    "type": "integer",
                    "minimum": 0,
                },
            }),
            &[],
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
