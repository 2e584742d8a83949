//! How long what is kept is good for what.

use std::sync::Arc;

use mainstay_envelope::Context;
use mainstay_resilience::cache::{Cached, Freshness, Loaded};
use mainstay_resilience::{Failed, Outcome, Why};

use crate::kit::{Always, Broken, Count, Gate, Tested, ms, plain, secs, until, world, world_of};

type Answer = Result<Option<Cached<u64>>, Failed<Arc<Broken>>>;

/// Asks for "k"; a load brings its number at once.
async fn ask(cache: &Tested, cx: &Context, count: &Count) -> Answer {
    let count = count.clone();
    cache.get_or_load(cx, "k", |_, _| async move { Ok(count.next()) }).await
}

/// Asks for "k"; a load fails.
async fn ask_in_vain(cache: &Tested, cx: &Context, count: &Count) -> Answer {
    let count = count.clone();
    let load = |_, _| async move {
        count.next();
        Err::<u64, _>(Broken("down"))
    };
    cache.get_or_load(cx, "k", load).await
}

fn value(answer: Answer) -> (u64, Freshness) {
    let cached = answer.unwrap().unwrap();
    (*cached, cached.freshness())
}

#[tokio::test(start_paused = true)]
async fn a_value_is_served_until_its_expiry_and_not_from_it_on() {
    let (world, count) = (world(), Count::default());
    let cache = world.cache(plain());
    assert_eq!(value(ask(&cache, &world.cx, &count).await), (1, Freshness::Fresh));
    tokio::time::advance(secs(60) - ms(1)).await;
    assert_eq!(value(ask(&cache, &world.cx, &count).await), (1, Freshness::Fresh));
    tokio::time::advance(ms(1)).await;
    assert!(cache.get(&world.cx, "k").is_none());
    assert_eq!(value(ask(&cache, &world.cx, &count).await), (2, Freshness::Fresh));
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.loads, stats.entries), (1, 3, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn what_was_loaded_together_does_not_expire_together() {
    let world = world();
    let cache = world.cache(plain().ttl_jitter(0.5));
    let mut expiries = Vec::new();
    for n in 0..1_000_u64 {
        cache.put(&world.cx, n.to_string(), n);
        let left = cache.get(&world.cx, &*n.to_string()).unwrap().expiry().saturating_since(world.now());
        assert!(left <= secs(60) && left >= secs(30), "{left:?}");
        expiries.push(left);
    }
    // Uniform: each tenth of the range has a tenth of them, give or take four standard deviations.
    for tenth in 0..10 {
        let range = secs(30 + 3 * tenth)..secs(33 + 3 * tenth);
        let inside = expiries.iter().filter(|left| range.contains(left)).count();
        assert!((62..=138).contains(&inside), "{inside} in {range:?}");
    }
}

/// δ is measured on the injected clock around the load and kept with the value: 100 ms here. The draw is fixed at
/// u = e⁻², so a refresh is due from 2·δ·β = 200 ms before the expiry.
#[tokio::test(start_paused = true)]
async fn xfetch_refreshes_early_by_the_measured_time_of_the_load() {
    let u = (-2.0_f64).exp();
    let world = world_of(Arc::new(Always((u * 2.0_f64.powi(64)) as u64)));
    let cache = world.cache(plain().early_refresh(1.0));
    let count = Count::default();
    let ask = || {
        let (cache, cx, count) = (cache.clone(), world.cx.clone(), count.clone());
        async move {
            let load = |_, _| async move {
                tokio::time::sleep(ms(100)).await;
                Ok(count.next())
            };
            *cache.get_or_load(&cx, "k", load).await.unwrap().unwrap()
        }
    };
    assert_eq!(ask().await, 1);
    tokio::time::advance(secs(60) - ms(201)).await;
    assert_eq!(ask().await, 1);
    assert_eq!(cache.stats().refreshes, 0);
    tokio::time::advance(ms(1)).await;
    for _ in 0..100 {
        assert_eq!(ask().await, 1, "while it is refreshed all are served");
    }
    assert_eq!((cache.stats().refreshes, cache.stats().stale), (1, 0));
    tokio::time::sleep(ms(100)).await;
    until("it is refreshed", || cache.stats().loading == 0).await;
    assert_eq!(ask().await, 2);
    assert_eq!((count.loads(), cache.stats().misses), (2, 1), "nobody but the first ever waited");
}

#[tokio::test(start_paused = true)]
async fn with_early_refresh_off_nothing_is_refreshed_early() {
    let world = world_of(Arc::new(Always(0)));
    let (cache, count) = (world.cache(plain()), Count::default());
    assert_eq!(value(ask(&cache, &world.cx, &count).await).0, 1);
    tokio::time::advance(secs(60) - ms(1)).await;
    assert_eq!(value(ask(&cache, &world.cx, &count).await).0, 1);
    assert_eq!(cache.stats().refreshes, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_is_served_while_one_load_renews_it() {
    let (world, gate) = (world(), Gate::new());
    let cache = world.cache(plain().stale_while_revalidate(secs(10)));
    let ask = || {
        let (cache, cx, gate) = (cache.clone(), world.cx.clone(), gate.clone());
        async move { cache.get_or_load(&cx, "k", |_, _| async move { Ok(gate.pass().await) }).await }
    };
    gate.open(1);
    assert_eq!(value(ask().await), (1, Freshness::Fresh));
    tokio::time::advance(secs(60)).await;
    for _ in 0..100 {
        assert_eq!(value(ask().await), (1, Freshness::Revalidating));
    }
    until("one load is under way", || gate.loads() == 2).await;
    assert!(cache.get(&world.cx, "k").is_none(), "cache-aside gets what is fresh");
    gate.open(1);
    until("it is over", || cache.stats().loading == 0).await;
    assert_eq!(value(ask().await), (2, Freshness::Fresh));
    assert_eq!((gate.loads(), cache.stats().refreshes, cache.stats().stale), (2, 1, 100));
    // Past the window everybody waits for the load.
    tokio::time::advance(secs(70)).await;
    gate.open(1);
    assert_eq!(value(ask().await), (3, Freshness::Fresh));
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_is_served_in_place_of_an_error_that_may_pass() {
    let (world, count) = (world(), Count::default());
    let cache = world.cache(plain().stale_if_error(secs(30)));
    assert_eq!(value(ask(&cache, &world.cx, &count).await), (1, Freshness::Fresh));
    tokio::time::advance(secs(60)).await;
    assert_eq!(value(ask_in_vain(&cache, &world.cx, &count).await), (1, Freshness::InPlaceOfAnError));
    assert_eq!(count.loads(), 2, "it was tried");
    tokio::time::advance(secs(30) - ms(1)).await;
    assert_eq!(value(ask_in_vain(&cache, &world.cx, &count).await), (1, Freshness::InPlaceOfAnError));
    tokio::time::advance(ms(1)).await;
    assert!(matches!(ask_in_vain(&cache, &world.cx, &count).await, Err(Failed::Upstream(_))));
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_is_served_in_place_of_a_load_that_dies_or_has_no_place_or_no_time() {
    let (world, count) = (world(), Count::default());
    let cache = world.cache(plain().stale_if_error(secs(300)).loads_max(1));
    assert_eq!(value(ask(&cache, &world.cx, &count).await).0, 1);
    tokio::time::advance(secs(60)).await;
    let dying = cache.get_or_load(&world.cx, "k", |_, _| async {
        assert!(world_ends(), "a load that panics: part of the test");
        Ok(0)
    });
    assert_eq!(value(dying.await), (1, Freshness::InPlaceOfAnError));
    let hurried = world.cx.with_deadline(secs(1));
    let slow = cache.get_or_load(&hurried, "k", |_, _| std::future::pending::<Result<u64, _>>());
    assert_eq!(value(slow.await), (1, Freshness::InPlaceOfAnError));
    until("the load is over", || cache.stats().loading == 0).await;
    // Another key's load takes the only place.
    let (other, cx) = (cache.clone(), world.cx.clone());
    let takes = tokio::spawn(async move {
        other.get_or_load(&cx, "other", |_, _| std::future::pending::<Result<u64, _>>()).await
    });
    until("the place is taken", || cache.stats().loading == 1).await;
    assert_eq!(value(ask(&cache, &world.cx, &count).await), (1, Freshness::InPlaceOfAnError));
    takes.abort();
}

fn world_ends() -> bool {
    false
}

#[tokio::test(start_paused = true)]
async fn an_error_that_will_not_pass_is_handed_on_though_something_stale_is_there() {
    let (world, count) = (world(), Count::default());
    let cache = Tested::builder("tested", plain().stale_if_error(secs(30)))
        .scope(Arc::clone(&world.scope))
        .classify(|ended: Result<&u64, &Broken>| match ended {
            Ok(_) => Outcome::Success,
            Err(Broken("down")) => Outcome::Permanent,
            Err(_) => Outcome::TRANSIENT,
        })
        .build()
        .unwrap();
    assert_eq!(value(ask(&cache, &world.cx, &count).await).0, 1);
    tokio::time::advance(secs(60)).await;
    assert!(matches!(ask_in_vain(&cache, &world.cx, &count).await, Err(Failed::Upstream(_))));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_remembered_for_as_long_as_the_settings_say() {
    let (world, count) = (world(), Count::default());
    let cache = world.cache(plain().errors_for(secs(2)).stale_if_error(secs(30)));
    for _ in 0..100 {
        assert!(matches!(ask_in_vain(&cache, &world.cx, &count).await, Err(Failed::Upstream(_))));
    }
    assert_eq!(count.loads(), 1);
    tokio::time::advance(secs(2)).await;
    assert_eq!(value(ask(&cache, &world.cx, &count).await), (2, Freshness::Fresh));
    // With something stale to serve, that is served meanwhile.
    tokio::time::advance(secs(60)).await;
    for _ in 0..100 {
        assert_eq!(value(ask_in_vain(&cache, &world.cx, &count).await), (2, Freshness::InPlaceOfAnError));
    }
    assert_eq!(count.loads(), 3);
    tokio::time::advance(secs(2)).await;
    assert_eq!(value(ask(&cache, &world.cx, &count).await), (4, Freshness::Fresh));
}

#[tokio::test(start_paused = true)]
async fn that_there_is_no_value_is_remembered_for_its_own_time() {
    let (world, count) = (world(), Count::default());
    for (negative, loads) in [(secs(5), 1), (secs(0), 100)] {
        let cache = world.cache(plain().negative_ttl(negative));
        let before = count.loads();
        for _ in 0..100 {
            let count = count.clone();
            let load = |_, _| async move {
                count.next();
                Ok(None)
            };
            assert!(cache.get_or_load(&world.cx, "k", load).await.unwrap().is_none());
        }
        assert_eq!(count.loads() - before, loads, "{negative:?}");
        tokio::time::advance(secs(5)).await;
        let (found, _) = value(ask(&cache, &world.cx, &count).await);
        assert_eq!(found, count.loads(), "it was asked for again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_may_say_how_long_it_is_good_and_zero_is_not_at_all() {
    let (world, count) = (world(), Count::default());
    let cache = world.cache(plain());
    let ask = |ttl| {
        let count = count.clone();
        cache.get_or_load(&world.cx, "k", move |_, _| async move { Ok(Loaded::found(count.next()).ttl(ttl)) })
    };
    for n in 1..=3 {
        assert_eq!(value(ask(secs(0)).await).0, n);
    }
    assert_eq!(value(ask(secs(7)).await).0, 4);
    tokio::time::advance(secs(7) - ms(1)).await;
    assert_eq!(value(ask(secs(7)).await).0, 4);
    tokio::time::advance(ms(1)).await;
    assert_eq!(value(ask(secs(7)).await).0, 5);
}

#[tokio::test(start_paused = true)]
async fn new_settings_forget_nothing_and_count_from_then_on() {
    let (world, count) = (world(), Count::default());
    let cache = world.cache(plain());
    assert_eq!(value(ask(&cache, &world.cx, &count).await).0, 1);
    cache.put(&world.cx, "other".into(), 9);
    cache.reconfigure(mainstay_resilience::cache::Spec { ttl: secs(5), ..plain() }).unwrap();
    assert_eq!(cache.spec().spec().ttl, secs(5));
    tokio::time::advance(secs(59)).await;
    assert_eq!(value(ask(&cache, &world.cx, &count).await).0, 1, "kept as long as it was to be kept");
    tokio::time::advance(secs(1)).await;
    assert_eq!(value(ask(&cache, &world.cx, &count).await).0, 2);
    tokio::time::advance(secs(5)).await;
    assert_eq!(value(ask(&cache, &world.cx, &count).await).0, 3);
    for (spec, field) in [
        (mainstay_resilience::cache::Spec { ttl: secs(0), ..plain() }, "ttl"),
        (mainstay_resilience::cache::Spec::for_each_tenant(secs(60)), "audience"),
    ] {
        assert_eq!(cache.reconfigure(spec).unwrap_err().field(), field);
        assert_eq!(cache.spec().spec().ttl, secs(5), "nothing was changed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_is_waited_for_no_longer_than_the_limit_in_the_background_too() {
    let (world, count) = (world(), Count::default());
    let cache = world.cache(plain().stale_while_revalidate(secs(60)).load_limit(secs(3)));
    assert_eq!(value(ask(&cache, &world.cx, &count).await).0, 1);
    tokio::time::advance(secs(60)).await;
    let hang = cache.get_or_load(&world.cx, "k", |_, _| std::future::pending::<Result<u64, _>>());
    assert_eq!(value(hang.await), (1, Freshness::Revalidating));
    until("it is under way", || cache.stats().loading == 1).await;
    tokio::time::advance(secs(3)).await;
    until("it is over", || cache.stats().loading == 0).await;
    assert_eq!(cache.stats().died, 1);
    assert_eq!(value(ask(&cache, &world.cx, &count).await), (1, Freshness::Revalidating));
    until("the next one renews it", || cache.get(&world.cx, "k").is_some()).await;
    let refused = cache.get_or_load(&world.cx.with_deadline(ms(0)), "new", |_, _| async { Ok(1) }).await;
    assert_eq!(refused.unwrap_err().refusal().unwrap().why, Why::DeadlineReached);
}
