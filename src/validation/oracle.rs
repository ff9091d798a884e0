//! The oracle: one member at a time, straight from the equations, sharing no code with the engines or the model. Tests
//! and `vi4dvar validate` judge by it.
//!
//! Where the engines sweep cotangents back through the four stages of a step, the oracle writes out the dense
//! Jacobian of every step and multiplies by it or by its transpose. It is generic over the number type: f64 is the
//! truth, and f32 is the plain evaluation whose loss bounds what an f32 engine may lose.

use crate::engine::Scale;
use crate::model::Model;
use crate::problem::{ErrorCovariance, PointFunction, Problem};
use ndarray::Array3;
use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// f32 or f64.
pub trait Real:
    Copy
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    /// Rounds.
    fn of(value: f64) -> Self;
    /// Widens.
    fn wide(self) -> f64;
    /// e^x
    fn exp(self) -> Self;
    /// log(1 + x)
    fn ln_1p(self) -> Self;
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }
    fn wide(self) -> f64 {
        self
    }
    fn exp(self) -> Self {
        self.exp()
    }
    fn ln_1p(self) -> Self {
        self.ln_1p()
    }
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
    fn exp(self) -> Self {
        self.exp()
    }
    fn ln_1p(self) -> Self {
        self.ln_1p()
    }
}

/// One assimilated observation.
#[derive(Clone, Copy, Debug)]
struct Observed<T> {
    time: usize,
    block: usize,
    value: T,
    weight: T,
}

/// One problem of a set.
#[derive(Clone, Debug)]
pub struct Oracle<T> {
    sites: usize,
    times: usize,
    steps_per_time: usize,
    dt: T,
    model: Model,
    parameters: Vec<T>,
    /// Whether the control ends with the parameters.
    estimated: bool,
    /// Steps between two errors of the model and their number, with the square root of Q, lower triangular.
    error_interval: usize,
    errors: usize,
    error_root: Vec<Vec<T>>,
    /// The prior mean of the control.
    background: Vec<T>,
    /// B^-1
    precision: Vec<Vec<T>>,
    /// The prior's inverse variances of what the control holds behind x0.
    rest: Vec<T>,
    function: PointFunction,
    block_size: usize,
    observed: Vec<Observed<T>>,
}

/// The two terms of a cost, or of its gradient.
#[derive(Clone, Debug)]
pub struct Split<V> {
    /// J_b's.
    pub background: V,
    /// J_o's.
    pub observation: V,
}

/// dx/dt of a model with these parameters.
fn tendency<T: Real>(model: Model, parameters: &[T], x: &[T]) -> Vec<T> {
    match model {
        // dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F
        Model::Lorenz96 => {
            let n = x.len();
            let of = |i: usize| (x[(i + 1) % n] - x[(i + n - 2) % n]) * x[(i + n - 1) % n] - x[i] + parameters[0];
            (0..n).map(of).collect()
        }
        // dx/dt = sigma (y - x), dy/dt = x (rho - z) - y, dz/dt = x y - beta z
        Model::Lorenz63 => {
            let ([sigma, rho, beta], [x, y, z]) = (triple(parameters), triple(x));
            vec![sigma * (y - x), x * (rho - z) - y, x * y - beta * z]
        }
    }
}

/// Its Jacobian A at x: of each row the entries that are not 0, with their columns.
fn jacobian<T: Real>(model: Model, parameters: &[T], x: &[T]) -> Vec<Vec<(usize, T)>> {
    let one = T::of(1.0);
    match model {
        Model::Lorenz96 => {
            let n = x.len();
            let row = |i: usize| {
                let (ahead, one_back, two_back) = ((i + 1) % n, (i + n - 1) % n, (i + n - 2) % n);
                let (a, b) = (x[one_back], x[ahead] - x[two_back]);
                vec![(ahead, a), (two_back, -a), (one_back, b), (i, -one)]
            };
            (0..n).map(row).collect()
        }
        Model::Lorenz63 => {
            let ([sigma, rho, beta], [x, y, z]) = (triple(parameters), triple(x));
            vec![
                vec![(0, -sigma), (1, sigma)],
                vec![(0, rho - z), (1, -one), (2, -x)],
                vec![(0, y), (1, x), (2, -beta)],
            ]
        }
    }
}

