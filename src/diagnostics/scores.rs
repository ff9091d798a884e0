//! All scores of one analysis, and their summary over repeated twins.

use super::{
    CostFit, CostFitSummary, Estimate, JudgedVerdict, ParameterQuality, Periods, Rank, RankHistogram, Trust,
    VerdictSummary, coverage, coverage_of, distance_of_covariance, distance_of_mean, distance_of_std, fair_crps,
    fair_energy_score, rank, ratio_of_squares, rmse, spread, variogram_score,
};
use ndarray::{ArrayView2, ArrayView3, Axis, s};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What an analysis is scored by.
#[derive(Clone, Debug)]
pub struct ScoreInput<'a> {
    /// Posterior mean: `[times, sites]`.
    pub mean: ArrayView2<'a, f64>,
    /// Posterior standard deviation: `[times, sites]`.
    pub std: ArrayView2<'a, f64>,
    /// Samples: `[samples, times, sites]`. Fewer than two are none.
    pub samples: ArrayView3<'a, f64>,
    /// Times that were assimilated, 1 to times.
    pub assimilated_times: usize,
    /// The true trajectory, where it is known: `[times, sites]`.
    pub truth: Option<ArrayView2<'a, f64>>,
    /// A reference posterior, where there is one.
    pub reference: Option<ScoreReference<'a>>,
    /// The site whose rank is taken. Neighbours are no independent windows, so one will do.
    pub rank_site: usize,
    /// The fit of the minimum, for a method that has one.
    pub cost_fit: Option<CostFit>,
    /// How well the fit of a method that maximises an ELBO did.
    pub fit: Option<FitQuality>,
    /// What the method says of itself, where it does.
    pub verdict: Option<Trust>,
    /// How well each parameter was estimated, where they are and the true ones are known.
    pub parameters: Option<Vec<ParameterQuality>>,
}

/// How close a fitted q came to the posterior.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitQuality<T = f64> {
    /// The evidence lower bound.
    pub elbo: T,
    /// Shape of the importance weights' tail: see [`Psis`](super::Psis).
    pub k_hat: T,
    /// KL(q || posterior) in nats: the reference's log p(y) less the ELBO. `None` without a reference.
    pub divergence: Option<T>,
}

impl FitQuality {
    /// Mean and standard error over repeated twins; `None` where there are none.
    fn over(twins: &[Self]) -> Option<FitQuality<Estimate>> {
        let of = |f: fn(&Self) -> f64| Estimate::new(&twins.iter().map(f).collect::<Vec<_>>());
        let divergences: Vec<f64> = twins.iter().filter_map(|fit| fit.divergence).collect();
        Some(FitQuality {
            elbo: of(|fit| fit.elbo)?,
            k_hat: of(|fit| fit.k_hat)?,
            divergence: Estimate::new(&divergences),
        })
    }
}

/// A reference posterior.
#[derive(Clone, Copy, Debug)]
pub struct ScoreReference<'a> {
    /// Its mean: `[times, sites]`.
    pub mean: ArrayView2<'a, f64>,
    /// Its standard deviation: `[times, sites]`.
    pub std: ArrayView2<'a, f64>,
    /// Its samples: `[samples, times, sites]`. None are fine.
    pub samples: ArrayView3<'a, f64>,
}

