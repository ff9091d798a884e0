//! The number type that the dynamics are written over: f64 and f32 scalars, and SIMD lanes of either.

use std::ops::{Add, Mul, Neg, Sub};

/// A real number, or one lane per member of them. Arithmetic is lane-wise.
pub trait Number: Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Neg<Output = Self> {
    /// What is needed to make a number from nothing: the proof that the instruction set is there.
    type Context: Copy + Send;
    /// The value in every lane.
    fn splat(context: Self::Context, value: f64) -> Self;
    /// self * a + b, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// b - self * a, rounded once.
    fn neg_mul_add(self, a: Self, b: Self) -> Self;
}

macro_rules! scalar {
    ($t:ty) => {
        impl Number for $t {
            type Context = ();
            #[inline(always)]
            fn splat((): (), value: f64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                <$t>::mul_add(self, a, b)
            }
            #[inline(always)]
            fn neg_mul_add(self, a: Self, b: Self) -> Self {
                <$t>::mul_add(-self, a, b)
            }
        }
    };
}

scalar!(f32);
scalar!(f64);
