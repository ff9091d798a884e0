//! The Gaussian families: where their fit starts, and how it runs.

use super::ascent::{self, Ascent};
use super::minima::{self, Minima};
use super::{Fitted, InitialFit, Settings, Units};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::memory;
use crate::method::laplace::{Hessian, Laplace};
use crate::method::{Observer, Record};
use crate::posterior::{Family, FullRank, Gaussian, LowRank, MeanField, Mixture, Mixtures, Normal};
use crate::problem::{ControlLayout, Problem};
use nalgebra::{DMatrix, SymmetricEigen};
use ndarray::{Array1, Array2, Array3, Axis};

impl Settings {
    /// Fits one Gaussian per problem.
    pub(super) fn fit_gaussian(
        &self,
        minima: &mut Minima,
        engine: &Engine,
        observer: &mut dyn Observer,
    ) -> Result<Fitted> {
        let count = minima.problem.count();
        let (normals, ascent) = self.fit_normals(minima, engine, observer)?;
        let records = normals.iter().map(|normal| records(normal, self.family, minima.problem.control())).collect();
        let posterior: Mixtures = normals.into_iter().map(Mixture::from).collect();
        let (notes, faults) = (vec![String::new(); count], vec![None; count]);
        let (title, ascent) = (self.family.title(), Some(ascent));
        Ok(Fitted { title, posterior: Box::new(posterior), ascent, records, notes, faults })
    }

    /// The Gaussian of each problem, with how the fit went.
    pub(super) fn fit_normals(
        &self,
        minima: &mut Minima,
        engine: &Engine,
        observer: &mut dyn Observer,
    ) -> Result<(Vec<Normal>, Ascent)> {
        let problem = minima.problem;
        let plain = if self.family == Family::MeanField { InitialFit::Background } else { InitialFit::Laplace };
        let mut q = match self.start.unwrap_or(plain) {
            InitialFit::Background => self.at_background(problem)?,
            InitialFit::Laplace => {
                let all = minima.known(observer)?;
                let n = problem.control().len();
                let mut states = Array2::zeros((problem.count(), n));
                for (p, own) in all.iter().enumerate() {
                    let lowest = minima::lowest(own);
                    if lowest.cost.is_infinite() {
                        let what = "the minimisations that VI-4DVAR was to start from".into();
                        return Err(Error::Diverged { what, diverged: own.len(), members: own.len() });
                    }
                    states.row_mut(p).assign(&lowest.state);
                }
                let laplaces = minima.laplace(&states, Hessian::GaussNewton)?;
                self.at_laplace(problem, &states, &laplaces)?
            }
            InitialFit::Amortized => {
                let start = minima.start.expect("checked");
                let mut states = Array2::zeros((problem.count(), problem.control().len()));
                states.outer_iter_mut().zip(start).for_each(|(mut row, q)| row.assign(&q.mean()));
                let covariances: Vec<_> = start.iter().map(Normal::covariance).collect();
                let precisions: Vec<_> = start.iter().map(Normal::precision).collect();
                self.at_gaussians(problem, &states, &covariances.iter().zip(&precisions).collect::<Vec<_>>())?
            }
        };
        let tempers = ascent::tempers(self.tempering);
        let mut loaded = ascent::load(problem, engine, &tempers)?;
        let normalizers = ascent::normalizers(problem);
        let mut source = ascent::engine(&mut loaded);
        let ascent = ascent::raise(&self.course(), normalizers, &tempers, &mut source, q.as_mut(), observer)?;
        Ok(((0..problem.count()).map(|p| q.normal(p)).collect(), ascent))
    }

    /// Around x_b, with the initial deviation.
    pub(super) fn at_background(&self, problem: &Problem) -> Result<Box<dyn Gaussian>> {
        let mean = problem.control_means();
        let shape = mean.dim();
        let units = match self.units {
            Units::Physical => Array2::ones(shape),
            Units::Background => problem.control_stds(),
        };
        let std = &units * self.initial_std;
        Ok(match self.family {
            Family::LowRank => {
                // Directions that are all alike would stay alike: start from distinct ones, of little weight.
                let rank = self.rank.min(shape.1);
                let factor =
                    Array3::from_shape_fn((shape.0, shape.1, rank), |(_, i, k)| if i % rank == k { 0.1 } else { 0.0 });
                Box::new(LowRank::new(&mean, &std, &factor, units)?)
            }
            Family::FullRank => {
                let (problems, n) = shape;
                memory::check("covariances of full rank", &[problems, 6, n, n], "choose the mean field or a low rank")?;
                let lower: Vec<_> = std.outer_iter().map(|s| Array2::from_diag(&s)).collect();
                let views: Vec<_> = lower.iter().map(|l| l.view()).collect();
                Box::new(FullRank::new(mean, ndarray::stack(Axis(0), &views).expect("matrices of one size"))?)
            }
            Family::MeanField => Box::new(MeanField::new(&mean, &std)?.in_units(units)),
            Family::Mixture | Family::Planar | Family::RealNvp | Family::Spline => {
                unreachable!("made of Gaussians of full rank")
            }
        })
    }

