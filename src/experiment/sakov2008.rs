//! Preset `sakov2008`: every site observed at every step of 0.05 (Sakov & Oke 2008, as DAPPER sets it up), by 3DVar.
//!
//! Scores to expect over seeds 1 to 10 (`vi4dvar cycle --preset sakov2008 --backend cpu`), RMSE of the analysis with its
//! standard error: climatology 3.637 ± 0.004, optimal interpolation 0.949 ± 0.001, 3DVar 0.410 ± 0.002. DAPPER lists 3.6,
//! 0.95 and 0.41.

use super::{CyclePreset, CycleSettings};

pub(super) fn preset() -> CyclePreset {
    CyclePreset {
        name: "sakov2008",
        about: "40 sites, all observed every 0.05 time units: 3DVar beside climatology and optimal interpolation",
        settings: CycleSettings::default(),
    }
}
