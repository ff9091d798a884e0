//! Preset `sites-1000`: `sakov2008` on a ring of 1,000 sites, whose errors are those of 40 sites as far as its climatology
//! is as well known.

use super::{CyclePreset, CycleSettings};

pub(super) fn preset() -> CyclePreset {
    CyclePreset {
        name: "sites-1000",
        about: "sakov2008 on 1,000 sites",
        settings: CycleSettings { sites: 1000, cycles: 300, burn_in: 100, ..CycleSettings::default() },
    }
}
