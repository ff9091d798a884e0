//! A network with softplus, dense or of convolutions on a ring, in f64 on the host: its values, its Jacobian, and the gradient
//! of the Jacobian's determinant.
//!
//! Networks are trained in f32; a minimiser to round-off and a second derivative are better served by f64.

use nalgebra::{Cholesky, DMatrix};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

/// h_0 = z; h_l = log(1 + exp(h_{l-1} W_l + b_l)) in the hidden layers, at each place of a ring and from what a layer sees
/// around it; the last layer is linear, and z S is added to it. At one place it is dense; without hidden layers it is affine.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Places of the ring. What comes in and goes out is that of the first place, then of the second.
    pub places: usize,
    /// W_l, layer by layer: a row for each channel of each place that it sees, from the leftmost to the rightmost, and a
    /// column for each channel that it gives: `[seen places * channels, channels]`.
    pub weights: Vec<Array2<f64>>,
    /// b_l: `[channels]`.
    pub biases: Vec<Array1<f64>>,
    /// S, past all layers: `[inputs, outputs]`.
    pub skip: Array2<f64>,
}

impl Network {
    /// Numbers that it takes.
    pub fn inputs(&self) -> usize {
        self.skip.nrows()
    }

    /// Numbers that it gives.
    pub fn outputs(&self) -> usize {
        self.skip.ncols()
    }

    /// What does not fit, if anything.
    pub(super) fn misfit(&self) -> Option<String> {
        let (inputs, outputs, places) = (self.inputs(), self.outputs(), self.places);
        if places == 0 || inputs % places != 0 || outputs % places != 0 {
            return Some(format!("{inputs} inputs and {outputs} outputs at {places} places"));
        }
        let mut channels = inputs / places;
        for (l, (weights, bias)) in self.weights.iter().zip(&self.biases).enumerate() {
            let (rows, columns) = weights.dim();
            let seen = rows / channels.max(1);
            if channels == 0 || rows % channels != 0 || seen % 2 != 1 || seen > places || columns != bias.len() {
                return Some(format!("layer {l} with weights of {rows} x {columns} for {channels} channels"));
            }
            channels = columns;
        }
        let fits = channels * places == outputs && self.weights.len() == self.biases.len();
        if fits { None } else { Some(format!("{channels} channels at {places} places for {outputs} outputs")) }
    }

    /// Channels of a layer's input, and those at both sides of a place that it sees.
    fn channels(&self, l: usize) -> [usize; 2] {
        let channels = if l == 0 { self.inputs() / self.places } else { self.weights[l - 1].ncols() };
        [channels, (self.weights[l].nrows() - channels) / 2]
    }

    /// h_{l-1} W_l: `[rows, places * channels]` both.
    fn linear(&self, l: usize, rows: ArrayView2<f64>) -> Array2<f64> {
        let weights = &self.weights[l];
        let ([channels, beside], seen) = (self.channels(l), weights.nrows());
        let mut out = Array2::zeros((rows.nrows() * self.places, weights.ncols()));
        let mut windows = Array2::zeros((self.places, seen));
        let mut ring = Vec::with_capacity(rows.ncols() + 2 * beside);
        for (row, mut out) in rows.outer_iter().zip(out.axis_chunks_iter_mut(Axis(0), self.places)) {
            ring.clear();
            ring.extend(row.slice(s![row.len() - beside..]));
            ring.extend(&row);
            ring.extend(row.slice(s![..beside]));
            for (place, mut window) in windows.outer_iter_mut().enumerate() {
                window.assign(&ArrayView1::from(&ring[place * channels..][..seen]));
            }
            general_mat_mul(1.0, &windows, weights, 0.0, &mut out);
        }
        out.into_shape_with_order((rows.nrows(), self.places * weights.ncols())).expect("as many numbers")
    }

