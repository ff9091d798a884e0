//! Adam with bias correction and a learning-rate schedule (Kingma & Ba 2015, algorithm 1), on host numbers.

use super::{Evaluation, Minimum, Reason, Request, Watch, norm};
use crate::checkpoint;
use crate::engine::AdamStep;
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// The learning rate's factor over the course of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// 1 throughout.
    #[default]
    Constant,
    /// (1 + cos(pi k / K)) / 2 at iteration k of K: from 1 down to 0 (Loshchilov & Hutter 2017, without restarts).
    Cosine,
}

impl Schedule {
    /// The factor at `iteration` (from 0) of `iterations`.
    pub fn factor(self, iteration: usize, iterations: usize) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Cosine => {
                let done = iteration.min(iterations) as f64 / iterations.max(1) as f64;
                0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
        }
    }
}

/// Adam's constants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamSettings {
    /// alpha, the size of a step in units of the parameter. Default: 0.01.
    pub learning_rate: f64,
    /// Its schedule. Default: constant.
    pub schedule: Schedule,
    /// Decay of the gradient's running mean. Default: 0.9.
    pub beta1: f64,
    /// Decay of the squared gradient's running mean. Default: 0.999.
    pub beta2: f64,
    /// Added to the root of the squared gradient's mean. Default: 1e-8.
    pub epsilon: f64,
}

impl Default for AdamSettings {
    fn default() -> Self {
        Self { learning_rate: 0.01, schedule: Schedule::Constant, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

impl AdamSettings {
    /// The numbers of each step, from the first on and without end, with the schedule spread over `iterations`. An engine
    /// moves its resident members by them.
    pub fn steps(self, iterations: usize) -> AdamSteps {
        AdamSteps { settings: self, iterations, done: 0, decay: [1.0; 2] }
    }
}

/// The numbers of each step: see [`AdamSettings::steps`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AdamSteps {
    settings: AdamSettings,
    iterations: usize,
    done: usize,
    /// beta1^done and beta2^done.
    decay: [f64; 2],
}

impl AdamSteps {
    fn advance(&mut self) -> AdamStep {
        let AdamSettings { learning_rate, schedule, beta1, beta2, epsilon } = self.settings;
        let rate = learning_rate * schedule.factor(self.done, self.iterations);
        self.done += 1;
        self.decay = [self.decay[0] * beta1, self.decay[1] * beta2];
        let [mean_scale, square_scale] = self.decay.map(|d| 1.0 / (1.0 - d));
        AdamStep { rate, beta1, beta2, mean_scale, square_scale, epsilon }
    }
}

impl Iterator for AdamSteps {
    type Item = AdamStep;

    fn next(&mut self) -> Option<AdamStep> {
        Some(self.advance())
    }
}

/// Adam's running means for a parameter array. Each element moves on its own, so that one array may hold the
/// parameters of many problems.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Adam {
    steps: AdamSteps,
    /// Each parameter's unit.
    units: Vec<f64>,
    mean: Vec<f64>,
    square: Vec<f64>,
    /// A factor on the learning rate of each of some equal parts of the array.
    speeds: Vec<f64>,
}

impl Adam {
    /// Adam for parameters in the given units, its schedule spread over `iterations` steps. The learning rate of a
    /// parameter is `learning_rate` of its units: this is Adam on the parameters divided by their units. `units: [len]`.
    pub fn new(settings: AdamSettings, units: Vec<f64>, iterations: usize) -> Self {
        Self::of_parts(settings, units, iterations, 1)
    }

    /// The same for as many equal parts, each of which can be slowed apart.
    pub fn of_parts(settings: AdamSettings, units: Vec<f64>, iterations: usize, parts: usize) -> Self {
        let zeros = vec![0.0; units.len()];
        let speeds = vec![1.0; parts];
        Self { steps: settings.steps(iterations), units, mean: zeros.clone(), square: zeros, speeds }
    }

    /// Halves the learning rate of a part from here on, and stops it where it is: it takes no momentum along.
    pub fn slow(&mut self, part: usize) {
        self.speeds[part] *= 0.5;
        let each = self.mean.len() / self.speeds.len();
        self.mean[part * each..][..each].fill(0.0);
    }

