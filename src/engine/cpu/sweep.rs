//! The forward and the reverse sweep of one group of lanes, and the terms of the cost along them.

use super::data::Source;
use super::lanes::Lanes;
use crate::engine::prepared::Prepared;
use crate::engine::schedule::Segments;
use crate::model::{Dynamics, Rk4};
use crate::problem::PointFunction;
use pulp::NullaryFnOnce;
use std::marker::PhantomData;
use std::ops::Range;

/// What happens at the stored times of a sweep. (A trait and no closures: only a method can insist on being compiled
/// for the instruction set of its caller.)
pub trait AtTimes<V> {
    /// In a sweep that only goes forward, at each stored time in order. `x: [sites]` is the state, in a tangent sweep
    /// the perturbation.
    fn forward(&mut self, _t: usize, _x: &[V]) {}
    /// In a reverse sweep, at each stored time on the way back: adds what enters the cotangent `w: [sites]`.
    fn backward(&mut self, _t: usize, _x: &[V], _w: &mut [V]) {}
}

impl<V> AtTimes<V> for () {}

/// A step in a function of its own: small functions keep their vectors in registers, and every sweep shares them.
struct Step<'s, V: Lanes, M, const KEEP: bool> {
    rk4: &'s mut Rk4<V>,
    parameters: &'s [V],
    x: &'s [V],
    stages: &'s mut [V],
    next: &'s mut [V],
    model: PhantomData<M>,
}

impl<V: Lanes, M: Dynamics, const KEEP: bool> NullaryFnOnce for Step<'_, V, M, KEEP> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.rk4.step::<M, KEEP>(self.parameters, self.x, self.stages, self.next);
    }
}

/// An adjoint step, likewise.
struct AdjointStep<'s, V: Lanes, M> {
    rk4: &'s mut Rk4<V>,
    parameters: &'s [V],
    x: &'s [V],
    stages: &'s [V],
    w: &'s mut [V],
    /// The cotangent of the parameters, or none where they are known.
    dp: &'s mut [V],
    model: PhantomData<M>,
}

impl<V: Lanes, M: Dynamics> NullaryFnOnce for AdjointStep<'_, V, M> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { rk4, parameters, x, stages, w, dp, .. } = self;
        if dp.is_empty() {
            rk4.adjoint::<M>(parameters, x, stages, w);
        } else {
            rk4.adjoint_with_parameters::<M>(parameters, x, stages, w, dp);
        }
    }
}

/// The scratch of one thread: every state that one group of lanes needs.
pub struct Sweep<V: Lanes> {
    context: V::Context,
    rk4: Rk4<V>,
    sites: usize,
    /// Model parameters.
    pub parameters: Vec<V>,
    /// The control: x0 in its first `sites` numbers.
    pub control: Vec<V>,
    /// The errors eta that the model makes: `[errors, sites]`.
    pub errors: Vec<V>,
    /// RK4 steps between two errors.
    pub error_interval: usize,
    /// The state where a forward sweep stands: `[sites]`.
    pub x: Vec<V>,
    next: Vec<V>,
    /// The lanes' own prior means of the control `[control]`, or none.
    pub own_background: Vec<V>,
    /// The cotangent of a reverse sweep, or the perturbation of a tangent sweep: `[control]`. In a sweep its first `sites`
    /// numbers are of the state where the sweep stands, and those of an error are of eta.
    pub w: Vec<V>,
    /// The cotangent of the parameters, or none where they are known.
    parameter_cotangent: Vec<V>,
    /// Projections of a draw on the columns of a low rank: `[control]`.
    pub projections: Vec<V>,
    /// The stage states of a step that are not kept: `[3 * sites]`.
    stages: Vec<V>,
    /// Start and stage states of each step of a segment `[length, 4 * sites]`, then its end `[sites]`.
    states: Vec<V>,
    /// The state at the start of each segment.
    checkpoints: Vec<V>,
}

