//! A group of rows, one per lane: whose they are, where their members come from and what becomes of them.

use super::data::{MOST_LANES, Source};
use super::lanes::{Lanes, Scalar};
use super::normals::{Addresses, normals};
use super::perturbed::PerturbedTerms;
use super::sums::Block;
use super::sweep::{AtTimes, CostTerms, Sweep, four_by_four};
use super::tile::Tile;
use crate::engine::operation::Operation;
use crate::engine::prepared::{ErrorRoot, Field, Prepared};
use crate::engine::schedule::Segments;
use crate::engine::selection::BlockSelection;
use crate::engine::{AffineMap, BLOCK, DIVERGED, Draw, Moments, Row, Scale, Terms};
use crate::model::with_model;
use ndarray::{Array, Axis, Dimension};
use pulp::NullaryFnOnce;
use std::ops::Range;

/// Bytes of states that one group of lanes may keep: twice a second-level cache of 1 MiB, because streaming
/// from the next level costs less than integrating twice.
const CACHE_BUDGET: usize = 2 << 20;

/// An operation with what it takes beside its members.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    pub operation: Operation,
    /// Directions `[members, control]` or a forcing `[members, times, sites]`.
    pub input: &'a [f64],
    /// The largest criterion that a selection may still keep: `[P]`.
    pub bounds: &'a [f64],
}

/// Whose the members of a batch are.
#[derive(Clone, Copy)]
pub enum Owners<'a, T> {
    /// Each problem has as many; the first row is so many behind the first of the batch.
    Even { first: usize, per_problem: usize },
    /// A list says so, and how far observations are perturbed.
    Listed { rows: &'a [Row], amplitude: T },
}

impl<T> Owners<'_, T> {
    /// The problem of each lane whose row is in `rows`, and the member's number in it.
    #[inline(always)]
    fn of(&self, rows: &[usize; MOST_LANES]) -> ([usize; MOST_LANES], [u32; MOST_LANES]) {
        let (mut problem, mut member) = ([0; MOST_LANES], [0; MOST_LANES]);
        match self {
            Self::Even { first, per_problem } => {
                // One division: rows increase by one at most.
                let (mut p, mut k) = ((first + rows[0]) / per_problem, (first + rows[0]) % per_problem);
                for l in 0..MOST_LANES {
                    if l > 0 {
                        k += rows[l] - rows[l - 1];
                        if k == *per_problem {
                            (p, k) = (p + 1, 0);
                        }
                    }
                    (problem[l], member[l]) = (p, k as u32);
                }
            }
            Self::Listed { rows: list, .. } => {
                for l in 0..MOST_LANES {
                    let row = list[rows[l]];
                    (problem[l], member[l]) = (row.problem as usize, row.member);
                }
            }
        }
        (problem, member)
    }
}

/// The members of a batch as the lanes read them.
#[derive(Clone, Copy)]
pub enum Rows<'a, T> {
    /// `[rows, control]`
    Given(&'a [f64]),
    Drawn(&'a Draw, &'a Map<T>),
}

/// An affine map in the number type T.
pub struct Map<T> {
    /// `[P, control]`
    mean: Field<T>,
    scale: Factors<T>,
}

/// [`Scale`] in the number type T.
enum Factors<T> {
    Diagonal(Field<T>),
    Lower(Field<T>),
    LowRank { diagonal: Field<T>, left: Field<T>, right: Field<T>, rank: usize },
}

impl<T: Scalar> Map<T> {
    pub fn new(map: &AffineMap) -> Self {
        fn field<T: Scalar, D: Dimension>(array: &Array<f64, D>) -> Field<T> {
            let rows = array.len_of(Axis(0));
            let values = array.iter().map(|v| T::from_f64(*v)).collect();
            Field { values, stride: if rows == 1 { 0 } else { array.len() / rows } }
        }
        let scale = match &map.scale {
            Scale::Diagonal(scale) => Factors::Diagonal(field(scale)),
            Scale::Lower(scale) => Factors::Lower(field(scale)),
            Scale::LowRank { diagonal, left, right } => Factors::LowRank {
                diagonal: field(diagonal),
                left: field(left),
                right: field(right),
                rank: left.len_of(Axis(2)),
            },
        };
        Self { mean: field(&map.mean), scale }
    }
}

