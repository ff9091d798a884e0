//! Rank of the truth among samples, and histograms of ranks over independent windows.

use super::cost::upper_tail;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, DiscreteCDF};

/// Where a truth lies among samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rank {
    /// Samples below the truth, 0 to `samples`. Of those that equal it, half (rounded down) count as below.
    pub rank: usize,
    /// Number of samples.
    pub samples: usize,
}

/// The rank of `truth` among samples in ascending order.
pub fn rank(sorted: &[f64], truth: f64) -> Rank {
    let below = sorted.partition_point(|x| *x < truth);
    let equal = sorted[below..].partition_point(|x| *x <= truth);
    Rank { rank: below + equal / 2, samples: sorted.len() }
}

/// Probability with which all bars of a calibrated ensemble's histogram stay inside its band together, at least.
pub const BAND_LEVEL: f64 = 0.95;

/// Histogram of ranks, one per independent window (Hamill 2001), with what a calibrated ensemble allows. U-shaped:
/// spread too small; dome-shaped: too large; sloped: biased.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankHistogram {
    /// Ranks in each bin: `[bins]`. Rank r among M samples is in bin r bins / (M + 1), rounded down.
    pub counts: Vec<usize>,
    /// Expected number in each bin: `[bins]`. Equal where the bins divide M + 1.
    pub expected: Vec<f64>,
    /// The lowest count in each bin's band, a binomial one, for all bins at once (Bonferroni): `[bins]`.
    pub band_low: Vec<usize>,
    /// The highest, likewise.
    pub band_high: Vec<usize>,
    /// Pearson's sum of (count - expected)^2 / expected.
    pub chi_squared: f64,
    /// P(chi-squared with bins - 1 degrees of freedom >= it). An approximation that wants 5 ranks a bin.
    pub p_value: f64,
}

impl RankHistogram {
    /// In `bins` >= 2 bins, or as many as the smallest sample has ranks. `None` without ranks or with fewer bins.
    pub fn new(ranks: &[Rank], bins: usize) -> Option<Self> {
        let bins = ranks.iter().map(|r| r.samples + 1).min()?.min(bins);
        if bins < 2 {
            return None;
        }
        let (mut counts, mut expected) = (vec![0; bins], vec![0.0; bins]);
        for Rank { rank, samples } in ranks {
            let cells = samples + 1;
            counts[rank * bins / cells] += 1;
            for (bin, expected) in expected.iter_mut().enumerate() {
                // Ranks r with bin cells <= r bins < (bin + 1) cells.
                let ranks_in_bin = ((bin + 1) * cells).div_ceil(bins) - (bin * cells).div_ceil(bins);
                *expected += ranks_in_bin as f64 / cells as f64;
            }
        }
        let tail = (1.0 - BAND_LEVEL) / (2 * bins) as f64;
        let total = ranks.len() as f64;
        let band = |expected: &f64| {
            let count = Binomial::new(expected / total, ranks.len() as u64).expect("a probability");
            (count.inverse_cdf(tail) as usize, count.inverse_cdf(1.0 - tail) as usize)
        };
        let (band_low, band_high) = expected.iter().map(band).unzip();
        let chi_squared = counts.iter().zip(&expected).map(|(c, e)| (*c as f64 - e).powi(2) / e).sum();
        let p_value = upper_tail(chi_squared, bins - 1).expect("two bins");
        Some(Self { counts, expected, band_low, band_high, chi_squared, p_value })
    }

    /// In as many bins as give each at least 5 ranks on average, 20 at most; `None` for fewer than 10 ranks.
    pub fn of_windows(ranks: &[Rank]) -> Option<Self> {
        Self::new(ranks, (ranks.len() / 5).min(20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Stream, StreamRng};
    use rand::RngExt;

    #[test]
    fn rank_counts_the_samples_below() {
        let x = [1.0, 2.0, 2.0, 2.0, 5.0];
        let at = |y| rank(&x, y).rank;
        assert_eq!([at(0.0), at(1.5), at(3.0), at(9.0)], [0, 1, 4, 5]);
        // One of the three that are equal counts as below.
        assert_eq!(at(2.0), 2);
        assert_eq!(rank(&x, 0.0).samples, 5);
    }

    #[test]
    fn histogram_of_a_worked_example() {
        // Two bins; with 2 samples ranks 0, 1 are in the first and 2 in the second; with 3 samples two each.
        let ranks = [(0, 2), (1, 2), (2, 2), (1, 3)].map(|(rank, samples)| Rank { rank, samples });
        let h = RankHistogram::new(&ranks, 2).unwrap();
        assert_eq!(h.counts, [3, 1]);
        assert!((h.expected[0] - 2.5).abs() < 1e-15 && (h.expected[1] - 1.5).abs() < 1e-15);
        assert!((h.chi_squared - (0.25 / 2.5 + 0.25 / 1.5)).abs() < 1e-14);
        assert_eq!(RankHistogram::new(&ranks, 50).unwrap().counts.len(), 3);
        assert_eq!((RankHistogram::new(&[], 5), RankHistogram::new(&ranks, 1)), (None, None));
    }

    /// Ten ranks in two bins: each count is Binomial(10, 1/2). With 1.25 % in each tail the band is 2 to 8, for
    /// P(<= 1) = 11 / 1024 = 1.07 % and P(<= 2) = 56 / 1024 = 5.5 %.
    #[test]
    fn band_is_binomial() {
        let ranks = [Rank { rank: 0, samples: 1 }; 10];
        let h = RankHistogram::new(&ranks, 2).unwrap();
        assert_eq!((h.band_low, h.band_high), (vec![2, 2], vec![8, 8]));
        assert!((h.chi_squared - 10.0).abs() < 1e-12 && (h.p_value - 0.001_565_4).abs() < 1e-6, "{}", h.p_value);
    }

    #[test]
    fn uniform_ranks_stay_inside_the_band_and_skewed_ones_do_not() {
        let mut rng = StreamRng::new(1, Stream::SpinUp);
        let inside = |h: &RankHistogram| {
            h.counts.iter().zip(h.band_low.iter().zip(&h.band_high)).all(|(c, (l, u))| (l..=u).contains(&c))
        };
        let repeats = 1000;
        let (mut held, mut rejected) = (0, 0);
        for _ in 0..repeats {
            let uniform: Vec<_> = (0..100).map(|_| Rank { rank: rng.random_range(0..=1000), samples: 1000 }).collect();
            let h = RankHistogram::of_windows(&uniform).unwrap();
            assert_eq!(h.counts.len(), 20);
            held += usize::from(inside(&h));
            rejected += usize::from(h.p_value < 0.05);
        }
        // At least 95 % inside (the counts are discrete, so more), and 5 % rejected; four standard errors.
        assert!(held >= 920, "{held}");
        assert!((22..=78).contains(&rejected), "{rejected}");
        let edges: Vec<_> = (0..100).map(|k| Rank { rank: (k % 2) * 1000, samples: 1000 }).collect();
        let h = RankHistogram::of_windows(&edges).unwrap();
        assert!(!inside(&h) && h.p_value < 1e-10);
    }
}
