//! Coupling layers: a network of the even sites says how the odd ones move, then the other way round. On a ring, the
//! neighbours of a site that moves all stay.
//!
//! The affine coupling (RealNVP: Dinh, Sohl-Dickstein & Bengio 2017) is y = x exp(s) + t with s bounded; for the spline
//! coupling see [`spline`].

use super::FlowSettings;
use super::layers::{Mapped, Tape};
use super::spline::{self, Place, Spline};
use crate::neural::{Activation, Dense, Matrix, tensors};
use burn_tensor::Tensor;
use ndarray::{Array1, Array2};

/// Bound on |log scale| of one affine coupling.
const MOST_LOG_SCALE: f64 = 2.0;

/// How a site moves, given some numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Transform {
    Affine,
    /// A spline, then an affine map: the spline's domain is bounded.
    Spline,
}

/// The way of one site in one row.
struct Move<'a> {
    spline: Option<Spline<'a>>,
    /// s = [`MOST_LOG_SCALE`] * share
    share: f64,
    scale: f64,
    shift: f64,
}

impl Transform {
    /// Numbers that each site takes.
    fn numbers(self) -> usize {
        match self {
            Self::Affine => 2,
            Self::Spline => 2 + spline::NUMBERS,
        }
    }

    /// What a step of the network's weights is multiplied by: the many numbers of a spline add up.
    fn pace(self) -> f64 {
        match self {
            Self::Affine => 1.0,
            Self::Spline => 0.3,
        }
    }

    fn of(self, numbers: &[f32]) -> Move<'_> {
        let share = (f64::from(numbers[0]) / MOST_LOG_SCALE).tanh();
        let spline = match self {
            Self::Affine => None,
            Self::Spline => Some(Spline::new(&numbers[2..])),
        };
        Move { spline, share, scale: (MOST_LOG_SCALE * share).exp(), shift: f64::from(numbers[1]) }
    }
}

/// Where a site has come by a move.
struct Moved {
    y: f64,
    /// log dy/dx
    log_slope: f64,
    /// Behind the spline.
    bent: f64,
    /// In the spline's domain.
    place: Option<Place>,
}

impl Move<'_> {
    fn forward(&self, x: f64) -> Moved {
        let place = self.spline.as_ref().and_then(|spline| spline.at(x));
        let (bent, log_slope) = place.as_ref().map_or((x, 0.0), |place| (place.y(), place.log_slope()));
        Moved { y: bent * self.scale + self.shift, log_slope: log_slope + MOST_LOG_SCALE * self.share, bent, place }
    }

    /// x, and log dy/dx there, at y.
    fn inverse(&self, y: f64) -> (f64, f64) {
        let bent = (y - self.shift) / self.scale;
        let (x, log_slope) = self.spline.as_ref().map_or((bent, 0.0), |spline| spline.inverse(bent));
        (x, log_slope + MOST_LOG_SCALE * self.share)
    }

    /// From gradients with respect to y and log dy/dx to those with respect to x (returned) and the numbers.
    fn pull_back(&self, moved: &Moved, by_y: f64, by_log_slope: f64, by_numbers: &mut [f32]) -> f64 {
        let by_bent = by_y * self.scale;
        by_numbers[0] = ((by_bent * moved.bent + by_log_slope) * (1.0 - self.share * self.share)) as f32;
        by_numbers[1] = by_y as f32;
        match (&self.spline, &moved.place) {
            (Some(spline), Some(place)) => spline.pull_back(place, by_bent, by_log_slope, &mut by_numbers[2..]),
            _ => {
                by_numbers[2..].fill(0.0);
                by_bent
            }
        }
    }
}

/// A stack of couplings.
#[derive(Clone, Debug)]
pub(super) struct Couplings {
    transform: Transform,
    layers: Vec<Layer>,
}

#[derive(Clone, Debug)]
struct Layer {
    network: Dense,
    /// The sites that move, and those that stay.
    moves: Vec<usize>,
    stays: Vec<usize>,
}

/// Couplings with the weights of one problem.
pub(super) struct Ready<'a> {
    transform: Transform,
    layers: Vec<(&'a Layer, Vec<Tensor<2>>)>,
}

impl Couplings {
    pub fn new(transform: Transform, settings: &FlowSettings, sites: usize) -> Self {
        let layer = |k: usize| {
            let half = |first: usize| (first % 2..sites).step_by(2).collect::<Vec<_>>();
            let (moves, stays) = (half(k + 1), half(k));
            let network = Dense {
                inputs: stays.len(),
                width: settings.width,
                hidden: settings.hidden,
                outputs: moves.len() * transform.numbers(),
                activation: Activation::Relu,
                gain: 0.0,
            };
            Layer { network, moves, stays }
        };
        Self { transform, layers: (0..settings.layers).map(layer).collect() }
    }

    pub fn matrices(&self) -> Vec<Matrix> {
        let paced = |m: Matrix| Matrix { unit: m.unit * self.transform.pace(), ..m };
        self.layers.iter().flat_map(|layer| layer.network.matrices()).map(paced).collect()
    }

    pub fn ready(&self, parameters: &[f64]) -> Ready<'_> {
        let mut rest = parameters;
        let layer = |layer: &'_ Layer| {
            let own;
            (own, rest) = rest.split_at(layer.network.matrices().iter().map(Matrix::len).sum());
            tensors(&layer.network.matrices(), own)
        };
        let weights: Vec<_> = self.layers.iter().map(layer).collect();
        Ready { transform: self.transform, layers: self.layers.iter().zip(weights).collect() }
    }
}

