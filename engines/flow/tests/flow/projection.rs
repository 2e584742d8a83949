//! Projections: each event applied once, in order, whatever fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mainstay_event_store::memory::Memory;
use mainstay_event_store::{
    Abort, Act, Expected, IndexValue, Position, Row, Scan, ScanBy, Store, Tx, ViewName,
};
use mainstay_flow::projection::{
    Consistency, Failure, Observed, Projection, ProjectionError, Projector, Reader, View,
};

use crate::bank::{
    AccountEvent, Balance, Balances, BalancesInCents, Create, Deposit, DepositMade, Many, Withdraw, bank, cx,
    quick, raw, stream,
};
use crate::faulty::{Fault, Faulty};

fn projector<T: Store>(source: &Memory, target: &T) -> Projector<Balances, Memory, T> {
    Projector::new(source.clone(), target.clone(), Balances).unwrap().retry(quick(10))
}

async fn row(target: &impl Store, key: &str) -> Option<Balance> {
    let reader = Reader::<Balances, _, _>::new(target.clone(), target.clone());
    reader.get(&cx(), key, Consistency::Eventual).await.unwrap()
}

/// Accounts 0 to 9 with 1, 2, 3 … events of 1 each.
async fn history(store: &Memory) {
    let (bank, cx) = (bank(store), cx());
    for account in 0..10_usize {
        for _ in 0..=account {
            bank.command(&cx, format!("account-{account}"), Deposit { amount: 1 }).await.unwrap();
        }
    }
}

async fn assert_history(target: &impl Store) {
    for account in 0..10 {
        let expected = Balance { amount: account + 1, events: account as u64 + 1 };
        assert_eq!(row(target, &format!("account-{account}")).await, Some(expected), "account {account}");
    }
}

#[tokio::test]
async fn the_rows_are_what_the_feed_says() {
    let (store, cx) = (Memory::new(), cx());
    let bank = bank(&store);
    bank.command(&cx, "account-7", Create { owner: "alice".into() }).await.unwrap();
    bank.command(&cx, "account-7", Deposit { amount: 100 }).await.unwrap();
    store
        .append(&cx, Act::append(stream("x"), Expected::Empty, vec![raw("Unrelated", 9, "?")]))
        .await
        .unwrap();
    bank.command(&cx, "account-7", Withdraw { amount: 20 }).await.unwrap();
    let balances = projector(&store, &store);
    assert_eq!(balances.run_until_caught_up(&cx).await.unwrap(), Position(4));
    assert_eq!(row(&store, "account-7").await, Some(Balance { amount: 80, events: 3 }));
    assert_eq!(row(&store, "account-8").await, None);
    assert_eq!(balances.run_until_caught_up(&cx).await.unwrap(), Position(4), "again: nothing to do");
    assert_eq!(row(&store, "account-7").await, Some(Balance { amount: 80, events: 3 }));
}

#[tokio::test]
async fn a_query_side_with_a_store_of_its_own_is_fed_by_the_feed() {
    let (source, target, cx) = (Memory::new(), Memory::new(), cx());
    history(&source).await;
    projector(&source, &target).page_max(7).run_until_caught_up(&cx).await.unwrap();
    assert_history(&target).await;
    assert_eq!(target.head().await.unwrap().position, Position::START, "rows only, no events");
    let reader = Reader::<Balances, _, _>::new(source.clone(), target.clone());
    let by = ScanBy::Index { index: "amount", from: IndexValue::Integer(9), to: IndexValue::Integer(10) };
    let found = reader.scan(&cx, by, None, 10, Consistency::Eventual).await.unwrap();
    let keys: Vec<_> = found.rows.iter().map(|(key, row)| (key.as_str(), row.amount)).collect();
    assert_eq!(keys, [("account-8", 9), ("account-9", 10)]);
}

