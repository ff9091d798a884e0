//! The mean-field Gaussian q = N(mu, diag sigma^2), c = mu + sigma eps, theta = (mu, log sigma).
//!
//! The ELBO of q under the posterior p(x0 | y), up to log p(y), is
//!
//! ELBO = E_q[log p(y, x0)] - E_q[log q] = log_normalizer - E_q[J] + entropy(q) <= log p(y),
//!
//! with J the cost (its 1/2 in both terms) and [`log_normalizer`](super::log_normalizer) what J leaves out of log p(y, x0). The entropy is
//! known in closed form, so Monte Carlo is needed for E_q[J] alone (Ranganath et al. 2014; Kingma & Welling 2014).

use super::Elbo;
use crate::engine::{AffineMap, Moments, Scale};
use crate::error::{Error, Result};
use ndarray::{Array2, ArrayView1, ArrayViewMut1, Zip, s};
use std::f64::consts::TAU;

/// One mean-field Gaussian for each of P problems.
#[derive(Clone, Debug, PartialEq)]
pub struct MeanField {
    /// mu, then log sigma: `[P, 2 control]`.
    theta: Array2<f64>,
}

impl MeanField {
    /// From means and standard deviations, each `[P, control]`.
    ///
    /// # Errors
    /// Shapes that differ, a mean that is not finite, a deviation that is not finite and > 0.
    pub fn new(mean: &Array2<f64>, std: &Array2<f64>) -> Result<Self> {
        if mean.shape() != std.shape() {
            let (expected, found) = (format!("{:?}", mean.shape()), format!("{:?}", std.shape()));
            return Err(Error::invalid("standard deviations of q", expected, found, "give one per mean"));
        }
        crate::problem::check_finite("means of q", mean.iter())?;
        if let Some(s) = std.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return Err(Error::invalid(
                "standard deviations of q",
                "finite numbers > 0",
                s.to_string(),
                "correct them",
            ));
        }
        let (problems, n) = mean.dim();
        let theta =
            Array2::from_shape_fn((problems, 2 * n), |(p, i)| if i < n { mean[[p, i]] } else { std[[p, i - n]].ln() });
        Ok(Self { theta })
    }

    /// P.
    pub fn problems(&self) -> usize {
        self.theta.nrows()
    }

    /// Length of a control vector.
    pub fn control(&self) -> usize {
        self.theta.ncols() / 2
    }

    /// mu of problem `p`: `[control]`.
    pub fn mean(&self, p: usize) -> ArrayView1<'_, f64> {
        self.theta.slice(s![p, ..self.control()])
    }

    /// log sigma of problem `p`: `[control]`.
    pub fn log_std(&self, p: usize) -> ArrayView1<'_, f64> {
        self.theta.slice(s![p, self.control()..])
    }

    /// All parameters in one row for an optimiser: for each problem mu, then log sigma: `[P * 2 control]`.
    pub fn parameters(&mut self) -> &mut [f64] {
        self.theta.as_slice_mut().expect("theta is contiguous")
    }

    /// The parameters of problem `p`: `[2 control]`.
    pub fn row(&self, p: usize) -> ArrayView1<'_, f64> {
        self.theta.row(p)
    }

    /// The parameters of problem `p`, to be changed: `[2 control]`.
    pub fn row_mut(&mut self, p: usize) -> ArrayViewMut1<'_, f64> {
        self.theta.row_mut(p)
    }

    /// The map c = mu + sigma eps.
    pub fn to_map(&self) -> AffineMap {
        let n = self.control();
        AffineMap {
            mean: self.theta.slice(s![.., ..n]).to_owned(),
            scale: Scale::Diagonal(self.theta.slice(s![.., n..]).mapv(f64::exp)),
        }
    }

    /// [`Self::to_map`] into a map that it made before, which allocates nothing.
    pub fn write_map(&self, map: &mut AffineMap) {
        let n = self.control();
        map.mean.assign(&self.theta.slice(s![.., ..n]));
        let Scale::Diagonal(std) = &mut map.scale else {
            *map = self.to_map();
            return;
        };
        Zip::from(std).and(self.theta.slice(s![.., n..])).for_each(|s, l| *s = l.exp());
    }

    /// Entropy of problem `p`'s q: sum log sigma + control / 2 log(2 pi e).
    pub fn entropy(&self, p: usize) -> f64 {
        self.log_std(p).sum() + 0.5 * self.control() as f64 * (TAU.ln() + 1.0)
    }

    /// d(-ELBO)/dtheta from one draw's moments: `moments: [P]`, `gradient: [P * 2 control]`, laid out as
    /// [`Self::parameters`]. Allocates nothing.
    ///
    /// With respect to mu it is `E[g]`, with respect to log sigma `E[g eps] sigma - 1`, g = dJ/dx0 (reference: Kingma &
    /// Welling 2014, the entropy in closed form). Means are over the draws that did not diverge; where all did, the
    /// gradient is zero.
    pub fn pull_back(&self, moments: &[Moments], gradient: &mut [f64]) {
        let n = self.control();
        for ((theta, m), out) in self.theta.outer_iter().zip(moments).zip(gradient.chunks_exact_mut(2 * n)) {
            let (d_mean, d_log_std) = out.split_at_mut(n);
            let kept = m.count - m.diverged;
            if kept == 0 {
                d_mean.fill(0.0);
                d_log_std.fill(0.0);
                continue;
            }
            let scale = 1.0 / kept as f64;
            for (d, g) in d_mean.iter_mut().zip(&m.gradient) {
                *d = g * scale;
            }
            for ((d, ge), log_std) in d_log_std.iter_mut().zip(&m.gradient_epsilon).zip(theta.slice(s![n..])) {
                *d = ge * scale * log_std.exp() - 1.0;
            }
        }
    }

    /// The ELBO of problem `p` relative to the cost alone, `entropy(q) - E_q[J]`, from one draw's moments. Add
    /// [`log_normalizer`](super::log_normalizer) to make it a bound on log p(y).
    pub fn elbo(&self, p: usize, moments: &Moments) -> Elbo {
        Elbo::new(self.entropy(p), moments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn moments() -> Moments {
        Moments {
            count: 4,
            diverged: 1,
            cost_background: 3.0,
            cost_observation: 6.0,
            cost_deviation: 6.0,
            gradient: vec![3.0, -6.0],
            gradient_squared: vec![0.0; 2],
            epsilon: vec![0.0; 2],
            epsilon_squared: vec![0.0; 2],
            gradient_epsilon: vec![1.5, 9.0],
            ..Moments::default()
        }
    }

    #[test]
    fn mean_field_map_is_what_is_stored() {
        // No clamp: a deviation of 1e-40 goes out as it came in.
        let q = MeanField::new(&array![[1.0, 2.0]], &array![[1e-40, 3.0]]).unwrap();
        let mut map = q.to_map();
        assert_eq!(map.mean, array![[1.0, 2.0]]);
        let Scale::Diagonal(std) = &map.scale else { panic!("a mean field has a diagonal scale") };
        assert!((std[[0, 0]] / 1e-40 - 1.0).abs() < 1e-12 && (std[[0, 1]] / 3.0 - 1.0).abs() < 1e-14);
        assert_eq!(q.log_std(0)[0].exp(), std[[0, 0]]);
        let before = map.clone();
        q.write_map(&mut map);
        assert_eq!(map, before);
    }

    #[test]
    fn mean_field_gradient_is_the_mean_over_the_draws_that_did_not_diverge() {
        let q = MeanField::new(&array![[1.0, 2.0]], &array![[0.5, 2.0]]).unwrap();
        let mut gradient = [f64::NAN; 4];
        q.pull_back(&[moments()], &mut gradient);
        let expected = [1.0, -2.0, 0.5 * 0.5 - 1.0, 3.0 * 2.0 - 1.0];
        assert!(gradient.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-14), "{gradient:?}");
        q.pull_back(&[Moments { diverged: 4, ..moments() }], &mut gradient);
        assert_eq!(gradient, [0.0; 4]);
    }

    #[test]
    fn mean_field_elbo_and_its_error() {
        let q = MeanField::new(&array![[1.0, 2.0]], &array![[0.5, 2.0]]).unwrap();
        let entropy = 0.5 * 2.0 * ((TAU).ln() + 1.0);
        assert!((q.entropy(0) - entropy).abs() < 1e-14);
        let elbo = q.elbo(0, &Moments { diverged: 0, count: 3, ..moments() });
        assert!((elbo.value - (entropy - 3.0)).abs() < 1e-14);
        assert!((elbo.error - (6.0f64 / 2.0 / 3.0).sqrt()).abs() < 1e-14);
        assert!(q.elbo(0, &moments()).value.is_nan(), "an ELBO with a diverged draw is no bound");
        assert!(q.elbo(0, &Moments { diverged: 0, count: 1, ..moments() }).error.is_nan());
    }

    #[test]
    fn mean_field_refuses_bad_input() {
        assert!(MeanField::new(&array![[1.0]], &array![[0.0]]).is_err());
        assert!(MeanField::new(&array![[f64::NAN]], &array![[1.0]]).is_err());
        assert!(MeanField::new(&array![[1.0]], &array![[1.0, 2.0]]).is_err());
    }
}
