//! VI-4DVAR in a latent space: a Gaussian over the z of a control variable transform c(z), whose prior is N(0, I).
//!
//! The ELBO is E_q[-1/2 |z|^2 - J_o(c(z))] + entropy(q), with no log-determinant: both densities are of z. Members are drawn
//! and mapped on the host, the engine has the gradients of J_o, and the sums that an engine would make of an affine map's
//! members are made here of the transform's.

use super::Settings;
use super::ascent;
use crate::diagnostics::{Estimate, Psis, elbo, iwae, k_threshold, log_evidence};
use crate::engine::{DIVERGED, Draw, Engine, Listed, LoadedProblem, Members, Moments, PatternSums, Row, Scale, Terms};
use crate::error::{Error, Result};
use crate::method::control::control_records;
use crate::method::samples::Samples;
use crate::method::transform::Transform;
use crate::method::{Analysis, Observer, Record, check_samples};
use crate::posterior::{Draws, Family, FullRank, Gaussian, MeanField, log_observation_normalizer};
use crate::problem::Problem;
use crate::random::{Stream, standard_normals};
use ndarray::{Array1, Array2, Axis, s};
use rayon::prelude::*;
use std::f64::consts::TAU;
use std::ops::Range;

/// Members that a thread maps at a time.
const GRAIN: usize = 16;

/// Weights whose mean the IWAE bound takes the logarithm of.
const IWAE_DRAWS: usize = 100;

/// Members whose controls are on the host at a time.
const MEMBERS: usize = 1 << 14;

/// A problem set seen from its latents.
struct Latent<'a> {
    problem: &'a Problem,
    transforms: &'a [Transform<'a>],
    loaded: LoadedProblem,
    /// c at z = 0 has these backgrounds: `[P, control]`.
    backgrounds: Array2<f64>,
}

/// Members that have been evaluated, those of problem 0 first.
struct Evaluated {
    /// Of the latents' prior: `[members]`.
    prior: Vec<f64>,
    /// J_o.
    observation: Vec<f64>,
    diverged: Vec<bool>,
    /// dJ/dz: `[members, latents]`.
    gradient: Array2<f64>,
}

