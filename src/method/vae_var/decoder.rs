//! A dense network with tanh, in f64 on the host: its values, its Jacobian, and the gradient of the Jacobian's determinant.
//!
//! Networks are trained in f32; a minimiser to round-off and a second derivative are better served by f64.

use nalgebra::{Cholesky, DMatrix};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

/// h_0 = z; h_l = tanh(h_{l-1} W_l + b_l) in the hidden layers; the last layer is linear. Without hidden layers it is an
/// affine map.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// W_l, layer by layer: `[inputs, outputs]`.
    pub weights: Vec<Array2<f64>>,
    /// b_l: `[outputs]`.
    pub biases: Vec<Array1<f64>>,
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
                h.mapv_inplace(f64::tanh);
            }
        }
        h
    }

    /// The same of one input, with what derivatives need.
    pub fn at(&self, z: ArrayView1<f64>) -> Evaluated<'_> {
        let last = self.weights.len() - 1;
        let mut hidden = Vec::with_capacity(last);
        let mut h = z.to_owned();
        for (weights, bias) in self.weights[..last].iter().zip(&self.biases) {
            h = h.dot(weights) + bias;
            h.mapv_inplace(f64::tanh);
            hidden.push(h.clone());
        }
        let output = h.dot(&self.weights[last]) + &self.biases[last];
        Evaluated { network: self, hidden, output }
    }

    /// The network of some of its inputs, the others 0.
    pub fn select_inputs(&self, inputs: &[usize]) -> Self {
        let mut weights = self.weights.clone();
        weights[0] = weights[0].select(Axis(0), inputs);
        Self { weights, biases: self.biases.clone() }
    }
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
        let Network { weights, .. } = self.network;
        let mut g = weights[weights.len() - 1].dot(&by_output);
        for (weights, h) in weights.iter().zip(&self.hidden).rev() {
            g.zip_mut_with(h, |g, h| *g *= 1.0 - h * h);
            g = weights.dot(&g);
        }
        g
    }

    /// J' after each layer, the hidden ones before and after their slopes: `[inputs, outputs]`.
    fn jacobians(&self) -> (Vec<[Array2<f64>; 2]>, Array2<f64>) {
        let Network { weights, .. } = self.network;
        let mut before: Option<Array2<f64>> = None;
        let mut all = Vec::with_capacity(self.hidden.len());
        for (weights, h) in weights.iter().zip(&self.hidden) {
            let linear = before.as_ref().map_or_else(|| weights.clone(), |j| j.dot(weights));
            let bent = &linear * &h.mapv(|h| 1.0 - h * h);
            before = Some(bent.clone());
            all.push([linear, bent]);
        }
        let last = &weights[weights.len() - 1];
        let jacobian = before.map_or_else(|| last.clone(), |j| j.dot(last));
        (all, jacobian)
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
            // slope = 1 - h^2 and d slope / d input of tanh = -2 h slope.
            let by_slope = (&by_jacobian * linear).sum_axis(Axis(0));
            let mut by_linear = by_h;
            for ((by, h), by_slope) in by_linear.iter_mut().zip(h).zip(&by_slope) {
                *by = (*by - 2.0 * h * by_slope) * (1.0 - h * h);
            }
            by_h = weights[l].dot(&by_linear);
            if l > 0 {
                by_jacobian = (by_jacobian * &h.mapv(|h| 1.0 - h * h)).dot(&weights[l].t());
            }
        }
        (value, by_h.slice(s![..inputs]).to_owned())
    }
}
