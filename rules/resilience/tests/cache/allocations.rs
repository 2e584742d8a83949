//! A hit allocates nothing: counted, not believed.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use mainstay_resilience::cache::{Loaded, Spec};

use crate::kit::{Broken, secs, world};

/// The end of what needs no waiting.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a hit waits for nothing"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_hit_allocates_nothing_whatever_the_audience_and_the_tags() {
    let world = world();
    let cx = world.with(Some("a tenant"), Some("a caller"));
    for spec in
        [Spec::for_everybody(secs(60)), Spec::for_each_tenant(secs(60)), Spec::for_each_caller(secs(60))]
    {
        let cache = world.cache(spec.stale_while_revalidate(secs(60)).stale_if_error(secs(60)));
        cache.put(&cx, "k".into(), Loaded::found(1).tag("one").tag("two"));
        let counted = allocation_counter::measure(|| {
            for _ in 0..1_000 {
                assert_eq!(cache.get(&cx, "k").as_deref(), Some(&1));
                let load = |_, _| async { Err::<u64, _>(Broken("not asked")) };
                assert_eq!(at_once(cache.get_or_load(&cx, "k", load)).unwrap().as_deref(), Some(&1));
            }
        });
        assert_eq!((counted.count_total, cache.stats().hits), (0, 2_000), "{:?}", spec.audience);
    }
}
