//! Trains the autoencoder: reconstruction of whitened errors to within s, and the latents' divergence from N(0, I).
//!
//! Encoder and decoder start as those of the Gaussian with the errors' covariance, probabilistic PCA (Tipping & Bishop
//! 1999): u = sqrt(1 - s^2) z and back, with networks beside them that say nothing yet. What is learned is what is not
//! Gaussian; the weights that are kept are those of the lowest loss on what is held out.

use super::{Network, Vae, VaeSettings};
use crate::error::{Error, Result};
use crate::method::{Observer, watch_training};
use crate::neural::{self, Activation, Dense, Learner, Matrix, TrainingSettings};
use crate::problem::check_finite;
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
        training: &TrainingSettings,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<Vae> {
        let (count, sites) = errors.dim();
        self.check(sites)?;
        training.check()?;
        check_finite("background errors", errors.iter())?;
        if count < 2 * sites {
            let expected = format!("at least {}, twice as many as sites", 2 * sites);
            return Err(Error::invalid("background errors", expected, count.to_string(), "cycle for longer"));
        }
        let known = errors.slice(s![..count - training.held_out_of(count)?, ..]);
        let mean = known.mean_axis(Axis(0)).expect("errors to train with");
        let departures = &known - &mean;
        let covariance = departures.t().dot(&departures) / (known.nrows() - 1) as f64;
        let (root, whitening) = roots(&covariance)?;
        let latents = self.latents.unwrap_or(sites);
        let shape = |inputs, outputs| Dense {
            inputs,
            outputs,
            width: self.vae_width,
            hidden: self.vae_hidden,
            activation: Activation::Softplus,
            gain: 0.0,
        };
        let mut learner = VaeLearner {
            whitened: (&errors - &mean).dot(&whitening),
            encoder: shape(sites, 2 * latents),
            decoder: shape(latents, sites),
            latents,
            s: self.reconstruction_std,
            seed,
        };
        let matrices = learner.matrices();
        let mut theta = neural::initial(&matrices, seed);
        let units = neural::units(&matrices);
        let history = {
            let watch = &mut watch_training("VAE", observer);
            neural::train(&mut learner, &mut theta, units, count, training, seed, watch)?
        };
        let (encoder, decoder) = learner.networks(&theta);
        let judged = learner.whitened.slice(s![known.nrows().., ..]);
        let divergence = learner.divergence(&encoder, judged);
        let s = self.reconstruction_std;
        Vae::new(mean, covariance, root, Some(encoder), decoder, s, divergence, history)
    }
}

/// Principal components of a covariance, each of variance 1: a root whose columns they are, the leading one first, and
/// what rows are multiplied by to have them.
fn roots(covariance: &Array2<f64>) -> Result<(Array2<f64>, Array2<f64>)> {
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
    Ok((with(|(v, root)| v * root), with(|(v, root)| v / root)))
}

