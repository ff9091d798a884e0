//! Ensemble of 4DVAR: each member perturbs background and observations and minimises its own cost (Jardak & Talagrand
//! 2018). In a linear and Gaussian problem the minima are draws from the posterior.
//!
//! Member k of a problem has xb^k = xb + a L eps and y^k = y + a R^1/2 eps' with amplitude a, standard normal draws of
//! its own and L L' = B. All members of all problems move in lockstep; those that have come to rest cost nothing more.

use super::control::control_records;
use super::descent::{Descent, Minimiser, Rest, Windows, overflow_note, overflows, tolerances};
use super::laplace::{self, Hessian};
use super::samples::{MAX_DIVERGED_SHARE, Samples};
use super::starts::Starts;
use super::{
    Analysis, MOST_ITERATIONS, MOST_MEMBERS, Observer, PosteriorMembers, Record, Watched, check_count, check_positive,
    check_samples, check_share,
};
use crate::engine::{Engine, Precision, Row};
use crate::error::{Error, Result};
use crate::optimizer::{AdamSettings, LbfgsSettings, Minimum, Reason, Schedule};
use crate::problem::Problem;
use crate::random::{Stream, standard_normals};
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// The method's name in tables.
pub const NAME: &str = "Ens. 4DVAR";

/// Starts of the unperturbed 4DVAR beside the ensemble.
const CONTROL_STARTS: usize = 8;
/// Numbers that the minimiser holds at a time; more members than fit are minimised one group after the other.
const NUMBERS: usize = 1 << 26;
/// Members whose cost after each iteration is kept, for a figure.
const TRACED: usize = 100;
/// Adam's steps on the device between two looks at where the members stand.
const LOOK: usize = 20;
/// Cost still to gain from which on a member has not come to rest; J spreads much more than that between members.
const AT_REST: f64 = 0.5;
/// Minus the logarithm of the share of the members of a linear problem that may be called spurious: one of 10^6.
const SPURIOUS: f64 = 13.8;

/// Most sites with a preconditioner: beyond, its product of sites^2 numbers costs as much as it saves.
const PRECONDITIONED: usize = 256;

/// Where the minimisation of a member starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// At its own perturbed background.
    Background,
    /// At the minimum of the unperturbed 4DVAR, the lowest of 8 starts.
    #[default]
    Minimum,
}

/// How a member ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// At rest in a minimum that the observations allow.
    Converged = 0,
    /// The caller ended it on its way. It is kept.
    Interrupted = 1,
    /// At its iteration limit or in a failed line search, far from any minimum. Left out.
    Stuck = 2,
    /// In a minimum far above what the observations allow. Left out.
    Spurious = 3,
    /// Not finite at its start. Left out.
    Diverged = 4,
}

impl Status {
    /// Whether the member counts.
    pub fn kept(self) -> bool {
        matches!(self, Self::Converged | Self::Interrupted)
    }
}

/// Settings of the ensemble of 4DVAR.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Members of each problem, at least 2. Default: 100.
    pub members: usize,
    /// Amplitude of the perturbations of background and observations; 0 gives 4DVAR in every member. Default: 1, which
    /// samples the posterior of a linear and Gaussian problem.
    pub perturbation: f64,
    /// Where a member starts. Default: at 4DVAR's minimum.
    pub start: Start,
    /// Windows of growing length that a minimisation from a background passes through (quasi-static, after Pires,
    /// Vautard & Talagrand 1996): 4DVAR's, and the members' if they start there. 1 takes the whole window at once.
    /// Default: 1.
    pub stages: usize,
    /// Default: L-BFGS; where members start at 4DVAR's minimum, preconditioned by its Gauss-Newton Hessian, which takes a
    /// third of the evaluations.
    pub minimiser: Minimiser,
    /// Iterations at most in each window. Default: 1500.
    pub iterations: usize,
    /// Stop when the gradient's norm, in the whitened control, is below this times its norm at the start. Default:
    /// 1e-8 on an f64 engine, 1e-5 on an f32 one.
    pub gradient_tolerance: Option<f64>,
    /// Stop when an L-BFGS iteration lowers the cost by less than this times max(1, cost). Default: 1e-13 on an f64
    /// engine, 1e-7 on an f32 one.
    pub cost_tolerance: Option<f64>,
    /// Pairs that L-BFGS keeps. Default: 20.
    pub history: usize,
    /// Adam's learning rate, in background deviations. Default: 0.05.
    pub learning_rate: f64,
    /// Adam's schedule. Default: cosine, so that it comes to rest.
    pub schedule: Schedule,
    /// Whether members in spurious minima count. They have next to no posterior mass, so that the minimiser put them
    /// there and not the posterior; the bound would leave out at most one of 10^6 members of a linear problem.
    /// Default: false.
    pub keep_spurious: bool,
    /// Share of members left out above which there is no answer. Default: 0.5.
    pub max_diverged_share: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            members: 100,
            perturbation: 1.0,
            start: Start::Minimum,
            stages: 1,
            minimiser: Minimiser::Lbfgs,
            iterations: 1500,
            gradient_tolerance: None,
            cost_tolerance: None,
            history: 20,
            learning_rate: 0.05,
            schedule: Schedule::Cosine,
            keep_spurious: false,
            max_diverged_share: MAX_DIVERGED_SHARE,
        }
    }
}

