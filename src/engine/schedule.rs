//! How a window is cut into segments of time, so that an adjoint sweep stays inside its memory.
//!
//! An adjoint needs every state of the forward sweep. A window that is too long keeps the state at the start of each
//! segment only (a checkpoint) and integrates each segment once more on the way back. With segments of the square
//! root of the window, memory grows with the square root, for one more forward sweep (Griewank 1992).

use std::ops::Range;

/// A window's RK4 steps cut into equal segments (the last may be shorter). At least one, even of no steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    steps: usize,
    length: usize,
}

impl Segments {
    /// The whole window in one.
    pub fn one(steps: usize) -> Self {
        Self { steps, length: steps.max(1) }
    }

    /// The longest segments for which the states of one segment, `step_bytes` per step, with one checkpoint of
    /// `checkpoint_bytes` per segment, stay within `budget`; never longer than `longest`. Where nothing fits: the
    /// segments of least memory.
    pub fn choose(steps: usize, step_bytes: usize, checkpoint_bytes: usize, budget: usize, longest: usize) -> Self {
        let bytes = |length: usize| length * step_bytes + steps.div_ceil(length) * checkpoint_bytes;
        let longest = longest.min(steps).max(1);
        let best = ((steps * checkpoint_bytes / step_bytes.max(1)) as f64).sqrt().ceil() as usize;
        let mut length = longest;
        while length > best.max(1) && bytes(length) > budget {
            length -= (length / 64).max(1);
        }
        Self { steps, length }
    }

    /// Number of segments.
    pub fn count(&self) -> usize {
        self.steps.div_ceil(self.length).max(1)
    }

    /// Steps of the longest segment.
    pub fn length(&self) -> usize {
        self.length.min(self.steps)
    }

    /// The steps of segment `k`.
    pub fn range(&self, k: usize) -> Range<usize> {
        (k * self.length).min(self.steps)..((k + 1) * self.length).min(self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::Segments;

    #[test]
    fn segments_tile_the_window() {
        for steps in [0, 1, 2, 11, 99, 10_000] {
            for budget in [0, 100, 10_000, usize::MAX] {
                let segments = Segments::choose(steps, 12, 5, budget, 4_096);
                let mut next = 0;
                for k in 0..segments.count() {
                    let range = segments.range(k);
                    assert_eq!(range.start, next);
                    assert!(range.len() <= segments.length());
                    next = range.end;
                }
                assert_eq!(next, steps);
            }
        }
    }

    #[test]
    fn segments_stay_within_the_budget_where_they_can() {
        assert_eq!(Segments::choose(100, 4, 1, 1_000_000, 4_096).count(), 1);
        let tight = Segments::choose(10_000, 4, 1, 1_000, 4_096);
        let bytes = tight.length() * 4 + tight.count();
        assert!(bytes <= 1_000, "{bytes}");
        let least = Segments::choose(10_000, 1, 1, 0, 4_096);
        assert!(least.length().abs_diff(100) <= 2, "{least:?}");
    }
}
