//! Preset `sakov2012`: Lorenz-63, every component observed every 0.25 time units with R = 2 I (Sakov, Oliver & Bertino 2012, as
//! DAPPER sets it up), by 3DVar.
//!
//! Scores to expect over seeds 1 to 10 (`vi4dvar cycle --preset sakov2012 --backend cpu`), RMSE of the analysis with its
//! standard error: climatology 7.594 ± 0.002, optimal interpolation 1.252 ± 0.004, 3DVar 1.037 ± 0.004. DAPPER lists 7.6, 1.25
//! and 1.04, and 0.31 for an iEnKS of 10 members that carries its ensemble; with `--methods vi,ensemble --windows 3 --inflations
//! 1.05 --members 100 --cycles 400 --burn-in 100 --repeat 3` VI-4DVAR has 0.304 ± 0.015 and the ensemble 0.303 ± 0.017.

use super::{CyclePreset, CycleSettings};
use crate::model::Model;

pub(super) fn preset() -> CyclePreset {
    CyclePreset {
        name: "sakov2012",
        about: "Lorenz-63, observed every 0.25 time units: 3DVar beside climatology and optimal interpolation",
        settings: CycleSettings {
            model: Model::Lorenz63,
            sites: 3,
            dt: 0.01,
            steps_per_time: 25,
            observation_std: std::f64::consts::SQRT_2,
            initial_error: std::f64::consts::SQRT_2,
            factors: vec![0.1],
            ..CycleSettings::default()
        },
    }
}
