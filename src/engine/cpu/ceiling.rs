//! The processor's limits: chains of multiply-adds in registers, and a copy through memory, on all threads.

use super::CpuEngine;
use super::lanes::{Isa, Kernel, Lanes, Scalar, dispatch};
use crate::engine::{Ceilings, Precision};
use crate::model::Number;
use std::hint::black_box;
use std::marker::PhantomData;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Bytes of each of the two buffers of a copy: beyond any last-level cache.
const COPY: usize = 256 << 20;
/// How long an attempt lasts, about.
const ATTEMPT: Duration = Duration::from_millis(25);
const ATTEMPTS: usize = 10;

impl CpuEngine {
    pub(in crate::engine) fn ceilings(&self) -> Ceilings {
        let (multiply_adds, mixed) = match self.hardware.precision {
            Precision::F32 => self.instructions::<f32>(),
            Precision::F64 => self.instructions::<f64>(),
        };
        Ceilings {
            flops: 2.0 * multiply_adds,
            instructions: mixed.max(multiply_adds),
            bytes: self.copied_bytes(),
            readback: Duration::ZERO,
        }
    }

    /// Instructions per second and lane: multiply-adds alone, and with as many additions beside them.
    fn instructions<T: Scalar>(&self) -> (f64, f64) {
        let best = |chains: fn(usize) -> f64| {
            let mut rounds = 1 << 12;
            let mut best = 0.0f64;
            let mut attempts = 0;
            while attempts < ATTEMPTS {
                let clock = Instant::now();
                let done = Mutex::new(0.0);
                let threads: Vec<_> = (0..self.threads.count()).collect();
                self.threads.each(threads, |_, _| {
                    let own = chains(rounds);
                    *done.lock().expect("no thread panics while it adds") += own;
                });
                let elapsed = clock.elapsed();
                let done = done.into_inner().expect("no thread panics while it adds");
                best = best.max(done / elapsed.as_secs_f64());
                if elapsed < ATTEMPT / 2 {
                    rounds *= 2;
                } else {
                    attempts += 1;
                }
            }
            best
        };
        // 12 chains fit 16 registers, 24 hide the latency of a processor with 32.
        let alone = best(run::<T, 12, 0>).max(best(run::<T, 24, 0>));
        (alone, best(run::<T, 6, 6>).max(best(run::<T, 12, 12>)))
    }

    fn copied_bytes(&self) -> f64 {
        let (from, mut to) = (vec![1u64; COPY / 8], vec![0u64; COPY / 8]);
        let piece = from.len().div_ceil(4 * self.threads.count());
        let mut best = 0.0f64;
        for _ in 0..ATTEMPTS {
            let clock = Instant::now();
            let pieces = to.chunks_mut(piece).zip(from.chunks(piece)).collect();
            self.threads.each(pieces, |_, (to, from): (&mut [u64], &[u64])| to.copy_from_slice(from));
            best = best.max(2.0 * COPY as f64 / clock.elapsed().as_secs_f64());
            black_box(&to);
        }
        best
    }
}

/// Runs independent chains, so many of multiply-adds and so many of additions, and returns the instructions done, in lanes.
fn run<T: Scalar, const MULTIPLY_ADDS: usize, const ADDITIONS: usize>(rounds: usize) -> f64 {
    let mut done = 0.0;
    dispatch(Chains::<T, MULTIPLY_ADDS, ADDITIONS> { rounds, done: &mut done, scalar: PhantomData });
    done
}

struct Chains<'a, T, const MULTIPLY_ADDS: usize, const ADDITIONS: usize> {
    rounds: usize,
    done: &'a mut f64,
    scalar: PhantomData<T>,
}

/// Links of a chain in a round.
const LINKS: usize = 8;

impl<T: Scalar, const MULTIPLY_ADDS: usize, const ADDITIONS: usize> Kernel for Chains<'_, T, MULTIPLY_ADDS, ADDITIONS> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let splat = |value: f64| T::Lanes::<S>::splat(simd, black_box(value));
        // x = x / 2 + 1 tends to 2, and x = x + 1 stays in range: neither overflow nor denormal numbers.
        let (half, one) = (splat(0.5), splat(1.0));
        let mut products: [T::Lanes<S>; MULTIPLY_ADDS] = std::array::from_fn(|k| splat(k as f64));
        let mut sums: [T::Lanes<S>; ADDITIONS] = std::array::from_fn(|k| splat(k as f64));
        for _ in 0..self.rounds {
            for _ in 0..LINKS {
                for x in &mut products {
                    *x = x.mul_add(half, one);
                }
                for x in &mut sums {
                    *x = *x + one;
                }
            }
        }
        let sum = products.into_iter().chain(sums).reduce(|a, b| a + b).expect("there are chains");
        let mut lanes = [T::from_f64(0.0); 64];
        sum.store(&mut lanes);
        black_box(&lanes);
        *self.done = (LINKS * self.rounds * (MULTIPLY_ADDS + ADDITIONS) * T::Lanes::<S>::LANES) as f64;
    }
}
