//! The recognition network: what it is shown of a window, and what its outputs mean.

use super::{NetworkSettings, Recognized};
use crate::engine::{Listed, LoadedProblem, Members, Row, Terms};
use crate::error::{Error, Result};
use crate::memory;
use crate::model::Model;
use crate::neural::{
    Activation, Architecture, Convolution, Dense, Layers, Matrix, TrainingHistory, gradients, leaves, numbers, tensor,
    tensors,
};
use crate::posterior::Normal;
use crate::problem::{ObservationOperator, Problem};
use burn_tensor::{Device, Tensor};
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

/// Windows that pass through the network on one thread, whatever the number of threads.
pub(super) const PIECE: usize = 16;

/// Windows at a time.
pub(super) const AT_A_TIME: usize = 512;

/// An input further from its mean than this, in deviations, counts as this far.
const FARTHEST: f64 = 20.0;

/// Inputs that are alike everywhere have no deviation: nothing is divided by less than this.
const SMALLEST: f64 = 1e-6;

/// What a network was trained for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Domain {
    pub model: Model,
    pub parameters: Vec<f64>,
    pub sites: usize,
    pub assimilated_times: usize,
    pub steps_per_time: usize,
    pub dt: f64,
    pub operator: ObservationOperator,
}

impl Domain {
    /// That of a problem set.
    ///
    /// # Errors
    /// A control of more than x0, or parameters that differ.
    pub fn of(problem: &Problem) -> Result<Self> {
        if !problem.control().is_state() {
            let layout = problem.control();
            let found = format!("{} errors of the model and {} parameters beside it", layout.errors, layout.parameters);
            let help = "leave out model-error-std and parameter-std, or use another method";
            return Err(Error::invalid("control of amortized inference", "the initial state alone", found, help));
        }
        let parameters = problem.parameters_of(0).to_vec();
        if (1..problem.count()).any(|p| problem.parameters_of(p) != problem.parameters_of(0)) {
            let help = "assimilate them in sets of one model each";
            return Err(Error::invalid("parameters of the model", "the same in every problem", "several", help));
        }
        Ok(Self {
            model: problem.model,
            parameters,
            sites: problem.sites(),
            assimilated_times: problem.window.assimilated_times,
            steps_per_time: problem.window.steps_per_time,
            dt: problem.window.dt,
            operator: problem.operator,
        })
    }

    /// What it says of itself, one part after the other. The number of sites counts where the network is for one alone.
    fn parts(&self, of_any_size: bool) -> Vec<String> {
        let Self { model, parameters, sites, assimilated_times, steps_per_time, dt, operator } = self;
        let mut parts = vec![
            format!("{} with parameters {parameters:?}", model.name()),
            format!("{assimilated_times} assimilated times"),
            format!("{steps_per_time} steps of {dt} per time"),
            format!("operator {} over blocks of {}", operator.function.name(), operator.block_size),
        ];
        if !of_any_size {
            parts.push(format!("{sites} sites"));
        }
        parts
    }
}

/// A recognition network with its weights.
#[derive(Clone, Debug)]
pub struct Recognition {
    pub(super) settings: NetworkSettings,
    pub(super) domain: Domain,
    layers: Layers,
    pub(super) matrices: Vec<Matrix>,
    /// Mean and deviation of each channel of the input: `[channels]`.
    pub(super) input_mean: Vec<f64>,
    pub(super) input_scale: Vec<f64>,
    /// All weights, layer by layer.
    pub(super) parameters: Vec<f64>,
    pub(super) history: TrainingHistory,
}

/// A network that has been run on some windows, for the way back to its weights.
pub(super) struct Forward {
    leaves: Vec<Tensor<2>>,
    output: Tensor<2>,
}

impl Forward {
    /// From the gradient with respect to the outputs to that with respect to the weights.
    pub fn pull_back(self, by_outputs: Vec<f32>) -> Vec<f64> {
        let by_outputs = tensor(by_outputs, self.output.dims(), &Device::flex().autodiff());
        gradients(&(self.output * by_outputs).sum(), &self.leaves)
    }
}

/// What the network says of one window, in physical units: N(mean, diag(std)^2 + columns columns').
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// `[sites]`
    pub mean: Array1<f64>,
    /// Of a delta empty, else `[sites]`.
    pub std: Array1<f64>,
    /// `[sites, rank]`, of rank 0 but for the low rank.
    pub columns: Array2<f64>,
}

