//! Convolutional networks over a ring of sites: turning the ring turns what comes out, for any number of sites.

use super::{Activation, Matrix};
use burn_tensor::Tensor;

/// A network's shape: layers of one width, the second and later ones added to what they are given (He et al. 2016) if it is
/// residual, and a linear layer at each site behind them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Convolution {
    /// Channels at each site.
    pub inputs: usize,
    pub width: usize,
    /// Layers before the last, at least 1.
    pub hidden: usize,
    pub outputs: usize,
    /// Sites on either side that a layer sees.
    pub radius: usize,
    pub residual: bool,
    pub activation: Activation,
    /// The deviation of the outputs at the start, for inputs of deviation 1; 0 for a network that says nothing.
    pub gain: f64,
}

impl Convolution {
    /// Weights and bias of each layer. A layer's weights have a row for each channel of each site that it sees, from the
    /// leftmost site to the rightmost.
    pub fn matrices(&self) -> Vec<Matrix> {
        let mut matrices = Vec::new();
        let mut inputs = self.inputs;
        for layer in 0..self.hidden {
            let rows = (2 * self.radius + 1) * inputs;
            // What is added to its input is kept small, so that the sum keeps about its size.
            let share = if layer == 0 || !self.residual { 1.0 } else { self.hidden as f64 };
            let std = (2.0 / (rows as f64 * share)).sqrt();
            matrices.push(Matrix { shape: [rows, self.width], std, unit: std });
            matrices.push(Matrix { shape: [1, self.width], std: 0.0, unit: std });
            inputs = self.width;
        }
        let unit = (1.0 / inputs as f64).sqrt();
        matrices.push(Matrix { shape: [inputs, self.outputs], std: self.gain * unit, unit });
        matrices.push(Matrix { shape: [1, self.outputs], std: 0.0, unit });
        matrices
    }

    /// Inputs to outputs: `[rows, sites * inputs]` to `[rows, sites * outputs]`, channels fastest. `weights`: the tensors of
    /// [`Self::matrices`].
    pub fn evaluate(&self, weights: &[Tensor<2>], input: Tensor<2>) -> Tensor<2> {
        let [rows, numbers] = input.dims();
        let sites = numbers / self.inputs;
        let mut x = input.reshape([rows, sites, self.inputs]);
        for (layer, pair) in weights.chunks_exact(2).enumerate() {
            let linear = |seen: Tensor<3>| {
                let [_, _, channels] = seen.dims();
                let sum = seen.reshape([rows * sites, channels]).matmul(pair[0].clone()) + pair[1].clone();
                let [_, channels] = sum.dims();
                sum.reshape([rows, sites, channels])
            };
            x = match layer {
                _ if layer == self.hidden => linear(x),
                0 => self.activation.of(linear(neighbours(x, self.radius))),
                _ => {
                    let own = self.activation.of(linear(neighbours(x.clone(), self.radius)));
                    if self.residual { x + own } else { own }
                }
            };
        }
        x.reshape([rows, sites * self.outputs])
    }
}

