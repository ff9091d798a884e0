//! Strong-constraint 4DVAR: the initial state of least cost, with a Laplace covariance around it.
//!
//! Every start of every problem is one member of a batch, one batch per evaluation.

use super::control::control_records;
use super::descent::{Descent, Rest, Windows, overflow_note, overflows, tolerances};
use super::laplace::{self, Hessian, Laplace};
use super::samples::{MAX_DIVERGED_SHARE, Samples};
use super::{
    Analysis, MOST_ITERATIONS, MOST_MEMBERS, Observer, Record, Watched, check_count, check_positive, check_samples,
    check_share,
};
use crate::engine::{Engine, LoadedProblem, Members, Precision};
use crate::error::{Error, Result};
use crate::optimizer::{AdamSettings, LbfgsSettings, Schedule};
use crate::problem::Problem;
use crate::random::{Stream, standard_normals};
use ndarray::{Array1, Array2, Array3, ArrayView2, Axis, concatenate, s};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::time::Instant;

pub use super::descent::Minimiser;

/// The method's name in tables.
pub const NAME: &str = "4DVAR";

/// The first of 4DVAR's starting points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FirstStart {
    /// x_b.
    #[default]
    Background,
    /// What a trained recognition network says of the observations (`--weights`).
    Amortized,
}

/// Settings of 4DVAR.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Starting points: x_b or `first_start`, then draws from N(x_b, B). The lowest minimum is kept, all are reported. Default: 8,
    /// which cost little more than one; of 20 twins of the case study, x_b alone ended above the lowest minimum in
    /// one, a start drawn at random in a fifth of the cases.
    pub starts: usize,
    /// The first of them. Default: x_b.
    pub first_start: FirstStart,
    /// Windows of growing length that each start passes through (quasi-static, after Pires, Vautard & Talagrand 1996);
    /// 1 takes the whole window at once. Default: 1.
    pub stages: usize,
    /// Default: L-BFGS.
    pub minimiser: Minimiser,
    /// Iterations at most in each window. Default: 1500.
    pub iterations: usize,
    /// Stop when the gradient's norm, in the whitened control, is below this times its norm at the start. Default:
    /// 1e-8 on an f64 engine, 1e-5 on an f32 one.
    pub gradient_tolerance: Option<f64>,
    /// Stop when an L-BFGS iteration lowers the cost by less than this times max(1, cost). Default: 1e-13 on an f64
    /// engine, 1e-7 on an f32 one, whose costs are good to about 1e-6.
    pub cost_tolerance: Option<f64>,
    /// Pairs that L-BFGS keeps. Default: 20.
    pub history: usize,
    /// Adam's learning rate, in background deviations. Default: 0.05.
    pub learning_rate: f64,
    /// Adam's schedule. Default: cosine, so that it comes to rest.
    pub schedule: Schedule,
    /// The Hessian under the Laplace covariance. Default: Gauss-Newton.
    pub hessian: Hessian,
    /// Samples drawn from the Laplace approximation, at least 2. Default: 1000.
    pub samples: usize,
    /// Share of diverged samples above which there is no answer. Default: 0.5.
    pub max_diverged_share: f64,
}

/// Trajectories through the window of every problem of a set.
#[derive(Clone, Debug)]
pub struct Minima {
    /// From the background: `[P, times, sites]`.
    pub background: Array3<f64>,
    /// From the control of least cost: `[P, times, sites]`.
    pub analysis: Array3<f64>,
    /// The controls of least cost: `[P, control]`.
    pub controls: Array2<f64>,
    /// Posterior deviation of the parameters by the Gauss-Newton Hessian, where they are estimated: `[P, parameters]`.
    pub parameter_std: Option<Array2<f64>>,
}

impl Minima {
    /// The trajectories of controls and backgrounds.
    pub(super) fn from_controls(problem: &Problem, loaded: &mut LoadedProblem, controls: Array2<f64>) -> Result<Self> {
        let mut members = Array2::zeros((2 * problem.count(), problem.control().len()));
        for (p, best) in controls.outer_iter().enumerate() {
            members.row_mut(2 * p).assign(&problem.control_mean(p));
            members.row_mut(2 * p + 1).assign(&best);
        }
        let trajectories = loaded.forecast(Members::Given(members.view()))?;
        let every_other = |first: usize| trajectories.slice(s![first..;2, .., ..]).to_owned();
        Ok(Self { background: every_other(0), analysis: every_other(1), controls, parameter_std: None })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            starts: 8,
            first_start: FirstStart::Background,
            stages: 1,
            minimiser: Minimiser::Lbfgs,
            iterations: 1500,
            gradient_tolerance: None,
            cost_tolerance: None,
            history: 20,
            learning_rate: 0.05,
            schedule: Schedule::Cosine,
            hessian: Hessian::GaussNewton,
            samples: 1000,
            max_diverged_share: MAX_DIVERGED_SHARE,
        }
    }
}

