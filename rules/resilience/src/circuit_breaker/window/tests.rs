//! The laws of both kinds of window.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::time::Duration;

fn entry() -> impl Strategy<Value = Entry> {
    (any::<bool>(), any::<bool>()).prop_map(|(failed, slow)| Entry::new(failed, slow))
}

fn count<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Counts {
    entries.into_iter().fold(Counts::default(), |counts, entry| Counts {
        calls: counts.calls + 1,
        failures: counts.failures + u64::from(entry.failed()),
        slow: counts.slow + u64::from(entry.slow()),
    })
}

proptest! {
    #[test]
    fn a_count_window_holds_exactly_the_last_calls(
        size in 1_u32..40, entries in prop::collection::vec(entry(), 0..200),
    ) {
        let window = CountWindow::new(size, 1);
        for entry in &entries {
            window.record(*entry);
        }
        let last = entries.iter().rev().take(size as usize);
        prop_assert_eq!(window.counts(), count(last));
        window.clear();
        prop_assert_eq!(window.counts(), Counts::default());
    }

    #[test]
    fn a_count_window_of_another_size_keeps_the_latest_calls_that_fit(
        size in 1_u32..40, other in 1_u32..40,
        entries in prop::collection::vec(entry(), 0..100),
        more in prop::collection::vec(entry(), 0..50),
    ) {
        let window = CountWindow::new(size, 1);
        for entry in &entries {
            window.record(*entry);
        }
        let new = CountWindow::new(other, 1);
        window.copy_to(&new);
        let mut kept: VecDeque<Entry> =
            entries.iter().rev().take(size.min(other) as usize).rev().copied().collect();
        prop_assert_eq!(new.counts(), count(&kept));
        // and it slides on from there, in the same order
        for entry in more {
            new.record(entry);
            kept.push_back(entry);
            if kept.len() > other as usize {
                kept.pop_front();
            }
            prop_assert_eq!(new.counts(), count(&kept));
        }
    }

    /// Threads are told apart by number here, so that every order of them can be had.
    #[test]
    fn a_window_in_shards_is_off_by_no_more_than_it_says(
        size in 16_u32..200, shards in 2_u32..9,
        calls in prop::collection::vec((0_usize..12, prop::bool::weighted(0.4)), 0..600),
    ) {
        prop_assume!(size >= 8 * shards);
        let window = CountWindow::new(size, shards);
        let blocks = window.blocks.as_ref().unwrap();
        let (n, error) = (size as usize, super::super::shards::error(size) as usize);
        let mut failed = Vec::new();
        for (thread, fails) in calls {
            window.write(blocks.place(thread, &window.next.0), Entry::new(fails, false));
            failed.push(fails);
            let last = |k: usize| failed.iter().rev().take(k).filter(|fails| **fails).count();
            let counts = window.counts();
            let (calls, failures) = (counts.calls as usize, counts.failures as usize);
            prop_assert!(calls <= n && calls + error >= failed.len().min(n), "{} calls", calls);
            prop_assert!(failures + 2 * error >= last(n), "{} of {}", failures, last(n));
            prop_assert!(failures <= last(n + error) + error, "{} of {}", failures, last(n + error));
        }
        // One thread, the others idle in the middle of their blocks: it decides alone.
        for _ in 0..n + error {
            window.write(blocks.place(0, &window.next.0), Entry::new(true, false));
        }
        prop_assert!(window.counts().failures as usize >= n - error);
    }

    #[test]
    fn a_time_window_holds_nine_tenths_to_all_of_its_time(
        length in 1_u64..50,
        calls in prop::collection::vec((0_u64..400, entry()), 0..200),
    ) {
        let window = TimeWindow::new(length);
        let mut now = 0;
        let mut ended: Vec<(u64, Entry)> = Vec::new();
        for (pause, entry) in calls {
            now += pause / 8;
            window.record(now, entry);
            ended.push((now, entry));
            let younger = |than: u64| {
                count(ended.iter().filter(|(at, _)| now - at < than).map(|(_, entry)| entry))
            };
            let held = window.counts(now);
            let (least, most) = (younger(length * (BUCKETS - 1) + 1), younger(length * BUCKETS));
            prop_assert!(held.calls >= least.calls && held.calls <= most.calls);
            prop_assert!(held.failures >= least.failures && held.failures <= most.failures);
            prop_assert!(held.slow >= least.slow && held.slow <= most.slow);
        }
        prop_assert_eq!(window.counts(now + length * BUCKETS), Counts::default());
    }

    #[test]
    fn a_time_window_of_another_length_invents_nothing_and_a_longer_one_loses_nothing(
        length in 1_u64..50, other in 1_u64..200,
        calls in prop::collection::vec((0_u64..100, entry()), 0..100),
    ) {
        let window = TimeWindow::new(length);
        let mut now = 0;
        for (pause, entry) in calls {
            now += pause / 8;
            window.record(now, entry);
        }
        let new = TimeWindow::new(other);
        window.copy_to(&new, now);
        let (before, after) = (window.counts(now), new.counts(now));
        prop_assert!(after.calls <= before.calls && after.failures <= before.failures);
        if other >= length {
            prop_assert_eq!(after, before);
        }
    }
}

