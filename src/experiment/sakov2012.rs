//! Preset `sakov2012`: Lorenz-63, every component observed every 0.25 time units with R = 2 I (Sakov, Oliver & Bertino 2012, as
//! DAPPER sets it up), by 3DVar.

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
