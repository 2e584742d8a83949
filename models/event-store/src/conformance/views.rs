//! Promise 10, the portable view: rows by key and by index.

use super::Harness;
use super::kit::*;
use crate::IndexValue::{Integer, Text};
use crate::*;

fn text(value: &str) -> IndexValue {
    Text(value.to_owned())
}

async fn put<S: Store>(store: &S, name: &str, rows: Vec<Row>) {
    let name = view(name);
    commit(store, move |tx| {
        for row in &rows {
            tx.view_put(&name, row)?;
        }
        Ok(())
    })
    .await;
}

/// All keys of a scan, in pages of `page`; fails when a page is not what was asked for.
async fn keys<S: Store>(store: &S, scan: Scan, page: usize) -> Vec<String> {
    let (mut keys, mut scan) = (Vec::new(), Scan { rows_max: page, ..scan });
    loop {
        let rows = store.view_scan(&scan).await.unwrap();
        // The same page inside a transaction.
        let same = scan.clone();
        assert_eq!(commit(store, move |tx| Ok(tx.view_scan(&same)?)).await, rows);
        assert!(rows.rows.len() <= page);
        assert!(rows.next.is_none() || rows.rows.len() == page, "a short page in the middle");
        keys.extend(rows.rows.into_iter().map(|(key, _)| key));
        assert!(keys.len() <= 1_000, "the scan begins again and again: {:?}", &keys[..10]);
        match rows.next {
            Some(cursor) => {
                assert_eq!(keys.last(), Some(&cursor.key));
                scan = scan.after(cursor);
            }
            None => return keys,
        }
    }
}

fn by_index(name: &str, index: &'static str, from: IndexValue, to: IndexValue) -> Scan {
    Scan { view: view(name), by: ScanBy::Index { index, from, to }, after: None, rows_max: 100 }
}