#[test]
fn a_time_window_in_shards_holds_what_all_of_them_hold() {
    let kind = spec::Window::Time(Duration::from_secs(1));
    let window = Window::empty(kind, 3);
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| (0..100).for_each(|n| window.record(n, Entry::new(n % 4 == 0, false))));
        }
    });
    let all = Counts { calls: 500, failures: 125, slow: 0 };
    assert_eq!(window.counts(100), all);
    assert_eq!(window.resampled(kind, 1, 100).unwrap().counts(100), all);
    window.clear();
    assert_eq!(window.counts(100), Counts::default());
}

#[test]
fn writers_side_by_side_leave_the_total_that_the_ring_has() {
    // Small on purpose: writers overtake each other by whole rounds.
    for window in [CountWindow::new(3, 1), CountWindow::new(16, 2)] {
        side_by_side(&window);
    }
}

fn side_by_side(window: &CountWindow) {
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            scope.spawn(move || {
                for i in 0..20_000_u32 {
                    window.record(Entry::new((i + thread) % 3 == 0, i % 5 == 0));
                }
            });
        }
    });
    let ring: Vec<Entry> = window.ring.iter().map(|slot| Entry(slot.load(Relaxed))).collect();
    assert_eq!(window.counts(), count(&ring));
}

#[test]
fn a_correction_that_comes_first_borrows_nothing() {
    // What a writer takes out before another has put in what it replaced: both are under way at this moment.
    let window = CountWindow::new(1, 1);
    let bad = packed(Entry::new(true, true).0);
    window.total.fetch_sub(bad, Relaxed);
    assert_eq!(window.counts(), Counts::default());
    window.total.fetch_add(packed(Entry::new(true, false).0), Relaxed);
    assert_eq!(window.counts(), Counts::default(), "its slow call is still to come, and nobody else's");
    window.total.fetch_add(bad, Relaxed);
    assert_eq!(window.counts(), Counts { calls: 1, failures: 1, slow: 0 });
}

#[test]
fn a_window_at_the_end_of_time_overflows_nothing() {
    let window = Window::empty(spec::Window::Time(Duration::from_millis(100)), 1);
    window.record(u64::MAX, Entry::new(true, true));
    assert_eq!(window.counts(u64::MAX), Counts { calls: 1, failures: 1, slow: 1 });
    let other = window.resampled(spec::Window::Time(Duration::from_secs(3_600)), 3, u64::MAX).unwrap();
    assert_eq!(other.counts(u64::MAX), Counts { calls: 1, failures: 1, slow: 1 });
    assert!(window.resampled(spec::Window::Count(5), 1, 0).is_none());
}

/// A clock may begin long before the window does: with the machine, at best.
#[test]
fn a_new_window_counts_whatever_the_time_is() {
    let (bucket, day) = (10_000_000, 24 * 3_600 * 1_000_000_000);
    for days in [0, 1, 249, 300, 497, 600, 100_000] {
        let window = TimeWindow::new(bucket);
        window.record(days * day, Entry::new(true, false));
        let counts = window.counts(days * day);
        assert_eq!((counts.calls, counts.failures), (1, 1), "{days} days");
    }
}
