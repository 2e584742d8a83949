//! Promise 13: bad input is refused with its reason, before anything is written.

use super::Harness;
use super::kit::*;
use crate::*;

/// Every limit of an act: one below or at it is taken, one past it is refused.
pub async fn limits_are_refused_before_anything_is_written<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let cx = cx();
    let one = |change: fn(&mut NewEvent)| {
        let mut event = event(&cx, "E");
        change(&mut event);
        // A good event stands before the bad one: it must not be left behind.
        Act::append(stream("s"), Expected::Any, vec![super::kit::event(&cx, "Good"), event])
    };
    let with_bytes = |count: usize, bytes: usize| {
        let payload = Payload::plain(vec![1; bytes]);
        let new = |_| NewEvent::new(cx.new_id(), kind("E"), payload.clone());
        Act::append(stream("s"), Expected::Any, (0..count).map(new).collect())
    };
    let with_streams = |count: usize| Act {
        streams: (0..count)
            .map(|i| StreamAct { stream: stream(format!("s{i}")), expected: Expected::Any, events: vec![] })
            .collect(),
        conditions: vec![],
    };
    let with_query = |query: Query| {
        act(&cx, &stream("s"), Expected::Any).unless(Condition { query, after: Position::START })
    };
    let no_such = |i: usize| QueryItem { types: vec![kind(format!("No{i}"))], tags: vec![] };
    let with_conditions = |count: usize| {
        (0..count).fold(act(&cx, &stream("c"), Expected::Any), |act, i| {
            act.unless(Condition { query: Query { items: vec![no_such(i)] }, after: Position::START })
        })
    };
    let items = limits::QUERY_ITEMS_MAX;
    let many_types =
        |count| QueryItem { types: (0..count).map(|i| kind(format!("No{i}"))).collect(), tags: vec![] };
    let many_tags =
        |count| QueryItem { types: vec![], tags: (0..count).map(|i| tag(format!("no{i}"))).collect() };

    let refused = [
        ("no stream", Act::default()),
        (
            "a stream twice",
            act(&cx, &stream("s"), Expected::Any).and(stream("s"), Expected::Any, events(&cx, 1)),
        ),
        (
            "a payload too long",
            one(|event| event.payload = Payload::plain(vec![0; limits::PAYLOAD_BYTES_MAX + 1])),
        ),
        (
            "too many tags",
            one(|event| event.tags = (0..=limits::TAGS_MAX).map(|i| tag(i.to_string())).collect()),
        ),
        ("a tag twice", one(|event| event.tags = vec![tag("t"), tag("u"), tag("t")])),
        ("the nil id", one(|event| event.id = uuid::Uuid::nil())),
        ("schema 0", one(|event| event.schema = 0)),
        ("too many events", with_bytes(limits::ACT_EVENTS_MAX + 1, 1)),
        ("too many bytes", with_bytes(17, limits::ACT_BYTES_MAX / 16)),
        ("too many streams", with_streams(limits::ACT_EVENTS_MAX + 1)),
        ("too many conditions", with_conditions(limits::ACT_CONDITIONS_MAX + 1)),
        ("an item that names nothing", with_query(Query { items: vec![no_such(0), QueryItem::default()] })),
        ("too many items", with_query(Query { items: (0..=items).map(no_such).collect() })),
        ("too many types", with_query(Query { items: vec![many_types(items + 1)] })),
        ("too many tags in a query", with_query(Query { items: vec![many_tags(limits::TAGS_MAX + 1)] })),
    ];
    for (what, act) in refused {
        let refused = refusal(store.append(&cx, act).await);
        assert!(is_invalid(&refused), "{what}: {refused}");
        assert_eq!(refused.retry(), Retry::Never);
        assert_whole(&[&store, &other], 0).await;
    }
    let taken = [
        (
            "the longest payload",
            one(|event| event.payload = Payload::plain(vec![0; limits::PAYLOAD_BYTES_MAX])),
            2,
        ),
        (
            "most tags",
            one(|event| event.tags = (0..limits::TAGS_MAX).map(|i| tag(i.to_string())).collect()),
            2,
        ),
        ("most events", with_bytes(limits::ACT_EVENTS_MAX, 1), limits::ACT_EVENTS_MAX),
        ("most bytes", with_bytes(16, limits::ACT_BYTES_MAX / 16), 16),
        ("most streams", with_streams(limits::ACT_EVENTS_MAX), 0),
        ("most conditions", with_conditions(limits::ACT_CONDITIONS_MAX), 1),
        ("most items", with_query(Query { items: (0..items).map(no_such).collect() }), 1),
        ("most types", with_query(Query { items: vec![many_types(items)] }), 1),
        ("most tags in a query", with_query(Query { items: vec![many_tags(limits::TAGS_MAX)] }), 1),
        (
            "the longest names",
            Act::append(
                stream("Ä".repeat(128)),
                Expected::Any,
                vec![
                    NewEvent::new(cx.new_id(), kind("k".repeat(128)), Payload::plain(*b""))
                        .tagged(tag("t".repeat(256))),
                ],
            ),
            1,
        ),
    ];
    let mut count = 0;
    for (what, act, events) in taken {
        let done = store.append(&cx, act).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        settled(harness, &other, &done.receipt).await;
        count += events;
        assert_eq!(other.head().await.unwrap().position, Position(count as u64), "{what}");
    }
    assert_whole(&[&store, &other], count).await;
}

