//! Timelines: what came of one correlation, put together from several stores.

use std::sync::Arc;

use mainstay_envelope::{
    CausationId, Context, CorrelationId, Envelope, ManualClock, Priority, SeededChance, Timestamp,
    TraceContext,
};
use mainstay_event_store::memory::Memory;
use mainstay_event_store::{Act, EventType, Expected, NewEvent, Payload, Position, Query, Store, StreamName};
use mainstay_flow::correlation;
use mainstay_flow::timeline::{Parked, Source, Timeline};
use uuid::Uuid;

const CORRELATION: CorrelationId = CorrelationId(Uuid::from_u128(0xC0));

fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x0E00 + n)
}

/// Three stores and a history in them. Times are milliseconds after 2026-01-05T10:00:00Z.
struct Shop {
    sources: Vec<Source<Memory>>,
}

impl Shop {
    fn new() -> Self {
        let source = |name: &str| Source { participant: name.into(), store: Memory::new() };
        Self { sources: ["order", "payment", "inventory"].map(source).into() }
    }

    async fn of(
        &self,
        correlation: CorrelationId,
        store: usize,
        event: (u128, &str, &str),
        at: i64,
        cause: Option<u128>,
    ) {
        let chance = Arc::new(SeededChance::new(1));
        let mut envelope = Envelope::of(TraceContext::random(&*chance), correlation, Priority::Normal);
        if let Some(cause) = cause {
            envelope = envelope.with_causation(CausationId(id(cause)));
        }
        let clock = ManualClock::new(Timestamp::from_millis(1_767_607_200_000 + at));
        let cx = Context::new(envelope, Arc::new(clock), chance);
        let (number, stream, event_type) = event;
        let event = NewEvent::new(id(number), EventType::new(event_type).unwrap(), Payload::plain(*b"{}"))
            .tagged(correlation::tag(correlation).unwrap());
        let act = Act::append(StreamName::new(stream).unwrap(), Expected::Any, vec![event]);
        self.sources[store].store.append(&cx, act).await.unwrap();
    }

    async fn has(&self, store: usize, event: (u128, &str, &str), at: i64, cause: Option<u128>) {
        self.of(CORRELATION, store, event, at, cause).await;
    }

    async fn timeline(&self, max: usize) -> Timeline {
        Timeline::read(&self.sources, CORRELATION, max).await.unwrap()
    }
}

fn types(timeline: &Timeline) -> Vec<&str> {
    timeline.events.iter().map(|entry| entry.event_type.as_str()).collect()
}

/// An order whose stock is short.
async fn order() -> Shop {
    let shop = Shop::new();
    shop.of(CorrelationId(Uuid::from_u128(0xC1)), 0, (90, "order-6", "OrderCreated"), 0, None).await;
    shop.has(0, (1, "order-7", "OrderCreated"), 0, None).await;
    shop.has(1, (2, "account-alice", "PaymentProcessed"), 12, Some(1)).await;
    shop.has(2, (3, "stock-apple", "StockShort"), 20, Some(2)).await;
    shop.has(1, (4, "account-alice", "PaymentRefunded"), 31, Some(3)).await;
    shop.has(0, (5, "order-7", "OrderCancelled"), 1_040, Some(4)).await;
    shop
}

#[tokio::test]
async fn one_correlation_gives_the_whole_timeline_with_waits_and_causes() {
    let expected = "\
correlation 00000000-0000-0000-0000-0000000000c0: 5 events in 1040 ms
2026-01-05T10:00:00.000Z            order      order-7        OrderCreated
2026-01-05T10:00:00.012Z    +12 ms  payment    account-alice  PaymentProcessed  ◄ OrderCreated of order
2026-01-05T10:00:00.020Z     +8 ms  inventory  stock-apple    StockShort        ◄ PaymentProcessed of payment
2026-01-05T10:00:00.031Z    +11 ms  payment    account-alice  PaymentRefunded   ◄ StockShort of inventory
2026-01-05T10:00:01.040Z  +1009 ms  order      order-7        OrderCancelled    ◄ PaymentRefunded of payment";
    assert_eq!(order().await.timeline(100).await.text().to_string(), expected);
}