impl Settings {
    /// Fits a Gaussian over the latents to every problem, from their prior on.
    pub(in crate::method) fn run_latent(
        &self,
        title: &str,
        problem: &Problem,
        transforms: &[Transform],
        engine: &Engine,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Analysis>> {
        self.check()?;
        check_samples(problem, self.samples)?;
        let n = transforms[0].latents(problem.control().len());
        let zeros = Array2::zeros((problem.count(), n));
        let mut q: Box<dyn Gaussian> = match self.family {
            Family::MeanField => Box::new(MeanField::new(&zeros, &Array2::ones(zeros.raw_dim()))?),
            Family::FullRank => {
                let one = Array2::<f64>::eye(n).insert_axis(Axis(0));
                let lower = one.broadcast((problem.count(), n, n)).expect("one for each problem").to_owned();
                Box::new(FullRank::new(zeros, lower)?)
            }
            other => {
                let help = "choose one of them with --latent-family";
                return Err(Error::invalid("latent-family", "mean-field or full-rank", other.name(), help));
            }
        };
        let mut latent =
            Latent { problem, transforms, loaded: engine.load(problem)?, backgrounds: problem.control_means() };
        let course = self.course();
        let normalizers: Vec<f64> =
            (0..problem.count()).map(|p| log_observation_normalizer(problem, p) - 0.5 * n as f64 * TAU.ln()).collect();
        let mut source = |_: usize, draw: &Draw| latent.moments(draw);
        let ascent = ascent::raise(&course, normalizers.clone(), &[1.0], &mut source, q.as_mut(), observer)?;
        let mut analyses = Vec::with_capacity(problem.count());
        for (p, track) in ascent.tracks.iter().enumerate() {
            let (normal, seed) = (q.normal(p), problem.seeds[p]);
            let drawn = normal.draw(seed, Stream::Posterior, 0..self.samples).states;
            let controls = latent.controls(p, &drawn);
            let rows: Vec<_> = (0..self.samples as u32).map(|member| Row { problem: p as u32, member }).collect();
            let listed = Listed { states: controls.view(), rows: &rows, amplitude: 0.0 };
            let trajectories = latent.loaded.forecast(Members::Listed(listed))?;
            let samples = Samples::new(trajectories.view(), title, self.max_diverged_share)?;
            let weights = latent.weigh(p, normalizers[p], self.importance_draws, &|members| {
                normal.draw(seed, Stream::Importance, members)
            })?;
            let (bound, k_hat) = (elbo(&weights).expect("at least 100 draws"), Psis::new(&weights).k_hat);
            let number = |name: &str, long: &str, of: &Estimate| {
                let error = Record::scalar(
                    &format!("{name}_error"),
                    "its standard error",
                    of.standard_error.unwrap_or(f64::NAN),
                );
                [Record::scalar(name, long, of.mean), error]
            };
            let mut records = track.records();
            records.extend(number(
                "latent_elbo",
                "ELBO of the fit under the learned prior; NaN if a draw diverged",
                &bound,
            ));
            let tighter = iwae(&weights, IWAE_DRAWS).expect("at least 100 draws");
            records.extend(number("latent_iwae", "the same by 100 importance weights", &tighter));
            let evidence = log_evidence(&weights).expect("at least 100 draws");
            records.extend(number("latent_log_evidence", "log p(y) under the learned prior", &evidence));
            records.extend([
                Record::scalar("latent_k_hat", "Pareto shape of the largest importance weights", k_hat),
                Record::new(
                    "latent_mean",
                    "mean of the fitted Gaussian over the latents",
                    &["latent"],
                    normal.mean().to_owned(),
                ),
                Record::new("latent_std", "its standard deviation", &["latent"], normal.std()),
                Record::scalar(
                    "observation_count",
                    "number of assimilated observations",
                    problem.assimilated_count(p) as f64,
                ),
                Record::scalar("diverged_samples", "samples left out because they diverged", samples.diverged as f64),
            ]);
            records.extend(control_records(problem, p, controls.select(Axis(0), &samples.kept).view()));
            let trusted = k_hat <= k_threshold(self.importance_draws);
            let warning = if trusted { "" } else { ", too large to trust the fit" };
            let summary = format!(
                "{}; ELBO = {:.3}, log p(y) about {:.3} under the learned prior, k-hat {k_hat:.2}{warning}",
                self.ending(&ascent, p),
                bound.mean,
                evidence.mean
            );
            analyses.push(Analysis {
                method: title.into(),
                mean: samples.mean,
                std: samples.std,
                samples: samples.trajectories,
                records,
                summary,
                seconds: 0.0,
            });
        }
        Ok(analyses)
    }
}

impl Latent<'_> {
    /// c of each row of latents of problem `p`: `[rows, control]`.
    fn controls(&self, p: usize, z: &Array2<f64>) -> Array2<f64> {
        let mut controls = Array2::zeros((z.nrows(), self.backgrounds.ncols()));
        let width = controls.ncols();
        let each = controls.as_slice_mut().expect("one run").par_chunks_mut(width).with_min_len(GRAIN);
        each.enumerate().for_each(|(k, to)| {
            self.transforms[p].control(self.backgrounds.row(p), &z.row(k).to_vec(), to);
        });
        controls
    }

    /// Evaluates equally many rows of latents for each problem: `z: [P][rows, latents]`.
    fn evaluate(&mut self, first: usize, z: &[Array2<f64>]) -> Result<Evaluated> {
        let parts: Vec<_> = z.iter().enumerate().map(|(k, z)| self.controls(first + k, z)).collect();
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        let states = ndarray::concatenate(Axis(0), &views).expect("rows of one length");
        // What overflowed in the transform diverges on the engine, which takes finite numbers alone.
        let given = states.mapv_into(|x| if x.abs() < DIVERGED { x } else { DIVERGED });
        let rows: Vec<_> = (z.iter().enumerate())
            .flat_map(|(k, z)| (0..z.nrows()).map(move |m| Row { problem: (first + k) as u32, member: m as u32 }))
            .collect();
        let listed = Listed { states: given.view(), rows: &rows, amplitude: 0.0 };
        let terms = Terms { background: false, observation: true };
        let found = self.loaded.gradient(Members::Listed(listed), terms)?;
        let each = z[0].nrows();
        let one = |row: usize| {
            let (p, own) = (first + row / each, z[row / each].row(row % each).to_vec());
            self.transforms[p].cost(&own, found.gradient.row(row))
        };
        let costs: Vec<_> = (0..rows.len()).into_par_iter().with_min_len(GRAIN).map(one).collect();
        let gradient: Vec<f64> = costs.iter().flat_map(|(_, g)| g.iter().copied()).collect();
        Ok(Evaluated {
            prior: costs.iter().map(|(cost, _)| *cost).collect(),
            observation: found.costs.observation.to_vec(),
            diverged: found.costs.diverged,
            gradient: Array2::from_shape_vec((rows.len(), z[0].ncols()), gradient).expect("as many numbers"),
        })
    }

