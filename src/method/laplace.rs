//! The Laplace approximation N(x*, P) at a minimum x* of the cost: P is the inverse of a Hessian of J.
//!
//! Everything happens in the whitened control z, c = c_b + L z with L L' the prior covariance (B, of x0): there the Hessian is I + L' Ho L, with
//! eigenvalues >= 1 for Gauss-Newton, and P = L (I + L' Ho L)^-1 L'.

use crate::engine::{LoadedProblem, Members, Precision, Terms};
use crate::error::{Error, Result};
use crate::memory;
use crate::problem::Problem;
use nalgebra::{Cholesky, DMatrix};
use ndarray::{Array2, ArrayView1, ArrayView2, Axis, s};
use serde::{Deserialize, Serialize};

/// The Hessian of the cost that a Laplace covariance inverts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Hessian {
    /// B^-1 + sum_t w_t M_t' H' R_t^-1 H M_t, from tangents along n directions: leaves out the second derivatives
    /// of model and operator; always positive definite.
    #[default]
    GaussNewton,
    /// The full second derivative, by central differences of 2 n gradients; positive definite at a minimum, if the
    /// minimiser reached one and the rounding permits.
    Full,
}

impl Hessian {
    /// The name used in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::GaussNewton => "Gauss-Newton",
            Self::Full => "full",
        }
    }
}

/// A Gaussian at a minimum.
pub(super) struct Laplace {
    /// P: `[control, control]`.
    pub covariance: Array2<f64>,
    /// S with S S' = P: `[control, control]`.
    pub square_root: Array2<f64>,
    /// The same in the whitened control, L^-1 S: upper triangular, `[control, control]`.
    pub whitened_root: Array2<f64>,
    /// The Hessian, in physical units: `[control, control]`.
    pub hessian: Array2<f64>,
    /// Which Hessian it is in the end.
    pub kind: Hessian,
    /// Smallest eigenvalue of the whitened Hessian that was asked for.
    pub smallest_eigenvalue: f64,
}

/// Numbers of a tangent batch in flight; more directions than fit go one group after the other.
const TANGENT_NUMBERS: usize = 1 << 24;

/// The Laplace approximation of each problem at its minimum. `minima: [P, control]`.
///
/// Where a full Hessian was asked for and is not positive definite, that problem gets the Gauss-Newton one; `kind`
/// says so and `smallest_eigenvalue` why.
///
/// # Errors
/// An engine's.
pub(super) fn laplace(
    problem: &Problem,
    loaded: &mut LoadedProblem,
    minima: ArrayView2<f64>,
    hessian: Hessian,
    precision: Precision,
) -> Result<Vec<Laplace>> {
    let n = problem.control().len();
    // Factor, Hessian, covariance and their roots.
    memory::check(
        "dense Hessians",
        &[problem.count(), 8, n, n],
        "choose a method without a Hessian, such as VI-4DVAR",
    )?;
    let factors: Vec<_> = (0..problem.count()).map(|p| prior_factor(problem, p)).collect();
    let full = match hessian {
        Hessian::GaussNewton => None,
        Hessian::Full => Some(full_hessians(problem, loaded, minima, &factors, precision)?),
    };
    let usable = |h: &Array2<f64>| smallest_eigenvalue(h) > 0.0;
    let gauss_newton = match &full {
        Some(h) if h.iter().all(usable) => None,
        _ => Some(gauss_newton_hessians(problem, loaded, minima, &factors)?),
    };
    (0..problem.count())
        .map(|p| {
            let full = full.as_ref().map(|h| (&h[p], smallest_eigenvalue(&h[p])));
            if let Some((h, e)) = full.filter(|(_, e)| *e > 0.0) {
                return Ok(Laplace::new(&factors[p], h, Hessian::Full, e));
            }
            let h = &gauss_newton.as_ref().expect("computed wherever the full one does not serve")[p];
            let own = smallest_eigenvalue(h);
            if own > 0.0 {
                return Ok(Laplace::new(&factors[p], h, Hessian::GaussNewton, full.map_or(own, |(_, e)| e)));
            }
            // I + J'J is positive definite unless a tangent overflowed.
            let n = problem.control().len();
            Err(Error::Diverged { what: "the tangents at 4DVAR's minimum".into(), diverged: n, members: n })
        })
        .collect()
}

impl Laplace {
    /// From L and a positive definite whitened Hessian.
    fn new(factor: &Array2<f64>, whitened: &Array2<f64>, kind: Hessian, smallest_eigenvalue: f64) -> Self {
        let n = whitened.nrows();
        let identity = DMatrix::identity(n, n);
        let invert = |lower: &DMatrix<f64>| lower.solve_lower_triangular(&identity).expect("a positive diagonal");
        // With Hz = C C': P = L C^-T C^-1 L', so S = L C^-T.
        let cholesky = Cholesky::new(to_nalgebra(whitened)).expect("positive definite");
        let whitened_root = from_nalgebra(&invert(&cholesky.l()).transpose());
        let square_root = factor.dot(&whitened_root);
        let whiten = from_nalgebra(&invert(&to_nalgebra(factor)));
        Self {
            covariance: square_root.dot(&square_root.t()),
            hessian: whiten.t().dot(whitened).dot(&whiten),
            square_root,
            whitened_root,
            kind,
            smallest_eigenvalue,
        }
    }
}