/// Scores of one analysis, or of many ([`ScoreSummary`]). Absent: `std` never; those with a truth where none is known;
/// from `crps` to `rank` also where there are fewer than two samples; the distances where there is no reference.
///
/// A score of a period is over all its times and sites. Units are those of the state but for the ratio, the coverages
/// and the distances; `variogram` is in units of the state too, being a square of square roots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores<T = f64, R = Rank, F = CostFit, V = JudgedVerdict, Q = FitQuality, P = ParameterQuality> {
    /// Root mean square error of the mean.
    pub rmse: Option<Periods<T>>,
    /// Mean posterior standard deviation.
    pub std: Option<Periods<T>>,
    /// Root of the mean variance, the RMSE to expect: see [`spread`].
    pub spread: Option<Periods<T>>,
    /// Spread / RMSE: ideal 1. Over twins the ratio of the roots of the mean squares: see [`ratio_of_squares`].
    pub spread_skill: Option<Periods<T>>,
    /// Share of truths in the central 50 % interval: see [`coverage()`].
    pub coverage_50: Option<Periods<T>>,
    /// The same for the central 90 %.
    pub coverage_90: Option<Periods<T>>,
    /// Fair CRPS of each time and site, averaged: see [`fair_crps`].
    pub crps: Option<Periods<T>>,
    /// Fair energy score of the state at each time, averaged: see [`fair_energy_score`].
    pub energy: Option<Periods<T>>,
    /// Variogram score of order 1/2 of the state at each time, averaged: see [`variogram_score`].
    pub variogram: Option<Periods<T>>,
    /// Distance of the mean to the reference's: see [`distance_of_mean`].
    pub distance_mean: Option<Periods<T>>,
    /// Distance of the deviation to the reference's: see [`distance_of_std`].
    pub distance_std: Option<Periods<T>>,
    /// Distance of the covariance between sites to the reference's, at the last time of each period: see
    /// [`distance_of_covariance`].
    pub distance_covariance: Option<Periods<T>>,
    /// Share of the reference posterior in the method's own central 90 % intervals, averaged over the sites: see
    /// [`coverage_of`].
    pub reference_coverage_90: Option<Periods<T>>,
    /// Rank of the truth at one site, at the last time of each period: 0, the window's end, the forecast's end. Over
    /// twins a histogram, from 10 twins on.
    pub rank: Option<Periods<R>>,
    /// 2 J_min against chi-squared, for a method that minimises the cost.
    pub cost_fit: Option<F>,
    /// How well a fit did, for a method that maximises an ELBO.
    pub fit: Option<Q>,
    /// What the method says of itself, against the reference at t = 0: see [`Trust::by_reference`].
    pub verdict: Option<V>,
    /// How well each of the model's parameters was estimated.
    pub parameters: Option<Vec<P>>,
}

/// Mean and standard error of each score over repeated twins.
pub type ScoreSummary =
    Scores<Estimate, RankHistogram, CostFitSummary, VerdictSummary, FitQuality<Estimate>, ParameterQuality<Estimate>>;

impl Scores {
    /// Scores an analysis.
    ///
    /// # Panics
    /// If shapes differ, `assimilated_times` is not from 1 to times, or there is no `rank_site`.
    pub fn new(input: &ScoreInput) -> Self {
        let ScoreInput { mean, std, samples, truth, reference, .. } = *input;
        assert_eq!(mean.shape(), std.shape(), "mean and std must have one shape");
        assert_eq!(mean.shape(), &samples.shape()[1..], "mean and samples must have one shape");
        let periods = Periods::new(mean.nrows(), input.assimilated_times);
        let count = Some(samples.len_of(Axis(0))).filter(|m| *m >= 2);
        let by_period = |f: &dyn Fn(&Range<usize>) -> f64| periods.map(|times| f(times));
        let spread = by_period(&|r| spread(rows(std, r), count));
        let rmse = truth.map(|truth| by_period(&|r| rmse(rows(mean, r), rows(truth, r))));
        let of_samples = truth.filter(|_| count.is_some()).map(|t| OfSamples::new(samples, t, input.rank_site));
        let distance_mean =
            reference.map(|g| by_period(&|r| distance_of_mean(rows(mean, r), rows(g.mean, r), rows(g.std, r))));
        let both = reference.filter(|g| count.is_some() && !g.samples.is_empty());
        let reference_coverage_90 = both.map(|g| {
            let states = |all: ArrayView3<'_, f64>, time| all.index_axis_move(Axis(1), time).to_owned();
            let at = |time| coverage_of(states(samples, time).view(), states(g.samples, time).view(), 0.9);
            periods.means(&(0..mean.nrows()).map(at).collect::<Vec<_>>())
        });
        let truth_of_verdict = reference_coverage_90
            .zip(distance_mean)
            .map(|(covered, distance)| Trust::by_reference(covered.initial, distance.initial));
        let distance_covariance = both.filter(|g| g.samples.len_of(Axis(0)) >= 2).map(|g| {
            let at = |time: usize| [samples, g.samples].map(|all| all.index_axis_move(Axis(1), time));
            periods.ends().map(|time| {
                let [own, reference] = at(*time);
                distance_of_covariance(own, reference)
            })
        });
        let sampled = |f: fn(&OfSamples) -> &[f64]| of_samples.as_ref().map(|s| periods.means(f(s)));
        Self {
            std: Some(by_period(&|r| rows(std, r).sum() / (r.len() * std.ncols()) as f64)),
            spread_skill: rmse.map(|rmse| Periods {
                initial: spread.initial / rmse.initial,
                window: spread.window / rmse.window,
                forecast: spread.forecast.zip(rmse.forecast).map(|(s, e)| s / e),
            }),
            spread: Some(spread),
            rmse,
            coverage_50: sampled(|s| &s.coverage_50),
            coverage_90: sampled(|s| &s.coverage_90),
            crps: sampled(|s| &s.crps),
            energy: sampled(|s| &s.energy),
            variogram: sampled(|s| &s.variogram),
            distance_mean,
            distance_std: reference.map(|g| by_period(&|r| distance_of_std(rows(std, r), rows(g.std, r)))),
            distance_covariance,
            reference_coverage_90,
            rank: of_samples.as_ref().map(|s| periods.ends().map(|time| s.ranks[*time])),
            cost_fit: input.cost_fit,
            fit: input.fit,
            verdict: input.verdict.map(|said| JudgedVerdict { said, truth: truth_of_verdict }),
            parameters: input.parameters.clone(),
        }
    }

