//! Files of trained networks: weights, what they were trained for, and the course of the training.

use super::network::{Domain, Recognition, channels, outputs};
use super::{NetworkSettings, Recognized};
use crate::error::Result;
use crate::model::Model;
use crate::netcdf::{Attributes, Reader, Writer};
use crate::neural::{Architecture, TrainingHistory};
use crate::problem::{ObservationOperator, PointFunction, check_finite};
use ndarray::{Array1, ArrayView1};
use std::path::Path;

/// The attribute that says what a file is, and its value.
const KIND: (&str, &str) = ("network", "recognition");

impl Recognition {
    /// Writes the network with its training history. The file appears whole or not at all.
    ///
    /// # Errors
    /// A file that exists (unless `overwrite`), or a failing disk.
    pub fn write(&self, path: impl AsRef<Path>, attributes: &Attributes, overwrite: bool) -> Result<()> {
        let mut writer = Writer::default();
        let row = |values| ArrayView1::from(values);
        writer.numbers("weights", &["weight"], "1", "weights and biases, layer by layer", row(&self.parameters[..]))?;
        writer.numbers("input_mean", &["channel"], "1", "mean of each input", row(&self.input_mean[..]))?;
        writer.numbers("input_scale", &["channel"], "1", "deviation of each input", row(&self.input_scale[..]))?;
        let Domain { model, parameters, sites, assimilated_times, steps_per_time, dt, operator } = &self.domain;
        writer.numbers("model_parameters", &["parameter"], "1", "parameters of the model", row(&parameters[..]))?;
        if !self.history.held_out.is_empty() {
            let training = row(&self.history.training[..self.history.held_out.len()]);
            writer.numbers("training_loss", &["epoch"], "1", "mean loss during each epoch", training)?;
            let held_out = row(&self.history.held_out[..]);
            writer.numbers("held_out_loss", &["epoch"], "1", "mean loss on what is held out, after it", held_out)?;
        }
        let settings = &self.settings;
        let mut own = Attributes::new();
        own.set(KIND.0, KIND.1)
            .set("posterior", settings.posterior.name())
            .set("posterior_rank", settings.posterior_rank)
            .set("architecture", settings.architecture.map_or("", Architecture::name))
            .set("network_width", settings.network_width)
            .set("network_layers", settings.network_layers)
            .set("network_radius", settings.network_radius)
            .set("passes", settings.passes)
            .set("model", model.name())
            .set("sites", *sites)
            .set("assimilated_times", *assimilated_times)
            .set("steps_per_time", *steps_per_time)
            .set("dt", *dt)
            .set("observation_operator", operator.function.name())
            .set("block_size", operator.block_size)
            .set("best_epoch", self.history.best)
            .set("loss_before_training", self.history.before)
            .set("stopped_early", u64::from(self.history.stopped_early));
        writer.attributes(&own);
        writer.attributes(attributes);
        writer.write(path.as_ref(), overwrite)
    }

