//! Snapshots: the same state as a replay, believed only when they are ours.

use mainstay_event_store::memory::Memory;
use mainstay_event_store::{Act, Expected, Row, Store, Tx, Version, ViewName};
use mainstay_flow::command::{CommandError, Snapshot};
use mainstay_flow::{Commands, Decider};

use crate::bank::{Account, Deposit, Ensure, No, Withdraw, bank, cx, length, raw, stream};

impl Snapshot for Account {
    const NAME: &'static str = "account";
    const EVERY: u64 = 5;
}

fn snapshotting(store: &Memory) -> Commands<Account, Memory> {
    bank(store).snapshots().unwrap()
}

async fn kept(store: &Memory) -> Option<serde_json::Value> {
    let view = ViewName::new("mainstay.snapshots").unwrap();
    let bytes = store.view_get(&view, "account/account-7").await.unwrap()?;
    Some(serde_json::from_slice(&bytes).unwrap())
}

async fn keep(store: &Memory, json: &str) {
    let row = Row::new("account/account-7", json.as_bytes());
    let view = ViewName::new("mainstay.snapshots").unwrap();
    let put = move |tx: &_| Ok::<_, mainstay_event_store::Abort<()>>(Tx::view_put(tx, &view, &row)?);
    store.transact(&cx(), put).await.unwrap();
}

#[tokio::test]
async fn snapshot_and_tail_are_the_replay_at_every_length() {
    let (store, cx) = (Memory::new(), cx());
    let (with, without) = (snapshotting(&store), bank(&store));
    for amount in 1..=23 {
        with.command(&cx, "account-7", Deposit { amount }).await.unwrap();
        let replayed = without.state(&cx, "account-7").await.unwrap();
        assert_eq!(with.state(&cx, "account-7").await.unwrap(), replayed);
        let expected = (amount >= 5).then_some((amount / 5) * 5);
        let version = kept(&store).await.map(|kept| kept["version"].as_i64().unwrap());
        assert_eq!(version, expected, "one for every 5 events");
    }
}

#[tokio::test]
async fn a_snapshot_is_really_used() {
    let (store, cx) = (Memory::new(), cx());
    let bank = snapshotting(&store);
    for _ in 0..6 {
        bank.command(&cx, "account-7", Deposit { amount: 1 }).await.unwrap();
    }
    let mut forged = kept(&store).await.unwrap();
    forged["state"]["balance"] = 1_000.into();
    keep(&store, &forged.to_string()).await;
    assert_eq!(bank.state(&cx, "account-7").await.unwrap().0.balance, 1_001);
}

#[tokio::test]
async fn one_of_another_schema_or_unreadable_or_past_the_end_is_ignored() {
    let (store, cx) = (Memory::new(), cx());
    let bank = snapshotting(&store);
    for _ in 0..6 {
        bank.command(&cx, "account-7", Deposit { amount: 1 }).await.unwrap();
    }
    for foreign in [
        r#"{"schema":2,"version":5,"state":{"owner":null,"balance":999,"events":5}}"#,
        r#"{"schema":1,"version":99,"state":{"owner":null,"balance":999,"events":5}}"#,
        r#"{"schema":1,"version":5,"state":{"balance":999}}"#,
        r#"{"schema":1,"version":5}"#,
        "",
        "\u{0}",
    ] {
        keep(&store, foreign).await;
        assert_eq!(bank.state(&cx, "account-7").await.unwrap().0.balance, 6, "{foreign}");
    }
    bank.command(&cx, "account-7", Deposit { amount: 1 }).await.unwrap();
    assert_eq!(kept(&store).await.unwrap()["version"], 7, "and replaced by the next command");
}

#[tokio::test]
async fn a_refused_transaction_keeps_no_snapshot_either() {
    let (store, cx) = (Memory::new(), cx());
    let bank = snapshotting(&store);
    for _ in 0..4 {
        bank.command(&cx, "account-7", Deposit { amount: 1 }).await.unwrap();
    }
    let refused = bank
        .command(&cx, "account-7", Deposit { amount: 1 })
        .also(|_| Err::<(), _>(mainstay_event_store::Abort::User(No::Exists)))
        .await;
    assert_eq!(refused.unwrap_err(), CommandError::Refused(No::Exists));
    assert_eq!(kept(&store).await, None);
}

