//! A call ready to run: its cut, its buffers, and its kernels bound to them. Serves a loop of calls that differ in their
//! numbers, or have fewer members.

use super::buffers::{Region, buffer};
use super::call::{Call, Slots};
use super::dispatches::{Cut, Dispatch};
use super::memory::{Memory, Store};
use super::params::Params;
use super::pipelines::Pipelines;
use super::plan::{Budget, Plan};
use super::shader::{Binding, Kernel, Ownership, Shape};
use super::uploaded::Uploaded;
use crate::error::Result;
use std::sync::Arc;

/// A call ready to run.
#[derive(Debug)]
pub struct Run {
    pub call: Call,
    pub plan: Plan,
    pub slots: Slots,
    pub memory: Memory,
    /// What comes back: of each chunk, or where sums over all of them follow, of the last.
    pub results: Vec<Region>,
    /// What the buffers were made for.
    made_for: (Call, Plan),
    kernels: Vec<BoundKernel>,
    /// The uniforms of one chunk's dispatches, and of which chunk.
    uniforms: Option<wgpu::Buffer>,
    chunk: Option<(usize, Arc<ReadyChunk>)>,
}

/// A kernel with its buffers.
#[derive(Debug)]
struct BoundKernel {
    kernel: Kernel,
    ownership: Ownership,
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
}

/// A chunk's dispatches, with their uniforms sent.
#[derive(Clone, Debug, Default)]
pub struct ReadyChunk {
    /// Brings resident members.
    pub fetch: Option<Ready>,
    pub sweep: Vec<Ready>,
    /// An Adam step by the first, the second, ... numbers that were sent.
    pub adam: Vec<Ready>,
}

/// A dispatch ready to encode.
#[derive(Clone, Debug)]
pub struct Ready {
    pub pipeline: wgpu::ComputePipeline,
    pub bindings: wgpu::BindGroup,
    /// Where its uniforms lie.
    pub offsets: [u32; 2],
    /// How many it has.
    pub uniforms: usize,
    pub groups: [u32; 2],
    pub work: usize,
}

impl Run {
    /// Cuts a call to stay within a budget and makes its buffers. Resident members come with their store.
    ///
    /// # Errors
    /// A call that does not fit the device or the budget.
    pub fn new(uploaded: &Uploaded, call: Call, budget: Budget, store: Option<&Store>) -> Result<Self> {
        call.check(uploaded.data.control)?;
        let plan = Plan::new(&call.need(uploaded), budget, &uploaded.device.limits)?;
        let memory = Memory::new(uploaded, &call, &plan, store)?;
        let slots = call.slots(plan.segments.count(), uploaded.data.times, uploaded.data.control);
        Ok(Self {
            results: memory.results(uploaded, &call, &plan, &slots),
            made_for: (call, plan.clone()),
            call,
            plan,
            slots,
            memory,
            kernels: Vec::new(),
            uniforms: None,
            chunk: None,
        })
    }

    /// The kernels that a call needs, cut to stay within a budget.
    ///
    /// # Errors
    /// A call that does not fit the device or the budget.
    pub fn kernels(uploaded: &Uploaded, call: &Call, budget: Budget) -> Result<Vec<(Kernel, Shape)>> {
        let plan = Plan::new(&call.need(uploaded), budget, &uploaded.device.limits)?;
        let slots = call.slots(plan.segments.count(), uploaded.data.times, uploaded.data.control);
        let cut = cut(uploaded, call, &plan, &slots, 0);
        let mut kernels = Vec::new();
        for k in [0, plan.chunks.len() - 1] {
            for dispatch in &cut.chunk(k)?.sweep {
                let key = compiled_as(uploaded, dispatch);
                if !kernels.contains(&key) {
                    kernels.push(key);
                }
            }
        }
        Ok(kernels)
    }

    /// Takes another call, and says whether it can: the same one, or one of fewer members.
    pub fn take(&mut self, uploaded: &Uploaded, call: &Call, budget: Budget) -> bool {
        if self.call == *call {
            return true;
        }
        let (made_for, made) = &self.made_for;
        let Call { first, count, per_problem, .. } = *made_for;
        let fewer = call.count <= count && Call { first, count, per_problem, ..*call } == *made_for;
        if !fewer || call.sums() || call.selects() {
            return false;
        }
        let Ok(plan) = Plan::new(&call.need(uploaded), budget, &uploaded.device.limits) else { return false };
        if plan.bytes > made.bytes || plan.capacity > made.capacity {
            return false;
        }
        self.slots = call.slots(plan.segments.count(), uploaded.data.times, uploaded.data.control);
        self.results = self.memory.results(uploaded, call, &plan, &self.slots);
        (self.call, self.plan, self.chunk) = (*call, plan, None);
        true
    }

