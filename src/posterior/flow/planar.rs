//! Planar layers (Rezende & Mohamed 2015): f(x) = x + u_hat tanh(w'x + b), u_hat = u + (m(w'u) - w'u) w / |w|^2 with
//! m(x) = softplus(x) - 1 > -1, which keeps every layer invertible.
//!
//! The identity is u = ln(e - 1) w / |w|^2; u = 0 is not, for m(0) = -0.307. There is no closed inverse: a = w'x + b solves
//! a + m(w'u) tanh(a) = w'f + b, a scalar equation with a growing left-hand side.

use super::layers::{Mapped, Tape};
use crate::neural::Matrix;
use ndarray::{Array1, Array2, ArrayView1};

/// Steps of the solver. Each halves the bracket where Newton's method leaves it.
const STEPS: usize = 100;

/// A stack of planar layers, the parameters of each w, u and b.
#[derive(Clone, Debug)]
pub(super) struct Planar {
    layers: usize,
    sites: usize,
}

/// Planar layers with the numbers of one problem.
pub(super) struct Ready {
    layers: Vec<Layer>,
}

struct Layer {
    w: Array1<f64>,
    u: Array1<f64>,
    b: f64,
    u_hat: Array1<f64>,
    /// w'u_hat = m(w'u)
    bend: f64,
}

impl Planar {
    pub fn new(layers: usize, sites: usize) -> Self {
        Self { layers, sites }
    }

    pub fn matrices(&self) -> Vec<Matrix> {
        let std = (1.0 / self.sites as f64).sqrt();
        let row = Matrix { shape: [1, self.sites], std, unit: std };
        (0..self.layers).flat_map(|_| [row, row, Matrix { shape: [1, 1], std: 1.0, unit: 1.0 }]).collect()
    }

    pub fn make_identity(&self, parameters: &mut [f64]) {
        for layer in parameters.chunks_exact_mut(2 * self.sites + 1) {
            let (w, u) = layer.split_at_mut(self.sites);
            let square: f64 = w.iter().map(|w| w * w).sum();
            u.iter_mut().zip(w).for_each(|(u, w)| *u = (1f64.exp() - 1.0).ln() * *w / square);
        }
    }

    pub fn ready(&self, parameters: &[f64]) -> Ready {
        Ready { layers: parameters.chunks_exact(2 * self.sites + 1).map(Layer::new).collect() }
    }
}

impl Layer {
    fn new(parameters: &[f64]) -> Self {
        let n = parameters.len() / 2;
        let (w, u) = (ArrayView1::from(&parameters[..n]), ArrayView1::from(&parameters[n..2 * n]));
        let (product, square) = (w.dot(&u), w.dot(&w));
        let bend = product.max(0.0) + (-product.abs()).exp().ln_1p() - 1.0;
        let u_hat = &u + &w * ((bend - product) / square);
        Self { w: w.to_owned(), u: u.to_owned(), b: parameters[2 * n], u_hat, bend }
    }

    /// tanh(w'x + b) and |det f'| = 1 + w'u_hat tanh'.
    fn at(&self, x: ArrayView1<f64>) -> (f64, f64) {
        let t = (self.w.dot(&x) + self.b).tanh();
        (t, 1.0 + (1.0 - t * t) * self.bend)
    }

    fn advance(&self, mapped: &mut Mapped) {
        for (mut row, log_det) in mapped.rows.outer_iter_mut().zip(&mut mapped.log_det) {
            let (t, det) = self.at(row.view());
            row.scaled_add(t, &self.u_hat);
            *log_det += det.ln();
        }
    }

    /// The scores behind the layer of rows before it: f'^-T = I - tanh' w u_hat' / |det f'|.
    fn advance_score(&self, before: &Array2<f64>, score: &mut Array2<f64>) {
        for (x, mut score) in before.outer_iter().zip(score.outer_iter_mut()) {
            let (t, det) = self.at(x);
            let slope = 1.0 - t * t;
            score.scaled_add(2.0 * t * slope * self.bend / det, &self.w);
            let along = score.dot(&self.u_hat);
            score.scaled_add(-slope * along / det, &self.w);
        }
    }

