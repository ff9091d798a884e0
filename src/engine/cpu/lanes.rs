//! SIMD lanes over members as a number type, with the instruction set chosen at run time.

use crate::engine::DIVERGED;
use crate::model::Number;
use bytemuck::Pod;
use pulp::{NullaryFnOnce, Simd};
use std::ops::{Add, Mul, Neg, Sub};

/// An instruction set with the alignment of its vectors in memory.
pub trait Isa: Simd {
    /// A type of no size that carries the alignment.
    type Align: Copy + Send + Sync + 'static;
}

#[cfg(target_arch = "x86_64")]
mod isa {
    #[derive(Clone, Copy)]
    #[repr(align(64))]
    pub struct Align64;
    #[derive(Clone, Copy)]
    #[repr(align(32))]
    pub struct Align32;
    impl super::Isa for pulp::x86::V4 {
        type Align = Align64;
    }
    impl super::Isa for pulp::x86::V3 {
        type Align = Align32;
    }
}

#[cfg(target_arch = "aarch64")]
impl Isa for pulp::aarch64::Neon {
    type Align = ();
}

impl Isa for pulp::Scalar {
    type Align = ();
}

/// Work that is compiled once per instruction set.
pub trait Kernel {
    /// Runs the work. Everything in it must be `#[inline(always)]` to be compiled for the instruction set.
    fn run<S: Isa>(self, simd: S);
}

struct On<K, S>(K, S);

impl<K: Kernel, S: Isa> NullaryFnOnce for On<K, S> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        self.0.run(self.1);
    }
}

/// Runs a kernel on the widest instruction set that the processor has.
pub fn dispatch(kernel: impl Kernel) {
    match pulp::Arch::new() {
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V4(simd) => simd.vectorize(On(kernel, simd)),
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V3(simd) => simd.vectorize(On(kernel, simd)),
        #[cfg(target_arch = "aarch64")]
        pulp::Arch::Neon(simd) => simd.vectorize(On(kernel, simd)),
        _ => kernel.run(pulp::Scalar::new()),
    }
}

/// The name of the instruction set that [`dispatch`] uses, for people.
pub fn instruction_set() -> &'static str {
    match pulp::Arch::new() {
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V4(_) => "AVX-512",
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V3(_) => "AVX2",
        #[cfg(target_arch = "aarch64")]
        pulp::Arch::Neon(_) => "NEON",
        _ => "scalar",
    }
}

/// A number type that the CPU engine computes in.
pub trait Scalar: Pod + Send + Sync + std::fmt::Debug {
    /// A vector of it, one lane per member.
    type Lanes<S: Isa>: Lanes<Scalar = Self, Context = S> + Send + 'static;
    /// Rounds.
    fn from_f64(value: f64) -> Self;
    /// Widens.
    fn to_f64(self) -> f64;
    /// From a normal draw, exactly.
    fn from_f32(value: f32) -> Self;
    /// Whether the value is a number below [`DIVERGED`] in magnitude.
    fn in_range(self) -> bool;
}

