//! Counter-based random numbers: Philox4x32-10 and Box-Muller normals, the same on every engine.
//!
//! A draw is addressed, never sequenced: key = the 64-bit seed, counter = (quad, member, iteration, stream), and a
//! quad is four normals for four consecutive sites. So a batch can grow, be split, or move to other hardware, and
//! each member keeps its draws. `shaders/random.wgsl` is the same text in WGSL; keep the two side by side.
//!
//! Philox: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).

use ndarray::{Array2, Axis};
use rand::TryRng;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::ops::Range;

/// The purposes that draw random numbers, each from a stream of its own under the one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u32)]
pub enum Stream {
    /// Monte Carlo draws of the ELBO gradient; `iteration` counts optimiser iterations.
    MonteCarlo = 0,
    /// Draws from the fitted posterior.
    Posterior = 1,
    /// Starting points of a minimisation.
    Starts = 2,
    /// Draws from the background, N(xb, B).
    Background = 3,
    /// Perturbations of the observations, one set for each member of an ensemble; `iteration` is the time's index.
    ObservationPerturbation = 4,
    /// Perturbations of the background, one for each member of an ensemble.
    BackgroundPerturbation = 5,
    /// Trials of ABC rejection, from N(xb, B).
    Abc = 6,
    /// Importance draws from a fitted posterior.
    Importance = 7,
    /// The particles of the reference posterior at the prior.
    Particles = 8,
    /// Momenta of HMC moves.
    Momentum = 9,
    /// Whether HMC moves are accepted, and their step sizes.
    Acceptance = 10,
    /// Which particles survive a resampling.
    Resampling = 11,
    /// The chains of NUTS.
    Nuts = 12,
    /// Which component of a mixture a draw is from; `iteration` is the stream whose draws it serves.
    Component = 13,
    /// Draws by which the components of a mixture are weighed.
    Evidence = 14,
    /// What the networks of a normalizing flow start from; `iteration` is the matrix, the member its row.
    Weights = 15,
    /// The state from which a twin experiment spins up.
    SpinUp = 16,
    /// Which observations are dropped.
    Mask = 17,
    /// Deviations of the background and of the observations.
    Deviations = 18,
    /// The background's error.
    BackgroundNoise = 19,
    /// The observations' errors.
    ObservationNoise = 20,
    /// The truth of a prior twin.
    Truth = 21,
    /// What uniform ranks look like, and where in its cell a rank lies.
    Calibration = 22,
    /// The errors of a model that is not perfect, added to the truth.
    ModelNoise = 23,
    /// The state from which a climatology spins up.
    Climatology = 24,
    /// True parameters of a twin, from their prior.
    Parameters = 25,
    /// The seeds of the cycles of an experiment: [`derived_seed`].
    Cycle = 26,
    /// The order in which a network sees its examples.
    Shuffle = 27,
    /// Draws while a network is trained.
    Training = 28,
    /// Draws of a latent state that are looked at.
    Latent = 29,
    /// The seeds of simulated windows on which a network is trained: [`derived_seed`].
    Windows = 30,
    /// The seeds of the experiments whose background errors are learned: [`derived_seed`].
    BackgroundErrors = 31,
}

