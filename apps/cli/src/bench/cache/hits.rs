//! What a hit takes, as a multiple of a hit of the bare library.

use std::cell::Cell;
use std::hint::black_box;

use anyhow::Result;
use mainstay::envelope::{Chance, SeededChance};

use super::sides::{Ours, bare};
use crate::bench::ratio::{Ratio, Target, median};
use crate::bench::rules::{Side, Timed, each, on_two_threads, pairs};

/// The most that a hit of ours may take.
const MOST: f64 = 2.5;

/// Medians over the pairs of one comparison.
#[derive(Debug, serde::Serialize)]
pub(super) struct Figure {
    pub(super) what: String,
    pub(super) ns: f64,
    /// The bare library, in the same pairs. It reads no clock.
    pub(super) bare_ns: f64,
}

/// Keys that are all there, asked for back to back: that is the hardest for whoever does more than the library, since the
/// processor works on several of the library's answers at a time.
pub(super) fn measure(times: u32, figures: &mut Vec<Figure>, ratios: &mut Vec<Ratio>) -> Result<()> {
    let chance = SeededChance::new(7);
    for resident in [1_000_u64, 100_000] {
        // Twice as large as what is kept, so that no shard has to evict.
        let (ours, bare) = (Ours::new(resident as usize * 2)?, bare(resident as usize * 2, false)?);
        for key in 0..resident {
            ours.put(key);
            bare.insert(key, key.into());
        }
        let keys: Vec<u64> = (0..1 << 19).map(|_| chance.next_u64() % resident).collect();
        let now = ours.cx.now();
        let given = || ours.get_at(next(&keys), now);
        let read = || ours.get(next(&keys));
        let theirs = || bare.get(&next(&keys)).map(|value| *value);
        let mut compare = |how: &str, ours: Timed<'_>, bare: Timed<'_>| {
            let what = format!("hit among {resident} keys, {how}");
            let ns = pairs(times, &mut Side::new(ours), &mut Side::new(bare));
            let each: Vec<f64> = ns.iter().map(|(ours, bare)| ours / bare).collect();
            let (mut ours, mut bare): (Vec<f64>, Vec<f64>) = ns.into_iter().unzip();
            figures.push(Figure { what: what.clone(), ns: median(&mut ours), bare_ns: median(&mut bare) });
            ratios.push(Ratio::of(format!("{what} / bare"), &each, Target::AtMost(MOST)));
        };
        compare("time given", each(given), each(theirs));
        compare("reads the clock", each(read), each(theirs));
        compare("time given, two threads", on_two_threads(given), on_two_threads(theirs));
        black_box(&bare);
    }
    Ok(())
}

/// The thread's next key.
fn next(keys: &[u64]) -> u64 {
    thread_local!(static AT: Cell<usize> = const { Cell::new(0) });
    let at = AT.get();
    AT.set(at.wrapping_add(1));
    keys[at % keys.len()]
}
