//! Coupling layers: a network of the even sites says how the odd ones move, then the other way round. On a ring, the
//! neighbours of a site that moves all stay.
//!
//! The affine coupling (RealNVP: Dinh, Sohl-Dickstein & Bengio 2017) is y = x exp(s) + t with s bounded.

use super::layers::{Mapped, Matrix};
use super::{FlowSettings, spline};
use burn_tensor::activation::relu;
use burn_tensor::{Device, Int, Tensor, TensorData};

/// Bound on |log scale| of one affine coupling.
const MOST_LOG_SCALE: f64 = 2.0;

/// How a site moves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Transform {
    Affine,
    Spline,
}

/// A half that has moved.
pub(super) struct Moved {
    /// `[rows, sites of the half]`
    pub rows: Tensor<2>,
    /// log dy/dx of each: `[rows, sites of the half]`.
    pub log_slope: Tensor<2>,
}

impl Transform {
    /// Numbers that each site takes, one entry for each head of the network.
    fn heads(self) -> &'static [usize] {
        match self {
            Self::Affine => &[1, 1],
            Self::Spline => &[spline::BINS, spline::BINS, spline::BINS - 1],
        }
    }

    /// x to y. `heads`: each `[rows, sites of the half * numbers]`.
    fn forward(self, x: Tensor<2>, heads: Vec<Tensor<2>>) -> Moved {
        match self {
            Self::Affine => {
                let [log_scale, shift] = affine(heads);
                Moved { rows: x * log_scale.clone().exp() + shift, log_slope: log_scale }
            }
            Self::Spline => spline::forward(x, heads),
        }
    }

    /// y to x, with the slope of the way there.
    fn inverse(self, y: Tensor<2>, heads: Vec<Tensor<2>>) -> Moved {
        match self {
            Self::Affine => {
                let [log_scale, shift] = affine(heads);
                Moved { rows: (y - shift) * (-log_scale.clone()).exp(), log_slope: log_scale }
            }
            Self::Spline => spline::inverse(y, heads),
        }
    }
}

/// The bounded log scale and the shift.
fn affine(heads: Vec<Tensor<2>>) -> [Tensor<2>; 2] {
    let [raw, shift] = heads.try_into().expect("two heads");
    [(raw / MOST_LOG_SCALE).tanh() * MOST_LOG_SCALE, shift]
}

/// A stack of couplings.
#[derive(Clone, Debug)]
pub(super) struct Couplings {
    transform: Transform,
    sites: usize,
    layers: usize,
    width: usize,
    hidden: usize,
}

impl Couplings {
    pub fn new(transform: Transform, settings: &FlowSettings, sites: usize) -> Self {
        let FlowSettings { layers, width, hidden } = *settings;
        Self { transform, sites, layers, width, hidden }
    }

    /// Sites of the half that layer `layer` moves.
    fn moved(&self, layer: usize) -> usize {
        if moves_odd(layer) { self.sites / 2 } else { self.sites.div_ceil(2) }
    }

    /// Weights and biases of each layer's network: hidden layers as He et al. (2015) start them, heads at zero.
    pub fn matrices(&self) -> Vec<Matrix> {
        let mut matrices = Vec::new();
        for layer in 0..self.layers {
            let moved = self.moved(layer);
            let mut inputs = self.sites - moved;
            for _ in 0..self.hidden {
                let std = (2.0 / inputs as f64).sqrt();
                matrices.push(Matrix { shape: [inputs, self.width], std, unit: std });
                matrices.push(Matrix { shape: [1, self.width], std: 0.0, unit: std });
                inputs = self.width;
            }
            let unit = (1.0 / inputs as f64).sqrt();
            for numbers in self.transform.heads() {
                matrices.push(Matrix { shape: [inputs, moved * numbers], std: 0.0, unit });
                matrices.push(Matrix { shape: [1, moved * numbers], std: 0.0, unit });
            }
        }
        matrices
    }

    /// What the half that stays says of the half that moves: one tensor for each head.
    fn network(&self, parameters: &[Tensor<2>], stays: Tensor<2>) -> Vec<Tensor<2>> {
        let linear = |x: &Tensor<2>, pair: &[Tensor<2>]| x.clone().matmul(pair[0].clone()) + pair[1].clone();
        let (hidden, heads) = parameters.split_at(2 * self.hidden);
        let x = hidden.chunks_exact(2).fold(stays, |x, pair| relu(linear(&x, pair)));
        heads.chunks_exact(2).map(|pair| linear(&x, pair)).collect()
    }

    pub fn forward(&self, parameters: &[Tensor<2>], eps: Tensor<2>) -> Mapped {
        let [mut even, mut odd] = self.halves(eps);
        let mut log_det = None;
        for (layer, own) in parameters.chunks_exact(parameters.len() / self.layers).enumerate() {
            let (stays, moves) = if moves_odd(layer) { (&even, &mut odd) } else { (&odd, &mut even) };
            let moved = self.transform.forward(moves.clone(), self.network(own, stays.clone()));
            *moves = moved.rows;
            add(&mut log_det, moved.log_slope);
        }
        self.join(even, odd, log_det)
    }

    pub fn inverse(&self, parameters: &[Tensor<2>], z: Tensor<2>) -> Mapped {
        let [mut even, mut odd] = self.halves(z);
        let mut log_det = None;
        for (layer, own) in parameters.chunks_exact(parameters.len() / self.layers).enumerate().rev() {
            let (stays, moves) = if moves_odd(layer) { (&even, &mut odd) } else { (&odd, &mut even) };
            let moved = self.transform.inverse(moves.clone(), self.network(own, stays.clone()));
            *moves = moved.rows;
            add(&mut log_det, moved.log_slope);
        }
        self.join(even, odd, log_det)
    }

    fn halves(&self, rows: Tensor<2>) -> [Tensor<2>; 2] {
        [0, 1].map(|first| rows.clone().select(1, indices((first..self.sites).step_by(2), &rows.device())))
    }

    fn join(&self, even: Tensor<2>, odd: Tensor<2>, log_det: Option<Tensor<2>>) -> Mapped {
        let half = self.sites.div_ceil(2);
        let order = (0..self.sites).map(|i| if i % 2 == 0 { i / 2 } else { half + i / 2 });
        let order = indices(order, &even.device());
        Mapped { rows: Tensor::cat(vec![even, odd], 1).select(1, order), log_det: log_det.expect("a layer") }
    }
}

/// Layers take turns.
fn moves_odd(layer: usize) -> bool {
    layer.is_multiple_of(2)
}

/// Adds the sum over sites.
fn add(log_det: &mut Option<Tensor<2>>, log_slope: Tensor<2>) {
    let sum = log_slope.sum_dim(1);
    *log_det = Some(match log_det.take() {
        None => sum,
        Some(before) => before + sum,
    });
}

fn indices(sites: impl Iterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let sites: Vec<i64> = sites.map(|i| i as i64).collect();
    let shape = [sites.len()];
    Tensor::from_data(TensorData::new(sites, shape), device)
}
