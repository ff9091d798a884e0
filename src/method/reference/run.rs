//! One run of tempered SMC on one problem: a state machine that asks for one batch of gradients after the other.

use super::Settings;
use super::factor::Factor;
use crate::engine::BLOCK;
use crate::error::{Error, Result};
use crate::problem::Problem;
use crate::random::{Stream, normals, philox};
use ndarray::Array2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_PI_2;
use std::sync::Arc;

/// Acceptance that the step size is steered to.
const ACCEPTANCE: f64 = 0.8;
/// Time that a trajectory takes: a quarter of a period of a Gaussian in units of its own deviations, where the
/// correlation with the start comes to zero.
const TRAJECTORY: f64 = FRAC_PI_2;
/// Particles per dimension below which their covariance is too noisy for a mass, and their deviations serve.
const PARTICLES_PER_DIMENSION: usize = 10;
/// Levels after which the last one is reached in one stride, whatever the weights.
const MOST_LEVELS: usize = 1000;
/// The runs' share of a draw's counter: iteration = run * 2^24 + move.
const RUN_SHIFT: u32 = 24;
/// What a run ends with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Particles {
    /// Initial states: `[particles, control]`.
    pub states: Array2<f64>,
    /// Which particle of the prior each one descends from.
    pub eves: Vec<u32>,
    /// log of the integral of N(z; 0, I) exp(-J_o).
    pub log_evidence: f64,
    /// Its variance over runs, if particles are independent at each level (Del Moral 2004, section 9.4.2): the sum over the
    /// levels of the weights' squared coefficient of variation over the number of particles.
    pub log_evidence_variance: f64,
    /// Levels of the temper after the prior.
    pub levels: usize,
    /// HMC moves altogether.
    pub moves: usize,
    /// Mean acceptance of the moves at the last level.
    pub acceptance: f64,
    /// Correlation with the start of the last level's moves, the largest over the components of z.
    pub correlation: f64,
    /// Gradients of particles.
    pub gradients: u64,
    /// Whether the caller ended it before beta = 1 was reached.
    pub interrupted: bool,
}

/// Where a run stands: what the next gradients are for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Phase {
    /// The particles of the prior.
    Start,
    /// Leapfrog step `step` of the current move's.
    Leapfrog { step: usize },
    /// The posterior is reached, and nothing is asked for any more.
    Done,
}

/// One run of one problem. Arrays hold `particles` rows of `control` numbers, or `particles` numbers.
#[derive(Serialize, Deserialize)]
pub(super) struct Run {
    /// The problem's number in the set.
    pub p: usize,
    seed: u64,
    index: u32,
    /// Numbers of a control.
    control: usize,
    background: Vec<f64>,
    /// Not kept: the problem has it.
    #[serde(skip, default = "no_root")]
    root: Arc<Factor>,
    phase: Phase,

    /// The particles, their J_o, and its gradient with respect to z.
    z: Vec<f64>,
    cost: Vec<f64>,
    gradient: Vec<f64>,
    eves: Vec<u32>,

    /// The proposals, their momenta (in units in which the mass is one), and the energies at the start.
    proposal: Vec<f64>,
    momentum: Vec<f64>,
    energy: Vec<f64>,
    step_size: Vec<f64>,
    /// Proposals that diverged on their way.
    lost: Vec<bool>,

    /// The temper, 0 to 1.
    pub beta: f64,
    mass: Factor,
    /// The particles when the moves of this level began.
    origin: Vec<f64>,
    mean_step_size: f64,
    leapfrog_steps: usize,
    moves: usize,
    moves_at_level: usize,
    accepted_at_level: f64,
    levels: usize,
    correlation: f64,
    log_evidence: f64,
    log_evidence_variance: f64,
    gradients: u64,
    interrupted: bool,
}

/// Stands where [`Run::rooted`] puts the root.
fn no_root() -> Arc<Factor> {
    Arc::new(Factor::identity(0))
}