    /// One step against the gradient. `parameters, gradient: [len]`. Allocates nothing.
    ///
    /// # Panics
    /// A length other than `len`.
    pub fn step(&mut self, parameters: &mut [f64], gradient: &[f64]) {
        assert!(parameters.len() == self.mean.len() && gradient.len() == self.mean.len(), "Adam's lengths differ");
        let AdamStep { rate, beta1, beta2, mean_scale, square_scale, epsilon } = self.steps.advance();
        let each = (self.mean.len() / self.speeds.len()).max(1);
        let means = self.mean.chunks_mut(each).zip(self.square.chunks_mut(each)).zip(self.units.chunks(each));
        let parts = parameters.chunks_mut(each).zip(gradient.chunks(each)).zip(means).zip(&self.speeds);
        for (((parameters, gradient), ((mean, square), units)), speed) in parts {
            let rate = rate * speed;
            let moments = mean.iter_mut().zip(square).zip(units);
            for ((x, g), ((m, v), unit)) in parameters.iter_mut().zip(gradient).zip(moments) {
                let g = g * unit;
                *m = beta1 * *m + (1.0 - beta1) * g;
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                *x -= rate * unit * (*m * mean_scale) / ((*v * square_scale).sqrt() + epsilon);
            }
        }
    }
}

/// Minimises many functions in lockstep: from each of `starts` (all of one length), for `iterations` steps or until
/// the gradient's norm is below `gradient_tolerance` times its norm at the start.
///
/// `evaluate` gets one request of every live minimisation and returns their evaluations in the same order. A
/// minimisation that leaves the function's domain ends with [`Reason::Diverged`] and the best point before.
///
/// # Errors
/// Whatever `evaluate` returns.
pub fn minimise(
    starts: &[Vec<f64>],
    settings: AdamSettings,
    iterations: usize,
    gradient_tolerance: f64,
    mut evaluate: impl FnMut(&[Request]) -> Result<Vec<Evaluation>>,
    watch: &mut dyn Watch,
) -> Result<Vec<Minimum>> {
    let mut state = match checkpoint::begin(watch.keeper())? {
        Some(kept) => kept,
        None => Descents::new(starts, settings, iterations),
    };
    while state.iteration <= iterations && !state.live.is_empty() {
        let Descents { iteration, points, adams, threshold, minima, best, live } = &mut state;
        let iteration = *iteration;
        let requests: Vec<_> = live.iter().map(|&index| Request { index, point: &points[index] }).collect();
        let evaluations = evaluate(&requests)?;
        let mut left = Vec::with_capacity(live.len());
        for (&index, evaluation) in live.iter().zip(&evaluations) {
            let minimum = &mut minima[index];
            minimum.evaluations += 1;
            if !evaluation.is_finite() {
                minimum.overflow();
                minimum.reason = Reason::Diverged;
                continue;
            }
            minimum.iterations = iteration;
            minimum.pass(evaluation.cost);
            minimum.see(&points[index], evaluation);
            best[index] = minimum.cost;
            let size = norm(&evaluation.gradient);
            if iteration == 0 {
                minimum.start_gradient_norm = size;
                threshold[index] = gradient_tolerance * size;
            }
            if size <= threshold[index] {
                minimum.reason = Reason::GradientTolerance;
            } else if iteration == iterations {
                minimum.reason = Reason::IterationLimit;
            } else {
                adams[index].step(&mut points[index], &evaluation.gradient);
                left.push(index);
            }
        }
        if watch.progress(iteration, best).is_break() {
            left.iter().for_each(|&index| minima[index].reason = Reason::Interrupted);
            left.clear();
        }
        *live = left;
        state.iteration += 1;
        checkpoint::keep(watch.keeper(), &state)?;
    }
    checkpoint::end(watch.keeper(), &state)?;
    Ok(state.minima)
}

/// Minimisations on their way.
#[derive(Serialize, Deserialize)]
struct Descents {
    /// The next one.
    iteration: usize,
    points: Vec<Vec<f64>>,
    adams: Vec<Adam>,
    /// The gradient's norm at which each stops.
    threshold: Vec<f64>,
    minima: Vec<Minimum>,
    best: Vec<f64>,
    live: Vec<usize>,
}

impl Descents {
    fn new(starts: &[Vec<f64>], settings: AdamSettings, iterations: usize) -> Self {
        Self {
            iteration: 0,
            points: starts.to_vec(),
            adams: starts.iter().map(|s| Adam::new(settings, vec![1.0; s.len()], iterations)).collect(),
            threshold: vec![0.0; starts.len()],
            minima: starts.iter().map(|s| Minimum::unseen(s.clone())).collect(),
            best: vec![f64::INFINITY; starts.len()],
            live: (0..starts.len()).collect(),
        }
    }
}

impl Minimum {
    /// No point seen yet.
    pub(crate) fn unseen(start: Vec<f64>) -> Self {
        Self {
            point: start,
            cost: f64::INFINITY,
            gradient_norm: f64::NAN,
            start_gradient_norm: f64::NAN,
            history: Vec::new(),
            overflows: vec![0],
            iterations: 0,
            evaluations: 0,
            reason: Reason::IterationLimit,
        }
    }

    /// Adds to the history.
    pub(crate) fn pass(&mut self, cost: f64) {
        self.history.push(cost);
        self.overflows.push(0);
    }

    /// Counts an evaluation that was not finite.
    pub(crate) fn overflow(&mut self) {
        *self.overflows.last_mut().expect("never empty") += 1;
    }

