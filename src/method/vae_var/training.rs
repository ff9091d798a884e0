//! Trains the autoencoder: reconstruction of whitened errors to within s, and the latents' divergence from N(0, I).
//!
//! Encoder and decoder start as those of the Gaussian with the errors' covariance, probabilistic PCA (Tipping & Bishop
//! 1999): u = sqrt(1 - s^2) z and back, with networks beside them that say nothing yet. What is learned is what is not
//! Gaussian; the weights that are kept are those of the lowest loss on what is held out.
//!
//! On a ring of equal sites both are convolutions: errors are alike at all sites, so that one of n sites teaches n times.

use super::vae::encode;
use super::{Network, Vae, VaeSettings};
use crate::error::{Error, Result};
use crate::method::{Observer, WatchedTraining};
use crate::model::Model;
use crate::neural::{self, Activation, Architecture, Convolution, Dense, Layers, Learner, Matrix, TrainingSettings};
use crate::random::{Stream, standard_normals};
use burn_tensor::{Device, Tensor};
use nalgebra::{DMatrix, SymmetricEigen};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

impl VaeSettings {
    /// Trains on background errors, the first of them; the last ones are held out to judge by.
    ///
    /// # Errors
    /// Settings that cannot work, too few errors, errors that are not finite or do not vary, a caller that ends it before
    /// anything is learned.
    pub fn train(
        &self,
        errors: ArrayView2<f64>,
        model: Model,
        training: &TrainingSettings,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<Vae> {
        let (count, sites) = errors.dim();
        self.check(model, sites)?;
        training.check()?;
        let (mean, covariance) = self.moments(errors, model, training)?;
        let architecture = self.architecture(model);
        let held_out = training.held_out_of(count)?;
        let (root, whitening) = roots(&covariance, architecture)?;
        let places = if architecture == Architecture::Convolution { sites } else { 1 };
        let latents = self.latents.unwrap_or(sites);
        let mut learner = VaeLearner {
            whitened: (&errors - &mean).dot(&whitening),
            encoder: self.layers(architecture, sites / places, 2 * latents / places),
            decoder: self.layers(architecture, latents / places, sites / places),
            places,
            latents,
            s: self.reconstruction_std,
            seed,
        };
        let matrices = learner.matrices();
        let mut theta = neural::initial(&matrices, seed);
        let units = neural::units(&matrices);
        let watch = &mut WatchedTraining { method: "VAE", observer };
        let history = neural::train(&mut learner, &mut theta, units, count, training, seed, watch)?;
        let (encoder, decoder) = learner.networks(&theta);
        let judged = learner.whitened.slice(s![count - held_out.., ..]);
        let divergence = learner.divergence(&encoder, judged);
        let s = self.reconstruction_std;
        Vae::new(mean, covariance, root, Some(encoder), decoder, s, divergence, history)
    }

    /// A network that says nothing yet.
    fn layers(&self, architecture: Architecture, inputs: usize, outputs: usize) -> Layers {
        let (hidden, activation, gain) = (self.vae_hidden, Activation::Softplus, 0.0);
        match architecture {
            Architecture::Convolution => {
                let (width, radius, residual) = (self.vae_width.unwrap_or(8), self.vae_radius, false);
                Layers::Convolution(Convolution { inputs, width, hidden, outputs, radius, residual, activation, gain })
            }
            Architecture::Dense => {
                let width = self.vae_width.unwrap_or(64);
                Layers::Dense(Dense { inputs, width, hidden, outputs, activation, gain })
            }
        }
    }
}

/// A root of a covariance, and what rows are multiplied by to be whitened by it. For a dense network its columns are the
/// principal components, the leading one first; for a convolution it is symmetric, which leaves each site in its place.
fn roots(covariance: &Array2<f64>, architecture: Architecture) -> Result<(Array2<f64>, Array2<f64>)> {
    let n = covariance.nrows();
    let eigen = SymmetricEigen::new(DMatrix::from_fn(n, n, |i, j| covariance[[i, j]]));
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]));
    let (most, least) = (eigen.eigenvalues[order[0]], eigen.eigenvalues[order[n - 1]]);
    if least <= 1e-12 * most {
        let found = format!("eigenvalues from {least:.1e} to {most:.1e}");
        let help = "collect more errors, of cycles in which every site has some";
        return Err(Error::invalid("covariance of the background errors", "one of full rank", found, help));
    }
    let component = |i: usize, k: usize| (eigen.eigenvectors[(i, order[k])], eigen.eigenvalues[order[k]].sqrt());
    let with = |of: fn((f64, f64)) -> f64| Array2::from_shape_fn((n, n), |(i, k)| of(component(i, k)));
    let (root, whitening) = (with(|(v, root)| v * root), with(|(v, root)| v / root));
    if architecture == Architecture::Dense {
        return Ok((root, whitening));
    }
    let back = with(|(v, _)| v).reversed_axes();
    Ok((root.dot(&back), whitening.dot(&back)))
}

