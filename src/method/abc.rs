//! ABC rejection: many trials of the prior, of which only those close to the observations are kept.
//!
//! Trials are drawn from N(xb, B), so that the prior is already in them: the proper criterion is J_o alone. J = J_b + J_o,
//! the criterion of the slides, counts the prior twice, in the draw and in the criterion, and the kept are too narrow.
//!
//! The likelihood is known, so the kept trials can be weighted by exp(-J_o). Then the answer is the posterior cut off at
//! the threshold, whichever the criterion; it is the posterior itself where what was left out has no weight.

use super::control::control_records;
use super::samples::{MAX_DIVERGED_SHARE, Spread};
use super::{
    Analysis, MOST_MEMBERS, Observer, Progress, Record, check_count, check_positive, check_samples, check_share, once,
};
use crate::checkpoint;
use crate::engine::{
    AffineMap, CostHistogram, DIVERGED, Draw, Engine, Keep, LoadedProblem, Members, Scale, Selection, Terms,
};
use crate::error::{Error, Result};
use crate::memory;
use crate::problem::Problem;
use crate::random::{Stream, standard_normals};
use ndarray::{Array1, Array2, Array3, Axis, s};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// The method's name in tables.
pub const NAME: &str = "ABC";

/// Kept trials at a time whose trajectories are in memory, beside the samples.
const PIECE: usize = 1024;

/// Fewer kept trials than this are called few: the standard error of a deviation from 30 is 13 % of it.
const FEW_KEPT: usize = 30;

/// An effective number below this is called small: the standard error of a mean is then a third of the posterior's
/// deviation.
const SMALL_ESS: f64 = 10.0;

/// What a trial is accepted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// J_o, the distance from the observations. Right for trials of the prior.
    #[default]
    Observation,
    /// J = J_b + J_o, as in the slides: counts the prior twice.
    Total,
}

impl Criterion {
    fn terms(self) -> Terms {
        Terms { background: self == Self::Total, observation: true }
    }

    fn symbol(self) -> &'static str {
        match self {
            Self::Observation => "J_o",
            Self::Total => "J",
        }
    }
}