impl Settings {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn check(&self) -> Result<()> {
        check_count("starts", self.starts, 1..=100_000)?;
        check_count("stages", self.stages, 1..=10_000)?;
        check_count("iterations", self.iterations, 1..=MOST_ITERATIONS)?;
        check_count("history", self.history, 1..=1_000)?;
        check_count("samples", self.samples, 2..=MOST_MEMBERS)?;
        check_positive("minimiser-learning-rate", self.learning_rate)?;
        check_positive("gradient-tolerance", self.gradient_tolerance.unwrap_or(1.0))?;
        check_positive("cost-tolerance", self.cost_tolerance.unwrap_or(1.0))?;
        check_share("max-diverged-share", self.max_diverged_share)
    }

    /// Assimilates every problem of the set: one analysis each, whose `seconds` are those of the whole set.
    ///
    /// `mean` is the trajectory of the lowest minimum; `samples` are from N(minimum, P) at time 0, carried to the
    /// last stored time by the model, and `std` is their deviation. Records: `cost` (iteration), `minimum_cost`
    /// (start), `minimum` (start, site), `initial_state` (site), `laplace_covariance` and `hessian` (site, site_2),
    /// `smallest_eigenvalue`, `observation_count`, `twice_minimum_cost`, `diverged_samples`, `overflows` (longest_history).
    ///
    /// # Errors
    /// Settings or a problem that cannot work, an engine's failure, every start diverged, too many samples diverged.
    pub fn run(&self, problem: &Problem, engine: &Engine, observer: &mut dyn Observer) -> Result<Vec<Analysis>> {
        self.run_from(problem, engine, None, observer)
    }