impl Said {
    fn normal(self) -> Result<Normal> {
        if self.columns.ncols() == 0 {
            return Ok(Normal::diagonal(self.mean, self.std));
        }
        let covariance = Array2::from_diag(&self.std.mapv(|s| s * s)) + self.columns.dot(&self.columns.t());
        Normal::of_covariance(self.mean, covariance.view())
    }
}

impl Recognition {
    /// A network of weights 0, which says nothing yet.
    pub(super) fn new(settings: NetworkSettings, domain: Domain) -> Result<Self> {
        settings.check()?;
        let architecture = match settings.architecture {
            Some(architecture) => architecture,
            None if domain.model.is_ring() && domain.operator.block_size == 1 => Architecture::Convolution,
            None => Architecture::Dense,
        };
        let settings = NetworkSettings { architecture: Some(architecture), ..settings };
        let refuse = |what: &str, expected: String, found: String| {
            Err(Error::invalid(what, expected, found, "choose --architecture dense, or change it"))
        };
        let (inputs, outputs) = (channels(domain.assimilated_times), outputs(&settings));
        let (width, hidden, gain) = (settings.network_width, settings.network_layers, GAIN);
        let activation = Activation::Relu;
        let layers = match architecture {
            Architecture::Convolution => {
                let radius = settings.network_radius;
                if !domain.model.is_ring() {
                    let found = domain.model.name().into();
                    return refuse("architecture", "a model on a ring of equal sites for convolutions".into(), found);
                }
                if domain.sites < 2 * radius + 1 {
                    let expected = format!("at least {} sites for this radius", 2 * radius + 1);
                    return refuse("network-radius", expected, domain.sites.to_string());
                }
                Layers::Convolution(Convolution {
                    inputs,
                    width,
                    hidden,
                    outputs,
                    radius,
                    residual: true,
                    activation,
                    gain,
                })
            }
            Architecture::Dense => {
                let n = domain.sites;
                let (inputs, outputs) = (n.saturating_mul(inputs), n.saturating_mul(outputs));
                // With Adam's two means and the gradient.
                let rows = width.saturating_mul(hidden).saturating_add(inputs).saturating_add(outputs);
                memory::check(
                    "the network's weights",
                    &[4, rows, width],
                    "choose fewer sites, times or --network-width",
                )?;
                Layers::Dense(Dense { inputs, width, hidden, outputs, activation, gain })
            }
        };
        let matrices = layers.matrices();
        let parameters = vec![0.0; matrices.iter().map(Matrix::len).sum()];
        let (input_mean, input_scale) = (vec![0.0; inputs_of(&domain)], vec![1.0; inputs_of(&domain)]);
        let history = TrainingHistory::default();
        Ok(Self { settings, domain, layers, matrices, input_mean, input_scale, parameters, history })
    }

    /// What it is and what it was trained for.
    pub fn settings(&self) -> &NetworkSettings {
        &self.settings
    }

    /// The course of its training.
    pub fn history(&self) -> &TrainingHistory {
        &self.history
    }

    /// Weights in it.
    pub fn weights(&self) -> usize {
        self.parameters.len()
    }

    /// In a few words.
    pub(super) fn summary(&self) -> String {
        let passes = self.settings.passes;
        format!(
            "{} network of {} weights, {passes} pass{}, trained on {} sites",
            self.settings.architecture.map_or("", Architecture::name),
            self.weights(),
            if passes == 1 { "" } else { "es" },
            self.domain.sites
        )
    }

    /// Refuses a problem that it was not trained for. A convolution takes any number of sites that it can see around.
    ///
    /// # Errors
    /// The first difference.
    pub(super) fn check(&self, problem: &Problem) -> Result<()> {
        let found = Domain::of(problem)?;
        let of_any_size = matches!(self.layers, Layers::Convolution(_));
        let pairs = self.domain.parts(of_any_size).into_iter().zip(found.parts(of_any_size));
        if let Some((expected, found)) = pairs.into_iter().find(|(a, b)| a != b) {
            let help = "train another network for it";
            return Err(Error::invalid("problem of a recognition network", expected, found, help));
        }
        if let Layers::Convolution(Convolution { radius, .. }) = self.layers
            && found.sites < 2 * radius + 1
        {
            let expected = format!("at least {} sites", 2 * radius + 1);
            let help = "train a dense network for it";
            return Err(Error::invalid("problem of a recognition network", expected, found.sites.to_string(), help));
        }
        Ok(())
    }

