//! CloudEvents: what is written in any of the three modes is read back, and what is hostile is refused by name.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers are part of the tests")]

use mainstay_envelope::cloud_event::{
    ATTRIBUTE_BYTES_MAX, BATCH_EVENTS_MAX, CloudEvent, CloudEventError, EXTENSIONS_MAX, JSON_BYTES_MAX,
    batch_from_json, json_batch,
};
use mainstay_envelope::{
    Actor, CausationId, CorrelationId, Fact, SeededChance, Tenant, Timestamp, TraceContext,
};
use proptest::prelude::*;

// ---- round trips ----

/// Text that the specification allows, with what is awkward in JSON and in headers.
fn text(from: usize) -> impl Strategy<Value = String> {
    let awkward = prop_oneof![
        Just(' '),
        Just('"'),
        Just('\\'),
        Just('%'),
        Just(','),
        Just('\u{A0}'),
        Just('€'),
        Just('🦀'),
        Just('\u{2028}'),
        Just('\u{FFFD}'),
        Just('\u{E000}'),
        prop::char::range('!', '~'),
    ];
    prop::collection::vec(awkward, from..12).prop_map(|chars| chars.into_iter().collect())
}

fn event() -> impl Strategy<Value = CloudEvent> {
    let source = prop_oneof![
        Just("/shop/order".to_owned()),
        Just("https://shop.example/a?b=%20#c".to_owned()),
        Just("urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66".to_owned()),
        Just("../x:y".to_owned()),
        "[a-zA-Z0-9._~/@!$&'()*+,;=-]{1,10}",
    ];
    let media_type = prop_oneof![
        Just("application/json".to_owned()),
        Just("application/JSON; charset=utf-8".to_owned()),
        Just("application/vnd.shop+json".to_owned()),
        Just("text/plain".to_owned()),
        Just("application/octet-stream".to_owned()),
        Just("text/xml;p=\"q r\"".to_owned()),
    ];
    let schema = prop_oneof![Just("urn:s:1".to_owned()), Just("http://x/y#z".to_owned())];
    let time = (-62_167_219_200_000_i64..=253_402_300_799_999).prop_map(Timestamp::from_millis);
    let extensions = prop::collection::btree_map("x[a-z0-9]{0,19}", text(0), 0..4);
    let optional = (
        prop::option::of(text(1)),
        prop::option::of(time),
        prop::option::of(media_type),
        prop::option::of(schema),
        extensions,
    );
    (text(1), source, text(1), optional).prop_map(
        |(id, source, event_type, (subject, time, media_type, schema, extensions))| {
            let mut event = CloudEvent::new(id, source, event_type).unwrap();
            if let Some(subject) = subject {
                event = event.with_subject(subject).unwrap();
            }
            if let Some(time) = time {
                event = event.with_time(time).unwrap();
            }
            if let Some(media_type) = media_type {
                event = event.with_data_content_type(media_type).unwrap();
            }
            if let Some(schema) = schema {
                event = event.with_data_schema(schema).unwrap();
            }
            for (name, value) in extensions {
                event = event.with_extension(name, value).unwrap();
            }
            event
        },
    )
}

/// Data of every kind: none, nothing, JSON, JSON with blanks around, text, bytes.
fn data() -> impl Strategy<Value = Option<Vec<u8>>> {
    let json = prop_oneof![
        Just("null"),
        Just("{\"a\": [1, 2.50, true], \"a\": \"twice\"}"),
        Just("\"text\""),
        Just("0"),
        Just(" {} "),
        Just("[]\n"),
        Just("{"),
    ];
    prop::option::of(prop_oneof![
        json.prop_map(|json| json.as_bytes().to_vec()),
        ".{0,20}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..40),
    ])
}