    /// The sums of a draw, as [`LoadedProblem::moments`] makes them of an affine map's members.
    fn moments(&mut self, draw: &Draw) -> Result<Vec<Moments>> {
        let (problems, n) = draw.map.mean.dim();
        let mut sums: Vec<Moments> = (0..problems).map(|_| Moments::zeros(n, &draw.map.scale)).collect();
        let at_a_time = (MEMBERS / problems).clamp(1, draw.count);
        for from in (0..draw.count).step_by(at_a_time) {
            let members = from..(from + at_a_time).min(draw.count);
            let eps: Vec<_> = (self.problem.seeds.iter())
                .map(|seed| standard_normals(*seed, draw.stream, draw.iteration, members.clone(), n))
                .collect();
            let z: Vec<_> = eps.iter().enumerate().map(|(p, eps)| mapped(draw, p, eps)).collect();
            let found = self.evaluate(0, &z)?;
            for (p, (sums, eps)) in sums.iter_mut().zip(&eps).enumerate() {
                sums.add(&summed(&found, p * eps.nrows(), eps, &draw.map.scale));
            }
        }
        Ok(sums)
    }

    /// log p(y, z) / q(z) of draws by number, minus infinity where one diverged.
    fn weigh(
        &mut self,
        p: usize,
        normalizer: f64,
        draws: usize,
        q: &dyn Fn(Range<usize>) -> Draws,
    ) -> Result<Vec<f64>> {
        let mut log = Vec::with_capacity(draws);
        for first in (0..draws).step_by(MEMBERS) {
            let drawn = q(first..(first + MEMBERS).min(draws));
            let found = self.evaluate(p, std::slice::from_ref(&drawn.states))?;
            for (k, density) in drawn.log_density.iter().enumerate() {
                let weight = normalizer - found.prior[k] - found.observation[k] - density;
                log.push(if found.diverged[k] || !weight.is_finite() { f64::NEG_INFINITY } else { weight });
            }
        }
        Ok(log)
    }
}

/// m + S eps of each row.
fn mapped(draw: &Draw, p: usize, eps: &Array2<f64>) -> Array2<f64> {
    let scaled = match &draw.map.scale {
        Scale::Diagonal(scale) => eps * &scale.row(p),
        Scale::Lower(scale) => eps.dot(&scale.index_axis(Axis(0), if scale.len_of(Axis(0)) == 1 { 0 } else { p }).t()),
        Scale::LowRank { .. } => unreachable!("no such family in a latent space"),
    };
    scaled + draw.map.mean.row(p)
}

/// The sums over the rows of one problem, which begin at `first` among all that were evaluated.
fn summed(found: &Evaluated, first: usize, eps: &Array2<f64>, scale: &Scale) -> Moments {
    let n = eps.ncols();
    let mut sums = Moments::zeros(n, scale);
    sums.count = eps.nrows();
    let kept: Vec<usize> = (0..eps.nrows()).filter(|k| !found.diverged[first + k]).collect();
    sums.diverged = sums.count - kept.len();
    if kept.is_empty() {
        return sums;
    }
    let costs: Array1<f64> = kept.iter().map(|k| found.prior[first + k] + found.observation[first + k]).collect();
    sums.cost_background = kept.iter().map(|k| found.prior[first + k]).sum();
    sums.cost_observation = kept.iter().map(|k| found.observation[first + k]).sum();
    let mean = costs.mean().unwrap_or(0.0);
    sums.cost_deviation = costs.iter().map(|c| (c - mean) * (c - mean)).sum();
    let g = found.gradient.select(Axis(0), &kept.iter().map(|k| first + k).collect::<Vec<_>>());
    let eps = eps.select(Axis(0), &kept);
    let columns = |a: &Array2<f64>| a.sum_axis(Axis(0)).to_vec();
    sums.gradient = columns(&g);
    sums.gradient_squared = columns(&(&g * &g));
    sums.epsilon = columns(&eps);
    sums.epsilon_squared = columns(&(&eps * &eps));
    sums.gradient_epsilon = columns(&(&g * &eps));
    if let PatternSums::Lower { gradient_epsilon, epsilon_epsilon } = &mut sums.pattern {
        let lower = |mut a: Array2<f64>| {
            for (i, mut row) in a.outer_iter_mut().enumerate() {
                row.slice_mut(s![i + 1..]).fill(0.0);
            }
            a
        };
        *gradient_epsilon = lower(g.t().dot(&eps));
        *epsilon_epsilon = lower(eps.t().dot(&eps));
    }
    sums
}
