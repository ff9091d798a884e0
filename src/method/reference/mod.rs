//! Reference: the posterior itself, p(x0 | y) proportional to exp(-J_b - J_o), sampled to a known accuracy.
//!
//! Independent runs of tempered SMC, which crosses from mode to mode while the likelihood is weak, and a cross-check by
//! NUTS, which shares no number with them. Where they do not agree, the analysis says so: then it is no reference.

mod agreement;
mod factor;
mod nuts;
mod run;
mod smc;

use super::control::control_records;
use super::samples::MAX_DIVERGED_SHARE;
use super::{Analysis, MOST_MEMBERS, Observer, Progress, Record, check_count, check_samples, check_share};
use crate::checkpoint::MaybeKeeper;
use crate::engine::{DIVERGED, Engine, Members};
use crate::error::{Error, Result};
use crate::posterior::log_observation_normalizer;
use crate::problem::Problem;
use agreement::{ChainCheck, EVIDENCE_TOLERANCE, Estimate, Gap, share_beyond};
use ndarray::{Array1, Array2, Array3, ArrayView2, Axis, concatenate, s};
use run::Particles;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::time::Instant;

/// The method's name in tables.
pub const NAME: &str = "Reference";

/// Numbers of a forecast in flight; more particles than fit go one group after the other.
const FORECAST_NUMBERS: usize = 1 << 23;

/// Share of the particles beyond all draws of NUTS, or the other way round, that counts as a mode.
const MODE: f64 = 0.02;

/// Tells the observer how far the samplers have come.
struct Way<'a> {
    observer: &'a mut dyn Observer,
    /// Where the present one begins, and its share.
    from: f64,
    share: f64,
    ended: bool,
}

impl Way<'_> {
    fn tell(&mut self, done: f64, beta: f64) -> ControlFlow<()> {
        let iteration = (1000.0 * (self.from + self.share * done)) as usize;
        let progress = Progress { method: NAME, iteration, iterations: 1000, figures: &[("beta", beta)] };
        self.ended |= self.observer.progress(&progress).is_break();
        if self.ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn keeper(&mut self) -> MaybeKeeper<'_> {
        self.observer.keeper()
    }
}

