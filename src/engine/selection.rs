//! Selecting the best of many drawn members: what is kept, the histogram of all, and the sums of their weights.

use super::tree::{Merge, Tree};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Most members that a selection keeps, over all problems of a set: about 100 MiB of them.
pub const MOST_KEPT: usize = 1 << 22;

/// Which drawn members a selection keeps. A diverged one never is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Keep {
    /// So many of least criterion, of each problem. Of equal ones, those of lower number.
    Best(usize),
    /// All whose criterion is at or below a threshold.
    Below(f64),
}

/// The best of the drawn members of one problem, and what is known of all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// Numbers of the kept members in ascending order of (criterion, number): `[kept]`.
    pub member: Vec<u32>,
    /// J_b of the kept members, 0 where it was not asked for: `[kept]`.
    pub cost_background: Vec<f64>,
    /// J_o of the kept members, 0 where it was not asked for: `[kept]`.
    pub cost_observation: Vec<f64>,
    /// The criterion of all members but the diverged.
    pub histogram: CostHistogram,
    /// Members drawn.
    pub count: usize,
    /// Members that diverged.
    pub diverged: usize,
    /// log sum exp(-J_o) over all members, a diverged one adding nothing; minus infinity if all diverged.
    pub log_weight_sum: f64,
    /// log sum exp(-2 J_o), likewise.
    pub log_weight_square_sum: f64,
}

impl Selection {
    /// The criterion of the kept members, the sum of the terms asked for: `[kept]`.
    pub fn criterion(&self) -> Vec<f64> {
        self.cost_background.iter().zip(&self.cost_observation).map(|(b, o)| b + o).collect()
    }

    /// Effective number of all members under the weights w = exp(-J_o): (sum w)^2 / sum w^2 (Kong 1992). 0 if all
    /// diverged.
    pub fn importance_ess(&self) -> f64 {
        if self.log_weight_sum == f64::NEG_INFINITY {
            return 0.0;
        }
        (2.0 * self.log_weight_sum - self.log_weight_square_sum).exp()
    }
}

/// Counts of costs in fixed logarithmic bins, 16 to an octave from 2^-16 to 2^48. The first bin also holds what is
/// below, the last what is above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostHistogram {
    /// Costs in each bin: `[BINS]`.
    pub counts: Vec<u64>,
}

impl Default for CostHistogram {
    fn default() -> Self {
        Self { counts: vec![0; Self::BINS] }
    }
}

impl CostHistogram {
    /// Bins of every histogram.
    pub const BINS: usize = 1024;
    /// A single-precision float's exponent and first four bits of mantissa, at 2^-16. (`shaders/block.wgsl` has it too.)
    pub(crate) const FIRST: u32 = (127 - 16) << 4;

    /// The bin of a cost >= 0: by the bits of the float, so that every engine agrees without a logarithm.
    #[inline(always)]
    pub fn bin(cost: f64) -> usize {
        (((cost as f32).to_bits() >> 19).saturating_sub(Self::FIRST) as usize).min(Self::BINS - 1)
    }

    /// The lower edge of bin `k`; of `BINS`, the upper edge of the last one.
    pub fn edge(k: usize) -> f64 {
        (1.0 + (k % 16) as f64 / 16.0) * (k as f64 / 16.0 - 16.0).floor().exp2()
    }

    /// Costs counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// A member that may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its number within its problem.
    pub member: u32,
    pub background: f64,
    pub observation: f64,
}

impl Candidate {
    fn criterion(&self) -> f64 {
        self.background + self.observation
    }

    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.criterion().total_cmp(&other.criterion()).then(self.member.cmp(&other.member))
    }
}

/// Sums of exp(-J_o) and of its square, as multiples of exp(-least) and of its square.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightSums {
    /// The least J_o.
    pub least: f64,
    /// sum exp(least - J_o)
    pub sum: f64,
    /// sum exp(2 (least - J_o))
    pub square_sum: f64,
}

impl Default for WeightSums {
    fn default() -> Self {
        Self { least: f64::INFINITY, sum: 0.0, square_sum: 0.0 }
    }
}

impl Merge for WeightSums {
    fn merge(&mut self, block: &Self) {
        if block.sum == 0.0 {
            return;
        }
        let least = self.least.min(block.least);
        let (own, other) = ((least - self.least).exp(), (least - block.least).exp());
        self.sum = self.sum * own + block.sum * other;
        self.square_sum = self.square_sum * own * own + block.square_sum * other * other;
        self.least = least;
    }
}

