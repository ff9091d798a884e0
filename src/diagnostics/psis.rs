//! Pareto-smoothed importance sampling: weights that can be averaged, and k-hat, which says how far.
//!
//! Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling" (arXiv 1507.02646); the fit is that of
//! Zhang & Stephens, "A new and efficient estimation method for the generalized Pareto distribution" (2009).

use std::f64::consts::LN_10;

/// Weights in the tail from which a Pareto distribution can be fitted at all.
const LEAST_TAIL: usize = 5;
/// Largest log weights that lie within this are all equal: rounding in f32 is as large.
const EQUAL: f64 = 1e-3;
/// Below the largest log weight by this much a weight is 0 to a double beside it.
const NEGLIGIBLE: f64 = 700.0;

/// Smoothed importance weights of draws from q.
#[derive(Clone, Debug, PartialEq)]
pub struct Psis {
    /// Shape of the generalised Pareto distribution of the largest weights: their moments exist up to order 1 / k. 0
    /// where the largest weights are all equal but for rounding, infinity where fewer than 5 are above all others.
    pub k_hat: f64,
    /// Draws in the tail, whose weights were smoothed.
    pub tail: usize,
    /// Smoothed weights, which sum to 1; 0 where the log weight was minus infinity: `[S]`.
    pub weights: Vec<f64>,
}

impl Psis {
    /// Smooths the weights p(x, y) / q(x) of S draws from q, given as logs up to a constant. Minus infinity is a
    /// weight of 0 (a member that diverged): it stays among the S. A selection and not a sort of all: 10^6 weights take
    /// some hundredths of a second.
    ///
    /// The tail is the min(S / 5, 3 sqrt S) largest weights. They are replaced by the expected order statistics of the
    /// fitted distribution, none above the largest weight, as in the paper. Where all weights are 0, they stay so.
    ///
    /// # Panics
    /// If a log weight is NaN or plus infinity.
    pub fn new(log_weights: &[f64]) -> Self {
        assert!(log_weights.iter().all(|w| *w < f64::INFINITY), "log weights must be below infinity");
        let draws = log_weights.len();
        let largest = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if largest == f64::NEG_INFINITY {
            return Self { k_hat: f64::INFINITY, tail: 0, weights: vec![0.0; draws] };
        }
        let mut weights: Vec<f64> = log_weights.iter().map(|w| (w - largest).exp()).collect();
        let tail = tail_length(draws);
        let mut order: Vec<usize> = (0..draws).collect();
        let by_weight = |a: &usize, b: &usize| log_weights[*a].total_cmp(&log_weights[*b]);
        let (k_hat, tail) = if tail < LEAST_TAIL {
            (f64::INFINITY, 0)
        } else {
            // The largest weight that is not in the tail is what the tail exceeds.
            let (_, cut, top) = order.select_nth_unstable_by(draws - tail - 1, by_weight);
            let equal = largest - log_weights[*cut] < EQUAL;
            let cut = (log_weights[*cut] - largest).max(-NEGLIGIBLE).exp();
            top.sort_unstable_by(by_weight);
            // Ties with the cut are none of the tail.
            let first = top.iter().position(|k| weights[*k] > cut).unwrap_or(top.len());
            let top = &top[first..];
            let excess: Vec<f64> = top.iter().map(|k| weights[*k] - cut).collect();
            let pareto = if equal { None } else { Pareto::fit(&excess) };
            if let Some(pareto) = pareto {
                for (rank, k) in top.iter().enumerate() {
                    let share = (rank as f64 + 0.5) / top.len() as f64;
                    weights[*k] = (cut + pareto.quantile(share)).min(1.0);
                }
            }
            (pareto.map_or(if equal { 0.0 } else { f64::INFINITY }, |p| p.shape), top.len())
        };
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= sum);
        Self { k_hat, tail, weights }
    }

    /// Effective number of draws, 1 / sum w^2: how many draws from the posterior a mean over these is worth, if k-hat
    /// permits to believe it. 0 where all weights are 0.
    pub fn effective_draws(&self) -> f64 {
        let squares: f64 = self.weights.iter().map(|w| w * w).sum();
        if squares > 0.0 { 1.0 / squares } else { 0.0 }
    }
}

