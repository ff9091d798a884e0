//! L-BFGS with a strong-Wolfe line search (Nocedal & Wright 2006, algorithms 7.4 and 7.5), many minimisations in
//! lockstep.
//!
//! Each minimisation is a state machine that wants its function at one point and moves on when it has the answer. The
//! first step has a given length, so that it cannot throw a chaotic model out of its range. A point where the function
//! is not finite is a wall to the line search. A failed search forgets the history and tries the gradient's direction
//! before it gives up. The best point ever seen is what is returned.

use super::line_search::{LineSearch, Next, Sample};
use super::{Evaluation, Minimum, Reason, Request, Watch, norm};
use crate::checkpoint;
use crate::error::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Minimisations that a thread takes at a time: fewer are not worth the hand-over.
const GRAIN: usize = 128;

/// Constants of the minimisation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LbfgsSettings {
    /// Pairs of steps and gradient differences kept. Default: 10.
    pub history: usize,
    /// Iterations at most. Default: 1500.
    pub iterations: usize,
    /// Stop when the gradient's norm is below this times its norm at the start. Default: 1e-8.
    pub gradient_tolerance: f64,
    /// Stop when an iteration lowers the cost by less than this times max(1, |cost|). Default: 1e-13.
    pub cost_tolerance: f64,
    /// Length of the first step tried, in units of the parameters. Default: 1.
    pub first_step: f64,
}

impl Default for LbfgsSettings {
    fn default() -> Self {
        Self { history: 10, iterations: 1500, gradient_tolerance: 1e-8, cost_tolerance: 1e-13, first_step: 1.0 }
    }
}

/// Minimises many functions in lockstep, one from each of `starts`.
///
/// `evaluate` gets one request of every live minimisation and returns their evaluations in the same order. What a
/// minimisation does depends on its own evaluations alone, so it ends at the same bits in any company.
///
/// # Errors
/// Whatever `evaluate` returns.
pub fn minimise(
    starts: &[Vec<f64>],
    settings: LbfgsSettings,
    mut evaluate: impl FnMut(&[Request]) -> Result<Vec<Evaluation>>,
    watch: &mut dyn Watch,
) -> Result<Vec<Minimum>> {
    let (mut minima, mut best, mut live) = match checkpoint::begin(watch.keeper())? {
        Some(kept) => kept,
        None => (
            starts.iter().map(|s| Minimum::unseen(s.clone())).collect::<Vec<_>>(),
            vec![f64::INFINITY; starts.len()],
            starts.iter().enumerate().map(|(k, s)| Descent::new(k, s, settings)).collect::<Vec<_>>(),
        ),
    };
    while !live.is_empty() {
        let requests: Vec<_> = live.iter().map(|d| Request { index: d.index, point: &d.trial }).collect();
        let evaluations = evaluate(&requests)?;
        assert_eq!(evaluations.len(), live.len(), "one evaluation per request");
        live.par_iter_mut().zip(evaluations).with_min_len(GRAIN).for_each(|(descent, e)| descent.advance(e));
        for descent in &live {
            best[descent.index] = descent.minimum.cost;
        }
        let iteration = live.iter().map(|d| d.minimum.iterations).max().unwrap_or(0);
        let interrupted = watch.progress(iteration, &best).is_break();
        live.retain_mut(|descent| {
            let reason = descent.ended.or(interrupted.then_some(Reason::Interrupted));
            if let Some(reason) = reason {
                descent.minimum.reason = reason;
                minima[descent.index] = std::mem::replace(&mut descent.minimum, Minimum::unseen(Vec::new()));
            }
            reason.is_none()
        });
        checkpoint::keep(watch.keeper(), &(&minima, &best, &live))?;
    }
    checkpoint::end(watch.keeper(), &(&minima, &best, &live))?;
    Ok(minima)
}

/// One minimisation, waiting for its function at `trial`.
#[derive(Serialize, Deserialize)]
struct Descent {
    index: usize,
    settings: LbfgsSettings,
    minimum: Minimum,
    ended: Option<Reason>,
    /// The gradient's norm at which it stops.
    threshold: f64,
    /// The search under way; none before the start has been evaluated.
    search: Option<LineSearch>,
    /// The step along `direction` that leads to `trial`.
    step: f64,
    trial: Vec<f64>,
    direction: Vec<f64>,
    /// The iterate: x, f(x), df/dx.
    point: Vec<f64>,
    cost: f64,
    gradient: Vec<f64>,
    /// The gradient at the search's `low`, once that has left the iterate.
    low_gradient: Vec<f64>,
    pairs: Pairs,
}