impl Run {
    /// A run that was kept, with the root of its problem's prior covariance.
    pub fn rooted(self, root: Arc<Factor>) -> Self {
        Self { root, ..self }
    }

    pub fn new(settings: &Settings, problem: &Problem, p: usize, index: u32, root: Arc<Factor>) -> Self {
        let (count, control) = (settings.particles, problem.control().len());
        let mut run = Self {
            p,
            seed: problem.seeds[p],
            index,
            control,
            background: problem.control_mean(p).to_vec(),
            root,
            phase: Phase::Start,
            z: Vec::new(),
            cost: vec![0.0; count],
            gradient: vec![0.0; count * control],
            eves: (0..count as u32).collect(),
            proposal: vec![0.0; count * control],
            momentum: vec![0.0; count * control],
            energy: vec![0.0; count],
            step_size: vec![0.0; count],
            lost: vec![false; count],
            beta: 0.0,
            mass: Factor::identity(control),
            origin: Vec::new(),
            mean_step_size: 0.5,
            leapfrog_steps: 0,
            moves: 0,
            moves_at_level: 0,
            accepted_at_level: 0.0,
            levels: 0,
            correlation: 1.0,
            log_evidence: 0.0,
            log_evidence_variance: 0.0,
            gradients: 0,
            interrupted: false,
        };
        let (seed, iteration) = (run.seed, run.iteration());
        fill_normals(&mut run.proposal, control, seed, Stream::Particles, iteration);
        run.z.clone_from(&run.proposal);
        run.origin.clone_from(&run.z);
        run
    }

    pub fn done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// The draws' iteration: no two moves of any two runs share one.
    fn iteration(&self) -> u32 {
        self.index << RUN_SHIFT | self.moves as u32
    }

    /// The initial states whose gradients are wanted.
    pub fn write_members(&mut self, members: &mut [f64]) {
        let Self { control: n, background, root, z, proposal, lost, .. } = self;
        let (n, block) = (*n, BLOCK * *n);
        let chunks = (members.par_chunks_mut(block), proposal.par_chunks_mut(block), z.par_chunks(block));
        (chunks.0, chunks.1, chunks.2, lost.par_chunks_mut(BLOCK)).into_par_iter().for_each(|(x, q, z, lost)| {
            let rows = x.chunks_exact_mut(n).zip(q.chunks_exact_mut(n)).zip(z.chunks_exact(n)).zip(lost);
            for (((x, q), z), lost) in rows {
                x.copy_from_slice(background);
                root.add(1.0, q, x);
                if x.iter().any(|x| !x.is_finite()) {
                    // Beyond all numbers: it will be rejected, and stays where it came from until then.
                    *lost = true;
                    q.copy_from_slice(z);
                    x.copy_from_slice(background);
                    root.add(1.0, q, x);
                }
            }
        });
    }

    /// Goes on with what the engine found at the members: as far as the next question.
    pub fn advance(&mut self, settings: &Settings, costs: &[f64], gradients: &[f64], diverged: &[bool]) -> Result<()> {
        if self.done() {
            return Ok(());
        }
        self.gradients += costs.len() as u64;
        match self.phase {
            Phase::Done => Ok(()),
            Phase::Start => {
                for (i, (cost, diverged)) in costs.iter().zip(diverged).enumerate() {
                    self.cost[i] = if *diverged { f64::INFINITY } else { *cost };
                }
                let lost = diverged.iter().filter(|d| **d).count();
                if lost as f64 > settings.max_diverged_share * diverged.len() as f64 || lost == diverged.len() {
                    let what = "the particles of the reference posterior".into();
                    return Err(Error::Diverged { what, diverged: lost, members: diverged.len() });
                }
                self.pull_back(gradients);
                self.temper(settings);
                Ok(())
            }
            Phase::Leapfrog { step } => {
                self.leapfrog(step, costs, gradients, diverged);
                if step < self.leapfrog_steps {
                    self.phase = Phase::Leapfrog { step: step + 1 };
                } else {
                    self.decide(settings, costs, gradients);
                }
                Ok(())
            }
        }
    }

