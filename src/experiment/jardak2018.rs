//! Preset `jardak2018`: 4DVar in windows of one time unit, as long as those of Jardak & Talagrand (2018), which are long
//! for Lorenz-96. The rest of their setting is not followed: here every site is observed every 0.1 time units, with R = I,
//! and the window moves on by that interval.
//!
//! Scores to expect over seeds 1 to 10 (`vi4dvar cycle --preset jardak2018 --backend cpu`), RMSE at the window's end, of the
//! forecast, at the window's start, with standard errors of 0.001 to 0.002: x = 0.0005 0.325 0.386 0.197, 0.001 0.337 0.398
//! 0.201, 0.0025 0.380 0.446 0.237. Half the smallest x loses the truth now and then. Nothing published to compare with.

use super::{CyclePreset, CycleSettings};

pub(super) fn preset() -> CyclePreset {
    CyclePreset {
        name: "jardak2018",
        about: "40 sites, all observed every 0.1 time units: 4DVar in windows of 1 time unit",
        settings: CycleSettings {
            steps_per_time: 2,
            windows: vec![10],
            factors: vec![0.0005, 0.001, 0.0025],
            ..CycleSettings::default()
        },
    }
}
