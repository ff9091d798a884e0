//! L-BFGS with a strong-Wolfe line search (argmin's, after Moré & Thuente 1994), many minimisations in lockstep.
//!
//! argmin supplies direction and line search; this file supplies what it leaves open. Each point is evaluated once
//! (argmin asks for cost and gradient in separate calls). The cost is divided by the gradient's norm, so that the
//! first step has a given length and cannot throw a chaotic model out of its range. A point where the function is not
//! finite is shown to the line search as a wall. A failed search forgets the history and tries the gradient's
//! direction before it gives up. The best point ever seen is what is returned.

use super::lockstep::{self, Oracle};
use super::{Evaluation, Minimum, Reason, Request, Watch, norm};
use crate::error::Result;
use argmin::core::{CostFunction, Error as ArgminError, Gradient, IterState, Problem, Solver, State};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;

/// Evaluations in one line search before it counts as failed. MINPACK's default is 20.
const SEARCH_EVALUATIONS: usize = 30;

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
/// Whatever `evaluate` returns, once every minimisation has ended; the system refuses threads.
pub fn minimise(
    starts: &[Vec<f64>],
    settings: LbfgsSettings,
    evaluate: impl FnMut(&[Request]) -> Result<Vec<Evaluation>>,
    watch: &mut Watch,
) -> Result<Vec<Minimum>> {
    let algorithm = |index: usize, oracle: &Oracle| descend(&starts[index], settings, oracle);
    lockstep::run(starts.len(), algorithm, evaluate, watch)
}

/// One minimisation.
fn descend(start: &[f64], settings: LbfgsSettings, oracle: &Oracle) -> Minimum {
    let function = Function {
        oracle,
        state: RefCell::new(Seen {
            minimum: Minimum::unseen(start.to_vec()),
            point: Vec::new(),
            evaluation: Evaluation { cost: f64::INFINITY, gradient: Vec::new() },
            origin: start.to_vec(),
            origin_evaluation: Evaluation { cost: f64::INFINITY, gradient: vec![0.0; start.len()] },
            scale: 1.0,
            searched: 0,
            interrupted: false,
        }),
    };
    let reason = function.descend(settings);
    let mut minimum = function.state.into_inner().minimum;
    minimum.reason = reason;
    minimum
}

/// The function as argmin sees it: scaled, cached, walled.
struct Function<'a> {
    oracle: &'a Oracle,
    state: RefCell<Seen>,
}

struct Seen {
    minimum: Minimum,
    /// The last point evaluated, with what argmin gets to see there.
    point: Vec<f64>,
    evaluation: Evaluation,
    /// The iterate from which the current line search starts.
    origin: Vec<f64>,
    origin_evaluation: Evaluation,
    /// Factor on the cost.
    scale: f64,
    /// Evaluations in the current line search.
    searched: usize,
    interrupted: bool,
}

/// What argmin's callbacks return.
type Callback<T> = std::result::Result<T, ArgminError>;
type ArgminState = IterState<Vec<f64>, Vec<f64>, (), (), (), f64>;
type ArgminSolver = LBFGS<MoreThuenteLineSearch<Vec<f64>, Vec<f64>, f64>, Vec<f64>, Vec<f64>, f64>;

