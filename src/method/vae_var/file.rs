//! Files of a learned error distribution: weights, normalisation and the course of the training, in NetCDF.

use super::{ErrorOrigin, Network, Vae};
use crate::error::Result;
use crate::model::Model;
use crate::netcdf::{Attributes, Reader, Writer};
use crate::neural::TrainingHistory;
use ndarray::{Array1, Array2};
use std::path::Path;

impl Vae {
    /// Writes it, with `attributes`.
    ///
    /// # Errors
    /// A file that exists (unless `overwrite`), or a failing disk. On failure nothing is left behind.
    pub fn write(&self, path: impl AsRef<Path>, attributes: &Attributes, overwrite: bool) -> Result<()> {
        let names: Vec<_> = self.encoder.iter().map(|n| ("encoder", n)).chain([("decoder", &self.decoder)]).collect();
        let layers: Vec<_> = (names.iter())
            .flat_map(|(name, network)| (0..network.weights.len()).map(move |l| Layer::new(name, network, l)))
            .collect();
        let mut writer = Writer::default();
        writer.numbers("error_mean", &["site"], "1", "mean of the background errors", &self.mean)?;
        let long = "sample covariance of the background errors";
        writer.numbers("error_covariance", &["site", "site_2"], "1", long, &self.covariance)?;
        let long = "a square root of that, which whitens them";
        writer.numbers("error_root", &["site", "site_2"], "1", long, &self.root)?;
        let long = "mean KL divergence of a latent from its prior, in nats";
        writer.numbers("latent_kl", &["latent"], "1", long, &self.latent_kl)?;
        for Layer { weight, bias, from, to, weights, biases } in &layers {
            writer.numbers(weight, &[from, to], "1", "weights of a layer", *weights)?;
            writer.numbers(bias, &[to], "1", "bias of a layer", *biases)?;
        }
        for (name, network) in &names {
            let (variable, from, to) = if *name == "encoder" {
                ("encoder_skip", "site", "encoder_outputs")
            } else {
                ("decoder_skip", "latent", "site")
            };
            writer.numbers(variable, &[from, to], "1", "what goes past all layers", &network.skip)?;
        }
        let TrainingHistory { training, held_out, before, best, stopped_early } = &self.history;
        if !training.is_empty() {
            let long = "mean loss over the training set";
            writer.numbers("training_loss", &["epoch"], "1", long, Array1::from_vec(training.clone()))?;
            let long = "mean loss over the errors held out";
            writer.numbers("held_out_loss", &["epoch"], "1", long, Array1::from_vec(held_out.clone()))?;
        }
        let mut own = Attributes::new();
        own.set("kind", KIND)
            .set("places", self.decoder.places)
            .set("reconstruction_std", self.reconstruction_std)
            .set("best_epoch", *best)
            .set("stopped_early", usize::from(*stopped_early));
        if !training.is_empty() {
            own.set("loss_before_training", *before);
        }
        if let Some(ErrorOrigin { model, window }) = &self.origin {
            own.set("error_model", model.name()).set("error_window", *window);
        }
        writer.attributes(&own);
        writer.attributes(attributes);
        writer.write(path.as_ref(), overwrite)
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// A file that is missing, damaged or not of this kind; weights of other shapes or that are not finite.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let mut reader = Reader::open(path.as_ref())?;
        if reader.text("kind").ok().as_deref() != Some(KIND) {
            let help = "make one by `vi4dvar train vae`";
            return Err(reader.refuse("expected a learned error distribution, found another NetCDF file", help));
        }
        let mean: Array1<f64> = reader.numbers("error_mean", &["site"])?;
        let covariance = reader.numbers("error_covariance", &["site", "site_2"])?;
        let root = reader.numbers("error_root", &["site", "site_2"])?;
        let latent_kl = reader.numbers("latent_kl", &["latent"])?;
        let places = reader.integer("places", Some(1))? as usize;
        let encoder = if reader.has("encoder_weight_0") {
            Some(network(&mut reader, "encoder", places, ["site", "encoder_outputs"])?)
        } else {
            None
        };
        let decoder = network(&mut reader, "decoder", places, ["latent", "site"])?;
        let curve = |reader: &mut Reader, name: &str| -> Result<Vec<f64>> {
            if !reader.has(name) {
                return Ok(Vec::new());
            }
            Ok(reader.numbers::<ndarray::Ix1>(name, &["epoch"])?.to_vec())
        };
        let history = TrainingHistory {
            training: curve(&mut reader, "training_loss")?,
            held_out: curve(&mut reader, "held_out_loss")?,
            before: if reader.has("held_out_loss") { reader.number("loss_before_training")? } else { 0.0 },
            best: reader.integer("best_epoch", Some(0))? as usize,
            stopped_early: reader.integer("stopped_early", Some(0))? == 1,
        };
        let s = reader.number("reconstruction_std")?;
        if history.best > history.held_out.len() {
            let message = format!("best_epoch: expected at most {}, found {}", history.held_out.len(), history.best);
            return Err(reader.refuse(message, "train it again"));
        }
        let origin = match reader.attributes().get("error_model") {
            None => None,
            Some(_) => Some(ErrorOrigin {
                model: reader.name_file(Model::from_name(&reader.text("error_model")?))?,
                window: reader.integer("error_window", None)? as usize,
            }),
        };
        let read = Self::new(mean, covariance, root, encoder, decoder, s, latent_kl, history);
        let mut own = reader.name_file(read)?;
        own.origin = origin;
        Ok(own)
    }
}

/// What such a file says that it is.
const KIND: &str = "background error VAE";

/// The dimensions of a layer's weights: what it sees around each place, and what it gives there.
fn dimensions(name: &str, layer: usize) -> [String; 2] {
    [format!("{name}_seen_{layer}"), format!("{name}_{layer}")]
}

/// The layers of a network, as many as there are.
fn network(reader: &mut Reader, name: &str, places: usize, ends: [&str; 2]) -> Result<Network> {
    let (mut weights, mut biases) = (Vec::<Array2<f64>>::new(), Vec::<Array1<f64>>::new());
    while weights.is_empty() || reader.has(&format!("{name}_weight_{}", weights.len())) {
        let l = weights.len();
        let [from, to] = dimensions(name, l);
        weights.push(reader.numbers(&format!("{name}_weight_{l}"), &[&from, &to])?);
        biases.push(reader.numbers(&format!("{name}_bias_{l}"), &[&to])?);
    }
    let skip = reader.numbers(&format!("{name}_skip"), &ends)?;
    Ok(Network { places, weights, biases, skip })
}

/// A layer with the names of its variables and dimensions.
struct Layer<'a> {
    weight: String,
    bias: String,
    from: String,
    to: String,
    weights: &'a Array2<f64>,
    biases: &'a Array1<f64>,
}

impl<'a> Layer<'a> {
    fn new(name: &str, network: &'a Network, l: usize) -> Self {
        let [from, to] = dimensions(name, l);
        Self {
            weight: format!("{name}_weight_{l}"),
            bias: format!("{name}_bias_{l}"),
            from,
            to,
            weights: &network.weights[l],
            biases: &network.biases[l],
        }
    }
}