    /// The way back: from gradients with respect to h_{l-1} W_l to those with respect to h_{l-1}, row by row.
    fn linear_back(&self, l: usize, rows: ArrayView2<f64>) -> Array2<f64> {
        let weights = &self.weights[l];
        let ([channels, beside], seen) = (self.channels(l), weights.nrows());
        let mut out = Array2::zeros((rows.nrows(), self.places * channels));
        let mut windows = Array2::zeros((self.places, seen));
        let mut ring = vec![0.0; self.places * channels + 2 * beside];
        for (by_row, mut row) in rows.outer_iter().zip(out.outer_iter_mut()) {
            let by_place = by_row.to_shape((self.places, weights.ncols())).expect("as many numbers");
            general_mat_mul(1.0, &by_place, &weights.t(), 0.0, &mut windows);
            ring.fill(0.0);
            for (place, window) in windows.outer_iter().enumerate() {
                ring[place * channels..][..seen].iter_mut().zip(window).for_each(|(to, by)| *to += by);
            }
            let own = row.len();
            row.assign(&ArrayView1::from(&ring[beside..beside + own]));
            row.slice_mut(s![own - beside..]).zip_mut_with(&ArrayView1::from(&ring[..beside]), |to, by| *to += by);
            row.slice_mut(s![..beside]).zip_mut_with(&ArrayView1::from(&ring[own + beside..]), |to, by| *to += by);
        }
        out
    }

    /// The outputs of each row: `[rows, inputs]` to `[rows, outputs]`.
    pub fn evaluate(&self, rows: ArrayView2<f64>) -> Array2<f64> {
        let last = self.weights.len() - 1;
        let mut h = rows.to_owned();
        for l in 0..=last {
            h = self.linear(l, h.view()) + self.bias(l);
            if l < last {
                h.mapv_inplace(softplus);
            }
        }
        h + rows.dot(&self.skip)
    }

    /// b_l at all places.
    fn bias(&self, l: usize) -> Array1<f64> {
        let bias = &self.biases[l];
        (0..self.places * bias.len()).map(|k| bias[k % bias.len()]).collect()
    }

    /// The same of one input, with what derivatives need.
    pub fn at(&self, z: ArrayView1<f64>) -> Evaluated<'_> {
        let last = self.weights.len() - 1;
        let mut hidden = Vec::with_capacity(last);
        let mut h = z.to_owned();
        let layer = |l: usize, h: &Array1<f64>| {
            self.linear(l, h.view().insert_axis(Axis(0))).remove_axis(Axis(0)) + self.bias(l)
        };
        for l in 0..last {
            h = layer(l, &h).mapv(softplus);
            hidden.push(h.clone());
        }
        let output = layer(last, &h) + z.dot(&self.skip);
        Evaluated { network: self, hidden, output }
    }

    /// The network with its outputs multiplied.
    pub fn stretched(mut self, factor: f64) -> Self {
        if let (Some(weights), Some(bias)) = (self.weights.last_mut(), self.biases.last_mut()) {
            *weights *= factor;
            *bias *= factor;
        }
        self.skip *= factor;
        self
    }

    /// The network of some channels of its inputs, the others 0.
    pub fn select_channels(&self, kept: &[usize]) -> Self {
        let channels = self.inputs() / self.places;
        let rows = |blocks: usize| -> Vec<usize> {
            (0..blocks).flat_map(|block| kept.iter().map(move |c| block * channels + c)).collect()
        };
        let mut weights = self.weights.clone();
        weights[0] = weights[0].select(Axis(0), &rows(weights[0].nrows() / channels));
        let skip = self.skip.select(Axis(0), &rows(self.places));
        Self { places: self.places, weights, biases: self.biases.clone(), skip }
    }
}

/// log(1 + e^x), whichever is large.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The derivative of softplus where it is h: 1 - e^-h.
fn slope(h: f64) -> f64 {
    -(-h).exp_m1()
}

/// A network at one input.
pub struct Evaluated<'a> {
    network: &'a Network,
    /// h_l of the hidden layers.
    hidden: Vec<Array1<f64>>,
    /// D(z): `[outputs]`.
    pub output: Array1<f64>,
}

