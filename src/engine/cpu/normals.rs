//! The normal draws of a group of lanes: `random::normals` with a seed and a member for each lane.

use super::data::MOST_LANES;
use super::lanes::{Lanes, Scalar};
use crate::random::{self, Stream};
use pulp::NullaryFnOnce;

/// The seed and the member's number of each lane.
#[derive(Clone, Copy)]
pub struct Addresses {
    pub seed: [u64; MOST_LANES],
    pub member: [u32; MOST_LANES],
}

/// Quad `quad` of an iteration's draws.
pub fn normals<V: Lanes>(context: V::Context, lanes: &Addresses, stream: Stream, iteration: u32, quad: u32) -> [V; 4] {
    V::apart(context, Draw::<V> { context, lanes, stream, iteration, quad })
}

struct Draw<'a, V: Lanes> {
    context: V::Context,
    lanes: &'a Addresses,
    stream: Stream,
    iteration: u32,
    quad: u32,
}

impl<V: Lanes> NullaryFnOnce for Draw<'_, V> {
    type Output = [V; 4];

    #[inline(always)]
    fn call(self) -> [V; 4] {
        // Integers first, in lanes of 64 bits for their products; then floats, in twice as many lanes.
        let mut bits = [[0u32; MOST_LANES]; 4];
        for l in 0..V::LANES {
            let seed = self.lanes.seed[l];
            let counter = [self.quad, self.lanes.member[l], self.iteration, self.stream as u32];
            let quad = random::philox([seed as u32, (seed >> 32) as u32], counter);
            for k in 0..4 {
                bits[k][l] = quad[k];
            }
        }
        let mut z = [[V::Scalar::from_f32(0.0); MOST_LANES]; 4];
        for k in [0, 2] {
            for l in 0..V::LANES {
                let (cos, sin) = random::box_muller(bits[k][l], bits[k + 1][l]);
                z[k][l] = V::Scalar::from_f32(cos);
                z[k + 1][l] = V::Scalar::from_f32(sin);
            }
        }
        std::array::from_fn(|k| V::load(self.context, &z[k]))
    }
}
