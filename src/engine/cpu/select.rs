//! Selecting from one block of members. GPU: `shaders/select.wgsl` and `shaders/gather.wgsl`.

use super::lanes::Scalar;
use super::sums::Block;
use crate::engine::selection::{BlockSelection, Candidate, CostHistogram, WeightSums};
use std::ops::Range;

impl<T: Scalar> Block<T> {
    /// The histogram and the weights of the members `range` of the block, and those at or below `bound`, the first of
    /// which is number `first` of its problem.
    #[inline(always)]
    pub fn select_into(&self, range: Range<usize>, first: usize, bound: f64, to: &mut BlockSelection) {
        let mut counts = [0u16; CostHistogram::BINS];
        let (mut lowest, mut highest) = (CostHistogram::BINS, 0);
        let mut least = f64::INFINITY;
        for k in range.clone().filter(|k| !self.diverged[*k]) {
            let [background, observation] = [0, 1].map(|term| self.cost[term][k].to_f64());
            let criterion = background + observation;
            let bin = CostHistogram::bin(criterion);
            counts[bin] += 1;
            (lowest, highest) = (lowest.min(bin), highest.max(bin));
            least = least.min(observation);
            if criterion <= bound {
                let member = (first + k - range.start) as u32;
                to.candidates.push(Candidate { member, background, observation });
            }
        }
        for (bin, count) in counts.iter().enumerate().take(highest + 1).skip(lowest).filter(|(_, count)| **count > 0) {
            to.bins.push((bin as u16, *count));
        }
        let mut weights = WeightSums { least, ..WeightSums::default() };
        for k in range.filter(|k| !self.diverged[*k]) {
            let depth = self.cost[1][k].to_f64() - least;
            // 256 weights beyond e^-50 do not reach the last bit of 1, and most are.
            if depth < 50.0 {
                let weight = (-depth).exp();
                weights.sum += weight;
                weights.square_sum += weight * weight;
            }
        }
        to.weights = weights;
    }
}
