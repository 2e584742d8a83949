//! Promise 8: subscriptions.

use std::time::Duration;

use super::Harness;
use super::kit::*;
use crate::*;

/// Longer than any case waits.
const LONG: Duration = Duration::from_secs(3_600);

/// Starts writers; each takes `rounds` turns of one act on its own and on a shared stream.
fn start_writers<S: Store>(handles: [&S; 2], count: u64, rounds: u64) -> Vec<tokio::task::JoinHandle<()>> {
    (0..count)
        .map(|writer| {
            let store = handles[writer as usize % 2].clone();
            tokio::spawn(async move {
                let (cx, mut chance) = (super::kit::cx(), Chance(writer));
                for round in 0..rounds {
                    let name = stream(if round % 2 == 0 { format!("own-{writer}") } else { "shared".into() });
                    let mut batch = events(&cx, 1 + chance.below(4) as usize);
                    for (i, event) in batch.iter_mut().enumerate() {
                        event.tags = vec![tag(format!("third:{}", (round as usize + i) % 3))];
                    }
                    store.append(&cx, Act::append(name, Expected::Any, batch)).await.unwrap();
                    // Lets readers catch up now and then, so that the seam is crossed often.
                    if chance.below(4) > 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect()
}

/// Every event exactly once, in order, for every subscriber: one from the start, ones that begin while events
/// are being written, and ones that stop at any point and go on from where they were.
pub async fn catch_up_then_live_misses_nothing<H: Harness>(harness: &H) {
    const LAST: &str = "Last";
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let cx = cx();
    // More than one page to catch up with, so that a page's end is not the feed's.
    for _ in 0..2 {
        let before =
            Act::append(stream("before"), Expected::Any, events(&cx, limits::PAGE_EVENTS_MAX / 2 + 50));
        store.append(&cx, before).await.unwrap();
    }
    let writers = start_writers([&store, &other], 4, 60);

    let followers: Vec<_> = (0..6)
        .map(|follower| {
            let store = if follower % 2 == 0 { store.clone() } else { other.clone() };
            tokio::spawn(async move {
                let mut chance = Chance(1_000 + follower);
                if follower >= 2 {
                    // Begins somewhere in the middle of the writing.
                    store.wait_past(Position(1_100 + 60 * follower), Duration::from_secs(5)).await;
                }
                let mut seen: Vec<Recorded> = Vec::new();
                loop {
                    // A life of this subscriber: it goes on after what it handled, and ends at any point.
                    let after = seen.last().map_or(Position::START, |event| event.position);
                    let mut subscription = store.subscribe(Query::all(), after);
                    let life = 1 + chance.below(if follower % 3 == 0 { 1_000 } else { 60 });
                    for _ in 0..life {
                        let event = subscription.next_event().await.unwrap();
                        let ended = event.event_type.as_str() == LAST;
                        seen.push(event);
                        if ended {
                            return seen;
                        }
                    }
                }
            })
        })
        .collect();
    // And one that reads by pages, and takes the page's end as its checkpoint.
    let by_page = tokio::spawn({
        let store = other.clone();
        async move {
            let (mut seen, mut after) = (Vec::new(), Position::START);
            loop {
                let mut subscription = store.subscribe(Query::all(), after);
                for _ in 0..3 {
                    let page = subscription.next_page().await.unwrap();
                    assert_eq!(page.next, subscription.position());
                    assert!(page.next > after, "a page without progress was handed out");
                    after = page.next;
                    let ended = page.events.last().is_some_and(|event| event.event_type.as_str() == LAST);
                    seen.extend(page.events);
                    if ended {
                        return seen;
                    }
                }
            }
        }
    });
    for writer in writers {
        writer.await.unwrap();
    }
    // Written when all others are done, so that it is the last of the feed.
    let done =
        store.append(&cx, Act::append(stream("last"), Expected::Any, vec![event(&cx, LAST)])).await.unwrap();
    settled(harness, &store, &done.receipt).await;
    let feed = feed(&store).await;
    assert_whole(&[&store, &other], feed.len()).await;
    let mut seen = vec![by_page.await.unwrap()];
    for follower in followers {
        seen.push(follower.await.unwrap());
    }
    for (follower, seen) in seen.iter().enumerate() {
        let positions = |events: &[Recorded]| events.iter().map(|event| event.position.0).collect::<Vec<_>>();
        assert_eq!(positions(seen), positions(&feed), "what subscriber {follower} saw");
        assert!(*seen == feed, "subscriber {follower} saw other events at these positions");
    }
}

/// The same with a query: pages without a match make progress, and the end of the matches is not the end.
pub async fn a_selective_subscriber_gets_all_that_matches<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let cx = cx();
    let query = Query::tags([tag("third:1")]).or(QueryItem { types: vec![kind("Last")], tags: vec![] });
    let follower = tokio::spawn({
        let (store, query) = (other.clone(), query.clone());
        async move {
            let (mut seen, mut after) = (Vec::<Recorded>::new(), Position::START);
            loop {
                let mut subscription = store.subscribe(query.clone(), after);
                for _ in 0..4 {
                    let page = subscription.next_page().await.unwrap();
                    assert!(page.next > after && page.events.iter().all(|event| event.position > after));
                    after = page.next;
                    seen.extend(page.events);
                    if seen.last().is_some_and(|event| event.event_type.as_str() == "Last") {
                        return seen;
                    }
                }
            }
        }
    });
    for writer in start_writers([&store, &other], 3, 30) {
        writer.await.unwrap();
    }
    // Many that nobody asked for: a subscriber must get past them.
    for _ in 0..3 {
        let noise = Act::append(stream("noise"), Expected::Any, events(&cx, 500));
        store.append(&cx, noise).await.unwrap();
    }
    let done = store
        .append(&cx, Act::append(stream("last"), Expected::Any, vec![event(&cx, "Last")]))
        .await
        .unwrap();
    settled(harness, &store, &done.receipt).await;
    let expected: Vec<_> = feed(&store).await.into_iter().filter(|event| query.selects(event)).collect();
    let seen = follower.await.unwrap();
    assert_eq!(names(&seen).len(), expected.len());
    assert!(seen == expected);
}

/// A subscriber at the end waits; an append through the other handle reaches it; a wait that is cancelled
/// loses nothing.
pub async fn a_waiting_subscriber_is_woken_and_may_be_cancelled<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let cx = cx();
    let mut subscription = store.subscribe(Query::all(), Position::START);
    for round in 1..=6 {
        for _ in 0..3 {
            let nothing = tokio::time::timeout(Duration::from_millis(2), subscription.next_event()).await;
            assert!(nothing.is_err(), "an event that nobody wrote: {nothing:?}");
        }
        let writer = if round % 2 == 0 { &store } else { &other };
        let batch = events(&cx, 2);
        let ids = [batch[0].id, batch[1].id];
        // Written while the subscriber waits.
        let append = writer.append(&cx, Act::append(stream("s"), Expected::Any, batch));
        let (first, done) = both(subscription.next_event(), append).await;
        done.unwrap();
        assert_eq!(first.unwrap().id, ids[0]);
        // A wait that is cut short in between must not swallow the second one.
        let second = loop {
            match tokio::time::timeout(Duration::from_micros(50), subscription.next_event()).await {
                Ok(event) => break event.unwrap(),
                Err(_) => continue,
            }
        };
        assert_eq!((second.id, second.position), (ids[1], Position(2 * round)));
    }
    // Waiting for what never comes ends when it is over.
    store.wait_past(Position(12), Duration::from_millis(1)).await;
    // Waiting for what is there already returns at once.
    let woken = tokio::time::timeout(Duration::from_secs(5), store.wait_past(Position(11), LONG)).await;
    assert!(woken.is_ok(), "nobody woke a reader whose events were there");
}

/// Waits for both, at the same time.
async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut got_a, mut got_b) = (None, None);
    poll_fn(move |cx| {
        if got_a.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(cx)
        {
            got_a = Some(value);
        }
        if got_b.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(cx)
        {
            got_b = Some(value);
        }
        match (got_a.take(), got_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (got_a, got_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}