    /// The gradient with respect to z at the particles.
    fn pull_back(&mut self, gradients: &[f64]) {
        let n = self.control;
        for (own, g) in self.gradient.chunks_exact_mut(n).zip(gradients.chunks_exact(n)) {
            own.fill(0.0);
            self.root.add_transposed(1.0, g, own);
        }
    }

    /// Ends the run early: the particles are weighted to beta = 1 as they are.
    pub fn interrupt(&mut self) {
        if self.done() {
            return;
        }
        let weights = self.reweight(1.0);
        self.resample(&weights);
        self.interrupted = true;
        self.phase = Phase::Done;
    }

    /// Raises beta, resamples, and starts to move; done if beta was 1.
    fn temper(&mut self, settings: &Settings) {
        if self.beta >= 1.0 {
            self.phase = Phase::Done;
            return;
        }
        let hurry = self.levels + 1 >= MOST_LEVELS;
        let next = if hurry { 1.0 } else { next_beta(&self.cost, self.beta, settings.ess_share) };
        let weights = self.reweight(next);
        self.mass = self.covariance(&weights);
        self.resample(&weights);
        self.levels += 1;
        self.moves_at_level = 0;
        self.accepted_at_level = 0.0;
        self.origin.copy_from_slice(&self.z);
        self.begin_move(settings);
    }

    /// The normalised weights for the step to `beta`, which is taken; the evidence grows by their mean.
    fn reweight(&mut self, beta: f64) -> Vec<f64> {
        let least = self.cost.iter().copied().fold(f64::INFINITY, f64::min);
        let mut weights: Vec<f64> = self.cost.iter().map(|c| ((self.beta - beta) * (c - least)).exp()).collect();
        let sum = weights.iter().sum::<f64>();
        self.log_evidence += (sum / weights.len() as f64).ln() + (self.beta - beta) * least;
        weights.iter_mut().for_each(|w| *w /= sum);
        self.log_evidence_variance += weights.iter().map(|w| w * w).sum::<f64>() - 1.0 / weights.len() as f64;
        self.beta = beta;
        weights
    }

    /// The square root of the weighted particles' covariance.
    fn covariance(&self, weights: &[f64]) -> Factor {
        let n = self.control;
        let mut mean = vec![0.0; n];
        for (z, w) in self.z.chunks_exact(n).zip(weights) {
            mean.iter_mut().zip(z).for_each(|(m, z)| *m += w * z);
        }
        let diagonal = weights.len() < PARTICLES_PER_DIMENSION * n;
        let mut covariance = vec![0.0; n * n];
        let mut d = vec![0.0; n];
        for (z, w) in self.z.chunks_exact(n).zip(weights) {
            d.iter_mut().zip(z).zip(&mean).for_each(|((d, z), m)| *d = z - m);
            for i in 0..n {
                if diagonal {
                    covariance[i * n + i] += w * d[i] * d[i];
                } else {
                    let s = w * d[i];
                    covariance[i * n..(i + 1) * n].iter_mut().zip(&d).for_each(|(c, d)| *c += s * d);
                }
            }
        }
        Factor::covariance(&covariance, n, diagonal)
    }