impl Descent {
    fn new(index: usize, start: &[f64], settings: LbfgsSettings) -> Self {
        let zeros = vec![0.0; start.len()];
        Self {
            index,
            settings,
            minimum: Minimum::unseen(start.to_vec()),
            ended: None,
            threshold: 0.0,
            search: None,
            step: 0.0,
            trial: start.to_vec(),
            direction: zeros.clone(),
            point: start.to_vec(),
            cost: f64::INFINITY,
            gradient: zeros.clone(),
            low_gradient: zeros,
            pairs: Pairs::new(settings.history, start.len()),
        }
    }

    /// Takes in the function at `trial` and sets the next trial, or ends.
    fn advance(&mut self, evaluation: Evaluation) {
        self.minimum.evaluations += 1;
        let finite = evaluation.is_finite();
        if finite {
            self.minimum.see(&self.trial, &evaluation);
        } else {
            self.minimum.overflow();
        }
        let Some(mut search) = self.search else {
            if !finite {
                self.ended = Some(Reason::Diverged);
                return;
            }
            self.minimum.start_gradient_norm = norm(&evaluation.gradient);
            self.threshold = self.settings.gradient_tolerance * self.minimum.start_gradient_norm;
            self.move_to_trial(evaluation);
            self.start_iteration();
            return;
        };
        let at = if finite {
            Sample { step: self.step, value: evaluation.cost, slope: dot(&self.direction, &evaluation.gradient) }
        } else {
            Sample::wall(self.step)
        };
        let next = search.advance(at);
        match next {
            Next::Try(step) => {
                if search.low.step == self.step {
                    self.low_gradient = evaluation.gradient;
                }
                self.try_step(step);
                self.search = Some(search);
            }
            Next::Accept => {
                self.pairs.push(self.step, &self.direction, &self.gradient, &evaluation.gradient);
                let before = self.cost;
                self.move_to_trial(evaluation);
                self.minimum.iterations += 1;
                if before - self.cost <= self.settings.cost_tolerance * before.abs().max(1.0) {
                    self.ended = Some(Reason::CostTolerance);
                } else {
                    self.start_iteration();
                }
            }
            Next::Fail => {
                if search.low.step == self.step {
                    self.low_gradient = evaluation.gradient;
                }
                self.restart(search.low);
            }
        }
    }

    fn move_to_trial(&mut self, evaluation: Evaluation) {
        std::mem::swap(&mut self.point, &mut self.trial);
        self.cost = evaluation.cost;
        self.gradient = evaluation.gradient;
        self.minimum.pass(self.cost);
    }

    /// Keeps what a failed search did find, and starts afresh from there; if it found nothing along the gradient's
    /// own direction, that is the end.
    fn restart(&mut self, low: Sample) {
        let fresh = self.pairs.is_empty();
        let before = self.cost;
        if low.step > 0.0 {
            self.point.iter_mut().zip(&self.direction).for_each(|(x, d)| *x += low.step * d);
            std::mem::swap(&mut self.gradient, &mut self.low_gradient);
            self.cost = low.value;
        } else if fresh {
            self.ended = Some(Reason::NoDecrease);
            return;
        }
        self.minimum.iterations += 1;
        self.minimum.pass(self.cost);
        self.pairs.clear();
        if fresh && before - self.cost <= self.settings.cost_tolerance * before.abs().max(1.0) {
            self.ended = Some(Reason::CostTolerance);
        } else {
            self.start_iteration();
        }
    }