impl WeightSums {
    fn logarithms(&self) -> (f64, f64) {
        if self.sum == 0.0 {
            return (f64::NEG_INFINITY, f64::NEG_INFINITY);
        }
        (self.sum.ln() - self.least, self.square_sum.ln() - 2.0 * self.least)
    }
}

/// What one problem of a running selection has so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Picked {
    candidates: Vec<Candidate>,
    histogram: CostHistogram,
    weights: Tree<WeightSums>,
}

/// A running selection: takes candidates in any order, and the sums of blocks in theirs.
#[derive(Clone, Debug)]
pub struct Selector {
    keep: Keep,
    /// No member above its problem's bound can be kept any more.
    bounds: Vec<f64>,
    problems: Vec<Picked>,
}

impl Selector {
    /// # Errors
    /// A threshold that is no number, nothing to keep, or more than [`MOST_KEPT`] in all.
    pub fn new(problems: usize, count: usize, keep: Keep) -> Result<Self> {
        let bound = match keep {
            Keep::Best(best) => {
                let most = MOST_KEPT / problems;
                if best == 0 || best.min(count) > most {
                    let expected = format!("1 to {most} for each of {problems} problems");
                    return Err(Error::invalid("members to keep", expected, best.to_string(), "keep fewer"));
                }
                f64::MAX
            }
            Keep::Below(threshold) if threshold.is_nan() => {
                let help = "give the largest cost to keep";
                return Err(Error::invalid("threshold", "a number", threshold.to_string(), help));
            }
            Keep::Below(threshold) => threshold,
        };
        let picked = (0..problems).map(|_| Picked::default()).collect();
        Ok(Self { keep, bounds: vec![bound; problems], problems: picked })
    }

    /// The largest criterion that may still be kept, for each problem.
    pub fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    /// How many members of each problem can be kept.
    pub fn best(&self) -> u32 {
        match self.keep {
            Keep::Best(best) => u32::try_from(best).unwrap_or(u32::MAX),
            Keep::Below(_) => u32::MAX,
        }
    }

    /// Offers a member of problem `p`.
    pub fn offer(&mut self, p: usize, candidate: Candidate) {
        if candidate.criterion() <= self.bounds[p] {
            self.problems[p].candidates.push(candidate);
        }
    }

    /// Adds costs to a bin of problem `p`.
    pub fn count(&mut self, p: usize, bin: usize, costs: u64) {
        self.problems[p].histogram.counts[bin] += costs;
    }

    /// Adds the weights of the next block of problem `p`, which is number `block` there.
    pub fn weigh(&mut self, p: usize, block: usize, weights: WeightSums) {
        self.problems[p].weights.push(block, weights);
    }

    /// What it has of each problem.
    pub fn into_picked(self) -> Vec<Picked> {
        self.problems
    }

    /// Adds what was picked among the members that follow.
    ///
    /// # Errors
    /// As [`tighten`](Self::tighten).
    pub fn absorb(&mut self, picked: Vec<Picked>) -> Result<()> {
        for (own, other) in self.problems.iter_mut().zip(picked) {
            own.candidates.extend(other.candidates);
            own.histogram.counts.iter_mut().zip(other.histogram.counts).for_each(|(own, other)| *own += other);
            own.weights.append(other.weights);
        }
        self.tighten()
    }

    /// Drops what can no longer be kept, and lowers the bounds. Call it after each chunk.
    ///
    /// # Errors
    /// More members at or below the threshold than [`MOST_KEPT`].
    pub fn tighten(&mut self) -> Result<()> {
        match self.keep {
            Keep::Best(best) => {
                for (picked, bound) in self.problems.iter_mut().zip(&mut self.bounds) {
                    if picked.candidates.len() >= best {
                        let (_, last, _) = picked.candidates.select_nth_unstable_by(best - 1, Candidate::order);
                        *bound = last.criterion();
                        picked.candidates.truncate(best);
                    }
                }
                Ok(())
            }
            Keep::Below(threshold) => {
                let kept: usize = self.problems.iter().map(|p| p.candidates.len()).sum();
                if kept <= MOST_KEPT {
                    return Ok(());
                }
                Err(Error::invalid(
                    "threshold",
                    format!("one that keeps at most {MOST_KEPT} members"),
                    format!("{threshold}, which keeps at least {kept}"),
                    "lower it, draw fewer members, or keep a number of the best",
                ))
            }
        }
    }