    /// Keeps the point if it is the best so far.
    pub(super) fn see(&mut self, point: &[f64], evaluation: &Evaluation) {
        if evaluation.cost < self.cost {
            self.point.copy_from_slice(point);
            self.cost = evaluation.cost;
            self.gradient_norm = norm(&evaluation.gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;

    /// Worked out by hand: with a constant gradient the corrected means are g and g^2, so that each step is
    /// alpha * g / (|g| + eps); the second step below has m = 0.9 * 0.1 * 2 + 0.1 * (-1), v = 0.999 * 0.001 * 4 + 0.001.
    #[test]
    fn adam_first_two_steps_by_hand() {
        let mut adam = Adam::new(AdamSettings::default(), vec![1.0], 10);
        let mut x = [1.0];
        adam.step(&mut x, &[2.0]);
        assert!((x[0] - (1.0 - 0.01 * 2.0 / (2.0 + 1e-8))).abs() < 1e-15);
        let before = x[0];
        adam.step(&mut x, &[-1.0]);
        let m = (0.9 * 0.2 - 0.1) / (1.0 - 0.81);
        let v: f64 = (0.999 * 0.004 + 0.001) / (1.0 - 0.998_001);
        assert!((before - x[0] - 0.01 * m / (v.sqrt() + 1e-8)).abs() < 1e-14, "{}", before - x[0]);
    }

    #[test]
    fn adam_in_units_is_adam_on_the_divided_parameters() {
        let units = [1e-3, 1.0, 50.0];
        let mut scaled = Adam::new(AdamSettings::default(), units.to_vec(), 20);
        let mut plain = Adam::new(AdamSettings::default(), vec![1.0; 3], 20);
        let (mut x, mut z) = ([2e-3, 2.0, 100.0], [2.0; 3]);
        for _ in 0..20 {
            let gradient = |z: f64, unit: f64| z.powi(3) / unit;
            let slopes = [0, 1, 2].map(|i| gradient(x[i] / units[i], units[i]));
            scaled.step(&mut x, &slopes);
            let slopes = z.map(|z| gradient(z, 1.0));
            plain.step(&mut z, &slopes);
        }
        assert!((0..3).all(|i| (x[i] / units[i] - z[i]).abs() < 1e-12), "{x:?} {z:?}");
    }

    #[test]
    fn a_slowed_part_takes_half_steps_and_the_other_whole_ones() {
        let new = |parts| Adam::of_parts(AdamSettings::default(), vec![1.0; 4], 10, parts);
        let (mut whole, mut slowed) = (new(1), new(2));
        slowed.slow(1);
        let (mut x, mut y) = ([1.0; 4], [1.0; 4]);
        for _ in 0..3 {
            whole.step(&mut x, &[2.0, -1.0, 2.0, -1.0]);
            slowed.step(&mut y, &[2.0, -1.0, 2.0, -1.0]);
        }
        assert_eq!(x[..2], y[..2]);
        assert!((2..4).all(|i| ((y[i] - 1.0) / (x[i] - 1.0) - 0.5).abs() < 1e-12), "{x:?} {y:?}");
    }

    #[test]
    fn schedules_factors() {
        assert_eq!(Schedule::Constant.factor(7, 10), 1.0);
        assert_eq!(Schedule::Cosine.factor(0, 10), 1.0);
        assert!((Schedule::Cosine.factor(5, 10) - 0.5).abs() < 1e-15);
        assert!(Schedule::Cosine.factor(10, 10).abs() < 1e-15);
        assert!((Schedule::Cosine.factor(1, 3) - 0.75).abs() < 1e-15);
    }

    #[test]
    fn adam_defaults_are_the_published_ones() {
        let s = AdamSettings::default();
        assert_eq!((s.learning_rate, s.beta1, s.beta2, s.epsilon), (0.01, 0.9, 0.999, 1e-8));
    }

    #[test]
    fn adam_minimise_keeps_the_best_point_and_survives_divergence() {
        let settings = AdamSettings { learning_rate: 0.3, ..AdamSettings::default() };
        let evaluate = |requests: &[Request]| {
            Ok(requests
                .iter()
                .map(|r| match r.index {
                    0 => Evaluation { cost: r.point[0] * r.point[0], gradient: vec![2.0 * r.point[0]] },
                    _ if r.point[0] > 0.5 => Evaluation { cost: r.point[0], gradient: vec![1.0] },
                    _ => Evaluation { cost: f64::INFINITY, gradient: vec![0.0] },
                })
                .collect())
        };
        let mut quiet = |_: usize, _: &[f64]| ControlFlow::Continue(());
        let minima = minimise(&[vec![1.0], vec![2.0]], settings, 200, 1e-6, evaluate, &mut quiet).unwrap();
        assert!(minima[0].cost < 1e-4 && minima[0].cost == minima[0].history.iter().copied().fold(1.0, f64::min));
        assert_eq!(minima[1].reason, Reason::Diverged);
        assert!(minima[1].cost > 0.5 && minima[1].cost < 0.9, "{:?}", minima[1]);
    }
}