/// k-hat up to which means over S smoothed weights have an error near the one they state: min(1 - 1 / log10 S, 0.7)
/// (Vehtari et al., section 3.2.4).
pub fn k_threshold(draws: usize) -> f64 {
    (1.0 - LN_10 / (draws as f64).ln()).min(0.7)
}

fn tail_length(draws: usize) -> usize {
    let draws = draws as f64;
    (0.2 * draws).min(3.0 * draws.sqrt()).floor() as usize
}

/// A generalised Pareto distribution of x >= 0: P(> x) = (1 + shape x / scale)^(-1 / shape).
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pareto {
    shape: f64,
    scale: f64,
}

impl Pareto {
    /// Fits exceedances in ascending order. `None` for fewer than 5, or where a quarter of them is 0.
    ///
    /// Zhang & Stephens: with b = -shape / scale, the shape that maximises the likelihood for a given b is the mean of
    /// log(1 - b x); b is averaged over a grid, weighted by that profile likelihood (their prior is in the grid's
    /// spacing). The shape is drawn towards 1/2 as by ten more observations (Vehtari et al., appendix C).
    fn fit(x: &[f64]) -> Option<Self> {
        let n = x.len() as f64;
        let quartile = *x.get(((n / 4.0 + 0.5).floor() as usize).max(1) - 1)?;
        if x.len() < LEAST_TAIL || quartile <= 0.0 {
            return None;
        }
        let points = 30.0 + n.sqrt().floor();
        let largest = x[x.len() - 1];
        let shape = |b: f64| x.iter().map(|x| (-b * x).ln_1p()).sum::<f64>() / n;
        let grid: Vec<(f64, f64)> = (0..points as usize)
            .map(|j| {
                let b = 1.0 / largest + (1.0 - (points / (j as f64 + 0.5)).sqrt()) / (3.0 * quartile);
                let shape = shape(b);
                (b, n * ((-b / shape).ln() - shape - 1.0))
            })
            .filter(|(_, likelihood)| likelihood.is_finite())
            .collect();
        let top = grid.iter().map(|g| g.1).fold(f64::NEG_INFINITY, f64::max);
        let (sum, total) = grid.iter().fold((0.0, 0.0), |(sum, total), (b, likelihood)| {
            let weight = (likelihood - top).exp();
            (sum + weight * b, total + weight)
        });
        let b = sum / total;
        let shape = shape(b);
        let fitted = Self { shape: (n * shape + 5.0) / (n + 10.0), scale: -shape / b };
        (fitted.shape.is_finite() && fitted.scale.is_finite()).then_some(fitted)
    }

    fn quantile(&self, share: f64) -> f64 {
        let log_survival = (-share).ln_1p();
        if self.shape.abs() < 1e-12 {
            return -self.scale * log_survival;
        }
        self.scale * (-self.shape * log_survival).exp_m1() / self.shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Stream, StreamRng};
    use rand::RngExt;

    /// Uniform over (0, 1), without the ends.
    fn uniform(rng: &mut StreamRng) -> f64 {
        rng.random_range(f64::EPSILON..1.0)
    }

    /// f of the midpoints of S equal cells of (0, 1), in a scrambled order.
    fn scrambled(draws: usize, f: impl Fn(f64) -> f64) -> Vec<f64> {
        (0..draws).map(|i| f(((i * 7919 % draws) as f64 + 0.5) / draws as f64)).collect()
    }