/// A run of rows that one thread takes at a time, with the places of its results (empty where a job has none).
pub struct Item<'a> {
    pub rows: Range<usize>,
    pub costs: [&'a mut [f64]; 2],
    pub diverged: &'a mut [bool],
    /// Whatever the job returns per row.
    pub values: &'a mut [f64],
    /// One per problem in the rows.
    pub moments: &'a mut [Moments],
    /// Likewise.
    pub selections: &'a mut [BlockSelection],
}

impl Item<'_> {
    /// Rows that leave nothing yet.
    pub fn of(rows: Range<usize>) -> Self {
        let costs: [&mut [f64]; 2] = [&mut [], &mut []];
        Self { rows, costs, diverged: &mut [], values: &mut [], moments: &mut [], selections: &mut [] }
    }
}

/// The segments of a reverse sweep over `steps`. They depend on the state size alone, never on the lanes.
pub fn segments<T>(data: &Prepared<T>, steps: usize) -> Segments {
    let state = data.sites * MOST_LANES * size_of::<f32>();
    Segments::choose(steps, 4 * state, state, CACHE_BUDGET, usize::MAX)
}

/// A group of rows, one per lane.
pub struct Group<'a, V: Lanes> {
    data: &'a Prepared<V::Scalar>,
    context: V::Context,
    owners: Owners<'a, V::Scalar>,
    /// Lanes in use.
    pub lanes: usize,
    /// Row and problem of each lane.
    pub row: [usize; MOST_LANES],
    pub problem: [usize; MOST_LANES],
    /// The member's number in its problem.
    member: [u32; MOST_LANES],
}

impl<'a, V: Lanes> Group<'a, V> {
    /// The `lanes` rows from `first` on. Spare lanes repeat the last row; their results are dropped.
    #[inline(always)]
    pub fn new(
        data: &'a Prepared<V::Scalar>,
        context: V::Context,
        owners: Owners<'a, V::Scalar>,
        first: usize,
        lanes: usize,
    ) -> Self {
        let mut row = [0; MOST_LANES];
        for l in 0..MOST_LANES {
            row[l] = first + l.min(lanes - 1);
        }
        let (problem, member) = owners.of(&row);
        Self { data, context, owners, lanes, row, problem, member }
    }