/// Settings of ABC rejection.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Trials drawn from N(xb, B) for each problem. Default: 100,000.
    pub trials: usize,
    /// Share of them to keep, those of least criterion; rounded to a number of trials, at least 2. Default: 0.001.
    pub keep: f64,
    /// Keep all trials whose criterion is at or below this instead of a share. Default: no.
    pub threshold: Option<f64>,
    /// What a trial is accepted by. Default: J_o.
    pub criterion: Criterion,
    /// Weight the kept trials by exp(-J_o). Default: no, as in plain rejection.
    pub weights: bool,
    /// Most kept trials whose trajectories are returned as samples, at least 2; with weights, how many. Default: 1000.
    pub samples: usize,
    /// Share of diverged trials, and of diverged trajectories of kept ones, above which there is no answer. Default: 0.5.
    pub max_diverged_share: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trials: 100_000,
            keep: 0.001,
            threshold: None,
            criterion: Criterion::Observation,
            weights: false,
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
        check_count("abc-trials", self.trials, 2..=MOST_MEMBERS)?;
        check_share("abc-keep", self.keep)?;
        if self.threshold.is_none() && self.keep * (self.trials as f64) < 1.5 {
            let found = format!("{} of {} trials", self.keep, self.trials);
            return Err(Error::invalid("abc-keep", "a share that keeps at least 2 trials", found, "keep or try more"));
        }
        check_positive("abc-threshold", self.threshold.unwrap_or(1.0))?;
        check_count("samples", self.samples, 2..=MOST_MEMBERS)?;
        check_share("max-diverged-share", self.max_diverged_share)
    }

    fn rule(&self) -> Keep {
        match self.threshold {
            Some(threshold) => Keep::Below(threshold),
            None => Keep::Best(((self.keep * self.trials as f64).round() as usize).clamp(2, self.trials)),
        }
    }

    /// Assimilates every problem of the set: one analysis each, whose `seconds` are those of the whole set.
    ///
    /// `mean` and `std` are those of the trajectories of all kept trials, weighted where `weights` asks for it.
    /// `samples` are equally weighted in any case: all kept trials; where these are more than `samples`, that many
    /// at even distances in the order of the criterion; with `weights`, a systematic resample of that many, in which
    /// trials of large weight come repeatedly. Records by kept trial (axis `kept`, by ascending criterion):
    /// `kept_trial` (its number), `kept_cost_observation`, `kept_cost_background` (criterion J only), `kept_weight`
    /// (exp(-J_o), normalised); of all trials: `cost_count` by `bin`, whose edges are `cost_bin_edge`; numbers:
    /// `trials`, `acceptance_rate`, `threshold` (the given one, or the largest criterion kept), `importance_ess` (of
    /// all trials under exp(-J_o)), `kept_importance_ess` (of the kept), `diverged_trials`, `diverged_samples`.
    ///
    /// # Errors
    /// Settings or a problem that cannot work, fewer than two trials within the threshold or more than the engine
    /// keeps, an engine's failure, too many trials diverged; [`Error::Interrupted`] where the observer breaks: a part of the
    /// trials is no answer.
    pub fn run(&self, problem: &Problem, engine: &Engine, observer: &mut dyn Observer) -> Result<Vec<Analysis>> {
        self.check()?;
        check_samples(problem, self.samples)?;
        let clock = Instant::now();
        let draw = Draw { map: prior(problem)?, stream: Stream::Abc, iteration: 0, count: self.trials };
        let selections = once(observer, |observer| {
            let mut watch = |done: usize| {
                let iteration = done / problem.count();
                let progress = Progress { method: NAME, iteration, iterations: self.trials, figures: &[] };
                if observer.progress(&progress).is_break() && iteration < self.trials {
                    return Err(Error::Interrupted { state: None });
                }
                checkpoint::pause(observer.keeper())
            };
            engine.load(problem)?.select_watched(&draw, self.criterion.terms(), self.rule(), &mut watch)
        })?;
        let mut analyses = Vec::with_capacity(problem.count());
        for (p, selection) in selections.iter().enumerate() {
            self.check_selection(selection, problem.seeds[p])?;
            // One problem at a time: with a threshold, each keeps a number of its own.
            let mut alone = engine.load(&problem.single(p))?;
            analyses.push(self.analysis(problem, p, selection, &mut alone)?);
        }
        let seconds = clock.elapsed().as_secs_f64();
        analyses.iter_mut().for_each(|a| a.seconds = seconds);
        Ok(analyses)
    }

    fn check_selection(&self, selection: &Selection, seed: u64) -> Result<()> {
        if selection.diverged as f64 > self.max_diverged_share * self.trials as f64 {
            let what = "the trials of ABC".into();
            return Err(Error::Diverged { what, diverged: selection.diverged, members: self.trials });
        }
        let kept = selection.member.len();
        let least = selection.histogram.counts.iter().position(|c| *c > 0);
        if let (0..2, Some(threshold), Some(least)) = (kept, self.threshold, least) {
            let (symbol, edge) = (self.criterion.symbol(), CostHistogram::edge(least));
            return Err(Error::invalid(
                "abc-threshold",
                "one that keeps at least 2 trials of each problem",
                format!("{threshold}, which keeps {kept} for seed {seed}, where the least {symbol} is about {edge:.4}"),
                "raise it, draw more trials, or keep a share instead",
            ));
        }
        if kept < 2 {
            let what = "the trials of ABC".into();
            return Err(Error::Diverged { what, diverged: selection.diverged, members: self.trials });
        }
        Ok(())
    }

    fn analysis(&self, problem: &Problem, p: usize, kept: &Selection, loaded: &mut LoadedProblem) -> Result<Analysis> {
        let (count, times, sites) = (kept.member.len(), problem.window.times, problem.sites());
        let weights = normalised_weights(&kept.cost_observation);
        let chosen = if self.weights { resample(&weights, self.samples) } else { spaced(count, self.samples) };
        let mut sampled = Array2::zeros((chosen.len(), problem.control().len()));
        let mut spread = Spread::new(times, sites);
        let mut samples = Array3::zeros((chosen.len(), times, sites));
        let (mut filled, mut next, mut diverged) = (0, 0, 0);
        for piece in kept.member.chunks(PIECE) {
            let states = draw_again(problem, p, piece);
            let trajectories = loaded.forecast(Members::Given(states.view()))?;
            for (trajectory, state) in trajectories.outer_iter().zip(states.outer_iter()) {
                let copies = chosen[next..].partition_point(|k| *k == filled + diverged);
                next += copies;
                sampled.slice_mut(s![next - copies..next, ..]).assign(&state);
                if trajectory.iter().all(|x| x.abs() < DIVERGED) {
                    spread.add(trajectory, if self.weights { weights[filled + diverged] } else { 1.0 });
                    samples.slice_mut(s![next - copies..next, .., ..]).assign(&trajectory);
                    filled += 1;
                } else {
                    samples.slice_mut(s![next - copies..next, .., ..]).fill(f64::NAN);
                    diverged += 1;
                }
            }
        }
        if filled < 2 || diverged as f64 > self.max_diverged_share * count as f64 {
            let what = "the kept trials of ABC".into();
            return Err(Error::Diverged { what, diverged, members: count });
        }
        if diverged > 0 {
            let sound = |k: &usize| samples[[*k, 0, 0]].is_finite();
            let rows: Vec<usize> = (0..samples.len_of(Axis(0))).filter(sound).collect();
            samples = samples.select(Axis(0), &rows);
            sampled = sampled.select(Axis(0), &rows);
        }
        let ess = effective(&weights);
        let criterion = kept.criterion();
        let threshold = self.threshold.unwrap_or(criterion[count - 1]);
        Ok(Analysis {
            method: NAME.into(),
            mean: spread.mean().to_owned(),
            std: spread.std(),
            samples,
            records: [
                self.records(kept, &weights, threshold, ess, diverged),
                control_records(problem, p, sampled.view()),
            ]
            .concat(),
            summary: self.summary(kept, threshold, ess, diverged),
            seconds: 0.0,
        })
    }

    fn records(&self, kept: &Selection, weights: &[f64], threshold: f64, ess: f64, diverged: usize) -> Vec<Record> {
        let by_kept = |name: &str, long_name: &str, values: Vec<f64>| {
            Record::new(name, long_name, &["kept"], Array1::from(values))
        };
        let members = kept.member.iter().map(|m| f64::from(*m)).collect();
        let mut records = vec![
            by_kept("kept_trial", "number of the trial", members),
            by_kept("kept_cost_observation", "J_o of the kept trials", kept.cost_observation.clone()),
            by_kept("kept_weight", "exp(-J_o) of the kept trials, normalised", weights.to_vec()),
        ];
        if self.criterion == Criterion::Total {
            records.push(by_kept("kept_cost_background", "J_b of the kept trials", kept.cost_background.clone()));
        }
        let counts = &kept.histogram.counts;
        let first = counts.iter().position(|c| *c > 0).unwrap_or(0);
        let last = counts.iter().rposition(|c| *c > 0).unwrap_or(0);
        let symbol = self.criterion.symbol();
        records.extend([
            Record::new(
                "cost_count",
                &format!("trials by {symbol}"),
                &["bin"],
                counts[first..=last].iter().map(|c| *c as f64).collect::<Array1<f64>>(),
            ),
            Record::new(
                "cost_bin_edge",
                &format!("edges of the bins of {symbol}"),
                &["bin_edge"],
                (first..=last + 1).map(CostHistogram::edge).collect::<Array1<f64>>(),
            ),
            Record::scalar("trials", "trials drawn from N(xb, B)", self.trials as f64),
            Record::scalar("acceptance_rate", "share of the trials kept", kept.member.len() as f64 / kept.count as f64),
            Record::scalar("threshold", &format!("largest {symbol} kept"), threshold),
            Record::scalar(
                "importance_ess",
                "effective number of all trials weighted by exp(-J_o)",
                kept.importance_ess(),
            ),
            Record::scalar("kept_importance_ess", "the same of the kept trials", ess),
            Record::scalar("diverged_trials", "trials that diverged, never kept", kept.diverged as f64),
            Record::scalar("diverged_samples", "kept trials left out because they diverged later", diverged as f64),
        ]);
        records
    }

    fn summary(&self, kept: &Selection, threshold: f64, ess: f64, diverged: usize) -> String {
        let (count, symbol) = (kept.member.len(), self.criterion.symbol());
        let mut text = format!(
            "kept {count} of {} trials, at {symbol} up to {threshold:.4}; weighted by exp(-J_o) the kept would count \
             as {ess:.1} and all trials as {:.1}",
            self.trials,
            kept.importance_ess()
        );
        if kept.diverged + diverged > 0 {
            text += &format!("; {} trials diverged, and {diverged} of the kept after them", kept.diverged);
        }
        if self.criterion == Criterion::Total {
            text += "; the criterion J counts the prior twice";
        }
        if count < FEW_KEPT {
            text += &format!("; WARNING: {count} kept trials are too few for a mean and a deviation");
        }
        if ess < SMALL_ESS {
            let least = kept.cost_observation.iter().copied().fold(f64::INFINITY, f64::min);
            let most = kept.cost_observation.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            text += &if self.weights {
                format!("; WARNING: the answer rests on about {ess:.1} trials: draw more")
            } else {
                format!(
                    "; WARNING: J_o of the kept runs from {least:.4} to {most:.4}, so that most of them fit far worse \
                     than the best: their spread says more about the threshold than about the posterior"
                )
            };
        }
        text
    }
}