proptest! {
    #[test]
    fn an_event_comes_back_from_structured_mode_as_it_was(event in event(), data in data()) {
        let json = event.to_json(data.as_deref());
        prop_assert_eq!(CloudEvent::from_json(&json), Ok((event, data)));
        // And others can read it as JSON.
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
    }

    #[test]
    fn events_come_back_from_batched_mode_as_they_were(
        batch in prop::collection::vec((event(), data()), 0..4),
    ) {
        let json = json_batch(batch.iter().map(|(event, data)| (event, data.as_deref())));
        prop_assert_eq!(batch_from_json(&json), Ok(batch));
    }

    #[test]
    fn an_event_comes_back_from_binary_mode_as_it_was(event in event(), upper: bool) {
        let mut fields = event.to_headers();
        for (name, value) in &mut fields {
            prop_assert!(value.bytes().all(|byte| (0x20..0x7F).contains(&byte)), "{}: {}", name, value);
            if upper {
                name.make_ascii_uppercase();
            }
        }
        fields.push(("x-other".into(), "\u{80}".into()));
        prop_assert_eq!(CloudEvent::from_headers(fields), Ok(event));
    }

    #[test]
    fn no_bytes_make_reading_panic_and_what_is_read_can_be_written(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        event in event(),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let _ = CloudEvent::from_json(&bytes);
        let _ = batch_from_json(&bytes);
        let _ = CloudEvent::from_headers([("ce-id", &bytes)]);
        // One byte of a good one spoilt: refused, or an event like any other.
        let mut json = event.to_json(Some(b"{}"));
        let at = at.index(json.len());
        json[at] = byte;
        if let Ok((event, data)) = CloudEvent::from_json(&json) {
            let again = CloudEvent::from_json(&event.to_json(data.as_deref()));
            prop_assert_eq!(again, Ok((event, data)));
        }
    }

    #[test]
    fn a_fact_travels_with_an_event(seed: u64, tenant in prop::option::of(text(1)), actor in prop::option::of(text(1))) {
        let chance = SeededChance::new(seed);
        let fact = Fact {
            trace: (seed % 2 == 0).then(|| TraceContext::random(&chance).parent()),
            correlation: if seed % 3 == 0 { CorrelationId::default() } else { CorrelationId::random(&chance) },
            causation: (seed % 5 != 0).then(|| CausationId(CorrelationId::random(&chance).0)),
            tenant: tenant.and_then(|tenant| Tenant::new(tenant).ok()),
            actor: actor.and_then(|actor| Actor::new(actor).ok()),
        };
        let event = CloudEvent::new("1", "/s", "T").unwrap().with_fact(&fact).unwrap();
        let (read, _) = CloudEvent::from_json(&event.to_json(None)).unwrap();
        prop_assert_eq!(read.fact(), Ok(fact));
    }
}

/// The longest actor and tenant, and characters that a name may have and an attribute may not: the relay of a
/// fact never fails for them.
#[test]
fn any_fact_can_travel() {
    let fact = Fact {
        actor: Some(Actor::new("a\u{FFFE}b".to_owned() + &"x".repeat(Actor::MAX_BYTES - 5)).unwrap()),
        tenant: Some(Tenant::new("\u{FDD0}").unwrap()),
        ..Fact::default()
    };
    let event = CloudEvent::new("1", "/s", "T").unwrap().with_fact(&fact).unwrap();
    assert_eq!(event.fact().unwrap().tenant, Some(Tenant::new("\u{FFFD}").unwrap()));
    assert!(event.extension("actor").unwrap().starts_with("a\u{FFFD}bxx"));
    let odd = |name: &str, value: &str| {
        CloudEvent::new("1", "/s", "T").unwrap().with_extension(name, value).unwrap().fact()
    };
    for (name, value) in [("correlationid", "17"), ("causationid", ""), ("tenant", ""), ("actor", "")] {
        assert_eq!(odd(name, value).unwrap_err().attribute(), Some(name));
    }
    assert_eq!(odd("traceparent", "nonsense").unwrap().trace, None);
}

// ---- what others write ----