    /// Systematic resampling: particle i survives N w_i times, rounded up or down.
    fn resample(&mut self, weights: &[f64]) {
        let (n, count) = (self.control, weights.len());
        let u = uniforms(self.seed, Stream::Resampling, self.index << RUN_SHIFT | self.levels as u32, 0)[0];
        let mut parents = Vec::with_capacity(count);
        let (mut parent, mut cumulated) = (0, weights[0]);
        for k in 0..count {
            let at = (k as f64 + u) / count as f64;
            // Rounding may leave the sum short of one: the last particle of any weight takes the rest.
            while cumulated < at && parent + 1 < count {
                parent += 1;
                cumulated += weights[parent];
            }
            parents.push(parent);
        }
        let last = weights.iter().rposition(|w| *w > 0.0).unwrap_or(0);
        parents.iter_mut().for_each(|p| *p = (*p).min(last));
        let gather = |from: &[f64], to: &mut [f64]| {
            for (to, p) in to.chunks_exact_mut(n).zip(&parents) {
                to.copy_from_slice(&from[p * n..(p + 1) * n]);
            }
        };
        gather(&self.z, &mut self.proposal);
        std::mem::swap(&mut self.z, &mut self.proposal);
        gather(&self.gradient, &mut self.proposal);
        std::mem::swap(&mut self.gradient, &mut self.proposal);
        self.cost = parents.iter().map(|p| self.cost[*p]).collect();
        self.eves = parents.iter().map(|p| self.eves[*p]).collect();
    }

    /// Draws momenta and step sizes, and takes the first half kick and the first drift.
    fn begin_move(&mut self, settings: &Settings) {
        self.moves += 1;
        self.leapfrog_steps = ((TRAJECTORY / self.mean_step_size).round() as usize).clamp(1, settings.leapfrog_steps);
        let (seed, iteration, n, beta, mean) =
            (self.seed, self.iteration(), self.control, self.beta, self.mean_step_size);
        fill_normals(&mut self.momentum, n, seed, Stream::Momentum, iteration);
        let Self { z, cost, gradient, proposal, momentum, energy, step_size, lost, mass, .. } = self;
        let block = BLOCK * n;
        (
            z.par_chunks(block),
            gradient.par_chunks(block),
            proposal.par_chunks_mut(block),
            momentum.par_chunks_mut(block),
            cost.par_chunks(BLOCK),
            energy.par_chunks_mut(BLOCK),
            step_size.par_chunks_mut(BLOCK),
            lost.par_chunks_mut(BLOCK),
        )
            .into_par_iter()
            .enumerate()
            .for_each(|(k, (z, g, q, v, cost, energy, step, lost))| {
                let mut force = vec![0.0; n];
                for i in 0..cost.len() {
                    let row = i * n..(i + 1) * n;
                    let (z, g, q, v) = (&z[row.clone()], &g[row.clone()], &mut q[row.clone()], &mut v[row]);
                    lost[i] = false;
                    energy[i] = 0.5 * (square(z) + square(v)) + beta * cost[i];
                    // Step sizes of their own keep particles from coming back to where they were all at once.
                    let u = uniforms(seed, Stream::Acceptance, iteration, (k * BLOCK + i) as u32)[1];
                    step[i] = mean * (0.75 + 0.5 * u);
                    force.iter_mut().zip(z).zip(g).for_each(|((f, z), g)| *f = z + beta * g);
                    mass.add_transposed(-0.5 * step[i], &force, v);
                    q.copy_from_slice(z);
                    mass.add(step[i], v, q);
                }
            });
        self.phase = Phase::Leapfrog { step: 1 };
    }

