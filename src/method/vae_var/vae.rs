//! A learned distribution of background errors: a variational autoencoder with its normalisation.

use super::Network;
use crate::error::{Error, Result};
use crate::neural::TrainingHistory;
use crate::problem::CovarianceFactor;
use crate::random::{Stream, standard_normals};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

/// KL divergence of a latent from its prior, in nats, below which it carries nothing and is left out.
pub const DEAD: f64 = 0.01;

/// Background errors e = x_true - x_b as mean + std * net(z), z ~ N(0, I).
#[derive(Clone, Debug, PartialEq)]
pub struct Vae {
    /// Mean of the training errors: `[sites]`.
    pub mean: Array1<f64>,
    /// Their standard deviations, by which they are divided: `[sites]`.
    pub std: Array1<f64>,
    /// Their sample covariance, what a Gaussian would know of them: `[sites, sites]`.
    pub covariance: Array2<f64>,
    /// From a standardised error to mean and log variance of its latents; none for a decoder that was not trained.
    pub encoder: Option<Network>,
    /// From all latents to a standardised error.
    pub decoder: Network,
    /// Deviation s of the reconstruction, in standard deviations of the errors.
    pub reconstruction_std: f64,
    /// Mean KL divergence of each latent from its prior over the errors held out, in nats: `[latents]`.
    pub latent_kl: Array1<f64>,
    /// How it was trained.
    pub history: TrainingHistory,
    /// The decoder of the latents that carry something.
    live: Network,
}

impl Vae {
    /// From its parts.
    ///
    /// # Errors
    /// Shapes that do not fit, numbers that are not finite, deviations that are not positive, no latent that carries
    /// anything, more latents than sites.
    #[expect(clippy::too_many_arguments, reason = "what it consists of")]
    pub fn new(
        mean: Array1<f64>,
        std: Array1<f64>,
        covariance: Array2<f64>,
        encoder: Option<Network>,
        decoder: Network,
        reconstruction_std: f64,
        latent_kl: Array1<f64>,
        history: TrainingHistory,
    ) -> Result<Self> {
        let (sites, latents) = (mean.len(), latent_kl.len());
        let refuse =
            |what: &str, expected: String, found: String| Err(Error::invalid(what, expected, found, "train it again"));
        for (what, found, expected) in [
            ("std of the errors", std.len(), sites),
            ("covariance of the errors", covariance.nrows(), sites),
            ("columns of their covariance", covariance.ncols(), sites),
            ("outputs of the decoder", decoder.outputs(), sites),
            ("inputs of the decoder", decoder.inputs(), latents),
            ("inputs of the encoder", encoder.as_ref().map_or(sites, Network::inputs), sites),
            ("outputs of the encoder", encoder.as_ref().map_or(2 * latents, Network::outputs), 2 * latents),
        ] {
            if found != expected {
                return refuse(what, expected.to_string(), found.to_string());
            }
        }
        let networks = encoder.iter().chain([&decoder]);
        let numbers = networks.flat_map(|n| n.weights.iter().flatten().chain(n.biases.iter().flatten()));
        let own = mean.iter().chain(&std).chain(&covariance).chain(&latent_kl).chain([&reconstruction_std]);
        if let Some(v) = own.chain(numbers).find(|v| !v.is_finite()) {
            return refuse("a learned error distribution", "finite numbers".into(), v.to_string());
        }
        if let Some(s) = std.iter().find(|s| **s <= 0.0) {
            return refuse("std of the errors", "deviations > 0".into(), s.to_string());
        }
        if reconstruction_std < 0.0 || latents == 0 || latents > sites {
            let expected = format!("1 to {sites} latents and a reconstruction to within a deviation >= 0");
            return refuse("a learned error distribution", expected, format!("{latents}, {reconstruction_std}"));
        }
        let alive: Vec<usize> = (0..latents).filter(|k| latent_kl[*k] >= DEAD).collect();
        if alive.is_empty() {
            let found = format!("all {latents} below {DEAD}");
            let help = "lower --reconstruction-std or train for longer";
            return Err(Error::invalid("KL divergence of the latents", "one that carries something", found, help));
        }
        let live = decoder.select_inputs(&alive);
        Ok(Self { mean, std, covariance, encoder, decoder, reconstruction_std, latent_kl, history, live })
    }

    /// The Gaussian N(mean, B) as an affine decoder without a ridge.
    ///
    /// # Errors
    /// A mean of another length than B, numbers that are not finite.
    pub fn gaussian(mean: Array1<f64>, b: &CovarianceFactor) -> Result<Self> {
        let (std, sites) = (b.covariance.diag().mapv(f64::sqrt), mean.len());
        let mut rows = b.lower.clone();
        rows.outer_iter_mut().zip(&std).for_each(|(mut row, s)| row /= *s);
        let weights = vec![rows.reversed_axes().as_standard_layout().to_owned()];
        let decoder = Network { weights, biases: vec![Array1::zeros(sites)] };
        let (kl, history) = (Array1::ones(sites), TrainingHistory::default());
        Self::new(mean, std, b.covariance.clone(), None, decoder, 0.0, kl, history)
    }

