//! The classical Runge-Kutta scheme with a fixed step, its tangent and its exact discrete adjoint.
//!
//! The increments k1 + 2 k2 + 2 k3 + k4 are summed before they meet the state, so that a step rounds the state once
//! and not four times: in f32 that halves the error of short steps, at no extra operation.

use super::{Dynamics, Number};

/// The scheme's constants and scratch for one state size and one step dt.
///
/// A step's three inner stage states y2, y3, y4 live in a slice `[3 * sites]` of the caller's, who may keep them for
/// the adjoint.
pub struct Rk4<R> {
    pub(super) sum: Vec<R>,
    pub(super) v: Vec<R>,
    pub(super) half: R,
    pub(super) full: R,
    pub(super) sixth: R,
    pub(super) two: R,
}

impl<R: Number> Rk4<R> {
    /// For `sites` sites and a step of `dt` model time units.
    pub fn new(context: R::Context, sites: usize, dt: f64) -> Self {
        let zero = R::splat(context, 0.0);
        Self {
            sum: vec![zero; sites],
            v: vec![zero; 2 * sites],
            half: R::splat(context, dt / 2.0),
            full: R::splat(context, dt),
            sixth: R::splat(context, dt / 6.0),
            two: R::splat(context, 2.0),
        }
    }

    /// One step from `x` to `next`, leaving the stage states in `stages` (if they are to be kept: else anything).
    /// `x, next: [sites]`, `stages: [3 * sites]`.
    #[inline(always)]
    pub fn step<M: Dynamics, const KEEP: bool>(&mut self, parameters: &[R], x: &[R], stages: &mut [R], next: &mut [R]) {
        M::step::<R, KEEP>(self, parameters, x, stages, next);
    }

    /// A step, one stage after the other.
    #[inline(always)]
    pub(super) fn staged_step<M: Dynamics>(&mut self, parameters: &[R], x: &[R], stages: &mut [R], next: &mut [R]) {
        let n = x.len();
        let (half, full, sixth, two) = (self.half, self.full, self.sixth, self.two);
        let sum = &mut self.sum[..n];
        let [y2, y3, y4] = split(stages, n);
        M::tendency(parameters, x, |i, k| {
            y2[i] = half.mul_add(k, x[i]);
            sum[i] = k;
        });
        M::tendency(parameters, y2, |i, k| {
            y3[i] = half.mul_add(k, x[i]);
            sum[i] = two.mul_add(k, sum[i]);
        });
        M::tendency(parameters, y3, |i, k| {
            y4[i] = full.mul_add(k, x[i]);
            sum[i] = two.mul_add(k, sum[i]);
        });
        let next = &mut next[..n];
        M::tendency(parameters, y4, |i, k| next[i] = sixth.mul_add(sum[i] + k, x[i]));
    }

    /// The tangent of a step: advances the perturbation `dx: [sites]`, given the step's start and stage states. `dp` is a
    /// perturbation of the parameters, or empty.
    #[inline(always)]
    pub fn tangent<M: Dynamics>(&mut self, parameters: &[R], dp: &[R], x: &[R], stages: &[R], dx: &mut [R]) {
        let n = x.len();
        let (half, full, sixth, two) = (self.half, self.full, self.sixth, self.two);
        let sum = &mut self.sum[..n];
        let (y2, y3, y4) = (&stages[..n], &stages[n..2 * n], &stages[2 * n..3 * n]);
        let (v1, v2) = self.v.split_at_mut(n);
        M::tangent(parameters, x, dx, |i, k| {
            v1[i] = half.mul_add(k, dx[i]);
            sum[i] = k;
        });
        if !dp.is_empty() {
            M::parameter_tangent(parameters, x, dp, |i, k| {
                v1[i] = half.mul_add(k, v1[i]);
                sum[i] = sum[i] + k;
            });
        }
        M::tangent(parameters, y2, v1, |i, k| {
            v2[i] = half.mul_add(k, dx[i]);
            sum[i] = two.mul_add(k, sum[i]);
        });
        if !dp.is_empty() {
            M::parameter_tangent(parameters, y2, dp, |i, k| {
                v2[i] = half.mul_add(k, v2[i]);
                sum[i] = two.mul_add(k, sum[i]);
            });
        }
        M::tangent(parameters, y3, v2, |i, k| {
            v1[i] = full.mul_add(k, dx[i]);
            sum[i] = two.mul_add(k, sum[i]);
        });
        if !dp.is_empty() {
            M::parameter_tangent(parameters, y3, dp, |i, k| {
                v1[i] = full.mul_add(k, v1[i]);
                sum[i] = two.mul_add(k, sum[i]);
            });
            M::parameter_tangent(parameters, y4, dp, |i, k| sum[i] = sum[i] + k);
        }
        M::tangent(parameters, y4, v1, |i, k| dx[i] = sixth.mul_add(sum[i] + k, dx[i]));
    }