    /// The kick at the members that were asked for, and the drift to the next ones.
    fn leapfrog(&mut self, step: usize, costs: &[f64], gradients: &[f64], diverged: &[bool]) {
        let last = step == self.leapfrog_steps;
        let kick = if last { 0.5 } else { 1.0 };
        let (n, beta) = (self.control, self.beta);
        let Self { z, proposal, momentum, energy, step_size, lost, mass, root, .. } = self;
        let block = BLOCK * n;
        (
            z.par_chunks(block),
            gradients.par_chunks(block),
            proposal.par_chunks_mut(block),
            momentum.par_chunks_mut(block),
            costs.par_chunks(BLOCK),
            energy.par_chunks_mut(BLOCK),
            step_size.par_chunks(BLOCK),
            (lost.par_chunks_mut(BLOCK), diverged.par_chunks(BLOCK)),
        )
            .into_par_iter()
            .for_each(|(z, g, q, v, cost, energy, step, (lost, diverged))| {
                let mut force = vec![0.0; n];
                for i in 0..cost.len() {
                    let row = i * n..(i + 1) * n;
                    let (z, g, q, v) = (&z[row.clone()], &g[row.clone()], &mut q[row.clone()], &mut v[row]);
                    if diverged[i] || lost[i] {
                        lost[i] = true;
                        q.copy_from_slice(z);
                        continue;
                    }
                    force.fill(0.0);
                    root.add_transposed(beta, g, &mut force);
                    force.iter_mut().zip(&*q).for_each(|(f, q)| *f += q);
                    mass.add_transposed(-kick * step[i], &force, v);
                    if last {
                        energy[i] -= 0.5 * (square(q) + square(v)) + beta * cost[i];
                    } else {
                        mass.add(step[i], v, q);
                    }
                }
            });
    }

    /// Accepts or rejects each proposal, and sees whether the particles have moved enough.
    fn decide(&mut self, settings: &Settings, costs: &[f64], gradients: &[f64]) {
        let (n, iteration) = (self.control, self.iteration());
        let mut acceptance = 0.0;
        for i in 0..costs.len() {
            // An energy that is not a number is beyond all numbers.
            let lost = self.lost[i] || self.energy[i].is_nan();
            let probability = if lost { 0.0 } else { self.energy[i].exp().min(1.0) };
            acceptance += probability;
            if uniforms(self.seed, Stream::Acceptance, iteration, i as u32)[0] < probability {
                let row = i * n..(i + 1) * n;
                self.z[row.clone()].copy_from_slice(&self.proposal[row.clone()]);
                self.cost[i] = costs[i];
                self.gradient[row.clone()].fill(0.0);
                self.root.add_transposed(1.0, &gradients[row.clone()], &mut self.gradient[row]);
            }
        }
        acceptance /= costs.len() as f64;
        self.moves_at_level += 1;
        self.accepted_at_level += acceptance;
        self.mean_step_size = (self.mean_step_size * (acceptance - ACCEPTANCE).exp()).min(0.5 * TRAJECTORY);
        self.correlation = correlation(&self.origin, &self.z, n);
        if self.moves_at_level >= settings.moves || self.correlation < settings.correlation {
            self.temper(settings);
        } else {
            self.begin_move(settings);
        }
    }

    pub fn finish(self) -> Particles {
        let mut states = Array2::zeros((self.cost.len(), self.control));
        for (mut x, z) in states.outer_iter_mut().zip(self.z.chunks_exact(self.control)) {
            let x = x.as_slice_mut().expect("standard layout");
            x.copy_from_slice(&self.background);
            self.root.add(1.0, z, x);
        }
        Particles {
            states,
            eves: self.eves,
            log_evidence: self.log_evidence,
            log_evidence_variance: self.log_evidence_variance,
            levels: self.levels,
            moves: self.moves,
            acceptance: self.accepted_at_level / self.moves_at_level.max(1) as f64,
            correlation: self.correlation,
            gradients: self.gradients,
            interrupted: self.interrupted,
        }
    }
}

/// The largest beta, at most 1, at which the weights exp(-(beta - from) cost) have an effective number of `share` of
/// the particles that have any.
fn next_beta(costs: &[f64], from: f64, share: f64) -> f64 {
    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let alive = costs.iter().filter(|c| c.is_finite()).count() as f64;
    let enough = |beta: f64| {
        let (mut sum, mut squares) = (0.0, 0.0);
        for c in costs {
            let w = ((from - beta) * (c - least)).exp();
            sum += w;
            squares += w * w;
        }
        sum * sum >= share * alive * squares
    };
    if enough(1.0) {
        return 1.0;
    }
    let (mut low, mut high) = (from, 1.0);
    // First the order of magnitude of the step, then the step.
    let mut step = 1.0 - from;
    while step > 1e-18 && !enough(from + step) {
        high = from + step;
        step *= 0.125;
        low = from + step;
    }
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if enough(middle) { low = middle } else { high = middle }
    }
    if low > from { low } else { from.next_up() }
}