    /// Sites of the errors.
    pub fn sites(&self) -> usize {
        self.mean.len()
    }

    /// Latents that carry something: the length of z.
    pub fn latents(&self) -> usize {
        self.live.inputs()
    }

    /// The decoder of those, to standardised errors.
    pub fn live(&self) -> &Network {
        &self.live
    }

    /// Errors of latents, row by row: `[rows, latents]` to `[rows, sites]`.
    pub fn decode(&self, z: ArrayView2<f64>) -> Array2<f64> {
        self.live.evaluate(z) * &self.std + &self.mean
    }

    /// Errors drawn from it by address: `[count, sites]`. As VAE-Var takes them: without the noise of the reconstruction.
    pub fn draw(&self, seed: u64, count: usize) -> Array2<f64> {
        self.decode(standard_normals(seed, Stream::Latent, 0, 0..count, self.latents()).view())
    }

    /// Errors through encoder and decoder, each by the mean of its latents: `[rows, sites]` both. None without an encoder.
    pub fn reconstruct(&self, errors: ArrayView2<f64>) -> Option<Array2<f64>> {
        let encoder = self.encoder.as_ref()?;
        let latents = encoder.evaluate(((&errors - &self.mean) / &self.std).view());
        let mean = latents.slice(s![.., ..self.latent_kl.len()]);
        Some(self.decoder.evaluate(mean) * &self.std + &self.mean)
    }

    /// Share of the errors' variance that a reconstruction leaves.
    pub fn lost_variance(&self, errors: ArrayView2<f64>) -> Option<f64> {
        let gap = (&self.reconstruct(errors)? - &errors) / &self.std;
        let departure = (&errors - &errors.mean_axis(Axis(0))?) / &self.std;
        let square = |a: Array2<f64>| a.iter().map(|v| v * v).sum::<f64>();
        Some(square(gap) / square(departure))
    }
}

/// Which terms the cost of a latent z has. All of them make its minimum the most probable state; without the
/// log-determinant it is the most probable z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostTerms {
    /// 1/2 |z|^2
    pub prior: bool,
    /// log |det dD/dz|
    pub log_det: bool,
    /// J_o
    pub observation: bool,
}

impl CostTerms {
    /// All three.
    pub const ALL: Self = Self { prior: true, log_det: true, observation: true };
}

/// mean + sqrt(scale) std net(z): what is added to a background, with the cost of z.
pub(crate) struct Increment<'a> {
    vae: &'a Vae,
    /// `[sites]`
    std: Array1<f64>,
    terms: CostTerms,
}

impl<'a> Increment<'a> {
    /// `scale` is a factor on the variance of the errors.
    pub fn new(vae: &'a Vae, scale: f64, terms: CostTerms) -> Self {
        Self { vae, std: &vae.std * scale.sqrt(), terms }
    }

    /// Length of z.
    pub fn latents(&self) -> usize {
        self.vae.latents()
    }

    /// The increment of z: `[sites]`.
    pub fn of(&self, z: ArrayView1<f64>) -> Array1<f64> {
        self.vae.live().at(z).output * &self.std + &self.vae.mean
    }

    /// d increment / dz: `[sites, latents]`.
    pub fn jacobian(&self, z: ArrayView1<f64>) -> Array2<f64> {
        self.vae.live().at(z).jacobian() * &self.std.view().insert_axis(Axis(1))
    }

    /// J' g: `[sites]` to `[latents]`.
    pub fn pull_back(&self, z: ArrayView1<f64>, g: ArrayView1<f64>) -> Array1<f64> {
        self.vae.live().at(z).pull_back((&g * &self.std).view())
    }

    /// The cost of z but for J_o, and the gradient of all; `g` is dJ_o/dx0, `[sites]`.
    pub fn cost(&self, z: ArrayView1<f64>, g: ArrayView1<f64>) -> (f64, Vec<f64>) {
        let at = self.vae.live().at(z);
        let mut cost = 0.0;
        let mut gradient = at.pull_back((&g * &self.std).view());
        if self.terms.prior {
            cost += 0.5 * z.dot(&z);
            gradient += &z;
        }
        if self.terms.log_det {
            let (volume, by_z) = at.log_volume(self.vae.reconstruction_std);
            cost += volume;
            gradient += &by_z;
        }
        (cost, gradient.to_vec())
    }
}
