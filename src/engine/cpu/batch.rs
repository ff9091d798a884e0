//! A batch on the CPU: cut into blocks for the threads, each block into groups of lanes, each group swept alone.

use super::data::MOST_LANES;
use super::group::{Group, Item, Job, Map, Owners, Rows, segments};
use super::lanes::{Isa, Kernel, Lanes, Scalar, dispatch};
use super::sums::Block;
use super::sweep::Sweep;
use super::threads::Threads;
use crate::engine::operation::Operation;
use crate::engine::prepared::Prepared;
use crate::engine::schedule::Segments;
use crate::engine::selection::{BlockSelection, Selector};
use crate::engine::{BLOCK, Costs, Counters, Draw, Listed, Members, Moments, Terms};
use crate::error::Result;
use crate::problem::Problem;
use std::any::Any;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Items at a time where each leaves something beside its rows: bounds the memory of that.
const WAVE: usize = 1024;

/// Numbers on the patterns of scales that the items of a wave leave, where they are few enough with one for each thread.
const MOST_SUMS: usize = 8 << 20;

/// A problem set in the number type T, with the scratch of each thread.
#[derive(Debug)]
pub struct Batch<T> {
    pub(super) data: Prepared<T>,
    threads: Threads,
    /// One per thread; a [`Workspace`] of the lanes that the processor has.
    workspaces: Vec<Mutex<Option<Box<dyn Any + Send>>>>,
    /// The sums of the blocks of one wave.
    blocks: Vec<Moments>,
    counters: Counters,
    kernel_nanoseconds: AtomicU64,
}

impl<T: Scalar> Batch<T> {
    pub fn new(threads: Threads, problem: &Problem) -> Self {
        let workspaces = (0..threads.count()).map(|_| Mutex::new(None)).collect();
        Self {
            data: Prepared::new(problem, T::from_f64),
            threads,
            workspaces,
            blocks: Vec::new(),
            counters: Counters::default(),
            kernel_nanoseconds: AtomicU64::new(0),
        }
    }

    /// The time that the threads have worked on items.
    pub fn kernel_time(&self) -> Duration {
        Duration::from_nanos(self.kernel_nanoseconds.load(Ordering::Relaxed))
    }

    pub fn assimilated_steps(&self) -> usize {
        self.data.assimilated_steps()
    }

    pub fn problems(&self) -> usize {
        self.data.seeds.len()
    }

    pub fn sites(&self) -> usize {
        self.data.sites
    }

    /// Numbers of a control.
    pub fn control(&self) -> usize {
        self.data.control.len()
    }

