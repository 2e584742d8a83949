//! What all three documents are put together from.

use serde_json::{Map, Value, json};

use crate::domain::{LINES_MAX, Minor, Quantity, StockQuantity};
use crate::http::limits::BODY_BYTES_MAX;
use crate::http::problem::{Fault, PROBLEM_JSON};
use crate::service::metrics::TEXT_FORMAT;

/// One operation of a path.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// Names in `components/parameters`, beside the receipt that every request may present.
    pub(super) parameters: &'static [&'static str],
    /// Name in `components/schemas`.
    pub(super) body: Option<&'static str>,
    pub(super) status: u16,
    /// Name in `components/schemas`.
    pub(super) answer: &'static str,
    /// Does it change something, so that its answer carries a receipt?
    pub(super) changes: bool,
    pub(super) faults: &'static [Fault],
}

/// What may be wrong with any request.
const ALWAYS: [Fault; 9] = [
    Fault::Misdirected,
    Fault::BadHeader,
    Fault::ForeignReceipt,
    Fault::NotYet,
    Fault::Busy,
    Fault::Shed,
    Fault::NotReady,
    Fault::DeadlineOver,
    Fault::Internal,
];

/// What may be wrong with any body.
const BODY: [Fault; 6] = [
    Fault::MalformedJson,
    Fault::TooDeep,
    Fault::SlowBody,
    Fault::TooLarge,
    Fault::UnsupportedMediaType,
    Fault::Invalid,
];

/// The operations that every service has.
const COMMON: [Operation; 5] = [
    common("/health/live", "live", "Is the process alive?", "Health", &[]),
    common("/health/ready", "ready", "Can it serve?", "Health", &[Fault::NotReady]),
    common("/openapi.json", "openapi", "This document", "Document", &[]),
    common("/stats", "stats", "What it has done since it was started", "Stats", &[]),
    common("/metrics", "metrics", "How its rules stand, in the text format of Prometheus", "Metrics", &[]),
];

const fn common(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answer: &'static str,
    faults: &'static [Fault],
) -> Operation {
    Operation {
        method: "get",
        path,
        id,
        summary,
        parameters: &[],
        body: None,
        status: 200,
        answer,
        changes: false,
        faults,
    }
}

/// The whole document.
pub(super) fn document(title: &str, description: &str, operations: &[Operation], schemas: Value) -> Value {
    let mut paths = Map::new();
    for operation in operations.iter().chain(&COMMON) {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = describe(operation);
    }
    let mut all = common_schemas();
    if let (Value::Object(all), Value::Object(own)) = (&mut all, schemas) {
        all.extend(own);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": title, "version": env!("CARGO_PKG_VERSION"), "description": description },
        "paths": paths,
        "components": { "schemas": all, "parameters": parameters(), "headers": headers() },
    })
}

fn describe(operation: &Operation) -> Value {
    let mut headers = json!({ "Mainstay-Correlation-Id": reference("headers", "CorrelationId") });
    if operation.changes {
        headers["Mainstay-Receipt"] = reference("headers", "Receipt");
    }
    if operation.status == 201 {
        headers["Location"] = reference("headers", "Location");
    }
    let mut responses = Map::new();
    let answer = json!({
        "description": operation.summary,
        "headers": headers,
        "content": { media_type(operation.answer): { "schema": reference("schemas", operation.answer) } },
    });
    responses.insert(operation.status.to_string(), answer);
    let body: &[Fault] = if operation.body.is_some() { &BODY } else { &[] };
    let writes: &[Fault] = if operation.changes { &[Fault::OutcomeUnknown] } else { &[] };
    let faults: Vec<Fault> =
        operation.faults.iter().chain(body).chain(writes).chain(&ALWAYS).copied().collect();
    for fault in &faults {
        let status = fault.row().status;
        responses.entry(status.to_string()).or_insert_with(|| problem(status, &faults));
    }
    let parameters: Vec<Value> =
        operation.parameters.iter().chain(&["Receipt"]).map(|name| reference("parameters", name)).collect();
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(name) = operation.body {
        described["requestBody"] = json!({
            "required": true,
            "description": format!("At most {BODY_BYTES_MAX} bytes."),
            "content": { "application/json": { "schema": reference("schemas", name) } },
        });
    }
    described
}

/// What the answer of this schema is sent as.
fn media_type(answer: &str) -> &'static str {
    if answer == "Metrics" { TEXT_FORMAT } else { "application/json" }
}

/// One status with all the problems that have it.
fn problem(status: u16, faults: &[Fault]) -> Value {
    let mut rows: Vec<_> =
        faults.iter().map(|fault| fault.row()).filter(|row| row.status == status).collect();
    rows.sort_by_key(|row| row.name);
    rows.dedup_by_key(|row| row.name);
    let list: Vec<String> = rows.iter().map(|row| format!("`{}`: {}.", row.name, row.title)).collect();
    let mut answer = json!({
        "description": list.join(" "),
        "content": { PROBLEM_JSON: { "schema": reference("schemas", "Problem") } },
    });
    if rows.iter().any(|row| row.retry_after.is_some()) {
        answer["headers"] = json!({ "Retry-After": reference("headers", "RetryAfter") });
    }
    answer
}

pub(super) fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

/// An object with exactly these members, all of them there but the optional ones.
pub(super) fn object(members: Value, optional: &[&str]) -> Value {
    let required: Vec<&String> = members
        .as_object()
        .into_iter()
        .flat_map(|m| m.keys())
        .filter(|k| !optional.contains(&k.as_str()))
        .collect();
    json!({ "type": "object", "additionalProperties": false, "required": required, "properties": members })
}