/// Rows are found by key and by each index; a row that is written again or deleted is found nowhere else.
pub async fn views_are_rows_by_key_and_index<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let row = |key: &str, city: &str, age: i64| {
        Row::new(key, format!("{key} in {city}")).indexed("city", text(city)).indexed("age", Integer(age))
    };
    put(&store, "people", vec![row("ann", "Rome", 41), row("bob", "Oslo", 7), row("cem", "Rome", -3)]).await;
    put(&store, "People", vec![row("ann", "Rome", 99)]).await;
    let ages = || by_index("people", "age", Integer(i64::MIN), Integer(i64::MAX));
    let of_city = |city: &str| Scan::equal(view("people"), "city", text(city), 100);
    assert_eq!(other.view_get(&view("people"), "ann").await.unwrap(), Some(b"ann in Rome".to_vec()));
    assert_eq!(other.view_get(&view("people"), "Ann").await.unwrap(), None);
    assert_eq!(other.view_get(&view("nobody"), "ann").await.unwrap(), None);
    assert_eq!(keys(&other, Scan::keys(view("people"), 1), 2).await, ["ann", "bob", "cem"]);
    assert_eq!(keys(&other, of_city("Rome"), 5).await, ["ann", "cem"]);
    assert_eq!(keys(&other, ages(), 5).await, ["cem", "bob", "ann"]);
    assert_eq!(keys(&other, by_index("people", "age", Integer(-3), Integer(7)), 5).await, ["cem", "bob"]);
    assert_eq!(keys(&other, by_index("people", "age", Integer(8), Integer(-4)), 5).await, [""; 0]);
    assert_eq!(keys(&other, by_index("people", "unknown", Integer(0), Integer(9)), 5).await, [""; 0]);
    assert_eq!(keys(&other, of_city("rome"), 5).await, [""; 0]);

    // Written again: its old index entries are gone, one index is given up, another is new.
    put(
        &other,
        "people",
        vec![Row::new("ann", "moved").indexed("city", text("Oslo")).indexed("team", text("x"))],
    )
    .await;
    assert_eq!(store.view_get(&view("people"), "ann").await.unwrap(), Some(b"moved".to_vec()));
    assert_eq!(keys(&store, Scan::keys(view("people"), 1), 5).await, ["ann", "bob", "cem"]);
    assert_eq!(keys(&store, of_city("Rome"), 5).await, ["cem"]);
    assert_eq!(keys(&store, of_city("Oslo"), 5).await, ["ann", "bob"]);
    assert_eq!(keys(&store, ages(), 5).await, ["cem", "bob"]);
    assert_eq!(keys(&store, Scan::equal(view("people"), "team", text("x"), 9), 5).await, ["ann"]);

    // Once more, and back: the entries of the writing before are gone, not those of the first.
    put(&store, "people", vec![Row::new("ann", "").indexed("city", text("Bonn"))]).await;
    assert_eq!(
        (keys(&other, of_city("Oslo"), 5).await, keys(&other, of_city("Bonn"), 5).await),
        (vec!["bob".into()], vec!["ann".into()])
    );
    assert_eq!(keys(&other, Scan::equal(view("people"), "team", text("x"), 9), 5).await, [""; 0]);
    put(&other, "people", vec![Row::new("ann", "").indexed("city", text("Oslo"))]).await;
    assert_eq!(keys(&store, of_city("Bonn"), 5).await, [""; 0]);

    // Deleted, and written again without the old entries.
    let gone = commit(&store, |tx| {
        Ok((tx.view_delete(&view("people"), "bob")?, tx.view_delete(&view("people"), "x")?))
    });
    assert_eq!(gone.await, (true, false));
    assert_eq!(keys(&other, Scan::keys(view("people"), 1), 5).await, ["ann", "cem"]);
    assert_eq!(keys(&other, of_city("Oslo"), 5).await, ["ann"]);
    assert_eq!(keys(&other, ages(), 5).await, ["cem"]);
    put(&store, "people", vec![Row::new("bob", "")]).await;
    assert_eq!(other.view_get(&view("people"), "bob").await.unwrap(), Some(vec![]));
    assert_eq!(keys(&other, of_city("Oslo"), 5).await, ["ann"]);
    // The view of almost the same name saw nothing of all this.
    assert_eq!(keys(&other, by_index("People", "age", Integer(99), Integer(99)), 5).await, ["ann"]);

    // A put and a delete that are rolled back leave the old entries.
    let ended = transact(&store, move |tx| {
        tx.view_put(&view("people"), &Row::new("cem", "").indexed("city", text("Bonn")))?;
        tx.view_delete(&view("people"), "ann")?;
        tx.view_clear(&view("People"), 10)?;
        Err::<(), _>(Abort::User("no".into()))
    });
    ended.await.unwrap_err();
    assert_eq!(keys(&other, of_city("Rome"), 5).await, ["cem"]);
    assert_eq!(keys(&other, of_city("Bonn"), 5).await, [""; 0]);
    assert_eq!(keys(&other, of_city("Oslo"), 5).await, ["ann"]);
    assert_eq!(keys(&other, by_index("People", "age", Integer(99), Integer(99)), 5).await, ["ann"]);
}