    /// From the gradients with respect to f (which become those with respect to x) and log |det| of each row to those with
    /// respect to w, u and b.
    fn pull_back(&self, before: &Array2<f64>, by_rows: &mut Array2<f64>, by_log_det: &Array1<f64>) -> Vec<f64> {
        let n = self.w.len();
        let (mut by_w, mut by_u_hat) = (Array1::<f64>::zeros(n), Array1::<f64>::zeros(n));
        let (mut by_b, mut by_bend) = (0.0, 0.0);
        for ((x, mut by), by_log_det) in before.outer_iter().zip(by_rows.outer_iter_mut()).zip(by_log_det) {
            let (t, det) = self.at(x);
            let by_det = by_log_det / det;
            let by_t = by.dot(&self.u_hat) - 2.0 * t * self.bend * by_det;
            let by_a = by_t * (1.0 - t * t);
            by_bend += by_det * (1.0 - t * t);
            by_b += by_a;
            by_u_hat.scaled_add(t, &by);
            by_w.scaled_add(by_a, &x);
            by.scaled_add(by_a, &self.w);
        }
        // u_hat = u + k w with k = (m(p) - p) / |w|^2, p = w'u.
        let (product, square) = (self.w.dot(&self.u), self.w.dot(&self.w));
        let k = (self.bend - product) / square;
        let by_k = by_u_hat.dot(&self.w);
        by_bend += by_k / square;
        let by_product = by_bend / (1.0 + (-product).exp()) - by_k / square;
        by_w.scaled_add(k, &by_u_hat);
        by_w.scaled_add(-2.0 * by_k * k / square, &self.w);
        by_w.scaled_add(by_product, &self.u);
        let by_u = by_u_hat + by_product * &self.w;
        by_w.into_iter().chain(by_u).chain([by_b]).collect()
    }
}

impl Ready {
    pub fn forward(&self, eps: Array2<f64>) -> Mapped {
        let mut mapped = Mapped::start(eps);
        self.layers.iter().for_each(|layer| layer.advance(&mut mapped));
        mapped
    }

    pub fn inverse(&self, z: Array2<f64>) -> Mapped {
        let mut mapped = Mapped::start(z);
        for layer in self.layers.iter().rev() {
            for (mut row, log_det) in mapped.rows.outer_iter_mut().zip(&mut mapped.log_det) {
                let t = solve(layer.bend, layer.w.dot(&row) + layer.b).tanh();
                row.scaled_add(-t, &layer.u_hat);
                *log_det += ((1.0 - t * t) * layer.bend).ln_1p();
            }
        }
        mapped
    }

    pub fn record(&self, eps: Array2<f64>, scored: bool) -> Tape {
        let mut score = scored.then(|| -&eps);
        let mut z = Mapped::start(eps);
        let mut before = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            before.push(z.rows.clone());
            if let Some(score) = &mut score {
                layer.advance_score(&z.rows, score);
            }
            layer.advance(&mut z);
        }
        Tape { z, before, score }
    }

    pub fn pull_back(&self, before: &[Array2<f64>], by_z: Array2<f64>, by_log_det: &Array1<f64>) -> Vec<f64> {
        let mut by_rows = by_z;
        let layers = self.layers.iter().zip(before).rev();
        let own: Vec<_> = layers.map(|(layer, before)| layer.pull_back(before, &mut by_rows, by_log_det)).collect();
        own.into_iter().rev().flatten().collect()
    }
}

/// The root of a + bend tanh(a) = right for bend > -1, by Newton's method between bounds that it may not leave.
fn solve(bend: f64, right: f64) -> f64 {
    let (mut low, mut high) = (right - bend.abs(), right + bend.abs());
    let mut a = right;
    for _ in 0..STEPS {
        let t = a.tanh();
        let residual = a + bend * t - right;
        if residual > 0.0 {
            high = a;
        } else {
            low = a;
        }
        let newton = a - residual / (1.0 + bend * (1.0 - t * t));
        let next = if newton > low && newton < high { newton } else { 0.5 * (low + high) };
        if (next - a).abs() <= 1e-15 * (1.0 + a.abs()) {
            return next;
        }
        a = next;
    }
    a
}

#[cfg(test)]
mod tests {
    use super::solve;

    #[test]
    fn the_scalar_equation_is_solved_wherever_it_bends() {
        for bend in [-0.999_999, -0.9, -0.3, 0.0, 0.5, 3.0, 40.0] {
            for a in [-30.0, -2.0, -0.3, -1e-3, 0.0, 0.1, 1.0, 7.0] {
                let right: f64 = a + bend * f64::tanh(a);
                let found = solve(bend, right);
                assert!(
                    (found + bend * found.tanh() - right).abs() < 1e-12 * (1.0 + right.abs()),
                    "{bend} {a} {found}"
                );
            }
        }
    }
}
