//! Sums over the members of one block, in an order that no number of lanes, threads or chunks can change.

use super::lanes::Scalar;
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
    pub fn sum_into(&mut self, range: std::ops::Range<usize>, moments: &mut Moments) {
        let control = self.gradient.len() / BLOCK;
        let diverged = self.diverged[range.clone()].iter().filter(|d| **d).count();
        if diverged > 0 {
            self.clear_diverged(range.clone());
        }
        let [background, observation] = [0, 1].map(|k| &self.cost[k][range.clone()]);
        moments.count = range.len();
        moments.diverged = diverged;
        moments.cost_background = sum(background, |v| v);
        moments.cost_observation = sum(observation, |v| v);
        let valid = (range.len() - diverged) as f64;
        let mean = if valid > 0.0 { (moments.cost_background + moments.cost_observation) / valid } else { 0.0 };
        moments.cost_deviation = (range.clone())
            .filter(|k| !self.diverged[*k])
            .map(|k| (self.cost[0][k].to_f64() + self.cost[1][k].to_f64() - mean).powi(2))
            .sum();
        for i in 0..control {
            let row = i * BLOCK + range.start..i * BLOCK + range.end;
            let (g, e) = (&self.gradient[row.clone()], &self.epsilon[row]);
            moments.gradient[i] = sum(g, |v| v);
            moments.gradient_squared[i] = sum(g, |v| v * v);
            moments.epsilon[i] = sum(e, |v| v);
            moments.epsilon_squared[i] = sum(e, |v| v * v);
            moments.gradient_epsilon[i] = dot(g, e);
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
fn sum<T: Scalar>(values: &[T], f: impl Fn(f64) -> f64) -> f64 {
    let mut parts = [0.0; PARTS];
    let chunks = values.chunks_exact(PARTS);
    for (part, v) in parts.iter_mut().zip(chunks.remainder()) {
        *part += f(v.to_f64());
    }
    for chunk in chunks {
        for k in 0..PARTS {
            parts[k] += f(chunk[k].to_f64());
        }
    }
    fold(parts)
}

#[inline(always)]
fn dot<T: Scalar>(a: &[T], b: &[T]) -> f64 {
    let mut parts = [0.0; PARTS];
    let (a, b) = (a.chunks_exact(PARTS), b.chunks_exact(PARTS));
    for (part, (a, b)) in parts.iter_mut().zip(a.remainder().iter().zip(b.remainder())) {
        *part += a.to_f64() * b.to_f64();
    }
    for (a, b) in a.zip(b) {
        for k in 0..PARTS {
            parts[k] += a[k].to_f64() * b[k].to_f64();
        }
    }
    fold(parts)
}
