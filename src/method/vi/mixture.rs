//! A mixture of full-rank Gaussians, one around each distinct minimum of J, weighted by the posterior mass that each accounts
//! for.
//!
//! Reverse KL drops modes: a single Gaussian settles on one and its ELBO does not know of the others. Here each component is
//! fitted on its own, all of them in one batch, and never weighted by how many starts ended in it.

use super::importance;
use super::minima::{Minima, Minimum};
use super::{Fitted, Settings, ascent};
use crate::diagnostics::log_evidence;
use crate::engine::{Engine, LoadedProblem};
use crate::error::{Error, Result};
use crate::method::{Observer, Record};
use crate::posterior::{Mixture, Mixtures, Normal};
use crate::problem::Problem;
use crate::random::Stream;
use ndarray::{Array1, Array2, Axis, concatenate};

/// A minimum this far above the lowest has a mass of the order of exp(-20) of it, and gets no component.
const DEEPEST: f64 = 20.0;

/// Minima closer than this, in background deviations, are one.
const APART: f64 = 0.1;

/// Most components of a mixture, the lowest minima first.
const MOST: usize = 16;

/// Rounds in which the weights are found.
const ROUNDS: usize = 100;

impl Settings {
    /// Fits one mixture per problem.
    pub(super) fn fit_mixture(
        &self,
        minima: &mut Minima,
        engine: &Engine,
        observer: &mut dyn Observer,
    ) -> Result<Fitted> {
        let problem = minima.problem;
        let found = minima.from_prior(self.mixture_starts, observer)?;
        let distinct: Vec<_> = found.iter().enumerate().map(|(p, own)| distinct(problem, p, own)).collect();
        if distinct.iter().any(Vec::is_empty) {
            let (diverged, members) = (self.mixture_starts, self.mixture_starts);
            return Err(Error::Diverged { what: "the starts of a mixture".into(), diverged, members });
        }

        // Every component is a problem of its own, so that all are fitted in lockstep.
        let owner: Vec<usize> = distinct.iter().enumerate().flat_map(|(p, own)| vec![p; own.len()]).collect();
        let set = problem.select(&owner);
        let rows: Vec<_> = distinct.iter().flatten().map(|m| m.state.view()).collect();
        let states = ndarray::stack(Axis(0), &rows).expect("rows of one length");
        let laplaces = Minima::new(&set, engine)?.laplace(&states)?;
        let mut q = self.from_laplace(&set, &states, &laplaces)?;
        let tempers = ascent::tempers(self.tempering);
        let mut loaded = ascent::load(&set, engine, &tempers)?;
        let course = self.course();
        let mut ascent = ascent::raise(&course, &set, &tempers, &mut loaded, q.as_mut(), observer)?;

        let mut posterior = Mixtures::new();
        let (mut records, mut notes) = (Vec::new(), Vec::new());
        let (mut tracks, mut fallbacks) = (Vec::new(), Vec::new());
        let mut first = 0;
        for (p, own) in distinct.iter().enumerate() {
            let normals: Vec<_> = (first..first + own.len()).map(|k| q.normal(k)).collect();
            first += own.len();
            let weighed = weigh(problem, minima.whole(), p, &normals, self.importance_draws)?;
            let weights = &weighed.log_weights;
            let heaviest = (0..own.len()).max_by(|a, b| weights[*a].total_cmp(&weights[*b])).expect("a component");
            let of_all = (ascent.tracks.drain(..own.len()), ascent.fallbacks.drain(..own.len()));
            tracks.extend(of_all.0.skip(heaviest).take(1));
            fallbacks.extend(of_all.1.skip(heaviest).take(1));
            records.push(components(own, &normals, &weighed));
            let share = weights[heaviest].exp();
            notes.push(format!(
                "; {} distinct minima from {} starts, the heaviest component has {:.1} % of the mass",
                own.len(),
                self.mixture_starts,
                100.0 * share
            ));
            minima.evaluations[p] += own.len().saturating_sub(1) * course.batch * tracks[p].elbo.len();
            posterior.push(Mixture::new(normals, weights));
        }
        let ascent = ascent::Ascent { tracks, stop: ascent.stop, fallbacks };
        Ok(Fitted { posterior: Box::new(posterior), ascent, records, notes })
    }
}

/// The distinct minima of problem `p`, the lowest first.
fn distinct(problem: &Problem, p: usize, minima: &[Minimum]) -> Vec<Minimum> {
    let mut sorted: Vec<&Minimum> = minima.iter().filter(|m| m.cost.is_finite()).collect();
    sorted.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    let mut distinct: Vec<Minimum> = Vec::new();
    for minimum in sorted {
        let apart = |other: &Minimum| {
            let gap = problem.background.whiten(p, (&minimum.state - &other.state).view());
            gap.dot(&gap).sqrt() > APART
        };
        let deep = distinct.first().is_none_or(|lowest| minimum.cost < lowest.cost + DEEPEST);
        if deep && distinct.len() < MOST && distinct.iter().all(apart) {
            distinct.push(minimum.clone());
        }
    }
    distinct
}