/// Settings of the reference posterior.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Particles of each SMC run. Default: 2048.
    pub particles: usize,
    /// Independent SMC runs, at least 2. Default: 2.
    pub runs: usize,
    /// Effective share of the particles that a temper level leaves. Default: 0.5.
    pub ess_share: f64,
    /// Leapfrog steps of an HMC move at most; as many are done as a quarter of a period takes. Default: 16.
    pub leapfrog_steps: usize,
    /// HMC moves at a level at most. Default: 10.
    pub moves: usize,
    /// Correlation with the level's start, the largest over the components, below which it needs no more moves.
    /// Default: 0.2.
    pub correlation: f64,
    /// Whether NUTS checks the particles. Default: true.
    pub cross_check: bool,
    /// Chains of NUTS. Default: 4.
    pub nuts_chains: usize,
    /// Draws of each chain. Default: 500.
    pub nuts_draws: usize,
    /// Draws of each chain before those, which tune it. Default: 500.
    pub nuts_tune: usize,
    /// Samples kept, taken evenly from the particles of all runs; all of these if it is more. Default: 1000.
    pub samples: usize,
    /// Share of diverged particles above which there is no answer. Default: 0.5.
    pub max_diverged_share: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            particles: 2048,
            runs: 2,
            ess_share: 0.5,
            leapfrog_steps: 16,
            moves: 10,
            correlation: 0.2,
            cross_check: true,
            nuts_chains: 4,
            nuts_draws: 500,
            nuts_tune: 500,
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
        check_count("particles", self.particles, 16..=1 << 24)?;
        check_count("runs", self.runs, 2..=128)?;
        check_fraction("ess-share", self.ess_share)?;
        if self.ess_share < LEAST_ESS_SHARE {
            let expected = format!("at least {LEAST_ESS_SHARE}, or a few particles make all the others");
            return Err(Error::invalid("ess-share", expected, self.ess_share.to_string(), "leave it out"));
        }
        if self.particles.saturating_mul(self.runs) > MOST_PARTICLES {
            let found = format!("{} particles in {} runs", self.particles, self.runs);
            let expected = format!("at most {MOST_PARTICLES} particles in all runs together");
            return Err(Error::invalid("particles", expected, found, "use fewer"));
        }
        check_count("leapfrog-steps", self.leapfrog_steps, 1..=10_000)?;
        check_count("moves", self.moves, 1..=10_000)?;
        check_fraction("correlation", self.correlation)?;
        check_count("nuts-chains", self.nuts_chains, 2..=1_000)?;
        check_count("nuts-draws", self.nuts_draws, 10..=1_000_000)?;
        check_count("nuts-tune", self.nuts_tune, 50..=1_000_000)?;
        check_count("samples", self.samples, 2..=MOST_MEMBERS)?;
        check_share("max-diverged-share", self.max_diverged_share)
    }

    /// Samples the posterior of every problem of the set: one analysis each, whose `seconds` are those of the whole
    /// set.
    ///
    /// `mean` and `std` are over the trajectories of all particles of all runs, `samples` are some of these, evenly
    /// taken. Records: `agreed` (1: the runs agree with each other and with NUTS; 0: this is no reference, and the
    /// summary says why), `mean_gap` and `spread_gap` between the runs and `nuts_mean_gap` and `nuts_spread_gap`
    /// between particles and NUTS (the largest differences over the sites at time 0 of the mean, in posterior
    /// deviations, and of log std), `log_evidence` with `log_evidence_error` and `run_log_evidence` (run), `smc_ess`,
    /// `mean_error` (site), `r_hat`, `nuts_ess`, `nuts_mean` and `nuts_std` (site), `levels`, `moves` and `acceptance`
    /// (run), `correlation` (run), `gradients`, `nuts_gradients`, `nuts_divergences`, `outside_nuts` and
    /// `outside_smc` (the share of the particles beyond all draws of NUTS, and the other way round),
    /// `diverged_samples`. Those of NUTS
    /// are absent without the cross-check.
    ///
    /// `log_evidence` is log p(y), the density of the assimilated observations with every constant: an ELBO bounds it
    /// from below. A weight w_t counts as an error variance of R / w_t.
    ///
    /// # Errors
    /// Settings or a problem that cannot work, an engine's failure, too many particles diverged.
    pub fn run(&self, problem: &Problem, engine: &Engine, observer: &mut dyn Observer) -> Result<Vec<Analysis>> {
        self.check()?;
        check_samples(problem, self.samples)?;
        let clock = Instant::now();
        // The particles are the first half of the way, NUTS the second.
        let half = if self.cross_check { 0.5 } else { 1.0 };
        let mut way = Way { observer, from: 0.0, share: half, ended: false };
        let all = smc::sample(self, problem, engine, &mut way)?;
        let mut chains: Vec<_> = if self.cross_check && !all.iter().any(|p| p.interrupted) {
            way.from = half;
            nuts::sample(self, problem, engine, &mut way)?.into_iter().map(Some).collect()
        } else {
            (0..problem.count()).map(|_| None).collect()
        };
        let mut analyses = Vec::with_capacity(problem.count());
        for (p, runs) in all.chunks(self.runs).enumerate() {
            let pooled = concatenate(Axis(0), &runs.iter().map(|r| r.states.view()).collect::<Vec<_>>())
                .expect("runs of one shape");
            let forecast = self.forecast(&problem.single(p), engine, pooled.view())?;
            let (mut records, summary) =
                self.verdict(problem, p, runs, chains[p].take(), pooled.view(), forecast.diverged);
            records.extend(control_records(problem, p, pooled.select(Axis(0), &forecast.sound).view()));
            analyses.push(Analysis {
                method: NAME.into(),
                mean: forecast.mean,
                std: forecast.std,
                samples: forecast.samples,
                records,
                summary,
                seconds: 0.0,
            });
        }
        let seconds = clock.elapsed().as_secs_f64();
        analyses.iter_mut().for_each(|a| a.seconds = seconds);
        Ok(analyses)
    }

    /// The trajectories of the particles of one problem, summed up a group at a time.
    fn forecast(&self, problem: &Problem, engine: &Engine, states: ArrayView2<f64>) -> Result<Forecast> {
        let (times, sites) = (problem.window.times, problem.sites());
        let count = states.nrows();
        let wanted = self.samples.min(count);
        let group = (FORECAST_NUMBERS / (times * sites)).clamp(1, count);
        let mut loaded = engine.load(problem)?;
        let mut samples = Array3::zeros((wanted, times, sites));
        let (mut mean, mut squares) = (Array2::<f64>::zeros((times, sites)), Array2::<f64>::zeros((times, sites)));
        let (mut sound, mut kept) = (Vec::new(), 0);
        for first in (0..count).step_by(group) {
            let some = states.slice(s![first..count.min(first + group), ..]);
            let trajectories = loaded.forecast(Members::Given(some))?;
            for (k, trajectory) in (first..).zip(trajectories.outer_iter()) {
                if trajectory.iter().any(|x| x.abs() >= DIVERGED || x.is_nan()) {
                    continue;
                }
                sound.push(k);
                // Welford's update: one order of sums, however they are grouped.
                ndarray::Zip::from(&mut mean).and(&mut squares).and(&trajectory).for_each(|m, s, x| {
                    let off = x - *m;
                    *m += off / sound.len() as f64;
                    *s += off * (x - *m);
                });
                // Particle k is one of the samples where k * wanted / count passes a whole number.
                if k * wanted / count != (k + 1) * wanted / count {
                    samples.index_axis_mut(Axis(0), kept).assign(&trajectory);
                    kept += 1;
                }
            }
        }
        let diverged = count - sound.len();
        if sound.len() < 2 || kept < 2 || diverged as f64 > self.max_diverged_share * count as f64 {
            return Err(Error::Diverged {
                what: "the forecasts of the reference posterior".into(),
                diverged,
                members: count,
            });
        }
        Ok(Forecast {
            mean,
            std: squares.mapv(|s| (s / (sound.len() as f64 - 1.0)).sqrt()),
            samples: samples.slice_move(s![..kept, .., ..]),
            sound,
            diverged,
        })
    }

    /// What the samplers have to say about one problem and about each other.
    fn verdict(
        &self,
        problem: &Problem,
        p: usize,
        runs: &[Particles],
        chains: Option<std::result::Result<nuts::Chains, String>>,
        states: ArrayView2<f64>,
        diverged: usize,
    ) -> (Vec<Record>, String) {
        let estimates: Vec<_> = runs.iter().map(Estimate::of_particles).collect();
        let mut reasons = Vec::new();
        let mut gaps = Vec::new();
        for b in 1..runs.len() {
            for a in 0..b {
                let names = [format!("SMC run {}", a + 1), format!("run {}", b + 1)];
                gaps.push(Gap::new([&names[0], &names[1]], &estimates[a], &estimates[b]));
            }
        }
        reasons.extend(gaps.iter().filter_map(|g| g.reason.clone()));
        let worst = |f: &dyn Fn(&Gap) -> f64| gaps.iter().map(f).fold(0.0, f64::max);
        let pooled = pool(&estimates);

        let constant = log_observation_normalizer(problem, p);
        let evidences: Array1<f64> = runs.iter().map(|r| r.log_evidence + constant).collect();
        let top = evidences.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_evidence = top + evidences.mapv(|e| (e - top).exp()).mean().unwrap_or(f64::NAN).ln();
        let low = evidences.iter().copied().fold(f64::INFINITY, f64::min);
        if top - low > EVIDENCE_TOLERANCE {
            reasons.push(format!("log p(y) is {low:.2} by one SMC run, {top:.2} by another"));
        }
        let per_run = |f: &dyn Fn(&Particles) -> f64| runs.iter().map(f).collect::<Array1<_>>();
        // A few runs may agree by chance: their difference counts where it is larger than what each run expects.
        let variance = per_run(&|r| r.log_evidence_variance).mean().unwrap_or(f64::NAN).max(evidences.var(1.0));
        let log_evidence_error = (variance / runs.len() as f64).sqrt();
        let gradients: u64 = runs.iter().map(|r| r.gradients).sum();
        let mut records = vec![
            Record::scalar(
                "mean_gap",
                "largest difference of the means of two SMC runs, in posterior sd",
                worst(&|g| g.mean.0),
            ),
            Record::scalar("spread_gap", "largest difference of log sd of two SMC runs", worst(&|g| g.spread.0)),
            Record::scalar("log_evidence", "log p(y) of the assimilated observations", log_evidence),
            Record::scalar(
                "log_evidence_error",
                "standard error of log_evidence, from the weights of the SMC runs and from their difference",
                log_evidence_error,
            ),
            Record::new("run_log_evidence", "log p(y) as each SMC run has it", &["run"], evidences),
            Record::scalar(
                "smc_ess",
                "effective number of particles, at the site where it is least",
                pooled.effective_size(),
            ),
            Record::new(
                "mean_error",
                "standard error of the mean at time 0",
                &[problem.control().dimensions()[0]],
                pooled.mean_error.clone(),
            ),
            Record::new("levels", "temper levels of each SMC run", &["run"], per_run(&|r| r.levels as f64)),
            Record::new("moves", "HMC moves of each SMC run", &["run"], per_run(&|r| r.moves as f64)),
            Record::new(
                "acceptance",
                "acceptance of the moves at the last level",
                &["run"],
                per_run(&|r| r.acceptance),
            ),
            Record::new(
                "correlation",
                "correlation of the particles with the start of the last level, at the component where it is largest",
                &["run"],
                per_run(&|r| r.correlation),
            ),
            Record::scalar("gradients", "gradients of particles", gradients as f64),
            Record::scalar("diverged_samples", "particles whose forecast diverged, left out", diverged as f64),
        ];
        if runs.iter().any(|r| r.interrupted) {
            reasons = vec!["the caller ended it before the posterior was reached".into()];
        }
        let mut checked = String::new();
        match chains {
            None if self.cross_check => {}
            None => checked = ", not checked by NUTS".into(),
            Some(Err(why)) => reasons.push(format!("NUTS failed ({why})")),
            Some(Ok(chains)) => {
                let check = ChainCheck::new(self, &chains);
                let draws = chains.states.to_shape((self.nuts_chains * self.nuts_draws, problem.control().len()));
                let draws = draws.expect("draws in one row each");
                let outside = [share_beyond(draws.view(), states), share_beyond(states, draws.view())];
                let gap = Gap::new(["SMC", "NUTS"], &pooled, &check.estimate);
                checked = format!(
                    ", NUTS R-hat {:.3}, {:.0} effective draws, {:.2} sd and {:.0} % from it at most",
                    check.r_hat,
                    check.ess,
                    gap.mean.0,
                    100.0 * gap.spread.0.exp_m1()
                );
                let number = Record::scalar;
                records.extend([
                    number(
                        "nuts_mean_gap",
                        "largest difference of the means of SMC and NUTS, in posterior sd",
                        gap.mean.0,
                    ),
                    number("nuts_spread_gap", "largest difference of log sd of SMC and NUTS", gap.spread.0),
                    number(
                        "r_hat",
                        "rank-normalised split R-hat of NUTS, at the site where it is largest",
                        check.r_hat,
                    ),
                    number("nuts_ess", "bulk effective sample size of NUTS, at the site where it is least", check.ess),
                    number("outside_nuts", "share of the particles beyond all draws of NUTS", outside[0]),
                    number("outside_smc", "share of the draws of NUTS beyond all particles", outside[1]),
                    number("nuts_gradients", "gradients of NUTS", chains.gradients as f64),
                    number("nuts_divergences", "divergent transitions of NUTS", chains.divergences as f64),
                    Record::new(
                        "nuts_mean",
                        "mean at time 0 by NUTS",
                        &[problem.control().dimensions()[0]],
                        check.estimate.mean,
                    ),
                    Record::new(
                        "nuts_std",
                        "standard deviation at time 0 by NUTS",
                        &[problem.control().dimensions()[0]],
                        check.estimate.std,
                    ),
                ]);
                reasons.extend(check.reason);
                reasons.extend(gap.reason);
                if !reasons.is_empty() && outside[0] > MODE {
                    let share = 100.0 * outside[0];
                    reasons.push(format!(
                        "NUTS found one mode of several: {share:.0} % of the particles lie beyond all of its draws"
                    ));
                }
                if !reasons.is_empty() && outside[1] > MODE {
                    let share = 100.0 * outside[1];
                    reasons.push(format!(
                        "{share:.0} % of the draws of NUTS lie beyond all particles: a mode that SMC lost, or a spurious \
                         minimum that a chain does not leave"
                    ));
                }
            }
        }
        let agreed = reasons.is_empty();
        let long_name = "1 where all samplers agree; 0: this is no reference";
        records.insert(0, Record::scalar("agreed", long_name, f64::from(u8::from(agreed))));
        let verdict = if agreed {
            "a reference: all samplers agree".to_string()
        } else {
            format!("NO reference: {}", reasons.join("; "))
        };
        let levels: Vec<_> = runs.iter().map(|r| r.levels.to_string()).collect();
        let summary = format!(
            "{verdict}; {} SMC runs of {} particles, {} levels, {:.0} effective particles{checked}; log p(y) = \
             {log_evidence:.2} +- {log_evidence_error:.2}",
            runs.len(),
            self.particles,
            levels.join(" and "),
            pooled.effective_size(),
        );
        (records, summary)
    }
}

