//! Lower bounds on log p(y) from importance weights: ELBO, IWAE-K and the importance estimate itself.
//!
//! All take log weights log p(x, y) - log q(x) of S independent draws from q, with every constant, and bound log p(y)
//! in expectation: ELBO = IWAE-1 <= IWAE-2 <= ... <= log p(y) (Burda, Grosse & Salakhutdinov 2015).

use super::Estimate;

/// The evidence lower bound: the mean log weight. NaN where a draw diverged (a log weight of minus infinity), for then
/// it bounds nothing. `None` without draws.
pub fn elbo(log_weights: &[f64]) -> Option<Estimate> {
    let bound = Estimate::new(log_weights)?;
    let mean = if bound.mean == f64::NEG_INFINITY { f64::NAN } else { bound.mean };
    Some(Estimate { mean, ..bound })
}

/// IWAE-K: the log of the mean of K weights, averaged over the S / K groups of consecutive draws; those that are left
/// over are left out. Its error is that of the average. Minus infinity where all draws of a group diverged. `None` where
/// there is no group, or K = 0.
pub fn iwae(log_weights: &[f64], k: usize) -> Option<Estimate> {
    let groups: Vec<f64> = (k > 0).then(|| log_weights.chunks_exact(k).map(log_mean_exp).collect())?;
    Estimate::new(&groups)
}

/// The log of the mean of all weights, IWAE-S: an estimate of log p(y), low on average by half the square of its error.
/// That error is the relative one of the mean weight, to first order; it means something where k-hat is below 1/2, and
/// is too small otherwise. `None` without draws.
pub fn log_evidence(log_weights: &[f64]) -> Option<Estimate> {
    let count = log_weights.len();
    let mean = log_mean_exp(log_weights);
    let relative: Vec<f64> = log_weights.iter().map(|w| (w - mean).exp()).collect();
    Estimate::new(&relative).map(|e| Estimate { mean, standard_error: e.standard_error, count })
}

/// log of the mean of exp(x), without overflow; minus infinity of nothing.
fn log_mean_exp(x: &[f64]) -> f64 {
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return top;
    }
    top + (x.iter().map(|x| (x - top).exp()).sum::<f64>() / x.len() as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::testing::normals;

    /// Weights a and b in every order: IWAE-2 is 1/4 log a + 1/4 log b + 1/2 log((a + b) / 2).
    #[test]
    fn bounds_of_a_worked_example() {
        let (a, b) = (2.0f64, 6.0f64);
        let pairs = [a, a, a, b, b, a, b, b].map(|w| w.ln() - 1000.0);
        let mean = |e: Option<Estimate>| e.unwrap().mean + 1000.0;
        assert!((mean(elbo(&pairs)) - 12f64.ln() / 2.0).abs() < 1e-12);
        assert_eq!(iwae(&pairs, 1).unwrap(), elbo(&pairs).unwrap());
        assert!((mean(iwae(&pairs, 2)) - (12f64.ln() / 4.0 + 4f64.ln() / 2.0)).abs() < 1e-12);
        assert!((mean(iwae(&pairs, 8)) - 4f64.ln()).abs() < 1e-12);
        let evidence = log_evidence(&pairs).unwrap();
        assert!((evidence.mean + 1000.0 - 4f64.ln()).abs() < 1e-12);
        // Relative weights 1/2 and 3/2, four of each: deviation sqrt(2 / 7).
        assert!((evidence.standard_error.unwrap() - (2.0f64 / 7.0 / 8.0).sqrt()).abs() < 1e-12);
        // Three at a time leaves two over.
        assert_eq!(iwae(&pairs, 3).unwrap().count, 2);
        assert_eq!((elbo(&[]), iwae(&pairs, 9), iwae(&pairs, 0), log_evidence(&[])), (None, None, None, None));
    }

    /// log w ~ N(m, s^2): ELBO m, log evidence m + s^2 / 2, the relative variance of a weight exp(s^2) - 1.
    #[test]
    fn bounds_of_log_normal_weights_meet_theory_and_rise_with_k() {
        let (m, s, draws) = (-60.0, 0.8f64, 400_000);
        let log_weights: Vec<f64> = normals(2, (draws, 1, 1)).iter().map(|z| m + s * z).collect();
        let bounds = [1, 5, 50, 500].map(|k| iwae(&log_weights, k).unwrap());
        assert!(bounds.windows(2).all(|b| b[0].mean < b[1].mean), "{bounds:?}");
        let bound = elbo(&log_weights).unwrap();
        let error = s / (draws as f64).sqrt();
        assert!((bound.mean - m).abs() < 4.0 * error && (bound.standard_error.unwrap() / error - 1.0).abs() < 0.01);
        let evidence = log_evidence(&log_weights).unwrap();
        let error = ((s * s).exp_m1() / draws as f64).sqrt();
        assert!((evidence.mean - (m + s * s / 2.0)).abs() < 4.0 * error, "{evidence:?}");
        assert!((evidence.standard_error.unwrap() / error - 1.0).abs() < 0.05, "{evidence:?} {error}");
        // The gap of IWAE-K is half the relative variance of a mean of K weights, to first order.
        let gap = m + s * s / 2.0 - bounds[3].mean;
        assert!((gap - (s * s).exp_m1() / 1000.0).abs() < 4.0 * bounds[3].standard_error.unwrap(), "{gap}");
    }

    #[test]
    fn diverged_draws_end_the_elbo_and_stay_in_the_denominator_of_the_evidence() {
        let log_weights = [1.0, f64::NEG_INFINITY, 1.0, 1.0];
        assert!(elbo(&log_weights).unwrap().mean.is_nan());
        assert!((log_evidence(&log_weights).unwrap().mean - (1.0 + 0.75f64.ln())).abs() < 1e-15);
        assert!((iwae(&log_weights, 2).unwrap().mean - (1.0 + 0.5f64.ln() / 2.0)).abs() < 1e-15);
    }
}