/// What one problem's members came to.
struct Outcome {
    rests: Vec<Rest>,
    /// `[member, site]`
    states: Array2<f64>,
    /// The unperturbed minimum, and the whitened control there.
    control: f64,
    control_point: Vec<f64>,
    /// The cost above which a minimum is spurious.
    bound: f64,
    status: Vec<Status>,
}

impl Settings {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn check(&self) -> Result<()> {
        check_count("members", self.members, 2..=MOST_MEMBERS)?;
        check_count("stages", self.stages, 1..=10_000)?;
        check_count("iterations", self.iterations, 1..=MOST_ITERATIONS)?;
        check_count("history", self.history, 1..=1_000)?;
        if !(self.perturbation.is_finite() && self.perturbation >= 0.0) {
            let found = self.perturbation.to_string();
            return Err(Error::invalid("perturbation", "a finite number >= 0", found, "1 samples the posterior"));
        }
        check_positive("minimiser-learning-rate", self.learning_rate)?;
        check_positive("gradient-tolerance", self.gradient_tolerance.unwrap_or(1.0))?;
        check_positive("cost-tolerance", self.cost_tolerance.unwrap_or(1.0))?;
        check_share("max-diverged-share", self.max_diverged_share)
    }

    /// Assimilates every problem of the set: one analysis each, whose `seconds` are those of the whole set.
    ///
    /// `samples` are the trajectories of the members that count, `mean` and `std` theirs. Records, over all members:
    /// `initial_state` (member, site), `status` (member; see [`Status`]), `minimum_cost`, `minimum_cost_background`,
    /// `minimum_cost_observation`, `gradient_norm`, `iterations` and `evaluations` (member); over the first 100: `cost`
    /// (traced_member, step), NaN once a member has ended; over those that count: `mean_cost` (step),
    /// `mean_minimum_cost`; and `iterations_per_cost` (1; Adam: 20), `four_d_var_cost`, `spurious_cost`, `observation_count`, `kept_members`,
    /// `stuck_members`, `spurious_members`, `diverged_members`, `diverged_samples`, `overflows` (longest_history), `model_steps_per_member`,
    /// `adjoint_steps_per_member`.
    ///
    /// # Errors
    /// Settings or a problem that cannot work, an engine's failure, too many members left out.
    pub fn run(&self, problem: &Problem, engine: &Engine, observer: &mut dyn Observer) -> Result<Vec<Analysis>> {
        self.check()?;
        check_samples(problem, self.members)?;
        let clock = Instant::now();
        let mut windows = Windows::new(problem, engine, self.stages)?;
        let precision = engine.hardware().precision;
        let outcomes = self.minimise(problem, &mut windows, precision, CONTROL_STARTS, observer)?;
        let mut analyses = Vec::with_capacity(problem.count());
        for (p, outcome) in outcomes.iter().enumerate() {
            outcome.check_share(self.max_diverged_share, problem.seeds[p])?;
            let kept = outcome.kept_states();
            let trajectories = windows.forecast(p, kept.view())?;
            analyses.push(self.analysis(problem, p, outcome, kept.view(), trajectories)?);
        }
        let seconds = clock.elapsed().as_secs_f64();
        analyses.iter_mut().for_each(|a| a.seconds = seconds);
        Ok(analyses)
    }