#[tokio::test]
async fn as_json_it_has_the_same_and_no_content_of_events() {
    let timeline = order().await.timeline(100).await;
    let json = serde_json::to_value(&timeline).unwrap();
    assert_eq!(
        json["events"][1],
        serde_json::json!({
            "at": "2026-01-05T10:00:00.012Z", "wait_ms": 12, "participant": "payment", "stream": "account-alice",
            "version": 1, "position": 1, "id": id(2), "type": "PaymentProcessed",
            "cause": { "id": id(1), "participant": "order", "type": "OrderCreated" }
        })
    );
    assert_eq!(
        (&json["events"][0]["cause"], &json["incomplete"]),
        (&serde_json::Value::Null, &serde_json::json!([]))
    );
}

#[tokio::test]
async fn a_cause_stands_before_its_effect_whatever_the_clocks_say() {
    let shop = Shop::new();
    // Payment's clock is a minute late, inventory's an hour early.
    shop.has(0, (1, "order-7", "OrderCreated"), 0, None).await;
    shop.has(1, (2, "account-alice", "PaymentProcessed"), -60_000, Some(1)).await;
    shop.has(1, (3, "account-alice", "AccountEmptied"), -90_000, Some(1)).await;
    shop.has(2, (4, "stock-apple", "InventoryUpdated"), -3_600_000, Some(2)).await;
    shop.has(0, (5, "order-7", "OrderConfirmed"), 9, Some(4)).await;
    let timeline = shop.timeline(100).await;
    // AccountEmptied is second in its store, so it stays behind PaymentProcessed, though its clock said less.
    let expected =
        ["OrderCreated", "PaymentProcessed", "InventoryUpdated", "AccountEmptied", "OrderConfirmed"];
    assert_eq!(types(&timeline), expected);
    let waits: Vec<_> = timeline.events.iter().map(|entry| entry.wait_ms).collect();
    assert_eq!(waits, [None, Some(-60_000), Some(-3_540_000), Some(-90_000), Some(3_600_009)]);
    assert!(timeline.text().to_string().contains("  -60000 ms  payment"), "{}", timeline.text());
}

#[tokio::test]
async fn of_events_that_did_not_lead_to_each_other_the_earlier_stands_first() {
    let shop = Shop::new();
    shop.has(0, (1, "order-7", "OrderCreated"), 0, None).await;
    shop.has(1, (2, "account-alice", "Second"), 20, Some(1)).await;
    shop.has(2, (3, "stock-apple", "First"), 10, Some(1)).await;
    shop.has(2, (4, "stock-apple", "Third"), 30, Some(1)).await;
    assert_eq!(types(&shop.timeline(100).await), ["OrderCreated", "First", "Second", "Third"]);
}

#[tokio::test]
async fn a_cause_from_elsewhere_is_named_by_its_id_and_nobody_waits_for_it() {
    let shop = Shop::new();
    shop.has(1, (2, "account-alice", "PaymentProcessed"), 12, Some(1)).await;
    let timeline = shop.timeline(100).await;
    assert_eq!(timeline.events[0].wait_ms, None);
    let line = "PaymentProcessed  ◄ 00000000-0000-0000-0000-000000000e01, which is not here";
    assert!(timeline.text().to_string().ends_with(line), "{}", timeline.text());
}

#[tokio::test]
async fn a_history_that_cannot_be_is_told_all_the_same_each_event_once() {
    let shop = Shop::new();
    shop.has(0, (1, "order-7", "Hen"), 0, Some(2)).await;
    shop.has(1, (2, "account-alice", "Egg"), 5, Some(1)).await;
    shop.has(2, (3, "stock-apple", "Itself"), 7, Some(3)).await;
    shop.has(2, (1, "stock-apple", "SameId"), 8, None).await;
    assert_eq!(types(&shop.timeline(100).await), ["Hen", "Egg", "Itself", "SameId"]);
}

#[tokio::test]
async fn more_events_than_asked_for_are_left_out_and_said_to_be() {
    let shop = order().await;
    let timeline = shop.timeline(1).await;
    assert_eq!(types(&timeline), ["OrderCreated", "PaymentProcessed", "StockShort"]);
    assert_eq!(timeline.incomplete, ["order", "payment"]);
    let text = timeline.text().to_string();
    assert!(
        text.ends_with("\n… order holds more of it than is shown\n… payment holds more of it than is shown"),
        "{text}"
    );
    assert_eq!(shop.timeline(2).await.incomplete, Vec::<String>::new());
    // More than a page of a store's, so that it is read in several.
    for n in 0..2_500 {
        shop.has(2, (100 + n, "stock-apple", "Counted"), 50, None).await;
    }
    let timeline = shop.timeline(usize::MAX).await;
    assert_eq!((timeline.events.len(), timeline.incomplete.len()), (2_505, 0));
    assert_eq!(shop.timeline(2_500).await.incomplete, ["inventory"]);
}

