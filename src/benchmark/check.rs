//! Whether a row computes what the CPU engine computes in f64.

use super::Size;
use crate::engine::Precision;

/// Numbers of a result that are compared together.
#[derive(Clone, Debug)]
pub struct Figure {
    name: &'static str,
    values: Vec<f64>,
    /// What an error is measured by; the largest value where it is not given.
    scale: Option<f64>,
    /// Times the tolerance.
    slack: f64,
    /// Whether the root mean square of the difference counts, with the tolerance of [`ADAM`], or its largest value.
    mean: bool,
}

impl Figure {
    pub fn of(name: &'static str, values: impl Iterator<Item = f64>) -> Self {
        Self { name, values: values.collect(), scale: None, slack: 1.0, mean: false }
    }

    pub fn scaled(self, scale: f64) -> Self {
        Self { scale: Some(scale), ..self }
    }

    pub fn loosened(self, slack: f64) -> Self {
        Self { slack, ..self }
    }

    pub fn root_mean_square(self) -> Self {
        Self { mean: true, ..self }
    }
}

/// Adam's first step has the size of the learning rate and the sign of the gradient: a gradient near 0 may turn it round in
/// one parameter of a thousand, a wrong kernel does so in every other one.
const ADAM: f64 = 0.1;

/// The largest |difference| over the largest |value| that a right kernel may show.
///
/// Windows are at most 1.2 time units long. As in the tests, that is 1e-9 in f64 (up to 10,000 steps) and 5e-5 in f32, where
/// every step of a long window adds roundings that grow with the others. Normals agree to 4 units in the last place of f32 on
/// every engine, so drawn members agree no better in f64 than in f32. A wrong kernel is off by a tenth and more.
pub fn tolerance(size: &Size, precision: Precision, drawn: bool) -> f64 {
    match precision {
        Precision::F64 if !drawn => 1e-9,
        _ => 5e-5 + 1e-6 * size.steps() as f64,
    }
}

/// The first figure that is not what it should be, in words.
pub fn mismatch(got: &[Figure], want: &[Figure], tolerance: f64) -> Option<String> {
    if got.len() != want.len() {
        return Some(format!("{} figures, expected {}", got.len(), want.len()));
    }
    got.iter().zip(want).find_map(|(got, want)| differs(got, want, tolerance))
}

fn differs(got: &Figure, want: &Figure, tolerance: f64) -> Option<String> {
    let name = want.name;
    if got.values.len() != want.values.len() {
        return Some(format!("{name}: {} values, expected {}", got.values.len(), want.values.len()));
    }
    // Counted before any maximum is taken: a maximum skips NaN.
    let broken = got.values.iter().zip(&want.values).position(|(g, w)| !(g.is_finite() && w.is_finite()));
    if let Some(k) = broken {
        return Some(format!("{name} are not finite: value {k} is {:e}, expected {:e}", got.values[k], want.values[k]));
    }
    let largest = |values: &[f64]| values.iter().fold(0.0f64, |a, v| a.max(v.abs()));
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let (error, scale, bound) = if want.mean {
        let gap = square(&mut got.values.iter().zip(&want.values).map(|(g, w)| g - w));
        (gap.sqrt(), square(&mut want.values.iter().copied()).sqrt(), ADAM)
    } else {
        let gaps: Vec<_> = got.values.iter().zip(&want.values).map(|(g, w)| g - w).collect();
        (largest(&gaps), want.scale.unwrap_or_else(|| largest(&want.values)), tolerance * want.slack)
    };
    let error = error / if scale > 0.0 { scale } else { 1.0 };
    if error <= bound {
        return None;
    }
    let worst = (0..got.values.len())
        .max_by(|a, b| {
            let gap = |k: usize| (got.values[k] - want.values[k]).abs();
            gap(*a).total_cmp(&gap(*b))
        })
        .unwrap_or(0);
    Some(format!(
        "{name} off by {error:.1e} of {scale:.3e}, tolerance {bound:.1e}; value {worst} is {:.6e}, expected {:.6e}",
        got.values[worst], want.values[worst]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmark::task::Task;
    use crate::benchmark::{Job, Operation};
    use crate::engine::Engine;
    use crate::posterior::Family;
    use crate::problem::PointFunction;

    const SIZE: Size = Size {
        model: crate::model::Model::Lorenz96,
        operator: PointFunction::Square,
        sites: 8,
        times: 6,
        steps_per_time: 1,
    };

    fn jobs() -> Vec<Job> {
        let families = [Family::MeanField, Family::LowRank, Family::FullRank];
        Operation::ALL.into_iter().flat_map(|operation| Job::all(operation, &families)).collect()
    }

    #[test]
    fn the_cpu_engine_in_f32_passes_at_every_operation() {
        let problem = SIZE.problem().unwrap();
        let (f64, f32) = (Engine::cpu(Precision::F64).unwrap(), Engine::cpu(Precision::F32).unwrap());
        for job in jobs() {
            let figures = |engine| Task::new(engine, &problem, job, 33).unwrap().figures().unwrap();
            let found = mismatch(&figures(&f32), &figures(&f64), tolerance(&SIZE, Precision::F32, true));
            assert_eq!(found, None, "{job:?}");
            assert_eq!(mismatch(&figures(&f64), &figures(&f64), 1e-15), None);
        }
    }

    #[test]
    fn a_corrupted_result_is_refused_wherever_it_is() {
        let problem = SIZE.problem().unwrap();
        let engine = Engine::cpu(Precision::F64).unwrap();
        let bound = tolerance(&SIZE, Precision::F32, true);
        for job in jobs() {
            let want = Task::new(&engine, &problem, job, 33).unwrap().figures().unwrap();
            assert!(want.iter().all(|f| !f.values.is_empty()));
            for (k, name) in want.iter().map(|f| f.name).enumerate() {
                for wrong in [f64::NAN, f64::INFINITY, -1.0, 1.01] {
                    let mut got = want.clone();
                    let scale =
                        want[k].scale.unwrap_or(1.0).max(want[k].values.iter().fold(0.0, |a, v| v.abs().max(a)));
                    if want[k].mean {
                        // One in four parameters moves the wrong way.
                        got[k].values.iter_mut().step_by(4).for_each(|v| *v = -*v);
                    } else {
                        let last = got[k].values.last_mut().unwrap();
                        *last = if wrong.is_finite() { *last + 0.01 * wrong * scale.max(1.0) } else { wrong };
                    }
                    let found = mismatch(&got, &want, bound);
                    assert!(found.as_ref().is_some_and(|m| m.contains(name)), "{job:?} {name} {wrong}: {found:?}");
                }
            }
            assert!(mismatch(&want[1..], &want, bound).is_some());
        }
    }
}