/// Ten rounds of Philox4x32.
#[inline(always)]
pub fn philox(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let [mut k0, mut k1] = key;
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    for _ in 0..10 {
        let a = u64::from(c0) * 0xD251_1F53;
        let b = u64::from(c2) * 0xCD9E_8D57;
        c0 = (b >> 32) as u32 ^ c1 ^ k0;
        c1 = b as u32;
        c2 = (a >> 32) as u32 ^ c3 ^ k1;
        c3 = a as u32;
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [c0, c1, c2, c3]
}

/// Four standard normals, for sites 4 * quad .. 4 * quad + 4 of one member.
#[inline(always)]
pub fn normals(seed: u64, stream: Stream, iteration: u32, member: u32, quad: u32) -> [f32; 4] {
    let bits = philox([seed as u32, (seed >> 32) as u32], [quad, member, iteration, stream as u32]);
    let (a, b) = box_muller(bits[0], bits[1]);
    let (c, d) = box_muller(bits[2], bits[3]);
    [a, b, c, d]
}

/// The seed of part `k` of what `seed` is the whole of: streams under it have nothing to do with those under `seed`.
pub fn derived_seed(seed: u64, stream: Stream, k: u64) -> u64 {
    let bits = philox([seed as u32, (seed >> 32) as u32], [k as u32, (k >> 32) as u32, u32::MAX, stream as u32]);
    u64::from(bits[0]) | u64::from(bits[1]) << 32
}

/// Standard normals of the members `members` of a stream, as an engine draws them for `iteration`: `[members, n]`.
pub fn standard_normals(seed: u64, stream: Stream, iteration: u32, members: Range<usize>, n: usize) -> Array2<f64> {
    let mut out = Array2::zeros((members.len(), n));
    for (member, mut row) in members.zip(out.outer_iter_mut()) {
        for (quad, mut chunk) in row.axis_chunks_iter_mut(Axis(0), 4).enumerate() {
            let z = normals(seed, stream, iteration, member as u32, quad as u32);
            chunk.iter_mut().zip(z).for_each(|(c, z)| *c = f64::from(z));
        }
    }
    out
}

/// Two normals from two random words, from 24 bits of each: u in (0, 1] under the logarithm, so never log(0), and
/// |normal| <= 5.77.
#[inline(always)]
pub(crate) fn box_muller(a: u32, b: u32) -> (f32, f32) {
    const SCALE: f32 = 1.0 / 16_777_216.0;
    let r = (-2.0 * log((a >> 8).wrapping_add(1) as i32 as f32 * SCALE)).sqrt();
    let (sin, cos) = sin_cos_turns((b >> 8) as i32);
    (r * cos, r * sin)
}

/// log(u) of a normal float u > 0, to about 2 ulp: u = 2^e m with m in [sqrt(1/2), sqrt(2)), Chebyshev fit of
/// (log(1 + f) - f + f^2/2) / f^3 on f = m - 1.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "written digit for digit as in random.wgsl")]
fn log(u: f32) -> f32 {
    let bits = u.to_bits();
    let e = (bits.wrapping_sub(0x3F35_04F3) as i32) >> 23;
    let f = f32::from_bits(bits.wrapping_sub((e << 23) as u32)) - 1.0;
    let mut p = 0.069_716_115;
    p = p * f - 0.114_797_34;
    p = p * f + 0.116_854_2;
    p = p * f - 0.124_256_87;
    p = p * f + 0.142_490_58;
    p = p * f - 0.166_678_02;
    p = p * f + 0.200_007_16;
    p = p * f - 0.249_999_97;
    p = p * f + 0.333_333_3;
    let f2 = f * f;
    let small = f2 * (f * p - 0.5);
    e as f32 * std::f32::consts::LN_2 + (f + small)
}

/// (sin, cos) of 2 pi k / 2^24, to about 1 ulp. The reduction to an eighth of a turn is exact, in integers.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "written digit for digit as in random.wgsl")]
fn sin_cos_turns(k: i32) -> (f32, f32) {
    let quadrant = (k + 0x20_0000) >> 22;
    let f = (k - (quadrant << 22)) as f32 * (1.0 / 16_777_216.0);
    let z = f * f;
    let mut s = 41.472_834;
    s = s * z - 76.697_87;
    s = s * z + 81.605_205;
    s = s * z - 41.341_702;
    s = s * z + 6.283_185_5;
    let s = s * f;
    let mut c = 59.220_17;
    c = c * z - 85.442_845;
    c = c * z + 64.939_316;
    c = c * z - 19.739_209;
    c = c * z + 1.0;
    let (a, b) = if quadrant & 1 == 0 { (s, c) } else { (c, s) };
    let sin = if quadrant & 2 == 0 { a } else { -a };
    let cos = if (quadrant + 1) & 2 == 0 { b } else { -b };
    (sin, cos)
}

/// A sequential generator over one stream, for the host's draws with `rand_distr` (masks, noise, truths).
#[derive(Clone, Debug)]
pub struct StreamRng {
    key: [u32; 2],
    counter: [u32; 4],
    buffer: [u32; 4],
    used: usize,
}

impl StreamRng {
    /// The stream's generator under `seed`, from its beginning.
    pub fn new(seed: u64, stream: Stream) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], counter: [0, 0, 0, stream as u32], buffer: [0; 4], used: 4 }
    }
}