    /// The Gaussian that it says of each problem.
    ///
    /// # Errors
    /// A problem that it was not trained for, an engine's failure, a network that says points.
    pub fn infer(&self, problem: &Problem, loaded: &mut LoadedProblem) -> Result<Vec<Normal>> {
        if self.settings.posterior == Recognized::Delta {
            let help = "train one with --posterior mean-field, or use it with 4dvar";
            return Err(Error::invalid("recognition network", "one that says Gaussians", "one that says points", help));
        }
        self.say(problem, loaded)?.into_iter().map(Said::normal).collect()
    }

    /// The mean that it says of each problem: `[P, sites]`.
    ///
    /// # Errors
    /// A problem that it was not trained for, an engine's failure.
    pub fn means(&self, problem: &Problem, loaded: &mut LoadedProblem) -> Result<Array2<f64>> {
        let mut means = Array2::zeros((problem.count(), problem.sites()));
        means.outer_iter_mut().zip(self.say(problem, loaded)?).for_each(|(mut row, said)| row.assign(&said.mean));
        Ok(means)
    }

    fn say(&self, problem: &Problem, loaded: &mut LoadedProblem) -> Result<Vec<Said>> {
        self.check(problem)?;
        let all: Vec<u32> = (0..problem.count() as u32).collect();
        let mut said = Vec::with_capacity(all.len());
        for problems in all.chunks(AT_A_TIME) {
            let mut points = backgrounds(problem, problems);
            for pass in 0..self.settings.passes {
                let inputs = self.inputs(problem, loaded, problems, points.view())?;
                let outputs = self.outputs(&self.parameters, &inputs, problem.sites());
                let own = self.decode(problem, problems, points.view(), &outputs);
                if own.iter().any(|s| s.mean.iter().chain(&s.std).chain(&s.columns).any(|v| !v.is_finite())) {
                    let help = "the window is unlike all that the network was trained on: use another method";
                    return Err(Error::invalid("what the network says", "finite numbers", "others", help));
                }
                points.outer_iter_mut().zip(&own).for_each(|(mut point, own)| point.assign(&own.mean));
                if pass + 1 == self.settings.passes {
                    said.extend(own);
                }
            }
        }
        Ok(said)
    }

    /// What the network is shown of some problems around `points: [rows, sites]`: `[rows, sites, channels]`. At each site, of
    /// each assimilated time the departure of the observation from what the point predicts, in its deviation; the inverse of
    /// that deviation, 0 where nothing is assimilated; the state that the point leads to; then the background's deviation,
    /// the point relative to x_b and dJ/dx0 there, in that deviation. What may be large is shown by its asinh.
    pub(super) fn inputs(
        &self,
        problem: &Problem,
        loaded: &mut LoadedProblem,
        problems: &[u32],
        points: ArrayView2<f64>,
    ) -> Result<Vec<f32>> {
        let rows: Vec<_> = problems.iter().map(|p| Row { problem: *p, member: 0 }).collect();
        let members = || Members::Listed(Listed { states: points, rows: &rows, amplitude: 0.0 });
        let trajectories = loaded.forecast(members())?;
        let gradient = loaded.gradient(members(), Terms::ALL)?.gradient;
        let (sites, times) = (problem.sites(), problem.window.assimilated_times);
        let channels = channels(times);
        let mut inputs = vec![0.0; rows.len() * sites * channels];
        inputs.par_chunks_mut(sites * channels).enumerate().for_each(|(k, out)| {
            let p = problems[k] as usize;
            let (y, precision) = (problem.observations_of(p), problem.observation_precision(p));
            let (background, std) = (problem.background.mean_of(p), problem.background.std_of(p));
            let mut put = |site: usize, channel: usize, value: f64| {
                let scaled = (value - self.input_mean[channel]) / self.input_scale[channel];
                let bounded = if scaled.is_finite() { scaled.clamp(-FARTHEST, FARTHEST) } else { 0.0 };
                out[site * channels + channel] = bounded as f32;
            };
            for t in 0..times {
                let state = trajectories.slice(s![k, t, ..]);
                let predicted = problem.operator.apply(&state.to_vec());
                for i in 0..sites {
                    let j = i / problem.operator.block_size;
                    let root = precision[[t, j]].sqrt();
                    let departure = if root > 0.0 { (y[[t, j]] - predicted[j]) * root } else { 0.0 };
                    put(i, t, departure.asinh());
                    put(i, times + t, root);
                    put(i, 2 * times + t, state[i]);
                }
            }
            for i in 0..sites {
                put(i, 3 * times, std[i]);
                put(i, 3 * times + 1, (points[[k, i]] - background[i]) / std[i]);
                put(i, 3 * times + 2, (std[i] * gradient[[k, i]]).asinh());
            }
        });
        Ok(inputs)
    }