    /// Chooses a direction and tries its full step, unless this is where to stop.
    fn start_iteration(&mut self) {
        let size = norm(&self.gradient);
        if size <= self.threshold {
            self.ended = Some(Reason::GradientTolerance);
            return;
        }
        if self.minimum.iterations >= self.settings.iterations {
            self.ended = Some(Reason::IterationLimit);
            return;
        }
        self.pairs.direction(&self.gradient, &mut self.direction);
        let mut slope = dot(&self.direction, &self.gradient);
        if self.pairs.is_empty() || !(slope.is_finite() && slope < 0.0) {
            self.pairs.clear();
            let scale = self.settings.first_step / size;
            self.direction.iter_mut().zip(&self.gradient).for_each(|(d, g)| *d = -scale * g);
            slope = -scale * size * size;
        }
        let negligible = self.settings.cost_tolerance * self.cost.abs().max(1.0);
        self.search = Some(LineSearch::new(self.cost, slope, negligible));
        self.try_step(1.0);
    }

    fn try_step(&mut self, step: f64) {
        self.step = step;
        for ((trial, x), d) in self.trial.iter_mut().zip(&self.point).zip(&self.direction) {
            *trial = x + step * d;
        }
    }
}

/// The last pairs s = x_{k+1} - x_k, y = g_{k+1} - g_k, in a ring.
#[derive(Serialize, Deserialize)]
struct Pairs {
    /// Pairs at most, and numbers in each s.
    room: usize,
    len: usize,
    /// Pairs in use, and the slot of the next one.
    used: usize,
    next: usize,
    /// s and y: `[room, 2, len]`.
    numbers: Vec<f64>,
    /// 1 / y's.
    rho: Vec<f64>,
    alpha: Vec<f64>,
}

impl Pairs {
    fn new(room: usize, len: usize) -> Self {
        let numbers = vec![0.0; 2 * room * len];
        Self { room, len, used: 0, next: 0, numbers, rho: vec![0.0; room], alpha: vec![0.0; room] }
    }

    fn is_empty(&self) -> bool {
        self.used == 0
    }

    fn clear(&mut self) {
        self.used = 0;
    }

    /// Adds a step and the gradients at its ends, unless rounding has made their product useless.
    fn push(&mut self, step: f64, direction: &[f64], before: &[f64], after: &[f64]) {
        if self.room == 0 {
            return;
        }
        let (s, y) = self.numbers[2 * self.next * self.len..][..2 * self.len].split_at_mut(self.len);
        s.iter_mut().zip(direction).for_each(|(s, d)| *s = step * d);
        y.iter_mut().zip(before.iter().zip(after)).for_each(|(y, (b, a))| *y = a - b);
        let product = dot(s, y);
        if product > f64::EPSILON * norm(s) * norm(y) {
            self.rho[self.next] = product.recip();
            self.next = (self.next + 1) % self.room;
            self.used = (self.used + 1).min(self.room);
        } else {
            // The oldest pair's slot has been written over.
            self.used = self.used.min(self.room - 1);
        }
    }

