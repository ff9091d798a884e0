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
use crate::engine::span::{Results, Span};
use crate::engine::tree::Tree;
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

    /// Numbers of a control.
    pub fn control(&self) -> usize {
        self.data.control.len()
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Runs an operation that says something of each row of a span.
    pub fn rows(&mut self, span: &Span, operation: Operation, input: &[f64]) -> Results {
        let count = span.count();
        let per_row = operation.per_row(self.data.times * self.data.sites, self.control());
        let mut costs = Costs::empty(if operation.has_costs() { count } else { 0 });
        let mut values = vec![0.0; count * per_row];
        let [mut background, mut observation] =
            [&mut costs.background, &mut costs.observation].map(|a| a.as_slice_mut().expect("standard layout"));
        let (mut diverged, mut rest) = (costs.diverged.as_mut_slice(), values.as_mut_slice());
        let items = ranges(span)
            .map(|rows| Item {
                costs: [take(&mut background, rows.len()), take(&mut observation, rows.len())],
                diverged: take(&mut diverged, rows.len()),
                values: take(&mut rest, rows.len() * per_row),
                ..Item::of(rows)
            })
            .collect();
        self.run_items(span, Job { operation, input, bounds: &[] }, items);
        self.count_steps(operation, count);
        Results { costs, values }
    }

    /// The moments of each problem, over the span.
    pub fn moments(&mut self, draw: &Draw, span: &Span, terms: Terms) -> Vec<Tree<Moments>> {
        let operation = Operation::Moments(terms);
        let control = self.control();
        let zeros = || Moments::zeros(control, &draw.map.scale);
        let mut totals: Vec<Tree<Moments>> = (0..self.problems()).map(|_| Tree::default()).collect();
        let mut blocks = std::mem::take(&mut self.blocks);
        let empty = zeros();
        let shape = |m: &Moments| m.pattern.arrays().iter().map(|a| a.dim()).collect::<Vec<_>>();
        if blocks.first().is_some_and(|block| shape(block) != shape(&empty)) {
            blocks.clear();
        }
        let numbers = empty.pattern.arrays().iter().map(|a| a.len()).sum::<usize>() * (BLOCK / draw.count).max(1);
        let items = (MOST_SUMS / numbers.max(1)).clamp(self.threads.count(), WAVE);
        let mut ranges = ranges(span).peekable();
        while ranges.peek().is_some() {
            let wave: Vec<_> = ranges.by_ref().take(items).collect();
            let sums = wave.iter().map(|rows| blocks_in(rows, span).len()).sum();
            if blocks.len() < sums {
                blocks.resize_with(sums, zeros);
            }
            let mut rest = blocks.as_mut_slice();
            let items = wave.iter().map(|rows| {
                let moments = take(&mut rest, blocks_in(rows, span).len());
                Item { moments, ..Item::of(rows.clone()) }
            });
            let items = items.collect();
            self.run_items(span, Job { operation, input: &[], bounds: &[] }, items);
            for ((p, number), block) in wave.iter().flat_map(|rows| blocks_in(rows, span)).zip(&blocks) {
                totals[p].push_copy(number, block);
            }
        }
        self.blocks = blocks;
        self.count_steps(operation, span.count());
        totals
    }

    /// Offers the best members of a span to a selector.
    pub fn select(
        &mut self,
        span: &Span,
        terms: Terms,
        selector: &mut Selector,
        watch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let operation = Operation::Select(terms, u32::MAX);
        let mut ranges = ranges(span).peekable();
        while ranges.peek().is_some() {
            let wave: Vec<_> = ranges.by_ref().take(WAVE).collect();
            let done = wave.last().map_or(span.count(), |rows| rows.end);
            let numbers: Vec<_> = wave.iter().map(|rows| blocks_in(rows, span)).collect();
            let mut blocks = vec![BlockSelection::default(); numbers.iter().map(ExactSizeIterator::len).sum()];
            let mut rest = blocks.as_mut_slice();
            let items = wave
                .into_iter()
                .zip(&numbers)
                .map(|(rows, numbers)| Item { selections: take(&mut rest, numbers.len()), ..Item::of(rows) });
            let job = Job { operation, input: &[], bounds: selector.bounds() };
            self.run_items(span, job, items.collect());
            for ((p, number), block) in numbers.into_iter().flatten().zip(blocks) {
                selector.weigh(p, number, block.weights);
                block.bins.iter().for_each(|(bin, costs)| selector.count(p, (*bin).into(), (*costs).into()));
                block.candidates.into_iter().for_each(|candidate| selector.offer(p, candidate));
            }
            selector.tighten()?;
            watch(done)?;
        }
        self.count_steps(operation, span.count());
        Ok(())
    }

    fn run_items(&self, span: &Span, job: Job, items: Vec<Item>) {
        let (given, map);
        let rows = match &span.members {
            Members::Given(array) | Members::Listed(Listed { states: array, .. }) => {
                given = array.as_standard_layout();
                Rows::Given(given.as_slice().expect("standard layout"))
            }
            Members::Drawn(draw) => {
                map = Map::new(&draw.map);
                Rows::Drawn(draw, &map)
            }
        };
        let owners = match span.members {
            Members::Given(_) | Members::Drawn(_) => {
                Owners::Even { first: span.rows.start, per_problem: span.per_problem }
            }
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

/// A span's rows by the item, counted from its first: a block of one problem, or several whole problems where each is smaller
/// than a few lanes.
fn ranges(span: &Span) -> impl Iterator<Item = Range<usize>> + use<> {
    let (first, last, per_problem) = (span.rows.start, span.rows.end, span.per_problem);
    let mut next = first;
    std::iter::from_fn(move || {
        let start = next;
        let within = start % per_problem;
        next = if per_problem < MOST_LANES {
            start - within + BLOCK / per_problem * per_problem
        } else {
            start - within + (within - within % BLOCK + BLOCK).min(per_problem)
        };
        next = next.min(last);
        (start < last).then_some(start - first..next - first)
    })
}

/// The problems of some rows of a span, and the number of the block there.
fn blocks_in(rows: &Range<usize>, span: &Span) -> impl ExactSizeIterator<Item = (usize, usize)> + use<> {
    let (start, end, per_problem) = (span.rows.start + rows.start, span.rows.start + rows.end, span.per_problem);
    (start / per_problem..(end - 1) / per_problem + 1).map(move |p| (p, start.saturating_sub(p * per_problem) / BLOCK))
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
        let Owners::Even { first, per_problem } = owners else { return };
        let all = first + item.rows.start..first + item.rows.end;
        for (q, p) in (all.start / per_problem..(all.end - 1) / per_problem + 1).enumerate() {
            let start = (p * per_problem).max(all.start);
            let end = ((p + 1) * per_problem).min(all.end);
            let range = start - all.start..end - all.start;
            match job.operation {
                Operation::Moments(_) => {
                    let Rows::Drawn(draw, _) = rows else { unreachable!("moments are of drawn members") };
                    block.sum_into::<V::Wide>(context, range, (&draw.map.scale, p), &mut item.moments[q]);
                }
                Operation::Select(..) => {
                    block.select_into(range, start - p * per_problem, job.bounds[p], &mut item.selections[q]);
                }
                _ => {}
            }
        }
    }
}
