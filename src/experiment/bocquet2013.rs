//! Preset `bocquet2013`: every site observed every 0.2 time units (after Bocquet & Sakov 2013), by 4DVar in windows of
//! 1, 2 and 4 intervals, each with five factors on the climatological covariance.
//!
//! Scores to expect over seeds 1 to 10 (`vi4dvar cycle --preset bocquet2013 --backend cpu`), RMSE at the window's end, of
//! the forecast, at the window's start; in brackets those of an independent Gauss-Newton implementation, which DAPPER's
//! 4DVar confirms. Standard errors are 0.001 to 0.002.
//!
//! | window | x | found | expected | best x | found | expected |
//! |---|---|---|---|---|---|---|
//! | 1 | 0.2 | 0.668 0.977 0.688 | (0.663 0.966 0.685) | 0.02 | 0.469 0.691 0.414 | (0.465 0.688 0.411) |
//! | 2 | 0.1 | 0.592 0.856 0.582 | (0.585 0.845 0.582) | 0.005 | 0.404 0.584 0.317 | (0.399 0.580 0.312) |
//! | 4 | 0.02 | 0.496 0.705 0.417 | (0.491 0.699 0.416) | 0.0025 | 0.391 0.560 0.271 | (0.389 0.559 0.269) |
//!
//! The same to the last digit with `--precision f64`. Over 2,000 cycles the RMSE at the window's end of a single seed lies
//! 0.002 to 0.004 (one standard deviation) from the mean, mostly in the same direction for all these windows and factors.

use super::{CyclePreset, CycleSettings};

pub(super) fn preset() -> CyclePreset {
    CyclePreset {
        name: "bocquet2013",
        about: "40 sites, all observed every 0.2 time units: 4DVar by window and factor on B",
        settings: CycleSettings {
            steps_per_time: 4,
            windows: vec![1, 2, 4],
            factors: vec![0.0025, 0.005, 0.02, 0.1, 0.2],
            ..CycleSettings::default()
        },
    }
}