    pub fn times(&self) -> usize {
        self.data.times
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Runs a job whose results are per row: `values` holds the same number of values for each.
    pub fn run(
        &mut self,
        members: Members,
        operation: Operation,
        input: &[f64],
        costs: Option<&mut Costs>,
        values: &mut [f64],
    ) {
        let count = members.count(self.problems());
        let per_row = values.len() / count;
        let (mut background, mut observation, mut diverged): (&mut [f64], &mut [f64], &mut [bool]) = match costs {
            Some(c) => (
                c.background.as_slice_mut().expect("standard layout"),
                c.observation.as_slice_mut().expect("standard layout"),
                &mut c.diverged,
            ),
            None => (&mut [], &mut [], &mut []),
        };
        let mut values = values;
        let items = self
            .ranges(count, members.per_problem(self.problems()))
            .map(|rows| Item {
                costs: [take(&mut background, rows.len()), take(&mut observation, rows.len())],
                diverged: take(&mut diverged, rows.len()),
                values: take(&mut values, rows.len() * per_row),
                ..Item::of(rows)
            })
            .collect();
        self.run_items(members, Job { operation, input, bounds: &[] }, items);
        self.count_steps(operation, count);
    }

    /// The moments of each problem.
    pub fn moments(&mut self, draw: &Draw, terms: Terms) -> Vec<Moments> {
        let operation = Operation::Moments(terms);
        let (control, problems) = (self.control(), self.problems());
        let count = problems * draw.count;
        let zeros = || Moments::zeros(control, &draw.map.scale);
        let mut totals = vec![zeros(); problems];
        let mut blocks = std::mem::take(&mut self.blocks);
        let shape = |m: &Moments| m.pattern.arrays().iter().map(|a| a.dim()).collect::<Vec<_>>();
        if blocks.first().is_some_and(|block| shape(block) != shape(&totals[0])) {
            blocks.clear();
        }
        let numbers = totals[0].pattern.arrays().iter().map(|a| a.len()).sum::<usize>() * (BLOCK / draw.count).max(1);
        let items = (MOST_SUMS / numbers.max(1)).clamp(self.threads.count(), WAVE);
        let mut ranges = self.ranges(count, draw.count).peekable();
        while ranges.peek().is_some() {
            let wave: Vec<_> = ranges.by_ref().take(items).collect();
            let sums = wave.iter().map(|rows| problems_in(rows, draw.count).len()).sum();
            if blocks.len() < sums {
                blocks.resize_with(sums, zeros);
            }
            let mut rest = blocks.as_mut_slice();
            let items = wave.iter().map(|rows| {
                let moments = take(&mut rest, problems_in(rows, draw.count).len());
                Item { moments, ..Item::of(rows.clone()) }
            });
            let items = items.collect();
            self.run_items(Members::Drawn(draw), Job { operation, input: &[], bounds: &[] }, items);
            for (p, block) in wave.iter().flat_map(|rows| problems_in(rows, draw.count)).zip(&blocks) {
                totals[p].merge(block);
            }
        }
        self.blocks = blocks;
        self.count_steps(operation, count);
        totals
    }

    /// Offers the best members to a selector.
    pub fn select(
        &mut self,
        draw: &Draw,
        terms: Terms,
        selector: &mut Selector,
        watch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let operation = Operation::Select(terms, u32::MAX);
        let count = self.problems() * draw.count;
        let mut ranges = self.ranges(count, draw.count).peekable();
        while ranges.peek().is_some() {
            let wave: Vec<_> = ranges.by_ref().take(WAVE).collect();
            let done = wave.last().map_or(count, |rows| rows.end);
            let problems: Vec<_> = wave.iter().map(|rows| problems_in(rows, draw.count)).collect();
            let mut blocks = vec![BlockSelection::default(); problems.iter().map(Range::len).sum()];
            let mut rest = blocks.as_mut_slice();
            let items = wave
                .into_iter()
                .zip(&problems)
                .map(|(rows, problems)| Item { selections: take(&mut rest, problems.len()), ..Item::of(rows) });
            let job = Job { operation, input: &[], bounds: selector.bounds() };
            self.run_items(Members::Drawn(draw), job, items.collect());
            for (p, block) in problems.into_iter().flatten().zip(blocks) {
                selector.weigh(p, &block.weights);
                block.bins.iter().for_each(|(bin, costs)| selector.count(p, (*bin).into(), (*costs).into()));
                block.candidates.into_iter().for_each(|candidate| selector.offer(p, candidate));
            }
            selector.tighten()?;
            watch(done)?;
        }
        self.count_steps(operation, count);
        Ok(())
    }

    /// Rows by the item: a block of one problem, or several whole problems where each is smaller than a few lanes.
    fn ranges(&self, count: usize, per_problem: usize) -> impl Iterator<Item = Range<usize>> + use<T> {
        let whole = if per_problem < MOST_LANES { BLOCK / per_problem * per_problem } else { per_problem };
        (0..count).step_by(whole).flat_map(move |start| {
            let end = (start + whole).min(count);
            (start..end).step_by(BLOCK).map(move |s| s..(s + BLOCK).min(end))
        })
    }

    fn run_items(&self, members: Members, job: Job, items: Vec<Item>) {
        let (given, map);
        let rows = match &members {
            Members::Given(array) | Members::Listed(Listed { states: array, .. }) => {
                given = array.as_standard_layout();
                Rows::Given(given.as_slice().expect("standard layout"))
            }
            Members::Drawn(draw) => {
                map = Map::new(&draw.map);
                Rows::Drawn(draw, &map)
            }
        };
        let owners = match members {
            Members::Given(_) | Members::Drawn(_) => Owners::Even { per_problem: members.per_problem(self.problems()) },
            Members::Listed(listed) => Owners::Listed { rows: listed.rows, amplitude: T::from_f64(listed.amplitude) },
        };
        self.each(items, |workspace, item| dispatch(Work { data: &self.data, rows, owners, job, item, workspace }));
    }

    /// Does `work` on every item, on all threads, with the thread's scratch.
    pub(super) fn each<I: Send>(&self, items: Vec<I>, work: impl Fn(&mut Option<Box<dyn Any + Send>>, I) + Sync) {
        let clock = Instant::now();
        self.threads.each(items, |thread, item| {
            work(&mut self.workspaces[thread].lock().expect("no thread panics while it sweeps"), item);
        });
        self.kernel_nanoseconds.fetch_add(clock.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    pub(super) fn count_steps(&mut self, operation: Operation, count: usize) {
        let steps = operation.steps(&self.data);
        let segments = if operation.reverse() { segments(&self.data, steps) } else { Segments::one(steps) };
        operation.count(&segments, count, &mut self.counters);
    }
}

/// The problems of some rows.
fn problems_in(rows: &Range<usize>, per_problem: usize) -> Range<usize> {
    rows.start / per_problem..(rows.end - 1) / per_problem + 1
}

/// The first `n` of a slice, or none of an empty one; `rest` keeps the others.
fn take<'a, X>(rest: &mut &'a mut [X], n: usize) -> &'a mut [X] {
    let n = n.min(rest.len());
    rest.split_off_mut(..n).expect("n is within the slice")
}

/// The scratch of one thread.
pub(super) struct Workspace<V: Lanes> {
    pub sweep: Sweep<V>,
    pub block: Block<V::Scalar>,
}

impl<V: Lanes<Scalar: 'static> + Send + 'static> Workspace<V> {
    /// The thread's scratch, made on first use.
    #[inline(always)]
    pub fn of<'w>(
        place: &'w mut Option<Box<dyn Any + Send>>,
        data: &Prepared<V::Scalar>,
        context: V::Context,
    ) -> &'w mut Self {
        place
            .get_or_insert_with(|| {
                Box::new(Self { sweep: Sweep::new(context, data), block: Block::new(data.control.len()) })
            })
            .downcast_mut()
            .expect("a processor's lanes do not change")
    }
}

