//! What the tests share: random problems to order, one way to compare, one table of tolerances.

use ndarray::{Array1, Array2, Array3, ArrayView, Dimension};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use vi4dvar::engine::Precision;
use vi4dvar::model::Model;
use vi4dvar::problem::{
    Background, CovarianceFactor, ErrorCovariance, ModelError, ObservationOperator, PointFunction, Problem, Window,
};
use vi4dvar::validation::oracle::{Oracle, Real};

/// What a tolerance bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// Trajectories, tangents, adjoints, costs and gradients over windows of at most 1.2 time units.
    Short,
    /// The same over windows of about 2 time units and up to 10,000 steps.
    Long,
    /// Sums over a batch against the oracle's sums of the same members.
    Sums,
    /// Sums over a batch against the same engine's gradients, added up in f64.
    OwnSums,
    /// <w, M v> against <M' w, v>.
    DotProduct,
    /// A gradient against central differences of the cost.
    Differences,
    /// m + S eps against the oracle's normals.
    Draws,
}

/// A bound on the largest |difference| divided by the largest |expected value|, and why it is what it is.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub bound: f64,
    pub reason: &'static str,
}

/// The one table of tolerances. f32 over long windows has no fixed bound: see [`plain_f32_loss`].
///
/// 5e-5 over 240 short steps is near what f32 can do: of 166 random problems, two had an error growth at which even a
/// plain f32 evaluation of the oracle lost more. The seeds of the tests are fixed and not among them.
pub fn tolerance(quantity: Quantity, precision: Precision) -> Tolerance {
    use Precision::{F32, F64};
    let (bound, reason) = match (quantity, precision) {
        (Quantity::Short, F64) => (1e-11, "rounding of 1e-16 times 100 terms times an error growth of 10 to 100"),
        (Quantity::Short, F32) => (5e-5, "rounding of 6e-8 times an error growth of 10 to 100, with room for FMA"),
        (Quantity::Long, F64) => (1e-9, "rounding of 1e-16 times 10,000 steps times an error growth of 10^3"),
        (Quantity::Long, F32) => (f64::NAN, "bounded by what a plain f32 evaluation of the oracle loses"),
        (Quantity::Sums, F64) => (1e-11, "as for each member; the largest sum is the scale"),
        (Quantity::Sums, F32) => (2e-4, "as for each member, and squares double a relative error"),
        (Quantity::OwnSums, F64) => (1e-12, "only the order of the sum differs"),
        (Quantity::OwnSums, F32) => (5e-6, "the order of f32 sums differs, and two kernels may contract differently"),
        (Quantity::DotProduct, F64) => (1e-12, "exact adjoint: rounding alone"),
        (Quantity::DotProduct, F32) => (2e-5, "exact adjoint: rounding alone"),
        (Quantity::Differences, _) => (2e-6, "f64 cost, step 1e-4: truncation 1e-8 times a third derivative"),
        (Quantity::Draws, F64) => (1e-6, "normals are made in f32 on every engine"),
        (Quantity::Draws, F32) => (1e-6, "normals are made in f32; one more rounding of m + S eps"),
    };
    Tolerance { bound, reason }
}

/// How much more than a plain f32 evaluation of the oracle an f32 engine may lose over a long window.
pub const PLAIN_F32_FACTOR: f64 = 32.0;

/// Units in the last place between the normals of two engines.
pub const NORMAL_ULPS_BETWEEN_ENGINES: u32 = 4;

/// Units in the last place between an engine's normals and exact ones: logarithm 2, halved by the root, sine or
/// cosine 1, three roundings, and a spread of up to 2 between the ulps of factor and product.
pub const NORMAL_ULPS: u32 = 6;

/// The bound for an f32 result over a long window, given what the plain f32 oracle lost on the same inputs.
pub fn plain_f32_loss(loss: f64) -> Tolerance {
    Tolerance {
        bound: PLAIN_F32_FACTOR * loss.max(f64::from(f32::EPSILON)),
        reason: "32 times the loss of a plain f32 evaluation of the oracle on the same inputs",
    }
}

/// Results of the bodies on one engine: the failures, and the largest error seen of each kind.
#[derive(Debug, Default)]
pub struct Report {
    pub failures: Vec<String>,
    worst: BTreeMap<String, (f64, f64)>,
}

