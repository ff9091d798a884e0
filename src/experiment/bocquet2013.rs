//! Preset `bocquet2013`: every site observed every 0.2 time units (after Bocquet & Sakov 2013), by 4DVar in windows of
//! 1, 2 and 4 intervals, each with five factors on the climatological covariance.

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