/// Least share of effective particles that a temper level may leave.
const LEAST_ESS_SHARE: f64 = 0.05;
/// Most particles of all runs of a problem: their trajectories are summed in memory.
const MOST_PARTICLES: usize = 1 << 20;

/// Refuses what is not strictly between 0 and 1.
fn check_fraction(flag: &str, value: f64) -> Result<()> {
    if value > 0.0 && value < 1.0 {
        return Ok(());
    }
    Err(Error::invalid(flag, "a number between 0 and 1, neither included", value.to_string(), "leave it out"))
}

/// The estimate from the particles of all runs, which are as many in each.
fn pool(runs: &[Estimate]) -> Estimate {
    let count = runs.len() as f64;
    let mean = runs.iter().map(|r| &r.mean).fold(Array1::zeros(runs[0].mean.len()), |sum, m| sum + m) / count;
    let variance = runs
        .iter()
        .map(|r| r.std.mapv(|s| s * s) + (&r.mean - &mean).mapv(|d| d * d))
        .fold(Array1::zeros(mean.len()), |sum: Array1<f64>, v| sum + v)
        / count;
    let error = |f: &dyn Fn(&Estimate) -> &Array1<f64>| {
        let squares = runs.iter().map(|r| f(r).mapv(|e| e * e));
        squares.fold(Array1::<f64>::zeros(mean.len()), |sum, e| sum + e).mapv(f64::sqrt) / count
    };
    Estimate {
        mean_error: error(&|r| &r.mean_error),
        spread_error: error(&|r| &r.spread_error),
        std: variance.mapv(f64::sqrt),
        mean,
    }
}

/// Mean, deviation and some of the trajectories of all particles.
struct Forecast {
    mean: Array2<f64>,
    std: Array2<f64>,
    samples: Array3<f64>,
    /// The particles that did not diverge.
    sound: Vec<usize>,
    diverged: usize,
}
