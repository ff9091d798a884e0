//! A flow of each of P problems: drawn from, weighed, and pulled back through.

use super::FlowSettings;
use super::layers::{Layers, Mapped, Matrix};
use crate::error::{Error, Result};
use crate::posterior::{Draws, Estimator, Family, Normal, Posterior};
use crate::random::{Stream, standard_normals};
use burn_tensor::{Device, Tensor, TensorData};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut1, Axis, concatenate, s};
use rayon::prelude::*;
use std::ops::Range;

/// Rows that pass through the layers at a time.
const ROWS: usize = 1024;

/// One flow for each of P problems.
#[derive(Clone, Debug)]
pub struct Flow {
    layers: Layers,
    matrices: Vec<Matrix>,
    /// N(m, S S'), from which it starts: `[P]`.
    base: Vec<Normal>,
    /// The layers' parameters: `[P, parameters]`.
    theta: Array2<f64>,
}

/// Rows of one problem behind the layers, with what the way back needs.
pub(crate) struct Pass {
    parameters: Vec<Tensor<2>>,
    mapped: Mapped,
}

impl Flow {
    /// The flow of a family that is `base`, one Gaussian for each problem. Its networks start from the streams of
    /// `seeds`.
    ///
    /// # Errors
    /// A family that is no flow, settings that cannot work, fewer than two sites, or not one seed for each problem.
    pub fn new(family: Family, settings: &FlowSettings, base: Vec<Normal>, seeds: &[u64]) -> Result<Self> {
        settings.check()?;
        let n = base.first().map_or(0, |q| q.mean().len());
        if n < 2 || base.iter().any(|q| q.mean().len() != n) {
            let expected = "Gaussians of two sites or more, of the same for each problem";
            return Err(Error::invalid("start of a flow", expected, n.to_string(), "use a Gaussian family"));
        }
        if base.len() != seeds.len() {
            let (expected, found) = (base.len().to_string(), seeds.len().to_string());
            return Err(Error::invalid("seeds of a flow", expected, found, "give one for each problem"));
        }
        let Some(layers) = Layers::new(family, settings, n) else {
            let help = "choose one of them, or fit the family as it is";
            return Err(Error::invalid("family of a flow", "realnvp, planar or spline", family.name(), help));
        };
        let matrices = layers.matrices();
        let count = matrices.iter().map(Matrix::len).sum();
        let mut theta = Array2::zeros((base.len(), count));
        for (mut row, seed) in theta.outer_iter_mut().zip(seeds) {
            let row = row.as_slice_mut().expect("theta is contiguous");
            let mut first = 0;
            for (k, matrix) in matrices.iter().enumerate() {
                let numbers = standard_normals(*seed, Stream::Weights, k as u32, 0..matrix.shape[0], matrix.shape[1]);
                row[first..].iter_mut().zip(&numbers).for_each(|(weight, z)| *weight = matrix.std * z);
                first += matrix.len();
            }
            layers.make_identity(row);
        }
        Ok(Self { layers, matrices, base, theta })
    }