impl TryRng for StreamRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        if self.used == 4 {
            self.buffer = philox(self.key, self.counter);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.counter[1] = self.counter[1].wrapping_add(u32::from(self.counter[0] == 0));
            self.used = 0;
        }
        self.used += 1;
        Ok(self.buffer[self.used - 1])
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let low = self.try_next_u32()?;
        Ok(u64::from(low) | u64::from(self.try_next_u32()?) << 32)
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Infallible> {
        for chunk in destination.chunks_mut(4) {
            let word = self.try_next_u32()?.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normals_do_not_depend_on_where_a_batch_starts() {
        let all = standard_normals(7, Stream::Posterior, 0, 0..5, 6);
        assert_eq!(all.row(3), standard_normals(7, Stream::Posterior, 0, 3..4, 6).row(0));
        assert_eq!(all[[2, 5]], f64::from(normals(7, Stream::Posterior, 0, 2, 1)[1]));
    }

    /// Known answers of the Random123 distribution (philox4x32-10).
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([!0; 2], [!0; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn log_and_sin_cos_are_accurate_over_their_whole_domain() {
        let ulp = |a: f32, exact: f64| {
            (f64::from(a) - exact).abs() / f64::from((exact as f32).abs().next_up() - (exact as f32).abs())
        };
        let (mut worst_log, mut worst_trig) = (0.0f64, 0.0f64);
        for k in (1..=1 << 24).step_by(37).chain((1 << 24) - 2000..=1 << 24) {
            let u = k as f32 / 16_777_216.0;
            if k < 1 << 24 {
                worst_log = worst_log.max(ulp(log(u), f64::from(u).ln()));
            }
            let turn = std::f64::consts::TAU * f64::from(k & 0xFF_FFFF) / 16_777_216.0;
            let (s, c) = sin_cos_turns(k & 0xFF_FFFF);
            for (got, exact) in [(s, turn.sin()), (c, turn.cos())] {
                if exact.abs() > 1e-12 {
                    worst_trig = worst_trig.max(ulp(got, exact));
                } else {
                    assert_eq!(got, 0.0);
                }
            }
        }
        assert_eq!(log(1.0), 0.0);
        assert!(worst_log < 3.0 && worst_trig < 3.0, "log {worst_log} ulp, sin/cos {worst_trig} ulp");
    }

    #[test]
    fn normals_have_the_moments_of_a_standard_normal() {
        let n = 200_000u32;
        let mut sums = [0.0f64; 4];
        for member in 0..n / 4 {
            for z in normals(7, Stream::MonteCarlo, 3, member, 1) {
                let z = f64::from(z);
                for (k, s) in sums.iter_mut().enumerate() {
                    *s += z.powi(k as i32 + 1);
                }
            }
        }
        let m = sums.map(|s| s / f64::from(n));
        let error = f64::from(n).sqrt().recip();
        // Standard errors of the first four moments: 1, sqrt 2, sqrt 15, sqrt 96, over sqrt n.
        for (got, (want, sd)) in m.iter().zip([(0.0, 1.0), (1.0, 1.42), (0.0, 3.88), (3.0, 9.8)]) {
            assert!((got - want).abs() < 4.0 * sd * error, "{m:?}");
        }
    }
}