    /// Reads a network; nothing of what it was trained on is needed.
    ///
    /// # Errors
    /// A file that is missing, damaged or no network; another number of weights than its layers have; a number that is not
    /// finite.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let mut reader = Reader::open(path.as_ref())?;
        let wrong = |reader: &Reader, name: &str, expected: String, found: String| {
            let help = "give a file that `vi4dvar train amortized` wrote";
            reader.refuse(format!("{name}: expected {expected}, found {found}"), help)
        };
        let kind = reader.text(KIND.0).unwrap_or_else(|_| "none".into());
        if kind != KIND.1 {
            return Err(wrong(&reader, "attribute `network`", format!("{:?}", KIND.1), kind));
        }
        let known = |name: &str, known: &[&str]| -> Result<usize> {
            let found = reader.text(name)?;
            match known.iter().position(|k| *k == found) {
                Some(k) => Ok(k),
                None => {
                    let expected = format!("one of {}", known.join(", "));
                    Err(wrong(&reader, &format!("attribute `{name}`"), expected, found))
                }
            }
        };
        let architectures = [Architecture::Convolution, Architecture::Dense];
        let count = |name: &str| reader.integer(name, None).map(|n| n as usize);
        let settings = NetworkSettings {
            posterior: Recognized::ALL[known("posterior", &Recognized::ALL.map(Recognized::name))?],
            posterior_rank: count("posterior_rank")?,
            architecture: Some(architectures[known("architecture", &architectures.map(Architecture::name))?]),
            network_width: count("network_width")?,
            network_layers: count("network_layers")?,
            network_radius: count("network_radius")?,
            passes: count("passes")?,
        };
        let operator = ObservationOperator {
            function: reader.name_file(PointFunction::from_name(&reader.text("observation_operator")?))?,
            block_size: count("block_size")?,
        };
        let (sites, assimilated_times) = (count("sites")?, count("assimilated_times")?);
        // What no network has would ask for more memory than there is.
        if let Some((name, found)) = [("sites", sites), ("assimilated_times", assimilated_times)]
            .into_iter()
            .find(|(_, n)| !(1..=1 << 16).contains(n))
        {
            return Err(wrong(&reader, &format!("attribute `{name}`"), "1 to 65536".into(), found.to_string()));
        }
        let domain = Domain {
            model: reader.name_file(Model::from_name(&reader.text("model")?))?,
            sites,
            assimilated_times,
            steps_per_time: count("steps_per_time")?,
            dt: reader.number("dt")?,
            operator,
            parameters: Vec::new(),
        };
        let best = count("best_epoch")?;
        let stopped_early = count("stopped_early")? != 0;
        let mut row = |name: &str, dimension: &str| -> Result<Vec<f64>> {
            let values: Array1<f64> = reader.numbers(name, &[dimension])?;
            reader.name_file(check_finite(&format!("variable `{name}`"), values.iter()))?;
            Ok(values.to_vec())
        };
        let parameters = row("model_parameters", "parameter")?;
        let weights = row("weights", "weight")?;
        let (input_mean, input_scale) = (row("input_mean", "channel")?, row("input_scale", "channel")?);
        let mut history = TrainingHistory { best, stopped_early, ..TrainingHistory::default() };
        if reader.has("held_out_loss") {
            history.training = reader.numbers::<ndarray::Ix1>("training_loss", &["epoch"])?.to_vec();
            history.held_out = reader.numbers::<ndarray::Ix1>("held_out_loss", &["epoch"])?.to_vec();
            history.before = reader.number("loss_before_training")?;
        }
        if best > history.held_out.len() {
            let message = format!("best_epoch: expected at most {}, found {best}", history.held_out.len());
            return Err(reader.refuse(message, "train it again"));
        }
        reader.name_file(settings.check())?;
        // A network is made of zeros first: no more of them than the file has.
        let expected = weights_of(&settings, sites, assimilated_times);
        if weights.len() as u64 != expected {
            let (expected, found) = (format!("{expected} numbers"), weights.len().to_string());
            return Err(wrong(&reader, "variable `weights`", expected, found));
        }
        let mut network = reader.name_file(Self::new(settings, Domain { parameters, ..domain }))?;
        for (name, found, expected) in [
            ("input_mean", input_mean.len(), network.input_mean.len()),
            ("input_scale", input_scale.len(), network.input_scale.len()),
            ("model_parameters", network.domain.parameters.len(), network.domain.model.parameter_names().len()),
        ] {
            if found != expected {
                return Err(wrong(
                    &reader,
                    &format!("variable `{name}`"),
                    format!("{expected} numbers"),
                    found.to_string(),
                ));
            }
        }
        if let Some(scale) = input_scale.iter().find(|s| **s <= 0.0) {
            return Err(wrong(&reader, "variable `input_scale`", "deviations > 0".into(), scale.to_string()));
        }
        network.parameters = weights;
        network.input_mean = input_mean;
        network.input_scale = input_scale;
        network.history = history;
        Ok(network)
    }
}

/// Weights and biases of a network of these settings, which have been checked, for a window of at most 65536 sites and times.
fn weights_of(settings: &NetworkSettings, sites: usize, assimilated_times: usize) -> u64 {
    let of = |n: usize| n as u64;
    let (width, hidden) = (of(settings.network_width), of(settings.network_layers));
    let (inputs, outputs) = (of(channels(assimilated_times)), of(outputs(settings)));
    let (seen, places) = match settings.architecture {
        Some(Architecture::Dense) => (1, of(sites)),
        _ => (2 * of(settings.network_radius) + 1, 1),
    };
    let layer = |inputs: u64, outputs: u64| (inputs + 1) * outputs;
    layer(seen * places * inputs, width) + (hidden - 1) * layer(seen * width, width) + layer(width, places * outputs)
}
