//! A problem set on an engine: the operations. The one place where the ranks' shares are cut and what comes of them is joined.

use super::check::Layout;
use super::local::{LocalEngine, LocalProblem};
use super::operation::Operation;
use super::ranks::{
    Channel, Division, Failure, Held, Ranks, Request, RowSource, Said, Tag, concatenated, numbers_from, numbers_to,
    rows_to,
};
use super::selection::{Picked, Selector};
use super::span::{Results, Span};
use super::{Costs, Counters, Draw, Gradients, Keep, Listed, Members, Moments, Selection, Terms};
use crate::error::{Error, Result};
use crate::memory;
use crate::problem::Problem;
use ndarray::{Array2, Array3, ArrayView2, ArrayView3};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// What to do about results that the host has no memory for.
const FEWER: &str = "use fewer members at a time";

/// A problem set on an engine: the operations.
#[derive(Debug)]
pub struct LoadedProblem {
    pub(super) layout: Layout,
    pub(super) local: LocalProblem,
    /// What the other ranks hold for it, and for its engine.
    pub(super) held: Held,
    engine: Arc<Held>,
    /// The work of the other ranks.
    elsewhere: Counters,
}

impl LoadedProblem {
    pub(super) fn new(engine: &LocalEngine, held: &Arc<Held>, problem: &Problem) -> Result<Self> {
        let layout = Layout {
            problems: problem.count(),
            sites: problem.sites(),
            control: problem.control().len(),
            times: problem.window.times,
        };
        let local = engine.load(problem, None)?;
        let kernel = local.kernel();
        let ranks = held.ranks.clone();
        let loaded =
            Self { layout, local, held: Held::new(&ranks), engine: held.clone(), elsewhere: Counters::default() };
        if ranks.count() > 1 {
            let set = Box::new(problem.clone());
            let request = Request::Load { engine: held.id, problem: loaded.held.id, set, kernel };
            ranks.ask(ranks.count(), &request, |_| Vec::new(), || Ok(()), |(), ()| Ok(()), |(), _| Ok(()))?;
        }
        Ok(loaded)
    }

    /// The trajectory at the stored times: `[P * M, times, sites]`. Time 0 is the initial state itself.
    ///
    /// # Errors
    /// Members of the wrong shape or not finite; a device failure.
    pub fn forecast(&mut self, members: Members) -> Result<Array3<f64>> {
        let count = self.layout.check_members(members)?;
        self.trajectories("the trajectories", Operation::Forecast, members, count, &[])
    }

    /// The cost terms of each member.
    ///
    /// # Errors
    /// Members of the wrong shape or not finite; a device failure.
    pub fn cost(&mut self, members: Members, terms: Terms) -> Result<Costs> {
        let count = self.layout.check_members(members)?;
        memory::check("the costs", &[count, 3], FEWER)?;
        Ok(self.rows(Operation::Cost(terms), members, &[])?.costs)
    }

    /// The cost terms and dJ/dcontrol of each member: the exact adjoint of the RK4 scheme.
    ///
    /// # Errors
    /// Members of the wrong shape or not finite; a device failure.
    pub fn gradient(&mut self, members: Members, terms: Terms) -> Result<Gradients> {
        let count = self.layout.check_members(members)?;
        memory::check("the gradients", &[count, self.layout.control + 3], FEWER)?;
        let Results { costs, values } = self.rows(Operation::Gradient(terms), members, &[])?;
        let gradient = Array2::from_shape_vec((count, self.layout.control), values).expect("a gradient for each row");
        Ok(Gradients { costs, gradient })
    }

    /// The sums that an ELBO gradient needs, over members drawn on the device, those of g eps' on S's pattern among them
    /// ([`Moments::pattern`]): one result per problem. Nothing else comes back from the device.
    ///
    /// # Errors
    /// A map of the wrong shape or not finite; sums that are too many for the device; a device failure. Diverged members
    /// are no error here.
    pub fn moments(&mut self, draw: &Draw, terms: Terms) -> Result<Vec<Moments>> {
        self.layout.check_members(Members::Drawn(draw))?;
        let shares = self.shares_of(draw, Operation::Moments(terms));
        let span = Span::drawn(draw, shares[0].clone());
        let sums = if shares.len() == 1 {
            self.local.moments(draw, &span, terms)?
        } else {
            let request = Request::Moments { problem: self.held.id, draw: draw.clone(), terms };
            let own = |local: &mut LocalProblem| local.moments(draw, &span, terms);
            self.ask(shares.len(), &request, |_| Vec::new(), own, Moments::join, |sums, _| Ok(sums))?
        };
        Ok(sums.into_iter().map(|tree| tree.total().expect("a problem has members")).collect())
    }

