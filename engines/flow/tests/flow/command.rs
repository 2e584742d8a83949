//! Commands: recorded once, refused whole, decided again when others were faster.

use mainstay_event_store::memory::Memory;
use mainstay_event_store::{Abort, Expected, OutboxRow, Refusal, Row, Store, Topic, Tx, Version, ViewName};
use mainstay_flow::command::CommandError;

use crate::bank::{
    Account, AccountCreated, Balances, Create, Deposit, DepositMade, Many, No, Withdraw, WithdrawalMade,
    bank, cx, keyed, length, quick, raw, stream,
};
use crate::faulty::{Fault, Faulty};

fn rival(amount: i64) -> Fault {
    Fault::Rival(stream("account-7"), raw("DepositMade", 1, &format!("{{\"amount\":{amount}}}")))
}

#[tokio::test]
async fn the_account_is_what_its_events_say() {
    let (store, cx) = (Memory::new(), cx());
    let bank = bank(&store);
    bank.command(&cx, "account-7", Create { owner: "alice".into() }).await.unwrap();
    bank.command(&cx, "account-7", Deposit { amount: 100 }).await.unwrap();
    let done = bank.command(&cx, "account-7", Withdraw { amount: 20 }).await.unwrap();
    assert_eq!((done.version, done.repeated), (Version(3), false));
    assert_eq!(done.events, [WithdrawalMade { amount: 20 }]);
    let (account, version) = bank.state(&cx, "account-7").await.unwrap();
    assert_eq!((account.balance, version), (80, Version(3)));
    let tagged = mainstay_event_store::Query::tags(["owner:alice".parse().unwrap()]);
    let found = store.read(&tagged, mainstay_event_store::Position::START, 10).await.unwrap();
    assert_eq!(found.events.len(), 1, "the derived tag is stored");
}

#[tokio::test]
async fn a_refused_command_writes_nothing() {
    let (store, cx) = (Memory::new(), cx());
    let bank = bank(&store);
    bank.command(&cx, "account-7", Deposit { amount: 100 }).await.unwrap();
    let refused = bank.command(&cx, "account-7", Withdraw { amount: 120 }).await.unwrap_err();
    assert_eq!(refused, CommandError::Refused(No::Overdrawn { by: 20 }));
    assert!(matches!(bank.command(&cx, "", Deposit { amount: 1 }).await, Err(CommandError::Name(_))));
    assert_eq!(store.head().await.unwrap().position.0, 1);
}

