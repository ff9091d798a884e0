//! Sums over the members of one block, in an order that no number of lanes, threads or chunks can change.

use super::lanes::{Lanes, Scalar};
use crate::engine::{BLOCK, Moments};

/// What one block of members leaves for its moments. Site-major, member fastest.
#[derive(Debug)]
pub struct Block<T> {
    /// J_b and J_o: `[BLOCK]`.
    pub cost: [Vec<T>; 2],
    /// Whether the member diverged: `[BLOCK]`.
    pub diverged: Vec<bool>,
    /// dJ/dcontrol: `[control, BLOCK]`.
    pub gradient: Vec<T>,
    /// The draws: `[control, BLOCK]`.
    pub epsilon: Vec<T>,
}

impl<T: Scalar> Block<T> {
    pub fn new(control: usize) -> Self {
        let zeros = |n: usize| vec![T::from_f32(0.0); n];
        Self {
            cost: [zeros(BLOCK), zeros(BLOCK)],
            diverged: vec![false; BLOCK],
            gradient: zeros(control * BLOCK),
            epsilon: zeros(control * BLOCK),
        }
    }

    /// Sums over the members `range` of the block; `moments` arrays are `[control]`.
    #[inline(always)]
    pub fn sum_into<W: Lanes<Scalar = f64>>(
        &mut self,
        context: W::Context,
        range: std::ops::Range<usize>,
        moments: &mut Moments,
    ) {
        let control = self.gradient.len() / BLOCK;
        let diverged = self.diverged[range.clone()].iter().filter(|d| **d).count();
        if diverged > 0 {
            self.clear_diverged(range.clone());
        }
        let [background, observation] = [0, 1].map(|k| &self.cost[k][range.clone()]);
        moments.count = range.len();
        moments.diverged = diverged;
        moments.cost_background = sum(background);
        moments.cost_observation = sum(observation);
        let valid = (range.len() - diverged) as f64;
        let mean = if valid > 0.0 { (moments.cost_background + moments.cost_observation) / valid } else { 0.0 };
        moments.cost_deviation = (range.clone())
            .filter(|k| !self.diverged[*k])
            .map(|k| (self.cost[0][k].to_f64() + self.cost[1][k].to_f64() - mean).powi(2))
            .sum();
        for i in 0..control {
            let row = i * BLOCK + range.start..i * BLOCK + range.end;
            let sums = products::<T, W>(context, &self.gradient[row.clone()], &self.epsilon[row]);
            [
                moments.gradient[i],
                moments.gradient_squared[i],
                moments.epsilon[i],
                moments.epsilon_squared[i],
                moments.gradient_epsilon[i],
            ] = sums;
        }
    }

    fn clear_diverged(&mut self, range: std::ops::Range<usize>) {
        let zero = T::from_f32(0.0);
        for k in range.filter(|k| self.diverged[*k]) {
            self.cost[0][k] = zero;
            self.cost[1][k] = zero;
            self.gradient.iter_mut().skip(k).step_by(BLOCK).for_each(|g| *g = zero);
            self.epsilon.iter_mut().skip(k).step_by(BLOCK).for_each(|e| *e = zero);
        }
    }
}

/// Partial sums that run side by side.
const PARTS: usize = 16;

#[inline(always)]
fn fold(parts: [f64; PARTS]) -> f64 {
    let mut parts = parts;
    let mut half = PARTS / 2;
    while half > 0 {
        for k in 0..half {
            parts[k] += parts[k + half];
        }
        half /= 2;
    }
    parts[0]
}

#[inline(always)]
fn sum<T: Scalar>(values: &[T]) -> f64 {
    let mut parts = [0.0; PARTS];
    let (chunks, rest) = values.as_chunks::<PARTS>();
    for (part, v) in parts.iter_mut().zip(rest) {
        *part += v.to_f64();
    }
    for chunk in chunks {
        for k in 0..PARTS {
            parts[k] += chunk[k].to_f64();
        }
    }
    fold(parts)
}

/// Sums of g, g^2, e, e^2 and g e: a vector's width of parts at a time, so that the running sums stay in registers.
#[inline(always)]
fn products<T: Scalar, W: Lanes<Scalar = f64>>(context: W::Context, g: &[T], e: &[T]) -> [f64; 5] {
    let mut parts = [[0.0; PARTS]; 5];
    let ((g, g_rest), (e, e_rest)) = (g.as_chunks::<PARTS>(), e.as_chunks::<PARTS>());
    for (k, (g, e)) in g_rest.iter().zip(e_rest).enumerate() {
        let (g, e) = (g.to_f64(), e.to_f64());
        for (part, product) in parts.iter_mut().zip([g, g * g, e, e * e, g * e]) {
            part[k] += product;
        }
    }
    for first in (0..PARTS).step_by(W::LANES) {
        let [a, b, c, d, f] = &mut parts;
        let load = |part: &[f64; PARTS]| W::load(context, &part[first..]);
        let (mut sa, mut sb, mut sc, mut sd, mut sf) = (load(a), load(b), load(c), load(d), load(f));
        for (g, e) in g.iter().zip(e) {
            let (g, e) = (widen::<T, W>(context, &g[first..]), widen::<T, W>(context, &e[first..]));
            sa = sa + g;
            sb = g.mul_add(g, sb);
            sc = sc + e;
            sd = e.mul_add(e, sd);
            sf = g.mul_add(e, sf);
        }
        for (part, sum) in [a, b, c, d, f].into_iter().zip([sa, sb, sc, sd, sf]) {
            sum.store(&mut part[first..]);
        }
    }
    let [a, b, c, d, e] = parts;
    [fold(a), fold(b), fold(c), fold(d), fold(e)]
}

/// The first values of a slice, widened.
#[inline(always)]
fn widen<T: Scalar, W: Lanes<Scalar = f64>>(context: W::Context, values: &[T]) -> W {
    let mut wide = [0.0; PARTS];
    for (to, v) in wide.iter_mut().zip(&values[..W::LANES]) {
        *to = v.to_f64();
    }
    W::load(context, &wide)
}
