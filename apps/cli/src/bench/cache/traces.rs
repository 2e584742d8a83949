//! The order in which keys are asked for: four patterns, drawn from a seed.

use mainstay::envelope::{Chance, SeededChance};

/// The four patterns, for a cache of so many entries.
pub(crate) fn traces(questions: usize, entries: usize) -> [(&'static str, Vec<u64>); 4] {
    let chance = SeededChance::new(42);
    let keys = entries * 100;
    let zipf = |s| {
        let shares = shares(keys, s);
        (0..questions).map(|_| draw(&shares, &chance)).collect::<Vec<_>>()
    };
    let mut polluted = zipf(1.0);
    // One in five belongs to a scan that never comes back.
    for (n, key) in polluted.iter_mut().enumerate().filter(|(n, _)| n % 5 == 0) {
        *key = (keys + n) as u64;
    }
    let around = entries * 6 / 5;
    [
        ("Zipf 0.9", zipf(0.9)),
        ("Zipf 1.1", zipf(1.1)),
        ("Zipf 1.0 with scans", polluted),
        ("loop of 1.2 times the size", (0..questions).map(|n| (n % around) as u64).collect()),
    ]
}

/// Keys by their popularity, P(k) ~ 1/kˢ: the share of all up to each.
fn shares(keys: usize, s: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut shares: Vec<f64> = (1..=keys)
        .map(|k| {
            sum += (k as f64).powf(-s);
            sum
        })
        .collect();
    shares.iter_mut().for_each(|share| *share /= sum);
    shares
}

fn draw(shares: &[f64], chance: &SeededChance) -> u64 {
    let u = (chance.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    shares.partition_point(|share| *share < u) as u64
}