#[tokio::test]
async fn a_command_with_nothing_to_do_is_acknowledged_with_a_receipt() {
    let (store, cx) = (Memory::new(), cx());
    let bank = bank(&store);
    let first = bank.command(&cx, "account-7", Deposit { amount: 5 }).await.unwrap();
    let idle = bank
        .command(&cx, "account-7", Deposit { amount: 0 })
        .also(|_| -> Result<(), Abort<No>> { panic!("there is no transaction to join") })
        .await
        .unwrap();
    assert_eq!((idle.version, idle.events.len()), (Version(1), 0));
    assert_eq!(store.position(&idle.receipt).await, store.position(&first.receipt).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_commanders_of_one_account_never_lose_or_overdraw() {
    let (store, cx) = (Memory::new(), cx());
    let bank = bank(&store).conflict_retry(quick(1_000));
    bank.command(&cx, "account-7", Deposit { amount: 300 }).await.unwrap();
    let commanders = (0..8).map(|_| {
        let (bank, cx) = (bank.clone(), cx.clone());
        tokio::spawn(async move {
            let (mut taken, mut refused) = (0, 0);
            for _ in 0..50 {
                match bank.command(&cx, "account-7", Withdraw { amount: 1 }).await {
                    Ok(_) => taken += 1,
                    Err(CommandError::Refused(No::Overdrawn { by: 1 })) => refused += 1,
                    Err(other) => panic!("{other}"),
                }
                tokio::task::yield_now().await;
            }
            (taken, refused)
        })
    });
    let (mut taken, mut refused) = (0, 0);
    for commander in commanders.collect::<Vec<_>>() {
        let (took, was_refused) = commander.await.unwrap();
        taken += took;
        refused += was_refused;
    }
    assert_eq!((taken, refused), (300, 100), "exactly what was there was taken");
    let (account, version) = bank.state(&cx, "account-7").await.unwrap();
    assert_eq!((account.balance, version), (0, Version(301)));
}

#[tokio::test]
async fn a_conflict_is_decided_again_on_what_is_there_now() {
    let (store, cx) = (Faulty::new([Fault::None, rival(-90)]), cx());
    let bank = bank(&store).conflict_retry(quick(5));
    bank.command(&cx, "account-7", Deposit { amount: 100 }).await.unwrap();
    // Decided on 100, but 90 of it are gone before it is recorded.
    let refused = bank.command(&cx, "account-7", Withdraw { amount: 20 }).await.unwrap_err();
    assert_eq!(refused, CommandError::Refused(No::Overdrawn { by: 10 }));
    store.plan([rival(1), rival(1)]);
    let done = bank.command(&cx, "account-7", Withdraw { amount: 10 }).await.unwrap();
    assert_eq!(done.version, Version(5), "after both rivals");
}

#[tokio::test]
async fn conflicts_are_retried_so_often_and_no_more() {
    let (store, cx) = (Faulty::new((0..10).map(|_| rival(1))), cx());
    let bank = bank(&store).conflict_retry(quick(4));
    let error = bank.command(&cx, "account-7", Deposit { amount: 5 }).await.unwrap_err();
    assert!(matches!(&error, CommandError::Conflict { tries: 4, .. }), "{error}");
    assert_eq!(store.writes(), 4);
    assert!(error.to_string().contains("nothing was written"), "{error}");
    assert_eq!(length(&store, "account-7").await, 4, "the rivals' only");
}

#[tokio::test]
async fn a_busy_store_is_asked_again_so_often_and_no_more() {
    let (store, cx) = (Faulty::new([Fault::Busy, Fault::Busy]), cx());
    let bank = bank(&store).trouble_retry(quick(3));
    bank.command(&cx, "account-7", Deposit { amount: 5 }).await.unwrap();
    store.plan(vec![Fault::Busy; 10]);
    let error = bank.command(&cx, "account-7", Deposit { amount: 5 }).await.unwrap_err();
    assert!(matches!(error, CommandError::Store { refusal: Refusal::Busy { .. }, tries: 3 }), "{error}");
    assert_eq!(length(&store, "account-7").await, 1);
}

#[tokio::test]
async fn an_unknown_outcome_is_resolved_and_never_doubles() {
    for lost in [Fault::LostAfter, Fault::LostBefore] {
        for with_transaction in [false, true] {
            let (store, cx) = (Faulty::new([lost.clone()]), cx());
            let bank = bank(&store).trouble_retry(quick(3));
            let mut command = bank.command(&cx, "account-7", Deposit { amount: 5 });
            if with_transaction {
                command = command.also(write_outbox);
            }
            let done = command.await.unwrap();
            assert_eq!((done.version, done.repeated), (Version(1), false), "{lost:?}");
            assert_eq!(length(&store, "account-7").await, 1, "{lost:?}");
            let rows = store.outbox_after(0, 10).await.unwrap().len();
            assert_eq!(rows, usize::from(with_transaction), "{lost:?}");
        }
    }
}

#[tokio::test]
async fn an_outcome_that_stays_unknown_is_not_called_refused() {
    let (store, cx) = (Faulty::new([Fault::LostAfter, Fault::Busy, Fault::Busy, Fault::Busy]), cx());
    let bank = bank(&store).trouble_retry(quick(3));
    let error = bank.command(&cx, "account-7", Deposit { amount: 5 }).await.unwrap_err();
    assert!(matches!(&error, CommandError::Unknown { tries: 3, .. }), "it is recorded: {error}");
    assert_eq!(length(&store, "account-7").await, 1);
}

fn write_outbox(tx: &impl Tx) -> Result<(), Refusal> {
    tx.outbox(&OutboxRow {
        topic: Topic::new("accounts").unwrap(),
        key: "7".into(),
        headers: vec![],
        payload: b"deposit".to_vec(),
    })
}

#[tokio::test]
async fn what_is_also_done_commits_with_the_events_or_not_at_all() {
    let (store, cx) = (Memory::new(), cx());
    let bank = bank(&store);
    let audit = ViewName::new("audit").unwrap();
    let view = audit.clone();
    bank.command(&cx, "account-7", Deposit { amount: 100 })
        .also(write_outbox)
        .also(move |tx| tx.view_put(&view, &Row::new("7", "deposit")))
        .await
        .unwrap();
    assert_eq!(store.outbox_after(0, 10).await.unwrap().len(), 1);
    assert!(store.view_get(&audit, "7").await.unwrap().is_some());

    let refused = bank
        .command(&cx, "account-7", Withdraw { amount: 20 })
        .also(write_outbox)
        .also(|_| Err::<(), _>(Abort::User(No::Exists)))
        .await
        .unwrap_err();
    assert_eq!(refused, CommandError::Refused(No::Exists), "in the decider's own words");
    assert_eq!(store.outbox_after(0, 10).await.unwrap().len(), 1);
    assert_eq!(length(&store, "account-7").await, 1, "the events neither");
}

#[tokio::test]
async fn a_conflict_of_another_stream_in_the_same_transaction_is_decided_again() {
    let (store, cx) = (Memory::new(), cx());
    let bank = bank(&store).conflict_retry(quick(3));
    // The closure expects what will never be.
    let error = bank
        .command(&cx, "account-7", Deposit { amount: 1 })
        .also(|tx| tx.append(&stream("other"), Expected::Exactly(Version(9)), &[raw("X", 1, "{}")]).map(drop))
        .await
        .unwrap_err();
    assert!(matches!(error, CommandError::Conflict { tries: 3, .. }), "{error}");
    assert_eq!(store.head().await.unwrap().position.0, 0);
}

#[tokio::test]
async fn a_version_that_was_asked_for_is_the_one_that_is_changed() {
    let (store, cx) = (Faulty::new([]), cx());
    let bank = bank(&store).conflict_retry(quick(5));
    bank.command(&cx, "account-7", Deposit { amount: 5 }).await.unwrap();
    bank.command(&cx, "account-7", Deposit { amount: 5 }).expect_version(Version(1)).await.unwrap();
    let moved =
        bank.command(&cx, "account-7", Deposit { amount: 5 }).expect_version(Version(1)).await.unwrap_err();
    assert!(matches!(moved, CommandError::VersionMoved { expected: Version(1), actual: Version(2), .. }));
    // Moved between reading and recording: never decided on the newer state.
    store.plan([rival(1)]);
    let moved =
        bank.command(&cx, "account-7", Deposit { amount: 5 }).expect_version(Version(2)).await.unwrap_err();
    assert!(
        matches!(moved, CommandError::VersionMoved { expected: Version(2), actual: Version(3), .. }),
        "{moved}"
    );
    assert_eq!(length(&store, "account-7").await, 3);
}

#[tokio::test]
async fn a_repeated_command_is_acknowledged_again_and_recorded_once() {
    let (store, cx) = (Memory::new(), cx());
    let bank = bank(&store);
    bank.command(&cx, "account-7", Deposit { amount: 100 }).await.unwrap();
    let first = bank
        .command(&cx, "account-7", Withdraw { amount: 80 })
        .idempotent("pay-1")
        .also(write_outbox)
        .await
        .unwrap();
    bank.command(&cx, "account-7", Deposit { amount: 1 }).await.unwrap();
    // Decided anew it would be refused: there are 21 left.
    let again = bank
        .command(&cx, "account-7", Withdraw { amount: 80 })
        .idempotent("pay-1")
        .expect_version(Version(1))
        .also(write_outbox)
        .await
        .unwrap();
    assert_eq!((again.version, &again.events, again.repeated), (first.version, &first.events, true));
    assert_eq!(store.position(&again.receipt).await, store.position(&first.receipt).await);
    assert_eq!(length(&store, "account-7").await, 3);
    assert_eq!(store.outbox_after(0, 10).await.unwrap().len(), 1);
    // The same id means another command on another stream.
    let other = bank.command(&cx, "account-8", Deposit { amount: 1 }).idempotent("pay-1").await.unwrap();
    assert!(!other.repeated);
}

#[tokio::test]
async fn a_call_with_a_key_is_repeated_by_its_client_and_recorded_once() {
    let store = Memory::new();
    let bank = bank(&store);
    let first = bank.command(&keyed("call-1"), "account-7", Deposit { amount: 5 }).await.unwrap();
    let again = bank.command(&keyed("call-1"), "account-7", Deposit { amount: 5 }).await.unwrap();
    assert_eq!((again.version, again.repeated, length(&store, "account-7").await), (first.version, true, 1));

    // Two commands of one call: the second is never taken for the first.
    let call = keyed("call-2");
    bank.command(&call, "account-7", Deposit { amount: 5 }).await.unwrap();
    bank.command(&call, "account-8", Deposit { amount: 5 }).await.unwrap();
    let error = bank.command(&call, "account-7", Withdraw { amount: 1 }).await.unwrap_err();
    assert!(matches!(error, CommandError::KeyReused { version: Version(2), .. }), "{error}");
    let fee = call.envelope().idempotency_key().unwrap().derive("fee", 0);
    bank.command(&call, "account-7", Withdraw { amount: 1 }).idempotent(fee.as_str()).await.unwrap();
    assert_eq!(length(&store, "account-7").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_command_sent_many_times_at_once_is_recorded_once() {
    for round in 0..50 {
        let (store, cx) = (Memory::new(), cx());
        let bank = bank(&store).conflict_retry(quick(100));
        let copies = (0..8).map(|_| {
            let (bank, cx) = (bank.clone(), cx.clone());
            tokio::spawn(async move {
                bank.command(&cx, "account-7", Many { deposits: 3 })
                    .idempotent("once")
                    .await
                    .unwrap()
                    .repeated
            })
        });
        let mut first = 0;
        for copy in copies.collect::<Vec<_>>() {
            first += usize::from(!copy.await.unwrap());
        }
        assert_eq!((first, length(&store, "account-7").await), (1, 3), "round {round}");
    }
}

#[tokio::test]
async fn an_event_that_can_not_be_read_stops_the_command_and_names_it() {
    let (store, cx) = (Faulty::new([]), cx());
    let bank = bank(&store);
    for (event, words) in [
        (raw("Unheard", 1, "{}"), "\"Unheard\" is not one of this program's events"),
        (raw("DepositMade", 2, "{}"), "schema 2, this program knows 1"),
        (raw("DepositMade", 1, "{}"), "missing field `amount`"),
    ] {
        let name = format!("account-{}", event.id);
        let act = mainstay_event_store::Act::append(stream(&name), Expected::Any, vec![event]);
        store.append(&cx, act).await.unwrap();
        let error = bank.command(&cx, &name, Deposit { amount: 1 }).await.unwrap_err();
        assert!(matches!(error, CommandError::Undecodable { version: Version(1), .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn what_could_not_be_read_again_is_not_written() {
    use mainstay_flow::{Decider, Event};
    #[derive(Clone, Debug, PartialEq, Event)]
    #[event(crate = "mainstay_flow")]
    enum Reading {
        Taken {
            #[event(tag)]
            place: String,
            degrees: f64,
        },
    }
    #[derive(Default)]
    struct Station;
    impl Decider for Station {
        type Command = (String, f64);
        type Event = Reading;
        type Refusal = ();
        fn decide(&self, (place, degrees): &(String, f64)) -> Result<Vec<Reading>, ()> {
            Ok(vec![Reading::Taken { place: place.clone(), degrees: *degrees }])
        }
        fn evolve(&mut self, _: &Reading) {}
    }
    let (store, cx) = (Memory::new(), cx());
    let station = mainstay_flow::Commands::<Station, _>::new(store.clone());
    let nan = station.command(&cx, "station", ("north".into(), f64::NAN)).await.unwrap_err();
    assert!(
        matches!(&nan, CommandError::Unstorable(_)) && nan.to_string().contains("nothing was written"),
        "{nan}"
    );
    let tag = station.command(&cx, "station", ("a\nb".into(), 1.0)).await.unwrap_err();
    assert!(matches!(tag, CommandError::Unstorable(_)), "{tag}");
    assert_eq!(store.head().await.unwrap().position.0, 0);
    station.command(&cx, "station", ("north".into(), 1.0)).await.unwrap();
}

#[tokio::test]
async fn more_events_than_an_act_takes_are_refused_whole() {
    let (store, cx) = (Memory::new(), cx());
    let bank = bank(&store);
    let error = bank.command(&cx, "account-7", Many { deposits: 1_001 }).await.unwrap_err();
    assert!(matches!(error, CommandError::Store { refusal: Refusal::Invalid { .. }, .. }), "{error}");
    let error =
        bank.command(&cx, "account-7", Many { deposits: 1_001 }).also(write_outbox).await.unwrap_err();
    assert!(matches!(error, CommandError::Store { refusal: Refusal::Invalid { .. }, .. }), "{error}");
    let done = bank.command(&cx, "account-7", Many { deposits: 1_000 }).await.unwrap();
    assert_eq!(done.version, Version(1_000));
    bank.command(&cx, "account-7", Many { deposits: 500 }).await.unwrap();
    assert_eq!(bank.state(&cx, "account-7").await.unwrap().0.balance, 1_500, "replayed in pages");
}

#[tokio::test]
async fn an_inline_projection_is_in_the_events_transaction() {
    let (store, cx) = (Memory::new(), cx());
    let bank = bank(&store).inline(Balances).unwrap();
    let balances = mainstay_flow::projection::Reader::<Balances, _, _>::new(store.clone(), store.clone());
    let created = bank.command(&cx, "account-7", Create { owner: "alice".into() }).await.unwrap();
    assert_eq!(created.events, [AccountCreated { owner: "alice".into() }]);
    bank.command(&cx, "account-7", Deposit { amount: 100 }).await.unwrap();
    let refused = bank
        .command(&cx, "account-7", Withdraw { amount: 20 })
        .also(|_| Err::<(), _>(Abort::User(No::Exists)))
        .await;
    assert!(refused.is_err());
    use mainstay_flow::projection::Consistency::Eventual;
    let row = balances.get(&cx, "account-7", Eventual).await.unwrap().unwrap();
    assert_eq!((row.amount, row.events), (100, 2), "the refused withdrawal is not in it");
    let _ = DepositMade { amount: 0 };
}

#[tokio::test]
async fn a_deadline_that_is_over_writes_nothing() {
    let (store, cx) = (Memory::new(), cx());
    let bank: mainstay_flow::Commands<Account, _> = bank(&store);
    let late = crate::bank::over(&cx);
    let error = bank.command(&late, "account-7", Deposit { amount: 5 }).await.unwrap_err();
    assert_eq!(error, CommandError::DeadlineOver);
    assert_eq!(store.head().await.unwrap().position.0, 0);
}