/// Its derivative with respect to each parameter at x.
fn by_parameters<T: Real>(model: Model, x: &[T]) -> Vec<Vec<T>> {
    let zero = T::of(0.0);
    match model {
        Model::Lorenz96 => vec![vec![T::of(1.0); x.len()]],
        Model::Lorenz63 => {
            let [x, y, z] = triple(x);
            vec![vec![y - x, zero, zero], vec![zero, x, zero], vec![zero, zero, -z]]
        }
    }
}

fn triple<T: Real>(values: &[T]) -> [T; 3] {
    [values[0], values[1], values[2]]
}

impl<T: Real> Oracle<T> {
    /// Reads problem `p` of the set.
    pub fn new(problem: &Problem, p: usize) -> Self {
        let row = |rows: usize| if rows == 1 { 0 } else { p };
        let sites = problem.background.mean.ncols();
        let window = problem.window;
        let mut background = problem.background.mean.row(row(problem.background.mean.nrows())).to_vec();
        let scale = problem.background.scale[row(problem.background.scale.len())];
        let precision = match &problem.background.error {
            ErrorCovariance::Diagonal(std) => {
                let std = std.row(row(std.nrows()));
                let entry = |i: usize, j: usize| if i == j { 1.0 / (scale * std[i] * std[i]) } else { 0.0 };
                (0..sites).map(|i| (0..sites).map(|j| entry(i, j)).collect()).collect()
            }
            ErrorCovariance::Full(factors) => {
                let b = &factors[row(factors.len())].covariance;
                inverse((0..sites).map(|i| (0..sites).map(|j| scale * b[[i, j]]).collect()).collect())
            }
        };
        let (mut errors, mut error_interval, mut error_root) = (0, 1, Vec::new());
        if let Some(q) = &problem.model_error {
            error_interval = q.interval;
            errors = (window.assimilated_times - 1) * window.steps_per_time / q.interval;
            error_root = match &q.covariance {
                ErrorCovariance::Diagonal(std) => {
                    let std = std.row(row(std.nrows()));
                    (0..sites).map(|i| (0..sites).map(|j| if i == j { std[i] } else { 0.0 }).collect()).collect()
                }
                ErrorCovariance::Full(factors) => {
                    let q = &factors[row(factors.len())].covariance;
                    cholesky((0..sites).map(|i| (0..sites).map(|j| q[[i, j]]).collect()).collect())
                }
            };
        }
        let mut rest = vec![1.0; errors * sites];
        background.extend(rest.iter().map(|_| 0.0));
        let parameters = problem.parameters.row(row(problem.parameters.nrows())).to_vec();
        if let Some(std) = &problem.parameter_std {
            background.extend(&parameters);
            rest.extend(std.row(row(std.nrows())).iter().map(|std| std.powi(-2)));
        }
        let mut observed = Vec::new();
        let (y, std, w) = (&problem.observations, &problem.observation_std, &problem.weights);
        for time in 0..window.assimilated_times {
            for block in 0..y.shape()[2] {
                let value = y[[row(y.shape()[0]), time, block]];
                let weight = w[[row(w.nrows()), time]];
                if !value.is_nan() && weight > 0.0 {
                    let deviation = std[[row(std.shape()[0]), time, block]];
                    let weight = T::of(weight / (deviation * deviation));
                    observed.push(Observed { time, block, value: T::of(value), weight });
                }
            }
        }
        Self {
            sites,
            times: window.times,
            steps_per_time: window.steps_per_time,
            dt: T::of(window.dt),
            model: problem.model,
            parameters: parameters.iter().map(|v| T::of(*v)).collect(),
            estimated: problem.parameter_std.is_some(),
            error_interval,
            errors,
            error_root: error_root.iter().map(|r: &Vec<f64>| r.iter().map(|v| T::of(*v)).collect()).collect(),
            rest: rest.into_iter().map(T::of).collect(),
            background: background.iter().map(|v| T::of(*v)).collect(),
            precision: precision.iter().map(|r: &Vec<f64>| r.iter().map(|v| T::of(*v)).collect()).collect(),
            function: problem.operator.function,
            block_size: problem.operator.block_size,
            observed,
        }
    }

    /// The parameters of a control: its own, or the problem's.
    fn parameters_of<'a>(&'a self, control: &'a [T]) -> &'a [T] {
        if self.estimated { &control[control.len() - self.parameters.len()..] } else { &self.parameters }
    }

