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
use crate::method::laplace::{Hessian, Laplace};
use crate::method::{Observer, Record};
use crate::posterior::{Mixture, Mixtures, Normal};
use crate::problem::{ControlLayout, Problem};
use crate::random::Stream;
use ndarray::{Array1, Array2, Axis, concatenate};

/// A minimum this far above the lowest has a mass of the order of exp(-20) of it, and gets no component.
const DEEPEST: f64 = 20.0;

/// Minima closer than this, in background deviations, are one.
const APART: f64 = 0.1;

/// Fits whose means are closer than this, in their standard deviations, are one.
const SAME: f64 = 0.5;

/// Most components of a mixture, the lowest minima first.
const MOST: usize = 16;

/// Minima this far above the lowest are as good as it: exp(-3) is 5 % of its mass, where both are equally wide.
const AS_GOOD: f64 = 3.0;

/// Of the starts that ended in minima as good as the lowest, the share that were alone in theirs, above which there are
/// more such minima than were found: it estimates what share of further starts would find a new one (Good 1953).
const ALONE: f64 = 0.1;

/// A component of less than this share of the mass is left out.
const NEGLIGIBLE: f64 = 1e-6;

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
        let found = minima.search(self.mixture_starts, observer)?;
        let mut distinct: Vec<_> = found.iter().enumerate().map(|(p, own)| distinct(problem, p, own)).collect();
        let crowds: Vec<Option<String>> = distinct.iter().map(|own| crowd(own)).collect();
        distinct.iter_mut().for_each(|own| own.truncate(MOST));
        if distinct.iter().any(Vec::is_empty) {
            let (diverged, members) = (self.mixture_starts, self.mixture_starts);
            return Err(Error::Diverged { what: "the starts of a mixture".into(), diverged, members });
        }

        // Every component is a problem of its own, so that all are fitted in lockstep.
        let (distinct, set, laplaces) = self.true_minima(problem, engine, distinct)?;
        let faults = crowds.into_iter().zip(&distinct).map(|(crowd, own)| crowd.or_else(|| unmet(own))).collect();
        let states = rows_of(distinct.iter().flatten().map(|d| &d.minimum.state));
        let mut q = self.at_laplace(&set, &states, &laplaces)?;
        let tempers = ascent::tempers(self.tempering);
        let mut loaded = ascent::load(&set, engine, &tempers)?;
        let course = self.course();
        let ascent = {
            let normalizers = ascent::normalizers(&set);
            let mut source = ascent::engine(&mut loaded);
            ascent::raise(&course, normalizers, &tempers, &mut source, q.as_mut(), observer)?
        };

        let mut posterior = Mixtures::new();
        let (mut records, mut notes) = (Vec::new(), Vec::new());
        let (mut tracks, mut fallbacks) = (Vec::new(), Vec::new());
        let mut first = 0;
        for (p, own) in distinct.iter().enumerate() {
            let fitted = (0..own.len()).map(|of| (of, q.normal(first + of))).collect();
            let components = weigh(problem, minima.whole(), p, merge(fitted), self.importance_draws)?;
            let heaviest = &components[0];
            notes.push(format!(
                "; {} of {} distinct minima from {} starts have mass, the heaviest {:.1} %",
                components.len(),
                own.len(),
                self.mixture_starts,
                100.0 * heaviest.log_weight.exp()
            ));
            // What is told of the fit is told of its heaviest component.
            tracks.push(ascent.tracks[first + heaviest.of].clone());
            fallbacks.push(ascent.fallbacks[first + heaviest.of]);
            minima.evaluations[p] += (own.len() - 1) * course.batch * tracks[p].elbo.len();
            records.push(describe(&components, own, problem.control()));
            let log_weights: Vec<f64> = components.iter().map(|c| c.log_weight).collect();
            posterior.push(Mixture::new(components.into_iter().map(|c| c.normal).collect(), &log_weights));
            first += own.len();
        }
        let ascent = ascent::Ascent { tracks, stop: ascent.stop, fallbacks };
        let (title, ascent) = (self.family.title(), Some(ascent));
        Ok(Fitted { title, posterior: Box::new(posterior), ascent, records, notes, faults })
    }

    /// Leaves out saddles, where a start that lies on a symmetry of J comes to rest: what is left, as a set with one
    /// problem for each, and the Laplace approximations there.
    fn true_minima(
        &self,
        problem: &Problem,
        engine: &Engine,
        distinct: Vec<Vec<Distinct>>,
    ) -> Result<(Vec<Vec<Distinct>>, Problem, Vec<Laplace>)> {
        let owners = |distinct: &[Vec<Distinct>]| -> Vec<usize> {
            distinct.iter().enumerate().flat_map(|(p, own)| vec![p; own.len()]).collect()
        };
        let all = problem.select(&owners(&distinct));
        let states = rows_of(distinct.iter().flatten().map(|d| &d.minimum.state));
        let mut laplaces = Minima::new(&all, engine)?.laplace(&states, Hessian::Full)?.into_iter();
        let mut kept = Vec::new();
        let distinct: Vec<Vec<Distinct>> = distinct
            .into_iter()
            .map(|own| {
                let judged = own.into_iter().enumerate().zip(laplaces.by_ref());
                // The lowest stays, whatever rounding makes of its Hessian.
                let sound = judged.filter(|((k, _), laplace)| *k == 0 || laplace.kind == Hessian::Full);
                let (minima, laplaces): (Vec<_>, Vec<_>) = sound.map(|((_, m), laplace)| (m, laplace)).unzip();
                kept.extend(laplaces);
                minima
            })
            .collect();
        let set = problem.select(&owners(&distinct));
        Ok((distinct, set, kept))
    }
}