struct VaeLearner {
    /// `[errors, sites]`
    whitened: Array2<f64>,
    encoder: Layers,
    decoder: Layers,
    /// The sites of a convolution, else 1.
    places: usize,
    latents: usize,
    s: f64,
    seed: u64,
}

/// The step whose draws are those of the errors held out.
const JUDGED: u32 = u32::MAX;

impl VaeLearner {
    fn matrices(&self) -> Vec<Matrix> {
        [self.encoder.matrices(), self.decoder.matrices()].concat()
    }

    /// Mean over the errors of sum (x - D(z))^2 / (2 s^2) + KL, with z drawn once for each (Kingma & Welling 2014).
    fn mean_loss(&self, weights: &[Tensor<2>], examples: &[usize], step: u32, device: &Device) -> Tensor<1> {
        let (rows, n) = (examples.len(), self.latents / self.places);
        let tensor = |values: Array2<f64>| {
            let shape = [values.nrows(), values.ncols()];
            neural::tensor(values.iter().map(|v| *v as f32).collect(), shape, device)
        };
        let x = tensor(self.whitened.select(Axis(0), examples));
        let eps = tensor(standard_normals(self.seed, Stream::Training, step, 0..rows, self.latents));
        let (encoder, decoder) = weights.split_at(self.encoder.matrices().len());
        let latent = self.encoder.evaluate(encoder, x.clone());
        // From here on a row is a place.
        let [all, sites] = [rows * self.places, self.whitened.ncols() / self.places];
        let [x, eps, latent] = [(x, sites), (eps, n), (latent, 2 * n)].map(|(t, own)| t.reshape([all, own]));
        let mean = latent.clone().slice([0..all, 0..n]) + x.clone().slice([0..all, 0..n]) * self.past();
        let log_variance = latent.slice([0..all, n..2 * n]) + 2.0 * self.s.ln();
        let z = mean.clone() + (log_variance.clone() * 0.5).exp() * eps;
        let rest = Tensor::zeros([all, sites - n], device);
        let bent = self.decoder.evaluate(decoder, z.clone().reshape([rows, self.latents])).reshape([all, sites]);
        let gap = bent + Tensor::cat(vec![z * self.past(), rest], 1) - x;
        let reconstruction = (gap.clone() * gap).sum() / (2.0 * self.s * self.s);
        let divergence = (mean.clone() * mean + log_variance.clone().exp() - log_variance - 1.0).sum() * 0.5;
        (reconstruction + divergence) / rows as f64
    }

    /// What goes past the networks.
    fn past(&self) -> f64 {
        (1.0 - self.s * self.s).sqrt()
    }

    /// Encoder and decoder of these parameters.
    fn networks(&self, theta: &[f64]) -> (Network, Network) {
        let (mut rest, past) = (theta, self.past());
        let (places, sites) = (self.places, self.whitened.ncols() / self.places);
        let latents = self.latents / places;
        let mut network = |layers: &Layers, inputs: usize, outputs: usize| {
            let (mut weights, mut biases) = (Vec::new(), Vec::new());
            for pair in layers.matrices().chunks_exact(2) {
                let mut take = |m: &Matrix| {
                    let own;
                    (own, rest) = rest.split_at(m.len());
                    // Trained in f32, and the same numbers in f64.
                    own.iter().map(|v| f64::from(*v as f32)).collect::<Vec<_>>()
                };
                weights.push(Array2::from_shape_vec(pair[0].shape, take(&pair[0])).expect("as many numbers"));
                biases.push(Array1::from_vec(take(&pair[1])));
            }
            let mut skip = Array2::zeros((places * inputs, places * outputs));
            for (place, k) in (0..places).flat_map(|place| (0..latents).map(move |k| (place, k))) {
                skip[[place * inputs + k, place * outputs + k]] = past;
            }
            Network { places, weights, biases, skip }
        };
        let (mut encoder, decoder) =
            (network(&self.encoder, sites, 2 * latents), network(&self.decoder, latents, sites));
        let last = encoder.biases.last_mut().expect("a last layer");
        last.slice_mut(s![latents..]).mapv_inplace(|b| b + 2.0 * self.s.ln());
        (encoder, decoder)
    }

