//! A learned distribution of background errors: a variational autoencoder with its normalisation.

use super::Network;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::neural::TrainingHistory;
use crate::problem::CovarianceFactor;
use crate::random::{Stream, standard_normals};
use nalgebra::DMatrix;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

/// KL divergence of a latent from its prior, in nats, below which it carries nothing and is left out.
const DEAD: f64 = 0.01;

/// Whose background errors were learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorOrigin {
    /// The forecast model.
    pub model: Model,
    /// Intervals of the window; 0 is 3DVar.
    pub window: usize,
}

/// Background errors e = x_true - x_b as mean + root D(z), z ~ N(0, I), with D near the identity.
#[derive(Clone, Debug, PartialEq)]
pub struct Vae {
    /// Mean of the training errors: `[sites]`.
    pub mean: Array1<f64>,
    /// Their covariance P_e, what a Gaussian would know of them: `[sites, sites]`.
    pub covariance: Array2<f64>,
    /// A square root of it, root root' = covariance, by whose inverse the errors are whitened: `[sites, sites]`.
    pub root: Array2<f64>,
    /// From a whitened error to mean and log variance of its latents; none for a decoder that was not trained.
    pub encoder: Option<Network>,
    /// From all latents to a whitened error.
    pub decoder: Network,
    /// Deviation s of the reconstruction of a whitened error.
    pub reconstruction_std: f64,
    /// Mean KL divergence of each latent from its prior over the errors held out, in nats: `[latents]`.
    pub latent_kl: Array1<f64>,
    /// How it was trained.
    pub history: TrainingHistory,
    /// Whose errors they are, where that is known.
    pub origin: Option<ErrorOrigin>,
    /// root^-1: `[sites, sites]`.
    whitening: Array2<f64>,
    /// The decoder of the latents that carry something, stretched by 1 / sqrt(1 - s^2): what the noise of the reconstruction
    /// would add to the variance of its errors.
    live: Network,
    /// Which latents those are.
    alive: Vec<usize>,
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
        covariance: Array2<f64>,
        root: Array2<f64>,
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
            ("covariance of the errors", covariance.nrows(), sites),
            ("columns of their covariance", covariance.ncols(), sites),
            ("root of their covariance", root.nrows(), sites),
            ("columns of that root", root.ncols(), sites),
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
        let of = |n: &Network| {
            n.weights.iter().chain([&n.skip]).flatten().chain(n.biases.iter().flatten()).copied().collect()
        };
        let numbers: Vec<f64> = networks.flat_map(|n| -> Vec<f64> { of(n) }).collect();
        let own = mean.iter().chain(&covariance).chain(&root).chain(&latent_kl).chain([&reconstruction_std]);
        let networks = encoder.iter().chain([&decoder]);
        if let Some(found) = networks.filter_map(Network::misfit).next() {
            return refuse("a learned error distribution", "layers that fit together".into(), found);
        }
        if let Some(v) = own.chain(&numbers).find(|v| !v.is_finite()) {
            return refuse("a learned error distribution", "finite numbers".into(), v.to_string());
        }
        if !(0.0..1.0).contains(&reconstruction_std) || latents == 0 || latents > sites {
            let expected = format!("1 to {sites} latents and a reconstruction to within a deviation below 1");
            return refuse("a learned error distribution", expected, format!("{latents}, {reconstruction_std}"));
        }
        // Of a convolution those at all sites, or none.
        let channels = latents / decoder.places;
        let divergence = |c: usize| latent_kl.iter().skip(c).step_by(channels).sum::<f64>() / decoder.places as f64;
        let alive: Vec<usize> = (0..channels).filter(|c| divergence(*c) >= DEAD).collect();
        if alive.is_empty() {
            let found = format!("all {latents} below {DEAD}");
            let help = "lower --reconstruction-std or train for longer";
            return Err(Error::invalid("KL divergence of the latents", "one that carries something", found, help));
        }
        let live =
            decoder.select_channels(&alive).stretched((1.0 - reconstruction_std * reconstruction_std).sqrt().recip());
        let alive = (0..latents).filter(|k| alive.contains(&(k % channels))).collect();
        let inverse = DMatrix::from_fn(sites, sites, |i, j| root[[i, j]]).try_inverse();
        let Some(inverse) = inverse.filter(|inverse| inverse.iter().all(|v| v.is_finite())) else {
            return refuse("root of their covariance", "one of full rank".into(), "a singular one".into());
        };
        let whitening = Array2::from_shape_fn((sites, sites), |(i, j)| inverse[(i, j)]);
        Ok(Self {
            mean,
            covariance,
            root,
            encoder,
            decoder,
            reconstruction_std,
            latent_kl,
            history,
            origin: None,
            whitening,
            live,
            alive,
        })
    }

    /// The Gaussian N(mean, B) as an affine decoder without a ridge.
    ///
    /// # Errors
    /// A mean of another length than B, numbers that are not finite.
    pub fn gaussian(mean: Array1<f64>, b: &CovarianceFactor) -> Result<Self> {
        let sites = mean.len();
        let layer = (vec![Array2::zeros((sites, sites))], vec![Array1::zeros(sites)]);
        let decoder = Network { places: 1, weights: layer.0, biases: layer.1, skip: Array2::eye(sites) };
        let (kl, history) = (Array1::ones(sites), TrainingHistory::default());
        Self::new(mean, b.covariance.clone(), b.lower.clone(), None, decoder, 0.0, kl, history)
    }

    /// The distribution moved to a mean of 0.
    pub(crate) fn centred(&self) -> Self {
        Self { mean: Array1::zeros(self.sites()), ..self.clone() }
    }

    /// Sites of the errors.
    pub fn sites(&self) -> usize {
        self.mean.len()
    }

    /// Latents that carry something: the length of z.
    pub fn latents(&self) -> usize {
        self.live.inputs()
    }

    /// Which of all latents those are.
    pub fn alive(&self) -> &[usize] {
        &self.alive
    }

    /// The decoder of those, to whitened errors.
    pub fn live(&self) -> &Network {
        &self.live
    }

    /// Errors of latents, row by row: `[rows, latents]` to `[rows, sites]`.
    pub fn decode(&self, z: ArrayView2<f64>) -> Array2<f64> {
        self.live.evaluate(z).dot(&self.root.t()) + &self.mean
    }

    /// Errors drawn from it by address: `[count, sites]`. As VAE-Var takes them: without the noise of the reconstruction.
    pub fn draw(&self, seed: u64, count: usize) -> Array2<f64> {
        self.decode(standard_normals(seed, Stream::Latent, 0, 0..count, self.latents()).view())
    }

    /// Errors through encoder and decoder, each by the mean of its latents: `[rows, sites]` both. None without an encoder.
    pub fn reconstruct(&self, errors: ArrayView2<f64>) -> Option<Array2<f64>> {
        let encoder = self.encoder.as_ref()?;
        let [mean, _] = encode(encoder, self.whiten(errors).view());
        Some(self.decoder.evaluate(mean.view()).dot(&self.root.t()) + &self.mean)
    }

    /// root^-1 (e - mean), row by row: `[rows, sites]`.
    pub fn whiten(&self, errors: ArrayView2<f64>) -> Array2<f64> {
        (&errors - &self.mean).dot(&self.whitening.t())
    }

    /// Share of the whitened errors' variance that a reconstruction leaves.
    pub fn lost_variance(&self, errors: ArrayView2<f64>) -> Option<f64> {
        let gap = self.whiten(self.reconstruct(errors)?.view()) - self.whiten(errors);
        let whitened = self.whiten(errors);
        let departure = &whitened - &whitened.mean_axis(Axis(0))?;
        let square = |a: Array2<f64>| a.iter().map(|v| v * v).sum::<f64>();
        Some(square(gap) / square(departure))
    }
}