    /// The points at which a step from `x` evaluates the tendency, and the state after it.
    fn stages(&self, parameters: &[T], x: &[T]) -> ([Vec<T>; 4], Vec<T>) {
        let (h, half) = (self.dt, self.dt * T::of(0.5));
        let moved = |k: &[T], by: T| -> Vec<T> { x.iter().zip(k).map(|(x, k)| *x + by * *k).collect() };
        let k1 = tendency(self.model, parameters, x);
        let x2 = moved(&k1, half);
        let k2 = tendency(self.model, parameters, &x2);
        let x3 = moved(&k2, half);
        let k3 = tendency(self.model, parameters, &x3);
        let x4 = moved(&k3, h);
        let k4 = tendency(self.model, parameters, &x4);
        let two = T::of(2.0);
        let sum: Vec<T> = (0..self.sites).map(|i| k1[i] + two * k2[i] + two * k3[i] + k4[i]).collect();
        let end = moved(&sum, h / T::of(6.0));
        ([x.to_vec(), x2, x3, x4], end)
    }

    /// The state after `steps` RK4 steps, by the problem's own parameters and without errors of the model.
    pub fn integrate(&self, x: &[T], steps: usize) -> Vec<T> {
        let mut x = x.to_vec();
        for _ in 0..steps {
            x = self.stages(&self.parameters, &x).1;
        }
        x
    }

    /// Which error follows a step, if one does.
    fn error_after(&self, step: usize) -> Option<usize> {
        let k = (step + 1) / self.error_interval;
        (self.errors > 0 && (step + 1).is_multiple_of(self.error_interval) && k <= self.errors).then(|| k - 1)
    }

    /// Q^1/2 xi_k of a control, or of a direction.
    fn error(&self, control: &[T], k: usize) -> Vec<T> {
        let xi = &control[self.sites * (1 + k)..self.sites * (2 + k)];
        let mut eta = vec![T::of(0.0); self.sites];
        for (eta, row) in eta.iter_mut().zip(&self.error_root) {
            row.iter().zip(xi).for_each(|(l, xi)| *eta += *l * *xi);
        }
        eta
    }

    /// The state after every RK4 step of the window, the initial one included.
    fn path(&self, control: &[T]) -> Vec<Vec<T>> {
        let mut path = vec![control[..self.sites].to_vec()];
        for step in 0..(self.times - 1) * self.steps_per_time {
            let mut next = self.stages(self.parameters_of(control), &path[step]).1;
            if let Some(k) = self.error_after(step) {
                next.iter_mut().zip(self.error(control, k)).for_each(|(x, eta)| *x += eta);
            }
            path.push(next);
        }
        path
    }

    /// The states at the stored times.
    pub fn trajectory(&self, control: &[T]) -> Vec<Vec<T>> {
        self.path(control).into_iter().step_by(self.steps_per_time).collect()
    }

    /// The Jacobian of one step from `x`, less the identity: h/6 (K1 + 2 K2 + 2 K3 + K4), where K1 = A(x),
    /// K2 = A(x2) (I + h/2 K1), K3 = A(x3) (I + h/2 K2), K4 = A(x4) (I + h K3) and A is the tendency's Jacobian.
    ///
    /// The identity stays out because in f32 rounding 1 + O(dt) would bias every step alike.
    fn step_jacobian(&self, parameters: &[T], x: &[T]) -> Dense<T> {
        let n = self.sites;
        let (h, half, two) = (self.dt, self.dt * T::of(0.5), T::of(2.0));
        let ([x1, x2, x3, x4], _) = self.stages(parameters, x);
        let k1 = self.jacobian_times(parameters, &x1, &Dense::identity(n));
        let k2 = self.jacobian_times(parameters, &x2, &Dense::identity(n).plus(half, &k1));
        let k3 = self.jacobian_times(parameters, &x3, &Dense::identity(n).plus(half, &k2));
        let k4 = self.jacobian_times(parameters, &x4, &Dense::identity(n).plus(h, &k3));
        let sum = k1.plus(two, &k2).plus(two, &k3).plus(T::of(1.0), &k4);
        Dense { n, rows: sum.rows.into_iter().map(|v| v * (h / T::of(6.0))).collect() }
    }

