//! One strong-Wolfe line search as a state machine: bracketing, then zooming with safeguarded cubic interpolation
//! (Nocedal & Wright 2006, algorithms 3.5 and 3.6). It never calls the function; it says where to look next.

use serde::{Deserialize, Serialize};

/// Sufficient decrease (c1) and curvature (c2), as usual for quasi-Newton directions.
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;
/// Evaluations in one search before it counts as failed. MINPACK's default.
const MOST_EVALUATIONS: usize = 20;
/// An interpolated step keeps this share of the interval away from its ends.
const MARGIN: f64 = 0.05;
/// Without a bracket the step grows at least and at most by these factors of its last growth (Moré & Thuente 1994).
const GROWTH: [f64; 2] = [1.1, 4.0];

/// phi(t) and phi'(t) at a step t. A wall, where the function is not finite, has an infinite value.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Sample {
    pub step: f64,
    pub value: f64,
    pub slope: f64,
}

impl Sample {
    /// A step at which the function is not finite.
    pub fn wall(step: f64) -> Self {
        Self { step, value: f64::INFINITY, slope: f64::NAN }
    }
}

/// What to do after a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Next {
    /// Look at this step.
    Try(f64),
    /// Take the sample's step: it meets the strong Wolfe conditions.
    Accept,
    /// Give up; `low` is the best step of sufficient decrease.
    Fail,
}

/// A search for a step t > 0 along a direction of descent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct LineSearch {
    origin: Sample,
    /// The step of sufficient decrease with the lowest value so far; at first the origin.
    pub low: Sample,
    /// The other end of the interval that holds a good step, once there is one. It may lie below `low`.
    high: Option<Sample>,
    /// The last two widths of that interval.
    widths: [f64; 2],
    /// A decrease that is not worth a look.
    negligible: f64,
    evaluations: usize,
}

impl LineSearch {
    /// A search from phi(0) with slope phi'(0) < 0 that ends when there is less than `negligible` to gain.
    pub fn new(value: f64, slope: f64, negligible: f64) -> Self {
        let origin = Sample { step: 0.0, value, slope };
        Self { origin, low: origin, high: None, widths: [f64::INFINITY; 2], negligible, evaluations: 0 }
    }

    /// Takes in a sample and says what next. Where `low` becomes the sample, the caller will want to keep its gradient.
    pub fn advance(&mut self, at: Sample) -> Next {
        self.evaluations += 1;
        let enough = at.value <= self.origin.value + DECREASE * at.step * self.origin.slope;
        if !(enough && at.value < self.low.value) {
            self.high = Some(at);
        } else if at.slope.abs() <= -CURVATURE * self.origin.slope {
            self.low = at;
            return Next::Accept;
        } else {
            // The function still falls from `at` towards the minimum; if that is away from `high`, `low` bounds it.
            let before = self.low;
            let towards = self.high.map_or(1.0, |high| high.step - before.step);
            if at.slope * towards >= 0.0 {
                self.high = Some(before);
            }
            self.low = at;
            if self.high.is_none() {
                return self.next(grow(before, at));
            }
        }
        let high = self.high.expect("a bracket");
        let width = (high.step - self.low.step).abs();
        // Slope times width bounds what a convex function could still gain.
        if width * self.low.slope.abs() <= self.negligible {
            return Next::Fail;
        }
        let halve = width > 0.8 * self.widths[0];
        self.widths = [self.widths[1], width];
        self.next(if halve && high.value.is_finite() {
            0.5 * (self.low.step + high.step)
        } else {
            shrink(self.low, high)
        })
    }

    fn next(&self, step: f64) -> Next {
        let stale = step == self.low.step || self.high.is_some_and(|high| step == high.step);
        if self.evaluations >= MOST_EVALUATIONS || stale || !step.is_finite() {
            return Next::Fail;
        }
        Next::Try(step)
    }
}

/// A step between both ends of a bracket.
fn shrink(low: Sample, high: Sample) -> f64 {
    let width = high.step - low.step;
    if high.value.is_infinite() {
        // Nothing is known but that it is too far: a tenth, or half once something beyond the origin works.
        return low.step + if low.step == 0.0 { 0.1 } else { 0.5 } * width;
    }
    let share = cubic_minimum(low, high).map_or(0.5, |t| (t - low.step) / width);
    low.step + share.clamp(MARGIN, 1.0 - MARGIN) * width
}

/// A step beyond `at`, where the function still falls as steeply as before.
fn grow(before: Sample, at: Sample) -> f64 {
    let last = at.step - before.step;
    let [least, most] = GROWTH.map(|factor| at.step + factor * last);
    cubic_minimum(before, at).filter(|t| *t > at.step).map_or(most, |t| t.clamp(least, most))
}

