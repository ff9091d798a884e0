//! Whether two samples are of one distribution.

use crate::random::{Stream, StreamRng};
use ndarray::{Array2, ArrayView2, Axis};
use rand::seq::SliceRandom;
use serde::Serialize;

/// The energy distance of two samples (Székely & Rizzo 2013), with its permutation test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EnergyTest {
    /// 2 E|X - Y| - E|X - X'| - E|Y - Y'|, in Euclidean norm; 0 for one distribution.
    pub distance: f64,
    /// Share of random divisions of all rows into two samples with a distance at least as large.
    pub p: f64,
}

/// Random divisions of the rows.
const PERMUTATIONS: usize = 999;

/// Of `a: [rows, d]` and `b: [rows, d]`. The same for the same seed. Memory and time grow with the square of the rows.
///
/// # Panics
/// If the numbers of columns differ, or a sample is empty.
pub fn energy_test(a: ArrayView2<f64>, b: ArrayView2<f64>, seed: u64) -> EnergyTest {
    let (first, all) = (a.nrows(), ndarray::concatenate(Axis(0), &[a, b]).expect("one width"));
    let n = all.nrows();
    let mut apart = Array2::<f64>::zeros((n, n));
    for i in 0..n {
        for j in 0..i {
            let gap = &all.row(i) - &all.row(j);
            apart[[i, j]] = gap.dot(&gap).sqrt();
            apart[[j, i]] = apart[[i, j]];
        }
    }
    let total = apart.sum();
    let distance = |order: &[usize]| {
        let (one, other) = order.split_at(first);
        let within =
            |rows: &[usize]| -> f64 { rows.iter().map(|i| rows.iter().map(|j| apart[[*i, *j]]).sum::<f64>()).sum() };
        let (x, y) = (within(one), within(other));
        let (m, k) = (one.len() as f64, other.len() as f64);
        (total - x - y) / (m * k) - x / (m * m) - y / (k * k)
    };
    let mut order: Vec<usize> = (0..n).collect();
    let found = distance(&order);
    let mut rng = StreamRng::new(seed, Stream::Calibration);
    let larger = (0..PERMUTATIONS)
        .filter(|_| {
            order.shuffle(&mut rng);
            distance(&order) >= found
        })
        .count();
    EnergyTest { distance: found, p: (1 + larger) as f64 / (1 + PERMUTATIONS) as f64 }
}

/// At most so many rows, at even distances.
pub fn thinned(rows: ArrayView2<f64>, most: usize) -> Array2<f64> {
    let count = rows.nrows().min(most);
    rows.select(Axis(0), &(0..count).map(|k| k * rows.nrows() / count).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::testing::normals;
    use ndarray::array;

    #[test]
    fn the_distance_of_a_worked_example() {
        // Between: 1, 3, 1, 1 of 4 pairs; within: 2 x 2 / 4 of either.
        let found = energy_test(array![[0.0], [2.0]].view(), array![[1.0], [3.0]].view(), 1);
        assert!((found.distance - (2.0 * 1.5 - 1.0 - 1.0)).abs() < 1e-14, "{found:?}");
    }

    #[test]
    fn one_distribution_passes_and_two_do_not() {
        let sample = |seed| normals(seed, (1, 400, 3)).remove_axis(Axis(0));
        let same = energy_test(sample(1).view(), sample(2).view(), 3);
        assert!(same.p > 0.02, "{same:?}");
        let heavy = sample(4) * &normals(5, (1, 400, 1)).remove_axis(Axis(0));
        let found = energy_test(sample(1).view(), heavy.view(), 3);
        assert!(found.p < 0.005 && found.distance > same.distance, "{found:?}");
    }
}
