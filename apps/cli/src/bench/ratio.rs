//! Ratios of paired runs: the median, and how sure it is.

use serde::Serialize;

/// A measured ratio and the target it is held against.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ratio {
    /// What is compared.
    pub(crate) what: String,
    /// The median of the pairs' ratios.
    pub(crate) median: f64,
    /// The lower end of its 95 % bootstrap interval.
    pub(crate) low: f64,
    /// The upper end.
    pub(crate) high: f64,
    /// How many pairs.
    pub(crate) pairs: usize,
    /// `>= 0.7`, `<= 4`.
    pub(crate) target: String,
    /// Does the worse end of the interval meet it?
    pub(crate) met: bool,
}

/// Which way a ratio is good.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Ratio {
    /// From the ratio of each pair. The interval is the percentile bootstrap of the median (Efron and
    /// Tibshirani, 1993), 10,000 resamples, with a fixed seed so that the same runs give the same interval.
    pub(crate) fn of(what: impl Into<String>, ratios: &[f64], target: Target) -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut draw = || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ratios[((z ^ (z >> 31)) % ratios.len() as u64) as usize]
        };
        let mut medians: Vec<f64> =
            (0..10_000).map(|_| median(&mut (0..ratios.len()).map(|_| draw()).collect::<Vec<_>>())).collect();
        medians.sort_by(f64::total_cmp);
        let (low, high) = (medians[249], medians[9_749]);
        let (target, met) = match target {
            Target::AtLeast(least) => (format!(">= {least}"), low >= least),
            Target::AtMost(most) => (format!("<= {most}"), high <= most),
        };
        Self {
            what: what.into(),
            median: median(&mut ratios.to_vec()),
            low,
            high,
            pairs: ratios.len(),
            target,
            met,
        }
    }
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_judged_at_the_worse_end() {
        let ratios = [0.9, 0.9, 0.9, 0.9, 0.9, 0.5, 0.5];
        let ratio = Ratio::of("x", &ratios, Target::AtLeast(0.7));
        assert_eq!(ratio.median, 0.9);
        assert!(ratio.low < 0.7 && !ratio.met, "{ratio:?}");
        let ratio = Ratio::of("x", &ratios, Target::AtMost(0.9));
        assert!(ratio.met);
        assert!(!Ratio::of("x", &ratios, Target::AtMost(0.89)).met);
    }

    #[test]
    fn equal_pairs_have_no_spread() {
        let ratio = Ratio::of("x", &[2.0; 7], Target::AtLeast(2.0));
        assert_eq!((ratio.low, ratio.median, ratio.high, ratio.met), (2.0, 2.0, 2.0, true));
    }
}
