//! A dense network with softplus, in f64 on the host: its values, its Jacobian, and the gradient of the Jacobian's determinant.
//!
//! Networks are trained in f32; a minimiser to round-off and a second derivative are better served by f64.

use nalgebra::{Cholesky, DMatrix};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

/// h_0 = z; h_l = log(1 + exp(h_{l-1} W_l + b_l)) in the hidden layers; the last layer is linear, and z S is added to it. Without
/// hidden layers it is an affine map.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// W_l, layer by layer: `[inputs, outputs]`.
    pub weights: Vec<Array2<f64>>,
    /// b_l: `[outputs]`.
    pub biases: Vec<Array1<f64>>,
    /// S, past all layers: `[inputs, outputs]`.
    pub skip: Array2<f64>,
}

impl Network {
    /// Numbers that it takes.
    pub fn inputs(&self) -> usize {
        self.weights[0].nrows()
    }

    /// Numbers that it gives.
    pub fn outputs(&self) -> usize {
        self.weights[self.weights.len() - 1].ncols()
    }

    /// The outputs of each row: `[rows, inputs]` to `[rows, outputs]`.
    pub fn evaluate(&self, rows: ArrayView2<f64>) -> Array2<f64> {
        let last = self.weights.len() - 1;
        let mut h = rows.to_owned();
        for (l, (weights, bias)) in self.weights.iter().zip(&self.biases).enumerate() {
            h = h.dot(weights) + bias;
            if l < last {
                h.mapv_inplace(softplus);
            }
        }
        h + rows.dot(&self.skip)
    }

    /// The same of one input, with what derivatives need.
    pub fn at(&self, z: ArrayView1<f64>) -> Evaluated<'_> {
        let last = self.weights.len() - 1;
        let mut hidden = Vec::with_capacity(last);
        let mut h = z.to_owned();
        for (weights, bias) in self.weights[..last].iter().zip(&self.biases) {
            h = h.dot(weights) + bias;
            h.mapv_inplace(softplus);
            hidden.push(h.clone());
        }
        let output = h.dot(&self.weights[last]) + &self.biases[last] + z.dot(&self.skip);
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

    /// The network of some of its inputs, the others 0.
    pub fn select_inputs(&self, inputs: &[usize]) -> Self {
        let mut weights = self.weights.clone();
        weights[0] = weights[0].select(Axis(0), inputs);
        Self { weights, biases: self.biases.clone(), skip: self.skip.select(Axis(0), inputs) }
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
        let Network { weights, skip, .. } = self.network;
        let mut g = weights[weights.len() - 1].dot(&by_output);
        for (weights, h) in weights.iter().zip(&self.hidden).rev() {
            g.zip_mut_with(h, |g, h| *g *= slope(*h));
            g = weights.dot(&g);
        }
        g + skip.dot(&by_output)
    }