/// The prior of each problem's control as an affine map.
fn prior(problem: &Problem) -> Result<AffineMap> {
    let (count, control, sites) = (problem.count(), problem.control().len(), problem.sites());
    let background = &problem.background;
    let scale = if background.error.factor_of(0).is_none() {
        Scale::Diagonal(problem.control_stds())
    } else {
        let shared = background.error.is_shared() && background.scale.len() == 1 && problem.control().is_state();
        let count = if shared { 1 } else { count };
        memory::check("factors of B", &[count, control, control], "give a diagonal B")?;
        let mut lower = Array3::zeros((count, control, control));
        for (p, mut lower) in lower.outer_iter_mut().enumerate() {
            lower.diag_mut().assign(&problem.control_std(p));
            let b = background.error.factor_of(p).expect("a full B");
            lower.slice_mut(s![..sites, ..sites]).assign(&(&b.lower * background.scale_of(p).sqrt()));
        }
        Scale::Lower(lower)
    };
    Ok(AffineMap { mean: problem.control_means(), scale })
}

/// The controls of some trials of problem `p`, from their numbers: `[trials, control]`.
fn draw_again(problem: &Problem, p: usize, trials: &[u32]) -> Array2<f64> {
    let control = problem.control().len();
    let mut states = Array2::zeros((trials.len(), control));
    let mean = problem.control_mean(p);
    for (trial, mut state) in trials.iter().zip(states.outer_iter_mut()) {
        let number = *trial as usize;
        let epsilon = standard_normals(problem.seeds[p], Stream::Abc, 0, number..number + 1, control);
        state.assign(&(&mean + &problem.control_root(p, epsilon.row(0))));
    }
    states
}