/// Dies at each of its writes in turn, before and after it, and is started anew each time.
#[tokio::test]
async fn a_crash_between_any_two_pages_neither_doubles_nor_loses() {
    let (source, cx) = (Memory::new(), cx());
    history(&source).await;
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        for survived in 0..12 {
            let rows = Memory::new();
            let mut crashes = 0;
            loop {
                let plan = std::iter::repeat_n(Fault::None, survived).chain([fault.clone()]);
                let process = Faulty::over(rows.clone(), plan);
                let projector = projector(&source, &process).page_max(9);
                let caught_up = tokio::select! {
                    caught_up = projector.run_until_caught_up(&cx) => caught_up.unwrap(),
                    () = process.crashed() => {
                        crashes += 1;
                        assert!(crashes < 30, "no progress between crashes");
                        if survived == 0 && matches!(fault, Fault::CrashBefore) {
                            break;
                        }
                        continue;
                    }
                };
                assert_eq!(caught_up, Position(55));
                assert_history(&rows).await;
                break;
            }
            assert!(crashes > 0 || survived > 7, "{fault:?} after {survived} writes: nothing was tested");
        }
    }
}

#[tokio::test]
async fn lost_answers_and_a_busy_store_neither_double_nor_lose() {
    let (source, cx) = (Memory::new(), cx());
    history(&source).await;
    for fault in [Fault::LostAfter, Fault::LostBefore, Fault::Busy] {
        let plan = (0..40).map(|i| if i % 2 == 0 { fault.clone() } else { Fault::None });
        let target = Faulty::new(plan);
        let caught_up = projector(&source, &target).page_max(4).run_until_caught_up(&cx).await.unwrap();
        assert_eq!(caught_up, Position(55));
        assert_history(&target).await;
        assert!(target.writes() >= 15, "the record and 14 pages at least: {fault:?}");
    }
}

#[tokio::test]
async fn a_store_that_stays_busy_is_given_up_and_gone_on_with_later() {
    let (source, cx) = (Memory::new(), cx());
    history(&source).await;
    let target = Faulty::new([Fault::None, Fault::None].into_iter().chain(vec![Fault::Busy; 10]));
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let projector = projector(&source, &target).page_max(9).on_trouble(move |why| {
        assert!(why.contains("busy"), "{why}");
        count.fetch_add(1, Ordering::Relaxed);
    });
    let error = projector.run_until_caught_up(&cx).await.unwrap_err();
    assert_eq!(told.load(Ordering::Relaxed), 10, "each one is told");
    assert!(matches!(&error, ProjectionError::GaveUp { tries: 10, .. }), "{error}");
    assert_eq!(target.writes(), 12);
    projector.run_until_caught_up(&cx).await.unwrap();
    assert_history(&target).await;
}

#[tokio::test]
async fn copies_share_the_work_and_apply_each_event_once() {
    let (source, cx) = (Memory::new(), cx());
    history(&source).await;
    // All copies have read a page before the first of them writes it.
    let target = Faulty::new(vec![Fault::Yield; 1_000]);
    let copies = [(); 4].map(|()| projector(&source, &target).page_max(2).retry(quick(1_000)));
    let [a, b, c, d] = &copies;
    let ended = tokio::join!(
        a.run_until_caught_up(&cx),
        b.run_until_caught_up(&cx),
        c.run_until_caught_up(&cx),
        d.run_until_caught_up(&cx)
    );
    assert_eq!(ended, (Ok(Position(55)), Ok(Position(55)), Ok(Position(55)), Ok(Position(55))));
    assert_history(&target).await;
    // 4 records and 28 pages, were each page tried once.
    assert!(target.writes() > 32, "they met: {} writes", target.writes());
}

#[tokio::test]
async fn a_live_projector_follows_what_comes_and_stops_when_told() {
    let (store, cx) = (Memory::new(), cx());
    let balances = projector(&store, &store);
    let reader = balances.reader();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn({
        let (balances, cx) = (balances.clone(), cx.clone());
        async move { balances.run(&cx, async { drop(stopped.await) }).await }
    });
    let bank = bank(&store);
    for amount in 1..=20 {
        let done = bank.command(&cx, "account-7", Deposit { amount: 1 }).await.unwrap();
        let shown = reader.get(&cx, "account-7", Consistency::ReadYourWrites(&done.receipt)).await.unwrap();
        assert_eq!(shown.unwrap().amount, amount);
    }
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
    bank.command(&cx, "account-7", Deposit { amount: 1 }).await.unwrap();
    assert_eq!(row(&store, "account-7").await.unwrap().amount, 20, "it has stopped");
}

