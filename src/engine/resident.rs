//! Members that live on the device between calls, and move there by Adam.

use super::loaded::states_to;
use super::local::{LocalProblem, LocalResident};
use super::ranks::{Division, Held, Request, places_to, rows_to};
use super::span::Results;
use super::{Costs, Listed, LoadedProblem, Members, Row, Terms};
use crate::error::{Error, Result};
use ndarray::{Array1, Array2, ArrayView2, s};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// The numbers of one Adam step, alike for all members. With the gradient g in units u of each parameter x:
/// m = beta1 m + (1 - beta1) g u, v = beta2 v + (1 - beta2) (g u)^2 and
/// x -= rate u (mean_scale m) / (sqrt(square_scale v) + epsilon) (Kingma & Ba 2015, algorithm 1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
    /// How many of them each rank has.
    parts: Vec<usize>,
    /// The first rank's, if any are left.
    local: Option<LocalResident>,
    /// What the other ranks hold.
    held: Held,
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
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
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
        let shares = self.ranks().shares(&Division::of_rows(count, self.local.rows_together()));
        let part = |rows: &Range<usize>| {
            [members.states, backgrounds, means[0], means[1]].map(|array| array.slice_move(s![rows.clone(), ..]))
        };
        let own = &shares[0];
        let [states, others @ ..] = part(own);
        let listed = Listed { states, rows: &members.rows[own.clone()], amplitude: members.amplitude };
        let held = Held::new(self.ranks());
        let settled = |local: &mut LocalProblem| local.settle(listed, others, units);
        let mut local = None;
        if shares.len() == 1 {
            local = Some(settled(&mut self.local)?);
        } else {
            let request = Request::Settle {
                problem: self.held.id,
                members: held.id,
                amplitude: members.amplitude,
                units: units.to_owned(),
            };
            let parts = |rank: usize| {
                let numbers = part(&shares[rank]).iter().flat_map(|array| states_to(*array)).collect();
                vec![numbers, rows_to(&members.rows[shares[rank].clone()])]
            };
            let own = |problem: &mut LocalProblem| settled(problem).map(|r| local = Some(r));
            self.ask(shares.len(), &request, parts, own, |(), ()| Ok(()), |(), _| Ok(()))?;
        }
        let parts = shares.iter().map(Range::len).collect();
        Ok(Resident { owner: self.held.id, rows: members.rows.to_vec(), parts, local, held })
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
        let Resident { parts, local: resident, held, .. } = members;
        let mut own =
            |local: &mut LocalProblem| resident.as_mut().map_or(Ok(()), |resident| local.adam(resident, steps, terms));
        if parts.len() == 1 {
            return own(&mut self.local);
        }
        let request = Request::Adam { problem: self.held.id, members: held.id, steps: steps.to_vec(), terms };
        self.ask(parts.len(), &request, |_| Vec::new(), own, |(), ()| Ok(()), |(), _| Ok(()))
    }

    /// The cost terms and the gradient's norm of each member where it stands.
    ///
    /// # Errors
    /// Members of another loaded problem; a device failure.
    pub fn inspect(&mut self, members: &mut Resident, terms: Terms) -> Result<Inspection> {
        self.check_owner(members)?;
        let Resident { parts, local: resident, held, .. } = members;
        if let ([_], Some(resident)) = (&parts[..], &mut *resident) {
            return self.local.inspect(resident, terms);
        }
        let own = |local: &mut LocalProblem| match resident {
            Some(resident) => local.inspect(resident, terms).map(Inspection::into_numbers),
            None => Ok(Vec::new()),
        };
        let request = Request::Inspect { problem: self.held.id, members: held.id, terms };
        let numbers = self.ask_rows(parts.len(), &request, |_| Vec::new(), own)?;
        let Results { costs, values } = Results::from_numbers(parts.iter().copied().zip(&numbers), true, 1);
        Ok(Inspection { costs, gradient_norm: values.into() })
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
        let Resident { parts, local: resident, held, .. } = members;
        let control = self.layout.control;
        if let ([_], Some(resident)) = (&parts[..], resident) {
            return self.local.numbers(resident, kind, control);
        }
        let own = |local: &mut LocalProblem| match resident {
            Some(resident) => Ok(local.numbers(resident, kind, control)?.into_raw_vec_and_offset().0),
            None => Ok(Vec::new()),
        };
        let request = Request::Numbers { problem: self.held.id, members: held.id, kind };
        let numbers = self.ask_rows(parts.len(), &request, |_| Vec::new(), own)?;
        Ok(Array2::from_shape_vec((members.rows.len(), control), numbers.concat()).expect("a control for each row"))
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
        let mut first = 0;
        let mut places = Vec::new();
        for part in &members.parts {
            let own = first..first + part;
            places.push(keep.iter().filter(|k| own.contains(k)).map(|k| k - first).collect::<Vec<_>>());
            first = own.end;
        }
        let control = self.layout.control;
        let Resident { local: resident, held, .. } = members;
        *resident = resident.take().filter(|_| !places[0].is_empty()).map(|mut resident| {
            resident.gather(&places[0], control);
            resident
        });
        if places.len() > 1 {
            let request = Request::Gather { problem: self.held.id, members: held.id };
            let parts = |rank: usize| vec![places_to(&places[rank])];
            self.ask(places.len(), &request, parts, |_| Ok(()), |(), ()| Ok(()), |(), _| Ok(()))?;
        }
        members.parts = places.iter().map(Vec::len).collect();
        members.rows = keep.iter().map(|&k| members.rows[k]).collect();
        Ok(())
    }

    fn check_owner(&self, members: &Resident) -> Result<()> {
        if members.owner == self.held.id { Ok(()) } else { Err(foreign()) }
    }
}

fn foreign() -> Error {
    Error::invalid("resident members", "those of this loaded problem", "another's", "settle them here")
}

impl Inspection {
    /// All numbers of it in a row, as [`Results::into_numbers`] has them.
    pub(super) fn into_numbers(self) -> Vec<f64> {
        Results { costs: self.costs, values: self.gradient_norm.to_vec() }.into_numbers()
    }
}

impl AdamStep {
    /// In the order in which kernels read them.
    pub(super) fn numbers(&self) -> [f64; 8] {
        let Self { rate, beta1, beta2, mean_scale, square_scale, epsilon } = *self;
        [rate, beta1, 1.0 - beta1, beta2, 1.0 - beta2, mean_scale, square_scale, epsilon]
    }
}