#[tokio::test]
async fn a_repeated_command_is_known_even_when_a_snapshot_hides_its_events() {
    let (store, cx) = (Memory::new(), cx());
    let bank = snapshotting(&store);
    bank.command(&cx, "account-7", Deposit { amount: 10 }).await.unwrap();
    let ensure = || Ensure { owner: "alice".into() };
    let ensured = bank.command(&cx, "account-7", ensure()).idempotent("ensure-1").await.unwrap();
    let first = bank.command(&cx, "account-7", Withdraw { amount: 10 }).idempotent("pay-1").await.unwrap();
    for _ in 0..10 {
        bank.command(&cx, "account-7", Deposit { amount: 1 }).await.unwrap();
    }
    let before = length(&store, "account-7").await;
    // Once where it would be decided the same (the store sees the ids), once where it would be refused.
    for _ in 0..2 {
        let again =
            bank.command(&cx, "account-7", Withdraw { amount: 10 }).idempotent("pay-1").await.unwrap();
        assert_eq!((again.version, again.events, again.repeated), (Version(3), first.events.clone(), true));
        let (left, _) = bank.state(&cx, "account-7").await.unwrap();
        if left.balance > 0 {
            bank.command(&cx, "account-7", Withdraw { amount: left.balance }).await.unwrap();
        }
    }
    assert_eq!(length(&store, "account-7").await, before + 1);
    // Decided anew there would be nothing to do: the answer is still what the command did.
    let again = bank.command(&cx, "account-7", ensure()).idempotent("ensure-1").await.unwrap();
    assert_eq!((again.version, again.events, again.repeated), (Version(2), ensured.events, true));
    // One that was never sent is refused, and the probe that asked leaves nothing behind.
    let refused =
        bank.command(&cx, "account-7", Withdraw { amount: 10 }).idempotent("pay-2").await.unwrap_err();
    assert!(matches!(refused, CommandError::Refused(No::Overdrawn { .. })), "{refused}");
    assert_eq!(length(&store, "account-7").await, before + 1);
}

/// The account as an older program wrote it: amounts in euros, where this one has cents.
#[tokio::test]
async fn a_stream_of_old_schemas_is_replayed_upcast() {
    use mainstay_flow::Event;
    #[derive(Clone, Debug, PartialEq, Event)]
    #[event(crate = "mainstay_flow")]
    enum Paid {
        #[event(schema = 2, upcast = to_cents)]
        Paid { cents: u64 },
    }
    fn to_cents(_: u32, payload: serde_json::Value) -> Result<serde_json::Value, &'static str> {
        let euros = payload["euros"].as_u64().ok_or("no euros")?;
        Ok(serde_json::json!({ "cents": euros * 100 }))
    }
    #[derive(Default)]
    struct Till(u64);
    impl Decider for Till {
        type Command = u64;
        type Event = Paid;
        type Refusal = std::convert::Infallible;
        fn decide(&self, cents: &u64) -> Result<Vec<Paid>, Self::Refusal> {
            Ok(vec![Paid::Paid { cents: *cents }])
        }
        fn evolve(&mut self, Paid::Paid { cents }: &Paid) {
            self.0 += cents;
        }
    }
    let (store, cx) = (Memory::new(), cx());
    let old = vec![raw("Paid", 1, "{\"euros\":3}"), raw("Paid", 2, "{\"cents\":5}")];
    store.append(&cx, Act::append(stream("till"), Expected::Empty, old)).await.unwrap();
    let till = Commands::<Till, _>::new(store.clone());
    till.command(&cx, "till", 7).await.unwrap();
    assert_eq!(till.state(&cx, "till").await.unwrap().0.0, 312);
    let broken = vec![raw("Paid", 1, "{}")];
    store.append(&cx, Act::append(stream("broken"), Expected::Empty, broken)).await.unwrap();
    let error = till.command(&cx, "broken", 7).await.unwrap_err();
    assert!(error.to_string().contains("no euros"), "{error}");
}
