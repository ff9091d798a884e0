//! A flow of each of P problems: drawn from, weighed, and pulled back through.

#![allow(
    clippy::redundant_closure_for_method_calls,
    reason = "the method itself is not general enough in its lifetime"
)]

use super::FlowSettings;
use super::layers::{Layers, Mapped, Ready, Tape};
use crate::error::{Error, Result};
use crate::neural::{self, Matrix};
use crate::posterior::{Draws, Estimator, Family, Normal, Posterior};
use crate::random::{Stream, standard_normals};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut1, Axis, s};
use rayon::prelude::*;
use std::ops::Range;

/// Rows that pass through the layers at a time.
const ROWS: usize = 1024;

/// Parameters of all flows of a set at most: 512 MiB, and Adam keeps as much four times over.
const MOST_PARAMETERS: usize = 1 << 26;

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

/// The way through the layers.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// From eps to z.
    There,
    /// From z to eps.
    Back,
}

/// Rows of one problem behind the layers, with what the way back needs.
pub(crate) struct Pass {
    before: Vec<Array2<f64>>,
    score: Option<Array2<f64>>,
}

impl Flow {
    /// The flow of a family that is `base`, one Gaussian for each problem. Its networks start from the streams of
    /// `seeds`.
    ///
    /// # Errors
    /// A family that is no flow, settings that cannot work, too many parameters, fewer than two sites, or not one seed for
    /// each problem.
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
        let (layers, matrices) = Self::layers(family, settings, n, base.len())?;
        let count = matrices.iter().map(Matrix::len).sum();
        let mut theta = Array2::zeros((base.len(), count));
        for (mut row, seed) in theta.outer_iter_mut().zip(seeds) {
            row.assign(&Array1::from_vec(neural::initial(&matrices, *seed)));
            layers.make_identity(row.as_slice_mut().expect("theta is contiguous"));
        }
        Ok(Self { layers, matrices, base, theta })
    }

    /// Refuses a flow of so many sites for so many problems that [`Self::new`] would refuse.
    ///
    /// # Errors
    /// A family that is no flow, or parameters for which there is no room.
    pub(crate) fn check(family: Family, settings: &FlowSettings, n: usize, problems: usize) -> Result<()> {
        Self::layers(family, settings, n, problems).map(drop)
    }

    fn layers(family: Family, settings: &FlowSettings, n: usize, problems: usize) -> Result<(Layers, Vec<Matrix>)> {
        let Some(layers) = Layers::new(family, settings, n) else {
            let help = "choose one of them, or fit the family as it is";
            return Err(Error::invalid("family of a flow", "realnvp, planar or spline", family.name(), help));
        };
        let matrices = layers.matrices();
        let count: usize = matrices.iter().map(Matrix::len).sum();
        if count > MOST_PARAMETERS / problems {
            let expected = format!("at most {MOST_PARAMETERS} parameters");
            let found = format!("{count} for each of {problems} problems");
            let help = "use fewer --flow-layers or a smaller --flow-width";
            return Err(Error::invalid("layers of a flow", expected, found, help));
        }
        Ok((layers, matrices))
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
        neural::units(&self.matrices)
    }

    /// The layers of problem `p`.
    fn ready(&self, p: usize) -> Ready<'_> {
        self.layers.ready(self.theta.row(p).as_slice().expect("theta is contiguous"))
    }

    /// Rows through the layers of problem `p`, on all threads.
    fn through(&self, p: usize, rows: &Array2<f64>, way: Way) -> Mapped {
        let layers = self.ready(p);
        let pass = |first: usize| {
            let part = rows.slice(s![first..(first + ROWS).min(rows.nrows()), ..]).to_owned();
            match way {
                Way::There => layers.forward(part),
                Way::Back => layers.inverse(part),
            }
        };
        let parts: Vec<Mapped> = (0..rows.nrows()).into_par_iter().step_by(ROWS).map(pass).collect();
        let mut whole = Mapped::start(Array2::zeros((0, rows.ncols())));
        for part in parts {
            let join = "parts of one width";
            whole.rows.append(Axis(0), part.rows.view()).expect(join);
            whole.log_det.append(Axis(0), part.log_det.view()).expect(join);
        }
        whole
    }

    /// Standard normals of problem `p` through the layers, in a way that can be gone back: `[rows, control]`.
    pub(crate) fn pass(&self, p: usize, eps: Array2<f64>, estimator: Estimator) -> (Pass, Draws) {
        let log_density = self.base[p].log_density_of(&eps);
        let Tape { z, before, score } = self.ready(p).record(eps, estimator == Estimator::Path);
        let draws = Draws { states: self.base[p].map(z.rows), log_density: log_density - z.log_det };
        (Pass { before, score }, draws)
    }

    /// The gradient of -ELBO with respect to problem `p`'s parameters, as a sum over the rows of a pass that are `kept`.
    /// `gradient`: dJ/dx0 of each row, `[rows, control]`.
    ///
    /// Plain: of J(x) - log |det|. Path: of J(x) + log q(x), the q fixed (Roeder, Wu & Duvenaud 2017; Agrawal & Domke 2024
    /// for flows).
    pub(crate) fn pull_back(&self, p: usize, pass: Pass, gradient: ArrayView2<f64>, kept: &[bool]) -> Vec<f64> {
        let Pass { mut before, score } = pass;
        let mut by_z = self.base[p].pull_back(gradient);
        let mut by_log_det = Array1::zeros(kept.len());
        match score {
            Some(score) => by_z += &score,
            None => by_log_det.fill(-1.0),
        }
        // What overflowed would spoil sums even with a weight of zero: such rows go back as others than they were.
        for (k, _) in kept.iter().enumerate().filter(|(_, kept)| !**kept) {
            before.iter_mut().for_each(|rows| rows.row_mut(k).fill(0.0));
            by_z.row_mut(k).fill(0.0);
            by_log_det[k] = 0.0;
        }
        self.ready(p).pull_back(&before, by_z, &by_log_det)
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
        let eps = standard_normals(seed, stream, 0, members, self.control());
        let z = self.through(p, &eps, Way::There);
        Draws { log_density: self.base[p].log_density_of(&eps) - z.log_det, states: self.base[p].map(z.rows) }
    }

    fn log_density(&self, p: usize, states: ArrayView2<f64>) -> Array1<f64> {
        let eps = self.through(p, &self.base[p].whiten(states), Way::Back);
        self.base[p].log_density_of(&eps.rows) - eps.log_det
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::DMatrix;

    const FLOWS: [Family; 3] = [Family::RealNvp, Family::Planar, Family::Spline];
    const N: usize = 5;

    /// A small flow, its parameters away from the start by about `shift` of their units.
    fn flow(family: Family, shift: f64) -> Flow {
        let lower = Array2::from_shape_fn((N, N), |(i, j)| match i.cmp(&j) {
            std::cmp::Ordering::Less => 0.0,
            std::cmp::Ordering::Equal => 0.5 + 0.2 * i as f64,
            std::cmp::Ordering::Greater => 0.1 * (i + j) as f64,
        });
        let base = Normal::lower(Array1::from_shape_fn(N, |i| i as f64), lower);
        let settings = FlowSettings { layers: 4, width: 8, hidden: 1 };
        let mut flow = Flow::new(family, &settings, vec![base], &[5]).unwrap();
        let units = Array1::from(flow.units());
        let z = standard_normals(5, Stream::Starts, 0, 0..1, units.len()).remove_axis(Axis(0));
        flow.theta.row_mut(0).zip_mut_with(&(z * units), |v, z| *v += shift * z);
        flow
    }

    /// A cost with a curvature that is nobody's, and its gradient.
    fn cost(states: &Array2<f64>) -> (Array1<f64>, Array2<f64>) {
        let weight = |i: usize| 1.0 + 0.3 * i as f64;
        let value = states.map_axis(Axis(1), |x| (0..N).map(|i| weight(i) * (1.3 * x[i]).sin()).sum());
        let gradient = Array2::from_shape_fn(states.dim(), |(k, i)| weight(i) * 1.3 * (1.3 * states[[k, i]]).cos());
        (value, gradient)
    }

    fn median(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    /// The median, for a difference across a kink of the network's is none.
    #[test]
    fn log_det_is_that_of_the_numeric_jacobian() {
        let step = 1.0 / 256.0;
        for family in FLOWS {
            let flow = flow(family, 0.5);
            let eps = standard_normals(3, Stream::Posterior, 0, 0..40, N);
            let log_det = flow.through(0, &eps, Way::There).log_det;
            let columns: Vec<_> = (0..N)
                .map(|j| {
                    let image = |sign: f64| {
                        let mut moved = eps.clone();
                        moved.column_mut(j).mapv_inplace(|v| v + sign * step);
                        flow.through(0, &moved, Way::There).rows
                    };
                    (image(1.0) - image(-1.0)) / (2.0 * step)
                })
                .collect();
            let errors = (0..eps.nrows()).map(|k| {
                let jacobian = DMatrix::from_fn(N, N, |i, j| columns[j][[k, i]]);
                (jacobian.determinant().abs().ln() - log_det[k]).abs()
            });
            let error = median(errors.collect());
            assert!(error < 1e-3, "{family:?}: log |det| is off by {error}");
            assert!(log_det.std(0.0) > 0.05, "{family:?}: nothing to see");
        }
    }

    #[test]
    fn the_way_back_ends_where_the_way_began() {
        for family in FLOWS {
            let flow = flow(family, 0.5);
            let eps = standard_normals(3, Stream::Posterior, 0, 0..3000, N) * 1.5;
            let there = flow.through(0, &eps, Way::There);
            let back = flow.through(0, &there.rows, Way::Back);
            let largest = |d: &mut dyn Iterator<Item = f64>| d.fold(0.0f64, |m, d| m.max(d.abs()));
            let rows = largest(&mut (&back.rows - &eps).into_iter());
            let log_det = largest(&mut (&back.log_det - &there.log_det).into_iter());
            assert!(rows < 2e-4 && log_det < 2e-4, "{family:?}: {rows} and {log_det}");
            assert!(largest(&mut (&there.rows - &eps).into_iter()) > 0.1, "{family:?}: nothing moves");
        }
    }

    /// Against differences of the mean of J - log |det| over the rows that are kept, parameter by parameter.
    #[test]
    fn plain_gradients_are_those_of_the_loss() {
        for family in FLOWS {
            let mut flow = flow(family, 0.3);
            let eps = standard_normals(3, Stream::MonteCarlo, 0, 0..256, N);
            let kept: Vec<bool> = (0..256).map(|k| k % 5 != 2).collect();
            let loss = |flow: &Flow| -> f64 {
                let (_, draws) = flow.pass(0, eps.clone(), Estimator::Plain);
                let values = cost(&draws.states).0 + draws.log_density;
                values.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(v, _)| v).sum()
            };
            let (pass, mut draws) = flow.pass(0, eps.clone(), Estimator::Plain);
            draws.states.row_mut(2).fill(f64::NAN);
            let gradient = flow.pull_back(0, pass, cost(&draws.states).1.view(), &kept);
            let scale = gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
            let (step, mut errors) = (1.0 / 256.0, Vec::new());
            for k in (0..gradient.len()).step_by(1 + gradient.len() / 150) {
                let at = flow.theta[[0, k]];
                let mut side = |sign: f64| {
                    flow.theta[[0, k]] = at + sign * step;
                    let loss = loss(&flow);
                    flow.theta[[0, k]] = at;
                    loss
                };
                errors.push(((side(1.0) - side(-1.0)) / (2.0 * step) - gradient[k]).abs() / scale);
            }
            let worst = errors.iter().fold(0.0f64, |m, e| m.max(*e));
            let middle = median(errors);
            assert!(worst < 2e-2 && middle < 1e-3, "{family:?}: worst {worst}, median {middle} of {scale}");
        }
    }

    /// The two estimators have one mean, and where q is the posterior the path's is zero for every batch.
    #[test]
    fn path_gradients_have_the_mean_of_plain_ones_and_no_noise_at_the_posterior() {
        for family in FLOWS {
            let mut moved = flow(family, 0.3);
            let eps = standard_normals(3, Stream::MonteCarlo, 0, 0..60_000, N);
            let kept = vec![true; eps.nrows()];
            let gradient = |flow: &Flow, by_x: &dyn Fn(&Array2<f64>) -> Array2<f64>, estimator| {
                let (pass, draws) = flow.pass(0, eps.clone(), estimator);
                let sums = flow.pull_back(0, pass, by_x(&draws.states).view(), &kept);
                Array1::from(sums) / eps.nrows() as f64
            };
            let by_x = |x: &Array2<f64>| cost(x).1;
            let plain = gradient(&moved, &by_x, Estimator::Plain);
            let path = gradient(&moved, &by_x, Estimator::Path);
            let norm = |v: &Array1<f64>| v.dot(v).sqrt();
            let gap = norm(&(&plain - &path)) / norm(&plain);
            assert!(gap < 0.05, "{family:?}: the means differ by {gap}");

            // The Gaussian itself as posterior of the flow's start: J = -log N(x).
            moved = flow(family, 0.0);
            let base = &moved.base[0];
            let precision = DMatrix::from_fn(N, N, |i, j| base.covariance()[[i, j]]).try_inverse().unwrap();
            let precision = Array2::from_shape_fn((N, N), |(i, j)| precision[(i, j)]);
            let by_x = |x: &Array2<f64>| (x - &base.mean()).dot(&precision);
            let path = gradient(&moved, &by_x, Estimator::Path);
            let worst = path.iter().fold(0.0f64, |m, g| m.max(g.abs()));
            assert!(worst < 1e-5, "{family:?}: {worst} at the posterior");
            let plain = gradient(&moved, &by_x, Estimator::Plain);
            assert!(norm(&plain) > 10.0 * norm(&path), "{family:?}: the plain estimator has noise there");
        }
    }
}