#[tokio::test]
async fn nothing_recorded_is_said_and_what_waits_is_shown() {
    let shop = Shop::new();
    let timeline = shop.timeline(10).await;
    assert!(timeline.is_empty());
    assert_eq!(
        timeline.text().to_string(),
        "correlation 00000000-0000-0000-0000-0000000000c0: nothing is recorded of it in these stores"
    );
    let parked = |since: i64, is_dead, why: &str| Parked {
        participant: "payment".into(),
        from: "order".into(),
        id: id(1),
        event_type: "OrderCreated".into(),
        since: Timestamp::from_millis(1_767_607_200_000 + since),
        tries: if is_dead { 9 } else { 1 },
        is_dead,
        why: why.into(),
    };
    let timeline = order().await.timeline(10).await.with_parked([
        parked(500, true, "no such\u{1b}[31m account"),
        parked(400, false, "the bank does not answer"),
    ]);
    let text = timeline.text().to_string();
    let lines: Vec<&str> = text.lines().skip(6).collect();
    assert_eq!(
        lines,
        [
            "⚠ payment could not handle OrderCreated of order: since 2026-01-05T10:00:00.400Z, 1 try, is tried \
             again: the bank does not answer",
            "⚠ payment could not handle OrderCreated of order: since 2026-01-05T10:00:00.500Z, 9 tries, waits for \
             an operator: no such\u{fffd}[31m account",
        ]
    );
}

/// A log in which inventory's events stand, the second one twice; the clock stands at 2026-01-05T10:00:00.025Z.
async fn log_of_inventory(shop: &Shop) -> mainstay_messaging::memory::Memory {
    use mainstay_envelope::{CloudEvent, ContentHash, MessageIdentity, Producer};
    use mainstay_messaging::{Log, Message, Topic};

    let log = mainstay_messaging::memory::Memory::new(1);
    let store = &shop.sources[2].store;
    let events = store.read(&Query::all(), Position::START, 100).await.unwrap().events;
    for (seq, at) in [(1, 25), (2, 60), (2, 90)] {
        let event = &events[seq - 1];
        let message = Message {
            identity: MessageIdentity {
                producer: Producer::new("inventory").unwrap(),
                epoch: 1,
                partition: 0,
                seq: seq as u64,
                content: ContentHash::of(b""),
            },
            topic: Topic::new("inventory").unwrap(),
            key: "apple".into(),
            event: CloudEvent::new(event.id.to_string(), "/inventory", event.event_type.as_str()).unwrap(),
            data: Vec::new().into(),
            mark: 1,
        };
        let clock = ManualClock::new(Timestamp::from_millis(1_767_607_200_000 + at));
        let chance = Arc::new(SeededChance::new(1));
        let envelope = Envelope::begin(Priority::Normal, &*chance);
        log.append(&Context::new(envelope, Arc::new(clock), chance), vec![message]).await.unwrap();
    }
    log
}

#[tokio::test]
async fn a_log_tells_when_an_event_was_published() {
    let shop = order().await;
    shop.has(2, (6, "stock-apple", "StockCounted"), 50, Some(4)).await;
    let log = log_of_inventory(&shop).await;
    let published = async |look_back| {
        let timeline = shop.timeline(10).await.with_published("inventory", &log, look_back).await.unwrap();
        let of =
            |name: &str| timeline.events.iter().find(|entry| entry.event_type == name).unwrap().published;
        let after = |at: Option<Timestamp>| at.map(|at| at.as_millis() - 1_767_607_200_000);
        (["StockShort", "StockCounted", "OrderCreated"].map(|name| after(of(name))), timeline)
    };
    let (times, timeline) = published(100).await;
    assert_eq!(times, [Some(25), Some(60), None]);
    let text = timeline.text().to_string();
    assert!(text.contains("◄ PaymentProcessed of payment  ► published +5 ms\n"), "{text}");
    let json = serde_json::to_value(&timeline.events[2]).unwrap();
    assert_eq!(json["published"], "2026-01-05T10:00:00.025Z");
    // The last two places only: the second event's repetition is all there is of it, or it and its first time.
    assert_eq!(published(2).await.0, [None, Some(60), None]);
    assert_eq!(published(1).await.0, [None, Some(90), None]);
    assert_eq!(published(0).await.0, [None, None, None]);
}
