//! Preset `sakov2008`: every site observed at every step of 0.05 (Sakov & Oke 2008, as DAPPER sets it up), by 3DVar.

use super::{CyclePreset, CycleSettings};

pub(super) fn preset() -> CyclePreset {
    CyclePreset {
        name: "sakov2008",
        about: "40 sites, all observed every 0.05 time units: 3DVar beside climatology and optimal interpolation",
        settings: CycleSettings::default(),
    }
}