impl Report {
    /// Notes a failure unless the condition holds.
    pub fn expect(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(message());
        }
    }

    /// Notes a figure that was judged elsewhere.
    pub fn figure(&mut self, kind: &str, error: f64, bound: f64) {
        let worst = self.worst.entry(kind.to_owned()).or_insert((0.0, bound));
        if error.is_nan() || error / bound > worst.0 / worst.1 {
            *worst = (error, bound);
        }
    }

    /// The largest error of each kind beside its bound, one a line.
    pub fn figures(&self) -> String {
        self.worst.iter().fold(String::new(), |mut text, (kind, (error, bound))| {
            writeln!(text, "    {kind:<34} largest error {error:9.2e}, bound {bound:8.1e}").unwrap();
            text
        })
    }
}

/// The outcome of a comparison, to be handed to a report or asserted.
#[must_use = "a comparison that nobody looks at proves nothing"]
#[derive(Debug)]
pub struct Comparison {
    kind: String,
    error: f64,
    bound: f64,
    failure: Option<String>,
}

impl Comparison {
    /// The largest |difference| over the scale.
    pub fn error(&self) -> f64 {
        self.error
    }

    /// Hands the outcome to a report.
    pub fn note(self, report: &mut Report) {
        report.figure(&self.kind, self.error, self.bound);
        report.failures.extend(self.failure);
    }

    /// Panics unless both sides agree.
    pub fn assert(self) {
        if let Some(failure) = self.failure {
            panic!("{failure}");
        }
    }
}

/// Compares two arrays: largest |difference| divided by the largest |wanted value|. `kind` groups errors in the
/// report, `case` says which one this is.
///
/// Values that are not finite are counted on both sides before any maximum is taken, because a maximum skips NaN.
pub fn compare<D: Dimension>(
    kind: &str,
    case: &str,
    got: ArrayView<f64, D>,
    want: ArrayView<f64, D>,
    tolerance: Tolerance,
) -> Comparison {
    let scale = want.iter().fold(0.0f64, |a, v| a.max(v.abs()));
    compare_scaled(kind, case, got, want, scale, tolerance)
}

/// As [`compare`], with a scale of its own.
pub fn compare_scaled<D: Dimension>(
    kind: &str,
    case: &str,
    got: ArrayView<f64, D>,
    want: ArrayView<f64, D>,
    scale: f64,
    tolerance: Tolerance,
) -> Comparison {
    let outcome = |error: f64, failure: Option<String>| Comparison {
        kind: kind.to_owned(),
        error,
        bound: tolerance.bound,
        failure: failure.map(|text| format!("{kind} [{case}]: {text}")),
    };
    if got.shape() != want.shape() {
        return outcome(f64::NAN, Some(format!("shape {:?}, expected {:?}", got.shape(), want.shape())));
    }
    if got.is_empty() {
        return outcome(f64::NAN, Some("nothing to compare".into()));
    }
    let broken = |side: &ArrayView<f64, D>| side.iter().filter(|v| !v.is_finite()).count();
    let (bad_got, bad_want) = (broken(&got), broken(&want));
    if bad_got + bad_want > 0 {
        let index = got.indexed_iter().zip(&want).find(|((_, g), w)| !(g.is_finite() && w.is_finite()));
        let ((index, g), w) = index.unwrap();
        let text = format!(
            "not finite: {bad_got} of {} values, {bad_want} of the expected ones; first at {index:?}: {g:e}, expected {w:e}",
            got.len()
        );
        return outcome(f64::NAN, Some(text));
    }
    let divisor = if scale > 0.0 { scale } else { 1.0 };
    let gap = |((_, g), w): &((D::Pattern, &f64), &f64)| (**g - **w).abs();
    let largest = got.indexed_iter().zip(&want).max_by(|a, b| gap(a).total_cmp(&gap(b))).unwrap();
    let error = gap(&largest) / divisor;
    let ((index, g), w) = largest;
    let failure = (error.is_nan() || error > tolerance.bound).then(|| {
        format!(
            "off by {error:.3e} of the largest value {divisor:.3e}, tolerance {:.1e} ({}); at {index:?}: {g:.17e}, expected {w:.17e}",
            tolerance.bound, tolerance.reason
        )
    });
    outcome(error, failure)
}

