//! Promise 9: the hash chain.

use super::Harness;
use super::kit::*;
use crate::*;

/// The chain of a store that was written through two handles is whole, its heads are what a verifier finds,
/// and no change, removal, insertion or exchange of what is read would pass.
pub async fn the_chain_proves_the_feed<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let other = harness.again(&store).await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = if writer % 2 == 0 { store.clone() } else { other.clone() };
            tokio::spawn(async move {
                for round in 0..8 {
                    // A context for each act: envelope and time are part of the chain.
                    let cx = super::kit::cx();
                    let mut batch = events(&cx, 1 + round % 3);
                    batch[0].tags = vec![tag("x"), tag(format!("round:{round}"))];
                    batch[0].payload = Payload::encrypted(KeyId::new("k").unwrap(), [round as u8; 40]);
                    let name = stream(format!("s{}", writer % 3));
                    if round % 2 == 0 {
                        store.append(&cx, Act::append(name, Expected::Any, batch)).await.unwrap();
                    } else {
                        let closure = move |tx: &_| {
                            Ok::<_, Abort<String>>(Tx::append(tx, &name, Expected::Any, &batch)?)
                        };
                        store.transact(&cx, closure).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let cx = cx();
    let done = store.append(&cx, act(&cx, &stream("end"), Expected::Empty)).await.unwrap();
    let end = settled(harness, &store, &done.receipt).await;
    let feed = feed(&other).await;
    assert_whole(&[&store, &other], end.0 as usize).await;

    let mut verifier = Verifier::new(store.id());
    assert_eq!(store.head_at(Position::START).await.unwrap(), Some(verifier.head()));
    for event in &feed {
        verifier.check(event).unwrap();
        assert_eq!(store.head_at(event.position).await.unwrap(), Some(verifier.head()));
        assert_eq!(event.hash, verifier.head().hash);
    }
    assert_eq!(other.head().await.unwrap(), verifier.head());
    assert_eq!(store.head_at(end.next()).await.unwrap(), None);

    // From a head kept elsewhere the rest is proven without the beginning.
    let kept = store.head_at(Position(7)).await.unwrap().unwrap();
    let mut from_kept = Verifier::from_head(kept);
    for event in select(&store, &Query::all(), kept.position, 10).await {
        from_kept.check(&event).unwrap();
    }
    assert_eq!(from_kept.head(), verifier.head());

    let proven = |events: &[Recorded]| {
        let mut verifier = Verifier::new(store.id());
        events.iter().all(|event| verifier.check(event).is_ok())
            && verifier.head().hash == feed[feed.len() - 1].hash
    };
    assert!(proven(&feed));
    type Change = fn(&mut Vec<Recorded>);
    let changes: [(&str, Change); 9] = [
        ("payload", |feed| feed[4].payload.bytes = vec![1, 2, 3].into()),
        ("type", |feed| feed[4].event_type = kind("Forged")),
        ("tags", |feed| feed[4].tags = Tags::join(&[tag("forged")])),
        ("stream", |feed| feed[4].stream = stream("forged")),
        ("version", |feed| feed[4].version.0 += 1),
        ("envelope", |feed| feed[4].envelope = b"{}".to_vec().into()),
        ("removal", |feed| drop(feed.remove(4))),
        ("insertion", |feed| feed.insert(4, feed[4].clone())),
        ("exchange", |feed| {
            feed.swap(4, 5);
            (feed[4].position, feed[5].position) = (feed[5].position, feed[4].position);
        }),
    ];
    for (what, change) in changes {
        let mut forged = feed.clone();
        change(&mut forged);
        assert!(!proven(&forged), "a forged feed passed: {what}");
    }
}