    /// The parameters of problem `p`: `[parameters]`.
    pub fn row(&self, p: usize) -> ArrayView1<'_, f64> {
        self.theta.row(p)
    }

    /// The parameters of problem `p`, to be changed: `[parameters]`.
    pub fn row_mut(&mut self, p: usize) -> ArrayViewMut1<'_, f64> {
        self.theta.row_mut(p)
    }

    /// All parameters, problem by problem: `[P * parameters]`.
    pub(crate) fn parameters(&mut self) -> &mut [f64] {
        self.theta.as_slice_mut().expect("theta is contiguous")
    }

    /// What a step of each parameter is counted in, for weights the deviation of what they started from:
    /// `[parameters]`.
    pub fn units(&self) -> Vec<f64> {
        self.matrices.iter().flat_map(|m| vec![m.unit; m.len()]).collect()
    }

    /// Problem `p`'s parameters for the layers.
    fn tensors(&self, p: usize, device: &Device) -> Vec<Tensor<2>> {
        let row = self.theta.row(p);
        let mut numbers = row.iter().map(|v| *v as f32);
        let tensor = |m: &Matrix| {
            let own: Vec<f32> = numbers.by_ref().take(m.len()).collect();
            Tensor::from_data(TensorData::new(own, m.shape), device)
        };
        self.matrices.iter().map(tensor).collect()
    }

    /// Rows through the layers on all threads: their images, and log |det| at each.
    fn through(
        &self,
        p: usize,
        rows: ArrayView2<f64>,
        way: impl Fn(&Layers, &[Tensor<2>], Tensor<2>) -> Mapped + Sync,
    ) -> (Array2<f64>, Array1<f64>) {
        let device = Device::flex();
        let parameters = self.tensors(p, &device);
        let parts: Vec<_> = (0..rows.nrows())
            .into_par_iter()
            .step_by(ROWS)
            .map(|first| {
                let part = rows.slice(s![first..(first + ROWS).min(rows.nrows()), ..]);
                let mapped = way(&self.layers, &parameters, tensor(part, &device));
                (array(mapped.rows), array(mapped.log_det).remove_axis(Axis(1)))
            })
            .collect();
        let (images, log_dets): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        if images.is_empty() {
            return (rows.to_owned(), Array1::zeros(0));
        }
        let views: Vec<_> = images.iter().map(|part| part.view()).collect();
        let log_det_views: Vec<_> = log_dets.iter().map(|part| part.view()).collect();
        let join = "parts of one width";
        (concatenate(Axis(0), &views).expect(join), concatenate(Axis(0), &log_det_views).expect(join))
    }

    /// Standard normals of problem `p` through the layers, in a way that can be gone back: `[rows, control]`.
    pub(crate) fn pass(&self, p: usize, normals: &Array2<f64>) -> (Pass, Draws) {
        let device = Device::flex().autodiff();
        let parameters: Vec<_> = self.tensors(p, &device).into_iter().map(Tensor::require_grad).collect();
        let mapped = self.layers.forward(&parameters, tensor(normals.view(), &device));
        let log_det = array(mapped.log_det.clone()).remove_axis(Axis(1));
        let draws = Draws {
            states: self.base[p].map(array(mapped.rows.clone())),
            log_density: self.base[p].log_density_of(normals) - log_det,
        };
        (Pass { parameters, mapped }, draws)
    }

    /// The gradient of -ELBO with respect to problem `p`'s parameters, as a sum over the rows of a pass that are `kept`.
    /// `gradient`: dJ/dx0 of each row, `[rows, control]`.
    ///
    /// Plain: of J(x) - log |det|. Path: of J(x) + log q(x), the q fixed (Roeder, Wu & Duvenaud 2017), whose gradient with
    /// respect to z is found on the way back through the layers (as Agrawal & Domke 2024 do).
    pub(crate) fn pull_back(
        &self,
        p: usize,
        pass: Pass,
        gradient: ArrayView2<f64>,
        kept: &[bool],
        estimator: Estimator,
    ) -> Vec<f64> {
        let Pass { parameters, mapped } = pass;
        let device = mapped.rows.device();
        let mut by_z = self.base[p].pull_back(gradient);
        if estimator == Estimator::Path {
            by_z += &self.score(p, &mapped.rows);
        }
        for (mut row, _) in by_z.outer_iter_mut().zip(kept).filter(|(_, kept)| !**kept) {
            row.fill(0.0);
        }
        let mut loss = (mapped.rows * tensor(by_z.view(), &device)).sum();
        if estimator == Estimator::Plain {
            let weights: Vec<f32> = kept.iter().map(|kept| f32::from(*kept)).collect();
            let weights = Tensor::<2>::from_data(TensorData::new(weights, [kept.len(), 1]), &device);
            loss = loss - (mapped.log_det * weights).sum();
        }
        let mut gradients = loss.backward();
        let own = |(parameter, matrix): (&Tensor<2>, &Matrix)| match parameter.grad_remove(&mut gradients) {
            Some(gradient) => numbers(gradient),
            None => vec![0.0; matrix.len()],
        };
        parameters.iter().zip(&self.matrices).flat_map(own).map(f64::from).collect()
    }

    /// d log q/dz of each row, q taken as it is: `[rows, control]`.
    fn score(&self, p: usize, z: &Tensor<2>) -> Array2<f64> {
        let device = Device::flex().autodiff();
        let z = Tensor::<2>::from_data(z.to_data(), &device).require_grad();
        let back = self.layers.inverse(&self.tensors(p, &device), z.clone());
        let log_q = (back.rows.clone() * back.rows).sum() * -0.5 - back.log_det.sum();
        array(z.grad(&log_q.backward()).expect("log q depends on z"))
    }
}

impl Posterior for Flow {
    fn problems(&self) -> usize {
        self.base.len()
    }

    fn control(&self) -> usize {
        self.base[0].mean().len()
    }

    fn draw(&self, p: usize, seed: u64, stream: Stream, members: Range<usize>) -> Draws {
        let normals = standard_normals(seed, stream, 0, members, self.control());
        let (z, log_det) = self.through(p, normals.view(), Layers::forward);
        Draws { states: self.base[p].map(z), log_density: self.base[p].log_density_of(&normals) - log_det }
    }

    fn log_density(&self, p: usize, states: ArrayView2<f64>) -> Array1<f64> {
        let z = self.base[p].whiten(states);
        let (normals, log_det) = self.through(p, z.view(), Layers::inverse);
        self.base[p].log_density_of(&normals) - log_det
    }
}

impl Matrix {
    /// Numbers in it.
    fn len(&self) -> usize {
        self.shape[0] * self.shape[1]
    }
}

fn tensor(rows: ArrayView2<f64>, device: &Device) -> Tensor<2> {
    let numbers: Vec<f32> = rows.iter().map(|v| *v as f32).collect();
    Tensor::from_data(TensorData::new(numbers, [rows.nrows(), rows.ncols()]), device)
}

fn numbers(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("tensors of f32")
}

fn array(tensor: Tensor<2>) -> Array2<f64> {
    let [rows, columns] = tensor.dims();
    let numbers = numbers(tensor).into_iter().map(f64::from).collect();
    Array2::from_shape_vec((rows, columns), numbers).expect("as many numbers as its shape says")
}