    /// The member of the family closest to the Laplace approximation: `states: [P, control]`.
    pub(super) fn at_laplace(
        &self,
        problem: &Problem,
        states: &Array2<f64>,
        laplaces: &[Laplace],
    ) -> Result<Box<dyn Gaussian>> {
        let matrices: Vec<_> = laplaces.iter().map(|l| (&l.covariance, &l.hessian)).collect();
        self.at_gaussians(problem, states, &matrices)
    }

    /// The member of the family closest to Gaussians of these means, covariances and precisions: `states: [P, control]`.
    fn at_gaussians(
        &self,
        problem: &Problem,
        states: &Array2<f64>,
        matrices: &[(&Array2<f64>, &Array2<f64>)],
    ) -> Result<Box<dyn Gaussian>> {
        let (problems, n) = states.dim();
        let stack = |matrices: Vec<Array2<f64>>| {
            let views: Vec<_> = matrices.iter().map(|m| m.view()).collect();
            ndarray::stack(Axis(0), &views).expect("matrices of one size")
        };
        let rows = |rows: Vec<Array1<f64>>| {
            let views: Vec<_> = rows.iter().map(|r| r.view()).collect();
            ndarray::stack(Axis(0), &views).expect("rows of one length")
        };
        let stds = rows(matrices.iter().map(|(covariance, _)| covariance.diag().mapv(f64::sqrt)).collect());
        Ok(match self.family {
            Family::MeanField => {
                // A mean field's best deviations are those given all other sites.
                let std =
                    rows(matrices.iter().map(|(_, precision)| precision.diag().mapv(|h| h.sqrt().recip())).collect());
                let units = match self.units {
                    Units::Physical => Array2::ones((problems, n)),
                    Units::Background => problem.control_stds(),
                };
                Box::new(MeanField::new(states, &std)?.in_units(units))
            }
            Family::LowRank => {
                let rank = self.rank.min(n);
                let diagonal = problem.control_stds();
                let factors = matrices.iter().zip(diagonal.outer_iter());
                let factor = stack(factors.map(|((_, h), d)| leading_directions(h, &d.to_owned(), rank)).collect());
                Box::new(LowRank::new(states, &diagonal, &factor, stds)?)
            }
            // A mixture's components too.
            Family::FullRank | Family::Mixture => {
                let lower = matrices.iter().map(|(covariance, _)| Normal::lower_root(covariance.view()));
                Box::new(FullRank::new(states.clone(), stack(lower.collect::<Result<_>>()?))?)
            }
            Family::Planar | Family::RealNvp | Family::Spline => {
                unreachable!("a flow starts as a Gaussian of full rank")
            }
        })
    }
}

/// U of `rank` columns with I + U U' the closest to a precision in units of `scale`: its leading eigenvectors, as long as
/// their eigenvalue is above 1. Exact where the precision is B^-1 + H'R^-1 H with a diagonal B and few observed directions.
fn leading_directions(precision: &Array2<f64>, scale: &Array1<f64>, rank: usize) -> Array2<f64> {
    let n = scale.len();
    let whitened = DMatrix::from_fn(n, n, |i, j| precision[[i, j]] * scale[i] * scale[j]);
    let eigen = SymmetricEigen::new(whitened);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]));
    // No direction may start at nothing, where its gradient vanishes.
    Array2::from_shape_fn((n, rank), |(i, k)| {
        eigen.eigenvectors[(i, order[k])] * (eigen.eigenvalues[order[k]] - 1.0).max(1e-4).sqrt()
    })
}

/// What is kept of a fitted Gaussian.
pub(super) fn records(normal: &Normal, family: Family, control: ControlLayout) -> Vec<Record> {
    let axes = control.dimensions();
    let mut records = vec![
        Record::new("variational_mean", "mean of the fitted Gaussian", &axes[..1], normal.mean().to_owned()),
        Record::new("variational_std", "standard deviation of the fitted Gaussian", &axes[..1], normal.std()),
    ];
    if family != Family::MeanField {
        let name = "covariance of the fitted Gaussian";
        records.push(Record::new("variational_covariance", name, &axes, normal.covariance()));
    }
    records
}
