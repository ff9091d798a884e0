//! A mixture of Gaussians for each of P problems. One Gaussian is a mixture of one.

use super::{Draws, Normal, Posterior};
use crate::random::{Stream, philox, standard_normals};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use std::ops::Range;

/// Gaussians with weights that add up to 1.
#[derive(Clone, Debug)]
pub struct Mixture {
    /// The components.
    components: Vec<Normal>,
    /// Their weights, each > 0.
    weights: Vec<f64>,
}

/// One mixture for each of P problems.
pub type Mixtures = Vec<Mixture>;

impl From<Normal> for Mixture {
    fn from(normal: Normal) -> Self {
        Self { components: vec![normal], weights: vec![1.0] }
    }
}

impl Mixture {
    /// From components and the logarithms of their weights up to a common factor. Components of no weight are left out.
    ///
    /// # Panics
    /// No component of positive weight, or another number of weights than of components.
    pub fn new(components: Vec<Normal>, log_weights: &[f64]) -> Self {
        assert_eq!(components.len(), log_weights.len(), "one weight for each component");
        let total = log_sum(ArrayView1::from(log_weights));
        assert!(total.is_finite(), "a mixture has a component of positive weight");
        let (components, weights) = components
            .into_iter()
            .zip(log_weights)
            .map(|(component, w)| (component, (w - total).exp()))
            .filter(|(_, w)| *w > 0.0)
            .unzip();
        Self { components, weights }
    }

    /// The components.
    pub fn components(&self) -> &[Normal] {
        &self.components
    }

    /// Their weights.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// The mean of the whole: `[control]`.
    pub fn mean(&self) -> Array1<f64> {
        let zero = Array1::zeros(self.components[0].mean().len());
        self.parts().fold(zero, |sum, (w, c)| sum + &c.mean() * w)
    }

    /// The covariance of the whole: `[control, control]`.
    pub fn covariance(&self) -> Array2<f64> {
        let (mean, n) = (self.mean(), self.components[0].mean().len());
        self.parts().fold(Array2::zeros((n, n)), |sum, (w, c)| {
            let gap = (&c.mean() - &mean).insert_axis(Axis(1));
            sum + (c.covariance() + gap.dot(&gap.t())) * w
        })
    }

    /// log of w_k q_k, one column for each component: `[rows, control]` to `[rows, components]`.
    pub fn log_parts(&self, states: ArrayView2<f64>) -> Array2<f64> {
        let mut parts = Array2::zeros((states.nrows(), self.components.len()));
        for (mut column, (w, c)) in parts.axis_iter_mut(Axis(1)).zip(self.parts()) {
            column.assign(&(c.log_density(states) + w.ln()));
        }
        parts
    }

    fn parts(&self) -> impl Iterator<Item = (f64, &Normal)> {
        self.weights.iter().copied().zip(&self.components)
    }

    /// The component of a draw: by a uniform number that its address determines.
    fn component(&self, seed: u64, stream: Stream, member: usize) -> usize {
        let key = [seed as u32, (seed >> 32) as u32];
        let [bits, ..] = philox(key, [0, member as u32, stream as u32, Stream::Component as u32]);
        let uniform = (f64::from(bits) + 0.5) / f64::from(u32::MAX);
        let mut below = 0.0;
        let reached = self.weights.iter().position(|w| {
            below += w;
            uniform < below
        });
        reached.unwrap_or(self.weights.len() - 1)
    }

    fn draw(&self, seed: u64, stream: Stream, members: Range<usize>) -> Draws {
        if let [component] = &self.components[..] {
            return component.draw(seed, stream, members);
        }
        let of: Vec<usize> = members.clone().map(|member| self.component(seed, stream, member)).collect();
        let mut states = standard_normals(seed, stream, 0, members, self.components[0].mean().len());
        for (k, component) in self.components.iter().enumerate() {
            let rows: Vec<usize> = (0..of.len()).filter(|row| of[*row] == k).collect();
            let own = component.map(states.select(Axis(0), &rows));
            rows.iter().zip(own.outer_iter()).for_each(|(row, state)| states.row_mut(*row).assign(&state));
        }
        Draws { log_density: self.log_density(states.view()), states }
    }

    /// log q at each row: `[rows, control]` to `[rows]`.
    pub fn log_density(&self, states: ArrayView2<f64>) -> Array1<f64> {
        if let [component] = &self.components[..] {
            return component.log_density(states);
        }
        self.log_parts(states).map_axis(Axis(1), log_sum)
    }
}

/// log sum exp.
pub(crate) fn log_sum(logs: ArrayView1<f64>) -> f64 {
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + logs.iter().map(|l| (l - largest).exp()).sum::<f64>().ln()
}

impl Posterior for Mixtures {
    fn problems(&self) -> usize {
        self.len()
    }

    fn control(&self) -> usize {
        self[0].components[0].mean().len()
    }

    fn draw(&self, p: usize, seed: u64, stream: Stream, members: Range<usize>) -> Draws {
        self[p].draw(seed, stream, members)
    }

    fn log_density(&self, p: usize, states: ArrayView2<f64>) -> Array1<f64> {
        self[p].log_density(states)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn mixture() -> Mixture {
        let components = vec![Normal::diagonal(array![-2.0], array![0.5]), Normal::diagonal(array![3.0], array![1.0])];
        Mixture::new(components, &[7.0, 7.0 + 3f64.ln()])
    }

    #[test]
    fn a_mixture_integrates_to_one_and_has_the_moments_of_its_parts() {
        let q = mixture();
        assert!(q.weights().iter().zip([0.25, 0.75]).all(|(w, want)| (w - want).abs() < 1e-12));
        let step = 1e-3;
        let states = Array2::from_shape_fn((20_000, 1), |(k, _)| -8.0 + k as f64 * step);
        let density = q.log_density(states.view()).mapv(f64::exp);
        let moment = |f: &dyn Fn(f64) -> f64| states.column(0).mapv(f).dot(&density) * step;
        assert!((moment(&|_| 1.0) - 1.0).abs() < 1e-6);
        assert!((moment(&|x| x) - q.mean()[0]).abs() < 1e-5 && (q.mean()[0] - 1.75).abs() < 1e-12);
        let variance = moment(&|x| (x - 1.75).powi(2));
        assert!((variance - q.covariance()[[0, 0]]).abs() < 1e-4, "{variance}");
    }

    #[test]
    fn draws_follow_the_weights_and_their_addresses() {
        let q = vec![mixture()];
        let all = q.draw(0, 5, Stream::Importance, 0..4000);
        let right = all.states.iter().filter(|x| **x > 0.5).count() as f64 / 4000.0;
        assert!((right - 0.75).abs() < 4.0 * (0.25 * 0.75 / 4000.0f64).sqrt(), "{right}");
        let some = q.draw(0, 5, Stream::Importance, 17..20);
        assert_eq!(all.states.row(18), some.states.row(1));
        assert_eq!(all.log_density[19], some.log_density[2]);
    }
}