    /// A(x) K
    fn jacobian_times(&self, parameters: &[T], x: &[T], k: &Dense<T>) -> Dense<T> {
        let n = self.sites;
        let mut rows = vec![T::of(0.0); n * n];
        for (to, entries) in rows.chunks_mut(n).zip(jacobian(self.model, parameters, x)) {
            for (column, a) in entries {
                to.iter_mut().zip(k.row(column)).for_each(|(to, k)| *to += a * *k);
            }
        }
        Dense { n, rows }
    }

    /// The derivatives of one step from `x` with respect to each parameter: h/6 (f1 + 2 f2 + 2 f3 + f4) with f1 = G(x),
    /// f2 = G(x2) + h/2 A(x2) f1, f3 = G(x3) + h/2 A(x3) f2, f4 = G(x4) + h A(x4) f3, where G is that of the tendency.
    fn step_by_parameters(&self, parameters: &[T], x: &[T]) -> Vec<Vec<T>> {
        let n = self.sites;
        let ([x1, x2, x3, x4], _) = self.stages(parameters, x);
        let (half, two) = (self.dt * T::of(0.5), T::of(2.0));
        let identity = Dense::identity(n);
        let [a2, a3, a4] = [&x2, &x3, &x4].map(|x| self.jacobian_times(parameters, x, &identity));
        let [g1, g2, g3, g4] = [&x1, &x2, &x3, &x4].map(|x| by_parameters(self.model, x));
        let next = |a: &Dense<T>, g: &[T], by: T, f: &[T]| -> Vec<T> {
            let moved: Vec<T> = f.iter().map(|f| by * *f).collect();
            a.times(&moved).into_iter().zip(g).map(|(v, g)| v + *g).collect()
        };
        let one = |k: usize| {
            let f1 = &g1[k];
            let f2 = next(&a2, &g2[k], half, f1);
            let f3 = next(&a3, &g3[k], half, &f2);
            let f4 = next(&a4, &g4[k], self.dt, &f3);
            (0..n).map(|i| (f1[i] + two * f2[i] + two * f3[i] + f4[i]) * (self.dt / T::of(6.0))).collect()
        };
        (0..parameters.len()).map(one).collect()
    }

    /// The derivative of the states at the stored times along a direction of the control.
    pub fn tangent(&self, control: &[T], direction: &[T]) -> Vec<Vec<T>> {
        let (path, own) = (self.path(control), self.parameters_of(control));
        let mut v = direction[..self.sites].to_vec();
        let mut out = vec![v.clone()];
        for (step, x) in path[..path.len() - 1].iter().enumerate() {
            let increment = self.step_jacobian(own, x).times(&v);
            v.iter_mut().zip(increment).for_each(|(v, d)| *v += d);
            if self.estimated {
                for (along, by) in self.parameters_of(direction).iter().zip(self.step_by_parameters(own, x)) {
                    v.iter_mut().zip(by).for_each(|(v, d)| *v += d * *along);
                }
            }
            if let Some(k) = self.error_after(step) {
                v.iter_mut().zip(self.error(direction, k)).for_each(|(v, d)| *v += d);
            }
            if (step + 1).is_multiple_of(self.steps_per_time) {
                out.push(v.clone());
            }
        }
        out
    }

    /// The transpose of [`Self::tangent`] applied to a forcing w at the stored times.
    pub fn adjoint(&self, control: &[T], forcing: &[Vec<T>]) -> Vec<T> {
        self.adjoint_along(control, &self.path(control), forcing)
    }

    fn adjoint_along(&self, control: &[T], path: &[Vec<T>], forcing: &[Vec<T>]) -> Vec<T> {
        let n = self.sites;
        let own = self.parameters_of(control);
        let mut out = vec![T::of(0.0); self.background.len()];
        let mut g = forcing[self.times - 1].clone();
        for step in (0..path.len() - 1).rev() {
            if let Some(k) = self.error_after(step) {
                for (g, row) in g.iter().zip(&self.error_root) {
                    out[n * (1 + k)..].iter_mut().zip(row).for_each(|(out, l)| *out += *l * *g);
                }
            }
            if g.iter().any(|g| *g != T::of(0.0)) {
                if self.estimated {
                    let first = out.len() - own.len();
                    for (out, by) in out[first..].iter_mut().zip(self.step_by_parameters(own, &path[step])) {
                        g.iter().zip(by).for_each(|(g, d)| *out += *g * d);
                    }
                }
                let increment = self.step_jacobian(own, &path[step]).transposed_times(&g);
                g.iter_mut().zip(increment).for_each(|(g, d)| *g += d);
            }
            if step.is_multiple_of(self.steps_per_time) {
                g.iter_mut().zip(&forcing[step / self.steps_per_time]).for_each(|(g, w)| *g += *w);
            }
        }
        out[..n].copy_from_slice(&g);
        out
    }

