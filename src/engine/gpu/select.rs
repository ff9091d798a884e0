//! A selection on the GPU: chunk by chunk, what may be kept comes down, and the bounds that it lowers go up.

use super::batch::LoadedGpu;
use super::buffers::{Region, from_bytes, to_bytes};
use super::run::Run;
use crate::engine::operation::Operation;
use crate::engine::selection::{Candidate, CostHistogram, Selector, WeightSums};
use crate::engine::span::Span;
use crate::engine::{Draw, Precision, Terms};
use crate::error::Result;

impl LoadedGpu {
    /// Offers the best members of a span to a selector.
    pub fn select(
        &mut self,
        draw: &Draw,
        span: &Span,
        terms: Terms,
        selector: &mut Selector,
        watch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let operation = Operation::Select(terms, selector.best());
        let untouched = selector.clone();
        self.persist(|loaded| {
            selector.clone_from(&untouched);
            let mut run = loaded.begin(operation, span)?;
            loaded.send_draw(&run, draw)?;
            loaded.select_chunks(&mut run, selector, watch)?;
            loaded.finish(run, 1)
        })
    }

    fn select_chunks(
        &mut self,
        run: &mut Run,
        selector: &mut Selector,
        watch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let precision = self.uploaded.shape.precision;
        let number = precision.bytes();
        let per_problem = run.call.per_problem;
        let (select, staging) = (&run.memory.select, run.memory.staging.clone());
        let Some(select) = select.clone() else { return Ok(()) };
        self.queue.send(&select.histogram, &vec![0; select.histogram.size() as usize]);
        for k in 0..run.plan.chunks.len() {
            let most = if precision == Precision::F32 { f64::from(f32::MAX) } else { f64::MAX };
            let bounds = to_bytes(precision, selector.bounds().iter().map(|b| b.clamp(-most, most)));
            self.queue.send(&select.bounds, &bounds);
            self.queue.send(&select.listed, &[0; 4]);
            let blocks = run.plan.blocks(&run.plan.chunks[k]);
            let chunk = run.chunk(&self.uploaded, &self.pipelines, k)?;
            let (partials, listed) = self.queue.submit(&chunk.sweep, &run.results, &staging, |bytes| {
                let (partials, listed) = bytes.split_at(bytes.len() - 4);
                (from_bytes(precision, partials), u32::from_ne_bytes(listed.try_into().expect("four bytes")) as usize)
            })?;
            for (block, sums) in blocks.zip(partials.chunks_exact(3)) {
                let sums = WeightSums { least: sums[0], sum: sums[1], square_sum: sums[2] };
                let each = run.plan.blocks_per_problem();
                selector.weigh(block / each, block % each, sums);
            }
            let costs = (2 * number * listed) as u64;
            let regions = [
                Region { buffer: select.listed_costs.clone(), first: 0, bytes: costs },
                Region { buffer: select.listed.clone(), first: 4, bytes: 4 * listed as u64 },
            ];
            if listed > 0 {
                self.queue.submit([], &regions, &staging, |bytes| {
                    let (costs, rows) = bytes.split_at(costs as usize);
                    let costs = from_bytes(precision, costs);
                    for (row, costs) in bytemuck::cast_slice::<u8, u32>(rows).iter().zip(costs.chunks_exact(2)) {
                        let row = *row as usize;
                        let member = (row % per_problem) as u32;
                        let candidate = Candidate { member, background: costs[0], observation: costs[1] };
                        selector.offer(row / per_problem, candidate);
                    }
                })?;
            }
            selector.tighten()?;
            watch(run.plan.chunks[k].end - run.call.first)?;
        }
        let all = [Region { buffer: select.histogram.clone(), first: 0, bytes: select.histogram.size() }];
        self.queue.submit([], &all, &staging, |bytes| {
            for (k, costs) in bytemuck::cast_slice::<u8, u32>(bytes).iter().enumerate() {
                selector.count(k / CostHistogram::BINS, k % CostHistogram::BINS, u64::from(*costs));
            }
        })
    }
}
