//! Rational-quadratic splines (Durkan, Bekasov, Murray & Papamakarios 2019): a growing function on [-5, 5] of bins whose
//! widths, heights and inner slopes a network gives; the identity outside, with slope 1 at both ends.
//!
//! Within a bin, with xi its share of the width, s = height / width and d0, d1 the slopes at its ends:
//! y = y0 + height (s xi^2 + d0 xi (1 - xi)) / (s + (d0 + d1 - 2 s) xi (1 - xi)).

use super::coupling::Moved;
use burn_tensor::activation::softplus;
use burn_tensor::{Tensor, TensorData};

/// Bins of each site.
pub(super) const BINS: usize = 8;

/// The domain is [-BOUND, BOUND].
const BOUND: f64 = 5.0;

/// Least width and height of a bin, as a share of the domain, and least slope.
const LEAST: f64 = 1e-3;

/// The bin of each number: `[rows, sites]`.
struct Bin {
    x0: Tensor<2>,
    y0: Tensor<2>,
    width: Tensor<2>,
    height: Tensor<2>,
    d0: Tensor<2>,
    d1: Tensor<2>,
}

/// x to y. `heads`: widths, heights and slopes before they are made positive.
pub(super) fn forward(x: Tensor<2>, heads: Vec<Tensor<2>>) -> Moved {
    let inside = x.clone().clamp(-BOUND, BOUND);
    let bin = Bin::find(&inside, heads, false);
    let xi = (inside - bin.x0.clone()) / bin.width.clone();
    let (log_slope, denominator) = bin.log_slope(xi.clone());
    let s = bin.height.clone() / bin.width;
    let product = xi.clone() * (xi.clone().neg() + 1.0);
    let y = bin.y0 + bin.height * (s * xi.powi_scalar(2) + bin.d0 * product) / denominator;
    within(x, y, log_slope)
}

/// y to x, with the slope dy/dx of the way there.
pub(super) fn inverse(y: Tensor<2>, heads: Vec<Tensor<2>>) -> Moved {
    let inside = y.clone().clamp(-BOUND, BOUND);
    let bin = Bin::find(&inside, heads, true);
    let s = bin.height.clone() / bin.width.clone();
    let above = inside - bin.y0.clone();
    let bend = bin.d0.clone() + bin.d1.clone() - s.clone() * 2.0;
    let shared = above.clone() * bend;
    let a = bin.height.clone() * (s.clone() - bin.d0.clone()) + shared.clone();
    let b = bin.height.clone() * bin.d0.clone() - shared;
    let c = s * above.neg();
    // Of the two roots the one in [0, 1], in the form that does not cancel. What rounding leaves below zero is none.
    let root = (b.clone().powi_scalar(2) - a * c.clone() * 4.0).clamp_min(1e-20).sqrt();
    let xi = c * 2.0 / (b.neg() - root);
    let (log_slope, _) = bin.log_slope(xi.clone());
    within(y, bin.x0 + xi * bin.width, log_slope)
}

/// The identity outside the domain.
fn within(before: Tensor<2>, moved: Tensor<2>, log_slope: Tensor<2>) -> Moved {
    let outside = before.clone().abs().greater_equal_scalar(BOUND);
    Moved { rows: moved.mask_where(outside.clone(), before), log_slope: log_slope.mask_fill(outside, 0.0) }
}

impl Bin {
    /// The bins of numbers in the domain: x, or y where `by_height`.
    fn find(x: &Tensor<2>, heads: Vec<Tensor<2>>, by_height: bool) -> Self {
        let [rows, sites] = x.dims();
        let [widths, heights, slopes] = heads.try_into().expect("three heads");
        let [widths, heights] = [widths, heights].map(|raw| sizes(raw.reshape([rows, sites, BINS])));
        let known = if by_height { &heights } else { &widths };
        let [passed, own] = masks(x, known);

        let sum = |mask: &Tensor<3>, of: &Tensor<3>| (mask.clone() * of.clone()).sum_dim(2).reshape([rows, sites]);
        let slopes = slopes.reshape([rows, sites, BINS - 1]);
        // The first and the last bin take zero for the slope that the domain's end has: it is 1 there.
        let slope = |first: usize| {
            let raw = sum(&own.clone().narrow(2, first, BINS - 1), &slopes);
            softplus(raw + (1.0 - LEAST).exp_m1().ln(), 1.0) + LEAST
        };
        Self {
            x0: sum(&passed, &widths) - BOUND,
            y0: sum(&passed, &heights) - BOUND,
            width: sum(&own, &widths),
            height: sum(&own, &heights),
            d0: slope(1),
            d1: slope(0),
        }
    }

    /// log dy/dx at xi, and the denominator of y.
    fn log_slope(&self, xi: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let s = self.height.clone() / self.width.clone();
        let rest = xi.clone().neg() + 1.0;
        let product = xi.clone() * rest.clone();
        let bend = self.d0.clone() + self.d1.clone() - s.clone() * 2.0;
        let denominator = s.clone() + bend * product.clone();
        let numerator =
            self.d1.clone() * xi.powi_scalar(2) + s.clone() * product * 2.0 + self.d0.clone() * rest.powi_scalar(2);
        let log_slope = numerator.log() + (s / denominator.clone()).log() * 2.0;
        (log_slope, denominator)
    }
}

/// Sizes of bins that fill the domain, each at least [`LEAST`] of it: `[rows, sites, BINS]`.
fn sizes(raw: Tensor<3>) -> Tensor<3> {
    let largest = raw.clone().detach().max_dim(2);
    let powers = (raw - largest).exp();
    let share = powers.clone() / powers.sum_dim(2);
    (share * (1.0 - LEAST * BINS as f64) + LEAST) * (2.0 * BOUND)
}

/// Ones for the bins wholly below x, and for the bin that x is in: each `[rows, sites, BINS]`.
fn masks(x: &Tensor<2>, sizes: &Tensor<3>) -> [Tensor<3>; 2] {
    let [rows, sites, _] = sizes.dims();
    let device = x.device();
    let x: Vec<f32> = x.to_data().try_to_vec().expect("tensors of f32");
    let sizes: Vec<f32> = sizes.to_data().try_to_vec().expect("tensors of f32");
    let mut passed = vec![0f32; sizes.len()];
    let mut own = vec![0f32; sizes.len()];
    for (k, x) in x.iter().enumerate() {
        let bins = k * BINS..(k + 1) * BINS;
        let mut end = -BOUND as f32;
        let mut bin = 0;
        for size in &sizes[bins.clone()][..BINS - 1] {
            end += size;
            bin += usize::from(*x >= end);
        }
        passed[bins.clone()][..bin].fill(1.0);
        own[bins.start + bin] = 1.0;
    }
    [passed, own].map(|mask| Tensor::from_data(TensorData::new(mask, [rows, sites, BINS]), &device))
}
