//! The cross-check: NUTS in double precision, started at the best minimum.
//!
//! Several chains of the No-U-Turn sampler (Hoffman & Gelman 2014; crate nuts-rs) draw from exp(-J_b - J_o) in the
//! coordinates u of the Laplace approximation, x0 = x* + S u with S S' its covariance: there a Gaussian posterior has
//! deviation one in every direction. Cost, gradient, coordinates and number type are not those of the particles. It
//! starts at one minimum, so it stays in one mode where others are far: that is what it is here to reveal.

use super::factor::Factor;
use super::{Settings, Way};
use crate::checkpoint;
use crate::engine::{Backend, Engine, EngineSettings, LoadedProblem, Members, Precision, Terms};
use crate::error::{Error, Result};
use crate::method::{Analysis, FourDVarSettings, Silent};
use crate::problem::Problem;
use crate::random::{Stream, StreamRng};
use ndarray::{Array2, Array3, ArrayView2};
use nuts_rs::{Chain, CpuLogpFunc, CpuMath, CpuMathError, DiagNutsSettings, HasDims, LogpError, Settings as _};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// Deviation of the chains' starts around the minimum, in deviations of the Laplace approximation.
const JITTER: f64 = 0.5;

/// Starts of 4DVAR for the best minimum. Chains that start in a spurious one may never leave it: with 8, one of 100
/// twins of the case study was lost to that.
const STARTS: usize = 32;

/// Acceptance that the step size is tuned to. The crate's own 0.8 leaves steps too long for the narrow places of the
/// case study's posteriors: chains stay out of them, and 10 of 40 twins were lost to that; none at 0.95.
const ACCEPTANCE: f64 = 0.95;

/// The chains of one problem.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Chains {
    /// Initial states: `[chains, draws, control]`.
    pub states: Array3<f64>,
    /// Gradients altogether.
    pub gradients: u64,
    /// Divergent transitions after the tuning.
    pub divergences: usize,
}

/// Problems whose chains run side by side.
const GROUP: usize = 8;

/// Draws the chains of each problem. `Err` holds why there are none; the caller may end it between two groups.
pub(super) fn sample(
    settings: &Settings,
    problem: &Problem,
    engine: &Engine,
    way: &mut Way,
) -> Result<Vec<std::result::Result<Chains, String>>> {
    // The Laplace covariance comes with the minimum; two samples are the fewest that 4DVAR draws.
    let four_d_var = FourDVarSettings { starts: STARTS, samples: 2, ..FourDVarSettings::default() };
    let minima = four_d_var.run(problem, engine, &mut Silent)?;
    // A chain is sequential, so it has a thread of its own and needs no others.
    let engine = Engine::new(&EngineSettings {
        backend: Backend::Cpu,
        precision: Precision::F64,
        threads: Some(1),
        ..EngineSettings::default()
    })?;
    let mut results: Vec<std::result::Result<Chains, String>> = checkpoint::begin(way.keeper())?.unwrap_or_default();
    for first in (results.len()..problem.count()).step_by(GROUP) {
        let mut jobs = Vec::new();
        for p in first..problem.count().min(first + GROUP) {
            let mut seeds = StreamRng::new(problem.seeds[p], Stream::Nuts);
            for chain in 0..settings.nuts_chains {
                jobs.push((chain, seeds.next_u64(), Density::new(&engine, &problem.single(p), &minima[p])?));
            }
        }
        let chains: Vec<_> = jobs
            .into_par_iter()
            .with_max_len(1)
            .map(|(chain, seed, density)| run(settings, chain, seed, density).map_err(|e| e.to_string()))
            .collect();
        results.extend(chains.chunks(settings.nuts_chains).map(|own| collect(settings, own)));
        if way.tell(results.len() as f64 / problem.count() as f64, 1.0).is_break() {
            break;
        }
        checkpoint::keep(way.keeper(), &results)?;
    }
    checkpoint::end(way.keeper(), &results)?;
    results.resize_with(problem.count(), || Err("the caller ended it".into()));
    Ok(results)
}

/// The chains of one problem together, or why the first that failed did.
fn collect(
    settings: &Settings,
    chains: &[std::result::Result<OneChain, String>],
) -> std::result::Result<Chains, String> {
    let sound = chains.iter().map(|c| c.as_ref().map_err(Clone::clone)).collect::<std::result::Result<Vec<_>, _>>()?;
    let sites = sound[0].states.ncols();
    let mut states = Array3::zeros((settings.nuts_chains, settings.nuts_draws, sites));
    for (mut to, chain) in states.outer_iter_mut().zip(&sound) {
        to.assign(&chain.states);
    }
    Ok(Chains {
        states,
        gradients: sound.iter().map(|c| c.gradients).sum(),
        divergences: sound.iter().map(|c| c.divergences).sum(),
    })
}

