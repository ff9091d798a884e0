//! Resident members on the CPU: a group of lanes takes all its Adam steps before the next group begins.

use super::LoadedCpu;
use super::batch::{Batch, Workspace};
use super::data::MOST_LANES;
use super::group::{Group, Owners};
use super::lanes::{Isa, Kernel, Lanes, Scalar, dispatch};
use super::sweep::Sweep;
use crate::engine::operation::Operation;
use crate::engine::prepared::Prepared;
use crate::engine::resident::Numbers;
use crate::engine::{AdamStep, BLOCK, Costs, Inspection, Row, Terms};
use ndarray::{Array1, Array2, ArrayView2};
use std::any::Any;

/// Resident members, in the engine's number type.
#[derive(Debug)]
pub enum Resident {
    F32(Arrays<f32>),
    F64(Arrays<f64>),
}

/// The arrays of resident members, each `[rows, control]` but the last.
#[derive(Debug)]
pub struct Arrays<T> {
    states: Vec<T>,
    backgrounds: Vec<T>,
    /// Adam's running means of the gradient and of its square.
    mean: Vec<T>,
    square: Vec<T>,
    /// `[P, control]`
    units: Vec<T>,
}

impl LoadedCpu {
    pub fn settle(&self, numbers: [ArrayView2<f64>; 4], units: ArrayView2<f64>) -> Resident {
        match self {
            Self::F32(_) => Resident::F32(Arrays::new(numbers, units)),
            Self::F64(_) => Resident::F64(Arrays::new(numbers, units)),
        }
    }

    pub fn adam(&mut self, members: &mut Resident, rows: &[Row], amplitude: f64, steps: &[AdamStep], terms: Terms) {
        match (self, members) {
            (Self::F32(batch), Resident::F32(arrays)) => batch.adam(arrays, rows, amplitude, steps, terms),
            (Self::F64(batch), Resident::F64(arrays)) => batch.adam(arrays, rows, amplitude, steps, terms),
            _ => unreachable!("settled in this number type"),
        }
    }

    pub fn inspect(&mut self, members: &mut Resident, rows: &[Row], amplitude: f64, terms: Terms) -> Inspection {
        match (self, members) {
            (Self::F32(batch), Resident::F32(arrays)) => batch.inspect(arrays, rows, amplitude, terms),
            (Self::F64(batch), Resident::F64(arrays)) => batch.inspect(arrays, rows, amplitude, terms),
            _ => unreachable!("settled in this number type"),
        }
    }
}

impl Resident {
    pub fn numbers(&self, kind: Numbers, control: usize) -> Array2<f64> {
        let numbers: Vec<f64> = match self {
            Self::F32(arrays) => arrays.of(kind).iter().map(|v| v.to_f64()).collect(),
            Self::F64(arrays) => arrays.of(kind).to_vec(),
        };
        Array2::from_shape_vec((numbers.len() / control, control), numbers).expect("whole rows")
    }

    pub fn gather(&mut self, keep: &[usize], control: usize) {
        match self {
            Self::F32(arrays) => arrays.gather(keep, control),
            Self::F64(arrays) => arrays.gather(keep, control),
        }
    }
}

impl<T: Scalar> Arrays<T> {
    fn new(numbers: [ArrayView2<f64>; 4], units: ArrayView2<f64>) -> Self {
        let convert = |a: ArrayView2<f64>| a.iter().map(|v| T::from_f64(*v)).collect();
        let [states, backgrounds, mean, square] = numbers.map(convert);
        Self { states, backgrounds, mean, square, units: convert(units) }
    }

    fn of(&self, kind: Numbers) -> &[T] {
        match kind {
            Numbers::States => &self.states,
            Numbers::Means => &self.mean,
            Numbers::Squares => &self.square,
        }
    }

    fn gather(&mut self, keep: &[usize], control: usize) {
        for array in [&mut self.states, &mut self.backgrounds, &mut self.mean, &mut self.square] {
            *array = keep.iter().flat_map(|k| array[k * control..][..control].iter().copied()).collect();
        }
    }
}