#[test]
fn the_specifications_own_examples_are_read() {
    let json = br#"{
        "specversion" : "1.0", "type" : "com.example.someevent", "source" : "/mycontext",
        "subject": null, "id" : "C234-1234-1234", "time" : "2018-04-05T17:31:00Z",
        "comexampleextension1" : "value", "comexampleothervalue" : 5, "flag": true, "unsetextension": null,
        "datacontenttype" : "application/json", "data" : { "appinfoA" : "abc", "appinfoB" : 123 }
    }"#;
    let (event, data) = CloudEvent::from_json(json).unwrap();
    assert_eq!(
        (event.id(), event.source(), event.event_type()),
        ("C234-1234-1234", "/mycontext", "com.example.someevent")
    );
    assert_eq!((event.subject(), event.time()), (None, Some(Timestamp::from_millis(1_522_949_460_000))));
    assert_eq!(event.extension("comexampleothervalue"), Some("5"));
    assert_eq!((event.extension("flag"), event.extension("unsetextension")), (Some("true"), None));
    assert_eq!(data.as_deref(), Some(&br#"{ "appinfoA" : "abc", "appinfoB" : 123 }"#[..]));

    // Text of another content type is the string's text; without a content type a string is JSON.
    let of = |rest: &str| {
        let json = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"T",{rest}}}"#);
        CloudEvent::from_json(json.as_bytes()).unwrap().1
    };
    assert_eq!(of(r#""datacontenttype":"application/xml","data":"<a b=\"c\"/>""#).unwrap(), b"<a b=\"c\"/>");
    assert_eq!(of(r#""data":"I'm just a string""#).unwrap(), b"\"I'm just a string\"");
    assert_eq!(of(r#""data":null"#).unwrap(), b"null");
    assert_eq!(of(r#""datacontenttype":"text/plain","data":null"#), None);
    assert_eq!(of(r#""data_base64":"AAEC/w==""#).unwrap(), [0, 1, 2, 255]);
    assert_eq!(of(r#""data_base64":null"#), None);
    assert_eq!(batch_from_json(b" [ ] "), Ok(Vec::new()));

    let event = CloudEvent::from_headers([
        ("Content-Type", &b" application/json; charset=utf-8 "[..]),
        ("CE-SpecVersion", b"1.0"),
        ("ce-type", b"com.example.someevent"),
        ("ce-time", b"2018-04-05T03:56:24Z"),
        ("ce-id", b"1234-1234-1234"),
        ("ce-source", b"/mycontext/subcontext"),
        ("ce-euro", b"Euro%20%E2%82%AC%20%f0%9f%98%80"),
        ("ce-old", b"\"quoted \\\"old\\\" %41\""),
        ("ce-raw", b"raw blanks"),
    ]);
    let event = event.unwrap();
    assert_eq!(event.extension("euro"), Some("Euro € 😀"));
    assert_eq!(event.extension("old"), Some("quoted \"old\" A"));
    assert_eq!(event.extension("raw"), Some("raw blanks"));
    let fields = event.to_headers();
    let euro = fields.iter().find(|(name, _)| name == "ce-euro").unwrap();
    assert_eq!(euro.1, "Euro%20%E2%82%AC%20%F0%9F%98%80");
}

// ---- what is hostile ----

/// The attribute at fault, or "" for the document.
fn fault<T: std::fmt::Debug>(read: Result<T, CloudEventError>) -> String {
    let error = read.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("nothing was done with it"), "{text}");
    assert!(text.len() < 400 && !text.contains(['\n', '\0']), "{text:?}");
    error.attribute().unwrap_or_default().to_owned()
}

#[test]
fn hostile_json_is_refused_and_its_attribute_named() {
    let good = r#""specversion":"1.0","id":"1","source":"/s","type":"T""#;
    let with = |rest: &str| format!("{{{good},{rest}}}");
    let without = |name: &str| {
        let members = good.split(',').filter(|member| !member.starts_with(&format!("\"{name}\"")));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    };
    let replaced =
        |name: &str, value: &str| format!("{},\"{name}\":{value}}}", without(name).trim_end_matches('}'));
    let long = "x".repeat(ATTRIBUTE_BYTES_MAX + 1);
    let many = (0..=EXTENSIONS_MAX).map(|i| format!("\"x{i}\":\"\"")).collect::<Vec<_>>().join(",");
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases = [
        // No event at all.
        ("", String::new()),
        ("", "[]".into()),
        ("", "null".into()),
        ("", "{".into()),
        ("", format!("{{{good}}} trailing")),
        ("", with("\"x\":1,")),
        ("", format!("{{{good},\"{}\":1}}", "\\ud800")),
        ("", with(&many)),
        ("", with(&format!("\"data\":{}", "[".repeat(100_000)))),
        ("", with(&format!("\"data\":\"{}\"", "x".repeat(JSON_BYTES_MAX)))),
        // Missing, empty, twice, of another version.
        ("specversion", without("specversion")),
        ("id", without("id")),
        ("source", without("source")),
        ("type", without("type")),
        ("id", replaced("id", "\"\"")),
        ("id", replaced("id", "null")),
        ("source", replaced("source", "\"\"")),
        ("type", replaced("type", "\"\"")),
        ("subject", with("\"subject\":\"\"")),
        ("specversion", replaced("specversion", "\"0.3\"")),
        ("specversion", replaced("specversion", "1.0")),
        ("id", with("\"id\":\"1\"")),
        ("x", with("\"x\":\"1\",\"x\":\"1\"")),
        ("x", with("\"x\":\"1\",\"\\u0078\":\"2\"")),
        ("data_base64", with("\"data\":1,\"data_base64\":\"AA==\"")),
        ("data", with("\"data\":1,\"data\":2")),
        // Of another type.
        ("id", replaced("id", "17")),
        ("type", replaced("type", "[\"T\"]")),
        ("subject", with("\"subject\":true")),
        ("time", with("\"time\":1522949460")),
        ("data_base64", with("\"data_base64\":17")),
        ("x", with("\"x\":{}")),
        ("x", with(&format!("\"x\":{deep}"))),
        ("x", with("\"x\":1.5")),
        ("x", with("\"x\":1e3")),
        ("x", with("\"x\":2147483648")),
        ("x", with("\"x\":-99999999999999999999")),
        // Of another form.
        ("id", replaced("id", "\"a\\u0000b\"")),
        ("id", replaced("id", "\"a\\nb\"")),
        ("id", replaced("id", "\"a\\u0085b\"")),
        ("id", replaced("id", "\"a\\uffffb\"")),
        ("id", replaced("id", "\"\\ud800\"")),
        ("type", replaced("type", "\"a\\ufdd0b\"")),
        ("type", replaced("type", "\"a\\ud83f\\udffeb\"")),
        ("source", replaced("source", "\"two words\"")),
        ("source", replaced("source", "\"/%zz\"")),
        ("source", replaced("source", "\"/%4\"")),
        ("source", replaced("source", "\"1ab:x\"")),
        ("source", replaced("source", "\":x\"")),
        ("source", replaced("source", "\"/a#b#c\"")),
        ("source", replaced("source", "\"/ä\"")),
        ("dataschema", with("\"dataschema\":\"/relative\"")),
        ("dataschema", with("\"dataschema\":\"\"")),
        ("datacontenttype", with("\"datacontenttype\":\"json\"")),
        ("datacontenttype", with("\"datacontenttype\":\"a/b\\u0020\"")),
        ("datacontenttype", with("\"datacontenttype\":\"a b/c\"")),
        ("datacontenttype", with("\"datacontenttype\":\"a/ä\"")),
        ("datacontenttype", with("\"datacontenttype\":\"application/cloudevents+json\"")),
        ("time", with("\"time\":\"yesterday\"")),
        ("time", with("\"time\":\"2018-02-30T00:00:00Z\"")),
        ("time", with("\"time\":\"99999-01-01T00:00:00Z\"")),
        ("time", with("\"time\":\"\"")),
        ("data_base64", with("\"data_base64\":\"AA=\"")),
        ("data_base64", with("\"data_base64\":\"A-_A\"")),
        ("data_base64", with("\"data_base64\":\"AA==\\n\"")),
        ("data", with("\"datacontenttype\":\"text/plain\",\"data\":{}")),
        // Names.
        ("X", with("\"X\":\"\"")),
        ("", with("\"\":\"\"")),
        ("a-b", with("\"a-b\":\"\"")),
        ("ä", with("\"ä\":\"\"")),
        ("abcdefghijklmnopqrstu", with("\"abcdefghijklmnopqrstu\":\"\"")),
        ("knowsDATA", with("\"knowsDATA\":\"\"")),
        // Sizes.
        ("id", replaced("id", &format!("\"{long}\""))),
        ("x", with(&format!("\"x\":\"{long}\""))),
    ];
    for (attribute, json) in cases {
        let shown: String = json.chars().take(200).collect();
        assert_eq!(fault(CloudEvent::from_json(json.as_bytes())), attribute, "{shown}");
        // A batch has no event but good ones.
        let batch = format!("[{{{good}}},{json}]");
        fault(batch_from_json(batch.as_bytes()));
    }
    assert_eq!(fault(CloudEvent::from_json(b"{\"id\":\"\xff\"}")), "");
    // Deep data is bytes like any other: nobody here goes into it.
    let (_, data) = CloudEvent::from_json(with(&format!("\"data\":{deep}")).as_bytes()).unwrap();
    assert_eq!(data.unwrap().len(), deep.len());
    let batch = vec![format!("{{{good}}}"); BATCH_EVENTS_MAX + 1].join(",");
    assert_eq!(fault(batch_from_json(format!("[{batch}]").as_bytes())), "");
    let batch = vec![format!("{{{good}}}"); BATCH_EVENTS_MAX].join(",");
    assert_eq!(batch_from_json(format!("[{batch}]").as_bytes()).unwrap().len(), BATCH_EVENTS_MAX);
}

#[test]
fn hostile_headers_are_refused_and_their_attribute_named() {
    let good = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "T")];
    let read = |more: &[(&str, &[u8])], drop: &str| {
        let good =
            good.iter().filter(|(name, _)| *name != drop).map(|(name, value)| (*name, value.as_bytes()));
        CloudEvent::from_headers(good.chain(more.iter().copied()).collect::<Vec<_>>())
    };
    assert!(read(&[], "").is_ok());
    let long = "x".repeat(3 * ATTRIBUTE_BYTES_MAX + 1);
    let cases: [(&str, &str, &[u8]); 22] = [
        ("id", "ce-id", b"2"),
        ("id", "CE-ID", b"2"),
        ("x", "ce-x", b"%"),
        ("x", "ce-x", b"%4"),
        ("x", "ce-x", b"%zz"),
        ("x", "ce-x", b"%+1"),
        ("x", "ce-x", b"%C0%A0"),
        ("x", "ce-x", b"%FF"),
        ("x", "ce-x", b"%00"),
        ("x", "ce-x", b"%0a"),
        ("x", "ce-x", b"%ED%A0%80"),
        ("x", "ce-x", b"%EF%BF%BF"),
        ("x", "ce-x", b"\xc3\xa4"),
        ("x", "ce-x", b"a\tb"),
        ("x", "ce-x", b"\"open"),
        ("x", "ce-x", b"\"closed\" twice"),
        ("x", "ce-x", b"\"\\"),
        ("x", "ce-x", long.as_bytes()),
        ("datacontenttype", "ce-datacontenttype", b"text/plain"),
        ("datacontenttype", "content-type", b"application/cloudevents+json; charset=UTF-8"),
        ("datacontenttype", "content-type", b"application/cloudevents-batch+json"),
        ("a_b", "ce-a_b", b""),
    ];
    for (attribute, name, value) in cases {
        assert_eq!(
            fault(read(&[(name, value)], "")),
            attribute,
            "{name}: {}",
            String::from_utf8_lossy(value)
        );
    }
    assert_eq!(fault(read(&[("ce-data", b"{}")], "")), "data");
    assert_eq!(fault(read(&[("ce-", b"{}")], "")), "");
    for name in ["ce-specversion", "ce-id", "ce-source", "ce-type"] {
        assert_eq!(fault(read(&[], name)), &name[3..]);
        assert_eq!(fault(read(&[(name, b"")], name)), &name[3..]);
    }
    let names: Vec<String> = (0..100).map(|i| format!("ce-x{i}")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    assert_eq!(fault(read(&many, "")), "");
}

#[test]
fn a_constructor_refuses_what_the_specification_does_not_allow() {
    let event = || CloudEvent::new("1", "/s", "T").unwrap();
    assert_eq!(fault(CloudEvent::new("", "/s", "T")), "id");
    assert_eq!(fault(CloudEvent::new("1", "", "T")), "source");
    assert_eq!(fault(CloudEvent::new("1", "/s", "\u{7f}")), "type");
    assert_eq!(fault(event().with_subject("")), "subject");
    for ms in [i64::MIN, -62_167_219_200_001, 253_402_300_800_000, i64::MAX] {
        assert_eq!(fault(event().with_time(Timestamp::from_millis(ms))), "time");
    }
    for name in
        ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data"]
    {
        assert_eq!(fault(event().with_extension(name, "x")), name);
    }
    let most = (0..EXTENSIONS_MAX).try_fold(event(), |event, i| event.with_extension(format!("x{i}"), ""));
    let most = most.unwrap();
    assert_eq!(fault(most.clone().with_extension("more", "")), "");
    // Another value for one that is there is no more of them.
    assert_eq!(most.with_extension("x0", "new").unwrap().extension("x0"), Some("new"));
}