#[tokio::test]
async fn an_event_that_can_not_be_read_stops_it_and_is_named() {
    let (store, cx) = (Memory::new(), cx());
    let bank = bank(&store);
    bank.command(&cx, "account-7", Many { deposits: 3 }).await.unwrap();
    let broken = raw("DepositMade", 1, "{\"amount\":\"alice\"}");
    store.append(&cx, Act::append(stream("account-8"), Expected::Empty, vec![broken])).await.unwrap();
    bank.command(&cx, "account-7", Deposit { amount: 1 }).await.unwrap();
    let balances = projector(&store, &store);
    for _ in 0..2 {
        let error = balances.run_until_caught_up(&cx).await.unwrap_err();
        assert!(matches!(error, ProjectionError::Undecodable { position: Position(4), .. }), "{error}");
        let shown = error.to_string();
        assert!(shown.contains("before position 4 (stream account-8, version 1)"), "{shown}");
        assert!(!shown.contains("alice"), "{shown}");
        assert_eq!(row(&store, "account-7").await.unwrap().events, 3, "what stands before it is applied");
    }
}

/// Fails, or panics, at an event, until it is mended.
struct Choosy {
    mended: Arc<AtomicBool>,
    panics: bool,
}

impl Projection for Choosy {
    type Event = AccountEvent;
    type Row = Balance;
    const NAME: &'static str = "choosy";

    fn apply(&self, view: &View<'_, Balance>, event: &Observed<'_, AccountEvent>) -> Result<(), Failure> {
        if *event.event() == (DepositMade { amount: 13 }) && !self.mended.load(Ordering::Relaxed) {
            assert!(!self.panics, "thirteen");
            return Err(Failure::because("thirteen"));
        }
        view.update("all", |row| row.events += 1)
    }
}

#[tokio::test]
async fn code_that_fails_for_an_event_is_told_where_and_goes_on_when_mended() {
    for panics in [false, true] {
        let (store, cx) = (Memory::new(), cx());
        let bank = bank(&store);
        bank.command(&cx, "account-7", Many { deposits: 100 }).await.unwrap();
        bank.command(&cx, "account-7", Deposit { amount: 13 }).await.unwrap();
        bank.command(&cx, "account-7", Many { deposits: 100 }).await.unwrap();
        let mended = Arc::new(AtomicBool::new(false));
        let choosy = Choosy { mended: Arc::clone(&mended), panics };
        let choosy = Projector::new(store.clone(), store.clone(), choosy).unwrap().retry(quick(3));
        let error = choosy.run_until_caught_up(&cx).await.unwrap_err();
        assert!(matches!(error, ProjectionError::Failed { position: Position(101), .. }), "{error}");
        assert!(error.to_string().contains("thirteen"), "{error}");
        mended.store(true, Ordering::Relaxed);
        choosy.run_until_caught_up(&cx).await.unwrap();
        let all = choosy.reader().get(&cx, "all", Consistency::Eventual).await.unwrap().unwrap();
        assert_eq!(all.events, 201, "each once");
    }
}

/// Panics so many times; what it panics at passes.
struct Moody(AtomicUsize);

impl Projection for Moody {
    type Event = AccountEvent;
    type Row = Balance;
    const NAME: &'static str = "moody";

    fn apply(&self, view: &View<'_, Balance>, _: &Observed<'_, AccountEvent>) -> Result<(), Failure> {
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        assert!(left.is_err(), "not now");
        view.update("all", |row| row.events += 1)
    }
}

#[tokio::test]
async fn after_a_bad_stretch_the_pages_grow_again() {
    let (target, cx) = (Faulty::new([]), cx());
    for _ in 0..3 {
        bank(&target.inner).command(&cx, "account-7", Many { deposits: 1_000 }).await.unwrap();
    }
    let moody = Moody(AtomicUsize::new(6));
    let moody = Projector::new(target.inner.clone(), target.clone(), moody).unwrap().page_max(64);
    moody.run_until_caught_up(&cx).await.unwrap();
    let all = moody.reader().get(&cx, "all", Consistency::Eventual).await.unwrap().unwrap();
    assert_eq!(all.events, 3_000, "each once");
    // Six tries that fail, then 16 pages each of 1, 2, 4 … 32 events, the rest in pages of 64.
    assert!((100..200).contains(&target.writes()), "{} writes", target.writes());
}

