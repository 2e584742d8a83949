//! What `#[derive(Event)]` stores and reads.

use mainstay_flow::{Event, Undecodable};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Moved {
    to: String,
}

#[derive(Clone, Debug, PartialEq, Event)]
#[event(crate = "mainstay_flow")]
enum Everything {
    Named {
        #[event(tag)]
        customer: String,
        #[event(tag = "seat")]
        number: u8,
        #[serde(default)]
        note: Option<String>,
    },
    #[event(name = "RelocatedTo")]
    Newtype(Moved),
    #[serde(rename_all = "camelCase")]
    Renamed {
        two_words: u8,
        r#type: u8,
    },
    Tagged(#[event(tag = "code")] u32),
    #[event(schema = 3, upcast = steps)]
    Upcast {
        cents: u64,
    },
    Unit,
}

fn steps(from: u32, payload: Value) -> Result<Value, &'static str> {
    match from {
        1 => Ok(json!({ "euros": payload["amount"] })),
        2 => Ok(json!({ "cents": payload["euros"].as_u64().ok_or("no euros")? * 100 })),
        _ => Err("no such schema"),
    }
}

fn decode(name: &str, schema: u32, json: &str) -> Result<Everything, Undecodable> {
    Everything::decode(name, schema, json.as_bytes())
}

#[test]
fn each_shape_is_stored_as_the_json_of_its_fields_and_read_back() {
    let named = Everything::Named { customer: "alice".into(), number: 7, note: None };
    let rows = [
        (named, "Named", r#"{"customer":"alice","number":7,"note":null}"#),
        (Everything::Newtype(Moved { to: "x".into() }), "RelocatedTo", r#"{"to":"x"}"#),
        (Everything::Renamed { two_words: 1, r#type: 2 }, "Renamed", r#"{"twoWords":1,"type":2}"#),
        (Everything::Tagged(9), "Tagged", "9"),
        (Everything::Upcast { cents: 5 }, "Upcast", r#"{"cents":5}"#),
        (Everything::Unit, "Unit", "{}"),
    ];
    for (event, name, json) in rows {
        assert_eq!(event.event_type(), name);
        assert_eq!(String::from_utf8(event.encode().unwrap()).unwrap(), json);
        assert_eq!(decode(name, event.schema(), json).unwrap(), event);
    }
    assert_eq!(Everything::types(), ["Named", "RelocatedTo", "Renamed", "Tagged", "Upcast", "Unit"]);
}

#[test]
fn tags_come_from_their_fields_and_a_value_that_makes_no_tag_is_refused() {
    let tags = |event: Everything| -> Vec<String> {
        event.tags().unwrap().iter().map(ToString::to_string).collect()
    };
    let named = |customer: &str| Everything::Named { customer: customer.into(), number: 7, note: None };
    assert_eq!(tags(named("alice")), ["customer:alice", "seat:7"]);
    assert_eq!(tags(Everything::Tagged(9)), ["code:9"]);
    assert!(tags(Everything::Unit).is_empty());
    assert!(named("a\nb").tags().is_err(), "a control character");
    assert!(named(&"a".repeat(300)).tags().is_err(), "too long");
}

#[test]
fn older_schemas_are_upcast_step_by_step_and_newer_ones_refused() {
    assert_eq!(Everything::Upcast { cents: 0 }.schema(), 3);
    assert_eq!(decode("Upcast", 1, r#"{"amount":2}"#), Ok(Everything::Upcast { cents: 200 }));
    assert_eq!(decode("Upcast", 2, r#"{"euros":2}"#), Ok(Everything::Upcast { cents: 200 }));
    assert!(matches!(decode("Upcast", 2, "{}"), Err(Undecodable::Upcast { from: 2, .. })));
    assert!(matches!(decode("Upcast", 4, "{}"), Err(Undecodable::Newer { schema: 4, known: 3, .. })));
}

#[test]
fn fields_added_with_a_default_and_fields_not_known_do_not_stop_a_reader() {
    let read = decode("Named", 1, r#"{"customer":"alice","number":7,"unheard":true}"#).unwrap();
    assert_eq!(read, Everything::Named { customer: "alice".into(), number: 7, note: None });
    assert_eq!(decode("Unit", 1, r#"{"later":1}"#), Ok(Everything::Unit));
}

#[test]
fn what_does_not_fit_is_an_error_and_never_a_panic() {
    assert!(matches!(decode("Unheard", 1, "{}"), Err(Undecodable::UnknownType { .. })));
    for json in ["", "null", "[]", "{", r#"{"customer":1,"number":7}"#, "\u{0}"] {
        assert!(matches!(decode("Named", 1, json), Err(Undecodable::Payload { .. })), "{json:?}");
    }
}