    /// Mean KL divergence of each latent over errors: `[latents]`.
    fn divergence(&self, encoder: &Network, errors: ArrayView2<f64>) -> Array1<f64> {
        let [means, log_variances] = encode(encoder, errors);
        let kl = |of: ArrayView1<f64>, log_variance: ArrayView1<f64>| {
            let sum: f64 = of.iter().zip(log_variance).map(|(m, v)| 0.5 * (m * m + v.exp() - v - 1.0)).sum();
            sum / of.len() as f64
        };
        (0..self.latents).map(|k| kl(means.column(k), log_variances.column(k))).collect()
    }
}

impl Learner for VaeLearner {
    fn gradient(&mut self, parameters: &[f64], examples: &[usize], step: u32) -> Result<(f64, Vec<f64>)> {
        let leaves = neural::leaves(&self.matrices(), parameters);
        let loss = self.mean_loss(&leaves, examples, step, &Device::flex().autodiff());
        let gradient = neural::gradients(&loss, &leaves);
        Ok((f64::from(neural::numbers(loss.inner())[0]), gradient))
    }

    fn loss(&mut self, parameters: &[f64], examples: &[usize]) -> Result<f64> {
        let weights = neural::tensors(&self.matrices(), parameters);
        let loss = self.mean_loss(&weights, examples, JUDGED, &Device::flex());
        Ok(f64::from(neural::numbers(loss)[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Silent;

    /// Errors that a network of one layer can learn.
    fn errors(count: usize) -> Array2<f64> {
        let z = standard_normals(5, Stream::Training, 1, 0..count, 3);
        Array2::from_shape_fn((count, 3), |(k, i)| {
            let [a, b, c] = [z[[k, 0]], z[[k, 1]], z[[k, 2]]];
            [a, 0.8 * a + 0.6 * b, 0.3 * c + 0.7 * (a * a - 1.0)][i]
        })
    }

    /// Errors around a ring that a convolution of one layer can learn.
    fn ring_errors(count: usize, sites: usize) -> Array2<f64> {
        let z = standard_normals(6, Stream::Training, 1, 0..count, sites);
        Array2::from_shape_fn((count, sites), |(k, i)| {
            let left = z[[k, (i + sites - 1) % sites]];
            z[[k, i]] + 0.7 * (left * left - 1.0)
        })
    }

    /// Of 3 sites: 2 latents of a dense network, or one at each site.
    fn learner(architecture: Architecture) -> VaeLearner {
        let settings = VaeSettings { vae_radius: 1, vae_width: Some(5), ..VaeSettings::default() };
        let (places, latents) = if architecture == Architecture::Dense { (1, 2) } else { (3, 3) };
        let layers = |inputs, outputs| match settings.layers(architecture, inputs, outputs) {
            Layers::Dense(net) => Layers::Dense(Dense { gain: 0.5, ..net }),
            Layers::Convolution(net) => Layers::Convolution(Convolution { gain: 0.5, ..net }),
        };
        let encoder = layers(3 / places, 2 * latents / places);
        let decoder = layers(latents / places, 3 / places);
        VaeLearner { whitened: errors(40), encoder, decoder, places, latents, s: 0.5, seed: 3 }
    }

    /// In f32, so that differences take steps of some size.
    #[test]
    fn the_gradient_of_the_loss_is_that_of_differences() {
        for architecture in [Architecture::Dense, Architecture::Convolution] {
            let mut learner = learner(architecture);
            let theta = neural::initial(&learner.matrices(), 3);
            let rows: Vec<usize> = (0..40).collect();
            let (_, gradient) = learner.gradient(&theta, &rows, JUDGED).unwrap();
            let scale = gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
            let step = 1.0 / 128.0;
            for k in 0..theta.len() {
                let mut side = |sign: f64| {
                    let mut moved = theta.clone();
                    moved[k] += sign * step;
                    learner.loss(&moved, &rows).unwrap()
                };
                let difference = (side(1.0) - side(-1.0)) / (2.0 * step);
                assert!((difference - gradient[k]).abs() < 5e-3 * scale, "{k}: {difference} {}", gradient[k]);
            }
        }
    }

    /// The loss by the networks that are kept, in f64, with the draws of the errors held out.
    #[test]
    fn kept_networks_have_the_loss_that_was_trained() {
        for architecture in [Architecture::Dense, Architecture::Convolution] {
            let mut learner = learner(architecture);
            let theta = neural::initial(&learner.matrices(), 3);
            let (encoder, decoder) = learner.networks(&theta);
            let [mean, log_variance] = encode(&encoder, learner.whitened.view());
            let eps = standard_normals(3, Stream::Training, JUDGED, 0..40, learner.latents);
            let z = &mean + &(log_variance.mapv(|v| (0.5 * v).exp()) * eps);
            let gap = decoder.evaluate(z.view()) - &learner.whitened;
            let divergence = 0.5 * (&mean * &mean + log_variance.mapv(|v| v.exp() - v - 1.0)).sum();
            let want = ((&gap * &gap).sum() / (2.0 * 0.5 * 0.5) + divergence) / 40.0;
            let found = learner.loss(&theta, &(0..40).collect::<Vec<_>>()).unwrap();
            assert!((found - want).abs() < 1e-5 * want, "{architecture:?}: {found} {want}");
        }
    }

    #[test]
    fn training_learns_a_bent_distribution() {
        let training = TrainingSettings { epochs: 200, patience: 200, ..TrainingSettings::default() };
        let settings = VaeSettings { vae_width: Some(32), vae_hidden: 1, ..VaeSettings::default() };
        let ring = TrainingSettings { epochs: 60, ..training };
        // Of which E[e_i^2 e_j] is large, and 0 for a Gaussian.
        for (model, errors, training, [i, j]) in
            [(Model::Lorenz63, errors(4000), training, [0, 2]), (Model::Lorenz96, ring_errors(1500, 8), ring, [3, 4])]
        {
            let count = errors.nrows();
            let vae = settings.train(errors.view(), model, &training, 1, &mut Silent).unwrap();
            assert!(vae.history.held_out.last() < vae.history.held_out.first(), "{:?}", vae.history.held_out);
            let lost = vae.lost_variance(errors.slice(s![count - count / 10.., ..])).unwrap();
            assert!(lost < 0.1, "{lost} of the variance is lost");
            let third = |e: &Array2<f64>| {
                let e = (e - &vae.mean) / &vae.covariance.diag().mapv(f64::sqrt);
                e.outer_iter().map(|e| e[i] * e[i] * e[j]).sum::<f64>() / e.nrows() as f64
            };
            let (learned, true_one) = (third(&vae.draw(1, 4000)), third(&errors));
            let name = model.name();
            assert!(learned > 0.3 * true_one && learned < 1.2 * true_one, "{name}: {learned} for {true_one}");
            assert!(true_one > 0.3, "{name}: {true_one}");
        }
    }

    #[test]
    fn roots_are_roots() {
        let whole = ring_errors(500, 6);
        let settings = VaeSettings::default();
        let (_, covariance) = settings.moments(whole.view(), Model::Lorenz96, &TrainingSettings::default()).unwrap();
        for architecture in [Architecture::Dense, Architecture::Convolution] {
            let (root, whitening) = roots(&covariance, architecture).unwrap();
            let near = |a: Array2<f64>, b: &Array2<f64>| (a - b).iter().all(|d| d.abs() < 1e-12);
            assert!(near(root.dot(&root.t()), &covariance));
            assert!(near(root.dot(&whitening.t()), &Array2::eye(6)));
            let symmetric = near(root.clone(), &root.t().to_owned());
            assert_eq!(symmetric, architecture == Architecture::Convolution);
        }
    }
}