/// Units in the last place between two numbers of f32; huge for anything not finite.
pub fn ulps(a: f64, b: f64) -> u32 {
    let key = |v: f64| {
        let bits = (v as f32).to_bits() as i32;
        i64::from(if bits < 0 { i32::MIN - bits } else { bits })
    };
    if !(a.is_finite() && b.is_finite()) {
        return u32::MAX;
    }
    key(a).abs_diff(key(b)).min(u64::from(u32::MAX)) as u32
}

/// A small generator (SplitMix64), so that test problems depend on nothing under test.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform on [low, high).
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform(0.0, 1.0)).ln()).sqrt();
        radius * self.uniform(0.0, std::f64::consts::TAU).cos()
    }
}

/// Which ingredients of a problem set are stored once per problem rather than once for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerProblem {
    pub background: bool,
    pub deviations: bool,
    pub scale: bool,
    pub observations: bool,
    pub observation_std: bool,
    pub weights: bool,
    pub parameters: bool,
    /// Deviations of model errors and parameters.
    pub control: bool,
}

impl PerProblem {
    pub const NONE: Self = Self::each(false);
    pub const ALL: Self = Self::each(true);

    const fn each(own: bool) -> Self {
        Self {
            background: own,
            deviations: own,
            scale: own,
            observations: own,
            observation_std: own,
            weights: own,
            parameters: own,
            control: own,
        }
    }
}

/// An order for a random problem set: states on the attractor, observations of a true run with noise, a background
/// beside the truth.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub model: Model,
    pub seed: u64,
    pub sites: usize,
    pub times: usize,
    /// None: all of them.
    pub assimilated_times: Option<usize>,
    pub steps_per_time: usize,
    pub dt: f64,
    pub function: PointFunction,
    pub block_size: usize,
    /// A factor on the deviations of the observations.
    pub noise: f64,
    pub full_background: bool,
    /// Share of the observations that exist.
    pub observed: f64,
    /// Whether time weights vary (some of them 0) rather than being 1.
    pub weighted: bool,
    /// Steps between two errors of the model, where it has any, and whether their Q is full.
    pub errors: Option<(usize, bool)>,
    /// Whether the parameters are estimated.
    pub estimated: bool,
    pub problems: usize,
    pub per_problem: PerProblem,
}

impl Default for Recipe {
    /// 1.2 time units of one step each on 16 sites, half of them observed, diagonal B.
    fn default() -> Self {
        Self {
            model: Model::Lorenz96,
            seed: 1,
            sites: 16,
            times: 25,
            assimilated_times: None,
            steps_per_time: 1,
            dt: 0.05,
            function: PointFunction::Identity,
            block_size: 1,
            noise: 1.0,
            full_background: false,
            observed: 0.5,
            weighted: false,
            errors: None,
            estimated: false,
            problems: 1,
            per_problem: PerProblem::NONE,
        }
    }
}

impl Recipe {
    /// The same on Lorenz-63, in steps that suit it.
    pub fn lorenz63(self) -> Self {
        Self { model: Model::Lorenz63, sites: 3, dt: self.dt * 0.4, ..self }
    }

    /// The same on so many sites; three are Lorenz-63's.
    pub fn sized(self, sites: usize) -> Self {
        if sites == 3 { self.lorenz63() } else { Self { sites, ..self } }
    }

    /// How many parameters are estimated.
    pub fn parameters(&self) -> usize {
        if self.estimated { self.usual_parameters().len() } else { 0 }
    }

    /// One line for messages.
    pub fn label(&self) -> String {
        let mut text = format!(
            "{} n {} times {} x {} of {} {} B {}",
            self.model.name(),
            self.sites,
            self.times,
            self.steps_per_time,
            self.dt,
            self.function.name(),
            if self.full_background { "full" } else { "diagonal" },
        );
        for (differs, part) in [
            (self.block_size != 1, format!(" blocks of {}", self.block_size)),
            (self.noise != 1.0, format!(" noise x {}", self.noise)),
            (self.problems != 1, format!(" P {}", self.problems)),
            (self.assimilated_times.is_some(), format!(" assimilated {:?}", self.assimilated_times)),
            (self.weighted, " weighted".into()),
            (self.observed != 0.5, format!(" observed {}", self.observed)),
            (self.errors.is_some(), format!(" errors {:?}", self.errors)),
            (self.estimated, " parameters estimated".into()),
        ] {
            if differs {
                text.push_str(&part);
            }
        }
        text
    }

