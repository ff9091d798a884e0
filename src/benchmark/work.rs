//! The work of one member, counted from the equations: floating-point operations, vector instructions, bytes.
//!
//! Counted once is what any implementation has to do: nothing recomputed, and of two forms the cheaper one. Fused
//! multiply-adds are two operations and one instruction. Loads, stores, addresses and loops are not counted. Instructions are
//! split into those that multiply and the others, because some processors add beside multiplying.
//!
//! | part, for each | operations | instructions | how |
//! |---|---|---|---|
//! | RK4 step forward, site and step | 28 | 10 + 9 | 4 tendencies (x+ - x--) x- - x + F: 4 operations in 3; 3 stage states: 2 in 1; the sum of the stages: 6 in 4 |
//! | adjoint RK4 step, site and step | 40 | 18 + 5 | 4 adjoint tendencies: 7 operations in 4; 3 stage states: 2 in 1; sum: 6 in 4 |
//! | both of Lorenz-63 | 22.7, 28 | 11.3 + 5, 14 + 3.7 | tendencies of 8 operations in 7, adjoint ones of 12 in 8, shared by 3 sites |
//! | observation, site and time | 5 + 3, 4 + 1, 6 + 4, 40 + 12 | as many, about half of them products | cost + forcing of square, identity, cubic, softplus (our own exp and log) |
//! | background, site | 4 + 1 | 2 + 3 | cost + gradient |
//! | normal draw | 25 | 28 + 26 | a quarter of Philox4x32-10 (80 integer instructions for 4) and half of a Box-Muller pair (67 for 2, 50 of them floating-point) |
//! | c = m + S eps, site | 2 | 1 | |
//! | sums of the ELBO gradient, site | 8 | 3 + 2 | g, g^2, eps, eps^2, g eps |
//! | full rank, product of two sites i >= j | 2 + 4 | 1 + 2 | L eps; g eps' and eps eps' |
//! | low rank, site and column | 4 + 8 | 2 + 4 | W (Z' eps); W' g, and g (Z' eps)', eps (W' g)', eps (Z' eps)' |
//! | perturbed observation, site and time | 27 | 29 + 26 | a draw, scaled and added |
//! | Adam, site | 14 | 7 + 4 | a root and a division among them |
//!
//! Together 68 operations in 42 instructions for a step and site, 8 for a square, 5 for the background: a gradient at 16 sites and
//! 12 times is 13,600 operations in about 8,900 instructions. Kernels may do more: `shaders/README.md` counts them as they are.
//! Observation terms are counted unfused, because each also needs its value and its weight.
//!
//! Bytes on a CPU are what goes in and out of a call, in f64: states stay in the cache. On a GPU they are what passes device
//! memory, in the engine's type: what comes in and goes out of kernels, and for a sweep back the trajectory, written once and
//! read once. A kernel that keeps the trajectory on the chip may therefore exceed this memory limit.

use super::{Job, Operation, Size};
use crate::engine::{Ceilings, Precision};
use crate::method::ViSettings;
use crate::model::Model;
use crate::posterior::Family;
use crate::problem::PointFunction;

/// What one member of an operation costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Floating-point operations.
    pub flops: f64,
    /// Vector instructions that multiply, fused multiply-adds above all; in lanes.
    pub products: f64,
    /// The other vector instructions, in lanes.
    pub additions: f64,
    /// Bytes that pass memory.
    pub bytes: f64,
}

/// Operations, instructions that multiply, and the others, of a part.
type Cost = [f64; 3];

/// What a step adds to its four tendencies: the states of the stages, and their sum.
const STAGES: Cost = [12.0, 6.0, 1.0];
const BACKGROUND: Cost = [4.0, 2.0, 2.0];
const BACKGROUND_GRADIENT: Cost = [1.0, 0.0, 1.0];
const NORMAL: Cost = [25.0, 28.0, 26.0];
const AFFINE: Cost = [2.0, 1.0, 0.0];
const SUMS: Cost = [8.0, 3.0, 2.0];
const MULTIPLY_ADD: Cost = [2.0, 1.0, 0.0];
const PERTURBATION: Cost = [27.0, 29.0, 26.0];
const ADAM: Cost = [14.0, 7.0, 4.0];

/// An RK4 step forward, and its adjoint.
fn step(model: Model) -> [Cost; 2] {
    model.operations().map(|each| [0, 1, 2].map(|k| 4.0 * each[k] + STAGES[k]))
}

/// Cost and forcing of an observation.
fn observation(operator: PointFunction) -> (Cost, Cost) {
    match operator {
        PointFunction::Identity => ([4.0, 2.0, 2.0], [1.0, 0.0, 1.0]),
        PointFunction::Square => ([5.0, 3.0, 2.0], [3.0, 2.0, 1.0]),
        PointFunction::Cubic => ([6.0, 4.0, 2.0], [4.0, 3.0, 1.0]),
        PointFunction::Softplus => ([40.0, 20.0, 20.0], [12.0, 6.0, 6.0]),
    }
}