    /// J' after each layer, the hidden ones before and after their slopes: `[inputs, outputs]`.
    fn jacobians(&self) -> (Vec<[Array2<f64>; 2]>, Array2<f64>) {
        let Network { weights, skip, .. } = self.network;
        let mut before: Option<Array2<f64>> = None;
        let mut all = Vec::with_capacity(self.hidden.len());
        for (weights, h) in weights.iter().zip(&self.hidden) {
            let linear = before.as_ref().map_or_else(|| weights.clone(), |j| j.dot(weights));
            let bent = &linear * &h.mapv(slope);
            before = Some(bent.clone());
            all.push([linear, bent]);
        }
        let last = &weights[weights.len() - 1];
        let jacobian = before.map_or_else(|| last.clone(), |j| j.dot(last));
        (all, jacobian + skip)
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
        let Network { weights, .. } = self.network;
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
        let mut by_jacobian = inverse.dot(&transposed).dot(&weights[weights.len() - 1].t());
        let mut by_h: Array1<f64> = Array1::zeros(by_jacobian.ncols());
        for (l, ([linear, _], h)) in layers.iter().zip(&self.hidden).enumerate().rev() {
            // The slope of softplus is a logistic function, whose own is slope (1 - slope).
            let by_slope = (&by_jacobian * linear).sum_axis(Axis(0));
            let mut by_linear = by_h;
            for ((by, h), by_slope) in by_linear.iter_mut().zip(h).zip(&by_slope) {
                let slope = slope(*h);
                *by = (*by + (1.0 - slope) * by_slope) * slope;
            }
            by_h = weights[l].dot(&by_linear);
            if l > 0 {
                by_jacobian = (by_jacobian * &h.mapv(slope)).dot(&weights[l].t());
            }
        }
        (value, by_h.slice(s![..inputs]).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Stream, standard_normals};

    /// `layers`: the sizes from the inputs on.
    fn network(layers: &[usize]) -> Network {
        let normals = |k: u32, rows: usize, columns: usize| {
            standard_normals(7, Stream::Weights, k, 0..rows, columns) / (rows as f64).sqrt()
        };
        let pairs: Vec<_> = layers.windows(2).collect();
        Network {
            weights: pairs.iter().enumerate().map(|(l, p)| normals(l as u32, p[0], p[1])).collect(),
            biases: pairs.iter().enumerate().map(|(l, p)| normals(50 + l as u32, 1, p[1]).row(0).to_owned()).collect(),
            skip: normals(90, layers[0], layers[layers.len() - 1]),
        }
    }

    const SHAPES: [&[usize]; 4] = [&[3, 3], &[3, 8, 3], &[4, 9, 7, 4], &[2, 9, 7, 6, 5]];

    fn point(n: usize) -> Array1<f64> {
        standard_normals(3, Stream::Starts, 0, 2..3, n).row(0).to_owned()
    }

    #[test]
    fn jacobians_are_those_of_differences() {
        for shape in SHAPES {
            let (network, z) = (network(shape), point(shape[0]));
            let (jacobian, step) = (network.at(z.view()).jacobian(), 1e-5);
            for j in 0..z.len() {
                let side = |sign: f64| {
                    let mut moved = z.clone();
                    moved[j] += sign * step;
                    network.evaluate(moved.view().insert_axis(Axis(0))).row(0).to_owned()
                };
                let difference = (side(1.0) - side(-1.0)) / (2.0 * step);
                let gap = (&difference - &jacobian.column(j)).iter().fold(0.0f64, |m, d| m.max(d.abs()));
                assert!(gap < 1e-9, "{shape:?}: {gap}");
            }
            let g = point(jacobian.nrows());
            let back = network.at(z.view()).pull_back(g.view());
            assert!((back - jacobian.t().dot(&g)).iter().all(|d| d.abs() < 1e-13), "{shape:?}");
        }
    }

    /// The value against the determinant of the Jacobian itself, the gradient against differences of the value.
    #[test]
    fn log_volumes_and_their_gradients() {
        for shape in SHAPES {
            for ridge in [0.0, 0.3] {
                let (network, z) = (network(shape), point(shape[0]));
                let (value, gradient) = network.at(z.view()).log_volume(ridge);
                let j = network.at(z.view()).jacobian();
                let j = DMatrix::from_fn(j.nrows(), j.ncols(), |i, k| j[[i, k]]);
                let want = if ridge == 0.0 && j.is_square() {
                    j.determinant().abs().ln()
                } else {
                    let gram = j.transpose() * &j + DMatrix::identity(j.ncols(), j.ncols()) * ridge * ridge;
                    0.5 * gram.determinant().ln()
                };
                assert!((value - want).abs() < 1e-12, "{shape:?}, {ridge}: {value} {want}");
                let step = 1e-5;
                for k in 0..z.len() {
                    let side = |sign: f64| {
                        let mut moved = z.clone();
                        moved[k] += sign * step;
                        network.at(moved.view()).log_volume(ridge).0
                    };
                    let difference = (side(1.0) - side(-1.0)) / (2.0 * step);
                    assert!((difference - gradient[k]).abs() < 1e-8, "{shape:?}: {difference} {}", gradient[k]);
                }
                assert_eq!(shape.len() > 2, gradient.iter().any(|g| g.abs() > 1e-3), "{shape:?}: nothing to see");
            }
        }
    }

    #[test]
    fn inputs_left_out_are_zero() {
        let network = network(&[4, 9, 7, 4]);
        let part = network.select_inputs(&[0, 2]);
        let [whole, part] = [network.at(ndarray::array![0.3, 0.0, -1.2, 0.0].view()).output, {
            part.at(ndarray::array![0.3, -1.2].view()).output
        }];
        assert!((whole - part).iter().all(|d| d.abs() < 1e-15));
    }
}