    /// The problem set.
    pub fn build(&self) -> Problem {
        let mut dice = Dice::new(self.seed);
        let (n, times) = (self.sites, self.times);
        let blocks = n / self.block_size;
        let rows = |own: bool| if own { self.problems } else { 1 };
        let own = self.per_problem;
        let usual = self.usual_parameters();
        let shape = (rows(own.parameters), usual.len());
        let parameters = Array2::from_shape_fn(shape, |(p, k)| usual[k] + 0.25 * p as f64);
        let mut problem = Problem {
            model: self.model,
            parameters,
            parameter_std: None,
            true_parameters: None,
            model_error: None,
            window: Window {
                times,
                assimilated_times: self.assimilated_times.unwrap_or(times),
                steps_per_time: self.steps_per_time,
                dt: self.dt,
            },
            background: Background {
                mean: Array2::zeros((rows(own.background), n)),
                error: ErrorCovariance::Diagonal(Array2::from_elem((1, n), 1.0)),
                scale: Array1::from_shape_fn(rows(own.scale), |p| if own.scale { 0.5 + 0.25 * p as f64 } else { 1.0 }),
            },
            operator: ObservationOperator { function: self.function, block_size: self.block_size },
            observations: Array3::from_elem((rows(own.observations), times, blocks), f64::NAN),
            observation_std: Array3::from_elem((rows(own.observation_std), times, blocks), f64::NAN),
            weights: Array2::from_elem((rows(own.weights), times), 1.0),
            seeds: (0..self.problems as u64).map(|p| self.seed.wrapping_mul(0x1_0000_0001) ^ (p << 33) ^ p).collect(),
            truth: None,
        };
        if self.weighted {
            problem.weights.mapv_inplace(|_| if dice.uniform(0.0, 1.0) < 0.25 { 0.0 } else { dice.uniform(0.1, 2.0) });
        }
        problem.background.error = covariance(&mut dice, n, rows(own.deviations), self.full_background, [0.3, 1.0]);

        let truths: Vec<Vec<Vec<f64>>> = (0..self.problems)
            .map(|p| {
                let oracle = Oracle::<f64>::new(&problem, p);
                // The truth has neither errors nor another forcing: what they are is no matter here.
                let start: Vec<f64> = (0..n).map(|_| 2.0 + dice.normal()).collect();
                // The spin-up wants a time unit or more, whatever the window's own step is.
                oracle.trajectory(&oracle.integrate(&start, (4.0 / self.dt) as usize))
            })
            .collect();
        for (p, mut row) in problem.background.mean.rows_mut().into_iter().enumerate() {
            row.iter_mut().zip(&truths[p][0]).for_each(|(b, x)| *b = x + 0.4 * dice.normal());
        }
        let mut exists: Vec<bool> = Vec::new();
        for (p, truth) in truths.iter().enumerate().take(rows(own.observations)) {
            let oracle = Oracle::<f64>::new(&problem, p);
            for (t, x) in truth.iter().enumerate() {
                for (j, h) in oracle.observe(x).into_iter().enumerate() {
                    // The mask is shared wherever the deviations are, which are NaN where nothing was observed.
                    let slot = t * blocks + j;
                    if slot >= exists.len() {
                        exists.push(dice.uniform(0.0, 1.0) < self.observed);
                    }
                    let own_hole = own.observations && dice.uniform(0.0, 1.0) < 0.1;
                    if exists[slot] && !own_hole {
                        problem.observations[[p, t, j]] = h + self.noise_level() * dice.normal();
                    }
                }
            }
        }
        for ((_, t, j), std) in problem.observation_std.indexed_iter_mut() {
            if exists[t * blocks + j] {
                *std = self.noise_level() * dice.uniform(0.7, 1.4);
            }
        }
        if let Some((interval, full)) = self.errors {
            let covariance = covariance(&mut dice, n, rows(own.control), full, [0.05, 0.3]);
            problem.model_error = Some(ModelError { covariance, interval });
        }
        if self.estimated {
            let shape = (rows(own.control), usual.len());
            let std = Array2::from_shape_simple_fn(shape, || dice.uniform(0.3, 0.8));
            problem.parameter_std = Some(std);
        }
        problem
    }

