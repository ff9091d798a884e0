//! Coverage of central intervals.

use super::Rank;

/// How far a central interval of the given level covers a truth of this rank: 1 inside, 0 outside, a share between.
///
/// M samples cut the line into M + 1 cells, and the truth of a calibrated ensemble lies in each with probability
/// 1 / (M + 1), whatever the distribution. The interval is the cells between the shares (1 - level) / 2 and
/// (1 + level) / 2 of them; a cell that such an end cuts counts by the share of it that is inside. So the expectation
/// is exactly the level, for every M and without interpolating between samples.
pub fn coverage(rank: Rank, level: f64) -> f64 {
    let cells = (rank.samples + 1) as f64;
    let (low, high) = (cells * (1.0 - level) / 2.0, cells * (1.0 + level) / 2.0);
    let cell = rank.rank as f64;
    ((cell + 1.0).min(high) - cell.max(low)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_of_worked_examples() {
        let of = |rank, samples, level| coverage(Rank { rank, samples }, level);
        // Nine samples, ten cells: the central half is from 2.5 to 7.5.
        let half: Vec<f64> = (0..10).map(|rank| of(rank, 9, 0.5)).collect();
        assert_eq!(half, [0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0]);
        for (rank, covered) in [(49, 0.0), (50, 1.0), (949, 1.0), (950, 0.0), (999, 0.0)] {
            assert!((of(rank, 999, 0.9) - covered).abs() < 1e-12, "{rank}");
        }
    }

    #[test]
    fn coverage_of_equally_likely_ranks_is_the_level() {
        for (samples, level) in [(1, 0.5), (2, 0.9), (7, 0.9), (20, 0.5), (100, 0.9), (1000, 0.9)] {
            let sum: f64 = (0..=samples).map(|rank| coverage(Rank { rank, samples }, level)).sum();
            assert!((sum / (samples + 1) as f64 - level).abs() < 1e-12, "{samples} samples, {level}");
        }
    }
}