fn common_schemas() -> Value {
    let name = json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$" });
    let range = |least: u64, most: u64| json!({ "type": "integer", "minimum": least, "maximum": most });
    let count = json!({ "type": "integer", "minimum": 0 });
    json!({
        "Name": name,
        "Uuid": { "type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$" },
        "Currency": { "type": "string", "pattern": "^[A-Z]{3}$" },
        "Minor": range(Minor::MIN, Minor::MAX),
        "Quantity": range(Quantity::MIN, Quantity::MAX),
        "StockQuantity": range(StockQuantity::MIN, StockQuantity::MAX),
        "Money": object(
            json!({ "currency": reference("schemas", "Currency"), "minor": reference("schemas", "Minor") }),
            &[],
        ),
        "Line": object(
            json!({ "sku": reference("schemas", "Name"), "quantity": reference("schemas", "Quantity") }),
            &[],
        ),
        "Lines": {
            "type": "array", "minItems": 1, "maxItems": LINES_MAX, "items": reference("schemas", "Line"),
        },
        "Problem": object(
            json!({
                "type": { "type": "string" },
                "title": { "type": "string" },
                "status": { "type": "integer", "minimum": 400, "maximum": 599 },
                "detail": { "type": "string" },
                "decision": {
                    "description": "Of a refusal by a rule: the decision, by which operators find what it was made of.",
                    "type": "string", "pattern": "^[0-9a-f]{16}$",
                },
            }),
            &["decision"],
        ),
        "Health": object(json!({ "status": { "type": "string" } }), &[]),
        "Document": { "type": "object" },
        "Metrics": { "type": "string" },
        "Stats": object(
            json!({
                "service": { "type": "string" },
                "requests": { "description": "Requests since the start.", "type": "integer", "minimum": 0 },
                "waiting": { "description": "Requests that wait now, as `Prefer: wait` asks for.", "type": "integer", "minimum": 0 },
                "failures": { "description": "Requests since the start that were answered with 500. Causes are in the service's log, some for each second.", "type": "integer", "minimum": 0 },
                "commits": {
                    "description": "Transactions of requests that were acknowledged since the start; those that handle followed facts are not counted.",
                    "type": "integer", "minimum": 0,
                },
                "published": { "description": "Outbox rows of this store that are marked as published, ever.", "type": "integer", "minimum": 0 },
                "handled": { "description": "Followed messages whose effect was worked out since the start; one that is worked out again counts again.", "type": "integer", "minimum": 0 },
                "backlog": { "description": "Outbox rows that are not marked as published yet.", "type": "integer", "minimum": 0 },
                "parked": { "description": "Messages that are set aside (dead letters, and those that wait behind them).", "type": "integer", "minimum": 0 },
                "metrics": {
                    "description": "What /metrics shows, each figure by its name and labels.",
                    "type": "object", "additionalProperties": { "type": "number" },
                },
            }),
            &[],
        ),
        "Count": count,
    })
}

fn headers() -> Value {
    json!({
        "CorrelationId": {
            "description": "What everything that comes of this request has in common, a UUID in quotes (RFC 9651 String).",
            "schema": { "type": "string" },
        },
        "Receipt": {
            "description": "Stands for this change. Present it to any service that follows this one to see the change there.",
            "schema": { "type": "string" },
        },
        "Location": { "description": "Where the order is.", "schema": { "type": "string" } },
        "RetryAfter": { "description": "In seconds. Without it the same request must not be sent again by itself: of `outcome-unknown`, where no Idempotency-Key was sent.", "schema": { "type": "integer" } },
    })
}

fn parameters() -> Value {
    let header = |name: &str, required: bool, description: &str, schema: Value| json!({ "name": name, "in": "header", "required": required, "description": description, "schema": schema });
    let query = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "query", "required": false, "description": description, "schema": schema });
    let path =
        |name: &str, schema: Value| json!({ "name": name, "in": "path", "required": true, "schema": schema });
    let key = json!({ "type": "string", "pattern": "^[A-Za-z0-9._~-]{1,255}$" });
    let key_text = "Names the effect that is meant: the same key with the same body is answered again and done once, \
                    for 24 hours. Make a new UUID for each new effect.";
    json!({
        "Receipt": header(
            "Mainstay-Receipt",
            false,
            "A receipt as answered by a service. The request waits, for some seconds at most, until that change is seen here.",
            json!({ "type": "string", "pattern": "^r1[.][0-9a-f]{32}[.](0|[1-9][0-9]{0,18})$" }),
        ),
        "IdempotencyKey": header("Idempotency-Key", true, key_text, key.clone()),
        "OptionalIdempotencyKey": header("Idempotency-Key", false, key_text, key.clone()),
        "Prefer": header(
            "Prefer",
            false,
            "`wait=N` (RFC 7240): answer when the order is final, or after N seconds. Other preferences are passed over.",
            json!({ "type": "string" }),
        ),
        "OrderId": path("id", reference("schemas", "Uuid")),
        "CustomerPath": path("customer", reference("schemas", "Name")),
        "SkuPath": path("sku", reference("schemas", "Name")),
        "KeyPath": path("key", key),
        "Customer": query("customer", "Only this customer's.", reference("schemas", "Name")),
        "Status": query("status", "Only those.", reference("schemas", "Status")),
        "After": query("after", "Only what follows this order; `next` of the page before.", reference("schemas", "Uuid")),
        "Limit": query(
            "limit",
            "At most so many.",
            json!({ "type": "integer", "minimum": 1, "maximum": crate::http::limits::PAGE_ROWS_MAX }),
        ),
    })
}