    #[inline(always)]
    fn source(&self) -> Source<'_, V::Context> {
        Source::new::<V>(self.context, &self.problem)
    }

    /// Takes the parameters and the model's errors from the control, and puts x0 into `sweep.x`.
    #[inline(always)]
    fn begin(&self, sweep: &mut Sweep<V>) {
        let Sweep { control, parameters, errors, x, .. } = sweep;
        let layout = self.data.control;
        x.copy_from_slice(&control[..layout.sites]);
        for (k, parameter) in parameters.iter_mut().enumerate() {
            *parameter = if layout.parameters > 0 {
                control[layout.parameters().start + k]
            } else {
                self.source().read(&self.data.parameters, k)
            };
        }
        errors.copy_from_slice(&control[layout.sites..layout.parameters().start]);
        self.colour(errors, false);
    }

    /// Q^1/2 xi for each xi in `errors: [errors, sites]`, or (Q^1/2)' of each cotangent of an error.
    #[inline(always)]
    fn colour(&self, errors: &mut [V], transposed: bool) {
        let Some(of) = &self.data.errors else { return };
        let n = self.data.sites;
        match &of.root {
            ErrorRoot::Diagonal(std) => {
                for (i, v) in errors.iter_mut().enumerate() {
                    *v = *v * self.source().read::<V>(std, i % n);
                }
            }
            ErrorRoot::Lower(lower) => {
                for xi in errors.chunks_exact_mut(n) {
                    // In place: a row of L reads what lies before it, a row of L' what lies behind.
                    for k in 0..n {
                        let i = if transposed { k } else { n - 1 - k };
                        let mut sum = V::splat(self.context, 0.0);
                        for j in if transposed { i..n } else { 0..i + 1 } {
                            let at = if transposed { j * n + i } else { i * n + j };
                            sum = self.source().read::<V>(lower, at).mul_add(xi[j], sum);
                        }
                        xi[i] = sum;
                    }
                }
            }
        }
    }

    /// Makes of the cotangents of the model's errors those of what the control holds.
    #[inline(always)]
    fn end(&self, sweep: &mut Sweep<V>) {
        let layout = self.data.control;
        self.colour(&mut sweep.w[layout.sites..layout.parameters().start], true);
    }

    /// The amplitude of the perturbations, where there are any.
    #[inline(always)]
    fn amplitude(&self) -> Option<V::Scalar> {
        match self.owners {
            Owners::Listed { amplitude, .. } if amplitude.to_f64() != 0.0 => Some(amplitude),
            _ => None,
        }
    }

    #[inline(always)]
    fn addresses(&self) -> Addresses {
        let mut seed = [0; MOST_LANES];
        for l in 0..MOST_LANES {
            seed[l] = self.data.seeds[self.problem[l]];
        }
        Addresses { seed, member: self.member }
    }

    /// J_b and J_o at `sweep.control`; leaves the last state in `sweep.x`.
    #[inline(always)]
    fn cost(&self, wanted: Terms, sweep: &mut Sweep<V>) -> [V; 2] {
        let data = self.data;
        let mut terms = CostTerms::new(data, self.source(), self.context);
        let zero = V::splat(self.context, 0.0);
        let background =
            if wanted.background { terms.background(&sweep.control, &sweep.own_background, None) } else { zero };
        self.begin(sweep);
        if !wanted.observation {
            return [background, zero];
        }
        let (steps, last) = (0..data.assimilated_steps(), data.assimilated - 1);
        if let Some(amplitude) = self.amplitude() {
            let mut terms = PerturbedTerms::new(terms, self.addresses(), amplitude);
            with_model!(data.model, M => sweep.forward::<M>(steps, data.steps_per_time, &mut terms));
            terms.forward(last, &sweep.x);
            return [background, terms.observation()];
        }
        with_model!(data.model, M => sweep.forward::<M>(steps, data.steps_per_time, &mut terms));
        terms.forward(last, &sweep.x);
        [background, terms.observation()]
    }

    /// The same, leaving dJ/dcontrol in `sweep.w`.
    pub fn gradient(&self, wanted: Terms, sweep: &mut Sweep<V>) -> [V; 2] {
        V::apart(self.context, Gradient { group: self, wanted, sweep })
    }

    #[inline(always)]
    pub fn run(&self, job: Job, item: &mut Item, sweep: &mut Sweep<V>, block: &mut Block<V::Scalar>) {
        let data = self.data;
        let offset = self.row[0] - item.rows.start;
        let per_time = data.steps_per_time;
        let input = job.input;
        match job.operation {
            Operation::Forecast => {
                self.begin(sweep);
                let mut trajectory = Trajectory { group: self, offset, values: item.values };
                with_model!(data.model, M => sweep.forward::<M>(0..data.stored_steps(), per_time, &mut trajectory));
                trajectory.forward(data.times - 1, &sweep.x);
            }
            Operation::Tangent => {
                self.begin(sweep);
                self.load(input, V::Scalar::from_f64, &mut sweep.w);
                let layout = data.control;
                self.colour(&mut sweep.w[layout.sites..layout.parameters().start], false);
                let mut trajectory = Trajectory { group: self, offset, values: item.values };
                with_model!(data.model, M => sweep.tangent::<M>(data.stored_steps(), per_time, &mut trajectory));
            }
            Operation::Adjoint => {
                let segments = segments(data, data.stored_steps());
                self.begin(sweep);
                let mut given = GivenForcing { group: self, forcing: input };
                with_model!(data.model, M => sweep.reverse::<M>(&segments, per_time, &mut given));
                self.end(sweep);
                self.store(&sweep.w, V::Scalar::to_f64, item.values, |l| (offset + l) * data.control.len());
            }
            Operation::Cost(wanted) | Operation::Select(wanted, _) => {
                let costs = self.cost(wanted, sweep);
                let diverged = self.diverged([&costs, &sweep.x, &[]]);
                if let Operation::Cost(_) = job.operation {
                    self.store_costs(costs, &diverged, offset, item);
                } else {
                    self.leave_costs(costs, &diverged, offset, block);
                }
            }
            Operation::Gradient(wanted) | Operation::Moments(wanted) => {
                let costs = self.gradient(wanted, sweep);
                let diverged = self.diverged([&costs, &sweep.x, &sweep.w]);
                if let Operation::Gradient(_) = job.operation {
                    self.store_costs(costs, &diverged, offset, item);
                    self.store(&sweep.w, V::Scalar::to_f64, item.values, |l| (offset + l) * data.control.len());
                } else {
                    self.leave_costs(costs, &diverged, offset, block);
                    for (i, w) in sweep.w.iter().enumerate() {
                        w.store(&mut block.gradient[i * BLOCK + offset..]);
                    }
                }
            }
        }
    }

    /// The control of each lane, drawn or given. Draws of a moments job stay in the block.
    #[inline(always)]
    pub fn load_control(
        &self,
        rows: Rows<V::Scalar>,
        job: Job,
        sweep: &mut Sweep<V>,
        block: &mut Block<V::Scalar>,
        offset: usize,
    ) {
        let (draw, map) = match rows {
            Rows::Given(array) => return self.load(array, V::Scalar::from_f64, &mut sweep.control),
            Rows::Drawn(draw, map) => (draw, map),
        };
        let n = sweep.control.len();
        let lanes = self.addresses();
        let source = self.source();
        for quad in 0..n.div_ceil(4) {
            let z: [V; 4] = normals(self.context, &lanes, draw.stream, draw.iteration, quad as u32);
            for i in quad * 4..n.min(quad * 4 + 4) {
                let epsilon = z[i - quad * 4];
                if let Factors::Diagonal(scale) = &map.scale {
                    sweep.control[i] = source.read::<V>(scale, i).mul_add(epsilon, source.read(&map.mean, i));
                } else {
                    // The cotangent's place is free until the sweep.
                    sweep.w[i] = epsilon;
                }
                if let Operation::Moments(_) = job.operation {
                    epsilon.store(&mut block.epsilon[i * BLOCK + offset..]);
                }
            }
        }
        if !matches!(map.scale, Factors::Diagonal(_)) {
            V::apart(self.context, Multiply { group: self, map, sweep });
        }
    }

    /// M v of four lines of M, `first` and those after it (beyond the last one it repeats): lines begin `next` numbers apart,
    /// and a line's numbers lie `step` apart. Side by side, since one sum alone would wait for its own additions.
    #[inline(always)]
    fn multiply(
        &self,
        matrix: &Field<V::Scalar>,
        lines: usize,
        [next, step]: [usize; 2],
        first: usize,
        v: &[V],
    ) -> [V; 4] {
        let source = self.source();
        let start = [0, 1, 2, 3].map(|q| (first + q).min(lines - 1) * next);
        let mut sums = [V::splat(self.context, 0.0); 4];
        let numbers = if matrix.stride == 0 { matrix.values.len() } else { matrix.stride };
        if let Some(matrix) = source.shared(matrix, 0..numbers) {
            for (j, v) in v.iter().enumerate() {
                for q in 0..4 {
                    sums[q] = V::fill(self.context, matrix[start[q] + j * step]).mul_add(*v, sums[q]);
                }
            }
            return sums;
        }
        for (j, v) in v.iter().enumerate() {
            for q in 0..4 {
                sums[q] = source.read::<V>(matrix, start[q] + j * step).mul_add(*v, sums[q]);
            }
        }
        sums
    }

    #[inline(always)]
    pub fn gather(&self, value: impl Fn(usize) -> V::Scalar) -> V {
        let mut lanes = [V::Scalar::from_f32(0.0); MOST_LANES];
        for l in 0..V::LANES {
            lanes[l] = value(self.row[l]);
        }
        V::load(self.context, &lanes)
    }

    /// Each lane's row of `from: [rows, numbers]`.
    #[inline(always)]
    pub fn load<X: Copy>(&self, from: &[X], convert: impl Fn(X) -> V::Scalar, to: &mut [V]) {
        let n = to.len();
        let mut tile = Tile::<V::Scalar>::new();
        for (k, to) in to.chunks_mut(V::LANES).enumerate() {
            for (row, lane) in self.row.iter().zip(tile.rows(V::LANES)) {
                for (lane, v) in lane.iter_mut().zip(&from[row * n + k * V::LANES..][..to.len()]) {
                    *lane = convert(*v);
                }
            }
            tile.transpose(V::LANES);
            for (to, lanes) in to.iter_mut().zip(tile.rows(V::LANES)) {
                *to = V::load(self.context, lanes);
            }
        }
    }

    /// Writes each lane in use to as many numbers of `to` that begin at `start(lane)`.
    #[inline(always)]
    pub fn store<X>(&self, from: &[V], convert: impl Fn(V::Scalar) -> X, to: &mut [X], start: impl Fn(usize) -> usize) {
        let mut tile = Tile::<V::Scalar>::new();
        for (k, from) in from.chunks(V::LANES).enumerate() {
            for (v, lanes) in from.iter().zip(tile.rows(V::LANES)) {
                v.store(lanes);
            }
            tile.transpose(V::LANES);
            for (l, lane) in tile.rows(V::LANES).take(self.lanes).enumerate() {
                for (to, v) in to[start(l) + k * V::LANES..][..from.len()].iter_mut().zip(lane) {
                    *to = convert(*v);
                }
            }
        }
    }

    #[inline(always)]
    fn store_costs(&self, costs: [V; 2], diverged: &[bool; MOST_LANES], offset: usize, item: &mut Item) {
        let mut lanes = [V::Scalar::from_f32(0.0); MOST_LANES];
        for (to, cost) in item.costs.iter_mut().zip(costs) {
            cost.store(&mut lanes);
            for l in 0..self.lanes {
                to[offset + l] = lanes[l].to_f64();
            }
        }
        item.diverged[offset..][..self.lanes].copy_from_slice(&diverged[..self.lanes]);
    }

    /// Leaves costs in the block. Spare lanes land beyond the item's rows, which nothing reads.
    #[inline(always)]
    fn leave_costs(&self, costs: [V; 2], diverged: &[bool; MOST_LANES], offset: usize, block: &mut Block<V::Scalar>) {
        block.diverged[offset..][..self.lanes].copy_from_slice(&diverged[..self.lanes]);
        for k in 0..2 {
            costs[k].store(&mut block.cost[k][offset..]);
        }
    }

    /// Which lanes hold a number out of range anywhere.
    #[inline(always)]
    pub fn diverged(&self, arrays: [&[V]; 3]) -> [bool; MOST_LANES] {
        let limit = V::splat(self.context, DIVERGED);
        let mut worst = [V::splat(self.context, 0.0); 4];
        for array in arrays {
            four_by_four!(array.len(), |i, k| worst[k] = array[i].beyond(limit, worst[k]));
        }
        let mut lanes = [V::Scalar::from_f32(0.0); MOST_LANES];
        ((worst[0] + worst[1]) + (worst[2] + worst[3])).store(&mut lanes);
        let mut diverged = [false; MOST_LANES];
        for (diverged, lane) in diverged.iter_mut().zip(lanes).take(V::LANES) {
            *diverged = !lane.in_range();
        }
        diverged
    }
}

