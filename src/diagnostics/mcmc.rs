//! Whether Markov chains can be trusted: rank-normalised split R-hat and effective sample size.
//!
//! Vehtari, Gelman, Simpson, Carpenter & Buerkner, "Rank-normalization, folding, and localization: an improved R-hat
//! for assessing convergence of MCMC" (2021). Chains are rows: `[chains, draws]`.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis, concatenate, s};
use statrs::distribution::{ContinuousCDF, Normal};

/// Rank-normalised split R-hat: the larger of that of the draws and that of their distances from the median. 1 for
/// chains that cannot be told apart; above 1.01 they should not be trusted. NaN for fewer than four draws, or draws
/// that are not finite; 1 for draws that are all equal.
pub fn r_hat(chains: ArrayView2<f64>) -> f64 {
    let Some(split) = split(chains) else { return f64::NAN };
    let median = median(split.iter().copied().collect());
    let folded = split.mapv(|x| (x - median).abs());
    r_hat_of(&rank_normalise(split.view())).max(r_hat_of(&rank_normalise(folded.view())))
}

/// Effective sample size of the rank-normalised split chains: how well the centre of the distribution is known. NaN
/// as for [`r_hat`].
pub fn bulk_ess(chains: ArrayView2<f64>) -> f64 {
    split(chains).map_or(f64::NAN, |split| ess_of(&rank_normalise(split.view())))
}

/// Effective sample size of the split chains as they are, for the standard error of their mean: sd / sqrt(ess). NaN
/// as for [`r_hat`].
pub fn mean_ess(chains: ArrayView2<f64>) -> f64 {
    split(chains).map_or(f64::NAN, |split| ess_of(&split))
}

/// Each chain cut in two halves; the middle draw of an odd number is left out.
fn split(chains: ArrayView2<f64>) -> Option<Array2<f64>> {
    let (draws, half) = (chains.ncols(), chains.ncols() / 2);
    if half < 2 || chains.nrows() == 0 || chains.iter().any(|x| !x.is_finite()) {
        return None;
    }
    let (first, second) = (chains.slice(s![.., ..half]), chains.slice(s![.., draws - half..]));
    Some(concatenate(Axis(0), &[first, second]).expect("halves of one length"))
}

/// R-hat of chains as they are (equation 4).
fn r_hat_of(chains: &Array2<f64>) -> f64 {
    let (within, total) = variances(chains);
    if total == 0.0 { 1.0 } else { (total / within).sqrt() }
}

/// The mean variance within chains, and the variance of all draws estimated from within and between.
fn variances(chains: &Array2<f64>) -> (f64, f64) {
    let n = chains.ncols() as f64;
    let within = chains.var_axis(Axis(1), 1.0).mean().unwrap_or(f64::NAN);
    let means = chains.mean_axis(Axis(1)).expect("chains are not empty");
    let between = if means.len() > 1 { means.var(1.0) } else { 0.0 };
    (within, (n - 1.0) / n * within + between)
}

/// Effective sample size of chains as they are: draws over the autocorrelation time, whose sum is cut off by Geyer's
/// initial monotone positive sequence (equations 10 to 13).
fn ess_of(chains: &Array2<f64>) -> f64 {
    let (draws, size) = (chains.ncols(), chains.len() as f64);
    let (within, total) = variances(chains);
    if total == 0.0 {
        return size;
    }
    let centred: Vec<_> = chains.outer_iter().map(|c| &c - c.mean().expect("chains are not empty")).collect();
    let covariance = |lag: usize| {
        let one = |c: ArrayView1<f64>| c.slice(s![..draws - lag]).dot(&c.slice(s![lag..])) / (draws as f64 - 1.0);
        centred.iter().map(|c| one(c.view())).sum::<f64>() / centred.len() as f64
    };
    let rho = |lag: usize| 1.0 - (within - covariance(lag)) / total;
    // Lags 0 and 1, 2 and 3, ...: of a reversible chain the sums of such pairs are positive and fall.
    let (mut sum, mut last) = (0.0, f64::INFINITY);
    for lag in (0..draws.saturating_sub(1)).step_by(2) {
        let first = if lag == 0 { 1.0 } else { rho(lag) };
        let pair = (first + rho(lag + 1)).min(last);
        if pair < 0.0 {
            // What is left of an antithetic chain's tail: the positive half of the pair.
            sum += 0.5 * first.max(0.0);
            break;
        }
        sum += pair;
        last = pair;
    }
    // An antithetic chain knows its mean better than independent draws would, but not without bound.
    size / (2.0 * sum - 1.0).max(size.log10().recip())
}