    /// Sums up repeated twins: each score over those that have it.
    pub fn summary(twins: &[Self]) -> ScoreSummary {
        let over = |score: fn(&Self) -> Option<Periods<f64>>| {
            let all: Vec<_> = twins.iter().filter_map(score).collect();
            Periods::over(&all, Estimate::new)
        };
        let spreads: Vec<Periods<(f64, f64)>> = twins.iter().filter_map(Self::spread_and_rmse).collect();
        let ranks: Vec<_> = twins.iter().filter_map(|s| s.rank).collect();
        let fits: Vec<_> = twins.iter().filter_map(|s| s.cost_fit).collect();
        Scores {
            rmse: over(|s| s.rmse),
            std: over(|s| s.std),
            spread: over(|s| s.spread),
            spread_skill: Periods::over(&spreads, ratio_of_squares),
            coverage_50: over(|s| s.coverage_50),
            coverage_90: over(|s| s.coverage_90),
            crps: over(|s| s.crps),
            energy: over(|s| s.energy),
            variogram: over(|s| s.variogram),
            distance_mean: over(|s| s.distance_mean),
            distance_std: over(|s| s.distance_std),
            distance_covariance: over(|s| s.distance_covariance),
            reference_coverage_90: over(|s| s.reference_coverage_90),
            rank: Periods::over(&ranks, RankHistogram::of_windows),
            cost_fit: CostFitSummary::new(&fits),
            fit: FitQuality::over(&twins.iter().filter_map(|s| s.fit).collect::<Vec<_>>()),
            verdict: VerdictSummary::new(&twins.iter().filter_map(|s| s.verdict).collect::<Vec<_>>()),
            parameters: ParameterQuality::over(&twins.iter().filter_map(|s| s.parameters.as_ref()).collect::<Vec<_>>()),
        }
    }

    fn spread_and_rmse(&self) -> Option<Periods<(f64, f64)>> {
        let (spread, rmse) = (self.spread?, self.rmse?);
        Some(Periods {
            initial: (spread.initial, rmse.initial),
            window: (spread.window, rmse.window),
            forecast: spread.forecast.zip(rmse.forecast),
        })
    }
}

impl<T, R, F, V, Q, P> Scores<T, R, F, V, Q, P> {
    /// Every score of periods by name, in the order of tables.
    pub fn named(&self) -> [(&'static str, Option<&Periods<T>>); 13] {
        [
            ("rmse", self.rmse.as_ref()),
            ("std", self.std.as_ref()),
            ("spread", self.spread.as_ref()),
            ("spread_skill", self.spread_skill.as_ref()),
            ("coverage_50", self.coverage_50.as_ref()),
            ("coverage_90", self.coverage_90.as_ref()),
            ("crps", self.crps.as_ref()),
            ("energy", self.energy.as_ref()),
            ("variogram", self.variogram.as_ref()),
            ("distance_mean", self.distance_mean.as_ref()),
            ("distance_std", self.distance_std.as_ref()),
            ("distance_covariance", self.distance_covariance.as_ref()),
            ("reference_coverage_90", self.reference_coverage_90.as_ref()),
        ]
    }
}

impl<T: Copy> Periods<T> {
    /// Sums up each period over repeated twins; `None` where there is nothing to sum up.
    fn over<U>(twins: &[Self], sum_up: impl Fn(&[T]) -> Option<U>) -> Option<Periods<U>> {
        let of = |f: fn(&Self) -> Option<T>| sum_up(&twins.iter().filter_map(f).collect::<Vec<_>>());
        Some(Periods {
            initial: of(|p| Some(p.initial))?,
            window: of(|p| Some(p.window))?,
            forecast: of(|p| p.forecast),
        })
    }
}

fn rows<'a>(array: ArrayView2<'a, f64>, times: &Range<usize>) -> ArrayView2<'a, f64> {
    array.slice_move(s![times.clone(), ..])
}