/// The same limits, and those of outbox rows, views and queries, inside a transaction: nothing of it is left.
pub async fn limits_hold_inside_a_transaction<H: Harness>(harness: &H) {
    type Bad<T> = fn(&T) -> Result<(), Refusal>;
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let bad: Vec<(&str, Bad<<H::Store as Store>::Tx>)> = vec![
        ("schema 0", |tx| {
            let mut event = event(&cx(), "E");
            event.schema = 0;
            tx.append(&stream("s"), Expected::Any, &[event]).map(drop)
        }),
        ("too many events", |tx| {
            tx.append(&stream("s"), Expected::Any, &events(&cx(), limits::ACT_EVENTS_MAX + 1)).map(drop)
        }),
        ("a query that names nothing", |tx| {
            tx.require(&Condition {
                query: Query { items: vec![QueryItem::default()] },
                after: Position::START,
            })
        }),
        ("a condition from past the end", |tx| {
            tx.require(&Condition { query: Query::types([kind("No")]), after: Position(1_000) })
        }),
        ("an outbox payload", |tx| {
            tx.outbox(&OutboxRow { payload: vec![0; limits::ROW_BYTES_MAX + 1], ..message("") })
        }),
        ("an outbox key", |tx| {
            tx.outbox(&OutboxRow { key: "k".repeat(limits::KEY_BYTES_MAX + 1), ..message("") })
        }),
        ("too many headers", |tx| {
            tx.outbox(&OutboxRow { headers: vec![("n".into(), "v".into()); 65], ..message("") })
        }),
        ("headers too long", |tx| {
            tx.outbox(&OutboxRow { headers: vec![("n".into(), "v".repeat(16 << 10))], ..message("") })
        }),
        ("an empty key", |tx| tx.view_put(&view("v"), &Row::new("", "x"))),
        ("a long key", |tx| tx.view_put(&view("v"), &Row::new("k".repeat(limits::KEY_BYTES_MAX + 1), "x"))),
        ("a long row", |tx| tx.view_put(&view("v"), &Row::new("k", vec![0; limits::ROW_BYTES_MAX + 1]))),
        ("an index twice", |tx| {
            let value = IndexValue::Integer(1);
            tx.view_put(&view("v"), &Row::new("k", "x").indexed("i", value.clone()).indexed("i", value))
        }),
        ("a long index value", |tx| {
            let value = IndexValue::Text("v".repeat(limits::KEY_BYTES_MAX + 1));
            tx.view_put(&view("v"), &Row::new("k", "x").indexed("i", value))
        }),
        ("a scan of no rows", |tx| tx.view_scan(&Scan::keys(view("v"), 0)).map(drop)),
    ];
    let mark = |text: &'static str| {
        move |tx: &<H::Store as Store>::Tx| tx.view_put(&view("v"), &Row::new("mark", text))
    };
    for (what, bad) in bad {
        let before = events(&cx(), 1);
        let ended = transact(&store, move |tx| {
            tx.append(&stream("before"), Expected::Any, &before)?;
            mark("written")(tx)?;
            Ok(bad(tx)?)
        });
        let refused = tx_refusal(ended.await);
        assert!(is_invalid(&refused), "{what}: {refused}");
        assert_eq!(other.view_get(&view("v"), "mark").await.unwrap(), None, "{what}");
    }
    // At the limits.
    let batch = events(&cx(), limits::ACT_EVENTS_MAX);
    commit(&store, move |tx| {
        tx.append(&stream("s"), Expected::Any, &batch)?;
        tx.outbox(&OutboxRow {
            key: "k".repeat(limits::KEY_BYTES_MAX),
            headers: vec![("n".into(), "v".repeat((16 << 10) - 1))],
            payload: vec![0; limits::ROW_BYTES_MAX],
            ..message("")
        })?;
        let mut row = Row::new("k".repeat(limits::KEY_BYTES_MAX), vec![7; limits::ROW_BYTES_MAX]);
        for index in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"] {
            row = row.indexed(index, IndexValue::Text("v".repeat(limits::KEY_BYTES_MAX)));
        }
        Ok(tx.view_put(&view("v"), &row)?)
    })
    .await;
    assert_whole(&[&store, &other], limits::ACT_EVENTS_MAX).await;
    let row = other.view_get(&view("v"), &"k".repeat(limits::KEY_BYTES_MAX)).await.unwrap();
    assert!(row == Some(vec![7; limits::ROW_BYTES_MAX]));
    let found = Scan::equal(view("v"), "p", IndexValue::Text("v".repeat(limits::KEY_BYTES_MAX)), 10);
    assert_eq!(other.view_scan(&found).await.unwrap().rows.len(), 1);
    assert!(other.outbox_after(0, 9).await.unwrap()[0].row.payload == vec![0; limits::ROW_BYTES_MAX]);
}