struct OneChain {
    states: Array2<f64>,
    gradients: u64,
    divergences: usize,
}

/// One chain: tuning, then draws.
fn run(
    settings: &Settings,
    chain: usize,
    seed: u64,
    density: Density,
) -> std::result::Result<OneChain, Box<dyn std::error::Error + Send + Sync>> {
    let n = density.minimum.len();
    let mut rng = StreamRng::new(seed, Stream::Nuts);
    let start: Vec<f64> = (0..n).map(|_| JITTER * Distribution::<f64>::sample(&StandardNormal, &mut rng)).collect();
    let mut nuts = DiagNutsSettings {
        num_tune: settings.nuts_tune as u64,
        num_draws: settings.nuts_draws as u64,
        ..DiagNutsSettings::default()
    };
    nuts.adapt_options.step_size_settings.target_accept = ACCEPTANCE;
    let coordinates = density.coordinates();
    let mut sampler = nuts.new_chain(chain as u64, CpuMath::new(density), &mut rng)?;
    sampler.set_position(&start)?;
    let mut result = OneChain { states: Array2::zeros((settings.nuts_draws, n)), gradients: 0, divergences: 0 };
    for k in 0..settings.nuts_tune + settings.nuts_draws {
        let (u, progress) = sampler.draw()?;
        result.gradients += progress.num_gradients;
        if k >= settings.nuts_tune {
            result.divergences += usize::from(progress.diverging);
            let mut row = result.states.row_mut(k - settings.nuts_tune);
            coordinates.state(&u, row.as_slice_mut().expect("standard layout"));
        }
    }
    Ok(result)
}

/// x0 = x* + S u
#[derive(Debug)]
struct Coordinates {
    minimum: Vec<f64>,
    root: Arc<Factor>,
}

impl Coordinates {
    fn state(&self, u: &[f64], x: &mut [f64]) {
        x.copy_from_slice(&self.minimum);
        self.root.add(1.0, u, x);
    }
}

/// log p(u) = -J(x0(u)), but for a constant.
#[derive(Debug)]
struct Density {
    loaded: LoadedProblem,
    minimum: Vec<f64>,
    root: Arc<Factor>,
    state: Vec<f64>,
}

impl Density {
    fn new(engine: &Engine, problem: &Problem, minimum: &Analysis) -> Result<Self> {
        let record = |name: &str| -> Result<Vec<f64>> {
            let missing = || Error::invalid("4DVAR's analysis", format!("a record {name}"), "none", "report this");
            Ok(minimum.record(name).ok_or_else(missing)?.values.iter().copied().collect())
        };
        let state = record(if problem.control().is_state() { "initial_state" } else { "control" })?;
        let root = Arc::new(Factor::covariance(&record("laplace_covariance")?, state.len(), false));
        Ok(Self { loaded: engine.load(problem)?, minimum: state.clone(), root, state })
    }

    fn coordinates(&self) -> Coordinates {
        Coordinates { minimum: self.minimum.clone(), root: self.root.clone() }
    }
}

/// A state beyond all numbers: NUTS counts a divergence and turns back.
#[derive(Debug, thiserror::Error)]
#[error("the cost is not finite")]
struct NotFinite;

impl LogpError for NotFinite {
    fn is_recoverable(&self) -> bool {
        true
    }
}

impl HasDims for Density {
    fn dim_sizes(&self) -> HashMap<String, u64> {
        let n = self.minimum.len() as u64;
        HashMap::from([("unconstrained_parameter".into(), n), ("dim".into(), n)])
    }
}

impl CpuLogpFunc for Density {
    type LogpError = NotFinite;
    type FlowParameters = ();
    type ExpandedVector = Vec<f64>;

    fn dim(&self) -> usize {
        self.minimum.len()
    }

    fn logp(&mut self, u: &[f64], gradient: &mut [f64]) -> std::result::Result<f64, NotFinite> {
        self.state.copy_from_slice(&self.minimum);
        self.root.add(1.0, u, &mut self.state);
        let member = ArrayView2::from_shape((1, u.len()), &self.state).expect("one row");
        // What the engine refuses here is a state that is not finite.
        let result = self.loaded.gradient(Members::Given(member), Terms::ALL).map_err(|_| NotFinite)?;
        if result.costs.diverged[0] {
            return Err(NotFinite);
        }
        gradient.fill(0.0);
        self.root.add_transposed(-1.0, result.gradient.as_slice().expect("standard layout"), gradient);
        Ok(-result.costs.background[0] - result.costs.observation[0])
    }

    fn expand_vector<R: nuts_rs::rand::Rng + ?Sized>(
        &mut self,
        _: &mut R,
        array: &[f64],
    ) -> std::result::Result<Vec<f64>, CpuMathError> {
        Ok(array.to_vec())
    }
}
