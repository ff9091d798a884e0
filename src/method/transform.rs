//! The control variable transform: from a latent control z ~ N(0, I) to the control c, and the cost of z itself.
//!
//! With a Gaussian prior c = b + L z, L L' its covariance, and the cost of z is 1/2 z'z. With a learned one (VAE-Var) x0 = x_b
//! + mean + D(z), D a decoder, and the cost of z adds log |det dD/dz| (derived in [`vae_var`](super::vae_var)).

use super::vae_var::Increment;
use crate::problem::Problem;
use ndarray::{Array1, Array2, ArrayView1, s};

/// The transform of one problem.
pub(super) struct Transform<'a> {
    /// Of x0.
    state: State<'a>,
    /// Deviations of what the control holds beside x0.
    rest: Array1<f64>,
}

enum State<'a> {
    Diagonal(Array1<f64>),
    /// A factor on a triangle that the set may share, which a copy for each problem would multiply.
    Full {
        factor: f64,
        lower: &'a Array2<f64>,
    },
    Decoded(&'a Increment<'a>),
}

impl<'a> Transform<'a> {
    /// By the square root of problem `p`'s prior covariance.
    pub fn gaussian(problem: &'a Problem, p: usize) -> Self {
        let std = problem.control_std(p);
        let (own, rest) = std.view().split_at(ndarray::Axis(0), problem.sites());
        let rest = rest.to_owned();
        let state = match problem.background.error.factor_of(p) {
            None => State::Diagonal(own.to_owned()),
            Some(b) => State::Full { factor: problem.background.scale_of(p).sqrt(), lower: &b.lower },
        };
        Self { state, rest }
    }

    /// By a decoder, of the rest by deviations.
    pub fn decoded(problem: &Problem, p: usize, increment: &'a Increment<'a>) -> Self {
        Self { state: State::Decoded(increment), rest: problem.control_std(p).slice(s![problem.sites()..]).to_owned() }
    }

    /// Length of z, where that of c is `control`.
    pub fn latents(&self, control: usize) -> usize {
        match &self.state {
            State::Diagonal(_) | State::Full { .. } => control,
            State::Decoded(increment) => increment.latents() + self.rest.len(),
        }
    }

    /// c of the control whose background is `b`: `b, control: [control]`, `z: [latents]`.
    pub fn control(&self, background: ArrayView1<f64>, z: &[f64], control: &mut [f64]) {
        let (state, rest) = control.split_at_mut(control.len() - self.rest.len());
        let (own, others) = z.split_at(z.len() - self.rest.len());
        match &self.state {
            State::Diagonal(std) => {
                for (((x, b), s), z) in state.iter_mut().zip(background).zip(std).zip(own) {
                    *x = b + s * z;
                }
            }
            State::Full { factor, lower } => {
                let own = ArrayView1::from(own);
                for ((x, b), row) in state.iter_mut().zip(background).zip(lower.rows()) {
                    *x = b + factor * row.dot(&own);
                }
            }
            State::Decoded(increment) => {
                for ((x, b), d) in state.iter_mut().zip(background).zip(&increment.of(ArrayView1::from(own))) {
                    *x = b + d;
                }
            }
        }
        let after = background.slice(s![background.len() - self.rest.len()..]);
        for (((c, b), s), z) in rest.iter_mut().zip(after).zip(&self.rest).zip(others) {
            *c = b + s * z;
        }
    }

    /// The cost of z, and the gradient of that and a cost whose gradient with respect to c is `g`: `g: [control]`, to
    /// `[latents]`.
    pub fn cost(&self, z: &[f64], g: ArrayView1<f64>) -> (f64, Vec<f64>) {
        let half_square = |z: &[f64]| 0.5 * z.iter().map(|z| z * z).sum::<f64>();
        let (own, others) = z.split_at(z.len() - self.rest.len());
        let (by_state, by_rest) = g.split_at(ndarray::Axis(0), g.len() - self.rest.len());
        let (cost, mut gradient) = match &self.state {
            State::Diagonal(std) => {
                (half_square(own), own.iter().zip(by_state).zip(std).map(|((z, g), s)| z + s * g).collect::<Vec<_>>())
            }
            State::Full { factor, lower } => {
                let mut sum = own.to_vec();
                for (g, row) in by_state.iter().zip(lower.rows()) {
                    let g = factor * g;
                    sum.iter_mut().zip(row).for_each(|(sum, l)| *sum += g * l);
                }
                (half_square(own), sum)
            }
            State::Decoded(increment) => increment.cost(ArrayView1::from(own), by_state),
        };
        gradient.extend(others.iter().zip(by_rest).zip(&self.rest).map(|((z, g), s)| z + s * g));
        (cost + half_square(others), gradient)
    }

    /// dc/dz: `[control, latents]`.
    pub fn jacobian(&self, z: &[f64]) -> Array2<f64> {
        let (own, others) = z.split_at(z.len() - self.rest.len());
        let state = match &self.state {
            State::Diagonal(std) => Array2::from_diag(std),
            State::Full { factor, lower } => *lower * *factor,
            State::Decoded(increment) => increment.jacobian(ArrayView1::from(own)),
        };
        let (sites, latents) = state.dim();
        let mut jacobian = Array2::zeros((sites + others.len(), latents + others.len()));
        jacobian.slice_mut(s![..sites, ..latents]).assign(&state);
        jacobian.slice_mut(s![sites.., latents..]).assign(&Array2::from_diag(&self.rest));
        jacobian
    }
}