struct VaeLearner {
    /// `[errors, sites]`
    whitened: Array2<f64>,
    encoder: Dense,
    decoder: Dense,
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
        let (rows, n) = (examples.len(), self.latents);
        let tensor = |values: Array2<f64>| {
            let shape = [values.nrows(), values.ncols()];
            neural::tensor(values.iter().map(|v| *v as f32).collect(), shape, device)
        };
        let x = tensor(self.whitened.select(Axis(0), examples));
        let eps = tensor(standard_normals(self.seed, Stream::Training, step, 0..rows, n));
        let (encoder, decoder) = weights.split_at(2 * (self.encoder.hidden + 1));
        let latent = self.encoder.evaluate(encoder, x.clone());
        let mean = latent.clone().slice([0..rows, 0..n]) + x.clone().slice([0..rows, 0..n]) * self.past();
        let log_variance = latent.slice([0..rows, n..2 * n]) + 2.0 * self.s.ln();
        let z = mean.clone() + (log_variance.clone() * 0.5).exp() * eps;
        let rest = Tensor::zeros([rows, self.decoder.outputs - n], device);
        let gap = self.decoder.evaluate(decoder, z.clone()) + Tensor::cat(vec![z * self.past(), rest], 1) - x;
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
        let mut network = |dense: &Dense| {
            let (mut weights, mut biases) = (Vec::new(), Vec::new());
            for pair in dense.matrices().chunks_exact(2) {
                let mut take = |m: &Matrix| {
                    let own;
                    (own, rest) = rest.split_at(m.len());
                    // Trained in f32, and the same numbers in f64.
                    own.iter().map(|v| f64::from(*v as f32)).collect::<Vec<_>>()
                };
                weights.push(Array2::from_shape_vec(pair[0].shape, take(&pair[0])).expect("as many numbers"));
                biases.push(Array1::from_vec(take(&pair[1])));
            }
            let skip = Array2::from_shape_fn((dense.inputs, dense.outputs), |(i, j)| if i == j { past } else { 0.0 });
            Network { weights, biases, skip }
        };
        let (mut encoder, decoder) = (network(&self.encoder), network(&self.decoder));
        encoder.skip.slice_mut(s![.., self.latents..]).fill(0.0);
        let last = encoder.biases.last_mut().expect("a last layer");
        last.slice_mut(s![self.latents..]).mapv_inplace(|b| b + 2.0 * self.s.ln());
        (encoder, decoder)
    }

    /// Mean KL divergence of each latent over errors: `[latents]`.
    fn divergence(&self, encoder: &Network, errors: ArrayView2<f64>) -> Array1<f64> {
        let latent = encoder.evaluate(errors);
        let kl = |of: ArrayView1<f64>, log_variance: ArrayView1<f64>| {
            let sum: f64 = of.iter().zip(log_variance).map(|(m, v)| 0.5 * (m * m + v.exp() - v - 1.0)).sum();
            sum / of.len() as f64
        };
        (0..self.latents).map(|k| kl(latent.column(k), latent.column(self.latents + k))).collect()
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

    /// In f32, so that differences take steps of some size.
    #[test]
    fn the_gradient_of_the_loss_is_that_of_differences() {
        let settings = VaeSettings { latents: Some(2), vae_width: 5, vae_hidden: 1, ..VaeSettings::default() };
        let mut learner = VaeLearner {
            whitened: errors(40),
            encoder: Dense { inputs: 3, outputs: 4, width: 5, hidden: 1, activation: Activation::Softplus, gain: 0.5 },
            decoder: Dense { inputs: 2, outputs: 3, width: 5, hidden: 1, activation: Activation::Softplus, gain: 0.5 },
            latents: settings.latents.unwrap(),
            s: 0.5,
            seed: 3,
        };
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

    #[test]
    fn training_learns_a_bent_distribution() {
        let errors = errors(4000);
        let training = TrainingSettings { epochs: 200, patience: 200, ..TrainingSettings::default() };
        let settings = VaeSettings { vae_width: 32, vae_hidden: 1, ..VaeSettings::default() };
        let vae = settings.train(errors.view(), &training, 1, &mut Silent).unwrap();
        assert!(vae.history.held_out.last() < vae.history.held_out.first(), "{:?}", vae.history.held_out);
        let lost = vae.lost_variance(errors.slice(s![3600.., ..])).unwrap();
        assert!(lost < 0.1, "{lost} of the variance is lost");
        // E[e_0^2 e_2] = 1.4 / the deviations, where a Gaussian has 0.
        let third = |e: &Array2<f64>| {
            let e = (e - &vae.mean) / &vae.covariance.diag().mapv(f64::sqrt);
            e.outer_iter().map(|e| e[0] * e[0] * e[2]).sum::<f64>() / e.nrows() as f64
        };
        let (learned, true_one) = (third(&vae.draw(1, 4000)), third(&errors));
        assert!(learned > 0.3 * true_one && learned < 1.2 * true_one && true_one > 1.0, "{learned} for {true_one}");
    }
}