    /// h(x)
    fn point(&self, x: T) -> T {
        let (zero, one) = (T::of(0.0), T::of(1.0));
        match self.function {
            PointFunction::Identity => x,
            PointFunction::Square => x * x,
            PointFunction::Cubic => x * x * x,
            PointFunction::Softplus if x > zero => x + (one / x.exp()).ln_1p(),
            PointFunction::Softplus => x.exp().ln_1p(),
        }
    }

    /// h'(x)
    fn point_derivative(&self, x: T) -> T {
        let (zero, one) = (T::of(0.0), T::of(1.0));
        match self.function {
            PointFunction::Identity => one,
            PointFunction::Square => x + x,
            PointFunction::Cubic => T::of(3.0) * x * x,
            PointFunction::Softplus if x > zero => one / (one + (-x).exp()),
            PointFunction::Softplus => x.exp() / (one + x.exp()),
        }
    }

    /// H(x)_j, the mean of h over the sites of block j.
    pub fn observe(&self, x: &[T]) -> Vec<T> {
        let size = self.block_size;
        (0..self.sites / size)
            .map(|j| {
                let mut sum = T::of(0.0);
                (j * size..(j + 1) * size).for_each(|i| sum += self.point(x[i]));
                sum / T::of(size as f64)
            })
            .collect()
    }

    /// J_b = 1/2 (x0 - xb)' B^-1 (x0 - xb), with the prior of what else the control holds, and
    /// J_o = 1/2 sum_t w_t (H(x_t) - y_t)' R_t^-1 (H(x_t) - y_t)
    pub fn cost(&self, control: &[T]) -> Split<T> {
        self.cost_along(control, &self.trajectory(control))
    }

    fn cost_along(&self, control: &[T], stored: &[Vec<T>]) -> Split<T> {
        let (mut background, mut observation) = (T::of(0.0), T::of(0.0));
        let departure = self.departure(control);
        departure.iter().zip(self.weighted(&departure)).for_each(|(d, w)| background += *d * w);
        for o in &self.observed {
            let r = self.observe(&stored[o.time])[o.block] - o.value;
            observation += o.weight * r * r;
        }
        Split { background: background * T::of(0.5), observation: observation * T::of(0.5) }
    }

    /// Both terms of the cost, and the gradient of each.
    pub fn gradient(&self, control: &[T]) -> (Split<T>, Split<Vec<T>>) {
        let path = self.path(control);
        let stored: Vec<Vec<T>> = path.iter().step_by(self.steps_per_time).cloned().collect();
        let mut forcing = vec![vec![T::of(0.0); self.sites]; self.times];
        for o in &self.observed {
            let x = &stored[o.time];
            let r = o.weight * (self.observe(x)[o.block] - o.value) / T::of(self.block_size as f64);
            for i in o.block * self.block_size..(o.block + 1) * self.block_size {
                forcing[o.time][i] += r * self.point_derivative(x[i]);
            }
        }
        let background = self.weighted(&self.departure(control));
        let observation = self.adjoint_along(control, &path, &forcing);
        (self.cost_along(control, &stored), Split { background, observation })
    }

    fn departure(&self, control: &[T]) -> Vec<T> {
        control.iter().zip(&self.background).map(|(x, b)| *x - *b).collect()
    }

    /// The prior's inverse covariance times d: B^-1 of x0's part.
    fn weighted(&self, d: &[T]) -> Vec<T> {
        let of_state = self.precision.iter().map(|row| {
            let mut sum = T::of(0.0);
            row.iter().zip(d).for_each(|(p, d)| sum += *p * *d);
            sum
        });
        of_state.chain(self.rest.iter().zip(&d[self.sites..]).map(|(p, d)| *p * *d)).collect()
    }
}

/// A square matrix by rows.
struct Dense<T> {
    n: usize,
    rows: Vec<T>,
}

