//! The envelope on the wire: each field, each way in which it can be wrong, and both boundaries.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::time::Duration;

use mainstay_envelope::wire::{self, Boundary, Edge, VALUE_BYTES_MAX};
use mainstay_envelope::{
    Actor, CausationId, CorrelationId, Deadline, Envelope, IdempotencyKey, Identity, Monotonic, Priority,
    RetryTokens, SeededChance, Tenant, TraceContext, TraceParent,
};
use uuid::Uuid;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const CORRELATION: &str = "\"0190163d-8694-739b-aea5-966c26f8ad91\"";
const NOW: Monotonic = Monotonic::from_origin(Duration::from_secs(1_000));

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn edge() -> Edge {
    Edge {
        max_deadline: ms(30_000),
        priority: Priority::Low,
        tokens: RetryTokens::new(1),
        caller: None,
        tenant: None,
    }
}

fn decode(headers: &[(&str, &str)], boundary: Boundary) -> Result<Envelope, wire::WireError> {
    wire::decode(headers.iter().copied(), NOW, boundary, &SeededChance::new(3))
}

fn trusted(headers: &[(&str, &str)]) -> Result<Envelope, wire::WireError> {
    decode(headers, Boundary::Trusted)
}

fn at_edge(headers: &[(&str, &str)]) -> Envelope {
    decode(headers, Boundary::Edge(edge())).unwrap()
}

fn full() -> Envelope {
    let trace = TraceContext::from(TRACE.parse::<TraceParent>().unwrap()).with_state("rojo=1,congo=2");
    let id = Uuid::from_u128(0x0190_163d_8694_739b_aea5_966c_26f8_ad91);
    Envelope::of(trace, CorrelationId(id), Priority::Critical)
        .with_causation(CausationId(Uuid::from_u128(7)))
        .with_caller(Identity::new("spiffe://example.org/shop").unwrap())
        .with_actor(Actor::new("ada \"the\" \\ first").unwrap())
        .with_tenant(Tenant::new("Käufer").unwrap())
        .with_idempotency_key(IdempotencyKey::new("order-17").unwrap())
        .with_tokens(RetryTokens::new(2))
        .lower_deadline(Deadline::after(NOW, ms(1_500)))
}

#[test]
fn every_field_is_written_in_its_documented_form() {
    let late = NOW + Duration::from_micros(500_001);
    let fields = wire::encode(&full(), late);
    let expected = [
        ("traceparent", TRACE),
        ("tracestate", "rojo=1,congo=2"),
        ("mainstay-correlation-id", CORRELATION),
        ("mainstay-causation-id", "\"00000000-0000-0000-0000-000000000007\""),
        // 999.999 ms remain, and only whole milliseconds of them are passed on
        ("mainstay-remaining-ms", "999"),
        ("mainstay-priority", "critical"),
        ("mainstay-retry-tokens", "2"),
        ("idempotency-key", "\"order-17\""),
        ("mainstay-caller", "\"spiffe://example.org/shop\""),
        ("mainstay-tenant", "%\"K%c3%a4ufer\""),
        ("mainstay-actor", "\"ada \\\"the\\\" \\\\ first\""),
    ];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(fields, expected);
    assert!(fields.iter().all(|(name, _)| wire::NAMES.contains(name)));
    assert_eq!(fields.len(), wire::NAMES.len());
}

#[test]
fn a_deadline_is_anchored_anew_on_the_receivers_clock() {
    let received = trusted(&[("Mainstay-Remaining-Ms", "1500;why=\"params are passed over\"")]).unwrap();
    assert_eq!(received.deadline(), Some(Deadline::at(NOW + ms(1_500))));
    assert_eq!(trusted(&[]).unwrap().deadline(), None);
    assert_eq!(trusted(&[("mainstay-remaining-ms", "0")]).unwrap().deadline(), Some(Deadline::at(NOW)));
    let reached = full().lower_deadline(Deadline::at(Monotonic::from_origin(ms(1))));
    assert!(wire::encode(&reached, NOW).contains(&("mainstay-remaining-ms", "0".to_owned())));
    let endless = Envelope::begin(Priority::Low, &SeededChance::new(1))
        .lower_deadline(Deadline::after(NOW, Duration::MAX));
    let (_, written) =
        wire::encode(&endless, NOW).into_iter().find(|(name, _)| name.ends_with("-ms")).unwrap();
    assert!(trusted(&[("mainstay-remaining-ms", &written)]).is_ok(), "{written}");
}