/// The channels of the sites around each site of a ring: `[rows, sites, channels]` to `[rows, sites, (2 radius + 1) channels]`.
fn neighbours(x: Tensor<3>, radius: usize) -> Tensor<3> {
    if radius == 0 {
        return x;
    }
    let [_, sites, _] = x.dims();
    let ends = [x.clone().narrow(1, sites - radius, radius), x.clone().narrow(1, 0, radius)];
    let [left, right] = ends;
    let open = Tensor::cat(vec![left, x, right], 1);
    Tensor::cat((0..=2 * radius).map(|k| open.clone().narrow(1, k, sites)).collect(), 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neural::{initial, leaves, numbers, tensor, tensors};
    use burn_tensor::Device;

    fn network() -> Convolution {
        Convolution {
            inputs: 3,
            width: 5,
            hidden: 3,
            outputs: 2,
            radius: 2,
            residual: true,
            activation: Activation::Relu,
            gain: 1.0,
        }
    }

    fn inputs(rows: usize, sites: usize) -> Vec<f32> {
        (0..rows * sites * 3).map(|k| (0.7 * k as f32).sin()).collect()
    }

    /// The same by loops over sites, neighbours and channels.
    fn plain(net: &Convolution, weights: &[f64], input: &[f32], sites: usize) -> Vec<f64> {
        let mut at = 0;
        let mut take = |n: usize| {
            at += n;
            &weights[at - n..at]
        };
        let mut x: Vec<Vec<f64>> =
            input.chunks(net.inputs).map(|c| c.iter().map(|v| f64::from(*v)).collect()).collect();
        for layer in 0..=net.hidden {
            let (radius, out) = if layer == net.hidden { (0, net.outputs) } else { (net.radius, net.width) };
            let channels = x[0].len();
            let w = take((2 * radius + 1) * channels * out).to_vec();
            let b = take(out).to_vec();
            let mut next = vec![vec![0.0; out]; sites];
            for i in 0..sites {
                for o in 0..out {
                    let mut sum = b[o];
                    for k in 0..=2 * radius {
                        for c in 0..channels {
                            sum += w[(k * channels + c) * out + o] * x[(i + sites + k - radius) % sites][c];
                        }
                    }
                    next[i][o] = match layer {
                        0 => sum.max(0.0),
                        _ if layer == net.hidden => sum,
                        _ => x[i][o] + sum.max(0.0),
                    };
                }
            }
            x = next;
        }
        x.concat()
    }

    #[test]
    fn a_convolution_is_a_sum_over_the_neighbours_on_the_ring() {
        let net = network();
        let weights = initial(&net.matrices(), 3);
        for sites in [5, 8] {
            let input = inputs(2, sites);
            let ready = tensors(&net.matrices(), &weights);
            let found = numbers(net.evaluate(&ready, tensor(input.clone(), [2, 3 * sites], &Device::flex())));
            for (row, found) in input.chunks(3 * sites).zip(found.chunks(2 * sites)) {
                let want = plain(&net, &weights, row, sites);
                assert!(want.iter().any(|v| v.abs() > 0.1), "a test of zeros");
                assert!(found.iter().zip(&want).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5), "{found:?}\n{want:?}");
            }
        }
    }

    #[test]
    fn turning_the_ring_turns_what_comes_out() {
        let (net, sites, turn) = (network(), 9, 4);
        let ready = tensors(&net.matrices(), &initial(&net.matrices(), 3));
        let outputs = |input: Vec<f32>| numbers(net.evaluate(&ready, tensor(input, [1, 3 * sites], &Device::flex())));
        let mut turned = inputs(1, sites);
        turned.rotate_left(3 * turn);
        let mut want = outputs(inputs(1, sites));
        want.rotate_left(2 * turn);
        let found = outputs(turned);
        assert!(found.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}\n{want:?}");
    }

    #[test]
    fn gradients_of_weights_are_differences() {
        let (net, sites) = (network(), 6);
        let weights = initial(&net.matrices(), 3);
        let input = || tensor(inputs(2, sites), [2, 3 * sites], &Device::flex().autodiff());
        let ready = leaves(&net.matrices(), &weights);
        let out = net.evaluate(&ready, input());
        let gradient = crate::neural::gradients(&(out.clone() * out).sum(), &ready);
        let loss = |weights: &[f64]| -> f64 {
            inputs(2, sites).chunks(3 * sites).flat_map(|row| plain(&net, weights, row, sites)).map(|v| v * v).sum()
        };
        for k in (0..weights.len()).step_by(7) {
            let moved = |by: f64| {
                let mut weights = weights.clone();
                weights[k] += by;
                loss(&weights)
            };
            let want = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((gradient[k] - want).abs() < 1e-3 * want.abs().max(1.0), "{k}: {} {want}", gradient[k]);
        }
    }
}