/// The largest |correlation| of a component between two sets of particles.
fn correlation(a: &[f64], b: &[f64], n: usize) -> f64 {
    let count = (a.len() / n) as f64;
    let mut sums = vec![[0.0; 5]; n];
    for (a, b) in a.chunks_exact(n).zip(b.chunks_exact(n)) {
        for ((s, a), b) in sums.iter_mut().zip(a).zip(b) {
            s[0] += a;
            s[1] += b;
            s[2] += a * a;
            s[3] += b * b;
            s[4] += a * b;
        }
    }
    let component = |[a, b, aa, bb, ab]: &[f64; 5]| {
        (ab - a * b / count) / ((aa - a * a / count) * (bb - b * b / count)).max(f64::MIN_POSITIVE).sqrt()
    };
    sums.iter().map(|s| component(s).abs()).fold(0.0, f64::max)
}

/// Standard normals for the rows of an array, as an engine would draw them.
fn fill_normals(rows: &mut [f64], n: usize, seed: u64, stream: Stream, iteration: u32) {
    rows.par_chunks_mut(BLOCK * n).enumerate().for_each(|(k, rows)| {
        for (i, row) in rows.chunks_exact_mut(n).enumerate() {
            for (quad, out) in row.chunks_mut(4).enumerate() {
                let z = normals(seed, stream, iteration, (k * BLOCK + i) as u32, quad as u32);
                out.iter_mut().zip(z).for_each(|(out, z)| *out = f64::from(z));
            }
        }
    });
}

/// Four numbers uniform in (0, 1).
fn uniforms(seed: u64, stream: Stream, iteration: u32, member: u32) -> [f64; 4] {
    philox([seed as u32, (seed >> 32) as u32], [0, member, iteration, stream as u32])
        .map(|w| (f64::from(w) + 0.5) / 4_294_967_296.0)
}

/// x'x
fn square(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_beta_leaves_the_share_that_was_asked_for() {
        // Costs over nine orders of magnitude, and some that are infinite.
        for scale in [1e-3, 1.0, 1e6] {
            let mut costs: Vec<f64> = (0..1000).map(|k| scale * f64::from(k % 97) + 5.0).collect();
            costs[3] = f64::INFINITY;
            for from in [0.0, 0.01] {
                let beta = next_beta(&costs, from, 0.5);
                assert!(beta > from && beta <= 1.0);
                let weights: Vec<f64> =
                    costs.iter().filter(|c| c.is_finite()).map(|c| ((from - beta) * (c - 5.0)).exp()).collect();
                let ess = weights.iter().sum::<f64>().powi(2) / square(&weights);
                assert!(
                    if beta < 1.0 { (ess / 999.0 - 0.5).abs() < 1e-3 } else { ess > 499.0 },
                    "{scale} {from} {ess}"
                );
            }
        }
        assert_eq!(next_beta(&[0.0; 10], 0.0, 0.9), 1.0);
    }

    #[test]
    fn correlation_is_that_of_the_worst_component() {
        let mut a = vec![0.0; 4000];
        let mut b = vec![0.0; 4000];
        fill_normals(&mut a, 2, 1, Stream::Particles, 0);
        fill_normals(&mut b, 2, 1, Stream::Particles, 1);
        assert!(correlation(&a, &b, 2) < 0.1);
        for (a, b) in a.chunks_exact(2).zip(b.chunks_exact_mut(2)) {
            b[1] = -0.6 * a[1] + 0.8 * b[1] + 3.0;
        }
        assert!((correlation(&a, &b, 2) - 0.6).abs() < 0.05);
    }
}
