//! The variogram score of a sample of states, which sees wrong correlations.

use ndarray::{ArrayView1, ArrayView2, Axis};

/// Sites that pairs are apart at most, around the ring.
pub const FARTHEST_PAIR: usize = 8;

/// Variogram score of order 1/2 of `samples: [M, sites]` against the true state `[sites]`: the mean over pairs of sites
/// i < j of (|y_i - y_j|^0.5 - mean_k |x_ki - x_kj|^0.5)^2 (Scheuerer & Hamill 2015). Lower is better; 0 where there is
/// no pair. A calibrated sample of M scores 1/M worse than its distribution.
///
/// Weights are 1 for pairs at most [`FARTHEST_PAIR`] apart on the ring of sites and 0 beyond, as the authors advise for
/// pairs that share little; up to 17 sites that is every pair. The mean, unlike their sum, does not grow with the state.
///
/// # Panics
/// If the numbers of sites differ, or there are no samples.
pub fn variogram_score(samples: ArrayView2<f64>, truth: ArrayView1<f64>) -> f64 {
    let (m, sites) = samples.dim();
    assert!(m >= 1, "a score of samples needs one");
    assert_eq!(sites, truth.len(), "samples and truth must have one number of sites");
    let columns: Vec<Vec<f64>> = samples.axis_iter(Axis(1)).map(|site| site.to_vec()).collect();
    pulp::Arch::new().dispatch(|| mean_over_pairs(&columns, truth))
}

/// The mean over pairs of sites: `columns: [sites][M]`.
#[inline(always)]
fn mean_over_pairs(columns: &[Vec<f64>], truth: ArrayView1<f64>) -> f64 {
    let sites = columns.len();
    let mut roots = vec![0.0; columns.first().map_or(0, Vec::len)];
    let (mut sum, mut pairs) = (0.0, 0);
    for lag in 1..=FARTHEST_PAIR.min(sites / 2) {
        // At half the ring each pair would come twice.
        let firsts = if 2 * lag == sites { lag } else { sites };
        for i in 0..firsts {
            let j = (i + lag) % sites;
            for ((root, a), b) in roots.iter_mut().zip(&columns[i]).zip(&columns[j]) {
                *root = (a - b).abs().sqrt();
            }
            let variogram = ArrayView1::from(&roots[..]).sum() / roots.len() as f64;
            let difference = (truth[i] - truth[j]).abs().sqrt() - variogram;
            sum += difference * difference;
        }
        pairs += firsts;
    }
    if pairs == 0 { 0.0 } else { sum / pairs as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::testing::normals;
    use ndarray::{Array1, array};

    #[test]
    fn variogram_score_of_a_worked_example() {
        // Pairs (0, 1), (1, 2), (2, 0): truth 2, 1, sqrt 5; samples' mean (0 + 1) / 2, (1 + 0) / 2, 1.
        let samples = array![[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]];
        let score = variogram_score(samples.view(), array![0.0, 4.0, 5.0].view());
        let expected = (1.5f64.powi(2) + 0.5f64.powi(2) + (5f64.sqrt() - 1.0).powi(2)) / 3.0;
        assert!((score - expected).abs() < 1e-14);
        assert_eq!(variogram_score(array![[1.0], [2.0]].view(), array![0.0].view()), 0.0);
    }

    /// Against the definition, over every pair at most eight apart.
    #[test]
    fn variogram_score_takes_each_near_pair_once() {
        for sites in [2, 5, 16, 17, 20] {
            let samples = normals(5, (1, 7, sites)).remove_axis(Axis(0));
            let truth: Array1<f64> = normals(6, (1, 1, sites)).into_iter().collect();
            let mut terms = Vec::new();
            for i in 0..sites {
                for j in 0..i {
                    if (i - j).min(sites - (i - j)) <= 8 {
                        let mean = samples.outer_iter().map(|x| (x[i] - x[j]).abs().powf(0.5)).sum::<f64>() / 7.0;
                        terms.push(((truth[i] - truth[j]).abs().powf(0.5) - mean).powi(2));
                    }
                }
            }
            let expected = terms.iter().sum::<f64>() / terms.len() as f64;
            let score = variogram_score(samples.view(), truth.view());
            assert!((score - expected).abs() < 1e-13, "{sites} sites: {score}, {expected}");
        }
    }

    /// Samples of independent sites, where the truth's neighbours are alike, score worse than samples that know it.
    #[test]
    fn variogram_score_sees_missing_correlations() {
        let [z, w] = [7, 8].map(|seed| normals(seed, (1, 500, 4)).remove_axis(Axis(0)));
        let alike = |x: ArrayView1<f64>| Array1::from_elem(4, x[0]) + 0.1 * &x;
        let knowing = ndarray::Array2::from_shape_fn(z.dim(), |(k, i)| alike(z.row(k))[i]);
        let mean = |samples: ArrayView2<f64>| {
            w.outer_iter().take(50).map(|y| variogram_score(samples, alike(y).view())).sum::<f64>() / 50.0
        };
        let (know, miss) = (mean(knowing.view()), mean(z.view()));
        assert!(know < 0.1 * miss, "{know} {miss}");
    }
}