/// What the components are worth.
struct Weighed {
    /// Logarithms of their weights.
    log_weights: Vec<f64>,
    /// log p(y) as each one's own draws see it: the evidence of its mode.
    evidence: Vec<f64>,
}

/// Weighs components: of all their mixtures the one closest to the posterior, in KL(posterior || q), by expectation
/// maximisation over importance draws from all of them (Cappé et al. 2008). Where components do not overlap, that is each
/// one's evidence (its IWAE bound) over the sum of all; where they do, their common mass counts once.
///
/// # Errors
/// An engine's.
fn weigh(problem: &Problem, loaded: &mut LoadedProblem, p: usize, normals: &[Normal], draws: usize) -> Result<Weighed> {
    let (seed, each) = (problem.seeds[p], draws.div_ceil(normals.len()));
    let mut evidence = Vec::with_capacity(normals.len());
    let (mut states, mut log_joint) = (Vec::new(), Vec::new());
    for normal in normals {
        let alone = |members| normal.draw(seed, Stream::Evidence, members);
        let drawn = importance::draw(problem, loaded, p, each, &alone)?;
        evidence.push(log_evidence(&drawn.log).map_or(f64::NEG_INFINITY, |evidence| evidence.mean));
        let density = normal.log_density(drawn.states.view());
        log_joint.extend(drawn.log.iter().zip(density).map(|(w, q)| w + q));
        states.push(drawn.states);
    }
    let views: Vec<_> = states.iter().map(|s| s.view()).collect();
    let states = concatenate(Axis(0), &views).expect("rows of one length");
    let densities: Vec<Array1<f64>> = normals.iter().map(|normal| normal.log_density(states.view())).collect();
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::NEG_INFINITY, f64::max);
    // The posterior against all components in equal parts, up to a factor.
    let log_mean = |k: usize| {
        let top = largest(&mut densities.iter().map(|d| d[k]));
        top + densities.iter().map(|d| (d[k] - top).exp()).sum::<f64>().ln()
    };
    let importance: Vec<f64> = (0..states.nrows()).map(|k| log_joint[k] - log_mean(k)).collect();
    let top = largest(&mut importance.iter().copied());
    if top == f64::NEG_INFINITY {
        let what = "the draws from a mixture's components".into();
        return Err(Error::Diverged { what, diverged: importance.len(), members: importance.len() });
    }
    let mut log_weights = vec![-(normals.len() as f64).ln(); normals.len()];
    for _ in 0..ROUNDS {
        let mut mass = vec![0.0; normals.len()];
        for (k, weight) in importance.iter().enumerate().filter(|(_, w)| **w > top - 40.0) {
            let parts = || log_weights.iter().zip(&densities).map(|(w, d)| w + d[k]);
            let best = largest(&mut parts());
            let total: f64 = parts().map(|part| (part - best).exp()).sum();
            let weight = (weight - top).exp() / total;
            mass.iter_mut().zip(parts()).for_each(|(m, part)| *m += weight * (part - best).exp());
        }
        let total: f64 = mass.iter().sum();
        log_weights = mass.iter().map(|m| (m / total).ln()).collect();
    }
    Ok(Weighed { log_weights, evidence })
}

/// What is kept of a mixture.
fn components(minima: &[Minimum], normals: &[Normal], weighed: &Weighed) -> Vec<Record> {
    let n = minima[0].state.len();
    let row = |f: &dyn Fn(usize) -> f64| (0..minima.len()).map(f).collect::<Array1<f64>>();
    let means = Array2::from_shape_fn((minima.len(), n), |(k, i)| normals[k].mean()[i]);
    let stds: Vec<_> = normals.iter().map(Normal::std).collect();
    let stds = Array2::from_shape_fn((minima.len(), n), |(k, i)| stds[k][i]);
    let axes = ["component", "site"];
    vec![
        Record::new("component_weight", "weight of each component", &axes[..1], row(&|k| weighed.log_weights[k].exp())),
        Record::new(
            "component_evidence",
            "log p(y) as each component's own draws estimate it",
            &axes[..1],
            row(&|k| weighed.evidence[k]),
        ),
        Record::new(
            "component_cost",
            "cost J of the minimum under each component",
            &axes[..1],
            row(&|k| minima[k].cost),
        ),
        Record::new("component_mean", "mean of each component", &axes, means),
        Record::new("component_std", "standard deviation of each component", &axes, stds),
    ]
}
