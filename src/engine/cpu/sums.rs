//! Sums over the members of one block, in an order that no number of lanes, threads or chunks can change.

use super::lanes::{Lanes, Scalar};
use crate::engine::{BLOCK, Moments, PatternSums, Scale};
use ndarray::{Array2, ArrayView2, Axis};
use pulp::NullaryFnOnce;
use std::ops::Range;

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
    /// Gradients and draws, then their projections on the factors of a low rank, of the members that are summed: rows of
    /// whole [`ROW`]s.
    wide: Vec<f64>,
}

impl<T: Scalar> Block<T> {
    pub fn new(control: usize) -> Self {
        let zeros = |n: usize| vec![T::from_f32(0.0); n];
        Self {
            cost: [zeros(BLOCK), zeros(BLOCK)],
            diverged: vec![false; BLOCK],
            gradient: zeros(control * BLOCK),
            epsilon: zeros(control * BLOCK),
            wide: Vec::new(),
        }
    }

    /// Sums over the members `range` of the block, which are drawn from problem `p` of a map of this scale; `moments` has
    /// arrays for it.
    #[inline(always)]
    pub fn sum_into<W: Lanes<Scalar = f64>>(
        &mut self,
        context: W::Context,
        range: Range<usize>,
        (scale, p): (&Scale, usize),
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
        if !matches!(scale, Scale::Diagonal(_)) {
            let pattern = &mut moments.pattern;
            W::apart(context, Pattern::<T, W> { block: self, context, range, scale, p, pattern });
        }
    }

    fn clear_diverged(&mut self, range: Range<usize>) {
        let zero = T::from_f32(0.0);
        for k in range.filter(|k| self.diverged[*k]) {
            self.cost[0][k] = zero;
            self.cost[1][k] = zero;
            self.gradient.iter_mut().skip(k).step_by(BLOCK).for_each(|g| *g = zero);
            self.epsilon.iter_mut().skip(k).step_by(BLOCK).for_each(|e| *e = zero);
        }
    }
}

/// The sums on the pattern of S.
struct Pattern<'s, T, W: Lanes> {
    block: &'s mut Block<T>,
    context: W::Context,
    range: Range<usize>,
    scale: &'s Scale,
    p: usize,
    pattern: &'s mut PatternSums,
}

impl<T: Scalar, W: Lanes<Scalar = f64>> NullaryFnOnce for Pattern<'_, T, W> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { block, context, range, scale, p, pattern } = self;
        let control = block.gradient.len() / BLOCK;
        let rank = if let Scale::LowRank { left, .. } = scale { left.len_of(Axis(2)) } else { 0 };
        let row = range.len().next_multiple_of(ROW);
        block.wide.resize((2 * control + 2 * rank) * row, 0.0);
        let (values, projected) = block.wide.split_at_mut(2 * control * row);
        let narrow = block.gradient.chunks_exact(BLOCK).chain(block.epsilon.chunks_exact(BLOCK));
        for (wide, narrow) in values.chunks_exact_mut(row).zip(narrow) {
            let (members, spare) = wide.split_at_mut(range.len());
            members.iter_mut().zip(&narrow[range.clone()]).for_each(|(wide, v)| *wide = v.to_f64());
            spare.fill(0.0);
        }
        let (g, e) = values.split_at(control * row);
        match (scale, pattern) {
            (Scale::Lower(_), PatternSums::Lower { gradient_epsilon, epsilon_epsilon }) => {
                outer::<W, true>(context, g, e, row, gradient_epsilon);
                outer::<W, true>(context, e, e, row, epsilon_epsilon);
            }
            (
                Scale::LowRank { left, right, .. },
                PatternSums::LowRank { gradient_right, epsilon_left, epsilon_right },
            ) => {
                let (on_left, on_right) = projected.split_at_mut(rank * row);
                project::<W>(context, left.index_axis(Axis(0), p), g, row, on_left);
                project::<W>(context, right.index_axis(Axis(0), p), e, row, on_right);
                outer::<W, false>(context, g, on_right, row, gradient_right);
                outer::<W, false>(context, e, on_left, row, epsilon_left);
                outer::<W, false>(context, e, on_right, row, epsilon_right);
            }
            _ => unreachable!("moments are made for the scale of their draws"),
        }
    }
}

/// Members to whose multiple rows are padded with zeros.
const ROW: usize = 16;

/// Partial sums of a product that run side by side: a vector, or several, whatever the instruction set.
const SUMS: usize = 8;

/// F'v for F `[control, rank]` and v `[control, row]`: `[rank, row]`, four numbers and two vectors of members at a time.
#[inline(always)]
fn project<W: Lanes<Scalar = f64>>(context: W::Context, f: ArrayView2<f64>, v: &[f64], row: usize, out: &mut [f64]) {
    let rank = f.ncols();
    let f = f.as_standard_layout();
    let f = f.as_slice().expect("standard layout");
    for k in (0..rank).step_by(4) {
        for first in (0..row).step_by(2 * W::LANES) {
            let mut sums = [[W::splat(context, 0.0); 2]; 4];
            for (v, f) in v.chunks_exact(row).zip(f.chunks_exact(rank)) {
                let v = [W::load(context, &v[first..]), W::load(context, &v[first + W::LANES..])];
                for q in 0..4 {
                    let f = W::fill(context, f[(k + q).min(rank - 1)]);
                    sums[q][0] = f.mul_add(v[0], sums[q][0]);
                    sums[q][1] = f.mul_add(v[1], sums[q][1]);
                }
            }
            for (out, sums) in out[k * row..].chunks_exact_mut(row).zip(sums) {
                sums[0].store(&mut out[first..]);
                sums[1].store(&mut out[first + W::LANES..]);
            }
        }
    }
}

/// Sums over members of the products of `rows` with `columns`, each `[number, row]`, four by two at a time; those on and
/// below the diagonal alone if LOWER.
#[inline(always)]
fn outer<W: Lanes<Scalar = f64>, const LOWER: bool>(
    context: W::Context,
    rows: &[f64],
    columns: &[f64],
    row: usize,
    out: &mut Array2<f64>,
) {
    let (n, m) = out.dim();
    let length = row / SUMS;
    for i in (0..n).step_by(4) {
        let r = [0, 1, 2, 3].map(|q| &rows[(i + q).min(n - 1) * row..][..row].as_chunks::<SUMS>().0[..length]);
        for j in (0..if LOWER { (i + 4).min(m) } else { m }).step_by(2) {
            let c = [0, 1].map(|q| &columns[(j + q).min(m - 1) * row..][..row].as_chunks::<SUMS>().0[..length]);
            let mut parts = [[0.0; SUMS]; 8];
            for first in (0..SUMS).step_by(W::LANES) {
                let mut sums = [W::splat(context, 0.0); 8];
                for at in 0..length {
                    let a = W::load(context, &c[0][at][first..]);
                    let b = W::load(context, &c[1][at][first..]);
                    for q in 0..4 {
                        let r = W::load(context, &r[q][at][first..]);
                        sums[2 * q] = r.mul_add(a, sums[2 * q]);
                        sums[2 * q + 1] = r.mul_add(b, sums[2 * q + 1]);
                    }
                }
                for (parts, sum) in parts.iter_mut().zip(sums) {
                    sum.store(&mut parts[first..]);
                }
            }
            for (q, p) in parts.iter().enumerate() {
                let (i, j) = (i + q / 2, j + q % 2);
                if i < n && j < m && (!LOWER || j <= i) {
                    out[[i, j]] = ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
                }
            }
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