/// The normal quantiles of the ranks over all chains; equal draws share their mean rank (equation 14).
fn rank_normalise(chains: ArrayView2<f64>) -> Array2<f64> {
    let values: Vec<f64> = chains.iter().copied().collect();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut scores = vec![0.0; values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = before as f64 + 0.5 * (equal.len() as f64 + 1.0);
        before += equal.len();
        let score = Normal::standard().inverse_cdf((rank - 0.375) / (values.len() as f64 + 0.25));
        equal.iter().for_each(|k| scores[*k] = score);
    }
    Array2::from_shape_vec(chains.dim(), scores).expect("as many scores as draws")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len().is_multiple_of(2) { 0.5 * (values[half - 1] + values[half]) } else { values[half] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Stream, StreamRng};
    use ndarray::array;
    use rand_distr::{Distribution, StandardNormal};

    /// Chains of x_t = phi x_(t-1) + e_t with unit variance.
    fn autoregressive(chains: usize, draws: usize, phi: f64) -> Array2<f64> {
        let mut rng = StreamRng::new(5, Stream::Nuts);
        let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
        let mut out = Array2::zeros((chains, draws));
        for mut chain in out.outer_iter_mut() {
            let mut x = normal();
            for out in &mut chain {
                *out = x;
                x = phi * x + (1.0 - phi * phi).sqrt() * normal();
            }
        }
        out
    }

    #[test]
    fn ess_of_an_autoregressive_chain_is_draws_over_its_autocorrelation_time() {
        for phi in [-0.5, 0.0, 0.5, 0.9] {
            let chains = autoregressive(4, 20_000, phi);
            let exact = 80_000.0 * (1.0 - phi) / (1.0 + phi);
            for got in [bulk_ess(chains.view()), mean_ess(chains.view())] {
                assert!((got / exact - 1.0).abs() < 0.1, "phi {phi}: {got}, exact {exact}");
            }
            assert!((r_hat(chains.view()) - 1.0).abs() < 0.01);
        }
    }

    #[test]
    fn r_hat_sees_chains_that_differ_in_place_scale_or_time() {
        let same = autoregressive(4, 1000, 0.0);
        assert!(r_hat(same.view()) < 1.01);
        let mut moved = same.clone();
        moved.row_mut(2).mapv_inplace(|x| x + 1.0);
        let mut wider = same.clone();
        wider.row_mut(1).mapv_inplace(|x| 3.0 * x);
        let mut drifting = same.clone();
        drifting.indexed_iter_mut().for_each(|((_, t), x)| *x += t as f64 / 500.0);
        for bad in [moved, wider, drifting] {
            assert!(r_hat(bad.view()) > 1.05, "{}", r_hat(bad.view()));
        }
    }

    #[test]
    fn r_hat_of_two_constants_by_hand() {
        // Four half chains of ranks 1.5, 1.5, 1.5, 1.5, 3.5, ... would have no variance within: infinitely bad.
        assert_eq!(r_hat(array![[1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]].view()), f64::INFINITY);
        assert_eq!(r_hat(array![[1.0, 1.0, 1.0, 1.0]].view()), 1.0);
        assert!(r_hat(array![[1.0, 2.0, 3.0]].view()).is_nan());
        assert!(bulk_ess(array![[1.0, 2.0, 3.0, f64::NAN]].view()).is_nan());
        // W = 1/2, means 0.5 and 2.5: var+ = 1/4 + 2, over two draws of two chains.
        let by_hand = (2.25f64 / 0.5).sqrt();
        assert!((r_hat_of(&array![[0.0, 1.0], [2.0, 3.0]]) - by_hand).abs() < 1e-14);
    }

    #[test]
    fn ranks_of_equal_draws_are_shared() {
        let z = rank_normalise(array![[3.0, 1.0], [1.0, 2.0]].view());
        assert_eq!(z[[0, 1]], z[[1, 0]]);
        let quantile = |p: f64| Normal::standard().inverse_cdf(p);
        let expected = quantile((1.5 - 0.375) / 4.25);
        assert!((z[[0, 1]] - expected).abs() < 1e-15 && (z[[0, 0]] - quantile(3.625 / 4.25)).abs() < 1e-15);
    }
}