impl<V: Lanes> Sweep<V> {
    /// Scratch for the members of a problem set.
    pub fn new(context: V::Context, data: &Prepared<V::Scalar>) -> Self {
        let zeros = |n: usize| vec![V::splat(context, 0.0); n];
        let (sites, control) = (data.sites, data.control);
        Self {
            context,
            rk4: Rk4::new(context, sites, data.dt),
            sites,
            parameters: zeros(data.parameter_count),
            control: zeros(control.len()),
            errors: zeros(control.errors * sites),
            error_interval: data.errors.as_ref().map_or(1, |e| e.interval),
            x: zeros(sites),
            next: zeros(sites),
            own_background: Vec::new(),
            w: zeros(control.len()),
            parameter_cotangent: zeros(control.parameters),
            projections: zeros(control.len()),
            stages: zeros(3 * sites),
            states: Vec::new(),
            checkpoints: Vec::new(),
        }
    }

    /// Where the error that follows `step` begins in `errors`, if there is one.
    #[inline(always)]
    fn error_after(&self, step: usize) -> Option<usize> {
        if self.errors.is_empty() || !(step + 1).is_multiple_of(self.error_interval) {
            return None;
        }
        let at = ((step + 1) / self.error_interval - 1) * self.sites;
        (at < self.errors.len()).then_some(at)
    }

    /// Integrates `self.x` over `steps`, stopping at each stored time before its step.
    #[inline(always)]
    pub fn forward<M: Dynamics>(&mut self, steps: Range<usize>, steps_per_time: usize, stop: &mut impl AtTimes<V>) {
        for step in steps {
            if step.is_multiple_of(steps_per_time) {
                stop.forward(step / steps_per_time, &self.x);
            }
            let Self { rk4, parameters, x, stages, next, .. } = self;
            V::apart(self.context, Step::<V, M, false> { rk4, parameters, x, stages, next, model: PhantomData });
            std::mem::swap(&mut self.x, &mut self.next);
            if let Some(at) = self.error_after(step) {
                add(&mut self.x, &self.errors[at..]);
            }
        }
    }

    /// Integrates `self.x` and the perturbation `self.w` together, stopping at each stored time, the last included.
    #[inline(always)]
    pub fn tangent<M: Dynamics>(&mut self, steps: usize, steps_per_time: usize, stop: &mut impl AtTimes<V>) {
        let n = self.sites;
        let parameters_at = self.w.len() - self.parameter_cotangent.len();
        for step in 0..steps {
            if step.is_multiple_of(steps_per_time) {
                stop.forward(step / steps_per_time, &self.w[..n]);
            }
            let Self { rk4, parameters, x, stages, next, .. } = self;
            V::apart(self.context, Step::<V, M, true> { rk4, parameters, x, stages, next, model: PhantomData });
            let (w, dp) = self.w.split_at_mut(parameters_at);
            self.rk4.tangent::<M>(&self.parameters, dp, &self.x, &self.stages, &mut w[..n]);
            std::mem::swap(&mut self.x, &mut self.next);
            if let Some(at) = self.error_after(step) {
                add(&mut self.x, &self.errors[at..]);
                let (state, errors) = self.w.split_at_mut(n);
                add(state, &errors[at..]);
            }
        }
        stop.forward(steps / steps_per_time, &self.w[..n]);
    }