    /// As the models' papers have them.
    fn usual_parameters(&self) -> Vec<f64> {
        match self.model {
            Model::Lorenz96 => vec![8.0],
            Model::Lorenz63 => vec![10.0, 28.0, 8.0 / 3.0],
        }
    }

    /// About a tenth of the amplitude of the observed signal.
    fn noise_level(&self) -> f64 {
        self.noise
            * match self.function {
                PointFunction::Identity | PointFunction::Softplus => 0.7,
                PointFunction::Square => 5.0,
                PointFunction::Cubic => 50.0,
            }
    }

    /// Numbers of a control, as this recipe defines it.
    pub fn control(&self) -> usize {
        let steps = (self.assimilated_times.unwrap_or(self.times) - 1) * self.steps_per_time;
        self.sites * (1 + self.errors.map_or(0, |(interval, _)| steps / interval)) + self.parameters()
    }

    /// The prior mean of problem `p`'s control: `[control]`.
    pub fn mean(&self, problem: &Problem, p: usize) -> Vec<f64> {
        let row = |rows: usize| if rows == 1 { 0 } else { p };
        let mut mean = problem.background.mean.row(row(problem.background.mean.nrows())).to_vec();
        mean.resize(self.control(), 0.0);
        if self.estimated {
            let own = problem.parameters.row(row(problem.parameters.nrows()));
            let first = mean.len() - own.len();
            mean[first..].copy_from_slice(&own.to_vec());
        }
        mean
    }

    /// `count` members per problem, scattered around the background: `[P * count, control]`.
    pub fn members(&self, problem: &Problem, count: usize) -> Array2<f64> {
        let mut dice = Dice::new(self.seed ^ 0x5EED);
        let means: Vec<_> = (0..self.problems).map(|p| self.mean(problem, p)).collect();
        Array2::from_shape_fn((self.problems * count, self.control()), |(row, i)| {
            means[row / count][i] + 0.4 * dice.normal()
        })
    }

    /// Standard normal directions: `[rows, control]`.
    pub fn directions(&self, rows: usize) -> Array2<f64> {
        let mut dice = Dice::new(self.seed ^ 0xD1CE);
        Array2::from_shape_simple_fn((rows, self.control()), || dice.normal())
    }

    /// Standard normal forcing at every stored time: `[rows, times, sites]`.
    pub fn forcing(&self, rows: usize) -> Array3<f64> {
        let mut dice = Dice::new(self.seed ^ 0xF0CE);
        Array3::from_shape_simple_fn((rows, self.times, self.sites), || dice.normal())
    }
}

/// A covariance of `n` sites with deviations in some range, diagonal or of neighbours that are correlated.
fn covariance(dice: &mut Dice, n: usize, rows: usize, full: bool, [low, high]: [f64; 2]) -> ErrorCovariance {
    if !full {
        return ErrorCovariance::Diagonal(Array2::from_shape_simple_fn((rows, n), || dice.uniform(low, high)));
    }
    let one = |dice: &mut Dice| {
        let std: Vec<f64> = (0..n).map(|_| dice.uniform(low, high)).collect();
        let covariance = Array2::from_shape_fn((n, n), |(i, j)| {
            let distance = i.abs_diff(j).min(n - i.abs_diff(j));
            std[i] * std[j] * 0.5f64.powi(distance as i32)
        });
        CovarianceFactor::new(covariance).expect("positive definite by construction")
    };
    ErrorCovariance::Full((0..rows).map(|_| one(dice)).collect())
}

/// The oracle's answers for a whole batch, widened to f64.
pub struct Truth<'a> {
    problem: &'a Problem,
    members: &'a Array2<f64>,
}

/// The oracle's cost terms and gradients of a batch.
#[derive(Clone, Debug)]
pub struct TrueGradients {
    /// J_b: `[P * M]`.
    pub background: Array1<f64>,
    /// J_o: `[P * M]`.
    pub observation: Array1<f64>,
    /// dJ_b/dx0: `[P * M, sites]`.
    pub background_gradient: Array2<f64>,
    /// dJ_o/dx0: `[P * M, sites]`.
    pub observation_gradient: Array2<f64>,
}

