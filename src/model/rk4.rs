//! The classical Runge-Kutta scheme with a fixed step, its tangent and its exact adjoint (discretise, then
//! differentiate).

use super::{Dynamics, Number};

/// Scratch of the scheme for one state size and step.
pub struct Rk4<R: Number> {
    /// The stage states y2, y3, y4 of the last [`Self::stages`].
    stage: [Vec<R>; 3],
    /// Accumulators of a step, and the two running stage cotangents of an adjoint step.
    sum: Vec<R>,
    v: [Vec<R>; 2],
    half: R,
    full: R,
    sixth: R,
    third: R,
}

impl<R: Number> Rk4<R> {
    /// Scratch for `sites` sites and a step of `dt`.
    pub fn new(context: R::Context, sites: usize, dt: f64) -> Self {
        let zeros = || vec![R::splat(context, 0.0); sites];
        Self {
            stage: [zeros(), zeros(), zeros()],
            sum: zeros(),
            v: [zeros(), zeros()],
            half: R::splat(context, dt / 2.0),
            full: R::splat(context, dt),
            sixth: R::splat(context, dt / 6.0),
            third: R::splat(context, dt / 3.0),
        }
    }

    /// One step: `x: [sites]` is overwritten by the state dt later.
    #[inline(always)]
    pub fn step<M: Dynamics>(&mut self, parameters: &[R], x: &mut [R]) {
        let Self { stage: [y2, y3, y4], sum, half, full, sixth, third, .. } = self;
        M::tendency(parameters, x, |i, k| {
            y2[i] = half.mul_add(k, x[i]);
            sum[i] = sixth.mul_add(k, x[i]);
        });
        M::tendency(parameters, y2, |i, k| {
            y3[i] = half.mul_add(k, x[i]);
            sum[i] = third.mul_add(k, sum[i]);
        });
        M::tendency(parameters, y3, |i, k| {
            y4[i] = full.mul_add(k, x[i]);
            sum[i] = third.mul_add(k, sum[i]);
        });
        M::tendency(parameters, y4, |i, k| x[i] = sixth.mul_add(k, sum[i]));
    }

    /// The tangent step: advances `x` and the perturbation `dx` together. `x, dx: [sites]`.
    #[inline(always)]
    pub fn tangent_step<M: Dynamics>(&mut self, parameters: &[R], x: &mut [R], dx: &mut [R]) {
        self.stages::<M>(parameters, x);
        let Self { stage: [y2, y3, y4], sum, v: [v1, v2], half, full, sixth, third, .. } = self;
        M::tangent(parameters, x, dx, |i, k| {
            v1[i] = half.mul_add(k, dx[i]);
            sum[i] = sixth.mul_add(k, dx[i]);
        });
        M::tangent(parameters, y2, v1, |i, k| {
            v2[i] = half.mul_add(k, dx[i]);
            sum[i] = third.mul_add(k, sum[i]);
        });
        M::tangent(parameters, y3, v2, |i, k| {
            v1[i] = full.mul_add(k, dx[i]);
            sum[i] = third.mul_add(k, sum[i]);
        });
        M::tangent(parameters, y4, v1, |i, k| dx[i] = sixth.mul_add(k, sum[i]));
        self.step::<M>(parameters, x);
    }

    /// The adjoint step: `w: [sites]`, a cotangent of the step's result, becomes one of its start `x: [sites]`.
    ///
    /// The adjoint of RK4 is shaped like RK4: with J_s the Jacobian at stage s, v4 = J4' w, v3 = J3'(w + dt/2 v4),
    /// and so on in reverse, the weights dt/6, dt/3, dt/3, dt/6 staying in place.
    #[inline(always)]
    pub fn adjoint_step<M: Dynamics>(&mut self, parameters: &[R], x: &[R], w: &mut [R]) {
        self.stages::<M>(parameters, x);
        let Self { stage: [y2, y3, y4], sum, v: [v1, v2], half, full, sixth, third, .. } = self;
        M::adjoint(parameters, y4, w, |i, g| {
            v1[i] = half.mul_add(g, w[i]);
            sum[i] = sixth.mul_add(g, w[i]);
        });
        M::adjoint(parameters, y3, v1, |i, g| {
            v2[i] = half.mul_add(g, w[i]);
            sum[i] = third.mul_add(g, sum[i]);
        });
        M::adjoint(parameters, y2, v2, |i, g| {
            v1[i] = full.mul_add(g, w[i]);
            sum[i] = third.mul_add(g, sum[i]);
        });
        M::adjoint(parameters, x, v1, |i, g| w[i] = sixth.mul_add(g, sum[i]));
    }

    /// The stage states y2, y3, y4 of the step from `x`.
    #[inline(always)]
    fn stages<M: Dynamics>(&mut self, parameters: &[R], x: &[R]) {
        let Self { stage: [y2, y3, y4], half, full, .. } = self;
        M::tendency(parameters, x, |i, k| y2[i] = half.mul_add(k, x[i]));
        M::tendency(parameters, y2, |i, k| y3[i] = half.mul_add(k, x[i]));
        M::tendency(parameters, y3, |i, k| y4[i] = full.mul_add(k, x[i]));
    }
}