impl Work {
    /// The work of one member of a row.
    pub(super) fn of(job: Job, size: &Size, precision: Precision, gpu: bool) -> Self {
        let Job { operation, .. } = job;
        let n = size.sites as f64;
        let (steps, times) = (n * size.steps() as f64, n * size.times as f64);
        let (observed, forced) = observation(size.operator);
        let [forward, adjoint] = step(size.model);
        let mut work = Self { bytes: Self::bytes(job, size, precision, gpu), ..Self::default() };
        work.add(steps, forward);
        if operation == Operation::Forecast {
            return work;
        }
        work.add(times, observed);
        // Trials of the prior are judged by J_o alone.
        if operation != Operation::Abc {
            work.add(n, BACKGROUND);
        }
        if matches!(operation, Operation::Gradient | Operation::Elbo | Operation::Vi | Operation::Ensemble) {
            work.add(steps, adjoint);
            work.add(times, forced);
            work.add(n, BACKGROUND_GRADIENT);
        }
        if matches!(operation, Operation::Elbo | Operation::Vi | Operation::Abc) {
            work.add(n, NORMAL);
            work.add(n, AFFINE);
        }
        if matches!(operation, Operation::Elbo | Operation::Vi) {
            work.add(n, SUMS);
            let (products, sums) = pattern(job, size);
            work.add(products, MULTIPLY_ADD);
            work.add(sums, MULTIPLY_ADD);
        }
        if operation == Operation::Ensemble {
            work.add(times, PERTURBATION);
            work.add(n, ADAM);
        }
        work
    }

    fn add(&mut self, count: f64, [flops, products, additions]: Cost) {
        self.flops += count * flops;
        self.products += count * products;
        self.additions += count * additions;
    }

    /// Vector instructions, in lanes.
    pub fn instructions(&self) -> f64 {
        self.products + self.additions
    }

    /// The seconds that the instructions take at least: those that multiply at the rate of multiply-adds, all of them at that
    /// of the mix.
    pub(super) fn instruction_seconds(&self, ceilings: &Ceilings) -> f64 {
        (self.products / (ceilings.flops / 2.0)).max(self.instructions() / ceilings.instructions)
    }

    fn bytes(job: Job, size: &Size, precision: Precision, gpu: bool) -> f64 {
        let b = precision.bytes() as f64;
        let state = size.sites as f64 * if gpu { b } else { 8.0 };
        let costs = if gpu { 3.0 * b } else { 17.0 };
        let trajectory = state * size.times as f64;
        let kept = if gpu { 2.0 * state * (size.steps() + 1) as f64 } else { 0.0 };
        // Sums of a block of 256 members.
        let (_, on_pattern) = pattern(job, size);
        let sums = (5.0 * state + on_pattern * if gpu { b } else { 8.0 }) / 256.0;
        match job.operation {
            Operation::Forecast => state + trajectory,
            Operation::Cost => state + costs,
            Operation::Gradient => 2.0 * state + costs + kept,
            Operation::Elbo | Operation::Vi => sums + kept,
            Operation::Abc => costs,
            // Reads x, xb and the two running means, writes x and the means, in the engine's type everywhere.
            Operation::Ensemble => 7.0 * b * size.sites as f64 + kept,
        }
    }
}

/// Multiply-adds of drawing and projecting by the pattern of a family's scale, and the sums on it.
fn pattern(job: Job, size: &Size) -> (f64, f64) {
    let n = size.sites as f64;
    match job.family {
        Some(Family::FullRank) => (n * (n + 1.0) / 2.0, n * (n + 1.0)),
        Some(Family::LowRank) => {
            let rank = ViSettings::default().rank.min(size.sites) as f64;
            (3.0 * n * rank, 3.0 * n * rank)
        }
        Some(Family::MeanField) | None => (0.0, 0.0),
        // Not counted, or not timed.
        Some(Family::Mixture | Family::Planar | Family::RealNvp | Family::Spline) => (f64::NAN, f64::NAN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(operation: Operation) -> Job {
        Job { operation, family: None }
    }

    #[test]
    fn a_gradient_costs_what_the_reference_counts() {
        let size =
            Size { model: Model::Lorenz96, operator: PointFunction::Square, sites: 16, times: 12, steps_per_time: 1 };
        let work = Work::of(job(Operation::Gradient), &size, Precision::F32, true);
        assert!((work.flops / 13_600.0 - 1.0).abs() < 0.01, "{work:?}");
        assert!((work.instructions() / 8_900.0 - 1.0).abs() < 0.02, "{work:?}");
        // 8 n T bytes of trajectory, and the state in and out with its cost.
        assert_eq!(work.bytes, 8.0 * 16.0 * 12.0 + 2.0 * 64.0 + 12.0);
    }

    #[test]
    fn operations_contain_each_other() {
        let size =
            Size { model: Model::Lorenz96, operator: PointFunction::Identity, sites: 40, times: 40, steps_per_time: 2 };
        let flops = |operation| Work::of(job(operation), &size, Precision::F64, false).flops;
        use Operation::{Abc, Cost, Elbo, Ensemble, Forecast, Gradient, Vi};
        assert_eq!(flops(Forecast), 28.0 * 40.0 * 78.0);
        assert!(flops(Forecast) < flops(Abc) && flops(Cost) < flops(Gradient) && flops(Gradient) < flops(Elbo));
        assert!(flops(Elbo) == flops(Vi) && flops(Gradient) < flops(Ensemble));
        let beside = |family| {
            let of = Job { operation: Elbo, family: Some(family) };
            (Work::of(of, &size, Precision::F64, false).flops - flops(Elbo)) / 2.0
        };
        assert_eq!(beside(Family::MeanField), 0.0);
        assert_eq!(beside(Family::FullRank), 1.5 * 40.0 * 41.0);
        assert_eq!(beside(Family::LowRank), 6.0 * 40.0 * 8.0);
    }
}