/// Makes `sweep.control` of the draws in `sweep.w` where S is no diagonal.
struct Multiply<'s, 'a, V: Lanes> {
    group: &'s Group<'a, V>,
    map: &'s Map<V::Scalar>,
    sweep: &'s mut Sweep<V>,
}

impl<V: Lanes> NullaryFnOnce for Multiply<'_, '_, V> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { group, map, sweep } = self;
        let (source, n) = (group.source(), sweep.w.len());
        let mean = |i: usize| source.read::<V>(&map.mean, i);
        match &map.scale {
            Factors::Diagonal(_) => {}
            Factors::Lower(lower) => {
                for first in (0..n).step_by(4) {
                    // The last of four rows is the longest; what the others have there is 0.
                    let sums = group.multiply(lower, n, [n, 1], first, &sweep.w[..(first + 4).min(n)]);
                    for (i, sum) in (first..n).zip(sums) {
                        sweep.control[i] = mean(i) + sum;
                    }
                }
            }
            Factors::LowRank { diagonal, left, right, rank } => {
                // Z' eps
                for first in (0..*rank).step_by(4) {
                    let sums = group.multiply(right, *rank, [1, *rank], first, &sweep.w);
                    for (k, sum) in (first..*rank).zip(sums) {
                        sweep.projections[k] = sum;
                    }
                }
                for first in (0..n).step_by(4) {
                    let sums = group.multiply(left, n, [*rank, 1], first, &sweep.projections[..*rank]);
                    for (i, sum) in (first..n).zip(sums) {
                        sweep.control[i] = source.read::<V>(diagonal, i).mul_add(sweep.w[i], mean(i)) + sum;
                    }
                }
            }
        }
    }
}

