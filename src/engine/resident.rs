//! Members that live on the device between calls, and move there by Adam.

use super::{Costs, Inner, Listed, LoadedProblem, Members, Row, Terms, cpu, gpu};
use crate::error::{Error, Result};
use ndarray::{Array1, Array2, ArrayView2};
use std::sync::atomic::{AtomicU64, Ordering};

/// The numbers of one Adam step, alike for all members. With the gradient g in units u of each parameter x:
/// m = beta1 m + (1 - beta1) g u, v = beta2 v + (1 - beta2) (g u)^2 and
/// x -= rate u (mean_scale m) / (sqrt(square_scale v) + epsilon) (Kingma & Ba 2015, algorithm 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// The learning rate, its schedule applied.
    pub rate: f64,
    /// Decay of the gradient's running mean.
    pub beta1: f64,
    /// Decay of the squared gradient's running mean.
    pub beta2: f64,
    /// 1 / (1 - beta1^k) at step k, from 1.
    pub mean_scale: f64,
    /// 1 / (1 - beta2^k).
    pub square_scale: f64,
    /// Added to the root of the squared gradient's mean.
    pub epsilon: f64,
}

/// Members that live on the device between calls: controls, backgrounds of their own, Adam's two running means. Of one
/// [`LoadedProblem`] and of no use to another.
#[derive(Debug)]
pub struct Resident {
    owner: u64,
    rows: Vec<Row>,
    amplitude: f64,
    inner: Place,
}

#[derive(Debug)]
enum Place {
    Cpu(cpu::Resident),
    Gpu(gpu::Resident),
}

impl Resident {
    /// Whose each member is: `[rows]`.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}

/// Where resident members stand.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The cost terms, J_b against each member's own background. A diverged member has been standing still ever since.
    pub costs: Costs,
    /// The norm of each member's gradient in units, sqrt(sum_i (u_i dJ/dx_i)^2): `[rows]`.
    pub gradient_norm: Array1<f64>,
}

/// Which of the members' numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Numbers {
    States,
    Means,
    Squares,
}

