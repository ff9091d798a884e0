//! Dense networks: hidden layers of one width, and a linear one behind them.

use super::{Matrix, numbers, tensor};
use burn_tensor::activation::{relu, softplus};
use burn_tensor::{Device, Tensor};

/// What bends a hidden layer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Activation {
    Relu,
    /// log(1 + e^x): smooth, and with tails of any slope.
    Softplus,
}

impl Activation {
    pub(super) fn of<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Relu => relu(x),
            Self::Softplus => softplus(x, 1.0),
        }
    }
}

/// A network's shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dense {
    pub inputs: usize,
    pub width: usize,
    pub hidden: usize,
    pub outputs: usize,
    pub activation: Activation,
    /// The deviation of the outputs at the start, for inputs of deviation 1; 0 for a network that says nothing.
    pub gain: f64,
}

/// A network that has been run, for the way back.
pub(crate) struct Run {
    weights: Vec<Tensor<2>>,
    input: Tensor<2>,
    output: Tensor<2>,
}

impl Dense {
    /// Weights and bias of each layer, started such that a layer keeps the size of what it is given: after He et al.
    /// (2015).
    pub fn matrices(&self) -> Vec<Matrix> {
        let mut matrices = Vec::new();
        let mut inputs = self.inputs;
        for _ in 0..self.hidden {
            let std = (2.0 / inputs as f64).sqrt();
            matrices.push(Matrix { shape: [inputs, self.width], std, unit: std });
            matrices.push(Matrix { shape: [1, self.width], std: 0.0, unit: std });
            inputs = self.width;
        }
        let unit = (1.0 / inputs as f64).sqrt();
        matrices.push(Matrix { shape: [inputs, self.outputs], std: self.gain * unit, unit });
        matrices.push(Matrix { shape: [1, self.outputs], std: 0.0, unit });
        matrices
    }

    /// Inputs to outputs: `[rows, inputs]` to `[rows, outputs]`. `weights`: the tensors of [`Self::matrices`].
    pub fn evaluate(&self, weights: &[Tensor<2>], input: Tensor<2>) -> Tensor<2> {
        weights.chunks_exact(2).enumerate().fold(input, |x, (k, pair)| {
            let linear = x.matmul(pair[0].clone()) + pair[1].clone();
            if k == self.hidden { linear } else { self.activation.of(linear) }
        })
    }

    /// Inputs to outputs, row by row: `[rows, inputs]` to `[rows, outputs]`.
    pub fn outputs(&self, weights: &[Tensor<2>], inputs: Vec<f32>) -> Vec<f32> {
        let rows = inputs.len() / self.inputs;
        numbers(self.evaluate(weights, tensor(inputs, [rows, self.inputs], &Device::flex())))
    }

    /// The same for a way back to the inputs and, if `to_weights`, to the weights.
    pub fn run(&self, weights: &[Tensor<2>], inputs: Vec<f32>, to_weights: bool) -> (Vec<f32>, Run) {
        let rows = inputs.len() / self.inputs;
        let input = tensor(inputs, [rows, self.inputs], &Device::flex().autodiff()).require_grad();
        let own = |w: &Tensor<2>| Tensor::from_inner(w.clone());
        let weights: Vec<_> = weights.iter().map(|w| if to_weights { own(w).require_grad() } else { own(w) }).collect();
        let output = self.evaluate(&weights, input.clone());
        (numbers(output.clone().inner()), Run { weights: if to_weights { weights } else { Vec::new() }, input, output })
    }
}

impl Run {
    /// From the gradient with respect to the outputs to those with respect to the inputs and, one after the other, the
    /// weights.
    pub fn pull_back(self, by_outputs: Vec<f32>) -> (Vec<f32>, Vec<f32>) {
        let by_outputs = tensor(by_outputs, self.output.dims(), &self.output.device());
        let mut gradients = (self.output * by_outputs).sum().backward();
        let mut own = |leaf: &Tensor<2>| numbers(leaf.grad_remove(&mut gradients).expect("a leaf of the network"));
        (own(&self.input), self.weights.iter().flat_map(own).collect())
    }
}
