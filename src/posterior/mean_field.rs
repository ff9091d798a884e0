//! The mean-field Gaussian q = N(mu, diag sigma^2), c = mu + sigma eps, theta = (mu, log sigma) (Ranganath et al. 2014).

use super::{Estimator, Gaussian, Normal};
use crate::engine::{AffineMap, Moments, Scale};
use crate::error::{Error, Result};
use ndarray::{Array2, ArrayView1, ArrayViewMut1, Zip, s};

/// One mean-field Gaussian for each of P problems.
#[derive(Clone, Debug, PartialEq)]
pub struct MeanField {
    /// mu, then log sigma: `[P, 2 control]`.
    theta: Array2<f64>,
    /// What a step of mu is counted in: `[P, control]`.
    units: Array2<f64>,
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
        Ok(Self { theta, units: Array2::ones((problems, n)) })
    }

    /// mu of problem `p`: `[control]`.
    pub fn mean(&self, p: usize) -> ArrayView1<'_, f64> {
        self.theta.slice(s![p, ..self.control()])
    }

    /// log sigma of problem `p`: `[control]`.
    pub fn log_std(&self, p: usize) -> ArrayView1<'_, f64> {
        self.theta.slice(s![p, self.control()..])
    }

    /// The same, with steps of mu counted in `units: [P, control]`.
    ///
    /// # Panics
    /// Units of another shape.
    pub fn in_units(self, units: Array2<f64>) -> Self {
        assert_eq!(units.dim(), self.units.dim(), "one unit for each mean");
        Self { units, ..self }
    }
}

impl Gaussian for MeanField {
    fn problems(&self) -> usize {
        self.theta.nrows()
    }

    fn control(&self) -> usize {
        self.theta.ncols() / 2
    }

    fn parameters(&mut self) -> &mut [f64] {
        self.theta.as_slice_mut().expect("theta is contiguous")
    }

    fn row(&self, p: usize) -> ArrayView1<'_, f64> {
        self.theta.row(p)
    }

    fn row_mut(&mut self, p: usize) -> ArrayViewMut1<'_, f64> {
        self.theta.row_mut(p)
    }

    fn units(&self) -> Vec<f64> {
        // log sigma has no unit.
        self.units.outer_iter().flat_map(|u| u.to_vec().into_iter().chain(vec![1.0; u.len()])).collect()
    }

    fn to_map(&self) -> AffineMap {
        let n = self.control();
        AffineMap {
            mean: self.theta.slice(s![.., ..n]).to_owned(),
            scale: Scale::Diagonal(self.theta.slice(s![.., n..]).mapv(f64::exp)),
        }
    }

    /// Allocates nothing.
    fn write_map(&self, map: &mut AffineMap) {
        let n = self.control();
        map.mean.assign(&self.theta.slice(s![.., ..n]));
        let Scale::Diagonal(std) = &mut map.scale else {
            *map = self.to_map();
            return;
        };
        Zip::from(std).and(self.theta.slice(s![.., n..])).for_each(|s, l| *s = l.exp());
    }

    fn log_det(&self, p: usize) -> f64 {
        self.log_std(p).sum()
    }

    /// With respect to mu it is `E[g]`, with respect to log sigma `E[g eps] sigma`, g = dJ/dx0; the plain entropy adds -1 to
    /// the latter, the path estimator takes g - eps / sigma for g. Allocates nothing.
    fn pull_back(&self, moments: &[Moments], estimator: Estimator, gradient: &mut [f64]) {
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
            for i in 0..n {
                let std = theta[n + i].exp();
                let (mean, spread) = (m.gradient[i] * scale, m.gradient_epsilon[i] * scale * std);
                (d_mean[i], d_log_std[i]) = match estimator {
                    Estimator::Plain => (mean, spread - 1.0),
                    Estimator::Path => (mean - m.epsilon[i] * scale / std, spread - m.epsilon_squared[i] * scale),
                };
            }
        }
    }

    fn normal(&self, p: usize) -> Normal {
        Normal::diagonal(self.mean(p).to_owned(), self.log_std(p).mapv(f64::exp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::PatternSums;
    use ndarray::array;
    use std::f64::consts::TAU;

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
            pattern: PatternSums::Diagonal,
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
        q.pull_back(&[moments()], Estimator::Plain, &mut gradient);
        let expected = [1.0, -2.0, 0.5 * 0.5 - 1.0, 3.0 * 2.0 - 1.0];
        assert!(gradient.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-14), "{gradient:?}");
        q.pull_back(&[Moments { diverged: 4, ..moments() }], Estimator::Plain, &mut gradient);
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
