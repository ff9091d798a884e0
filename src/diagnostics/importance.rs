//! What importance weights say about q itself: the posterior's mass inside q's intervals, its mean and its deviation.

use ndarray::{Array1, ArrayView2, Axis};
use rayon::prelude::*;

/// Level of q's central intervals whose mass is taken.
const LEVEL: f64 = 0.9;
/// Draws that one thread takes at a time.
const BLOCK: usize = 4096;

/// q against the posterior as importance weights of q's own draws see it, by component of the control and over all.
#[derive(Clone, Debug, PartialEq)]
pub struct Corrected {
    /// Weighted mean: `[control]`.
    pub mean: Array1<f64>,
    /// Weighted standard deviation: `[control]`.
    pub std: Array1<f64>,
    /// Weight inside q's central 90 % interval: `[control]`.
    pub component_coverage: Array1<f64>,
    /// Its mean over the components.
    pub coverage: f64,
    /// Standard error of `coverage` as a self-normalised mean (Owen 2013, section 9.2), q's interval taken as known. Too
    /// small where k-hat is above 0.7.
    pub coverage_error: f64,
    /// Root mean square over the components of (q's mean - `mean`) / `std`.
    pub mean_gap: f64,
    /// Standard error of each of these, root mean square: what `mean_gap` is where there is no gap.
    pub mean_gap_error: f64,
    /// q's deviation / `std`: `[control]`.
    pub std_ratio: Array1<f64>,
    /// Root mean square over the components of its logarithm.
    pub std_gap: f64,
}

impl Corrected {
    /// From draws of q, all in one array, `states: [S, control]`, and their weights, which sum to 1: `[S]`. q's own mean,
    /// deviation and intervals are taken from the draws without their weights.
    ///
    /// # Panics
    /// If there are no draws, or not one weight for each.
    pub fn new(states: ArrayView2<f64>, weights: &[f64]) -> Self {
        let (draws, control) = states.dim();
        assert!(draws > 0 && draws == weights.len(), "{draws} draws with {} weights", weights.len());
        let components: Vec<Component> =
            (0..control).into_par_iter().map(|i| Component::new(states.column(i).to_vec(), weights)).collect();
        let over = |f: fn(&Component) -> f64| components.iter().map(f).collect::<Array1<f64>>();
        let root_mean_square = |values: Array1<f64>| (values.pow2().sum() / control as f64).sqrt();
        let component_coverage = over(|c| c.coverage);
        let std_ratio = over(|c| c.own_std / c.std);
        let coverage = component_coverage.sum() / control as f64;
        // In blocks of fixed size, so that the sum does not depend on the threads.
        let square = |(rows, weights): (ArrayView2<f64>, &[f64])| -> f64 {
            let inside = |row: ndarray::ArrayView1<f64>| {
                row.iter().zip(&components).filter(|(x, c)| c.low <= **x && **x <= c.high).count()
            };
            let own = |(row, w): (_, &f64)| (w * (inside(row) as f64 / control as f64 - coverage)).powi(2);
            rows.outer_iter().zip(weights).filter(|(_, w)| **w > 0.0).map(own).sum()
        };
        let blocks: Vec<_> = states.axis_chunks_iter(Axis(0), BLOCK).zip(weights.chunks(BLOCK)).collect();
        let squares: Vec<f64> = blocks.into_par_iter().map(square).collect();
        Self {
            coverage_error: squares.iter().sum::<f64>().sqrt(),
            mean_gap: root_mean_square(over(|c| (c.own_mean - c.mean) / c.std)),
            mean_gap_error: root_mean_square(over(|c| c.mean_error / c.std)),
            std_gap: root_mean_square(std_ratio.mapv(f64::ln)),
            std_ratio,
            mean: over(|c| c.mean),
            std: over(|c| c.std),
            component_coverage,
            coverage,
        }
    }
}

/// One component of the control.
struct Component {
    own_mean: f64,
    own_std: f64,
    /// Ends of q's interval.
    low: f64,
    high: f64,
    coverage: f64,
    mean: f64,
    mean_error: f64,
    std: f64,
}