/// A page is never longer than the limit, whatever is asked; a read that can't be answered says why.
pub async fn reads_are_cut_or_refused<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let (cx, most) = (cx(), limits::PAGE_EVENTS_MAX);
    let mut last = None;
    for _ in 0..2 {
        let batch = events(&cx, most / 2 + 10);
        last = Some(store.append(&cx, Act::append(stream("s"), Expected::Any, batch)).await.unwrap());
    }
    settled(harness, &store, &last.unwrap().receipt).await;
    for part in 0..6_usize {
        commit(&store, move |tx| {
            for i in (0..most + 20).filter(|i| i % 6 == part) {
                tx.outbox(&message(""))?;
                tx.view_put(
                    &view("v"),
                    &Row::new(format!("{i:06}"), "").indexed("i", IndexValue::Integer(1)),
                )?;
            }
            Ok(())
        })
        .await;
    }
    for max in [most + 1, usize::MAX] {
        let page = store.read(&Query::all(), Position::START, max).await.unwrap();
        assert_eq!((page.events.len(), page.next, page.at_end()), (most, Position(most as u64), false));
        for direction in [Direction::Forwards, Direction::Backwards] {
            let from = Version(if direction == Direction::Forwards { 1 } else { u64::MAX });
            let page = store.read_stream(&stream("s"), from, direction, max).await.unwrap();
            assert_eq!((page.events.len(), page.version), (most, Version(most as u64 + 20)));
        }
        assert_eq!(store.outbox_after(0, max).await.unwrap().len(), most);
        for scan in [Scan::keys(view("v"), max), Scan::equal(view("v"), "i", IndexValue::Integer(1), max)] {
            let rows = store.view_scan(&scan).await.unwrap();
            assert_eq!((rows.rows.len(), rows.next.is_some()), (most, true));
        }
    }
    let none = store.read(&Query::all(), Position(5), 0).await.unwrap();
    assert_eq!((none.events.len(), none.next), (0, Position(5)), "a page of nothing looked at nothing");
    let in_tx =
        commit(&store, move |tx| Ok(tx.read_stream(&stream("s"), Version(1), usize::MAX)?.len())).await;
    assert_eq!(in_tx, most);

    let bad_query = Query { items: vec![QueryItem::default()] };
    let refused = store.read(&bad_query, Position::START, 10).await.unwrap_err();
    assert!(matches!(refused, ReadError::Invalid { .. }), "{refused}");
    let refused = store.subscribe(bad_query, Position::START).next_page().await.unwrap_err();
    assert!(matches!(refused, ReadError::Invalid { .. }), "{refused}");
    let by_index = || Scan::equal(view("v"), "i", IndexValue::Integer(1), 10);
    let bad_scans = [
        ("no rows", Scan::keys(view("v"), 0)),
        (
            "an index cursor",
            Scan::keys(view("v"), 10).after(Cursor { value: Some(IndexValue::Integer(1)), key: "k".into() }),
        ),
        ("a key cursor", by_index().after(Cursor { value: None, key: "k".into() })),
    ];
    for (what, scan) in bad_scans {
        let refused = store.view_scan(&scan).await.unwrap_err();
        assert!(matches!(refused, ReadError::Invalid { .. }), "{what}: {refused}");
    }
    assert_eq!(store.view_scan(&by_index()).await.unwrap().rows.len(), 10);
}
