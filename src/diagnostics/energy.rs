//! The energy score of a sample of states.

use ndarray::{ArrayView1, ArrayView2, Axis};

/// Most samples whose pairs are summed; of more, as many are taken at even distances.
pub const MOST_PAIRED: usize = 500;

/// Fair energy score of `samples: [M, sites]`, M >= 2, against the true state `[sites]`: mean |X - y| minus half the
/// mean |X - X'| over pairs of different members, in the Euclidean norm (Gneiting & Raftery 2007; fair form as for the
/// CRPS, which it is for one site). Lower is better; a multivariate score, but a blunt one for correlations.
///
/// The first term takes every sample, the pairs those of [`MOST_PAIRED`] at most: both terms stay unbiased, and the
/// cost stays below M^2 sites.
///
/// # Panics
/// If the numbers of sites differ, or there are fewer than two samples.
pub fn fair_energy_score(samples: ArrayView2<f64>, truth: ArrayView1<f64>) -> f64 {
    let m = samples.nrows();
    assert!(m >= 2, "a fair score needs two samples");
    assert_eq!(samples.ncols(), truth.len(), "samples and truth must have one number of sites");
    let distance = |x: ArrayView1<f64>| x.iter().zip(truth).map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt();
    let to_truth = samples.outer_iter().map(distance).sum::<f64>() / m as f64;
    let paired = m.min(MOST_PAIRED);
    // Site-major, so that the innermost loop runs over members.
    let columns: Vec<Vec<f64>> =
        samples.axis_iter(Axis(1)).map(|site| (0..paired).map(|k| site[k * m / paired]).collect()).collect();
    to_truth - pulp::Arch::new().dispatch(|| sum_over_pairs(&columns)) / (paired * (paired - 1)) as f64
}

/// Sum of |x_i - x_j| over i < j: `columns: [sites][M]`.
#[inline(always)]
fn sum_over_pairs(columns: &[Vec<f64>]) -> f64 {
    let count = columns.first().map_or(0, Vec::len);
    let mut squares = vec![0.0; count];
    let mut sum = 0.0;
    for i in 1..count {
        let squares = &mut squares[..i];
        squares.fill(0.0);
        for site in columns {
            let x = site[i];
            for (square, other) in squares.iter_mut().zip(&site[..i]) {
                *square += (x - other) * (x - other);
            }
        }
        squares.iter_mut().for_each(|square| *square = square.sqrt());
        sum += ArrayView1::from(&*squares).sum();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::{fair_crps, testing::normals};
    use ndarray::array;

    #[test]
    fn energy_score_of_a_worked_example() {
        // Distances to the truth 0, 5, 10; pairs 5, 10, 5: 15 / 3 - 20 / (3 * 2).
        let samples = array![[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]];
        let score = fair_energy_score(samples.view(), array![0.0, 0.0].view());
        assert!((score - (5.0 - 10.0 / 3.0)).abs() < 1e-14);
    }

    #[test]
    fn energy_score_of_one_site_is_the_crps() {
        let samples = normals(3, (1, 40, 1)).remove_axis(Axis(0));
        let mut sorted: Vec<f64> = samples.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let score = fair_energy_score(samples.view(), array![0.7].view());
        assert!((score - fair_crps(&sorted, 0.7)).abs() < 1e-14);
    }

    /// The score of the whole sample and of the strided pairs differ by sampling error alone.
    #[test]
    fn energy_score_takes_pairs_of_a_part() {
        let samples = normals(4, (1, 2003, 5)).remove_axis(Axis(0));
        let truth = array![0.5, 0.0, -1.0, 0.0, 0.0];
        let norm = |v: ndarray::Array1<f64>| v.dot(&v).sqrt();
        let to_truth = samples.outer_iter().map(|x| norm(&x - &truth)).sum::<f64>() / 2003.0;
        let mut pairs = 0.0;
        for (i, a) in samples.outer_iter().enumerate() {
            pairs += samples.outer_iter().skip(i + 1).map(|b| norm(&a - &b)).sum::<f64>();
        }
        let whole = to_truth - pairs / (2003.0 * 2002.0);
        assert!((fair_energy_score(samples.view(), truth.view()) - whole).abs() < 0.05, "{whole}");
    }
}