    /// Integrates from x0 and sweeps the adjoint back into `self.w`. Leaves the final state in `self.x`.
    #[inline(always)]
    pub fn reverse<M: Dynamics>(&mut self, segments: &Segments, steps_per_time: usize, stop: &mut impl AtTimes<V>) {
        let n = self.sites;
        let zero = V::splat(self.context, 0.0);
        let last = segments.count() - 1;
        self.states.resize(segments.length() * 4 * n + n, zero);
        self.checkpoints.resize((last + 1) * n, zero);
        self.x.copy_from_slice(&self.control[..n]);
        for k in 0..last {
            self.checkpoints[k * n..(k + 1) * n].copy_from_slice(&self.x);
            self.forward::<M>(segments.range(k), steps_per_time, &mut ());
        }
        self.checkpoints[last * n..].copy_from_slice(&self.x);
        self.parameter_cotangent.fill(zero);
        for k in (0..=last).rev() {
            let range = segments.range(k);
            self.states[..n].copy_from_slice(&self.checkpoints[k * n..(k + 1) * n]);
            for (i, step) in range.clone().enumerate() {
                let error = self.error_after(step);
                let (kept, next) = self.states[i * 4 * n..].split_at_mut(4 * n);
                let (x, stages) = kept.split_at_mut(n);
                let Self { rk4, parameters, .. } = self;
                V::apart(self.context, Step::<V, M, true> { rk4, parameters, x, stages, next, model: PhantomData });
                if let Some(at) = error {
                    add(&mut next[..n], &self.errors[at..]);
                }
            }
            if k == last {
                let end = &self.states[range.len() * 4 * n..][..n];
                self.x.copy_from_slice(end);
                self.w.fill(zero);
                stop.backward(range.end / steps_per_time, end, &mut self.w[..n]);
            }
            for (i, step) in range.enumerate().rev() {
                if let Some(at) = self.error_after(step) {
                    let (state, errors) = self.w.split_at_mut(n);
                    errors[at..at + n].copy_from_slice(state);
                }
                let (x, stages) = self.states[i * 4 * n..][..4 * n].split_at(n);
                let Self { rk4, parameters, w, parameter_cotangent: dp, .. } = self;
                let w = &mut w[..n];
                V::apart(self.context, AdjointStep { rk4, parameters, x, stages, w, dp, model: PhantomData::<M> });
                if step.is_multiple_of(steps_per_time) {
                    stop.backward(step / steps_per_time, x, &mut self.w[..n]);
                }
            }
        }
        let parameters_at = self.w.len() - self.parameter_cotangent.len();
        self.w[parameters_at..].copy_from_slice(&self.parameter_cotangent);
    }
}

/// Adds as many numbers as there are places.
#[inline(always)]
fn add<V: Lanes>(to: &mut [V], from: &[V]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *to + *from;
    }
}

/// Does the body for each i below n, with k = i modulo 4: four values k run side by side, in registers, because a constant
/// names each.
macro_rules! four_by_four {
    ($n:expr, |$i:ident, $k:ident| $body:expr) => {{
        let n = $n;
        for first in (0..n / 4 * 4).step_by(4) {
            for $k in 0..4 {
                let $i = first + $k;
                $body;
            }
        }
        for $k in 0..3 {
            let $i = n / 4 * 4 + $k;
            if $i < n {
                $body;
            }
        }
    }};
}
pub(super) use four_by_four;

/// A point-wise function h of the observation operator, on lanes.
pub trait Point {
    fn value<V: Lanes>(x: V) -> V;
    fn derivative<V: Lanes>(context: V::Context, x: V) -> V;
    /// y - h(x).
    #[inline(always)]
    fn innovation<V: Lanes>(y: V, x: V) -> V {
        y - Self::value(x)
    }
    /// w - h'(x) force.
    #[inline(always)]
    fn pull<V: Lanes>(context: V::Context, x: V, force: V, w: V) -> V {
        Self::derivative(context, x).neg_mul_add(force, w)
    }
}

pub struct Identity;
pub struct Square;
pub struct Cubic;
pub struct Softplus;

impl Point for Identity {
    #[inline(always)]
    fn value<V: Lanes>(x: V) -> V {
        x
    }
    #[inline(always)]
    fn derivative<V: Lanes>(context: V::Context, _: V) -> V {
        V::splat(context, 1.0)
    }
    #[inline(always)]
    fn pull<V: Lanes>(_: V::Context, _: V, force: V, w: V) -> V {
        w - force
    }
}