impl Layer {
    /// The sites that stay, as the network takes them.
    fn input(&self, rows: &Array2<f64>) -> Vec<f32> {
        rows.outer_iter().flat_map(|row| self.stays.iter().map(move |i| row[*i] as f32)).collect()
    }

    /// Adds what the network's input has to say.
    fn add_input(&self, by_rows: &mut Array2<f64>, by_input: &[f32]) {
        for (mut row, by_input) in by_rows.outer_iter_mut().zip(by_input.chunks_exact(self.stays.len())) {
            self.stays.iter().zip(by_input).for_each(|(i, by)| row[*i] += f64::from(*by));
        }
    }

    /// Every site that moves in every row, with its numbers among the network's outputs: (row, site, numbers).
    fn moves<'a>(
        &'a self,
        transform: Transform,
        outputs: &'a [f32],
    ) -> impl Iterator<Item = (usize, usize, &'a [f32])> {
        let places = outputs.chunks_exact(transform.numbers()).enumerate();
        places.map(|(k, numbers)| (k / self.moves.len(), self.moves[k % self.moves.len()], numbers))
    }
}

impl Ready<'_> {
    pub fn forward(&self, eps: Array2<f64>) -> Mapped {
        let mut mapped = Mapped::start(eps);
        for (layer, weights) in &self.layers {
            let outputs = layer.network.outputs(weights, layer.input(&mapped.rows));
            self.advance(layer, &outputs, &mut mapped);
        }
        mapped
    }

    pub fn inverse(&self, z: Array2<f64>) -> Mapped {
        let mut mapped = Mapped::start(z);
        for (layer, weights) in self.layers.iter().rev() {
            let outputs = layer.network.outputs(weights, layer.input(&mapped.rows));
            for (k, i, numbers) in layer.moves(self.transform, &outputs) {
                let (x, log_slope) = self.transform.of(numbers).inverse(mapped.rows[[k, i]]);
                mapped.rows[[k, i]] = x;
                mapped.log_det[k] += log_slope;
            }
        }
        mapped
    }

    pub fn record(&self, eps: Array2<f64>, scored: bool) -> Tape {
        let mut score = scored.then(|| -&eps);
        let mut z = Mapped::start(eps);
        let mut before = Vec::with_capacity(self.layers.len());
        for (layer, weights) in &self.layers {
            before.push(z.rows.clone());
            match &mut score {
                Some(score) => self.advance_score(layer, weights, &mut z, score),
                None => self.advance(layer, &layer.network.outputs(weights, layer.input(&z.rows)), &mut z),
            }
        }
        Tape { z, before, score }
    }

    fn advance(&self, layer: &Layer, outputs: &[f32], mapped: &mut Mapped) {
        for (k, i, numbers) in layer.moves(self.transform, outputs) {
            let moved = self.transform.of(numbers).forward(mapped.rows[[k, i]]);
            mapped.rows[[k, i]] = moved.y;
            mapped.log_det[k] += moved.log_slope;
        }
    }

    /// With F = log q(x) - log |det|, T the transform and theta its numbers: the score of the sites that move is F' / T', that
    /// of those that stay loses (log T' + F' / T' T) by theta, theta by the sites.
    fn advance_score(&self, layer: &Layer, weights: &[Tensor<2>], mapped: &mut Mapped, score: &mut Array2<f64>) {
        let (outputs, run) = layer.network.run(weights, layer.input(&mapped.rows), false);
        let mut by_outputs = vec![0f32; outputs.len()];
        let each = by_outputs.chunks_exact_mut(self.transform.numbers());
        for ((k, i, numbers), by_numbers) in layer.moves(self.transform, &outputs).zip(each) {
            let own = self.transform.of(numbers);
            let moved = own.forward(mapped.rows[[k, i]]);
            let bend = own.pull_back(&moved, 0.0, 1.0, by_numbers);
            let by_y = (score[[k, i]] - bend) * (-moved.log_slope).exp();
            own.pull_back(&moved, -by_y, -1.0, by_numbers);
            score[[k, i]] = by_y;
            mapped.rows[[k, i]] = moved.y;
            mapped.log_det[k] += moved.log_slope;
        }
        layer.add_input(score, &run.pull_back(by_outputs).0);
    }

    pub fn pull_back(&self, before: &[Array2<f64>], by_z: Array2<f64>, by_log_det: &Array1<f64>) -> Vec<f64> {
        let mut by_rows = by_z;
        let mut by_weights = Vec::with_capacity(self.layers.len());
        for ((layer, weights), before) in self.layers.iter().zip(before).rev() {
            let (outputs, run) = layer.network.run(weights, layer.input(before), true);
            let mut by_outputs = vec![0f32; outputs.len()];
            let each = by_outputs.chunks_exact_mut(self.transform.numbers());
            for ((k, i, numbers), by_numbers) in layer.moves(self.transform, &outputs).zip(each) {
                let own = self.transform.of(numbers);
                let moved = own.forward(before[[k, i]]);
                by_rows[[k, i]] = own.pull_back(&moved, by_rows[[k, i]], by_log_det[k], by_numbers);
            }
            let (by_input, own) = run.pull_back(by_outputs);
            layer.add_input(&mut by_rows, &by_input);
            by_weights.push(own);
        }
        by_weights.into_iter().rev().flatten().map(f64::from).collect()
    }
}