impl TrueGradients {
    /// dJ/dx0: `[P * M, sites]`.
    pub fn gradient(&self) -> Array2<f64> {
        &self.background_gradient + &self.observation_gradient
    }
}

impl<'a> Truth<'a> {
    pub fn new(problem: &'a Problem, members: &'a Array2<f64>) -> Self {
        Self { problem, members }
    }

    /// Calls `each(row, oracle, x0)` for every member.
    fn each<T: Real>(&self, mut each: impl FnMut(usize, &Oracle<T>, &[T])) {
        let per_problem = self.members.nrows() / self.problem.count();
        for p in 0..self.problem.count() {
            let oracle = Oracle::<T>::new(self.problem, p);
            for row in p * per_problem..(p + 1) * per_problem {
                each(row, &oracle, &numbers::<T>(self.members.row(row).iter()));
            }
        }
    }

    pub fn trajectories<T: Real>(&self) -> Array3<f64> {
        let mut out = self.stored();
        self.each::<T>(|row, oracle, x0| fill(&mut out, row, &oracle.trajectory(x0)));
        out
    }

    pub fn tangents<T: Real>(&self, directions: &Array2<f64>) -> Array3<f64> {
        let mut out = self.stored();
        self.each::<T>(|row, oracle, x0| {
            fill(&mut out, row, &oracle.tangent(x0, &numbers::<T>(directions.row(row).iter())));
        });
        out
    }

    pub fn adjoints<T: Real>(&self, forcing: &Array3<f64>) -> Array2<f64> {
        let mut out = Array2::zeros(self.members.raw_dim());
        self.each::<T>(|row, oracle, x0| {
            let forcing: Vec<Vec<T>> =
                forcing.index_axis(ndarray::Axis(0), row).rows().into_iter().map(|w| numbers(w.iter())).collect();
            out.row_mut(row).iter_mut().zip(oracle.adjoint(x0, &forcing)).for_each(|(o, v)| *o = v.wide());
        });
        out
    }

    pub fn gradients<T: Real>(&self) -> TrueGradients {
        let rows = self.members.nrows();
        let mut out = TrueGradients {
            background: Array1::zeros(rows),
            observation: Array1::zeros(rows),
            background_gradient: Array2::zeros(self.members.raw_dim()),
            observation_gradient: Array2::zeros(self.members.raw_dim()),
        };
        self.each::<T>(|row, oracle, x0| {
            let (cost, gradient) = oracle.gradient(x0);
            out.background[row] = cost.background.wide();
            out.observation[row] = cost.observation.wide();
            let copy = |mut to: ndarray::ArrayViewMut1<f64>, from: Vec<T>| {
                to.iter_mut().zip(from).for_each(|(o, v)| *o = v.wide());
            };
            copy(out.background_gradient.row_mut(row), gradient.background);
            copy(out.observation_gradient.row_mut(row), gradient.observation);
        });
        out
    }

    /// The cost terms alone.
    pub fn costs<T: Real>(&self) -> (Array1<f64>, Array1<f64>) {
        let (mut background, mut observation) =
            (Array1::zeros(self.members.nrows()), Array1::zeros(self.members.nrows()));
        self.each::<T>(|row, oracle, x0| {
            let cost = oracle.cost(x0);
            (background[row], observation[row]) = (cost.background.wide(), cost.observation.wide());
        });
        (background, observation)
    }

    fn stored(&self) -> Array3<f64> {
        Array3::zeros((self.members.nrows(), self.problem.window.times, self.problem.background.mean.ncols()))
    }
}

fn numbers<'v, T: Real>(values: impl Iterator<Item = &'v f64>) -> Vec<T> {
    values.map(|v| T::of(*v)).collect()
}

fn fill<T: Real>(out: &mut Array3<f64>, row: usize, stored: &[Vec<T>]) {
    let mut out = out.index_axis_mut(ndarray::Axis(0), row);
    out.iter_mut().zip(stored.iter().flatten()).for_each(|(o, v)| *o = v.wide());
}