impl Point for Square {
    #[inline(always)]
    fn value<V: Lanes>(x: V) -> V {
        x * x
    }
    #[inline(always)]
    fn innovation<V: Lanes>(y: V, x: V) -> V {
        x.neg_mul_add(x, y)
    }
    #[inline(always)]
    fn derivative<V: Lanes>(_: V::Context, x: V) -> V {
        x + x
    }
}

impl Point for Cubic {
    #[inline(always)]
    fn value<V: Lanes>(x: V) -> V {
        x * x * x
    }
    #[inline(always)]
    fn innovation<V: Lanes>(y: V, x: V) -> V {
        (x * x).neg_mul_add(x, y)
    }
    #[inline(always)]
    fn derivative<V: Lanes>(context: V::Context, x: V) -> V {
        V::splat(context, 3.0) * (x * x)
    }
}

impl Point for Softplus {
    #[inline(always)]
    fn value<V: Lanes>(x: V) -> V {
        x.map(|x| PointFunction::Softplus.value(x))
    }
    #[inline(always)]
    fn derivative<V: Lanes>(_: V::Context, x: V) -> V {
        x.map(|x| PointFunction::Softplus.derivative(x))
    }
}

macro_rules! with_point {
    ($function:expr, $P:ident => $call:expr) => {
        match $function {
            crate::problem::PointFunction::Identity => {
                type $P = crate::engine::cpu::sweep::Identity;
                $call
            }
            crate::problem::PointFunction::Square => {
                type $P = crate::engine::cpu::sweep::Square;
                $call
            }
            crate::problem::PointFunction::Cubic => {
                type $P = crate::engine::cpu::sweep::Cubic;
                $call
            }
            crate::problem::PointFunction::Softplus => {
                type $P = crate::engine::cpu::sweep::Softplus;
                $call
            }
        }
    };
}
pub(super) use with_point;

/// The terms of the cost: the problem, and how the lanes see it.
#[derive(Clone, Copy)]
pub struct CostTerms<'a, V: Lanes> {
    pub data: &'a Prepared<V::Scalar>,
    pub source: Source<'a, V::Context>,
    pub context: V::Context,
    /// 1 / block size
    pub block_share: V,
    /// Running sums of 2 J_o; one alone would wait for its own additions.
    pub sums: [V; 4],
}

impl<V: Lanes> AtTimes<V> for CostTerms<'_, V> {
    /// Adds J_o of time `t`.
    #[inline(always)]
    fn forward(&mut self, t: usize, x: &[V]) {
        V::apart(self.context, Observe { terms: self, t, x, w: None });
    }

    /// Adds J_o of time `t` and dJ_o/dx_t: the innovations serve both.
    #[inline(always)]
    fn backward(&mut self, t: usize, x: &[V], w: &mut [V]) {
        V::apart(self.context, Observe { terms: self, t, x, w: Some(w) });
    }
}

/// One time of [`CostTerms`], forward or (with a cotangent) backward.
struct Observe<'s, 'a, V: Lanes> {
    terms: &'s mut CostTerms<'a, V>,
    t: usize,
    x: &'s [V],
    w: Option<&'s mut [V]>,
}

impl<V: Lanes> NullaryFnOnce for Observe<'_, '_, V> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { terms, t, x, w } = self;
        let plain = terms.plain(t);
        with_point!(terms.data.operator.function, P => match (w, plain) {
            (None, Some([y, precision])) => terms.add_plain::<P>(x, y, precision),
            (None, None) => terms.add::<P>(t, x),
            (Some(w), Some([y, precision])) => terms.pull_plain::<P>(x, y, precision, w),
            (Some(w), None) => terms.pull::<P>(t, x, w),
        });
    }
}