/// Where the cubic through two samples has its minimum (Nocedal & Wright 2006, equation 3.59).
fn cubic_minimum(a: Sample, b: Sample) -> Option<f64> {
    let d1 = a.slope + b.slope - 3.0 * (a.value - b.value) / (a.step - b.step);
    let d2 = (d1 * d1 - a.slope * b.slope).sqrt() * (b.step - a.step).signum();
    let t = b.step - (b.step - a.step) * (b.slope + d2 - d1) / (b.slope - a.slope + 2.0 * d2);
    t.is_finite().then_some(t)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches along f with derivative g and returns the last sample, how it ended, and the evaluations.
    fn search(f: impl Fn(f64) -> f64, g: impl Fn(f64) -> f64, first: f64) -> (Sample, Next, usize) {
        let mut search = LineSearch::new(f(0.0), g(0.0), 0.0);
        let mut step = first;
        for count in 1.. {
            let value = f(step);
            let at = if value.is_finite() { Sample { step, value, slope: g(step) } } else { Sample::wall(step) };
            match search.advance(at) {
                Next::Try(t) => step = t,
                end => return (at, end, count),
            }
        }
        unreachable!()
    }

    #[test]
    fn line_search_takes_a_good_first_step_at_one_evaluation() {
        let (at, end, count) = search(|t| (t - 1.0).powi(2), |t| 2.0 * (t - 1.0), 1.0);
        assert_eq!((at.step, end, count), (1.0, Next::Accept, 1));
    }

    /// t^3 - 3 t has its minimum at 1.
    #[test]
    fn line_search_interpolates_a_cubic_exactly() {
        let low = Sample { step: 0.0, value: 0.0, slope: -3.0 };
        let high = Sample { step: 2.0, value: 2.0, slope: 9.0 };
        assert!((cubic_minimum(low, high).unwrap() - 1.0).abs() < 1e-14);
        assert!((cubic_minimum(high, low).unwrap() - 1.0).abs() < 1e-14);
    }

    /// The test functions of Moré & Thuente (1994), section 5 but the third, whose slope
    /// oscillates, from first steps of 1e-3 to 1e3: both Wolfe conditions hold where it says so.
    #[test]
    fn line_search_published_functions() {
        let b = 0.004f64;
        let gamma = |b: f64| (1.0 + b * b).sqrt() - b;
        let six = |b1: f64, b2: f64| {
            let value =
                move |t: f64| gamma(b1) * ((1.0 - t).powi(2) + b2 * b2).sqrt() + gamma(b2) * (t * t + b1 * b1).sqrt();
            let slope = move |t: f64| {
                -gamma(b1) * (1.0 - t) / ((1.0 - t).powi(2) + b2 * b2).sqrt() + gamma(b2) * t / (t * t + b1 * b1).sqrt()
            };
            (value, slope)
        };
        type Function = Box<dyn Fn(f64) -> f64>;
        let pair = |(f, g): (_, _)| -> (Function, Function) { (Box::new(f), Box::new(g)) };
        let four = six(0.001, 0.001);
        let five = six(0.01, 0.001);
        let last = six(0.001, 0.01);
        let functions: Vec<(Function, Function)> = vec![
            (Box::new(|t| -t / (t * t + 2.0)), Box::new(|t| (t * t - 2.0) / (t * t + 2.0).powi(2))),
            (
                Box::new(move |t| (t + b).powi(5) - 2.0 * (t + b).powi(4)),
                Box::new(move |t| 5.0 * (t + b).powi(4) - 8.0 * (t + b).powi(3)),
            ),
            pair((Box::new(four.0) as Function, Box::new(four.1) as Function)),
            pair((Box::new(five.0) as Function, Box::new(five.1) as Function)),
            pair((Box::new(last.0) as Function, Box::new(last.1) as Function)),
        ];
        for (k, (f, g)) in functions.iter().enumerate() {
            for first in [1e-3, 0.1, 1.0, 10.0, 1e3] {
                let (at, end, _) = search(f, g, first);
                assert_eq!(end, Next::Accept, "function {k} from {first}: {at:?}");
                assert!(at.value <= f(0.0) + DECREASE * at.step * g(0.0), "function {k} from {first}: {at:?}");
                assert!(at.slope.abs() <= CURVATURE * g(0.0).abs(), "function {k} from {first}: {at:?}");
            }
        }
    }

    #[test]
    fn line_search_backs_off_from_a_wall_and_grows_towards_it() {
        for wall in [1e-4, 0.3, 2.5, 40.0] {
            let f = |t: f64| if t >= wall { f64::INFINITY } else { -t - (wall - t).ln() * 0.1 * wall };
            let g = |t: f64| -1.0 + 0.1 * wall / (wall - t);
            let (at, end, count) = search(f, g, 1.0);
            assert_eq!(end, Next::Accept, "wall at {wall}: {at:?}");
            assert!(at.step < wall && count < 15, "wall at {wall}: {at:?} after {count}");
        }
    }

    #[test]
    fn line_search_gives_up() {
        // The slope has the wrong sign, so that the value never falls.
        let (_, end, count) = search(|t| t, |_| -1.0, 1.0);
        assert_eq!(end, Next::Fail);
        assert!(count <= MOST_EVALUATIONS);
        // Unbounded below: no step ever meets the curvature condition.
        assert_eq!(search(|t| -t, |_| -1.0, 1.0).1, Next::Fail);
        // Less to gain than is worth a look.
        let mut search = LineSearch::new(1.0, -1.0, 0.5);
        assert_eq!(search.advance(Sample { step: 0.4, value: 2.0, slope: 1.0 }), Next::Fail);
    }
}
