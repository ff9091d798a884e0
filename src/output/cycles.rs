//! Cycled assimilation: errors by cycle as NetCDF, their means as JSON.

use super::write_scores;
use crate::error::Result;
use crate::experiment::{CycleSettings, CycledErrors, Cycles};
use crate::netcdf::{Attributes, Writer, check_size};
use ndarray::{Array1, Array2, Array3, Array4, Axis};
use serde_json::json;
use std::path::Path;

/// Refuses a run whose errors would not fit into a file. Cheap: ask before computing.
///
/// # Errors
/// A variable over 4 GiB, with its size.
pub fn check_cycles(settings: &CycleSettings, seeds: usize) -> Result<()> {
    check_size("rmse_analysis", &[settings.methods().len(), seeds, settings.burn_in.saturating_add(settings.cycles)])
}

/// Writes the RMSE over sites of every cycle, the burn-in included: `rmse_analysis`, `rmse_forecast` and
/// `rmse_window_start` `(experiment, seed, cycle)`, with `window(experiment)`, `background_factor(experiment)`,
/// `time(cycle)`, and the experiments' names as the attribute `experiments`; where some carry a covariance also
/// `background_inflation(experiment)` and `spread(experiment, seed, cycle)`, where parameters are estimated also
/// `parameter_mean` and `parameter_spread` `(experiment, seed, cycle, parameter)` and `true_parameter(parameter)`.
///
/// # Errors
/// A variable over 4 GiB, a file that exists (unless `overwrite`), or a failing disk.
pub fn write_cycles(path: impl AsRef<Path>, cycles: &Cycles, attributes: &Attributes, overwrite: bool) -> Result<()> {
    let mut writer = Writer::default();
    let all = |pick: fn(&CycledErrors) -> &Array2<f64>| {
        let views: Vec<_> = cycles.methods.iter().map(|errors| pick(errors).view()).collect();
        ndarray::stack(Axis(0), &views).expect("every method has as many seeds and cycles")
    };
    let of_method = |number: fn(&CycledErrors) -> f64| cycles.methods.iter().map(number).collect::<Array1<f64>>();
    let window = of_method(|e| e.method.window() as f64);
    let factor = of_method(|e| e.method.factor().unwrap_or(f64::NAN));
    let time: Array1<f64> = (1..=cycles.count()).map(|cycle| cycle as f64 * cycles.interval).collect();
    writer.numbers("time", &["cycle"], "model time units", "newest observation time", time)?;
    writer.numbers("window", &["experiment"], "1", "intervals of the window, 0 for a single time", window)?;
    let long = format!("factor on {}, NaN where nothing is assimilated", cycles.covariance_name());
    writer.numbers("background_factor", &["experiment"], "1", &long, factor)?;
    let dimensions = ["experiment", "seed", "cycle"];
    let long = "RMSE of the analysis at the window's end, NaN before the first window is filled";
    writer.numbers("rmse_analysis", &dimensions, "1", long, all(|e| &e.analysis))?;
    let long = "RMSE of the background at the window's end";
    writer.numbers("rmse_forecast", &dimensions, "1", long, all(|e| &e.forecast))?;
    let long = "RMSE of the analysis at the window's start";
    writer.numbers("rmse_window_start", &dimensions, "1", long, all(|e| &e.window_start))?;
    if cycles.methods.iter().any(|e| e.method.inflation().is_some()) {
        let inflation = of_method(|e| e.method.inflation().unwrap_or(f64::NAN));
        let long = "factor on the carried covariance, NaN where it is static";
        writer.numbers("background_inflation", &["experiment"], "1", long, inflation)?;
        let long = "posterior spread at the window's end, NaN where a method has none";
        writer.numbers("spread", &dimensions, "1", long, all(|e| &e.spread))?;
    }
    let parameters = cycles.methods.iter().map(|e| e.parameter_mean.len_of(Axis(2))).max().unwrap_or(0);
    if parameters > 0 {
        let all = |pick: fn(&CycledErrors) -> &Array3<f64>| {
            let shape = (cycles.methods.len(), cycles.seeds.len(), cycles.count(), parameters);
            let mut all = Array4::from_elem(shape, f64::NAN);
            for (errors, mut to) in cycles.methods.iter().zip(all.outer_iter_mut()) {
                if pick(errors).len_of(Axis(2)) > 0 {
                    to.assign(pick(errors));
                }
            }
            all
        };
        let dimensions = ["experiment", "seed", "cycle", "parameter"];
        let long = "posterior mean of the model's parameters, NaN where they are not estimated";
        writer.numbers("parameter_mean", &dimensions, "1", long, all(|e| &e.parameter_mean))?;
        let long = "posterior standard deviation of the model's parameters";
        writer.numbers("parameter_spread", &dimensions, "1", long, all(|e| &e.parameter_std))?;
        let truth = Array1::from_vec(cycles.true_parameters.clone());
        writer.numbers("true_parameter", &["parameter"], "1", "the truth's parameters", truth)?;
    }
    let names: Vec<_> = cycles.methods.iter().map(|e| e.method.name()).collect();
    let mut own = Attributes::new();
    own.set("experiments", names.join(", ")).set("burn_in", cycles.burn_in);
    writer.attributes(&own);
    writer.attributes(attributes);
    writer.write(path.as_ref(), overwrite)
}

/// Writes the mean RMSE of every experiment.
///
/// # Errors
/// As [`write_scores`].
pub fn write_cycle_scores(path: impl AsRef<Path>, cycles: &Cycles, overwrite: bool) -> Result<()> {
    let scores = json!({
        "interval": cycles.interval,
        "seeds": cycles.seeds,
        "cycles": cycles.count() - cycles.burn_in,
        "burn_in": cycles.burn_in,
        "experiments": cycles.scores(),
    });
    write_scores(path, &scores, overwrite)
}