impl<T: Real> Dense<T> {
    fn identity(n: usize) -> Self {
        let entry = |e: usize| if e / n == e % n { T::of(1.0) } else { T::of(0.0) };
        Self { n, rows: (0..n * n).map(entry).collect() }
    }

    fn row(&self, i: usize) -> &[T] {
        &self.rows[i * self.n..(i + 1) * self.n]
    }

    /// self + factor * other
    fn plus(mut self, factor: T, other: &Self) -> Self {
        self.rows.iter_mut().zip(&other.rows).for_each(|(a, b)| *a += factor * *b);
        self
    }

    fn times(&self, v: &[T]) -> Vec<T> {
        let mut out = vec![T::of(0.0); self.n];
        for (i, out) in out.iter_mut().enumerate() {
            self.row(i).iter().zip(v).for_each(|(m, v)| *out += *m * *v);
        }
        out
    }

    fn transposed_times(&self, w: &[T]) -> Vec<T> {
        let mut out = vec![T::of(0.0); self.n];
        for (i, w) in w.iter().enumerate() {
            out.iter_mut().zip(self.row(i)).for_each(|(out, m)| *out += *m * *w);
        }
        out
    }
}

/// The lower triangular L with L L' = a, row by row.
fn cholesky(a: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let n = a.len();
    let mut l = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let rest = a[i][j] - (0..j).map(|k| l[i][k] * l[j][k]).sum::<f64>();
            l[i][j] = if i == j { rest.sqrt() } else { rest / l[j][j] };
        }
    }
    l
}

/// The inverse by Gauss-Jordan elimination with row pivots.
fn inverse(mut a: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let n = a.len();
    let mut b: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for column in 0..n {
        let pivot = (column..n).max_by(|&i, &j| a[i][column].abs().total_cmp(&a[j][column].abs())).unwrap();
        a.swap(column, pivot);
        b.swap(column, pivot);
        let divisor = a[column][column];
        for j in 0..n {
            a[column][j] /= divisor;
            b[column][j] /= divisor;
        }
        for i in (0..n).filter(|&i| i != column) {
            let factor = a[i][column];
            for j in 0..n {
                a[i][j] -= factor * a[column][j];
                b[i][j] -= factor * b[column][j];
            }
        }
    }
    b
}

/// Sums over the members of one problem, as the engine's moments define them.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Sum of J_b.
    pub cost_background: f64,
    /// Sum of J_o.
    pub cost_observation: f64,
    /// Sum of (J - mean of J)^2.
    pub cost_deviation: f64,
    /// Sum of g.
    pub gradient: Vec<f64>,
    /// Sum of g^2.
    pub gradient_squared: Vec<f64>,
    /// Sum of eps.
    pub epsilon: Vec<f64>,
    /// Sum of eps^2.
    pub epsilon_squared: Vec<f64>,
    /// Sum of g eps.
    pub gradient_epsilon: Vec<f64>,
}

/// The sums over members with costs (J_b, J_o), gradients and normals.
pub fn sums(costs: &[(f64, f64)], gradients: &[Vec<f64>], epsilons: &[Vec<f64>]) -> Sums {
    let control = gradients.first().map_or(0, Vec::len);
    let mean = costs.iter().map(|c| c.0 + c.1).sum::<f64>() / costs.len() as f64;
    let over_members = |term: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        (0..control).map(|i| (0..costs.len()).map(|k| term(k, i)).sum()).collect()
    };
    Sums {
        cost_background: costs.iter().map(|c| c.0).sum(),
        cost_observation: costs.iter().map(|c| c.1).sum(),
        cost_deviation: costs.iter().map(|c| (c.0 + c.1 - mean).powi(2)).sum(),
        gradient: over_members(&|k, i| gradients[k][i]),
        gradient_squared: over_members(&|k, i| gradients[k][i].powi(2)),
        epsilon: over_members(&|k, i| epsilons[k][i]),
        epsilon_squared: over_members(&|k, i| epsilons[k][i].powi(2)),
        gradient_epsilon: over_members(&|k, i| gradients[k][i] * epsilons[k][i]),
    }
}

/// A sum over members of the outer products of two vectors of each, a b'.
#[derive(Clone, Debug)]
pub struct OuterSum {
    /// The matrix by rows.
    pub values: Vec<f64>,
    /// The most that any of its numbers could be, by Cauchy and Schwarz: what an error is measured by.
    pub most: f64,
}