/// Integers sort as numbers, negative ones too, texts by their bytes, integers before texts, equal values by
/// key; and pages of any size give every row once.
pub async fn a_scan_loses_and_doubles_no_row_at_any_page_size<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    #[rustfmt::skip]
    let values = [
        Integer(i64::MIN), Integer(-256), Integer(-255), Integer(-2), Integer(-1), Integer(0), Integer(1),
        Integer(9), Integer(10), Integer(255), Integer(256), Integer(i64::MAX), text(""), text("-1"), text("10"),
        text("9"), text("A"), text("Z"), text("a"), text("aa"), text("ab"), text("é"), text("ﬁ"), text("🦀"),
    ];
    let mut rows = Vec::new();
    for (i, value) in values.iter().enumerate() {
        // Three rows of each value, written in an order that is not that of their keys.
        for j in [1, 0, 2] {
            let key = format!("{j}{}", values.len() + 9 - i);
            rows.push((value.clone(), key));
        }
    }
    let turned =
        rows.iter().rev().map(|(value, key)| Row::new(key, "").indexed("i", value.clone())).collect();
    put(&store, "v", turned).await;
    put(
        &store,
        "w",
        rows.iter().map(|(_, key)| Row::new(format!("{key}'"), "").indexed("i", text("A"))).collect(),
    )
    .await;
    rows.sort();
    let expected = |from: &IndexValue, to: &IndexValue| -> Vec<String> {
        rows.iter().filter(|(value, _)| value >= from && value <= to).map(|(_, key)| key.clone()).collect()
    };
    let (least, greatest) = (Integer(i64::MIN), text("\u{10ffff}"));
    for page in [1, 2, 3, 5, 71, 72, 73, 10_000] {
        let page = page.min(limits::PAGE_EVENTS_MAX);
        let all = keys(&other, by_index("v", "i", least.clone(), greatest.clone()), page).await;
        assert_eq!(all, expected(&least, &greatest), "pages of {page}");
        let mut by_key: Vec<_> = rows.iter().map(|(_, key)| key.clone()).collect();
        by_key.sort();
        assert_eq!(keys(&other, Scan::keys(view("v"), 1), page).await, by_key, "pages of {page}");
    }
    let ranges = [(1, 4), (3, 3), (5, 14), (11, 12), (12, 12), (15, 22), (23, 23), (4, 2)];
    for (from, to) in ranges {
        let (from, to) = (&values[from], &values[to]);
        for page in [1, 4, 100] {
            let found = keys(&other, by_index("v", "i", from.clone(), to.clone()), page).await;
            assert_eq!(found, expected(from, to), "{from:?} to {to:?}, pages of {page}");
        }
    }
    // A cursor is a place in the order, not a row: it holds when its row is gone, and where it lies before
    // the range it takes nothing away.
    let cursor = Cursor { value: Some(Integer(0)), key: "~".into() };
    let after =
        store.view_scan(&by_index("v", "i", Integer(-1), Integer(1)).after(cursor.clone())).await.unwrap();
    assert_eq!(
        after.rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
        expected(&Integer(1), &Integer(1))
    );
    let after = store.view_scan(&by_index("v", "i", Integer(9), Integer(9)).after(cursor)).await.unwrap();
    assert_eq!(after.rows.len(), 3);
}

/// A prefix is compared as it stands: nothing in it is a pattern, and characters of any length are whole.
pub async fn a_prefix_is_no_pattern<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    #[rustfmt::skip]
    let all = [
        "%", "%%", "%a", "A", "Aa", "\\", "\\%", "_", "_a", "a", "a%", "a%b", "a_", "a_b", "ab", "aé",
        "a\u{10ffff}", "a\u{10ffff}b", "b", "é", "ée", "ê", "\u{d7ff}", "\u{d7ff}x", "\u{e000}", "🦀", "🦀🦀",
        "\u{10ffff}", "\u{10ffff}\u{10ffff}", "'", "''", "*", "[a]", "?",
    ];
    put(&store, "v", all.iter().map(|key| Row::new(*key, *key)).collect()).await;
    let prefixes = all.iter().copied().chain(["", "c", "a%c", "\u{d7fe}"]);
    for prefix in prefixes {
        let mut expected: Vec<_> = all.iter().copied().filter(|key| key.starts_with(prefix)).collect();
        expected.sort_unstable();
        let scan =
            Scan { view: view("v"), by: ScanBy::Key { prefix: prefix.into() }, after: None, rows_max: 1 };
        for page in [1, 3, 100] {
            assert_eq!(
                keys(&other, scan.clone(), page).await,
                expected,
                "prefix {prefix:?}, pages of {page}"
            );
        }
    }
}

/// A view is emptied a few rows at a time, index entries and all, and its neighbours stay.
pub async fn a_view_is_cleared_in_steps<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let rows = || (0..25).map(|i| Row::new(format!("k{i:02}"), "").indexed("i", Integer(i % 3))).collect();
    put(&store, "v", rows()).await;
    put(&store, "w", rows()).await;
    let mut left = 25;
    let mut more = true;
    while more {
        more = commit(&store, |tx| Ok(tx.view_clear(&view("v"), 10)?)).await;
        left = usize::saturating_sub(left, 10);
        let there = keys(&other, Scan::keys(view("v"), 1), 100).await;
        let indexed = keys(&other, by_index("v", "i", Integer(0), Integer(9)), 100).await;
        assert_eq!((there.len(), indexed.len(), more), (left, left, left > 0));
    }
    assert!(!commit(&store, |tx| Ok(tx.view_clear(&view("v"), 10)?)).await);
    assert_eq!(keys(&other, by_index("w", "i", Integer(0), Integer(9)), 4).await.len(), 25);
    put(&other, "v", vec![Row::new("k00", "new")]).await;
    assert_eq!(keys(&store, by_index("v", "i", Integer(0), Integer(9)), 4).await, [""; 0]);
}
