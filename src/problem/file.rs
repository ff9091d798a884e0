//! Problem files: one assimilation problem in NetCDF, read and written.

use super::{Background, BackgroundError, CovarianceFactor, ObservationOperator, PointFunction, Problem, Window};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::netcdf::{Attributes, Reader, Writer};
use ndarray::{Array1, Array2, Axis};
use std::path::Path;

/// The variables of a problem file.
pub(crate) const VARIABLES: [&str; 8] = [
    "time",
    "background",
    "background_std",
    "background_covariance",
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
        match &self.background.error {
            BackgroundError::Diagonal(_) => writer.numbers(
                "background_std",
                &["site"],
                "1",
                "standard deviation of the background error",
                self.background.std_of(0),
            )?,
            BackgroundError::Full(b) => writer.numbers(
                "background_covariance",
                &["site", "site_2"],
                "1",
                "covariance of the background error",
                &b.covariance * self.background.scale_of(0),
            )?,
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
        let model = reader.name_file(Model::from_name(&reader.text("model")?))?;
        refuse_what_is_not_assimilated(reader, model)?;
        let mut parameters = Vec::new();
        for name in model.parameter_names() {
            parameters.push(reader.number(name)?);
        }
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
            parameters: Array2::from_shape_fn((1, parameters.len()), |(_, i)| parameters[i]),
            window,
            background: Background {
                error: background_error(reader)?,
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

fn background_error(reader: &mut Reader) -> Result<BackgroundError> {
    match (reader.has("background_std"), reader.has("background_covariance")) {
        (true, false) => {
            let std: Array1<f64> = reader.numbers("background_std", &["site"])?;
            Ok(BackgroundError::Diagonal(std.insert_axis(Axis(0))))
        }
        (false, true) => {
            let covariance = reader.numbers("background_covariance", &["site", "site_2"])?;
            Ok(BackgroundError::Full(reader.name_file(CovarianceFactor::new(covariance))?))
        }
        (both, _) => Err(reader.refuse(
            format!(
                "expected one of the variables `background_std` and `background_covariance`, found {}",
                if both { "both" } else { "neither" }
            ),
            "give the background error once",
        )),
    }
}

/// Silence would assimilate another problem than the one in the file.
fn refuse_what_is_not_assimilated(reader: &Reader, model: Model) -> Result<()> {
    let refuse = |kind: &str, name: &str, what: &str| {
        Err(reader.refuse(
            format!("{kind} `{name}`: this version does not assimilate {what}"),
            "remove it to assimilate without, or use a later version",
        ))
    };
    let (variables, attributes) = (reader.variables(), reader.attributes());
    let names = variables.iter().map(|n| ("variable", n.as_str()));
    for (kind, name) in names.chain(attributes.iter().map(|(n, _)| ("global attribute", n))) {
        if name.starts_with("model_error") {
            return refuse(kind, name, "model error (weak constraint)");
        }
        if name.strip_suffix("_std").is_some_and(|stem| model.parameter_names().contains(&stem)) {
            return refuse(kind, name, "model parameters (a prior on one)");
        }
    }
    Ok(())
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
