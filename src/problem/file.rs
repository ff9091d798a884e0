//! Problem files: one assimilation problem in NetCDF, read and written.

use super::{
    Background, CovarianceFactor, ErrorCovariance, ModelError, ObservationOperator, PointFunction, Problem, Window,
};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::netcdf::{Attributes, Reader, Writer};
use ndarray::{Array1, Array2, Axis};
use std::path::Path;

/// The variables of a problem file.
pub(crate) const VARIABLES: [&str; 10] = [
    "time",
    "background",
    "background_std",
    "background_covariance",
    "model_error_std",
    "model_error_covariance",
    "observation",
    "observation_std",
    "weight",
    "truth",
];

impl Problem {
    /// Reads a problem file: a set of one problem.
    ///
    /// # Errors
    /// A file that is missing, damaged or not NetCDF; a variable or attribute that is missing, has the wrong shape or
    /// holds a number that cannot be; ingredients that this version does not assimilate.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_reader(&mut Reader::open(path.as_ref())?)
    }

    /// Writes a set of one problem, with `attributes` behind the problem's own.
    ///
    /// # Errors
    /// A set of several problems, a problem that [`Problem::check`] refuses, a variable over 4 GiB, a file that exists
    /// (unless `overwrite`), or a failing disk. On failure nothing is left behind.
    pub fn write(&self, path: impl AsRef<Path>, attributes: &Attributes, overwrite: bool) -> Result<()> {
        let mut writer = Writer::default();
        self.add_to(&mut writer)?;
        writer.attributes(attributes);
        writer.write(path.as_ref(), overwrite)
    }

    /// What the global attributes of a file say about this problem, a set of one.
    pub(crate) fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        attributes.set("model", self.model.name());
        for (name, value) in self.model.parameter_names().iter().zip(self.parameters_of(0)) {
            attributes.set(*name, *value);
        }
        for (what, values) in [("{}_std", self.parameter_std_of(0)), ("true_{}", self.true_parameters_of(0))] {
            for (name, value) in self.model.parameter_names().iter().zip(values.into_iter().flatten()) {
                attributes.set(what.replace("{}", name), *value);
            }
        }
        if let Some(q) = &self.model_error {
            attributes.set("model_error_interval", q.interval);
        }
        attributes
            .set("dt", self.window.dt)
            .set("steps_per_time", self.window.steps_per_time)
            .set("assimilated_times", self.window.assimilated_times)
            .set("observation_operator", self.operator.function.name())
            .set("block_size", self.operator.block_size)
            .set("seed", self.seeds[0]);
        attributes
    }

    /// Times in model time units: `[times]`.
    pub(crate) fn time_axis(&self) -> Array1<f64> {
        (0..self.window.times).map(|t| self.window.time(t)).collect()
    }

    /// Refuses a set of several problems: a file holds one.
    pub(crate) fn check_single(&self) -> Result<()> {
        if self.count() == 1 {
            return Ok(());
        }
        Err(Error::invalid(
            "problem set",
            "one problem for a file",
            self.count().to_string(),
            "write each problem by itself (Problem::single)",
        ))
    }

    /// Checks the problem and adds its variables and attributes.
    pub(crate) fn add_to<'a>(&'a self, writer: &mut Writer<'a>) -> Result<()> {
        self.check_single()?;
        self.check()?;
        writer.attributes(&self.attributes());
        writer.numbers("time", &["time"], "model time units", "time since the initial state", self.time_axis())?;
        writer.numbers("background", &["site"], "1", "background state", self.background.mean_of(0))?;
        add_covariance(writer, BACKGROUND, &self.background.error, self.background.scale_of(0))?;
        if let Some(q) = &self.model_error {
            add_covariance(writer, MODEL_ERROR, &q.covariance, 1.0)?;
        }
        let dimensions = observation_dimensions(self.operator);
        let (y, std) = (self.observations_of(0), self.observation_std_of(0));
        writer.numbers("observation", dimensions, "1", "observation, NaN where nothing was observed", y)?;
        writer.numbers("observation_std", dimensions, "1", "standard deviation of the observation error", std)?;
        if self.weights_of(0).iter().any(|w| *w != 1.0) {
            writer.numbers("weight", &["time"], "1", "weight of each time in the cost", self.weights_of(0))?;
        }
        if let Some(truth) = self.truth_of(0) {
            writer.numbers("truth", &["time", "site"], "1", "true state", truth)?;
        }
        Ok(())
    }

    /// Reads the problem that a file holds, whatever else is in there.
    pub(crate) fn from_reader(reader: &mut Reader) -> Result<Self> {
        let help = "give a file that `vi4dvar simulate` wrote, or one of your own as the README describes it";
        reader.expect_kind("a problem", "observation_operator", help)?;
        let model = reader.name_file(Model::from_name(&reader.text("model")?))?;
        let mut parameters = Vec::new();
        for name in model.parameter_names() {
            parameters.push(reader.number(name)?);
        }
        let parameter_std = numbers_of_parameters(reader, model, |name| format!("{name}_std"))?;
        let true_parameters = numbers_of_parameters(reader, model, |name| format!("true_{name}"))?;
        let operator = ObservationOperator {
            function: reader.name_file(PointFunction::from_name(&reader.text("observation_operator")?))?,
            block_size: size(reader.integer("block_size", Some(1))?),
        };
        let time: Array1<f64> = reader.numbers("time", &["time"])?;
        let window = Window {
            times: time.len(),
            assimilated_times: size(reader.integer("assimilated_times", None)?),
            steps_per_time: size(reader.integer("steps_per_time", None)?),
            dt: reader.number("dt")?,
        };
        let mean: Array1<f64> = reader.numbers("background", &["site"])?;
        reader.name_file(window.check())?;
        reader.name_file(operator.check(mean.len()))?;

        let dimensions = observation_dimensions(operator);
        let observations: Array2<f64> = reader.numbers("observation", dimensions)?;
        let observation_std: Array2<f64> = reader.numbers("observation_std", dimensions)?;
        let weights =
            if reader.has("weight") { reader.numbers("weight", &["time"])? } else { Array1::ones(window.times) };
        let truth: Option<Array2<f64>> =
            if reader.has("truth") { Some(reader.numbers("truth", &["time", "site"])?) } else { None };
        let problem = Self {
            model,
            parameters: Array1::from_vec(parameters).insert_axis(Axis(0)),
            parameter_std,
            true_parameters,
            model_error: model_error(reader)?,
            window,
            background: Background {
                error: read_covariance(reader, BACKGROUND)?
                    .ok_or_else(|| one_covariance(reader, BACKGROUND, "neither"))?,
                mean: mean.insert_axis(Axis(0)),
                scale: Array1::ones(1),
            },
            operator,
            observations: observations.insert_axis(Axis(0)),
            observation_std: observation_std.insert_axis(Axis(0)),
            weights: weights.insert_axis(Axis(0)),
            seeds: vec![reader.integer("seed", Some(0))?],
            truth: truth.map(|t| t.insert_axis(Axis(0))),
        };
        reader.name_file(problem.check())?;
        check_times(reader, &time, &window)?;
        Ok(problem)
    }
}