/// A vector of lanes, one per member.
pub trait Lanes: Number {
    /// What is in a lane.
    type Scalar: Scalar;
    /// Lanes of f64, for sums.
    type Wide: Lanes<Scalar = f64, Context = Self::Context>;
    /// How many lanes.
    const LANES: usize;
    /// From the first `LANES` values of a slice.
    fn load(context: Self::Context, from: &[Self::Scalar]) -> Self;
    /// Into the first `LANES` values of a slice.
    fn store(self, to: &mut [Self::Scalar]);
    /// One value in every lane, without rounding.
    fn fill(context: Self::Context, value: Self::Scalar) -> Self;
    /// Runs work in a function of its own, compiled for the instruction set: one copy for all who call it.
    fn apart<W: NullaryFnOnce>(context: Self::Context, work: W) -> W::Output;
    /// self / o.
    fn divide(self, o: Self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// `worst` on the lanes whose magnitude is below `limit`, infinity on the others, a NaN among them.
    fn beyond(self, limit: Self, worst: Self) -> Self;
    /// h of each lane, computed in f64. For what has no vector instruction.
    fn map(self, h: impl Fn(f64) -> f64) -> Self;
}

macro_rules! lanes {
    ($name:ident, $scalar:ty, $vector:ident, $count:ident, $splat:ident, $add:ident, $sub:ident,
     $mul:ident, $neg:ident, $sqrt:ident, $abs:ident, $less:ident, $select:ident, $fma:ident, $fnma:ident) => {
        /// One vector of lanes.
        #[derive(Clone, Copy)]
        pub struct $name<S: Isa> {
            v: S::$vector,
            simd: S,
            _align: [S::Align; 0],
        }

        impl<S: Isa> $name<S> {
            #[inline(always)]
            fn new(simd: S, v: S::$vector) -> Self {
                Self { v, simd, _align: [] }
            }
        }

        impl<S: Isa> Add for $name<S> {
            type Output = Self;
            #[inline(always)]
            fn add(self, o: Self) -> Self {
                Self::new(self.simd, self.simd.$add(self.v, o.v))
            }
        }

        impl<S: Isa> Sub for $name<S> {
            type Output = Self;
            #[inline(always)]
            fn sub(self, o: Self) -> Self {
                Self::new(self.simd, self.simd.$sub(self.v, o.v))
            }
        }

        impl<S: Isa> Mul for $name<S> {
            type Output = Self;
            #[inline(always)]
            fn mul(self, o: Self) -> Self {
                Self::new(self.simd, self.simd.$mul(self.v, o.v))
            }
        }

        impl<S: Isa> Neg for $name<S> {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                Self::new(self.simd, self.simd.$neg(self.v))
            }
        }

        impl<S: Isa> Number for $name<S> {
            type Context = S;
            #[inline(always)]
            fn splat(simd: S, value: f64) -> Self {
                Self::new(simd, simd.$splat(value as $scalar))
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                Self::new(self.simd, self.simd.$fma(self.v, a.v, b.v))
            }
            #[inline(always)]
            fn neg_mul_add(self, a: Self, b: Self) -> Self {
                Self::new(self.simd, self.simd.$fnma(self.v, a.v, b.v))
            }
        }

        impl<S: Isa> Lanes for $name<S> {
            type Scalar = $scalar;
            type Wide = F64<S>;
            const LANES: usize = S::$count;
            #[inline(always)]
            fn load(simd: S, from: &[$scalar]) -> Self {
                Self::new(simd, bytemuck::cast_slice::<$scalar, S::$vector>(&from[..S::$count])[0])
            }
            #[inline(always)]
            fn store(self, to: &mut [$scalar]) {
                bytemuck::cast_slice_mut::<$scalar, S::$vector>(&mut to[..S::$count])[0] = self.v;
            }
            #[inline(always)]
            fn fill(simd: S, value: $scalar) -> Self {
                Self::new(simd, simd.$splat(value))
            }
            #[inline(always)]
            fn apart<W: NullaryFnOnce>(simd: S, work: W) -> W::Output {
                simd.vectorize(work)
            }
            #[inline(always)]
            fn divide(self, o: Self) -> Self {
                let (mut v, mut by) = (self.v, o.v);
                let by = bytemuck::cast_slice_mut::<S::$vector, $scalar>(std::slice::from_mut(&mut by));
                let lanes = bytemuck::cast_slice_mut::<S::$vector, $scalar>(std::slice::from_mut(&mut v));
                for (lane, by) in lanes.iter_mut().zip(by) {
                    *lane /= *by;
                }
                Self::new(self.simd, v)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                Self::new(self.simd, self.simd.$sqrt(self.v))
            }
            #[inline(always)]
            fn beyond(self, limit: Self, worst: Self) -> Self {
                let below = self.simd.$less(self.simd.$abs(self.v), limit.v);
                Self::new(self.simd, self.simd.$select(below, worst.v, self.simd.$splat(<$scalar>::INFINITY)))
            }
            #[inline(always)]
            fn map(self, h: impl Fn(f64) -> f64) -> Self {
                let mut v = self.v;
                for lane in bytemuck::cast_slice_mut::<S::$vector, $scalar>(std::slice::from_mut(&mut v)) {
                    *lane = h(f64::from(*lane)) as $scalar;
                }
                Self::new(self.simd, v)
            }
        }

        impl Scalar for $scalar {
            type Lanes<S: Isa> = $name<S>;
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $scalar
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn from_f32(value: f32) -> Self {
                value.into()
            }
            #[inline(always)]
            fn in_range(self) -> bool {
                self.abs() < DIVERGED as $scalar
            }
        }
    };
}

lanes!(
    F32,
    f32,
    f32s,
    F32_LANES,
    splat_f32s,
    add_f32s,
    sub_f32s,
    mul_f32s,
    neg_f32s,
    sqrt_f32s,
    abs_f32s,
    less_than_f32s,
    select_f32s,
    mul_add_f32s,
    negate_mul_add_f32s
);
lanes!(
    F64,
    f64,
    f64s,
    F64_LANES,
    splat_f64s,
    add_f64s,
    sub_f64s,
    mul_f64s,
    neg_f64s,
    sqrt_f64s,
    abs_f64s,
    less_than_f64s,
    select_f64s,
    mul_add_f64s,
    negate_mul_add_f64s
);