    /// The adjoint of a step: `w: [sites]`, a cotangent of the step's result, becomes one of its start, given the
    /// step's start and stage states.
    ///
    /// The adjoint of RK4 is shaped like RK4 (derived): with J_s the Jacobian at stage s, g4 = J4' w,
    /// g3 = J3' (w + dt/2 g4), g2 = J2' (w + dt/2 g3), g1 = J1' (w + dt g2), and the result is
    /// w + dt/6 (g1 + 2 g2 + 2 g3 + g4).
    #[inline(always)]
    pub fn adjoint<M: Dynamics>(&mut self, parameters: &[R], x: &[R], stages: &[R], w: &mut [R]) {
        M::adjoint_step(self, parameters, x, stages, w);
    }

    /// The adjoint of a step, one stage after the other.
    #[inline(always)]
    pub(super) fn staged_adjoint<M: Dynamics>(&mut self, parameters: &[R], x: &[R], stages: &[R], w: &mut [R]) {
        self.adjoint_with_parameters::<M>(parameters, x, stages, w, &mut []);
    }

    /// The same, adding to `dp: [p]`, unless it is empty, what enters the cotangent of the parameters (derived):
    /// dt/6 (G4' w + 2 G3' v3 + 2 G2' v2 + G1' v1), where G_s is df/dparameters at stage s and v3, v2, v1 are the cotangents
    /// that J3', J2' and J1' are applied to in [`Self::adjoint`].
    #[inline(always)]
    pub fn adjoint_with_parameters<M: Dynamics>(
        &mut self,
        parameters: &[R],
        x: &[R],
        stages: &[R],
        w: &mut [R],
        dp: &mut [R],
    ) {
        let n = x.len();
        let (half, full, sixth, two) = (self.half, self.full, self.sixth, self.two);
        let sum = &mut self.sum[..n];
        let (y2, y3, y4) = (&stages[..n], &stages[n..2 * n], &stages[2 * n..3 * n]);
        let (v1, v2) = self.v.split_at_mut(n);
        let w = &mut w[..n];
        let mut add = |weight: R, x: &[R], v: &[R]| {
            if !dp.is_empty() {
                M::parameter_adjoint(parameters, x, v, |k, g| dp[k] = weight.mul_add(g, dp[k]));
            }
        };
        add(sixth, y4, w);
        M::adjoint(parameters, y4, w, |i, g| {
            v1[i] = half.mul_add(g, w[i]);
            sum[i] = g;
        });
        add(sixth * two, y3, v1);
        M::adjoint(parameters, y3, v1, |i, g| {
            v2[i] = half.mul_add(g, w[i]);
            sum[i] = two.mul_add(g, sum[i]);
        });
        add(sixth * two, y2, v2);
        M::adjoint(parameters, y2, v2, |i, g| {
            v1[i] = full.mul_add(g, w[i]);
            sum[i] = two.mul_add(g, sum[i]);
        });
        add(sixth, x, v1);
        M::adjoint(parameters, x, v1, |i, g| w[i] = sixth.mul_add(sum[i] + g, w[i]));
    }
}

/// The stage states y2, y3, y4.
#[inline(always)]
pub(super) fn split<R>(stages: &mut [R], n: usize) -> [&mut [R]; 3] {
    let (y2, rest) = stages.split_at_mut(n);
    let (y3, y4) = rest.split_at_mut(n);
    [y2, y3, &mut y4[..n]]
}