/// Mean and log variance of the latents of each whitened error: `[rows, latents]` both. At each place of the encoder its
/// outputs are the means and then the log variances.
pub(super) fn encode(encoder: &Network, whitened: ArrayView2<f64>) -> [Array2<f64>; 2] {
    let (rows, places) = (whitened.nrows(), encoder.places);
    let own = encoder.outputs() / places / 2;
    let all = encoder.evaluate(whitened).into_shape_with_order((rows * places, 2 * own)).expect("as many numbers");
    [0, own].map(|first| {
        let part = all.slice(s![.., first..first + own]).to_owned();
        part.into_shape_with_order((rows, places * own)).expect("as many numbers")
    })
}

/// Which terms the cost of a latent z has. All of them make its minimum the most probable state; without the
/// log-determinant it is the most probable z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CostTerms {
    /// 1/2 |z|^2
    pub prior: bool,
    /// log |det dD/dz|
    pub log_det: bool,
}

/// mean + sqrt(scale) root D(z): what is added to a background, with the cost of z.
pub(crate) struct Increment<'a> {
    vae: &'a Vae,
    /// The root of a factor on the errors' variance.
    factor: f64,
    terms: CostTerms,
}

impl<'a> Increment<'a> {
    /// `scale` is a factor on the variance of the errors.
    pub fn new(vae: &'a Vae, scale: f64, terms: CostTerms) -> Self {
        Self { vae, factor: scale.sqrt(), terms }
    }

    /// Length of z.
    pub fn latents(&self) -> usize {
        self.vae.latents()
    }

    /// The increment of z: `[sites]`.
    pub fn of(&self, z: ArrayView1<f64>) -> Array1<f64> {
        self.vae.root.dot(&self.vae.live().at(z).output) * self.factor + &self.vae.mean
    }

    /// d increment / dz: `[sites, latents]`.
    pub fn jacobian(&self, z: ArrayView1<f64>) -> Array2<f64> {
        self.vae.root.dot(&self.vae.live().at(z).jacobian()) * self.factor
    }

    /// From a gradient with respect to the increment to that with respect to D(z).
    fn whitened(&self, g: ArrayView1<f64>) -> Array1<f64> {
        g.dot(&self.vae.root) * self.factor
    }

    /// The cost of z but for J_o, and the gradient of all; `g` is dJ_o/dx0, `[sites]`.
    pub fn cost(&self, z: ArrayView1<f64>, g: ArrayView1<f64>) -> (f64, Vec<f64>) {
        let at = self.vae.live().at(z);
        let mut cost = 0.0;
        let mut gradient = at.pull_back(self.whitened(g).view());
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
