//! How the error of f32 gradients grows with the window: rounding, amplified by the model's chaos.

use super::Check;
use super::subject::{Subject, error, members, problem, true_gradients, twin};
use crate::engine::{Members, Precision, Terms};
use crate::error::Result;
use crate::problem::PointFunction;
use serde::Serialize;

/// The gradient's error for one window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Growth {
    /// The window's length in model time units.
    pub window: f64,
    /// The largest error of this engine's f32 gradients, over the largest gradient.
    pub engine: f64,
    /// The same for a plain evaluation of the equations in f32.
    pub plain: f64,
}

/// The row's name.
pub(super) const NAME: &str = "growth of the error";

/// Times of the windows, 0.05 model time units apart.
const TIMES: [usize; 9] = [1, 5, 9, 13, 17, 21, 25, 33, 41];

/// Measures the growth; the row is the worst ratio to a plain f32 evaluation.
pub(super) fn measure(subject: &Subject) -> (Vec<Growth>, Check) {
    let (growth, failure) = match TIMES.into_iter().map(|times| window(subject, times)).collect::<Result<Vec<_>>>() {
        Ok(growth) => (growth, None),
        Err(error) => (vec![], Some(error.to_string())),
    };
    let ratio = |g: &Growth| g.engine / g.plain.max(f64::from(f32::EPSILON));
    let figure = growth.iter().map(ratio).fold(if growth.is_empty() { f64::NAN } else { 0.0 }, super::subject::worse);
    let check = Check {
        name: NAME,
        precision: Precision::F32,
        figure,
        threshold: 32.0,
        meaning: "gradient's error over that of a plain f32 evaluation, 40 sites, up to 2 time units".into(),
        failure,
    };
    (growth, check)
}

fn window(subject: &Subject, times: usize) -> Result<Growth> {
    let problem = problem(&twin(40, times, 1, 0.05, PointFunction::Square))?;
    let members = members(&problem, 8);
    let got = subject.load(&problem)?.gradient(Members::Given(members.view()), Terms::ALL)?.gradient;
    let (want, _) = true_gradients::<f64>(&problem, &members);
    let (plain, _) = true_gradients::<f32>(&problem, &members);
    Ok(Growth { window: problem.window.time(times - 1), engine: error(&got, &want), plain: error(&plain, &want) })
}