/// L with L L' the prior covariance of the control, dense: `[control, control]`.
fn prior_factor(problem: &Problem, p: usize) -> Array2<f64> {
    let n = problem.control().len();
    let mut factor = Array2::zeros((n, n));
    let mut unit = ndarray::Array1::zeros(n);
    for j in 0..n {
        unit[j] = 1.0;
        factor.column_mut(j).assign(&problem.control_root(p, unit.view()));
        unit[j] = 0.0;
    }
    factor
}

/// I + sum_t w_t L' M_t' H' R_t^-1 H M_t L of each problem: tangents along the columns of L, as many as each has.
/// `factors`: L, `[P][control, columns]`.
pub(super) fn gauss_newton_hessians(
    problem: &Problem,
    loaded: &mut LoadedProblem,
    minima: ArrayView2<f64>,
    factors: &[Array2<f64>],
) -> Result<Vec<Array2<f64>>> {
    let (count, control, n) = (problem.count(), problem.control().len(), factors[0].ncols());
    let trajectories = loaded.forecast(Members::Given(minima))?;
    // R^-1/2 H M_t L, one row per assimilated observation.
    let observed: Vec<Vec<(usize, usize, f64)>> = (0..count)
        .map(|p| {
            let precision = problem.observation_precision(p);
            precision.indexed_iter().filter(|(_, r)| **r > 0.0).map(|((t, j), r)| (t, j, r.sqrt())).collect()
        })
        .collect();
    let mut jacobians: Vec<_> = observed.iter().map(|o| Array2::zeros((o.len(), n))).collect();
    let group = (TANGENT_NUMBERS / (count * problem.window.times * n)).clamp(1, n);
    for first in (0..n).step_by(group) {
        let columns = first..n.min(first + group);
        let width = columns.len();
        let members = Array2::from_shape_fn((count * width, control), |(row, i)| minima[[row / width, i]]);
        let directions =
            Array2::from_shape_fn((count * width, control), |(row, i)| factors[row / width][[i, first + row % width]]);
        let tangents = loaded.tangent(Members::Given(members.view()), directions.view())?;
        for (row, tangent) in tangents.axis_iter(Axis(0)).enumerate() {
            let (p, column) = (row / width, first + row % width);
            let mut products: Option<(usize, Vec<f64>)> = None;
            for (k, &(t, j, root)) in observed[p].iter().enumerate() {
                if products.as_ref().is_none_or(|(at, _)| *at != t) {
                    let x = trajectories.slice(s![p, t, ..]).to_vec();
                    products = Some((t, problem.operator.tangent(&x, &tangent.row(t).to_vec())));
                }
                let (_, product) = products.as_ref().expect("just set");
                jacobians[p][[k, column]] = root * product[j];
            }
        }
    }
    Ok(jacobians.into_iter().map(|j| j.t().dot(&j) + Array2::<f64>::eye(n)).collect())
}

/// I + L' (d2 Jo/dx0^2) L of each problem, by central differences of the gradient along the columns of L.
///
/// The step is the cube root of the rounding unit, in background deviations, which balances rounding against
/// truncation: 6e-6 in f64, 5e-3 in f32, where the result is good to two or three digits.
fn full_hessians(
    problem: &Problem,
    loaded: &mut LoadedProblem,
    minima: ArrayView2<f64>,
    factors: &[Array2<f64>],
    precision: Precision,
) -> Result<Vec<Array2<f64>>> {
    let (count, n) = (problem.count(), problem.control().len());
    let step = match precision {
        Precision::F32 => f64::from(f32::EPSILON).cbrt(),
        Precision::F64 => f64::EPSILON.cbrt(),
    };
    let members = Array2::from_shape_fn((count * 2 * n, n), |(row, i)| {
        let (p, k) = (row / (2 * n), row % (2 * n));
        let side = if k % 2 == 0 { step } else { -step };
        minima[[p, i]] + side * factors[p][[i, k / 2]]
    });
    let terms = Terms { background: false, observation: true };
    let gradients = loaded.gradient(Members::Given(members.view()), terms)?.gradient;
    Ok((0..count)
        .map(|p| {
            let mut hessian = Array2::eye(n);
            for j in 0..n {
                let row = p * 2 * n + 2 * j;
                let difference = (&gradients.row(row) - &gradients.row(row + 1)) / (2.0 * step);
                let column = problem.control_root_transposed(p, difference.view());
                for i in 0..n {
                    hessian[[i, j]] += 0.5 * column[i];
                    hessian[[j, i]] += 0.5 * column[i];
                }
            }
            hessian
        })
        .collect())
}

/// Smallest eigenvalue of a symmetric matrix; minus infinity if an entry is not finite.
fn smallest_eigenvalue(a: &Array2<f64>) -> f64 {
    if a.iter().any(|x| !x.is_finite()) {
        return f64::NEG_INFINITY;
    }
    to_nalgebra(a).symmetric_eigenvalues().min()
}

fn to_nalgebra(a: &Array2<f64>) -> DMatrix<f64> {
    DMatrix::from_fn(a.nrows(), a.ncols(), |i, j| a[[i, j]])
}

fn from_nalgebra(a: &DMatrix<f64>) -> Array2<f64> {
    Array2::from_shape_fn((a.nrows(), a.ncols()), |(i, j)| a[(i, j)])
}

/// x* + S eps for rows of standard normals: `[count, control]`.
pub(super) fn draw(minimum: ArrayView1<f64>, square_root: &Array2<f64>, normals: &Array2<f64>) -> Array2<f64> {
    normals.dot(&square_root.t()) + minimum
}