impl<'a, V: Lanes> CostTerms<'a, V> {
    /// Terms whose sums are zero.
    #[inline(always)]
    pub fn new(data: &'a Prepared<V::Scalar>, source: Source<'a, V::Context>, context: V::Context) -> Self {
        let block_share = V::splat(context, 1.0 / data.operator.block_size as f64);
        Self { data, source, context, block_share, sums: [V::splat(context, 0.0); 4] }
    }

    /// J_o of the times passed so far.
    #[inline(always)]
    pub fn observation(&self) -> V {
        half_sum(self.context, self.sums)
    }

    /// Observations and precisions of time `t`, `[sites]` each, where every site has its own and all lanes the same.
    #[inline(always)]
    fn plain(&self, t: usize) -> Option<[&'a [V::Scalar]; 2]> {
        let range = t * self.data.per_time..(t + 1) * self.data.per_time;
        let y = self.source.shared(&self.data.observation, range.clone())?;
        let precision = self.source.shared(&self.data.observation_precision, range)?;
        (self.data.operator.block_size == 1).then_some([y, precision])
    }

    /// Adds to 2 J_o one plain observation, and gives its innovation over its variance.
    #[inline(always)]
    fn add_one<P: Point>(&self, sum: &mut V, x: V, y: V::Scalar, precision: V::Scalar) -> V {
        weigh(sum, P::innovation(V::fill(self.context, y), x), V::fill(self.context, precision))
    }