#[tokio::test]
async fn rows_of_another_version_store_or_way_are_not_mixed() {
    let (store, cx) = (Memory::new(), cx());
    history(&store).await;
    projector(&store, &store).run_until_caught_up(&cx).await.unwrap();

    let newer = Projector::new(store.clone(), store.clone(), BalancesInCents).unwrap();
    for error in [newer.run_until_caught_up(&cx).await.unwrap_err(), newer.verify(&cx).await.unwrap_err()] {
        assert!(matches!(error, ProjectionError::OtherVersion { stored: 1, ours: 2, .. }), "{error}");
    }

    let error = projector(&Memory::new(), &store).run_until_caught_up(&cx).await.unwrap_err();
    assert!(matches!(error, ProjectionError::OtherSource { .. }), "{error}");

    let inline = bank(&store).inline(Balances).unwrap();
    let error = inline.command(&cx, "account-7", Deposit { amount: 1 }).await.unwrap_err();
    assert!(error.to_string().contains("counted twice"), "{error}");

    let (fresh, inline_cx) = (Memory::new(), cx.clone());
    bank(&fresh)
        .inline(Balances)
        .unwrap()
        .command(&inline_cx, "account-7", Deposit { amount: 1 })
        .await
        .unwrap();
    let error = projector(&fresh, &fresh).run_until_caught_up(&cx).await.unwrap_err();
    assert!(matches!(error, ProjectionError::OtherMode { .. }), "{error}");
    assert_history(&store).await;
}

#[tokio::test]
async fn a_feed_that_was_restored_and_went_on_differently_is_noticed() {
    let id = mainstay_event_store::StoreId(cx().new_id());
    let (source, restored, target, cx) = (Memory::with_id(id), Memory::with_id(id), Memory::new(), cx());
    history(&source).await;
    projector(&source, &target).run_until_caught_up(&cx).await.unwrap();

    let shorter = bank(&restored);
    shorter.command(&cx, "account-0", Deposit { amount: 1 }).await.unwrap();
    let error = projector(&restored, &target).run_until_caught_up(&cx).await.unwrap_err();
    assert!(matches!(error, ProjectionError::Rewritten { at: Position(55), .. }), "cut off: {error}");

    history(&restored).await;
    let error = projector(&restored, &target).run_until_caught_up(&cx).await.unwrap_err();
    assert!(matches!(error, ProjectionError::Rewritten { at: Position(55), .. }), "another history: {error}");
    assert_history(&target).await;
}

#[tokio::test]
async fn inline_and_asynchronous_rows_are_the_same() {
    let (inline, cx) = (Memory::new(), cx());
    let (commands, apart) = (bank(&inline).inline(Balances).unwrap(), Memory::new());
    for account in 0..10_usize {
        let name = format!("account-{account}");
        commands.command(&cx, &name, Many { deposits: account + 1 }).await.unwrap();
    }
    projector(&inline, &apart).run_until_caught_up(&cx).await.unwrap();
    assert_history(&inline).await;
    assert_history(&apart).await;
    let rows = async |store: &Memory| {
        let view = ViewName::new("balances#1").unwrap();
        store.view_scan(&Scan::keys(view, 100)).await.unwrap().rows
    };
    assert_eq!(rows(&inline).await, rows(&apart).await, "byte for byte");
}