/// One item on one thread.
struct Work<'a, 'i, 'w, T> {
    data: &'a Prepared<T>,
    rows: Rows<'a, T>,
    owners: Owners<'a, T>,
    job: Job<'a>,
    item: Item<'i>,
    workspace: &'w mut Option<Box<dyn Any + Send>>,
}

impl<T: Scalar> Kernel for Work<'_, '_, '_, T> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        self.run_lanes::<T::Lanes<S>>(simd);
    }
}

impl<T: Scalar> Work<'_, '_, '_, T> {
    #[inline(always)]
    fn run_lanes<V: Lanes<Scalar = T> + Send + 'static>(self, context: V::Context) {
        let Self { data, rows, owners, job, mut item, workspace } = self;
        let Workspace { sweep, block } = Workspace::<V>::of(workspace, data, context);
        sweep.own_background.clear();
        for first in item.rows.clone().step_by(V::LANES) {
            let lanes = V::LANES.min(item.rows.end - first);
            let group = Group::<V>::new(data, context, owners, first, lanes);
            group.load_control(rows, job, sweep, block, first - item.rows.start);
            group.run(job, &mut item, sweep, block);
        }
        let Owners::Even { per_problem } = owners else { return };
        for (q, p) in problems_in(&item.rows, per_problem).enumerate() {
            let start = (p * per_problem).max(item.rows.start);
            let end = ((p + 1) * per_problem).min(item.rows.end);
            let range = start - item.rows.start..end - item.rows.start;
            match job.operation {
                Operation::Moments(_) => {
                    let Rows::Drawn(draw, _) = rows else { unreachable!("moments are of drawn members") };
                    block.sum_into::<V::Wide>(context, range, (&draw.map.scale, p), &mut item.moments[q]);
                }
                Operation::Select(..) => {
                    let first = start - p * per_problem;
                    block.select_into(range, first, job.bounds[p], &mut item.selections[q]);
                }
                _ => {}
            }
        }
    }
}