/// Rows of one length as a matrix.
fn rows_of<'a>(rows: impl Iterator<Item = &'a Array1<f64>>) -> Array2<f64> {
    let views: Vec<_> = rows.map(|r| r.view()).collect();
    ndarray::stack(Axis(0), &views).expect("rows of one length")
}

/// A minimum with the number of starts that ended there.
struct Distinct {
    minimum: Minimum,
    starts: usize,
}

/// The distinct minima of problem `p`, the lowest first.
fn distinct(problem: &Problem, p: usize, minima: &[Minimum]) -> Vec<Distinct> {
    let mut sorted: Vec<&Minimum> = minima.iter().filter(|m| m.cost.is_finite()).collect();
    sorted.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    let mut distinct: Vec<Distinct> = Vec::new();
    for minimum in sorted {
        let near = |other: &&mut Distinct| {
            let gap = problem.control_whitened(p, (&minimum.state - &other.minimum.state).view());
            gap.dot(&gap).sqrt() <= APART
        };
        let deep = distinct.first().is_none_or(|lowest| minimum.cost < lowest.minimum.cost + DEEPEST);
        match distinct.iter_mut().find(near) {
            Some(known) => known.starts += 1,
            None if deep => distinct.push(Distinct { minimum: minimum.clone(), starts: 1 }),
            None => (),
        }
    }
    distinct
}

/// Those as good as the lowest.
fn good(distinct: &[Distinct]) -> impl Iterator<Item = &Distinct> {
    let lowest = distinct.first().map_or(f64::NAN, |d| d.minimum.cost);
    distinct.iter().filter(move |d| d.minimum.cost < lowest + AS_GOOD)
}

/// That there are more minima than components, if there are.
fn crowd(distinct: &[Distinct]) -> Option<String> {
    let good = good(distinct).count();
    (good > MOST).then(|| format!("starts found {good} minima that are as good, and a mixture has {MOST} components"))
}

/// That there are more minima than were found, if too many starts were alone in theirs.
fn unmet(distinct: &[Distinct]) -> Option<String> {
    let starts: usize = good(distinct).map(|d| d.starts).sum();
    let alone = good(distinct).filter(|d| d.starts == 1).count();
    let unmet = good(distinct).count() > 1 && alone as f64 > ALONE * starts as f64;
    unmet.then(|| {
        format!("{alone} of {starts} starts were alone in their minimum, as good as the lowest: there are more")
    })
}

/// The fits that differ: from two minima close together they may slide into one mode.
fn merge(fitted: Vec<(usize, Normal)>) -> Vec<(usize, Normal)> {
    let mut kept: Vec<(usize, Normal)> = Vec::new();
    for (of, normal) in fitted {
        let mean = normal.mean().insert_axis(Axis(0));
        let apart = |(_, other): &(usize, Normal)| other.whiten(mean).iter().map(|z| z * z).sum::<f64>() > SAME * SAME;
        if kept.iter().all(apart) {
            kept.push((of, normal));
        }
    }
    kept
}

/// A component of a mixture.
struct Component {
    /// The minimum under it, by its place.
    of: usize,
    normal: Normal,
    log_weight: f64,
    /// log p(y) as its own draws see it: the evidence of its mode.
    evidence: f64,
}

/// Weighs components: of all their mixtures the one closest to the posterior, in KL(posterior || q), by expectation
/// maximisation over importance draws from all of them (Cappé et al. 2008). Where components do not overlap, that is each
/// one's evidence (its IWAE bound) over the sum of all; where they do, their common mass counts once. Those of next to no mass are left out; the
/// heaviest comes first.
///
/// # Errors
/// An engine's.
fn weigh(
    problem: &Problem,
    loaded: &mut LoadedProblem,
    p: usize,
    fitted: Vec<(usize, Normal)>,
    draws: usize,
) -> Result<Vec<Component>> {
    let (places, normals): (Vec<_>, Vec<_>) = fitted.into_iter().unzip();
    let (seed, each) = (problem.seeds[p], draws.div_ceil(normals.len()));
    let mut evidence = Vec::with_capacity(normals.len());
    let (mut states, mut log_joint) = (Vec::new(), Vec::new());
    for normal in &normals {
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
    let numbers = places.into_iter().zip(log_weights).zip(evidence);
    let mut components: Vec<_> = normals
        .into_iter()
        .zip(numbers)
        .map(|(normal, ((of, log_weight), evidence))| Component { of, normal, log_weight, evidence })
        .filter(|c| c.log_weight > NEGLIGIBLE.ln())
        .collect();
    components.sort_by(|a, b| b.log_weight.total_cmp(&a.log_weight));
    Ok(components)
}

/// What is kept of a mixture.
fn describe(components: &[Component], minima: &[Distinct], control: ControlLayout) -> Vec<Record> {
    let row = |f: &dyn Fn(&Component) -> f64| components.iter().map(f).collect::<Array1<f64>>();
    let rows = |f: &dyn Fn(&Component) -> Array1<f64>| rows_of(components.iter().map(f).collect::<Vec<_>>().iter());
    let axes = ["component", control.dimensions()[0]];
    vec![
        Record::new("component_weight", "weight of each component", &axes[..1], row(&|c| c.log_weight.exp())),
        Record::new(
            "component_evidence",
            "log p(y) as each component's own draws estimate it",
            &axes[..1],
            row(&|c| c.evidence),
        ),
        Record::new(
            "component_cost",
            "cost J of the minimum under each component",
            &axes[..1],
            row(&|c| minima[c.of].minimum.cost),
        ),
        Record::new("component_mean", "mean of each component", &axes, rows(&|c| c.normal.mean().to_owned())),
        Record::new("component_std", "standard deviation of each component", &axes, rows(&|c| c.normal.std())),
    ]
}
