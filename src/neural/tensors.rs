//! The parameters of a network: numbers on the host, and tensors made of them.

use crate::random::{Stream, standard_normals};
use burn_tensor::{Device, Tensor, TensorData};

/// A matrix of parameters, and how it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    /// Rows and columns.
    pub shape: [usize; 2],
    /// The deviation of its numbers at the start; 0 for a matrix of zeros.
    pub std: f64,
    /// What an optimiser's step is counted in.
    pub unit: f64,
}

impl Matrix {
    /// Numbers in it.
    pub fn len(&self) -> usize {
        self.shape[0] * self.shape[1]
    }
}

/// What the matrices start from, one after the other, by a seed's stream of weights.
pub(crate) fn initial(matrices: &[Matrix], seed: u64) -> Vec<f64> {
    let one = |(k, matrix): (usize, &Matrix)| {
        let normals = standard_normals(seed, Stream::Weights, k as u32, 0..matrix.shape[0], matrix.shape[1]);
        normals.into_iter().map(|z| matrix.std * z).collect::<Vec<_>>()
    };
    matrices.iter().enumerate().flat_map(one).collect()
}

/// What a step of each number of the matrices is counted in.
pub(crate) fn units(matrices: &[Matrix]) -> Vec<f64> {
    matrices.iter().flat_map(|m| vec![m.unit; m.len()]).collect()
}

/// The tensors of the matrices, from as many numbers.
pub(crate) fn tensors(matrices: &[Matrix], numbers: &[f64]) -> Vec<Tensor<2>> {
    let mut numbers = numbers.iter().map(|v| *v as f32);
    let one = |m: &Matrix| tensor(numbers.by_ref().take(m.len()).collect(), m.shape, &Device::flex());
    matrices.iter().map(one).collect()
}

/// The same as leaves, whose gradients can be asked for.
pub(crate) fn leaves(matrices: &[Matrix], numbers: &[f64]) -> Vec<Tensor<2>> {
    tensors(matrices, numbers).into_iter().map(|w| Tensor::from_inner(w).require_grad()).collect()
}

/// The gradients of a number with respect to leaves, one after the other.
pub(crate) fn gradients(of: &Tensor<1>, leaves: &[Tensor<2>]) -> Vec<f64> {
    let mut all = of.backward();
    let one = |leaf: &Tensor<2>| numbers(leaf.grad_remove(&mut all).expect("a leaf that it was made of"));
    leaves.iter().flat_map(one).map(f64::from).collect()
}

/// A tensor of numbers, row by row.
pub(crate) fn tensor<const D: usize>(numbers: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(numbers, shape), device)
}

/// A tensor's numbers, row by row.
pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("tensors of f32")
}