    /// Adds J_o of plain observations, four sums side by side.
    #[inline(always)]
    fn add_plain<P: Point>(&mut self, x: &[V], y: &[V::Scalar], precision: &[V::Scalar]) {
        let mut sums = self.sums;
        let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<4>(), y.as_chunks::<4>());
        let (precision, precision_rest) = precision.as_chunks::<4>();
        for ((x, y), precision) in x.iter().zip(y).zip(precision) {
            for q in 0..4 {
                self.add_one::<P>(&mut sums[q], x[q], y[q], precision[q]);
            }
        }
        for (((sum, x), y), precision) in sums.iter_mut().zip(x_rest).zip(y_rest).zip(precision_rest) {
            self.add_one::<P>(sum, *x, *y, *precision);
        }
        self.sums = sums;
    }

    /// Adds J_o and dJ_o/dx of plain observations.
    #[inline(always)]
    fn pull_plain<P: Point>(&mut self, x: &[V], y: &[V::Scalar], precision: &[V::Scalar], w: &mut [V]) {
        let mut sums = self.sums;
        let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<4>(), y.as_chunks::<4>());
        let ((w, w_rest), (precision, precision_rest)) = (w.as_chunks_mut::<4>(), precision.as_chunks::<4>());
        for (((w, x), y), precision) in w.iter_mut().zip(x).zip(y).zip(precision) {
            for q in 0..4 {
                let force = self.add_one::<P>(&mut sums[q], x[q], y[q], precision[q]);
                w[q] = P::pull(self.context, x[q], force, w[q]);
            }
        }
        for ((((sum, w), x), y), precision) in sums.iter_mut().zip(w_rest).zip(x_rest).zip(y_rest).zip(precision_rest) {
            let force = self.add_one::<P>(sum, *x, *y, *precision);
            *w = P::pull(self.context, *x, force, *w);
        }
        self.sums = sums;
    }

    /// J_o of any observations.
    #[inline(always)]
    fn add<P: Point>(&mut self, t: usize, x: &[V]) {
        for j in 0..self.data.per_time {
            let (innovation, precision) = self.innovation::<P>(t, j, x);
            weigh(&mut self.sums[j % 4], innovation, precision);
        }
    }

    /// Adds J_o and dJ_o/dx of any observations.
    #[inline(always)]
    fn pull<P: Point>(&mut self, t: usize, x: &[V], w: &mut [V]) {
        let block = self.data.operator.block_size;
        for j in 0..self.data.per_time {
            let (innovation, precision) = self.innovation::<P>(t, j, x);
            let force = weigh(&mut self.sums[j % 4], innovation, precision) * self.block_share;
            for i in j * block..(j + 1) * block {
                w[i] = P::pull(self.context, x[i], force, w[i]);
            }
        }
    }

    /// y_j - H(x)_j, with its precision. Rounds as a plain observation does: a member's numbers do not depend on whose
    /// members share its lanes.
    #[inline(always)]
    pub fn innovation<P: Point>(&self, t: usize, j: usize, x: &[V]) -> (V, V) {
        let block = self.data.operator.block_size;
        let at = t * self.data.per_time + j;
        let y: V = self.source.read(&self.data.observation, at);
        let precision = self.source.read(&self.data.observation_precision, at);
        if block == 1 {
            return (P::innovation(y, x[j]), precision);
        }
        let mut total = P::value(x[j * block]);
        for x in &x[j * block + 1..(j + 1) * block] {
            total = total + P::value(*x);
        }
        (total.neg_mul_add(self.block_share, y), precision)
    }

    /// The prior mean of number `i` of the control: of `own` where the members have backgrounds of their own, else the
    /// problem's.
    #[inline(always)]
    fn mean(&self, own: &[V], i: usize) -> V {
        if own.is_empty() { self.source.read(&self.data.mean, i) } else { own[i] }
    }

    /// J_b at a control, adding the prior's inverse covariance times its departure to the cotangent `w` where there is one.
    #[inline(always)]
    pub fn background(&self, control: &[V], own: &[V], mut w: Option<&mut [V]>) -> V {
        let n = control.len();
        let mut sums = [V::splat(self.context, 0.0); 4];
        if let (None, true) = (&self.data.full_background, own.is_empty())
            && let (Some(mean), Some(precision)) =
                (self.source.shared(&self.data.mean, 0..n), self.source.shared(&self.data.precision, 0..n))
        {
            let (mean, precision) = (&mean[..n], &precision[..n]);
            match w {
                Some(w) => {
                    let w = &mut w[..n];
                    four_by_four!(n, |i, k| {
                        let d = control[i] - V::fill(self.context, mean[i]);
                        let gradient = V::fill(self.context, precision[i]) * d;
                        sums[k] = d.mul_add(gradient, sums[k]);
                        w[i] = w[i] + gradient;
                    });
                }
                None => four_by_four!(n, |i, k| {
                    let d = control[i] - V::fill(self.context, mean[i]);
                    sums[k] = d.mul_add(V::fill(self.context, precision[i]) * d, sums[k]);
                }),
            }
            return half_sum(self.context, sums);
        }
        let sites = self.data.sites;
        for i in 0..n {
            let d = control[i] - self.mean(own, i);
            let gradient = match &self.data.full_background {
                Some(full) if i < sites => {
                    let mut product = V::splat(self.context, 0.0);
                    for j in 0..sites {
                        let d = control[j] - self.mean(own, j);
                        product = self.source.read::<V>(&full.matrix, i * sites + j).mul_add(d, product);
                    }
                    product * self.source.read(&full.factor, 0)
                }
                _ => self.source.read::<V>(&self.data.precision, i) * d,
            };
            sums[i % 4] = d.mul_add(gradient, sums[i % 4]);
            if let Some(w) = w.as_deref_mut() {
                w[i] = w[i] + gradient;
            }
        }
        half_sum(self.context, sums)
    }
}

/// Adds the square of an innovation over its variance to a sum, and gives the innovation over its variance.
#[inline(always)]
pub(super) fn weigh<V: Lanes>(sum: &mut V, innovation: V, precision: V) -> V {
    let force = innovation * precision;
    *sum = innovation.mul_add(force, *sum);
    force
}

/// Half of four running sums.
#[inline(always)]
fn half_sum<V: Lanes>(context: V::Context, sums: [V; 4]) -> V {
    ((sums[0] + sums[1]) + (sums[2] + sums[3])) * V::splat(context, 0.5)
}