/// [`Group::gradient`].
struct Gradient<'s, 'a, V: Lanes> {
    group: &'s Group<'a, V>,
    wanted: Terms,
    sweep: &'s mut Sweep<V>,
}

impl<V: Lanes> NullaryFnOnce for Gradient<'_, '_, V> {
    type Output = [V; 2];

    #[inline(always)]
    fn call(self) -> [V; 2] {
        let Self { group, wanted, sweep, .. } = self;
        let data = group.data;
        let zero = V::splat(group.context, 0.0);
        let mut terms = CostTerms::new(data, group.source(), group.context);
        group.begin(sweep);
        let observation = if wanted.observation {
            let segments = segments(data, data.assimilated_steps());
            if let Some(amplitude) = group.amplitude() {
                let mut terms = PerturbedTerms::new(terms, group.addresses(), amplitude);
                with_model!(data.model, M => sweep.reverse::<M>(&segments, data.steps_per_time, &mut terms));
                terms.observation()
            } else {
                with_model!(data.model, M => sweep.reverse::<M>(&segments, data.steps_per_time, &mut terms));
                terms.observation()
            }
        } else {
            sweep.w.fill(zero);
            zero
        };
        group.end(sweep);
        let background = if wanted.background {
            terms.background(&sweep.control, &sweep.own_background, Some(&mut sweep.w))
        } else {
            zero
        };
        [background, observation]
    }
}

/// Writes each lane's slices of a trajectory.
struct Trajectory<'a, 'g, V: Lanes> {
    group: &'g Group<'g, V>,
    offset: usize,
    values: &'a mut [f64],
}

impl<V: Lanes> AtTimes<V> for Trajectory<'_, '_, V> {
    #[inline(always)]
    fn forward(&mut self, t: usize, x: &[V]) {
        let (times, n) = (self.group.data.times, x.len());
        self.group.store(x, V::Scalar::to_f64, self.values, |l| ((self.offset + l) * times + t) * n);
    }
}

/// Forces an adjoint by an array `[rows, times, sites]`.
struct GivenForcing<'g, V: Lanes> {
    group: &'g Group<'g, V>,
    forcing: &'g [f64],
}

impl<V: Lanes> AtTimes<V> for GivenForcing<'_, V> {
    #[inline(always)]
    fn backward(&mut self, t: usize, _: &[V], w: &mut [V]) {
        let data = self.group.data;
        for (i, w) in w.iter_mut().enumerate() {
            *w = *w
                + self.group.gather(|row| V::Scalar::from_f64(self.forcing[(row * data.times + t) * data.sites + i]));
        }
    }
}