impl Evaluated<'_> {
    /// J' g: from the gradient with respect to the output, `[outputs]`, to that with respect to the input, `[inputs]`.
    pub fn pull_back(&self, by_output: ArrayView1<f64>) -> Array1<f64> {
        let network = self.network;
        let mut g = network.linear_back(self.hidden.len(), by_output.insert_axis(Axis(0)));
        for (l, h) in self.hidden.iter().enumerate().rev() {
            g = network.linear_back(l, (g * h.mapv(slope)).view());
        }
        g.remove_axis(Axis(0)) + network.skip.dot(&by_output)
    }

    /// J' after each hidden layer, before its slopes, and after the last: `[inputs, outputs]`.
    fn jacobians(&self) -> (Vec<Array2<f64>>, Array2<f64>) {
        let network = self.network;
        let mut before = Array2::eye(network.inputs());
        let mut all = Vec::with_capacity(self.hidden.len());
        for (l, h) in self.hidden.iter().enumerate() {
            let linear = network.linear(l, before.view());
            before = &linear * &h.mapv(slope);
            all.push(linear);
        }
        (all, network.linear(self.hidden.len(), before.view()) + &network.skip)
    }

    /// The Jacobian dD/dz: `[outputs, inputs]`.
    pub fn jacobian(&self) -> Array2<f64> {
        self.jacobians().1.reversed_axes()
    }

    /// 1/2 log det(J'J + ridge^2 I) with its gradient with respect to the input, `[inputs]`. For as many outputs as inputs
    /// and no ridge that is log |det J|. Infinite or NaN where the determinant vanishes.
    ///
    /// Its derivative with respect to J is G = J (J'J + ridge^2 I)^-1 (Petersen & Pedersen 2012, eq. 53, with the ridge), and
    /// the gradient is that of <G, J(z)> with G held, by the chain through the layers that J is made of.
    pub fn log_volume(&self, ridge: f64) -> (f64, Array1<f64>) {
        let network = self.network;
        let (layers, transposed) = self.jacobians();
        let inputs = transposed.nrows();
        let gram = transposed.dot(&transposed.t());
        let gram = DMatrix::from_fn(inputs, inputs, |i, j| gram[[i, j]] + if i == j { ridge * ridge } else { 0.0 });
        let Some(cholesky) = Cholesky::new(gram) else {
            return (f64::NEG_INFINITY, Array1::from_elem(inputs, f64::NAN));
        };
        let value = (0..inputs).map(|i| cholesky.l_dirty()[(i, i)].ln()).sum();
        if self.hidden.is_empty() {
            return (value, Array1::zeros(inputs));
        }
        let inverse = cholesky.inverse();
        let inverse = Array2::from_shape_fn((inputs, inputs), |(i, j)| inverse[(i, j)]);
        // G', and what it becomes on the way back through J's layers; `by_h` goes back through the layers themselves.
        let mut by_jacobian = network.linear_back(self.hidden.len(), inverse.dot(&transposed).view());
        let mut by_h: Array1<f64> = Array1::zeros(by_jacobian.ncols());
        for (l, (linear, h)) in layers.iter().zip(&self.hidden).enumerate().rev() {
            // The slope of softplus is a logistic function, whose own is slope (1 - slope).
            let by_slope = (&by_jacobian * linear).sum_axis(Axis(0));
            let mut by_linear = by_h;
            for ((by, h), by_slope) in by_linear.iter_mut().zip(h).zip(&by_slope) {
                let slope = slope(*h);
                *by = (*by + (1.0 - slope) * by_slope) * slope;
            }
            by_h = network.linear_back(l, by_linear.view().insert_axis(Axis(0))).remove_axis(Axis(0));
            if l > 0 {
                by_jacobian = network.linear_back(l, (by_jacobian * &h.mapv(slope)).view());
            }
        }
        (value, by_h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Stream, standard_normals};

    /// `layers`: the channels from the inputs on, each seeing `seen` places.
    fn network([places, seen]: [usize; 2], layers: &[usize]) -> Network {
        let normals = |k: u32, rows: usize, columns: usize| {
            standard_normals(7, Stream::Weights, k, 0..rows, columns) / (rows as f64).sqrt()
        };
        let pairs: Vec<_> = layers.windows(2).collect();
        Network {
            places,
            weights: pairs.iter().enumerate().map(|(l, p)| normals(l as u32, seen * p[0], p[1])).collect(),
            biases: pairs.iter().enumerate().map(|(l, p)| normals(50 + l as u32, 1, p[1]).row(0).to_owned()).collect(),
            skip: normals(90, places * layers[0], places * layers[layers.len() - 1]),
        }
    }

    const SHAPES: [([usize; 2], &[usize]); 7] = [
        ([1, 1], &[3, 3]),
        ([1, 1], &[3, 8, 3]),
        ([1, 1], &[4, 9, 7, 4]),
        ([1, 1], &[2, 9, 7, 6, 5]),
        ([5, 3], &[1, 1]),
        ([6, 3], &[1, 3, 4, 1]),
        ([5, 5], &[1, 4, 2]),
    ];

    fn point(n: usize) -> Array1<f64> {
        standard_normals(3, Stream::Starts, 0, 2..3, n).row(0).to_owned()
    }

    #[test]
    fn jacobians_are_those_of_differences() {
        for (ring, shape) in SHAPES {
            let (network, z) = (network(ring, shape), point(ring[0] * shape[0]));
            assert_eq!(network.misfit(), None);
            let (jacobian, step) = (network.at(z.view()).jacobian(), 1e-5);
            for j in 0..z.len() {
                let side = |sign: f64| {
                    let mut moved = z.clone();
                    moved[j] += sign * step;
                    network.evaluate(moved.view().insert_axis(Axis(0))).row(0).to_owned()
                };
                let difference = (side(1.0) - side(-1.0)) / (2.0 * step);
                let gap = (&difference - &jacobian.column(j)).iter().fold(0.0f64, |m, d| m.max(d.abs()));
                assert!(gap < 1e-9, "{ring:?} {shape:?}: {gap}");
            }
            let g = point(jacobian.nrows());
            let back = network.at(z.view()).pull_back(g.view());
            assert!((back - jacobian.t().dot(&g)).iter().all(|d| d.abs() < 1e-13), "{ring:?} {shape:?}");
        }
    }

    /// The value against the determinant of the Jacobian itself, the gradient against differences of the value.
    #[test]
    fn log_volumes_and_their_gradients() {
        for (ring, shape) in SHAPES {
            for ridge in [0.0, 0.3] {
                let (network, z) = (network(ring, shape), point(ring[0] * shape[0]));
                let (value, gradient) = network.at(z.view()).log_volume(ridge);
                let j = network.at(z.view()).jacobian();
                let j = DMatrix::from_fn(j.nrows(), j.ncols(), |i, k| j[[i, k]]);
                let want = if ridge == 0.0 && j.is_square() {
                    j.determinant().abs().ln()
                } else {
                    let gram = j.transpose() * &j + DMatrix::identity(j.ncols(), j.ncols()) * ridge * ridge;
                    0.5 * gram.determinant().ln()
                };
                assert!((value - want).abs() < 1e-12, "{ring:?} {shape:?}, {ridge}: {value} {want}");
                let step = 1e-5;
                for k in 0..z.len() {
                    let side = |sign: f64| {
                        let mut moved = z.clone();
                        moved[k] += sign * step;
                        network.at(moved.view()).log_volume(ridge).0
                    };
                    let difference = (side(1.0) - side(-1.0)) / (2.0 * step);
                    assert!(
                        (difference - gradient[k]).abs() < 1e-8,
                        "{ring:?} {shape:?}: {difference} {}",
                        gradient[k]
                    );
                }
                assert_eq!(
                    shape.len() > 2,
                    gradient.iter().any(|g| g.abs() > 1e-3),
                    "{ring:?} {shape:?}: nothing to see"
                );
            }
        }
    }

    #[test]
    fn channels_left_out_are_zero() {
        let dense = network([1, 1], &[4, 9, 7, 4]);
        let ring = network([3, 3], &[2, 4, 1]);
        for (network, kept, z, short) in [
            (dense, vec![0, 2], vec![0.3, 0.0, -1.2, 0.0], vec![0.3, -1.2]),
            (ring, vec![1], vec![0.0, 0.4, 0.0, -0.7, 0.0, 1.1], vec![0.4, -0.7, 1.1]),
        ] {
            let part = network.select_channels(&kept);
            assert_eq!(part.misfit(), None);
            let [whole, part] = [network.at(ArrayView1::from(&z)).output, part.at(ArrayView1::from(&short)).output];
            assert!((whole - part).iter().all(|d| d.abs() < 1e-15));
        }
    }

    /// By a loop over places, what each sees, and channels.
    #[test]
    fn convolutions_see_around_each_place() {
        let network = network([5, 3], &[2, 3]);
        let z = point(10);
        let found = network.at(z.view()).output - z.dot(&network.skip);
        for place in 0..5usize {
            for out in 0..3 {
                let mut want = network.biases[0][out];
                for (k, from) in [(place + 4) % 5, place, (place + 1) % 5].into_iter().enumerate() {
                    want += (0..2).map(|c| z[2 * from + c] * network.weights[0][[2 * k + c, out]]).sum::<f64>();
                }
                assert!((found[3 * place + out] - want).abs() < 1e-14);
            }
        }
        let mut broken = network;
        broken.weights[0] = Array2::zeros((5, 3));
        assert!(broken.misfit().is_some_and(|m| m.contains("5 x 3 for 2 channels")));
    }
}
