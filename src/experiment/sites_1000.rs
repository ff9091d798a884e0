//! Preset `sites-1000`: `sakov2008` on a ring of 1,000 sites, whose errors are those of 40 sites as far as its climatology
//! is as well known.
//!
//! Scores to expect over seeds 1 to 10 (`vi4dvar cycle --preset sites-1000 --backend cpu`, about a minute), RMSE of the
//! analysis with its standard error: climatology 3.642 ± 0.002, optimal interpolation 0.957 ± 0.001, 3DVar 0.422 ± 0.001.

use super::{CyclePreset, CycleSettings};

pub(super) fn preset() -> CyclePreset {
    CyclePreset {
        name: "sites-1000",
        about: "sakov2008 on 1,000 sites",
        settings: CycleSettings { sites: 1000, cycles: 300, burn_in: 100, ..CycleSettings::default() },
    }
}