    /// -H g by the two-loop recursion, with y's / y'y of the last pair times the identity as the first H.
    fn direction(&mut self, gradient: &[f64], direction: &mut [f64]) {
        direction.iter_mut().zip(gradient).for_each(|(d, g)| *d = -g);
        if self.is_empty() {
            return;
        }
        let slot = |back: usize| (self.next + self.room - back) % self.room;
        let pair = |slot: usize| self.numbers[2 * slot * self.len..][..2 * self.len].split_at(self.len);
        for k in (1..=self.used).map(slot) {
            let (s, y) = pair(k);
            self.alpha[k] = self.rho[k] * dot(s, direction);
            direction.iter_mut().zip(y).for_each(|(d, y)| *d -= self.alpha[k] * y);
        }
        let last = slot(1);
        let (_, y) = pair(last);
        let scale = (self.rho[last] * dot(y, y)).recip();
        direction.iter_mut().for_each(|d| *d *= scale);
        for k in (1..=self.used).rev().map(slot) {
            let (s, y) = pair(k);
            let change = self.alpha[k] - self.rho[k] * dot(y, direction);
            direction.iter_mut().zip(s).for_each(|(d, s)| *d += change * s);
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::ops::ControlFlow;

    fn quiet(_: usize, _: &[f64]) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// sum_i 100 (x_{2i+1} - x_{2i}^2)^2 + (1 - x_{2i})^2, minimum 0 at (1, .., 1).
    fn rosenbrock(x: &[f64]) -> Evaluation {
        let (mut cost, mut gradient) = (0.0, vec![0.0; x.len()]);
        for i in (0..x.len()).step_by(2) {
            let (a, b) = (x[i + 1] - x[i] * x[i], 1.0 - x[i]);
            cost += 100.0 * a * a + b * b;
            gradient[i] = -400.0 * a * x[i] - 2.0 * b;
            gradient[i + 1] = 200.0 * a;
        }
        Evaluation { cost, gradient }
    }

    /// 1/2 sum_i c_i (x_i - i)^2 with curvatures c_i from 1 to 100.
    fn quadratic(x: &[f64]) -> Evaluation {
        let curvature = |i: usize| 10f64.powf(2.0 * i as f64 / (x.len() - 1) as f64);
        let off = |i: usize| x[i] - i as f64;
        Evaluation {
            cost: (0..x.len()).map(|i| 0.5 * curvature(i) * off(i) * off(i)).sum(),
            gradient: (0..x.len()).map(|i| curvature(i) * off(i)).collect(),
        }
    }

    fn batch(f: impl Fn(&[f64]) -> Evaluation) -> impl FnMut(&[Request]) -> Result<Vec<Evaluation>> {
        move |requests| Ok(requests.iter().map(|r| f(r.point)).collect())
    }

    fn one(start: Vec<f64>, settings: LbfgsSettings, f: impl Fn(&[f64]) -> Evaluation) -> Minimum {
        minimise(&[start], settings, batch(f), &mut quiet).unwrap().remove(0)
    }

    #[test]
    fn lbfgs_defaults() {
        let s = LbfgsSettings::default();
        assert_eq!((s.history, s.iterations, s.first_step), (10, 1500, 1.0));
        assert_eq!((s.gradient_tolerance, s.cost_tolerance), (1e-8, 1e-13));
    }

    #[test]
    fn lbfgs_rosenbrock() {
        // The gradient at the start is 6,000 and the smallest curvature 0.4: 1e-10 of it leaves an error of 1.5e-6.
        let settings = LbfgsSettings { gradient_tolerance: 1e-11, ..LbfgsSettings::default() };
        let m = one(vec![-1.2, 1.0, 2.0, -1.0], settings, rosenbrock);
        assert!(m.cost < 1e-12, "{m:?}");
        assert!(m.point.iter().all(|x| (x - 1.0).abs() < 1e-6), "{m:?}");
        assert!(m.evaluations < 120 && m.iterations < 80, "{} evaluations, {} iterations", m.evaluations, m.iterations);
        assert!(m.history.windows(2).all(|w| w[1] <= w[0]), "{:?}", m.history);
    }

    #[test]
    fn lbfgs_quadratic() {
        let m = one(vec![3.0; 16], LbfgsSettings::default(), quadratic);
        assert!(m.point.iter().enumerate().all(|(i, x)| (x - i as f64).abs() < 1e-5), "{m:?}");
        assert!(matches!(m.reason, Reason::GradientTolerance | Reason::CostTolerance), "{:?}", m.reason);
        assert!(m.evaluations < 150, "{} evaluations", m.evaluations);
    }

    #[test]
    fn lbfgs_already_at_the_minimum() {
        let m = one(vec![0.0, 1.0, 2.0], LbfgsSettings::default(), quadratic);
        assert_eq!((m.reason, m.evaluations, m.iterations), (Reason::GradientTolerance, 1, 0));
    }

    #[test]
    fn lbfgs_iteration_limit() {
        let m = one(vec![-1.2, 1.0], LbfgsSettings { iterations: 3, ..LbfgsSettings::default() }, rosenbrock);
        assert_eq!((m.reason, m.iterations, m.history.len()), (Reason::IterationLimit, 3, 4));
    }

    /// Beyond |x| = 4 the function is not finite; the first step tried, of length 100, lands there.
    #[test]
    fn lbfgs_backs_off_from_where_the_function_is_not_finite() {
        for bad in [f64::INFINITY, f64::NAN, 1e300] {
            let f = |x: &[f64]| {
                if x.iter().any(|x| x.abs() > 4.0) {
                    Evaluation { cost: bad, gradient: vec![f64::NAN; x.len()] }
                } else {
                    rosenbrock(x)
                }
            };
            let m = one(vec![-1.2, 1.0], LbfgsSettings { first_step: 100.0, ..LbfgsSettings::default() }, f);
            assert!(m.cost < 1e-12 && m.evaluations < 120, "{m:?}");
        }
    }

    #[test]
    fn lbfgs_start_not_finite() {
        let f = |x: &[f64]| Evaluation { cost: f64::NAN, gradient: vec![0.0; x.len()] };
        let m = one(vec![1.0, 2.0], LbfgsSettings::default(), f);
        assert_eq!((m.reason, m.cost, m.evaluations), (Reason::Diverged, f64::INFINITY, 1));
        assert_eq!(m.point, [1.0, 2.0]);
    }

    /// A gradient of the wrong sign: every line search fails, and the start stays the best point.
    #[test]
    fn lbfgs_wrong_gradient_ends_with_a_reason() {
        let f = |x: &[f64]| Evaluation { cost: x[0] * x[0], gradient: vec![-2.0 * x[0]] };
        let m = one(vec![1.0], LbfgsSettings::default(), f);
        assert_eq!((m.reason, m.cost), (Reason::NoDecrease, 1.0));
        assert!(m.evaluations < 100, "{}", m.evaluations);
    }

    /// f32 noise of 1e-6 relative on cost and gradient: ends by itself, near the minimum, at the best point seen.
    #[test]
    fn lbfgs_noisy_cost_ends_near_the_minimum() {
        let f = |x: &[f64]| {
            let e = quadratic(x);
            Evaluation {
                cost: f64::from((e.cost + 50.0) as f32),
                gradient: e.gradient.iter().map(|g| f64::from(*g as f32) * (1.0 + 1e-6 * (1e7 * x[0]).sin())).collect(),
            }
        };
        let m = one(vec![3.0; 16], LbfgsSettings { cost_tolerance: 1e-6, ..LbfgsSettings::default() }, f);
        assert!(m.cost - 50.0 < 1e-3, "{m:?}");
        assert!(m.cost <= m.history.iter().copied().fold(f64::INFINITY, f64::min));
        assert!(m.evaluations < 300, "{} {}", m.evaluations, m.reason);
    }

    #[test]
    fn lbfgs_lockstep_equals_separate_runs() {
        let starts = [vec![-1.2, 1.0], vec![0.0, 0.0], vec![3.0, -2.0], vec![1.0, 1.0]];
        let together = minimise(&starts, LbfgsSettings::default(), batch(rosenbrock), &mut quiet).unwrap();
        for (start, minimum) in starts.iter().zip(&together) {
            assert_eq!(minimum, &one(start.clone(), LbfgsSettings::default(), rosenbrock));
        }
    }

    #[test]
    fn lbfgs_evaluates_each_point_once() {
        let mut seen = std::collections::HashSet::new();
        let mut calls = 0;
        let evaluate = |requests: &[Request]| {
            calls += requests.len();
            Ok(requests
                .iter()
                .map(|r| {
                    seen.insert(r.point.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
                    rosenbrock(r.point)
                })
                .collect())
        };
        let m = minimise(&[vec![-1.2, 1.0]], LbfgsSettings::default(), evaluate, &mut quiet).unwrap().remove(0);
        assert_eq!((m.evaluations, calls), (seen.len(), seen.len()));
    }

    #[test]
    fn lbfgs_interrupted_keeps_the_best_point() {
        let mut rounds = 0;
        let mut stop = |_: usize, _: &[f64]| {
            rounds += 1;
            if rounds == 12 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let starts = [vec![-1.2, 1.0], vec![3.0, -2.0]];
        let minima = minimise(&starts, LbfgsSettings::default(), batch(rosenbrock), &mut stop).unwrap();
        for (start, m) in starts.iter().zip(&minima) {
            assert_eq!(m.reason, Reason::Interrupted);
            assert!(m.cost < rosenbrock(start).cost && m.cost == rosenbrock(&m.point).cost);
        }
    }

    #[test]
    fn lbfgs_error_ends_the_run() {
        let mut rounds = 0;
        let evaluate = |requests: &[Request]| {
            rounds += 1;
            if rounds == 5 {
                return Err(Error::invalid("a", "b", "c", "d"));
            }
            batch(rosenbrock)(requests)
        };
        assert!(minimise(&[vec![-1.2, 1.0], vec![0.0, 0.0]], LbfgsSettings::default(), evaluate, &mut quiet).is_err());
    }
}