#[test]
fn a_malformed_traceparent_begins_a_new_trace_and_is_nobodys_error() {
    let given: TraceParent = TRACE.parse().unwrap();
    for headers in [
        &[("traceparent", "00-zz"), ("tracestate", "a=1")][..],
        &[("traceparent", TRACE), ("Traceparent", TRACE), ("tracestate", "a=1")],
        &[("tracestate", "a=1")],
    ] {
        for envelope in [trusted(headers).unwrap(), at_edge(headers)] {
            assert_ne!(envelope.trace().parent().trace_id(), given.trace_id());
            assert_eq!(envelope.trace().state(), None);
        }
    }
    let kept =
        at_edge(&[("TRACEPARENT", &format!(" {TRACE}")), ("tracestate", "a=1"), ("TraceState", "b=2")]);
    assert_eq!((kept.trace().parent(), kept.trace().state()), (given, Some("a=1,b=2")));
    for bad in ["a", "a=ä", &"x".repeat(VALUE_BYTES_MAX + 1)] {
        let kept = at_edge(&[("traceparent", TRACE), ("tracestate", bad)]);
        assert_eq!((kept.trace().parent(), kept.trace().state()), (given, None));
    }
}

const MALFORMED: [(&str, &str, &str); 22] = [
    ("mainstay-correlation-id", "0190163d-8694-739b-aea5-966c26f8ad91", "structured field"),
    ("mainstay-correlation-id", "\"zzz\"", "UUID"),
    ("mainstay-correlation-id", "\"00000000-0000-0000-0000-000000000000\"", "nil"),
    ("mainstay-causation-id", "abc", "String, in quotes"),
    ("mainstay-remaining-ms", "-1", "zero or more"),
    ("mainstay-remaining-ms", "1.5", "zero or more"),
    ("mainstay-remaining-ms", "1, 2", "structured field"),
    ("mainstay-remaining-ms", "1000000000000000", "structured field"),
    ("mainstay-remaining-ms", "", "structured field"),
    ("mainstay-remaining-ms", "1\n2", "structured field"),
    ("mainstay-priority", "\"critical\"", "one of background"),
    ("mainstay-priority", "urgent", "one of background"),
    ("mainstay-priority", "Critical", "one of background"),
    ("mainstay-retry-tokens", "3", "0 to 2"),
    ("mainstay-retry-tokens", "-1", "0 to 2"),
    ("mainstay-retry-tokens", "0.1", "0 to 2"),
    ("mainstay-caller", "\"\"", "it is empty"),
    ("mainstay-caller", "\"ü\"", "structured field"),
    ("mainstay-tenant", "%\"%ff\"", "structured field"),
    ("mainstay-tenant", "%\"a%0ab\"", "byte 1 is not allowed"),
    ("mainstay-actor", ":YQ==:", "String, in quotes"),
    ("mainstay-actor", "?1", "String, in quotes"),
];

#[test]
fn a_trusted_senders_malformed_field_is_an_error_that_names_it() {
    for (header, value, why) in MALFORMED {
        let error = trusted(&[("x-other", "1"), (&header.to_uppercase(), value)]).unwrap_err();
        assert_eq!(error.header(), header, "{value:?}");
        let says = error.to_string();
        assert!(says.contains(header) && says.contains(why), "{value:?}: {says}");
        assert!(says.contains("was not begun"), "{says}");
    }
}

#[test]
fn a_strangers_malformed_field_counts_as_absent() {
    for (header, value, _) in MALFORMED {
        let envelope = at_edge(&[(header, value), ("mainstay-x", "1")]);
        assert_eq!(envelope, at_edge(&[]), "{header}: {value:?}");
    }
}

#[test]
fn a_field_that_came_twice_or_is_too_long_is_not_used() {
    let long = format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX));
    let own = wire::NAMES.iter().filter(|name| !name.starts_with("trace"));
    for name in own {
        let twice = trusted(&[(name, "1"), (name, "1")]).unwrap_err();
        assert!(twice.to_string().contains("more than once"), "{twice}");
        let oversize = trusted(&[(name, &long)]).unwrap_err();
        assert!(oversize.to_string().contains("longer than 8192 bytes"), "{oversize}");
        assert_eq!((twice.header(), oversize.header()), (*name, *name));
    }
    let envelope = at_edge(&[
        ("mainstay-correlation-id", CORRELATION),
        ("mainstay-correlation-id", CORRELATION),
        ("mainstay-remaining-ms", "1"),
        ("mainstay-remaining-ms", "1"),
        ("mainstay-tenant", &long),
    ]);
    assert_eq!(envelope, at_edge(&[]));
}