    /// Takes mean and deviation of the channels from inputs that were made without them. The point relative to x_b stays as it
    /// is: it is 0 at first.
    pub(super) fn standardise(&mut self, inputs: &[f32]) {
        let channels = self.input_mean.len();
        let count = (inputs.len() / channels) as f64;
        for channel in (0..channels).filter(|c| *c != channels - 2) {
            let values = || inputs.iter().skip(channel).step_by(channels).map(|v| f64::from(*v));
            let mean = values().sum::<f64>() / count;
            let std = (values().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count).sqrt();
            self.input_mean[channel] = mean;
            self.input_scale[channel] = if std > SMALLEST { std } else { 1.0 };
        }
    }

    /// Inputs to outputs: `[rows, sites, channels]` to `[rows, sites, outputs]`.
    pub(super) fn outputs(&self, parameters: &[f64], inputs: &[f32], sites: usize) -> Vec<f32> {
        let columns = sites * self.input_mean.len();
        let weights = tensors(&self.matrices, parameters);
        let pass = |piece: &[f32]| {
            let shape = [piece.len() / columns, columns];
            numbers(self.layers.evaluate(&weights, tensor(piece.to_vec(), shape, &Device::flex())))
        };
        inputs.par_chunks(PIECE * columns).map(pass).collect::<Vec<_>>().concat()
    }

    /// The same for one piece, with the way back.
    pub(super) fn forward(&self, parameters: &[f64], inputs: &[f32], sites: usize) -> (Vec<f32>, Forward) {
        let columns = sites * self.input_mean.len();
        let leaves = leaves(&self.matrices, parameters);
        let input = tensor(inputs.to_vec(), [inputs.len() / columns, columns], &Device::flex().autodiff());
        let output = self.layers.evaluate(&leaves, input);
        (numbers(output.clone().inner()), Forward { leaves, output })
    }

    /// Numbers that the network says of each site.
    pub(super) fn per_site(&self) -> usize {
        outputs(&self.settings)
    }

    /// What outputs mean around `points: [rows, sites]`. At each site: the step of the mean from the point; the logarithm of
    /// the deviation; the site's place in each column; all in background deviations.
    pub(super) fn decode(
        &self,
        problem: &Problem,
        problems: &[u32],
        points: ArrayView2<f64>,
        outputs: &[f32],
    ) -> Vec<Said> {
        let (sites, each) = (problem.sites(), self.per_site());
        let one = |(k, own): (usize, &[f32])| {
            let std = problem.background.std_of(problems[k] as usize);
            let at = |i: usize, o: usize| f64::from(own[i * each + o]);
            Said {
                mean: Array1::from_shape_fn(sites, |i| points[[k, i]] + std[i] * at(i, 0)),
                std: Array1::from_shape_fn(if each > 1 { sites } else { 0 }, |i| std[i] * at(i, 1).exp()),
                columns: Array2::from_shape_fn((sites, each.saturating_sub(2)), |(i, r)| std[i] * at(i, 2 + r)),
            }
        };
        outputs.chunks_exact(sites * each).enumerate().map(one).collect()
    }
}

/// x_b of some problems: `[rows, sites]`.
pub(super) fn backgrounds(problem: &Problem, problems: &[u32]) -> Array2<f64> {
    let mut points = Array2::zeros((problems.len(), problem.sites()));
    for (mut point, p) in points.axis_iter_mut(Axis(0)).zip(problems) {
        point.assign(&problem.background.mean_of(*p as usize));
    }
    points
}

/// The deviation of the outputs at the start: small, so that q starts near the prior, but not 0, where columns would all stay.
const GAIN: f64 = 0.05;

/// Channels of the input.
pub(super) fn channels(times: usize) -> usize {
    3 * times + 3
}

fn inputs_of(domain: &Domain) -> usize {
    channels(domain.assimilated_times)
}

/// Numbers that a network says of each site.
pub(super) fn outputs(settings: &NetworkSettings) -> usize {
    match settings.posterior {
        Recognized::Delta => 1,
        Recognized::MeanField => 2,
        Recognized::LowRank => 2 + settings.posterior_rank,
    }
}