    /// k-hat, effective draws and largest weight as ArviZ has them (arviz-stats 0.8.0, psislw of the negative logs).
    #[test]
    fn psis_of_fixed_weights_is_that_of_arviz() {
        let cases = [
            (scrambled(1000, |u| -0.3 * (-u).ln_1p()), [0.323_419_613_511, 832.391_786_735, 0.006_847_208_957_804]),
            (scrambled(5000, |u| -1.1 * (-u).ln_1p()), [1.060_844_889_404, 13.797_389_488, 0.246_915_339_832_821]),
            (scrambled(400, |u| 3.0 * (40.0 * u).sin() + u), [-0.269_192_806_974, 134.592_246_053, 0.014_486_273_662]),
            (scrambled(250, f64::ln), [-0.679_347_788_081, 187.092_205_387, 0.007_965_256_304]),
        ];
        for (log_weights, [k_hat, effective, largest]) in cases {
            // An added constant changes nothing.
            for constant in [0.0, -1e4, 900.0] {
                let shifted: Vec<_> = log_weights.iter().map(|w| w + constant).collect();
                let psis = Psis::new(&shifted);
                assert!((psis.k_hat - k_hat).abs() < 1e-8, "{} {k_hat}", psis.k_hat);
                assert!((psis.effective_draws() / effective - 1.0).abs() < 1e-6, "{}", psis.effective_draws());
                let top = psis.weights.iter().copied().fold(0.0, f64::max);
                assert!((top / largest - 1.0).abs() < 1e-6 && (psis.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            }
        }
    }

    /// Samples by the inverse of the distribution function. The standard error of a maximum-likelihood shape is
    /// (1 + k) / sqrt n (Smith 1987), and the prior pulls it to (n k + 5) / (n + 10).
    #[test]
    fn pareto_fit_finds_the_shape_within_its_standard_error() {
        let (repeats, n) = (60, 1000);
        for k in [-0.2, 0.0, 0.3, 0.7, 1.2] {
            let mut rng = StreamRng::new(7, Stream::SpinUp);
            let mut fit = || {
                let excess = |u: f64| if k == 0.0 { -2.0 * u.ln() } else { 2.0 * (u.powf(-k) - 1.0) / k };
                let mut x: Vec<f64> = (0..n).map(|_| excess(uniform(&mut rng))).collect();
                x.sort_unstable_by(f64::total_cmp);
                Pareto::fit(&x).unwrap()
            };
            let fits: Vec<_> = (0..repeats).map(|_| fit()).collect();
            let mean = |f: &dyn Fn(&Pareto) -> f64| fits.iter().map(f).sum::<f64>() / repeats as f64;
            let (shape, scale) = (mean(&|p| p.shape), mean(&|p| p.scale));
            let error = (1.0 + k) / (n as f64).sqrt();
            let expected = (n as f64 * k + 5.0) / (n as f64 + 10.0);
            let scatter = mean(&|p| (p.shape - shape).powi(2)).sqrt();
            println!(
                "k = {k}: {shape:.4}, expected {expected:.4}; scatter {scatter:.4} of {error:.4}; scale {scale:.3}"
            );
            assert!((shape - expected).abs() < 4.0 * error / (repeats as f64).sqrt(), "k = {k}: {shape}");
            assert!((scatter / error - 1.0).abs() < 0.35, "k = {k}: {scatter} of {error}");
            assert!((scale - 2.0).abs() < 0.03, "k = {k}: {scale}");
        }
    }

    /// Target N(0, I), proposal N(0, s^2 I) in two dimensions, x = s z: log w = (1 - s^2) |z|^2 / 2 and |z|^2 / 2 is
    /// exponential, so the weights follow a Pareto law of shape 1 - s^2 exactly; below 0 (bounded) where s > 1.
    #[test]
    fn k_hat_of_a_gaussian_proposal_is_known() {
        for (variance, k) in [(0.8, 0.2), (0.5, 0.5), (0.2, 0.8), (0.05, 0.95)] {
            let mut rng = StreamRng::new(3, Stream::SpinUp);
            let mut estimate = || {
                let log_weights: Vec<_> = (0..40_000).map(|_| -(1.0 - variance) * uniform(&mut rng).ln()).collect();
                Psis::new(&log_weights)
            };
            let all: Vec<_> = (0..20).map(|_| estimate()).collect();
            let mean = all.iter().map(|p| p.k_hat).sum::<f64>() / 20.0;
            assert!(all.iter().all(|p| p.tail == 600));
            let error = (1.0 + k) / 600f64.sqrt() / 20f64.sqrt();
            let expected = (600.0 * k + 5.0) / 610.0;
            assert!((mean - expected).abs() < 4.0 * error, "s^2 = {variance}: {mean}, expected {expected} ± {error}");
        }
        let mut rng = StreamRng::new(3, Stream::SpinUp);
        let wide: Vec<_> = (0..40_000).map(|_| 3.0 * uniform(&mut rng).ln()).collect();
        assert!(Psis::new(&wide).k_hat < 0.0);
    }

    /// Smoothing lowers the error of a mean: E[x^2] = 1 under N(0, 1), from N(0, 0.3), k = 0.7. Plain weights, whose
    /// variance is infinite, scatter more.
    #[test]
    fn smoothed_weights_average_better() {
        let mut rng = StreamRng::new(5, Stream::SpinUp);
        let (mut plain, mut smooth) = (0.0, 0.0);
        for _ in 0..200 {
            // |z|^2 / 2 in two dimensions again: the mean of s^2 |z|^2 / 2 is 1.
            let halves: Vec<f64> = (0..2000).map(|_| -uniform(&mut rng).ln()).collect();
            let log_weights: Vec<f64> = halves.iter().map(|h| 0.7 * h).collect();
            let mean = |weights: &[f64]| {
                let sum = weights.iter().zip(&halves).map(|(w, h)| w * 0.3 * h).sum::<f64>();
                sum / weights.iter().sum::<f64>()
            };
            plain += (mean(&log_weights.iter().map(|w| w.exp()).collect::<Vec<_>>()) - 1.0).powi(2) / 200.0;
            smooth += (mean(&Psis::new(&log_weights).weights) - 1.0).powi(2) / 200.0;
        }
        println!("mean square errors: plain {plain:.4}, smoothed {smooth:.4}");
        assert!(smooth < 0.5 * plain, "{smooth} {plain}");
    }

    #[test]
    fn weights_of_zero_stay_zero_and_in_the_count() {
        let some = scrambled(900, |u| -0.3 * (-u).ln_1p());
        let mut all = some.clone();
        all.extend([f64::NEG_INFINITY; 100]);
        let psis = Psis::new(&all);
        assert!(psis.weights[900..].iter().all(|w| *w == 0.0) && psis.tail == 94);
        assert!(
            (psis.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12 && (psis.k_hat - 0.32).abs() < 0.05,
            "{}",
            psis.k_hat
        );
        // Three draws above 0 are no tail; none are no weights; equal ones need no smoothing.
        let mut few = vec![f64::NEG_INFINITY; 1000];
        few[..3].copy_from_slice(&[0.0, 1.0, 2.0]);
        assert_eq!((Psis::new(&few).k_hat, Psis::new(&few).tail), (f64::INFINITY, 3));
        assert!((Psis::new(&few).weights[2] - 0.665_241).abs() < 1e-6);
        let none = Psis::new(&few[3..]);
        assert_eq!((none.k_hat, none.effective_draws(), none.weights), (f64::INFINITY, 0.0, vec![0.0; 997]));
        let equal = Psis::new(&[-3.0; 500]);
        assert_eq!((equal.k_hat, equal.effective_draws().round()), (0.0, 500.0));
        // The right q on an f32 engine: log weights differ by rounding, in few steps.
        let rounded: Vec<_> = (0..5000).map(|i| -80.0 + 4e-6 * f64::from(i * 7919 % 5)).collect();
        let right = Psis::new(&rounded);
        assert!(right.k_hat == 0.0 && (right.effective_draws() - 5000.0).abs() < 0.01, "{}", right.k_hat);
        // Costs in few steps are no reason for an infinite k-hat.
        let stepped: Vec<_> = some.iter().map(|w| (w * 8.0).round() / 8.0).collect();
        assert!((Psis::new(&stepped).k_hat - 0.3).abs() < 0.25, "{}", Psis::new(&stepped).k_hat);
        // One draw outweighs all others by more than a double can hold.
        let mut one = some;
        one[0] = 1e4;
        one[1] = 1e4 - 800.0;
        let psis = Psis::new(&one);
        assert!(psis.k_hat == f64::INFINITY && psis.weights[0] == 1.0, "{}", psis.k_hat);
        assert_eq!(Psis::new(&[]).weights, Vec::<f64>::new());
    }

    #[test]
    fn threshold_grows_with_the_draws_to_seven_tenths() {
        for (draws, threshold) in [(100, 0.5), (1000, 2.0 / 3.0), (10_000, 0.7), (1_000_000, 0.7)] {
            assert!((k_threshold(draws) - threshold).abs() < 1e-12, "{draws}");
        }
    }
}