    /// The best of the members drawn on the device, one result per problem: nothing but what is kept, a histogram and
    /// a few sums comes back from the device, and memory does not grow with the count. The criterion is the sum of
    /// `criterion`'s terms. The draws are those of the other operations: a kept member can be drawn again by its
    /// number.
    ///
    /// # Errors
    /// A map of the wrong shape or not finite; nothing to keep, or more than [`MOST_KEPT`](super::MOST_KEPT) members in
    /// all; a device failure. Diverged members are no error here.
    pub fn select(&mut self, draw: &Draw, criterion: Terms, keep: Keep) -> Result<Vec<Selection>> {
        self.select_watched(draw, criterion, keep, &mut |_| Ok(()))
    }

    /// The same, with `watch` told now and then of how many members are done, over all problems; its error ends it. It has no
    /// business with the engine or its ranks, which are at work.
    ///
    /// # Errors
    /// As [`select`](Self::select); that of `watch`.
    pub fn select_watched(
        &mut self,
        draw: &Draw,
        criterion: Terms,
        keep: Keep,
        watch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Selection>> {
        self.layout.check_members(Members::Drawn(draw))?;
        let problems = self.layout.problems;
        let new = || Selector::new(problems, draw.count, keep);
        let mut selector = new()?;
        let shares = self.shares_of(draw, Operation::Select(criterion, 0));
        let span = Span::drawn(draw, shares[0].clone());
        if shares.len() == 1 {
            self.local.select(draw, &span, criterion, &mut selector, watch)?;
            return Ok(selector.finish(draw.count));
        }
        // The first rank's share stands for all.
        let (all, own) = (problems * draw.count, span.count());
        let mut watch = |done: usize| watch((done as f64 / own as f64 * all as f64) as usize);
        let request = Request::Select { problem: self.held.id, draw: draw.clone(), criterion, keep };
        let own = |local: &mut LocalProblem| -> Result<Vec<Picked>> {
            local.select(draw, &span, criterion, &mut selector, &mut watch)?;
            Ok(selector.into_picked())
        };
        let join = |left, right| {
            let mut selector = new()?;
            selector.absorb(left)?;
            selector.absorb(right)?;
            Ok(selector.into_picked())
        };
        let picked = self.ask(shares.len(), &request, |_| Vec::new(), own, join, |picked, _| Ok(picked))?;
        let mut selector = new()?;
        selector.absorb(picked)?;
        Ok(selector.finish(draw.count))
    }

    /// The tangent trajectory M_t v at the stored times, for one direction per member: `directions: [P * M,
    /// control]` to `[P * M, times, sites]`.
    ///
    /// # Errors
    /// Members or directions of the wrong shape or not finite; a device failure.
    pub fn tangent(&mut self, members: Members, directions: ArrayView2<f64>) -> Result<Array3<f64>> {
        let count = self.layout.check_members(members)?;
        self.layout.check_array("directions", directions.shape(), &[count, self.layout.control], directions.iter())?;
        let directions = directions.as_standard_layout();
        let directions = directions.as_slice().expect("standard layout");
        self.trajectories("the tangent trajectories", Operation::Tangent, members, count, directions)
    }

    /// The adjoint sum_t M_t' w_t of any forcing at the stored times: `forcing: [P * M, times, sites]` to
    /// `[P * M, control]`.
    ///
    /// # Errors
    /// Members or forcing of the wrong shape or not finite; a device failure.
    pub fn adjoint(&mut self, members: Members, forcing: ArrayView3<f64>) -> Result<Array2<f64>> {
        let count = self.layout.check_members(members)?;
        let shape = [count, self.layout.times, self.layout.sites];
        self.layout.check_array("forcing", forcing.shape(), &shape, forcing.iter())?;
        let forcing = forcing.as_standard_layout();
        let values = self.rows(Operation::Adjoint, members, forcing.as_slice().expect("standard layout"))?.values;
        Ok(Array2::from_shape_vec((count, self.layout.control), values).expect("a gradient for each row"))
    }

    /// The variant of the kernels that it runs on, as [`EngineSettings::kernel`](super::EngineSettings::kernel) takes it;
    /// of the CPU engine, its instruction set.
    pub fn kernel(&self) -> String {
        self.local.kernel()
    }

    /// RK4 steps from time 0 to the last time with an assimilated observation: what a member's cost takes.
    pub fn assimilated_steps(&self) -> usize {
        self.local.assimilated_steps()
    }

    /// The work done so far, by all ranks.
    pub fn counters(&self) -> Counters {
        let mut counters = self.local.counters();
        counters.add(&self.elsewhere);
        counters
    }

    /// Times kernels by the device's clock from now on, or no longer. On a GPU that costs two timestamps for each
    /// submission, which is why it is off; the CPU engine times its kernels always. Of several ranks, the first one's.
    ///
    /// # Errors
    /// A device failure.
    pub fn time_kernels(&mut self, on: bool) -> Result<()> {
        self.local.time_kernels(on)
    }

    /// The time spent in kernels so far, without what goes up, comes down and is converted on the way. On a GPU: since
    /// [`time_kernels`](Self::time_kernels), and None before it or where the device has no clock. Of several ranks, the first
    /// one's.
    pub fn kernel_time(&self) -> Option<Duration> {
        self.local.kernel_time()
    }

    pub(super) fn ranks(&self) -> &Ranks {
        &self.held.ranks
    }

    /// The shares of members drawn for an operation.
    fn shares_of(&self, draw: &Draw, operation: Operation) -> Vec<Range<usize>> {
        let unit = self.local.members_together(draw, operation);
        self.ranks().shares(&Division { problems: self.layout.problems, per_problem: draw.count, unit })
    }

    fn trajectories(
        &mut self,
        what: &str,
        operation: Operation,
        members: Members,
        count: usize,
        input: &[f64],
    ) -> Result<Array3<f64>> {
        let shape = [count, self.layout.times, self.layout.sites];
        memory::check(what, &shape, FEWER)?;
        let values = self.rows(operation, members, input)?.values;
        Ok(Array3::from_shape_vec(shape, values).expect("a trajectory for each row"))
    }

    /// What an operation says of each row.
    fn rows(&mut self, operation: Operation, members: Members, input: &[f64]) -> Result<Results> {
        let whole = Span::whole(members, self.layout.problems);
        let division = Division::of_rows(whole.count(), self.local.rows_together());
        let shares = self.ranks().shares(&division);
        if shares.len() == 1 {
            return self.local.rows(&whole, operation, input);
        }
        let (control, trajectory) = (self.layout.control, self.layout.times * self.layout.sites);
        let each = operation.input_per_row(trajectory, control);
        let input_of = |rows: &Range<usize>| &input[rows.start * each..rows.end * each];
        let source = match members {
            Members::Given(_) => RowSource::Given,
            Members::Listed(listed) => RowSource::Listed { amplitude: listed.amplitude },
            Members::Drawn(draw) => RowSource::Drawn(Box::new(draw.clone())),
        };
        let parts = |rank: usize| {
            let mut parts = match whole.part(&shares[rank]).members {
                Members::Given(states) => vec![states_to(states)],
                Members::Listed(listed) => vec![states_to(listed.states), rows_to(listed.rows)],
                Members::Drawn(_) => Vec::new(),
            };
            if each > 0 {
                parts.push(numbers_to(input_of(&shares[rank])));
            }
            parts
        };
        let request = Request::Rows { problem: self.held.id, operation, source, count: whole.count() };
        let own = |local: &mut LocalProblem| {
            local.rows(&whole.part(&shares[0]), operation, input_of(&shares[0])).map(Results::into_numbers)
        };
        let numbers = self.ask_rows(shares.len(), &request, parts, own)?;
        let counts = shares.iter().map(Range::len);
        let per_row = operation.per_row(trajectory, control);
        Ok(Results::from_numbers(counts.zip(&numbers), operation.has_costs(), per_row))
    }

    /// Has ranks do what leaves numbers of their rows, and returns those of each rank.
    pub(super) fn ask_rows(
        &mut self,
        active: usize,
        request: &Request,
        parts: impl Fn(usize) -> Vec<Vec<u8>>,
        own: impl FnOnce(&mut LocalProblem) -> Result<Vec<f64>>,
    ) -> Result<Vec<Vec<f64>>> {
        let mut first = Vec::new();
        let own = |local: &mut LocalProblem| {
            Ok(vec![match own(local) {
                Ok(numbers) => {
                    first = numbers;
                    Said::Rows(false)
                }
                Err(error) => Said::Failed(Failure::of(error, None)),
            }])
        };
        let collect = |said: Vec<Said>, channel: &Channel| {
            let mut failure = None;
            let mut numbers = Vec::new();
            for (rank, said) in said.into_iter().enumerate() {
                match said {
                    Said::Rows(true) => numbers.push(numbers_from(&channel.receive(rank, Tag::Rows))),
                    Said::Rows(false) => numbers.push(Vec::new()),
                    Said::Failed(failed) => failure = failure.or(Some(failed)),
                }
            }
            failure.map_or(Ok(numbers), |failure| Err(Error::from(failure)))
        };
        let mut numbers = self.ask(active, request, parts, own, concatenated, collect)?;
        numbers[0] = first;
        Ok(numbers)
    }

    /// [`Ranks::ask`], with the other ranks' work counted.
    pub(super) fn ask<T: Serialize + DeserializeOwned, U>(
        &mut self,
        active: usize,
        request: &Request,
        parts: impl Fn(usize) -> Vec<Vec<u8>>,
        own: impl FnOnce(&mut LocalProblem) -> Result<T>,
        join: impl FnMut(T, T) -> Result<T>,
        collect: impl FnOnce(T, &Channel) -> Result<U>,
    ) -> Result<U> {
        let local = &mut self.local;
        let answer = self.held.ranks.ask(active, request, parts, || own(local), join, collect)?;
        self.elsewhere.add(&answer.counters);
        self.engine.faults().extend(answer.faults);
        Ok(answer.value)
    }
}

/// States as they are sent.
pub(super) fn states_to(states: ArrayView2<f64>) -> Vec<u8> {
    let states = states.as_standard_layout();
    numbers_to(states.as_slice().expect("standard layout"))
}

impl<'a> Span<'a> {
    /// These rows of a draw.
    fn drawn(draw: &'a Draw, rows: Range<usize>) -> Self {
        Self { members: Members::Drawn(draw), rows, per_problem: draw.count }
    }

