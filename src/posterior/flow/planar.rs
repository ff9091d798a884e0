//! Planar layers (Rezende & Mohamed 2015): f(z) = z + u_hat tanh(w'z + b), u_hat = u + (m(w'u) - w'u) w / |w|^2 with
//! m(x) = softplus(x) - 1 > -1, which keeps every layer invertible.
//!
//! The identity is u = ln(e - 1) w / |w|^2; u = 0 is not, for m(0) = -0.307. There is no closed inverse: a = w'z + b solves
//! a + m(w'u) tanh(a) = w'f + b, a scalar equation with a growing left-hand side.

use super::layers::{Mapped, Matrix};
use burn_tensor::activation::softplus;
use burn_tensor::{Tensor, TensorData};

/// Steps of the solver. Each halves the bracket where Newton's method leaves it.
const STEPS: usize = 100;

/// A stack of planar layers, the parameters of each w, u and b.
#[derive(Clone, Debug)]
pub(super) struct Planar {
    layers: usize,
    sites: usize,
}

/// One layer's numbers.
struct Layer {
    /// `[1, n]`
    w: Tensor<2>,
    /// `[1, n]`
    u_hat: Tensor<2>,
    /// w'u_hat = m(w'u): `[1, 1]`.
    bend: Tensor<2>,
    /// `[1, 1]`
    b: Tensor<2>,
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

    pub fn forward(&self, parameters: &[Tensor<2>], eps: Tensor<2>) -> Mapped {
        let mut z = eps;
        let mut log_det = None;
        for layer in parameters.chunks_exact(3).map(Layer::new) {
            let t = layer.project(z.clone()).tanh();
            log_det = Some(layer.log_det(t.clone(), log_det));
            z = z + t.matmul(layer.u_hat);
        }
        Mapped { rows: z, log_det: log_det.expect("a layer") }
    }

    pub fn inverse(&self, parameters: &[Tensor<2>], z: Tensor<2>) -> Mapped {
        let mut eps = z;
        let mut log_det = None;
        for layer in parameters.chunks_exact(3).rev().map(Layer::new) {
            let t = layer.solve(layer.project(eps.clone())).tanh();
            log_det = Some(layer.log_det(t.clone(), log_det));
            eps = eps - t.matmul(layer.u_hat);
        }
        Mapped { rows: eps, log_det: log_det.expect("a layer") }
    }
}

impl Layer {
    fn new(parameters: &[Tensor<2>]) -> Self {
        let [w, u, b] = [0, 1, 2].map(|k| parameters[k].clone());
        let product = (w.clone() * u.clone()).sum_dim(1);
        let square = w.clone().powi_scalar(2).sum_dim(1);
        let bend = softplus(product.clone(), 1.0) - 1.0;
        let u_hat = u + w.clone() * ((bend.clone() - product) / square);
        Self { w, u_hat, bend, b }
    }

    /// w'z + b: `[rows, 1]`.
    fn project(&self, z: Tensor<2>) -> Tensor<2> {
        z.matmul(self.w.clone().transpose()) + self.b.clone()
    }

    /// log(1 + w'u_hat tanh'), added to what was before.
    fn log_det(&self, t: Tensor<2>, before: Option<Tensor<2>>) -> Tensor<2> {
        let own = ((t.powi_scalar(2).neg() + 1.0) * self.bend.clone() + 1.0).log();
        match before {
            None => own,
            Some(before) => before + own,
        }
    }

    /// The a with a + bend tanh(a) = right: `[rows, 1]`. Found in f64; one Newton step more within the graph has the
    /// derivative of the solution.
    fn solve(&self, right: Tensor<2>) -> Tensor<2> {
        let shape = right.dims();
        let device = right.device();
        let bend = f64::from(values(&self.bend)[0]);
        let roots: Vec<f32> = values(&right).into_iter().map(|r| solve(bend, f64::from(r)) as f32).collect();
        let slopes: Vec<f32> =
            roots.iter().map(|a| (1.0 + bend * (1.0 - f64::from(a.tanh()).powi(2))).max(1e-6) as f32).collect();
        let [roots, slopes] = [roots, slopes].map(|v| Tensor::<2>::from_data(TensorData::new(v, shape), &device));
        let residual = roots.clone() + roots.clone().tanh() * self.bend.clone() - right;
        roots - residual / slopes
    }
}

/// A tensor's numbers.
fn values(tensor: &Tensor<2>) -> Vec<f32> {
    tensor.to_data().try_to_vec().expect("tensors of f32")
}

/// The root of a + bend tanh(a) = right for bend > -1, by Newton's method between bounds that it may not leave.
fn solve(bend: f64, right: f64) -> f64 {
    if !right.is_finite() {
        return right;
    }
    let (mut low, mut high) = (right - bend.abs(), right + bend.abs());
    let mut a = right.clamp(low, high);
    for _ in 0..STEPS {
        let t = a.tanh();
        let residual = a + bend * t - right;
        if residual > 0.0 {
            high = a
        } else {
            low = a
        }
        let newton = a - residual / (1.0 + bend * (1.0 - t * t));
        let next = if newton > low && newton < high { newton } else { 0.5 * (low + high) };
        if (next - a).abs() <= 1e-14 * (1.0 + a.abs()) {
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