/// The operator's blocks are no sites, so they have a dimension of their own.
fn observation_dimensions(operator: ObservationOperator) -> &'static [&'static str] {
    if operator.block_size == 1 { &["time", "site"] } else { &["time", "block"] }
}

/// Variable and what it is, of an error's deviations and of its covariance.
type CovarianceNames = [&'static str; 4];

const BACKGROUND: CovarianceNames = [
    "background_std",
    "standard deviation of the background error",
    "background_covariance",
    "covariance of the background error",
];
const MODEL_ERROR: CovarianceNames = [
    "model_error_std",
    "standard deviation of the model error",
    "model_error_covariance",
    "covariance of the model error",
];

/// Adds an error's deviations, or its covariance.
fn add_covariance(writer: &mut Writer, names: CovarianceNames, error: &ErrorCovariance, scale: f64) -> Result<()> {
    let [std, about_std, covariance, about_covariance] = names;
    match error.factor_of(0) {
        None => writer.numbers(std, &["site"], "1", about_std, error.std_of(0) * scale.sqrt()),
        Some(factor) => {
            writer.numbers(covariance, &["site", "site_2"], "1", about_covariance, &factor.covariance * scale)
        }
    }
}

/// An error's deviations or its covariance, whichever the file has.
fn read_covariance(reader: &mut Reader, names: CovarianceNames) -> Result<Option<ErrorCovariance>> {
    let [std, _, covariance, _] = names;
    match (reader.has(std), reader.has(covariance)) {
        (true, false) => {
            let std: Array1<f64> = reader.numbers(std, &["site"])?;
            Ok(Some(ErrorCovariance::Diagonal(std.insert_axis(Axis(0)))))
        }
        (false, true) => {
            let matrix = reader.numbers(covariance, &["site", "site_2"])?;
            let factor = reader.name_file(CovarianceFactor::named(covariance, matrix))?;
            Ok(Some(ErrorCovariance::Full(vec![factor])))
        }
        (true, true) => Err(one_covariance(reader, names, "both")),
        (false, false) => Ok(None),
    }
}

fn one_covariance(reader: &Reader, [std, _, covariance, _]: CovarianceNames, found: &str) -> Error {
    reader.refuse(
        format!("expected one of the variables `{std}` and `{covariance}`, found {found}"),
        "give the error once",
    )
}

/// The model's errors, where the file has any.
fn model_error(reader: &mut Reader) -> Result<Option<ModelError>> {
    let covariance = read_covariance(reader, MODEL_ERROR)?;
    let has_interval = reader.attributes().iter().any(|(name, _)| name == "model_error_interval");
    match covariance {
        Some(covariance) => {
            Ok(Some(ModelError { covariance, interval: size(reader.integer("model_error_interval", None)?) }))
        }
        None if has_interval => Err(one_covariance(reader, MODEL_ERROR, "the attribute `model_error_interval` alone")),
        None => Ok(None),
    }
}

/// An attribute for each parameter, or none.
fn numbers_of_parameters(
    reader: &Reader,
    model: Model,
    attribute: impl Fn(&str) -> String,
) -> Result<Option<Array2<f64>>> {
    let names: Vec<String> = model.parameter_names().iter().map(|name| attribute(name)).collect();
    if !reader.attributes().iter().any(|(name, _)| names.iter().any(|n| n == name)) {
        return Ok(None);
    }
    let numbers = names.iter().map(|name| reader.number(name)).collect::<Result<Vec<f64>>>()?;
    Ok(Some(Array1::from_vec(numbers).insert_axis(Axis(0))))
}

fn check_times(reader: &Reader, time: &Array1<f64>, window: &Window) -> Result<()> {
    for (t, found) in time.iter().enumerate() {
        let expected = window.time(t);
        // Room for times that were stored as f32.
        let close = (found - expected).abs() <= 1e-6 * (expected + window.dt);
        if !close {
            return Err(reader.refuse(
                format!(
                    "variable `time`: expected {expected} at index {t} (index x steps_per_time x dt), found {found}"
                ),
                "correct the times, or dt and steps_per_time",
            ));
        }
    }
    Ok(())
}

/// A number that is no size of any array stays one that no check accepts.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