#[test]
fn the_longest_names_there_are_fit_on_the_wire() {
    for name in ["\\".repeat(2048), "ä".repeat(1024), "\u{10ffff}".repeat(512)] {
        let sent = full().with_caller(Identity::new(&name).unwrap());
        let received =
            wire::decode(wire::encode(&sent, NOW), NOW, Boundary::Trusted, &SeededChance::new(1)).unwrap();
        assert_eq!(received, sent);
    }
}

#[test]
fn a_stranger_keeps_its_trace_correlation_key_and_deadline_and_nothing_else() {
    let headers = wire::encode(&full(), NOW);
    let set = Edge {
        caller: Some(Identity::new("client-4").unwrap()),
        tenant: Some(Tenant::new("acme").unwrap()),
        ..edge()
    };
    let envelope = wire::decode(headers.clone(), NOW, Boundary::Edge(set), &SeededChance::new(1)).unwrap();
    assert_eq!(envelope.trace(), full().trace());
    assert_eq!(envelope.correlation(), full().correlation());
    assert_eq!(envelope.idempotency_key(), full().idempotency_key());
    assert_eq!(envelope.deadline(), Some(Deadline::at(NOW + ms(1_500))));
    assert_eq!(envelope.priority(), Priority::Low);
    assert_eq!(envelope.tokens().left(), 1);
    assert_eq!(envelope.caller().unwrap().as_str(), "client-4");
    assert_eq!(envelope.tenant().unwrap().as_str(), "acme");
    assert_eq!((envelope.causation(), envelope.actor()), (None, None));

    let nobody = wire::decode(headers.clone(), NOW, Boundary::Edge(edge()), &SeededChance::new(1)).unwrap();
    assert_eq!((nobody.caller(), nobody.tenant()), (None, None));
}

#[test]
fn a_stranger_gets_at_most_the_edges_longest_deadline() {
    let longest = Some(Deadline::at(NOW + ms(30_000)));
    for claimed in ["30000", "30001", "999999999999999"] {
        assert_eq!(at_edge(&[("mainstay-remaining-ms", claimed)]).deadline(), longest, "{claimed}");
    }
    assert_eq!(at_edge(&[]).deadline(), longest, "and that one if it claims none");
    let shorter = at_edge(&[("mainstay-remaining-ms", "29999")]);
    assert_eq!(shorter.deadline(), Some(Deadline::at(NOW + ms(29_999))));
}

#[test]
fn an_idempotency_key_is_read_quoted_or_bare_and_never_dropped() {
    for boundary in [|| Boundary::Trusted, || Boundary::Edge(edge())] {
        for (value, key) in [
            ("\"8e03978e-40d5\"", "8e03978e-40d5"),
            ("8e03978e-40d5", "8e03978e-40d5"),
            (" 17 ", "17"),
            ("order:17", "order:17"),
            ("\"a b\";p=1", "a b"),
        ] {
            let envelope = decode(&[("Idempotency-Key", value)], boundary()).unwrap();
            assert_eq!(envelope.idempotency_key().unwrap().as_str(), key);
        }
        for bad in ["", "\"\"", "a b", "\"a", "schlüssel", ":YQ==:", "?1", "a,b", &"k".repeat(256)] {
            let error = decode(&[("Idempotency-Key", bad)], boundary()).unwrap_err();
            assert_eq!(error.header(), "idempotency-key", "{bad:?}");
        }
        let error = decode(&[("Idempotency-Key", "a"), ("idempotency-key", "b")], boundary()).unwrap_err();
        assert!(error.to_string().contains("more than once"));
    }
}

#[test]
fn bytes_that_are_no_text_are_malformed_and_nothing_worse() {
    for name in wire::NAMES {
        let headers = [(name, &b"\xff\xfe\x00"[..])];
        let result = wire::decode(headers, NOW, Boundary::Trusted, &SeededChance::new(1));
        assert_eq!(result.is_ok(), name.starts_with("trace"), "{name}");
    }
}

#[test]
fn tokens_of_an_answer_without_a_readable_report_are_spent() {
    let settled = |headers: &[(&str, &str)]| {
        let lent = RetryTokens::new(2);
        wire::settle(&lent, headers.iter().copied());
        lent.left()
    };
    assert_eq!(settled(&[("Mainstay-Retry-Tokens", "1")]), 1);
    assert_eq!(settled(&[("mainstay-retry-tokens", "2")]), 2);
    assert_eq!(settled(&[]), 0);
    assert_eq!(settled(&[("mainstay-retry-tokens", "x")]), 0);
    assert_eq!(settled(&[("mainstay-retry-tokens", "2"), ("mainstay-retry-tokens", "2")]), 0);
    let lent = RetryTokens::new(1);
    wire::settle(&lent, [wire::answer(&RetryTokens::new(2))]);
    assert_eq!(lent.left(), 1, "nobody gives back more than they got");
}
