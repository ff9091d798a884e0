//! Resident members on the GPU: a store of their numbers, from which a call fetches them and to which Adam writes back.

use super::batch::{Chunk, LoadedGpu};
use super::buffers::{Region, buffer, from_bytes, storage, to_bytes};
use super::call::{Call, Source};
use super::dispatches::STEPS_AT_A_TIME;
use super::memory::Store;
use super::run::Run;
use super::shader::Ownership;
use crate::engine::operation::Operation;
use crate::engine::resident::Numbers;
use crate::engine::{AdamStep, Costs, Inspection, Row, Terms};
use crate::error::Result;
use ndarray::{Array1, Array2, ArrayView2};

/// Resident members.
#[derive(Debug)]
pub struct Resident {
    store: Store,
    /// Their places in the store. Members that are given up keep theirs, so that nothing moves.
    places: Vec<u32>,
    /// `[P, control]`
    units: Array2<f64>,
}

impl LoadedGpu {
    pub fn settle(&mut self, numbers: [ArrayView2<f64>; 4], units: ArrayView2<f64>) -> Result<Resident> {
        self.persist(|loaded| loaded.settle_once(numbers, units))
    }

    fn settle_once(&mut self, numbers: [ArrayView2<f64>; 4], units: ArrayView2<f64>) -> Result<Resident> {
        let device = self.queue.device.clone();
        let precision = self.uploaded.shape.precision;
        let (stride, control) = numbers[0].dim();
        let number = precision.bytes();
        let numbers = numbers.iter().flat_map(|a| a.t().iter().copied().collect::<Vec<_>>());
        let (numbers, given_units) = (to_bytes(precision, numbers), to_bytes(precision, units.iter().copied()));
        let store = Store {
            id: crate::engine::resident::new_id(),
            numbers: storage(&device, "resident members", (4 * control * stride * number) as u64)?,
            stride,
            units: storage(&device, "units", given_units.len() as u64)?,
            steps: storage(&device, "steps", (STEPS_AT_A_TIME * 8 * number) as u64)?,
        };
        self.queue.send(&store.numbers, &numbers);
        self.queue.send(&store.units, &given_units);
        Ok(Resident { store, places: (0..stride as u32).collect(), units: units.to_owned() })
    }

    pub fn adam(
        &mut self,
        members: &Resident,
        rows: &[Row],
        amplitude: f64,
        steps: &[AdamStep],
        terms: Terms,
    ) -> Result<()> {
        let moved = self.adam_once(members, rows, amplitude, steps, terms);
        self.recovered(moved)
    }

    fn adam_once(
        &mut self,
        members: &Resident,
        rows: &[Row],
        amplitude: f64,
        steps: &[AdamStep],
        terms: Terms,
    ) -> Result<()> {
        let precision = self.uploaded.shape.precision;
        let mut run = self.resident_run(members, rows, amplitude, terms)?;
        for k in 0..run.plan.chunks.len() {
            let chunk = run.chunk(&self.uploaded, &self.pipelines, k)?;
            let mut fetch = chunk.fetch.as_ref();
            for steps in steps.chunks(STEPS_AT_A_TIME) {
                let numbers = to_bytes(precision, steps.iter().flat_map(AdamStep::numbers));
                self.queue.send(&members.store.steps, &numbers);
                let each = chunk.adam.iter().take(steps.len()).flat_map(|adam| chunk.sweep.iter().chain([adam]));
                self.queue.submit(fetch.take().into_iter().chain(each), &[], &run.memory.staging, |_| ())?;
            }
        }
        self.queue.wait()?;
        self.finish(run, steps.len())
    }

    pub fn inspect(&mut self, members: &Resident, rows: &[Row], amplitude: f64, terms: Terms) -> Result<Inspection> {
        let seen = self.inspect_once(members, rows, amplitude, terms);
        self.recovered(seen)
    }

    fn inspect_once(&mut self, members: &Resident, rows: &[Row], amplitude: f64, terms: Terms) -> Result<Inspection> {
        let (control, precision) = (self.control(), self.uploaded.shape.precision);
        let mut run = self.resident_run(members, rows, amplitude, terms)?;
        let mut costs = Costs::empty(rows.len());
        let mut gradient = Array2::zeros((rows.len(), control));
        for k in 0..run.plan.chunks.len() {
            let ready = run.chunk(&self.uploaded, &self.pipelines, k)?;
            let dispatches = ready.fetch.iter().chain(&ready.sweep);
            let read = |bytes: &[u8]| from_bytes(precision, bytes);
            let numbers = self.queue.submit(dispatches, &run.results, &run.memory.staging, read)?;
            let chunk = Chunk { rows: run.plan.chunks[k].clone(), runs: 0..0, capacity: run.plan.capacity, numbers };
            chunk.put_costs(&mut costs);
            chunk.put(3 * chunk.capacity, control, gradient.as_slice_mut().expect("standard layout"));
        }
        self.finish(run, 1)?;
        let norm = |(gradient, row): (ndarray::ArrayView1<f64>, &Row)| {
            let units = members.units.row(row.problem as usize);
            gradient.iter().zip(units).map(|(g, unit)| (g * unit).powi(2)).sum::<f64>().sqrt()
        };
        let gradient_norm: Array1<f64> = gradient.rows().into_iter().zip(rows).map(norm).collect();
        Ok(Inspection { costs, gradient_norm })
    }

    pub fn numbers(&mut self, members: &Resident, kind: Numbers) -> Result<Array2<f64>> {
        let numbers = self.numbers_once(members, kind);
        self.recovered(numbers)
    }

    fn numbers_once(&mut self, members: &Resident, kind: Numbers) -> Result<Array2<f64>> {
        let device = self.queue.device.clone();
        let (control, stride) = (self.control(), members.store.stride);
        let precision = self.uploaded.shape.precision;
        let bytes = (control * stride * precision.bytes()) as u64;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = buffer(&device, "staging", bytes, usage)?;
        let place = match kind {
            Numbers::States => 0,
            Numbers::Means => 2,
            Numbers::Squares => 3,
        };
        let all = [Region { buffer: members.store.numbers.clone(), first: place * bytes, bytes }];
        let numbers = self.queue.submit([], &all, &staging, |bytes| from_bytes(precision, bytes))?;
        device.check()?;
        Ok(Array2::from_shape_fn((members.places.len(), control), |(k, i)| {
            numbers[i * stride + members.places[k] as usize]
        }))
    }

    /// The buffers and dispatches of a gradient of resident members, with the list sent.
    fn resident_run(&mut self, members: &Resident, rows: &[Row], amplitude: f64, terms: Terms) -> Result<Run> {
        let perturbed = amplitude != 0.0 && terms.observation;
        let call = Call {
            operation: Operation::Gradient(terms),
            source: Source::Given,
            ownership: Ownership { listed: true, perturbed, own_background: true },
            first: 0,
            count: rows.len(),
            per_problem: rows.len(),
            store: Some(members.store.id),
        };
        let run = self.run(call, Some(&members.store))?;
        self.send_list(&run, rows, amplitude, members.places.iter().copied());
        Ok(run)
    }
}

impl Resident {
    pub fn gather(&mut self, keep: &[usize]) {
        self.places = keep.iter().map(|&k| self.places[k]).collect();
    }
}