impl Component {
    fn new(x: Vec<f64>, weights: &[f64]) -> Self {
        let count = x.len() as f64;
        let own_mean = x.iter().sum::<f64>() / count;
        let own_std = (x.iter().map(|x| (x - own_mean).powi(2)).sum::<f64>() / count).sqrt();
        let weighted = || x.iter().zip(weights);
        let mean = weighted().map(|(x, w)| w * x).sum::<f64>();
        let std = weighted().map(|(x, w)| w * (x - mean).powi(2)).sum::<f64>().sqrt();
        let mean_error = weighted().map(|(x, w)| (w * (x - mean)).powi(2)).sum::<f64>().sqrt();
        let mut order = x.clone();
        let mut quantile = |share: f64| {
            let place = (share * (count - 1.0)).round() as usize;
            *order.select_nth_unstable_by(place, f64::total_cmp).1
        };
        let (low, high) = (quantile((1.0 - LEVEL) / 2.0), quantile((1.0 + LEVEL) / 2.0));
        let coverage = weighted().filter(|(x, _)| low <= **x && **x <= high).map(|(_, w)| w).sum();
        Self { own_mean, own_std, low, high, coverage, mean, mean_error, std }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::testing::normals;
    use ndarray::Array2;
    use statrs::distribution::{ContinuousCDF, Normal};

    /// Draws from q = N(shift, s^2 I) and their exact weights for the posterior N(0, I).
    fn gaussian(seed: u64, draws: usize, control: usize, shift: f64, s: f64) -> (Array2<f64>, Vec<f64>) {
        let z = normals(seed, (1, draws, control)).remove_axis(Axis(0));
        let states = z.mapv(|z| shift + s * z);
        let log = z.mapv(|z| 0.5 * (z * z - (shift + s * z).powi(2))).sum_axis(Axis(1));
        let weights = log.mapv(f64::exp);
        let sum = weights.sum();
        (states, weights.mapv(|w| w / sum).to_vec())
    }

    /// q's interval is shift +- 1.645 s, so the posterior's mass in it is known, as are all gaps;
    /// and the stated error has the size of the scatter over 200 repetitions.
    #[test]
    fn corrected_gaussian_has_the_coverage_gaps_and_errors_of_theory() {
        let cdf = Normal::standard();
        for (shift, s) in [(0.0, 1.3), (0.4, 1.2), (0.0, 0.85)] {
            let z90 = cdf.inverse_cdf(0.95);
            let exact = cdf.cdf(shift + z90 * s) - cdf.cdf(shift - z90 * s);
            let runs: Vec<Corrected> = (0..200)
                .map(|seed| {
                    let (states, weights) = gaussian(seed, 4000, 3, shift, s);
                    Corrected::new(states.view(), &weights)
                })
                .collect();
            let mean = |f: &dyn Fn(&Corrected) -> f64| runs.iter().map(f).sum::<f64>() / 200.0;
            let coverage = mean(&|c| c.coverage);
            let scatter = mean(&|c| (c.coverage - coverage).powi(2)).sqrt();
            let stated = mean(&|c| c.coverage_error);
            println!("{shift} {s}: {coverage:.4}, exact {exact:.4}; scatter {scatter:.4}, stated {stated:.4}");
            assert!((coverage - exact).abs() < 4.0 * scatter / 200f64.sqrt() + 1e-4, "{coverage} {exact}");
            // The same draws set the interval, which mostly takes from the scatter.
            assert!((0.65..2.2).contains(&(stated / scatter)), "{stated} {scatter}");
            let gap = mean(&|c| c.mean_gap.powi(2) - c.mean_gap_error.powi(2)).max(0.0).sqrt();
            assert!((gap - shift).abs() < 0.02, "{gap}");
            assert!((mean(&|c| c.std_gap) - s.ln().abs()).abs() < 0.01, "{}", mean(&|c| c.std_gap));
        }
    }

    #[test]
    fn corrected_by_equal_weights_is_q_itself() {
        let (states, _) = gaussian(1, 1001, 2, 3.0, 1.0);
        let own = Corrected::new(states.view(), &[1.0 / 1001.0; 1001]);
        // Places 50 and 950 of 0 to 1000, both inside.
        assert!(own.component_coverage.iter().all(|c| (c - 901.0 / 1001.0).abs() < 1e-12), "{own:?}");
        assert!(own.mean_gap < 1e-12 && own.std_gap < 1e-12);
        assert!((own.mean_gap_error - 1001f64.sqrt().recip()).abs() < 1e-12);
        assert!((&own.mean - &states.mean_axis(Axis(0)).unwrap()).iter().all(|d| d.abs() < 1e-12));
    }

    #[test]
    fn corrected_by_a_single_weight_is_that_draw() {
        let (states, _) = gaussian(2, 100, 2, 0.0, 1.0);
        let mut weights = vec![0.0; 100];
        weights[17] = 1.0;
        let own = Corrected::new(states.view(), &weights);
        assert_eq!((own.mean.to_vec(), own.std.to_vec()), (states.row(17).to_vec(), vec![0.0; 2]));
        assert!(own.mean_gap.is_infinite() && own.coverage_error == 0.0);
    }
}