    /// These rows of it.
    fn part(&self, rows: &Range<usize>) -> Self {
        let of = |states: ArrayView2<'a, f64>| states.slice_move(ndarray::s![rows.clone(), ..]);
        match self.members {
            Members::Given(states) => {
                Self { members: Members::Given(of(states)), rows: rows.clone(), per_problem: self.per_problem }
            }
            Members::Drawn(draw) => Self::drawn(draw, rows.clone()),
            Members::Listed(Listed { states, rows: list, amplitude }) => {
                let listed = Listed { states: of(states), rows: &list[rows.clone()], amplitude };
                Self { members: Members::Listed(listed), rows: 0..rows.len(), per_problem: rows.len() }
            }
        }
    }
}

impl Results {
    /// From the numbers of each rank's rows, as [`into_numbers`](Self::into_numbers) gave them.
    pub(super) fn from_numbers<'n>(
        parts: impl Iterator<Item = (usize, &'n Vec<f64>)> + Clone,
        has_costs: bool,
        per_row: usize,
    ) -> Self {
        let mut values = Vec::new();
        let mut terms = [Vec::new(), Vec::new(), Vec::new()];
        for (count, numbers) in parts {
            let (costs, own) = numbers.split_at(if has_costs { 3 * count } else { 0 });
            terms.iter_mut().zip(costs.chunks(count.max(1))).for_each(|(all, own)| all.extend(own));
            debug_assert_eq!(own.len(), count * per_row);
            values.extend(own);
        }
        let [background, observation, diverged] = terms;
        let diverged = diverged.iter().map(|d| *d != 0.0).collect();
        Self { costs: Costs { background: background.into(), observation: observation.into(), diverged }, values }
    }
}