/// A number that no other loaded problem has.
pub(super) fn new_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl LoadedProblem {
    /// Sends members to the device, where they stay: their controls, each one's own background `[rows, control]` and
    /// the unit in which Adam sees each parameter, `units: [P, control]`. Adam's running means are zero.
    ///
    /// # Errors
    /// Arrays of the wrong shape or not finite, a unit that is not positive, a list out of order; a device failure.
    pub fn settle(
        &mut self,
        members: Listed,
        backgrounds: ArrayView2<f64>,
        units: ArrayView2<f64>,
    ) -> Result<Resident> {
        let zeros = Array2::zeros(members.states.dim());
        self.settle_moving(members, backgrounds, units, [zeros.view(), zeros.view()])
    }

    /// The same of members that have moved: with Adam's running means of the gradient and of its square, each
    /// `[rows, control]`, as [`running_means`](Self::running_means) gave them.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub fn settle_moving(
        &mut self,
        members: Listed,
        backgrounds: ArrayView2<f64>,
        units: ArrayView2<f64>,
        means: [ArrayView2<f64>; 2],
    ) -> Result<Resident> {
        let count = self.layout.check_members(Members::Listed(members))?;
        let control = self.layout.control;
        for (what, numbers) in [("backgrounds", backgrounds), ("running means", means[0]), ("running means", means[1])]
        {
            self.layout.check_array(what, numbers.shape(), &[count, control], numbers.iter())?;
        }
        self.layout.check_array("units", units.shape(), &[self.layout.problems, control], units.iter())?;
        if let Some(unit) = units.iter().find(|u| **u <= 0.0) {
            return Err(Error::invalid(
                "units",
                "numbers > 0",
                unit.to_string(),
                "give a deviation for each parameter",
            ));
        }
        let inner = match &mut self.inner {
            Inner::Cpu(e) => Place::Cpu(e.settle([members.states, backgrounds, means[0], means[1]], units)),
            Inner::Gpu(e) => Place::Gpu(e.settle([members.states, backgrounds, means[0], means[1]], units)?),
        };
        Ok(Resident { owner: self.id, rows: members.rows.to_vec(), amplitude: members.amplitude, inner })
    }

    /// Moves every member down the gradient of its own J by these Adam steps; nothing comes back. A member that
    /// diverged stays where it is.
    ///
    /// # Errors
    /// Members of another loaded problem; numbers that are not finite; a device failure.
    pub fn adam(&mut self, members: &mut Resident, steps: &[AdamStep], terms: Terms) -> Result<()> {
        self.check_owner(members)?;
        let numbers = steps.iter().flat_map(AdamStep::numbers);
        if let Some(number) = { numbers }.find(|v| !v.is_finite()) {
            return Err(Error::invalid("Adam's numbers", "finite numbers", number.to_string(), "correct the settings"));
        }
        if steps.is_empty() {
            return Ok(());
        }
        let Resident { rows, amplitude, inner, .. } = members;
        match (&mut self.inner, inner) {
            (Inner::Cpu(e), Place::Cpu(r)) => {
                e.adam(r, rows, *amplitude, steps, terms);
                Ok(())
            }
            (Inner::Gpu(e), Place::Gpu(r)) => e.adam(r, rows, *amplitude, steps, terms),
            _ => Err(foreign()),
        }
    }

    /// The cost terms and the gradient's norm of each member where it stands.
    ///
    /// # Errors
    /// Members of another loaded problem; a device failure.
    pub fn inspect(&mut self, members: &mut Resident, terms: Terms) -> Result<Inspection> {
        self.check_owner(members)?;
        let Resident { rows, amplitude, inner, .. } = members;
        match (&mut self.inner, inner) {
            (Inner::Cpu(e), Place::Cpu(r)) => Ok(e.inspect(r, rows, *amplitude, terms)),
            (Inner::Gpu(e), Place::Gpu(r)) => e.inspect(r, rows, *amplitude, terms),
            _ => Err(foreign()),
        }
    }

    /// The controls of the members: `[rows, control]`.
    ///
    /// # Errors
    /// Members of another loaded problem; a device failure.
    pub fn states(&mut self, members: &Resident) -> Result<Array2<f64>> {
        self.numbers(members, Numbers::States)
    }

    /// Adam's running means of the members' gradients and of their squares, in units: each `[rows, control]`.
    ///
    /// # Errors
    /// Members of another loaded problem; a device failure.
    pub fn running_means(&mut self, members: &Resident) -> Result<[Array2<f64>; 2]> {
        Ok([self.numbers(members, Numbers::Means)?, self.numbers(members, Numbers::Squares)?])
    }

    fn numbers(&mut self, members: &Resident, kind: Numbers) -> Result<Array2<f64>> {
        self.check_owner(members)?;
        match (&mut self.inner, &members.inner) {
            (Inner::Cpu(_), Place::Cpu(r)) => Ok(r.numbers(kind, self.layout.control)),
            (Inner::Gpu(e), Place::Gpu(r)) => e.numbers(r, kind),
            _ => Err(foreign()),
        }
    }

    /// Keeps these members alone, in place and on their course; `keep` holds their places, in ascending order.
    ///
    /// # Errors
    /// Members of another loaded problem; no place, or places out of order or beyond the last; a device failure.
    pub fn gather(&mut self, members: &mut Resident, keep: &[usize]) -> Result<()> {
        self.check_owner(members)?;
        let count = members.rows.len();
        let ascending = keep.windows(2).all(|pair| pair[0] < pair[1]);
        if !(ascending && keep.last().is_some_and(|last| *last < count)) {
            let expected = format!("some of the places 0 to {}, in ascending order", count - 1);
            return Err(Error::invalid("members to keep", expected, format!("{keep:?}"), "keep at least one"));
        }
        match (&mut self.inner, &mut members.inner) {
            (Inner::Cpu(_), Place::Cpu(r)) => r.gather(keep, self.layout.control),
            (Inner::Gpu(_), Place::Gpu(r)) => r.gather(keep),
            _ => return Err(foreign()),
        }
        members.rows = keep.iter().map(|&k| members.rows[k]).collect();
        Ok(())
    }

    fn check_owner(&self, members: &Resident) -> Result<()> {
        if members.owner == self.id { Ok(()) } else { Err(foreign()) }
    }
}

fn foreign() -> Error {
    Error::invalid("resident members", "those of this loaded problem", "another's", "settle them here")
}

impl AdamStep {
    /// In the order in which kernels read them.
    pub(super) fn numbers(&self) -> [f64; 8] {
        let Self { rate, beta1, beta2, mean_scale, square_scale, epsilon } = *self;
        [rate, beta1, 1.0 - beta1, beta2, 1.0 - beta2, mean_scale, square_scale, epsilon]
    }
}