impl<T: Scalar> Batch<T> {
    fn adam(&mut self, arrays: &mut Arrays<T>, rows: &[Row], amplitude: f64, steps: &[AdamStep], terms: Terms) {
        let steps: Vec<_> = steps.iter().map(|s| s.numbers().map(T::from_f64)).collect();
        let reports = rows.chunks(BLOCK).map(|_| None).collect();
        self.visit(arrays, rows, amplitude, terms, &steps, reports);
        self.count_steps(Operation::Gradient(terms), rows.len() * steps.len());
    }

    fn inspect(&mut self, arrays: &mut Arrays<T>, rows: &[Row], amplitude: f64, terms: Terms) -> Inspection {
        let mut costs = Costs::empty(rows.len());
        let mut gradient_norm = Array1::zeros(rows.len());
        let [background, observation, norm] = [&mut costs.background, &mut costs.observation, &mut gradient_norm]
            .map(|a| a.as_slice_mut().expect("standard layout").chunks_mut(BLOCK));
        let reports = background.zip(observation).zip(norm).zip(costs.diverged.chunks_mut(BLOCK));
        let reports = reports.map(|(((background, observation), norm), diverged)| {
            Some(Report { numbers: [background, observation, norm], diverged })
        });
        self.visit(arrays, rows, amplitude, terms, &[], reports.collect());
        self.count_steps(Operation::Gradient(terms), rows.len());
        Inspection { costs, gradient_norm }
    }

    fn visit(
        &self,
        arrays: &mut Arrays<T>,
        rows: &[Row],
        amplitude: f64,
        terms: Terms,
        steps: &[[T; 8]],
        reports: Vec<Option<Report>>,
    ) {
        let per_block = BLOCK * self.data.control.len();
        let amplitude = T::from_f64(amplitude);
        let Arrays { states, backgrounds, mean, square, units } = arrays;
        let (mut states, mut backgrounds) = (states.chunks_mut(per_block), backgrounds.chunks(per_block));
        let (mut mean, mut square) = (mean.chunks_mut(per_block), square.chunks_mut(per_block));
        let blocks = rows.chunks(BLOCK).zip(reports).map(|(rows, report)| {
            let block = "a block of each array";
            Block {
                owners: Owners::Listed { rows, amplitude },
                backgrounds: backgrounds.next().expect(block),
                states: states.next().expect(block),
                mean: mean.next().expect(block),
                square: square.next().expect(block),
                report,
            }
        });
        self.each(blocks.collect(), |workspace, block| {
            dispatch(Work { data: &self.data, terms, steps, units, block, workspace });
        });
    }
}

/// Where a block's inspection goes.
struct Report<'a> {
    /// J_b, J_o and the gradient's norm.
    numbers: [&'a mut [f64]; 3],
    diverged: &'a mut [bool],
}

/// A block of resident members; arrays are `[rows, control]`.
struct Block<'a, T> {
    owners: Owners<'a, T>,
    backgrounds: &'a [T],
    states: &'a mut [T],
    mean: &'a mut [T],
    square: &'a mut [T],
    report: Option<Report<'a>>,
}

/// A block on one thread: takes the steps, or reports.
struct Work<'a, 'b, 'w, T> {
    data: &'a Prepared<T>,
    terms: Terms,
    steps: &'a [[T; 8]],
    units: &'a [T],
    block: Block<'b, T>,
    workspace: &'w mut Option<Box<dyn Any + Send>>,
}

impl<T: Scalar> Kernel for Work<'_, '_, '_, T> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        self.run_lanes::<T::Lanes<S>>(simd);
    }
}