    /// What was kept of `count` members of each problem.
    pub fn finish(self, count: usize) -> Vec<Selection> {
        let finished = self.problems.into_iter().map(|picked| {
            let Picked { mut candidates, histogram, weights } = picked;
            candidates.sort_unstable_by(Candidate::order);
            let (log_weight_sum, log_weight_square_sum) = weights.total().unwrap_or_default().logarithms();
            Selection {
                member: candidates.iter().map(|c| c.member).collect(),
                cost_background: candidates.iter().map(|c| c.background).collect(),
                cost_observation: candidates.iter().map(|c| c.observation).collect(),
                diverged: count - histogram.total() as usize,
                histogram,
                count,
                log_weight_sum,
                log_weight_square_sum,
            }
        });
        finished.collect()
    }
}

/// What one block of members of one problem leaves for a selection.
#[derive(Clone, Debug, Default)]
pub struct BlockSelection {
    /// Bins that are not empty, with their counts.
    pub bins: Vec<(u16, u16)>,
    pub weights: WeightSums,
    pub candidates: Vec<Candidate>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_hold_what_lies_between_their_edges() {
        for k in 0..CostHistogram::BINS {
            let (low, high) = (CostHistogram::edge(k), CostHistogram::edge(k + 1));
            assert!(high > low);
            assert_eq!(CostHistogram::bin(low), k);
            assert_eq!(CostHistogram::bin(0.5 * (low + high)), k);
            assert_eq!(CostHistogram::bin(f64::from((high as f32).next_down())), k);
        }
        assert_eq!(CostHistogram::edge(0), 2f64.powi(-16));
        assert_eq!(CostHistogram::edge(CostHistogram::BINS), 2f64.powi(48));
        assert_eq!([0.0, 1e-30, 1e30].map(CostHistogram::bin), [0, 0, CostHistogram::BINS - 1]);
    }

    #[test]
    fn weights_of_costs_far_apart_add_up() {
        let block = |cost: f64| WeightSums { least: cost, sum: 1.0, square_sum: 1.0 };
        let mut sums = WeightSums::default();
        assert_eq!(sums.logarithms(), (f64::NEG_INFINITY, f64::NEG_INFINITY));
        for cost in [5_000.0, 1_000.0, 1_000.0 + 3f64.ln(), 1e9] {
            sums.merge(&block(cost));
        }
        let (sum, square_sum) = sums.logarithms();
        assert!((sum - (-1_000.0 + (4.0f64 / 3.0).ln())).abs() < 1e-12);
        assert!((square_sum - (-2_000.0 + (10.0f64 / 9.0).ln())).abs() < 1e-12);
    }

    #[test]
    fn a_selector_keeps_the_lowest_number_of_equal_costs_whatever_the_order() {
        let candidate = |member: u32, background: f64| Candidate { member, background, observation: 1.0 };
        let costs = [3.0, 1.0, 2.0, 1.0, 2.0, 2.0, 9.0];
        for first in 0..costs.len() {
            let mut selector = Selector::new(1, costs.len(), Keep::Best(4)).unwrap();
            for k in (0..costs.len()).map(|k| (first + k) % costs.len()) {
                selector.offer(0, candidate(k as u32, costs[k]));
                selector.tighten().unwrap();
            }
            assert_eq!(selector.finish(costs.len()).remove(0).member, [1, 3, 2, 4]);
        }
    }

    #[test]
    fn a_selection_that_cannot_be_is_refused() {
        assert!(Selector::new(1, 10, Keep::Best(0)).is_err());
        assert!(Selector::new(2, MOST_KEPT, Keep::Best(MOST_KEPT / 2 + 1)).is_err());
        assert!(Selector::new(2, 10, Keep::Best(MOST_KEPT)).is_ok());
        assert!(Selector::new(1, 10, Keep::Below(f64::NAN)).is_err());
        let mut all = Selector::new(1, usize::MAX, Keep::Below(f64::INFINITY)).unwrap();
        for member in 0..=MOST_KEPT as u32 {
            all.offer(0, Candidate { member, background: 0.0, observation: 0.0 });
        }
        assert!(all.tighten().unwrap_err().to_string().contains("threshold"));
    }
}