/// Scores of samples at each time: `[times]`, averaged over the sites.
struct OfSamples {
    crps: Vec<f64>,
    energy: Vec<f64>,
    variogram: Vec<f64>,
    coverage_50: Vec<f64>,
    coverage_90: Vec<f64>,
    /// At the one site.
    ranks: Vec<Rank>,
}

impl OfSamples {
    fn new(samples: ArrayView3<f64>, truth: ArrayView2<f64>, rank_site: usize) -> Self {
        let (_, times, sites) = samples.dim();
        assert_eq!(truth.dim(), (times, sites), "samples and truth must have one shape");
        let mut own = Self {
            crps: vec![0.0; times],
            coverage_50: vec![0.0; times],
            coverage_90: vec![0.0; times],
            energy: Vec::new(),
            variogram: Vec::new(),
            ranks: Vec::new(),
        };
        for (time, truth) in truth.outer_iter().enumerate() {
            let states = samples.index_axis(Axis(1), time);
            own.energy.push(fair_energy_score(states, truth));
            own.variogram.push(variogram_score(states, truth));
            let mut columns = states.t().as_standard_layout().into_owned();
            for (site, mut column) in columns.outer_iter_mut().enumerate() {
                let sorted = column.as_slice_mut().expect("a row of an array in standard layout");
                sorted.sort_unstable_by(f64::total_cmp);
                let rank = rank(sorted, truth[site]);
                own.crps[time] += fair_crps(sorted, truth[site]) / sites as f64;
                own.coverage_50[time] += coverage(rank, 0.5) / sites as f64;
                own.coverage_90[time] += coverage(rank, 0.9) / sites as f64;
                if site == rank_site {
                    own.ranks.push(rank);
                }
            }
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::testing::normals;
    use ndarray::{Array1, Array2, Array3, array};

    const STD: [f64; 3] = [2.0, 1.0, 3.0];
    const SITES: usize = 8;
    const MEMBERS: usize = 30;

    /// Twins whose truth and members are independent draws from N(10, STD), but for members `narrow` times as wide; the
    /// reference is that distribution itself. 3 times, 2 assimilated.
    fn twins(count: usize, narrow: f64) -> Vec<Scores> {
        let std = Array2::from_shape_fn((3, SITES), |(t, _)| STD[t]);
        let center = Array2::from_elem((3, SITES), 10.0);
        let twin = |k: usize| {
            let draws: Array3<f64> = normals(k as u64, (MEMBERS + 1, 3, SITES)) * &std + &center;
            let other: Array3<f64> = normals(100_000 + k as u64, (200, 3, SITES)) * &std + &center;
            let truth = draws.index_axis(Axis(0), MEMBERS);
            let samples: Array3<f64> = (&draws.slice(s![..MEMBERS, .., ..]) - &center) * narrow + &center;
            Scores::new(&ScoreInput {
                mean: samples.mean_axis(Axis(0)).unwrap().view(),
                std: samples.std_axis(Axis(0), 1.0).view(),
                samples: samples.view(),
                assimilated_times: 2,
                truth: Some(truth),
                reference: Some(ScoreReference { mean: center.view(), std: std.view(), samples: other.view() }),
                rank_site: k % SITES,
                cost_fit: None,
                fit: None,
                verdict: Some(Trust::MeanAndSpread),
                parameters: None,
            })
        };
        (0..count).map(twin).collect()
    }

    /// What each score of a calibrated ensemble of independent sites must be on average, from the moments of normal and
    /// chi variables.
    #[test]
    fn calibrated_ensemble_has_the_scores_that_theory_gives() {
        let summary = Scores::summary(&twins(1000, 1.0));
        let m = MEMBERS as f64;
        // Gamma(9/2) / Gamma(4) and E[chi with 8 degrees] / sqrt 8.
        let gamma_ratio = 1.938_621_4;
        let chi = gamma_ratio * 0.5;
        // Var |Z|^(1/2) for a standard normal Z: sqrt(2 / pi) - sqrt 2 Gamma(3/4)^2 / pi.
        let root_variance = 0.797_884_6 - 2f64.sqrt() * 1.225_416_7f64.powi(2) / std::f64::consts::PI;
        let variogram = 2f64.sqrt() * root_variance * (1.0 + 1.0 / m);
        // E[sample deviation of 30] / sigma.
        let c4 = 0.991_418;
        let check = |name: &str, got: Option<Estimate>, expected: f64| {
            let got = got.unwrap_or_else(|| panic!("{name} is missing"));
            let error = got.standard_error.unwrap();
            println!("{name:22} {:.4} ± {error:.4}, expected {expected:.4}", got.mean);
            assert_eq!(got.count, 1000);
            assert!((got.mean - expected).abs() < 4.0 * error, "{name}: {got:?}, expected {expected}");
            assert!(error < 0.03 * expected.max(0.1), "{name}: {got:?}");
        };
        check("rmse initial", summary.rmse.map(|r| r.initial), 2.0 * chi * (1.0 + 1.0 / m).sqrt());
        check("rmse forecast", summary.rmse.and_then(|r| r.forecast), 3.0 * chi * (1.0 + 1.0 / m).sqrt());
        let scaled = [
            ("std", summary.std, c4),
            ("crps", summary.crps, std::f64::consts::PI.sqrt().recip()),
            ("energy", summary.energy, gamma_ratio),
            ("variogram", summary.variogram, variogram),
        ];
        for (name, score, unit) in scaled {
            check(&format!("{name} initial"), score.map(|s| s.initial), 2.0 * unit);
            check(&format!("{name} window"), score.map(|s| s.window), 1.5 * unit);
            check(&format!("{name} forecast"), score.and_then(|s| s.forecast), 3.0 * unit);
        }
        let same = [
            ("spread-skill", summary.spread_skill, 1.0),
            ("coverage 50", summary.coverage_50, 0.5),
            ("coverage 90", summary.coverage_90, 0.9),
            ("reference coverage 90", summary.reference_coverage_90, 0.9),
        ];
        for (name, score, expected) in same {
            check(&format!("{name} initial"), score.map(|s| s.initial), expected);
            check(&format!("{name} window"), score.map(|s| s.window), expected);
            check(&format!("{name} forecast"), score.and_then(|s| s.forecast), expected);
        }
        // A sample mean is off by sigma / sqrt M, a log deviation by sqrt(1 / (2 (M - 1))) to first order.
        check("distance of the mean", summary.distance_mean.map(|s| s.initial), chi / m.sqrt());
        let distance = summary.distance_std.unwrap().initial.mean;
        assert!((distance - chi / (2.0 * (m - 1.0)).sqrt()).abs() < 0.006, "{distance}");
        for (period, histogram) in summary.rank.as_ref().unwrap().named() {
            println!("rank {period}: p = {:.3}", histogram.p_value);
            assert!(histogram.p_value > 0.001, "{period}: {histogram:?}");
            assert_eq!(histogram.counts.iter().sum::<usize>(), 1000);
        }
        assert_eq!(summary.cost_fit, None);
        let count = summary.verdict.unwrap().mean_and_spread;
        assert!(count.said == 1000 && count.judged == 1000 && count.right == count.truth, "{count:?}");
    }

    #[test]
    fn narrow_ensemble_is_found_out() {
        let [narrow, right] = [0.4, 1.0].map(|width| Scores::summary(&twins(200, width)));
        let initial = |p: Option<Periods<Estimate>>| p.unwrap().initial.mean;
        // sqrt((M + 1) / M 0.16 / (1 + 0.16 / M)).
        assert!((initial(narrow.spread_skill) - 0.406).abs() < 0.03, "{:?}", narrow.spread_skill);
        // About P(|Z| < 0.4 * 1.645) = 0.49.
        assert!((initial(narrow.coverage_90) - 0.49).abs() < 0.05, "{:?}", narrow.coverage_90);
        assert!((initial(narrow.reference_coverage_90) - 0.49).abs() < 0.05, "{:?}", narrow.reference_coverage_90);
        let verdicts = narrow.verdict.unwrap();
        assert_eq!((verdicts.mean_and_spread.said, verdicts.mean_and_spread.right), (200, 0));
        assert!(initial(narrow.crps) > 1.1 * initial(right.crps));
        assert!(initial(narrow.energy) > 1.1 * initial(right.energy));
        assert!(initial(narrow.variogram) > 1.1 * initial(right.variogram));
        assert!((initial(narrow.distance_std) - 2.5f64.ln()).abs() < 0.05, "{:?}", narrow.distance_std);
        assert!(narrow.rank.unwrap().initial.p_value < 1e-6);
    }

    #[test]
    fn scores_of_a_worked_example() {
        let truth = array![[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]];
        let mean = array![[3.0, 4.0], [1.0, 1.0], [2.0, 4.0]];
        let std = array![[1.0, 7.0], [3.0, 5.0], [1.0, 7.0]];
        let none = Array3::zeros((0, 3, 2));
        let input = ScoreInput {
            mean: mean.view(),
            std: std.view(),
            samples: none.view(),
            assimilated_times: 2,
            truth: Some(truth.view()),
            reference: None,
            rank_site: 0,
            cost_fit: CostFit::new(3.0, 4),
            fit: None,
            verdict: Some(Trust::MeanOnly),
            parameters: None,
        };
        let scores = Scores::new(&input);
        let of = |initial: f64, window: f64, forecast: f64| Some(Periods { initial, window, forecast: Some(forecast) });
        assert_eq!(scores.rmse, of(12.5f64.sqrt(), 6.25f64.sqrt(), 2f64.sqrt()));
        assert_eq!(scores.std, of(4.0, 4.0, 4.0));
        assert_eq!(scores.spread, of(5.0, 21f64.sqrt(), 5.0));
        let ratio = scores.spread_skill.unwrap();
        assert!(
            (ratio.initial - 2f64.sqrt()).abs() < 1e-15 && (ratio.forecast.unwrap() - 12.5f64.sqrt()).abs() < 1e-14
        );
        assert_eq!(scores.cost_fit, input.cost_fit);
        // No samples, no reference.
        assert_eq!((scores.crps, scores.energy, scores.variogram), (None, None, None));
        assert_eq!((scores.coverage_50, scores.coverage_90, scores.rank), (None, None, None));
        assert_eq!((scores.distance_mean, scores.distance_std, scores.reference_coverage_90), (None, None, None));
        assert_eq!(scores.verdict, Some(JudgedVerdict { said: Trust::MeanOnly, truth: None }));

        // No truth, no forecast, but a reference.
        let reference = Some(ScoreReference { mean: truth.view(), std: std.view(), samples: none.view() });
        let scores = Scores::new(&ScoreInput { truth: None, reference, assimilated_times: 3, ..input });
        assert_eq!((scores.rmse, scores.spread_skill, scores.std.unwrap().forecast), (None, None, None));
        // (9 + 16/49) / 2 at time 0.
        assert!((scores.distance_mean.unwrap().initial - (457.0f64 / 98.0).sqrt()).abs() < 1e-14);
        assert_eq!(scores.distance_std.unwrap().window, 0.0);
        assert!(
            serde_json::to_string(&scores).unwrap().starts_with(r#"{"rmse":null,"std":{"initial":4.0,"window":4.0"#)
        );
    }

    #[test]
    fn scores_of_samples_are_means_over_times_and_sites() {
        let samples = normals(3, (40, 3, 5));
        let truth = normals(4, (1, 3, 5)).remove_axis(Axis(0));
        let scores = Scores::new(&ScoreInput {
            mean: samples.mean_axis(Axis(0)).unwrap().view(),
            std: samples.std_axis(Axis(0), 1.0).view(),
            samples: samples.view(),
            assimilated_times: 2,
            truth: Some(truth.view()),
            reference: None,
            rank_site: 2,
            cost_fit: None,
            fit: None,
            verdict: None,
            parameters: None,
        });
        let column = |t: usize, i: usize| -> Array1<f64> { samples.slice(s![.., t, i]).to_owned() };
        let crps = |t: usize, i: usize| {
            let x = column(t, i);
            let pairs: f64 = x.iter().map(|a| x.iter().map(|b| (a - b).abs()).sum::<f64>()).sum();
            x.mapv(|a| (a - truth[[t, i]]).abs()).mean().unwrap() - pairs / (2.0 * 40.0 * 39.0)
        };
        let expected: f64 = (0..10).map(|k| crps(k / 5, k % 5)).sum::<f64>() / 10.0;
        assert!((scores.crps.unwrap().window - expected).abs() < 1e-13);
        let energy = |t: usize| fair_energy_score(samples.index_axis(Axis(1), t), truth.row(t));
        assert_eq!(scores.energy.unwrap().window, f64::midpoint(energy(0), energy(1)));
        let below = column(2, 2).iter().filter(|x| **x < truth[[2, 2]]).count();
        assert_eq!(scores.rank.unwrap().forecast, Some(Rank { rank: below, samples: 40 }));
    }
}