#[tokio::test]
async fn drift_is_found_and_named() {
    let (source, target, cx) = (Memory::new(), Memory::new(), cx());
    history(&source).await;
    let balances = projector(&source, &target).page_max(7);
    balances.run_until_caught_up(&cx).await.unwrap();
    bank(&source).command(&cx, "account-3", Deposit { amount: 1 }).await.unwrap();
    let verified = balances.verify(&cx).await.unwrap();
    assert_eq!(
        (verified.at, verified.rows, verified.drift.len()),
        (Position(55), 10, 0),
        "behind is not drift"
    );

    let view = ViewName::new("balances#1").unwrap();
    let tamper = move |tx: &_| {
        Tx::view_put(tx, &view, &Row::new("account-3", "{\"events\":4,\"amount\":4}"))?;
        Tx::view_put(tx, &view, &Row::new("account-5", "{\"amount\":600,\"events\":6}"))?;
        Tx::view_put(tx, &view, &Row::new("account-x", "{\"amount\":1,\"events\":1}"))?;
        Tx::view_delete(tx, &view, "account-6")?;
        Ok::<_, Abort<()>>(())
    };
    target.transact(&cx, tamper).await.unwrap();
    let drift = balances.verify(&cx).await.unwrap().drift;
    let keys: Vec<_> = drift.iter().map(|drift| drift.key.as_str()).collect();
    assert_eq!(keys, ["account-5", "account-6", "account-x"], "another order of members is no drift");
    assert_eq!(drift[0].replayed.as_deref(), Some(&b"{\"amount\":6,\"events\":6}"[..]));
    assert_eq!((&drift[1].stored, &drift[2].replayed), (&None, &None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_view_is_verified_while_everybody_goes_on() {
    let (store, cx) = (Memory::new(), cx());
    history(&store).await;
    let balances = projector(&store, &store).page_max(3);
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let work = tokio::spawn({
        let (bank, balances, cx) = (bank(&store), balances.clone(), cx.clone());
        async move {
            while !*stopped.borrow_and_update() {
                bank.command(&cx, "account-3", Deposit { amount: 1 }).await.unwrap();
                balances.run_until_caught_up(&cx).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    for _ in 0..20 {
        assert_eq!(balances.verify(&cx).await.unwrap().drift, []);
    }
    stop.send_replace(true);
    work.await.unwrap();
}

/// Puts, gets, deletes and scans in one transaction; `apply` itself checks that reads see the writes before them.
struct Ledger;

impl Projection for Ledger {
    type Event = AccountEvent;
    type Row = Balance;
    const NAME: &'static str = "ledger";

    fn apply(&self, view: &View<'_, Balance>, event: &Observed<'_, AccountEvent>) -> Result<(), Failure> {
        let n = event.version().0;
        let row = Balance { amount: n as i64, events: n };
        view.put("last", &row)?;
        assert_eq!(view.get("last")?, Some(row));
        view.put(&format!("kept-{n:03}"), &Balance::default())?;
        view.put("gone", &Balance::default())?;
        assert_eq!((view.delete("gone")?, view.delete("gone")?, view.get("gone")?), (true, false, None));
        if n > 1 {
            assert!(
                view.delete(&format!("kept-{:03}", n - 1))?,
                "written by the event before, in this page or another"
            );
        }
        let by = ScanBy::Index {
            index: "amount",
            from: IndexValue::Integer(1),
            to: IndexValue::Integer(i64::MAX),
        };
        if n.is_multiple_of(5) {
            let found = view.scan(by, None, 10)?;
            assert_eq!(found.rows, [("last".to_owned(), Balance { amount: n as i64, events: n })]);
        }
        view.update("gone", |row| row.events = n)
    }

    fn indices(row: &Balance) -> Vec<mainstay_event_store::IndexEntry> {
        Balances::indices(row)
    }
}

#[tokio::test]
async fn reads_see_the_writes_before_them_however_the_pages_are_cut() {
    let cx = cx();
    let mut all = Vec::new();
    for page_max in [1, 3, 7, 1_000] {
        let store = Memory::new();
        bank(&store).command(&cx, "account-7", Many { deposits: 40 }).await.unwrap();
        let ledger = Projector::new(store.clone(), store.clone(), Ledger).unwrap().page_max(page_max);
        ledger.run_until_caught_up(&cx).await.unwrap();
        let view = ViewName::new("ledger#1").unwrap();
        all.push(store.view_scan(&Scan::keys(view, 1_000)).await.unwrap().rows);
        let keys: Vec<_> = all[0].iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["gone", "kept-040", "last"]);
        assert_eq!(all.last(), all.first(), "pages of {page_max}");
    }
}

#[tokio::test]
async fn a_row_that_can_not_be_written_is_told_with_its_event() {
    struct Large;
    impl Projection for Large {
        type Event = AccountEvent;
        type Row = String;
        const NAME: &'static str = "large";
        fn apply(&self, view: &View<'_, String>, event: &Observed<'_, AccountEvent>) -> Result<(), Failure> {
            let n = event.version().0;
            let bytes = if n == 4 { 2 << 20 } else { 5 };
            view.put(&n.to_string(), &"a".repeat(bytes))
        }
    }
    let (store, cx) = (Memory::new(), cx());
    bank(&store).command(&cx, "account-7", Many { deposits: 9 }).await.unwrap();
    let large = Projector::new(store.clone(), store.clone(), Large).unwrap();
    let error = large.run_until_caught_up(&cx).await.unwrap_err();
    assert!(matches!(error, ProjectionError::Failed { position: Position(4), .. }), "{error}");
}