impl<T: Scalar> Work<'_, '_, '_, T> {
    #[inline(always)]
    fn run_lanes<V: Lanes<Scalar = T> + Send + 'static>(self, context: V::Context) {
        let Self { data, terms, steps, units, mut block, workspace } = self;
        let n = data.control.len();
        let count = block.states.len() / n;
        let sweep = &mut Workspace::<V>::of(workspace, data, context).sweep;
        let zero = V::splat(context, 0.0);
        sweep.own_background.resize(n, zero);
        let [mut unit, mut mean, mut square] = [(); 3].map(|()| vec![zero; n]);
        for first in (0..count).step_by(V::LANES) {
            let group = Group::<V>::new(data, context, block.owners, first, V::LANES.min(count - first));
            group.load(block.states, |v| v, &mut sweep.control);
            group.load(block.backgrounds, |v| v, &mut sweep.own_background);
            for (i, unit) in unit.iter_mut().enumerate() {
                *unit = V::load(context, &group.problem.map(|p| units[p * n + i]));
            }
            if let Some(report) = &mut block.report {
                let costs = group.gradient(terms, sweep);
                let diverged = group.diverged([&costs, &sweep.x, &sweep.w]);
                let mut norm = zero;
                for (unit, w) in unit.iter().zip(&sweep.w) {
                    norm = (*unit * *w).mul_add(*unit * *w, norm);
                }
                for (to, v) in report.numbers.iter_mut().zip([costs[0], costs[1], norm.sqrt()]) {
                    let mut lanes = [T::from_f32(0.0); MOST_LANES];
                    v.store(&mut lanes);
                    (0..group.lanes).for_each(|l| to[first + l] = lanes[l].to_f64());
                }
                report.diverged[first..][..group.lanes].copy_from_slice(&diverged[..group.lanes]);
                continue;
            }
            group.load(block.mean, |v| v, &mut mean);
            group.load(block.square, |v| v, &mut square);
            for step in steps {
                let costs = group.gradient(terms, sweep);
                let diverged = group.diverged([&costs, &sweep.x, &sweep.w]);
                let frozen = diverged.contains(&true).then_some(&diverged);
                update(context, step, &unit, sweep, [&mut mean, &mut square], frozen);
            }
            group.store(&sweep.control, |v| v, block.states, |l| group.row[l] * n);
            group.store(&mean, |v| v, block.mean, |l| group.row[l] * n);
            group.store(&square, |v| v, block.square, |l| group.row[l] * n);
        }
    }
}

/// One Adam step of a group of lanes, against the gradient in `sweep.w`. Lanes that diverged stay where they are.
#[inline(always)]
fn update<V: Lanes>(
    context: V::Context,
    step: &[V::Scalar; 8],
    unit: &[V],
    sweep: &mut Sweep<V>,
    [mean, square]: [&mut [V]; 2],
    frozen: Option<&[bool; MOST_LANES]>,
) {
    let [rate, beta1, rest1, beta2, rest2, mean_scale, square_scale, epsilon] = step.map(|v| V::fill(context, v));
    for i in 0..unit.len() {
        let g = sweep.w[i] * unit[i];
        let m = beta1 * mean[i] + rest1 * g;
        let v = beta2 * square[i] + rest2 * g * g;
        let x = sweep.control[i] - (rate * unit[i] * (m * mean_scale)).divide((v * square_scale).sqrt() + epsilon);
        for (to, new) in [(&mut mean[i], m), (&mut square[i], v), (&mut sweep.control[i], x)] {
            *to = match frozen {
                None => new,
                Some(frozen) => keep(context, *to, new, frozen),
            };
        }
    }
}

/// The old value on the lanes that are frozen, the new one on the others.
#[inline(always)]
fn keep<V: Lanes>(context: V::Context, old: V, new: V, frozen: &[bool; MOST_LANES]) -> V {
    let [mut from, mut to] = [[V::Scalar::from_f32(0.0); MOST_LANES]; 2];
    old.store(&mut from);
    new.store(&mut to);
    for l in (0..V::LANES).filter(|l| frozen[*l]) {
        to[l] = from[l];
    }
    V::load(context, &to)
}