    /// The same with the first starting point of each problem given, `[P, control]`: what [`FirstStart::Amortized`] needs.
    ///
    /// # Errors
    /// As [`Self::run`]; points of another shape, or none for [`FirstStart::Amortized`].
    pub fn run_from(
        &self,
        problem: &Problem,
        engine: &Engine,
        first: Option<ArrayView2<f64>>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Analysis>> {
        self.check()?;
        check_samples(problem, self.samples)?;
        let shape = [problem.count(), problem.control().len()];
        if first.is_none() && self.first_start == FirstStart::Amortized || first.is_some_and(|x| x.shape() != shape) {
            let found = first.map_or("none".into(), |x| format!("{:?}", x.shape()));
            let help = "name the weights of a trained network, or give points to `run_from`";
            return Err(Error::invalid("first start of 4DVAR", format!("points of shape {shape:?}"), found, help));
        }
        let clock = Instant::now();
        let mut windows = Windows::new(problem, engine, self.stages)?;
        let precision = engine.hardware().precision;
        let rests = self.minimise(NAME, &mut windows, precision, first, observer)?;
        let groups: Vec<_> = rests.chunks(self.starts).collect();
        let lowest = groups.iter().map(|starts| lowest(starts, NAME)).collect::<Result<Vec<_>>>()?;
        let best = best(&windows, &groups, &lowest);
        let n = problem.control().len();
        let laplaces = laplace::laplace(problem, windows.whole(), best.view(), self.hessian, precision)?;

        // The minimum and its samples are one batch: row 0 of each problem, then the samples.
        let mut members = Vec::with_capacity(2 * problem.count());
        for (p, laplace) in laplaces.iter().enumerate() {
            let normals = standard_normals(problem.seeds[p], Stream::Posterior, 0, 0..self.samples, n);
            members.push(best.slice(s![p..p + 1, ..]).to_owned());
            members.push(laplace::draw(best.row(p), &laplace.square_root, &normals));
        }
        let views: Vec<_> = members.iter().map(|m| m.view()).collect();
        let members = concatenate(Axis(0), &views).expect("rows of one length");
        let trajectories = windows.whole().forecast(Members::Given(members.view()))?;

        let mut analyses = Vec::with_capacity(problem.count());
        for (p, laplace) in laplaces.iter().enumerate() {
            let first = p * (self.samples + 1);
            let drawn = trajectories.slice(s![first + 1..first + 1 + self.samples, .., ..]);
            let samples = Samples::new(drawn, "4DVAR's Laplace approximation", self.max_diverged_share)?;
            let controls = members.slice(s![first + 1..first + 1 + self.samples, ..]).select(Axis(0), &samples.kept);
            analyses.push(Analysis {
                method: NAME.into(),
                mean: trajectories.index_axis(Axis(0), first).to_owned(),
                std: samples.std,
                records: [
                    self.records(p, groups[p], lowest[p], &windows, laplace, samples.diverged),
                    control_records(problem, p, controls.view()),
                ]
                .concat(),
                summary: self.summary(problem, p, groups[p], lowest[p], laplace),
                samples: samples.trajectories,
                seconds: 0.0,
            });
        }
        let seconds = clock.elapsed().as_secs_f64();
        analyses.iter_mut().for_each(|a| a.seconds = seconds);
        Ok(analyses)
    }

    /// The minimum of every problem of the set without covariance and samples: what a cycle needs, at the price of the
    /// minimisation. Where parameters are estimated, their deviation takes as many tangents as the control is long.
    ///
    /// # Errors
    /// Settings or a problem that cannot work, an engine's failure, every start diverged.
    pub fn minima(&self, problem: &Problem, engine: &Engine, observer: &mut dyn Observer) -> Result<Minima> {
        self.check()?;
        let mut windows = Windows::new(problem, engine, self.stages)?;
        let rests = self.minimise(NAME, &mut windows, engine.hardware().precision, None, observer)?;
        let groups: Vec<_> = rests.chunks(self.starts).collect();
        let lowest = groups.iter().map(|starts| lowest(starts, NAME)).collect::<Result<Vec<_>>>()?;
        let best = best(&windows, &groups, &lowest);
        let mut minima = Minima::from_controls(problem, windows.whole(), best)?;
        let layout = problem.control();
        if layout.parameters > 0 {
            let precision = engine.hardware().precision;
            let laplaces =
                laplace::laplace(problem, windows.whole(), minima.controls.view(), Hessian::GaussNewton, precision)?;
            let std = |laplace: &Laplace| laplace.covariance.diag().slice(s![layout.parameters()]).mapv(f64::sqrt);
            let rows: Vec<_> = laplaces.iter().map(std).collect();
            let views: Vec<_> = rows.iter().map(|row| row.view()).collect();
            minima.parameter_std = Some(ndarray::stack(Axis(0), &views).expect("rows of one length"));
        }
        Ok(minima)
    }

    /// The minimum of each start of each problem, problem by problem, in the latent control z.
    pub(super) fn minimise(
        &self,
        method: &'static str,
        windows: &mut Windows,
        precision: Precision,
        first: Option<ArrayView2<f64>>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Rest>> {
        let mut watch = Watched::new(method, self.iterations, self.starts, observer);
        let descent = self.descent(precision);
        windows.unperturbed(&descent, self.starts, first, &mut watch)
    }

    /// The minimiser with its constants.
    pub(super) fn descent(&self, precision: Precision) -> Descent {
        let (gradient, cost) = tolerances(precision);
        Descent {
            minimiser: self.minimiser,
            lbfgs: LbfgsSettings {
                history: self.history,
                iterations: self.iterations,
                gradient_tolerance: self.gradient_tolerance.unwrap_or(gradient),
                cost_tolerance: self.cost_tolerance.unwrap_or(cost),
                // One background deviation altogether: no start is thrown off the attractor.
                first_step: 1.0,
            },
            adam: AdamSettings {
                learning_rate: self.learning_rate,
                schedule: self.schedule,
                ..AdamSettings::default()
            },
            look: None,
        }
    }

    fn records(
        &self,
        p: usize,
        starts: &[Rest],
        lowest: usize,
        windows: &Windows,
        laplace: &Laplace,
        diverged: usize,
    ) -> Vec<Record> {
        let problem = windows.problem;
        let best = &starts[lowest].minimum;
        let background = problem.control_mean(p);
        let states: Vec<_> = starts.iter().map(|r| windows.control(p, background.view(), &r.minimum.point)).collect();
        let rows: Vec<_> = states.iter().map(|x| x.view()).collect();
        let minima = ndarray::stack(Axis(0), &rows).expect("rows of one length");
        let axes = problem.control().dimensions();
        let mut records = vec![
            Record::new(
                "cost",
                "cost J of the best start after each iteration",
                &["iteration"],
                Array1::from_vec(best.history.clone()),
            ),
            Record::new(
                "minimum_cost",
                "cost J of each start's minimum; infinite where the start diverged",
                &["start"],
                starts.iter().map(|r| r.minimum.cost).collect::<Array1<_>>(),
            ),
            Record::new("minimum", "control at each start's minimum", &["start", axes[0]], minima),
            Record::new(
                "initial_state",
                "initial state of least cost",
                &["site"],
                states[lowest].slice(s![..problem.sites()]).to_owned(),
            ),
            Record::new(
                "laplace_covariance",
                match laplace.kind {
                    Hessian::GaussNewton => "inverse of the Gauss-Newton Hessian at the minimum",
                    Hessian::Full => "inverse of the full Hessian at the minimum",
                },
                &axes,
                laplace.covariance.clone(),
            ),
            Record::new(
                "hessian",
                match laplace.kind {
                    Hessian::GaussNewton => "Gauss-Newton Hessian of the cost at the minimum",
                    Hessian::Full => "full Hessian of the cost at the minimum",
                },
                &axes,
                laplace.hessian.clone(),
            ),
            Record::scalar(
                "smallest_eigenvalue",
                match self.hessian {
                    Hessian::GaussNewton => "smallest eigenvalue of the Gauss-Newton Hessian whitened by B",
                    Hessian::Full => "smallest eigenvalue of the full Hessian whitened by B",
                },
                laplace.smallest_eigenvalue,
            ),
            Record::scalar(
                "observation_count",
                "number of assimilated observations",
                problem.assimilated_count(p) as f64,
            ),
            Record::scalar(
                "twice_minimum_cost",
                "twice the least cost; chi-squared with observation_count degrees of freedom if linear and Gaussian",
                2.0 * best.cost,
            ),
            Record::scalar("diverged_samples", "samples left out because they diverged", diverged as f64),
            overflows(starts),
        ];
        let layout = problem.control();
        if !layout.is_state() {
            // By the whitened control, in which each term of the prior is half a sum of squares.
            let term = |block: Range<usize>| 0.5 * best.point[block].iter().map(|z| z * z).sum::<f64>();
            let (sites, parameters) = (layout.sites, layout.parameters());
            let number = Record::scalar;
            records.extend([
                number("minimum_cost_background", "J_b of x0 at the least cost", term(0..sites)),
                number("minimum_cost_errors", "J_q of the model's errors there", term(sites..parameters.start)),
                number("minimum_cost_parameters", "the parameters' prior term there", term(parameters)),
                Record::new("control", "control of least cost", &axes[..1], states[lowest].clone()),
            ]);
        }
        records
    }

    fn summary(&self, problem: &Problem, p: usize, starts: &[Rest], lowest: usize, laplace: &Laplace) -> String {
        let best = &starts[lowest].minimum;
        let mut text = format!(
            "stopped after {} iterations ({} evaluations): {}; J = {:.6}",
            starts[lowest].iterations, starts[lowest].evaluations, best.reason, best.cost
        );
        if starts.len() > 1 {
            // Two minima count as one if a Gaussian posterior would not tell them apart.
            let same = starts.iter().filter(|r| r.minimum.cost - best.cost < 0.01 * best.cost.abs().max(1.0)).count();
            let diverged = starts.iter().filter(|r| r.minimum.cost.is_infinite()).count();
            text += &format!("; {same} of {} starts ended within 1 % of it", starts.len());
            if diverged > 0 {
                text += &format!(", {diverged} diverged");
            }
        }
        text += &overflow_note(starts);
        let observed = problem.assimilated_count(p) as f64;
        let spread = (2.0 * observed).sqrt();
        text += &format!("; 2 J = {:.1} for {observed} observations", 2.0 * best.cost);
        if 2.0 * best.cost > observed + 5.0 * spread.max(1.0) {
            text += &format!(
                " (expected {observed} +- {spread:.0}: a spurious minimum, try more starts, or B and R are too small)"
            );
        }
        text += &format!("; covariance from the {} Hessian", laplace.kind.name());
        if laplace.kind != self.hessian {
            text += &format!(
                ", because the {} one is not positive definite (smallest whitened eigenvalue {:.3e})",
                self.hessian.name(),
                laplace.smallest_eigenvalue
            );
        }
        text
    }
}

/// The control at the lowest minimum of each problem: `[P, control]`.
pub(super) fn best(windows: &Windows, groups: &[&[Rest]], lowest: &[usize]) -> Array2<f64> {
    let problem = windows.problem;
    let mut best = Array2::zeros((problem.count(), problem.control().len()));
    for (p, (starts, k)) in groups.iter().zip(lowest).enumerate() {
        best.row_mut(p).assign(&windows.control(p, problem.control_mean(p).view(), &starts[*k].minimum.point));
    }
    best
}

/// Index of the lowest minimum.
pub(super) fn lowest(starts: &[Rest], method: &str) -> Result<usize> {
    let (k, best) = starts
        .iter()
        .enumerate()
        .min_by(|a, b| a.1.minimum.cost.total_cmp(&b.1.minimum.cost))
        .expect("at least one start");
    if best.minimum.cost.is_finite() {
        return Ok(k);
    }
    Err(Error::Diverged { what: format!("the starts of {method}"), diverged: starts.len(), members: starts.len() })
}
