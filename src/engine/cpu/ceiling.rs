//! The processor's limits: chains of multiply-adds in registers, and a copy through memory, on all threads.

use super::CpuEngine;
use super::lanes::{Isa, Kernel, Lanes, Scalar, dispatch};
use crate::engine::{Ceilings, Precision};
use crate::model::Number;
use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Bytes of each of the two buffers of a copy: beyond any last-level cache.
const COPY: usize = 256 << 20;
/// How long an attempt lasts, about.
const ATTEMPT: Duration = Duration::from_millis(25);
const ATTEMPTS: usize = 6;

impl CpuEngine {
    pub(in crate::engine) fn ceilings(&self) -> Ceilings {
        let flops = match self.hardware.precision {
            Precision::F32 => self.flops::<f32>(),
            Precision::F64 => self.flops::<f64>(),
        };
        Ceilings { flops, bytes: self.copied_bytes(), readback: Duration::ZERO }
    }

    fn flops<T: Scalar>(&self) -> f64 {
        // 12 chains fit 16 registers, 24 hide the latency of a processor with 32.
        let best = |chains: fn(usize) -> f64| {
            let mut rounds = 1 << 12;
            let mut best = 0.0f64;
            let mut attempts = 0;
            while attempts < ATTEMPTS {
                let clock = Instant::now();
                let done = Mutex::new(0.0);
                let threads: Vec<_> = (0..self.threads.count()).collect();
                self.threads.each(threads, |_, _| {
                    let flops = chains(rounds);
                    *done.lock().expect("no thread panics while it adds") += flops;
                });
                let flops = done.into_inner().expect("no thread panics while it adds");
                let elapsed = clock.elapsed();
                best = best.max(flops / elapsed.as_secs_f64());
                if elapsed < ATTEMPT / 2 {
                    rounds *= 2;
                } else {
                    attempts += 1;
                }
            }
            best
        };
        best(multiply_adds::<T, 12>).max(best(multiply_adds::<T, 24>))
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

/// Runs `CHAINS` independent chains of multiply-adds and returns the floating-point operations that were done.
fn multiply_adds<T: Scalar, const CHAINS: usize>(rounds: usize) -> f64 {
    let mut flops = 0.0;
    dispatch(Chains::<T, CHAINS> { rounds, flops: &mut flops, scalar: std::marker::PhantomData });
    flops
}

struct Chains<'a, T, const CHAINS: usize> {
    rounds: usize,
    flops: &'a mut f64,
    scalar: std::marker::PhantomData<T>,
}

impl<T: Scalar, const CHAINS: usize> Kernel for Chains<'_, T, CHAINS> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        // x = x / 2 + 1 tends to 2: neither overflow nor denormal numbers.
        let (half, one) = (T::Lanes::<S>::splat(simd, black_box(0.5)), T::Lanes::<S>::splat(simd, black_box(1.0)));
        let mut chains: [T::Lanes<S>; CHAINS] = std::array::from_fn(|k| T::Lanes::<S>::splat(simd, k as f64));
        for _ in 0..self.rounds {
            for _ in 0..8 {
                for chain in &mut chains {
                    *chain = chain.mul_add(half, one);
                }
            }
        }
        let sum = chains.into_iter().reduce(|a, b| a + b).expect("there are chains");
        let mut lanes = [T::from_f64(0.0); 64];
        sum.store(&mut lanes);
        black_box(&lanes);
        *self.flops = 2.0 * (8 * self.rounds * CHAINS * T::Lanes::<S>::LANES) as f64;
    }
}