    /// The dispatches of chunk `k`. A call of one chunk sends their uniforms once.
    ///
    /// # Errors
    /// A kernel that the driver does not take, or more workgroups than it has.
    pub fn chunk(&mut self, uploaded: &Uploaded, pipelines: &Pipelines, k: usize) -> Result<Arc<ReadyChunk>> {
        if let Some((_, chunk)) = self.chunk.as_ref().filter(|(at, _)| *at == k) {
            return Ok(chunk.clone());
        }
        let store_stride = self.memory.store.as_ref().map_or(0, |s| s.stride);
        let cut = cut(uploaded, &self.call, &self.plan, &self.slots, store_stride);
        let listed = cut.chunk(k)?;
        let all: Vec<_> = listed.fetch.iter().chain(&listed.sweep).chain(&listed.adam).collect();
        let limits = &uploaded.device.limits;
        let stride = size_of::<Params>().next_multiple_of(limits.min_uniform_buffer_offset_alignment as usize);
        let places = all.iter().map(|d| 1 + usize::from(d.blocks.is_some())).sum::<usize>();
        let mut bytes = Vec::with_capacity(places * stride);
        let mut put = |words: &[u8]| {
            let at = bytes.len();
            bytes.extend_from_slice(words);
            bytes.resize(at + stride, 0);
            at as u32
        };
        let offsets: Vec<[u32; 2]> = all
            .iter()
            .map(|d| [put(bytemuck::bytes_of(&d.params)), d.blocks.map_or(0, |words| put(bytemuck::bytes_of(&words)))])
            .collect();
        let uniforms = match self.uniforms.take().filter(|b| b.size() >= bytes.len() as u64) {
            Some(uniforms) => uniforms,
            None => {
                self.kernels.clear();
                let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
                buffer(&uploaded.device, "uniforms", bytes.len().next_power_of_two() as u64, usage)?
            }
        };
        uploaded.device.queue.write_buffer(&uniforms, 0, &bytes);
        self.bind(uploaded, pipelines, &uniforms, &all)?;
        self.uniforms = Some(uniforms);
        let mut ready = all.iter().zip(offsets).map(|(dispatch, offsets)| self.ready(dispatch, offsets));
        let chunk = Arc::new(ReadyChunk {
            fetch: listed.fetch.and_then(|_| ready.next()),
            sweep: ready.by_ref().take(listed.sweep.len()).collect(),
            adam: ready.collect(),
        });
        self.chunk = Some((k, chunk.clone()));
        Ok(chunk)
    }

    /// A dispatch with its kernel, which is bound.
    fn ready(&self, dispatch: &Dispatch, offsets: [u32; 2]) -> Ready {
        let bound = |b: &&BoundKernel| (b.kernel, b.ownership) == (dispatch.kernel, dispatch.ownership);
        let BoundKernel { pipeline, bindings, .. } = self.kernels.iter().find(bound).expect("every kernel is bound");
        Ready {
            pipeline: pipeline.clone(),
            bindings: bindings.clone(),
            offsets,
            uniforms: 1 + usize::from(dispatch.blocks.is_some()),
            groups: dispatch.groups,
            work: dispatch.work,
        }
    }

    /// Binds the kernels of dispatches to the buffers, where they are not yet.
    fn bind(
        &mut self,
        uploaded: &Uploaded,
        pipelines: &Pipelines,
        uniforms: &wgpu::Buffer,
        dispatches: &[&Dispatch],
    ) -> Result<()> {
        let mut wanted: Vec<(Kernel, Shape)> = Vec::new();
        for dispatch in dispatches {
            let bound = |b: &BoundKernel| (b.kernel, b.ownership) == (dispatch.kernel, dispatch.ownership);
            let key = compiled_as(uploaded, dispatch);
            if !wanted.contains(&key) && !self.kernels.iter().any(bound) {
                wanted.push(key);
            }
        }
        for ((kernel, shape), pipeline) in wanted.iter().copied().zip(pipelines.get(&wanted)?) {
            let uniform = |size: usize| {
                let size = wgpu::BufferSize::new(size as u64);
                wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: uniforms, offset: 0, size })
            };
            let Memory { states, costs, list, .. } = &self.memory;
            let first = [&uploaded.problem, states, costs];
            let list = list.as_ref().filter(|_| shape.ownership.listed);
            let mut buffers = first.into_iter().chain(list).chain(self.memory.beside(kernel));
            let entries: Vec<_> = (0..)
                .zip(kernel.bindings(shape.ownership))
                .map(|(binding, kind)| wgpu::BindGroupEntry {
                    binding,
                    resource: match kind {
                        Binding::Uniform if binding == 0 => uniform(size_of::<Params>()),
                        Binding::Uniform => uniform(size_of::<[u32; 4]>()),
                        Binding::Read | Binding::ReadWrite => {
                            buffers.next().expect("a buffer for each binding").as_entire_binding()
                        }
                    },
                })
                .collect();
            let bindings = uploaded.device.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(kernel.entry_point()),
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            });
            self.kernels.push(BoundKernel { kernel, ownership: shape.ownership, pipeline, bindings });
        }
        uploaded.device.check()
    }
}

fn cut<'a>(uploaded: &'a Uploaded, call: &'a Call, plan: &'a Plan, slots: &'a Slots, store_stride: usize) -> Cut<'a> {
    Cut {
        call,
        plan,
        slots,
        shape: &uploaded.shape,
        control: uploaded.data.control,
        places: &uploaded.places,
        store_stride,
        most_groups: uploaded.device.limits.max_compute_workgroups_per_dimension as usize,
    }
}

/// What a dispatch's kernel is specialised for.
fn compiled_as(uploaded: &Uploaded, dispatch: &Dispatch) -> (Kernel, Shape) {
    (dispatch.kernel, uploaded.shape.specialise(dispatch.kernel, dispatch.ownership))
}
