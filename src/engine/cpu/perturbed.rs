//! J_o of members with observations of their own, y + a sqrt(R) eps, drawn where they are needed and never kept.

use super::lanes::Lanes;
use super::normals::{Addresses, normals};
use super::sweep::{AtTimes, CostTerms, Point, weigh, with_point};
use crate::random::Stream;
use pulp::NullaryFnOnce;

/// J_o against perturbed observations.
pub struct PerturbedTerms<'a, V: Lanes> {
    terms: CostTerms<'a, V>,
    lanes: Addresses,
    amplitude: V,
}

impl<'a, V: Lanes> PerturbedTerms<'a, V> {
    #[inline(always)]
    pub fn new(terms: CostTerms<'a, V>, lanes: Addresses, amplitude: V::Scalar) -> Self {
        let amplitude = V::fill(terms.context, amplitude);
        Self { terms, lanes, amplitude }
    }

    /// J_o of the times passed so far.
    #[inline(always)]
    pub fn observation(&self) -> V {
        self.terms.observation()
    }

    /// Adds J_o of time `t`, and dJ_o/dx_t where there is a cotangent.
    #[inline(always)]
    fn add<P: Point>(&mut self, t: usize, x: &[V], mut w: Option<&mut [V]>) {
        let terms = &mut self.terms;
        let (data, block) = (terms.data, terms.data.operator.block_size);
        for quad in 0..data.per_time.div_ceil(4) {
            let (first, end) = (4 * quad, data.per_time.min(4 * quad + 4));
            let at = t * data.per_time;
            if !terms.source.any::<V>(&data.observation_precision, at + first..at + end) {
                continue;
            }
            let z: [V; 4] = normals(terms.context, &self.lanes, Stream::ObservationPerturbation, t as u32, quad as u32);
            for j in first..end {
                let (innovation, precision) = terms.innovation::<P>(t, j, x);
                let deviation = self.amplitude * terms.source.read(&data.observation_deviation, at + j);
                let innovation = deviation.mul_add(z[j - first], innovation);
                let force = weigh(&mut terms.sums[j % 4], innovation, precision) * terms.block_share;
                if let Some(w) = w.as_deref_mut() {
                    for i in j * block..(j + 1) * block {
                        w[i] = P::pull(terms.context, x[i], force, w[i]);
                    }
                }
            }
        }
    }
}

impl<V: Lanes> AtTimes<V> for PerturbedTerms<'_, V> {
    #[inline(always)]
    fn forward(&mut self, t: usize, x: &[V]) {
        V::apart(self.terms.context, Observe { terms: self, t, x, w: None });
    }

    #[inline(always)]
    fn backward(&mut self, t: usize, x: &[V], w: &mut [V]) {
        V::apart(self.terms.context, Observe { terms: self, t, x, w: Some(w) });
    }
}

/// One time of [`PerturbedTerms`], forward or (with a cotangent) backward.
struct Observe<'s, 'a, V: Lanes> {
    terms: &'s mut PerturbedTerms<'a, V>,
    t: usize,
    x: &'s [V],
    w: Option<&'s mut [V]>,
}

impl<V: Lanes> NullaryFnOnce for Observe<'_, '_, V> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { terms, t, x, w } = self;
        with_point!(terms.terms.data.operator.function, P => terms.add::<P>(t, x, w));
    }
}