    /// The members that count, and the lowest unperturbed minimum of `starts` starts, of every problem: what a cycle carries
    /// on.
    ///
    /// # Errors
    /// Settings or a problem that cannot work, an engine's failure, too many members left out.
    pub fn posterior_members(
        &self,
        problem: &Problem,
        engine: &Engine,
        starts: usize,
        observer: &mut dyn Observer,
    ) -> Result<PosteriorMembers> {
        self.check()?;
        let mut windows = Windows::new(problem, engine, self.stages)?;
        let outcomes = self.minimise(problem, &mut windows, engine.hardware().precision, starts, observer)?;
        let mut center = problem.control_means();
        let mut std = center.clone();
        let rows = outcomes.iter().zip(center.outer_iter_mut()).zip(std.outer_iter_mut());
        for (p, ((outcome, mut center), mut std)) in rows.enumerate() {
            outcome.check_share(self.max_diverged_share, problem.seeds[p])?;
            std.assign(&outcome.kept_states().std_axis(Axis(0), 1.0));
            center.assign(&windows.control(p, problem.control_mean(p).view(), &outcome.control_point));
        }
        Ok(PosteriorMembers { center, members: outcomes.iter().map(Outcome::kept_states).collect(), std })
    }

    /// Minimises the members of every problem.
    fn minimise(
        &self,
        problem: &Problem,
        windows: &mut Windows,
        precision: Precision,
        control_starts: usize,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Outcome>> {
        let (count, n, a) = (problem.count(), problem.control().len(), self.perturbation);
        let descent = self.descent(precision);
        let mut watch = Watched::new(NAME, self.iterations, 1, observer);
        let controls: Vec<Minimum> = windows
            .unperturbed(&descent, control_starts, None, &mut watch)?
            .chunks(control_starts)
            .map(|starts| lowest(starts).minimum.clone())
            .collect();

        let roots = self.roots(problem, windows, &controls, precision)?;

        let rows: Vec<Row> = (0..count)
            .flat_map(|p| (0..self.members).map(move |k| Row { problem: p as u32, member: k as u32 }))
            .collect();
        let group = (NUMBERS / (n * (2 * self.history + 8))).max(1);
        let mut rests = Vec::with_capacity(rows.len());
        let mut states = Array2::zeros((rows.len(), n));
        for (rows, mut states) in rows.chunks(group).zip(states.axis_chunks_iter_mut(Axis(0), group)) {
            let draw = |row: &Row| {
                let seed = problem.seeds[row.problem as usize];
                standard_normals(
                    seed,
                    Stream::BackgroundPerturbation,
                    0,
                    row.member as usize..row.member as usize + 1,
                    n,
                )
                .row(0)
                .to_owned()
            };
            let draws: Vec<Array1<f64>> = rows.iter().map(|row| draw(row) * a).collect();
            let mut backgrounds = Array2::zeros((rows.len(), n));
            for ((row, draw), mut background) in rows.iter().zip(&draws).zip(backgrounds.outer_iter_mut()) {
                let p = row.problem as usize;
                background.assign(&(problem.control_mean(p) + problem.control_root(p, draw.view())));
            }
            let from = rows.iter().zip(&draws).map(|(row, draw)| match self.start {
                Start::Background => vec![0.0; n],
                // xb + L z = xb^k + L (z - a eps).
                Start::Minimum => controls[row.problem as usize].point.iter().zip(draw).map(|(z, d)| z - d).collect(),
            });
            let starts = Starts { rows, backgrounds: backgrounds.view(), amplitude: a, roots: roots.as_deref() };
            let ended =
                windows.minimise(&descent, starts, from.collect(), self.start == Start::Background, &mut watch)?;
            for ((k, rest), mut state) in ended.iter().enumerate().zip(states.outer_iter_mut()) {
                let p = rows[k].problem as usize;
                state.assign(&windows.control(p, backgrounds.row(k), &rest.minimum.point));
            }
            rests.extend(ended);
        }
        let mut rests = rests.into_iter();
        Ok((0..count)
            .map(|p| {
                let rests: Vec<Rest> = rests.by_ref().take(self.members).collect();
                let control = controls[p].cost;
                let bound = spurious_cost(a, problem.assimilated_count(p) as f64, control);
                let status = rests.iter().map(|rest| self.status(rest, bound)).collect();
                let states = states.slice(s![p * self.members..(p + 1) * self.members, ..]).to_owned();
                Outcome { rests, states, control, control_point: controls[p].point.clone(), bound, status }
            })
            .collect())
    }

    /// What preconditions the members of each problem: the Gauss-Newton Hessian at 4DVAR's minimum, where they start.
    /// From their own backgrounds it misleads: more of them end in spurious minima.
    fn roots(
        &self,
        problem: &Problem,
        windows: &mut Windows,
        controls: &[Minimum],
        precision: Precision,
    ) -> Result<Option<Vec<Array2<f64>>>> {
        let reached = controls.iter().all(|c| c.cost.is_finite());
        let useful = self.minimiser == Minimiser::Lbfgs && self.start == Start::Minimum;
        if !(useful && reached && problem.control().len() <= PRECONDITIONED) {
            return Ok(None);
        }
        let mut minima = Array2::zeros((problem.count(), problem.control().len()));
        for (p, (control, mut row)) in controls.iter().zip(minima.outer_iter_mut()).enumerate() {
            row.assign(&windows.control(p, problem.control_mean(p).view(), &control.point));
        }
        match laplace::laplace(problem, windows.whole(), minima.view(), Hessian::GaussNewton, precision) {
            Ok(laplaces) => Ok(Some(laplaces.into_iter().map(|l| l.whitened_root).collect())),
            // Tangents that overflow are no reason to give up.
            Err(Error::Diverged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn descent(&self, precision: Precision) -> Descent {
        let (gradient, cost) = tolerances(precision);
        Descent {
            minimiser: self.minimiser,
            lbfgs: LbfgsSettings {
                history: self.history,
                iterations: self.iterations,
                gradient_tolerance: self.gradient_tolerance.unwrap_or(gradient),
                cost_tolerance: self.cost_tolerance.unwrap_or(cost),
                first_step: 1.0,
            },
            adam: AdamSettings {
                learning_rate: self.learning_rate,
                schedule: self.schedule,
                ..AdamSettings::default()
            },
            look: Some(LOOK),
        }
    }

    fn status(&self, rest: &Rest, bound: f64) -> Status {
        let minimum = &rest.minimum;
        match minimum.reason {
            Reason::Diverged => Status::Diverged,
            _ if minimum.cost.is_infinite() => Status::Diverged,
            Reason::Interrupted => Status::Interrupted,
            _ if still_to_gain(minimum) > AT_REST => Status::Stuck,
            _ if minimum.cost > bound && !self.keep_spurious => Status::Spurious,
            _ => Status::Converged,
        }
    }

    fn analysis(
        &self,
        problem: &Problem,
        p: usize,
        outcome: &Outcome,
        kept: ArrayView2<f64>,
        trajectories: ndarray::Array3<f64>,
    ) -> Result<Analysis> {
        let samples = Samples::new(trajectories.view(), "the ensemble of 4DVAR", self.max_diverged_share)?;
        Ok(Analysis {
            method: NAME.into(),
            records: [
                self.records(problem, p, outcome, samples.diverged),
                control_records(problem, p, kept.select(Axis(0), &samples.kept).view()),
            ]
            .concat(),
            summary: self.summary(problem, p, outcome, samples.diverged),
            mean: samples.mean,
            std: samples.std,
            samples: samples.trajectories,
            seconds: 0.0,
        })
    }

    fn records(&self, problem: &Problem, p: usize, outcome: &Outcome, diverged: usize) -> Vec<Record> {
        let rests = &outcome.rests;
        let each = |name: &str, long_name: &str, value: &dyn Fn(&Rest) -> f64| {
            Record::new(name, long_name, &["member"], rests.iter().map(value).collect::<Array1<f64>>())
        };
        let background = |rest: &Rest| 0.5 * rest.minimum.point.iter().map(|z| z * z).sum::<f64>();
        let traced = &rests[..rests.len().min(TRACED)];
        let shown = traced.iter().chain(outcome.kept().map(|(_, rest)| rest));
        let steps = shown.map(|r| r.minimum.history.len()).max().unwrap_or(0);
        let mut cost = Array2::from_elem((traced.len(), steps), f64::NAN);
        for (rest, mut row) in traced.iter().zip(cost.outer_iter_mut()) {
            row.iter_mut().zip(&rest.minimum.history).for_each(|(to, from)| *to = *from);
        }
        let mut mean_cost = Array1::zeros(steps);
        for (_, rest) in outcome.kept() {
            let history = &rest.minimum.history;
            let last = history.last().copied().unwrap_or(f64::NAN);
            let filled = history.iter().copied().chain(std::iter::repeat(last));
            mean_cost.iter_mut().zip(filled).for_each(|(sum, cost)| *sum += cost);
        }
        mean_cost /= outcome.kept().count() as f64;
        let members = rests.len() as f64;
        let number = |name: &str, long_name: &str, value: f64| Record::scalar(name, long_name, value);
        let count = |status: Status| outcome.count(status) as f64;
        vec![
            Record::new(
                "initial_state",
                "initial state at each member's minimum, those left out included",
                &["member", "site"],
                outcome.states.slice(s![.., ..problem.sites()]).to_owned(),
            ),
            Record::new(
                "status",
                "how each member ended: 0 converged, 1 interrupted; left out: 2 stuck, 3 spurious, 4 diverged",
                &["member"],
                outcome.status.iter().map(|s| f64::from(*s as u8)).collect::<Array1<f64>>(),
            ),
            each("minimum_cost", "each member's least cost J; infinite where it diverged", &|r| r.minimum.cost),
            each("minimum_cost_background", "background term of minimum_cost", &background),
            each("minimum_cost_observation", "observation term of minimum_cost", &|r| r.minimum.cost - background(r)),
            each(
                "gradient_norm",
                "norm of dJ/dx0 at each member's minimum, whitened by B (Adam: in deviations)",
                &|r| r.minimum.gradient_norm,
            ),
            each("iterations", "each member's iterations, those in shorter windows included", &|r| r.iterations as f64),
            each("evaluations", "each member's evaluations of cost and gradient", &|r| r.evaluations as f64),
            Record::new(
                "cost",
                "cost J of the first members over the whole window, every iterations_per_cost; NaN once one has ended",
                &["traced_member", "step"],
                cost,
            ),
            Record::new(
                "mean_cost",
                "mean over the members that count of the cost J, each keeping its last",
                &["step"],
                mean_cost,
            ),
            number(
                "mean_minimum_cost",
                "mean of minimum_cost; four_d_var_cost + observation_count / 2 if linear and Gaussian",
                outcome.mean_cost(),
            ),
            number(
                "iterations_per_cost",
                "iterations between two values of cost and of mean_cost",
                match self.minimiser {
                    Minimiser::Lbfgs => 1.0,
                    Minimiser::Adam => LOOK as f64,
                },
            ),
            number("four_d_var_cost", "least cost J of the unperturbed 4DVAR", outcome.control),
            number("spurious_cost", "cost above which a minimum counts as spurious", outcome.bound),
            number("observation_count", "number of assimilated observations", problem.assimilated_count(p) as f64),
            number("kept_members", "members that count", outcome.kept().count() as f64),
            number("stuck_members", "members left out far from any minimum", count(Status::Stuck)),
            number("spurious_members", "members left out in spurious minima", count(Status::Spurious)),
            number("diverged_members", "members left out because they diverged", count(Status::Diverged)),
            number("diverged_samples", "members left out because their forecast diverged", diverged as f64),
            overflows(rests),
            number(
                "model_steps_per_member",
                "RK4 steps of the minimisation, but for those made again on the way back, over members",
                rests.iter().map(|r| r.steps).sum::<u64>() as f64 / members,
            ),
            number(
                "adjoint_steps_per_member",
                "adjoint RK4 steps of the minimisation, over members",
                rests.iter().map(|r| r.steps).sum::<u64>() as f64 / members,
            ),
        ]
    }

    fn summary(&self, problem: &Problem, p: usize, outcome: &Outcome, diverged: usize) -> String {
        let members = outcome.rests.len();
        let kept = outcome.kept().count();
        let mean = |value: fn(&Rest) -> usize| outcome.rests.iter().map(value).sum::<usize>() as f64 / members as f64;
        let mut text = format!(
            "{kept} of {members} members count; mean of {:.0} iterations and {:.0} evaluations",
            mean(|r| r.iterations),
            mean(|r| r.evaluations)
        );
        let why = [
            (Status::Interrupted, "ended by the caller"),
            (Status::Stuck, "left out far from any minimum"),
            (Status::Spurious, "left out in spurious minima"),
            (Status::Diverged, "left out because they diverged"),
        ];
        for (status, words) in why {
            if outcome.count(status) > 0 {
                text += &format!("; {} {words} ({})", outcome.count(status), outcome.first(status));
            }
        }
        if diverged > 0 {
            text += &format!("; the forecast of {diverged} diverged");
        }
        text += &overflow_note(&outcome.rests);
        let observed = problem.assimilated_count(p) as f64;
        text += &format!(
            "; mean J = {:.1}, 4DVAR's J = {:.1}, expected {:.1} if linear and Gaussian",
            outcome.mean_cost(),
            outcome.control,
            outcome.control + 0.5 * self.perturbation.powi(2) * observed
        );
        text
    }
}

/// About how much J could still fall. Where J is convex, at most g^2 / 2, because its background term alone has curvature
/// 1 (or, preconditioned, by Newton's estimate, curvature being about 1); and as the square of the gradient, measured by
/// what it has fallen by. The second is for stiff problems, where rounding leaves a gradient that promises nothing.
fn still_to_gain(minimum: &Minimum) -> f64 {
    let gained = minimum.history.first().map_or(0.0, |first| first - minimum.cost);
    let left = minimum.gradient_norm / minimum.start_gradient_norm;
    (0.5 * minimum.gradient_norm.powi(2)).min(gained * left * left)
}

/// The rest of least cost.
fn lowest(rests: &[Rest]) -> &Rest {
    rests.iter().min_by(|a, b| a.minimum.cost.total_cmp(&b.minimum.cost)).expect("at least one start")
}

/// J above which a member's minimum is spurious. With p observations, amplitude a and an unperturbed minimum J*, 2 J / a^2
/// of a linear and Gaussian problem is noncentral chi-squared with p degrees of freedom and noncentrality 2 J* / a^2
/// (derived), which exceeds p + l + 2 sqrt((p + 2 l) x) + 2 x with probability e^-x at most, l being the noncentrality
/// (Birgé 2001, lemma 8.1).
fn spurious_cost(a: f64, p: f64, control: f64) -> f64 {
    let a2 = a * a;
    let noise = ((a2 * a2 * p + 4.0 * a2 * control) * SPURIOUS).sqrt() + a2 * SPURIOUS;
    // Two minima within 1 % count as one.
    0.5 * a2 * p + control + noise + 0.01 * control.max(1.0)
}

impl Outcome {
    /// The members that count, with their numbers.
    fn kept(&self) -> impl Iterator<Item = (usize, &Rest)> {
        self.rests.iter().enumerate().filter(|(k, _)| self.status[*k].kept())
    }

    fn kept_states(&self) -> Array2<f64> {
        self.states.select(Axis(0), &self.kept().map(|(k, _)| k).collect::<Vec<_>>())
    }

    fn count(&self, status: Status) -> usize {
        self.status.iter().filter(|s| **s == status).count()
    }

    /// The numbers of the first members of a status, for people.
    fn first(&self, status: Status) -> String {
        let mut numbers = self.status.iter().enumerate().filter(|(_, s)| **s == status).map(|(k, _)| k.to_string());
        let shown: Vec<_> = numbers.by_ref().take(5).collect();
        let more = if numbers.next().is_some() { ", ..." } else { "" };
        format!("member {}{more}", shown.join(", "))
    }

    fn mean_cost(&self) -> f64 {
        self.kept().map(|(_, r)| r.minimum.cost).sum::<f64>() / self.kept().count() as f64
    }

    /// Refuses an ensemble of which too little is left.
    fn check_share(&self, most: f64, seed: u64) -> Result<()> {
        let (members, kept) = (self.rests.len(), self.kept().count());
        let left_out = members - kept;
        if kept >= 2 && left_out as f64 <= most * members as f64 {
            return Ok(());
        }
        let diverged = self.count(Status::Diverged);
        if 2 * diverged >= left_out {
            return Err(Error::Diverged { what: format!("the ensemble of 4DVAR of seed {seed}"), diverged, members });
        }
        Err(Error::invalid(
            format!("ensemble of 4DVAR of seed {seed}"),
            format!("at most {:.0} of {members} members left out", most * members as f64),
            format!(
                "{} far from any minimum, {} in spurious minima, {diverged} diverged",
                self.count(Status::Stuck),
                self.count(Status::Spurious)
            ),
            "allow more --iterations, lengthen the window in --stages, or allow a larger --max-diverged-share",
        ))
    }
}