impl Function<'_> {
    fn descend(&self, settings: LbfgsSettings) -> Reason {
        let start = self.state.borrow().origin.clone();
        let Some(evaluation) = self.ask(&start) else { return Reason::Interrupted };
        if !evaluation.is_finite() {
            return Reason::Diverged;
        }
        let threshold = settings.gradient_tolerance * norm(&evaluation.gradient);
        let mut iterate = (start, evaluation);
        self.state.borrow_mut().minimum.history.push(iterate.1.cost);
        let mut solver = None;
        for iteration in 1..=settings.iterations {
            let size = norm(&iterate.1.gradient);
            if size <= threshold {
                return Reason::GradientTolerance;
            }
            // Without a history the direction is the gradient's: fresh after the start and after a failed search.
            let fresh = solver.is_none();
            let (mut argmin, state) =
                solver.take().unwrap_or_else(|| self.fresh_solver(settings, &iterate.0, &iterate.1));
            let previous = iterate.1.cost;
            match self.search(&mut argmin, state, &iterate) {
                Some((state, point, evaluation)) if evaluation.cost < previous => {
                    iterate = (point, evaluation);
                    solver = Some((argmin, state));
                }
                _ if self.state.borrow().interrupted => return Reason::Interrupted,
                _ => {
                    // Whatever the search did find is kept; the next direction starts from there.
                    let best = self.state.borrow().minimum.point.clone();
                    let better = self.state.borrow().minimum.cost < previous;
                    if !better && fresh {
                        return Reason::NoDecrease;
                    }
                    if better {
                        let Some(evaluation) = self.ask(&best) else { return Reason::Interrupted };
                        iterate = (best, evaluation);
                    }
                }
            }
            let mut seen = self.state.borrow_mut();
            seen.minimum.iterations = iteration;
            seen.minimum.history.push(iterate.1.cost);
            if solver.is_some() && previous - iterate.1.cost <= settings.cost_tolerance * previous.abs().max(1.0) {
                return Reason::CostTolerance;
            }
        }
        if norm(&iterate.1.gradient) <= threshold { Reason::GradientTolerance } else { Reason::IterationLimit }
    }

    /// A solver without history, whose first step tried has length `first_step`.
    fn fresh_solver(&self, settings: LbfgsSettings, point: &[f64], at: &Evaluation) -> (ArgminSolver, ArgminState) {
        let scale = settings.first_step / norm(&at.gradient);
        self.state.borrow_mut().scale = scale;
        // argmin's own stopping tests are absolute; they are switched off by not being asked.
        let solver = LBFGS::new(MoreThuenteLineSearch::new(), settings.history);
        let state = ArgminState::new()
            .param(point.to_vec())
            .cost(at.cost * scale)
            .gradient(at.gradient.iter().map(|g| g * scale).collect());
        (solver, state)
    }

    /// One direction and one line search. Nothing if it failed.
    fn search(
        &self,
        solver: &mut ArgminSolver,
        state: ArgminState,
        iterate: &(Vec<f64>, Evaluation),
    ) -> Option<(ArgminState, Vec<f64>, Evaluation)> {
        {
            let mut seen = self.state.borrow_mut();
            seen.origin.clone_from(&iterate.0);
            seen.origin_evaluation.clone_from(&iterate.1);
            seen.searched = 0;
        }
        let mut problem = Problem::new(self);
        let (mut state, _) = solver.next_iter(&mut problem, state).ok()?;
        if state.terminated() {
            return None;
        }
        state.increment_iter();
        let seen = self.state.borrow();
        // argmin hands back the last point that it evaluated.
        let accepted = state.get_param()? == &seen.point;
        accepted.then(|| (state, seen.point.clone(), seen.evaluation.clone()))
    }

    /// The function at a point, counted and compared with the best. Nothing if the run has been ended.
    fn ask(&self, point: &[f64]) -> Option<Evaluation> {
        let iteration = self.state.borrow().minimum.iterations;
        let answer = self.oracle.evaluate(point, iteration);
        let mut seen = self.state.borrow_mut();
        let Some(evaluation) = answer else {
            seen.interrupted = true;
            return None;
        };
        seen.minimum.evaluations += 1;
        if evaluation.is_finite() {
            seen.minimum.see(point, &evaluation);
        }
        Some(evaluation)
    }

    /// The function as the line search is to see it, from the cache if it is the last point again.
    fn look(&self, point: &[f64]) -> Callback<()> {
        {
            let mut seen = self.state.borrow_mut();
            if seen.point == point {
                return Ok(());
            }
            seen.searched += 1;
            if seen.searched > SEARCH_EVALUATIONS {
                return Err(ArgminError::msg("too many evaluations in one line search"));
            }
            if point.iter().any(|x| !x.is_finite()) {
                return Err(ArgminError::msg("the search direction is not finite"));
            }
        }
        let evaluation = self.ask(point).ok_or_else(|| ArgminError::msg("ended by the caller"))?;
        let mut seen = self.state.borrow_mut();
        seen.evaluation =
            if evaluation.is_finite() { evaluation } else { wall(&seen.origin, &seen.origin_evaluation, point) };
        seen.point = point.to_vec();
        Ok(())
    }
}

/// What stands in for a function that is not finite at `point`: the parabola through the search's origin, tangent
/// to the function there, with its minimum a tenth of the way to `point`. So the line search tries that next.
fn wall(origin: &[f64], at: &Evaluation, point: &[f64]) -> Evaluation {
    let step: Vec<f64> = point.iter().zip(origin).map(|(a, b)| a - b).collect();
    let slope: f64 = step.iter().zip(&at.gradient).map(|(d, g)| d * g).sum();
    // q(t) = f + s t - 5 s t^2 with s < 0 has its minimum at t = 0.1, q(1) = f - 4 s and q'(1) = -9 s.
    let steepness = slope.abs().max(f64::MIN_POSITIVE);
    let length2: f64 = step.iter().map(|d| d * d).sum::<f64>().max(f64::MIN_POSITIVE);
    Evaluation {
        cost: at.cost + 4.0 * steepness,
        gradient: step.iter().map(|d| 9.0 * steepness * d / length2).collect(),
    }
}

impl CostFunction for &Function<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, point: &Vec<f64>) -> Callback<f64> {
        self.look(point)?;
        let seen = self.state.borrow();
        Ok(seen.evaluation.cost * seen.scale)
    }
}

impl Gradient for &Function<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, point: &Vec<f64>) -> Callback<Vec<f64>> {
        self.look(point)?;
        let seen = self.state.borrow();
        Ok(seen.evaluation.gradient.iter().map(|g| g * seen.scale).collect())
    }
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
        let m = one(vec![-1.2, 1.0, 2.0, -1.0], LbfgsSettings::default(), rosenbrock);
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