/// exp(-J_o), normalised.
fn normalised_weights(costs: &[f64]) -> Vec<f64> {
    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let weights: Vec<f64> = costs.iter().map(|cost| (least - cost).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// 1 / sum w^2 of normalised weights (Kong 1992).
fn effective(weights: &[f64]) -> f64 {
    weights.iter().map(|w| w * w).sum::<f64>().recip()
}

/// At most `most` of `count` indices, at even distances.
fn spaced(count: usize, most: usize) -> Vec<usize> {
    let taken = count.min(most);
    (0..taken).map(|k| (k as u128 * count as u128 / taken as u128) as usize).collect()
}

/// Systematic resampling: the indices at which the cumulated weights pass (k + 1/2) / count, in ascending order.
fn resample(weights: &[f64], count: usize) -> Vec<usize> {
    let mut indices = Vec::with_capacity(count);
    let (mut k, mut passed) = (0, weights[0]);
    for draw in 0..count {
        let wanted = (draw as f64 + 0.5) / count as f64;
        while passed < wanted && k + 1 < weights.len() {
            k += 1;
            passed += weights[k];
        }
        indices.push(k);
    }
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resample_holds_each_in_proportion_to_its_weight() {
        let weights = [0.5, 0.0, 0.25, 0.05, 0.2];
        let drawn = resample(&weights, 1000);
        for (k, weight) in weights.iter().enumerate() {
            let count = drawn.iter().filter(|d| **d == k).count() as f64;
            assert!((count - 1000.0 * weight).abs() <= 1.0, "{k}: {count}");
        }
        assert_eq!(resample(&[1.0, 0.0], 3), [0, 0, 0]);
    }

    #[test]
    fn a_subset_is_spread_over_all_ranks() {
        assert_eq!(spaced(3, 10), [0, 1, 2]);
        assert_eq!(spaced(10, 4), [0, 2, 5, 7]);
    }

    #[test]
    fn equal_costs_weigh_the_same() {
        assert_eq!(normalised_weights(&[1e6; 4]), [0.25; 4]);
        assert!((effective(&normalised_weights(&[1e6; 4])) - 4.0).abs() < 1e-12);
        assert_eq!(normalised_weights(&[0.0, 1e6]), [1.0, 0.0]);
    }
}