/// Vectors of members, and the same without the cancellation in their numbers.
type Vectors = (Vec<Vec<f64>>, Vec<Vec<f64>>);

impl OuterSum {
    fn new(a: &Vectors, b: &Vectors, kept: impl Fn(usize, usize) -> bool) -> Self {
        let ((a, a_sizes), (b, b_sizes)) = (a, b);
        let square = |of: &[Vec<f64>], i: usize| of.iter().map(|v| v[i] * v[i]).sum::<f64>();
        let largest = |of: &[Vec<f64>]| (0..of[0].len()).map(|i| square(of, i)).fold(0.0, f64::max);
        let mut values = Vec::new();
        for i in 0..a[0].len() {
            for j in 0..b[0].len() {
                values.push(if kept(i, j) { (0..a.len()).map(|k| a[k][i] * b[k][j]).sum() } else { 0.0 });
            }
        }
        Self { values, most: (largest(a_sizes) * largest(b_sizes)).sqrt() }
    }
}

/// The sums on the pattern of problem `p`'s S over members with these gradients and normals, as
/// [`PatternSums`](crate::engine::PatternSums) lists them.
pub fn pattern_sums(scale: &Scale, p: usize, gradients: &[Vec<f64>], epsilons: &[Vec<f64>]) -> Vec<OuterSum> {
    let plain = |vectors: &[Vec<f64>]| -> Vectors { (vectors.to_vec(), vectors.to_vec()) };
    let (gradients, epsilons) = (plain(gradients), plain(epsilons));
    match scale {
        Scale::Diagonal(_) => Vec::new(),
        Scale::Lower(_) => [&gradients, &epsilons].map(|rows| OuterSum::new(rows, &epsilons, |i, j| i >= j)).into(),
        Scale::LowRank { left, right, .. } => {
            // F'v
            let on = |factor: &Array3<f64>, (vectors, _): &Vectors| -> Vectors {
                let sum = |v: &[f64], c: usize, size: fn(f64) -> f64| -> f64 {
                    v.iter().enumerate().map(|(i, v)| size(factor[[p, i, c]] * v)).sum()
                };
                let all = |size: fn(f64) -> f64| {
                    vectors.iter().map(|v| (0..factor.shape()[2]).map(|c| sum(v, c, size)).collect()).collect()
                };
                (all(|v| v), all(f64::abs))
            };
            let (left, right) = (on(left, &gradients), on(right, &epsilons));
            [(&gradients, &right), (&epsilons, &left), (&epsilons, &right)]
                .map(|(a, b)| OuterSum::new(a, b, |_, _| true))
                .into()
        }
    }
}

/// Philox4x32-10 from the paper's definition: ten rounds, the key bumped between them.
pub fn philox(seed: u64, counter: [u32; 4]) -> [u32; 4] {
    const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u64; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let mut c = counter;
    for round in 0..10u64 {
        let key = |half: usize| (((seed >> (32 * half)) % (1 << 32) + round * WEYL[half]) % (1 << 32)) as u32;
        let (even, odd) = (MULTIPLIERS[0] * u64::from(c[0]), MULTIPLIERS[1] * u64::from(c[2]));
        let (high, low) = (|p: u64| (p / (1 << 32)) as u32, |p: u64| (p % (1 << 32)) as u32);
        c = [high(odd) ^ c[1] ^ key(0), low(odd), high(even) ^ c[3] ^ key(1), low(even)];
    }
    c
}

/// The standard normals of one member: for each four sites the words (a, b, c, d) give r cos v and r sin v from
/// (a, b), then from (c, d), with r = sqrt(-2 log(((a >> 8) + 1) / 2^24)) and v = 2 pi (b >> 8) / 2^24.
pub fn normals(seed: u64, stream: u32, iteration: u32, member: u32, count: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for block in 0..count.div_ceil(4) as u32 {
        let words = philox(seed, [block, member, iteration, stream]);
        for pair in words.chunks(2) {
            let unit = f64::from((pair[0] >> 8) + 1) / f64::from(1 << 24);
            let turn = f64::from(pair[1] >> 8) / f64::from(1 << 24);
            let radius = (-2.0 * unit.ln()).sqrt();
            out.push(radius * (std::f64::consts::TAU * turn).cos());
            out.push(radius * (std::f64::consts::TAU * turn).sin());
        }
    }
    out.truncate(count);
    out
}
