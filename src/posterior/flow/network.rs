//! The networks of couplings: hidden layers with ReLU, in f32.

use super::FlowSettings;
use super::layers::Matrix;
use burn_tensor::activation::relu;
use burn_tensor::{Device, Tensor, TensorData};

/// A network's shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network {
    inputs: usize,
    width: usize,
    hidden: usize,
    outputs: usize,
}

/// A network that has been run, for the way back.
pub(super) struct Run {
    weights: Vec<Tensor<2>>,
    input: Tensor<2>,
    output: Tensor<2>,
}

impl Network {
    pub fn new(inputs: usize, settings: &FlowSettings, outputs: usize) -> Self {
        Self { inputs, width: settings.width, hidden: settings.hidden, outputs }
    }

    /// Weights and bias of each layer: the hidden ones as He et al. (2015) start them, the last one zero.
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
        matrices.push(Matrix { shape: [inputs, self.outputs], std: 0.0, unit });
        matrices.push(Matrix { shape: [1, self.outputs], std: 0.0, unit });
        matrices
    }

    /// The tensors of [`Self::matrices`], from as many numbers.
    pub fn weights(&self, numbers: &[f64]) -> Vec<Tensor<2>> {
        let mut numbers = numbers.iter().map(|v| *v as f32);
        let tensor = |m: Matrix| tensor(numbers.by_ref().take(m.len()).collect(), m.shape, &Device::flex());
        self.matrices().into_iter().map(tensor).collect()
    }

    /// Inputs to outputs, row by row: `[rows, inputs]` to `[rows, outputs]`.
    pub fn outputs(&self, weights: &[Tensor<2>], inputs: Vec<f32>) -> Vec<f32> {
        let rows = inputs.len() / self.inputs;
        numbers(evaluate(weights, tensor(inputs, [rows, self.inputs], &Device::flex())))
    }

    /// The same for a way back to the inputs and, if `to_weights`, to the weights.
    pub fn run(&self, weights: &[Tensor<2>], inputs: Vec<f32>, to_weights: bool) -> (Vec<f32>, Run) {
        let rows = inputs.len() / self.inputs;
        let input = tensor(inputs, [rows, self.inputs], &Device::flex().autodiff()).require_grad();
        let own = |w: &Tensor<2>| Tensor::from_inner(w.clone());
        let weights: Vec<_> = weights.iter().map(|w| if to_weights { own(w).require_grad() } else { own(w) }).collect();
        let output = evaluate(&weights, input.clone());
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

fn evaluate(weights: &[Tensor<2>], input: Tensor<2>) -> Tensor<2> {
    let last = weights.len() / 2 - 1;
    weights.chunks_exact(2).enumerate().fold(input, |x, (k, pair)| {
        let linear = x.matmul(pair[0].clone()) + pair[1].clone();
        if k < last { relu(linear) } else { linear }
    })
}

fn tensor(numbers: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(numbers, shape), device)
}

fn numbers(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("tensors of f32")
}
