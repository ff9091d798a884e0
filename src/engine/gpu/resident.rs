//! Resident members on the GPU: a store of their numbers, from which a call fetches them and to which Adam writes back.

use super::batch::{Chunk, LoadedGpu};
use super::run::{Call, Run, Source};
use super::shader::Ownership;
use super::uploaded::{buffer, from_bytes, storage, to_bytes};
use crate::engine::operation::Operation;
use crate::engine::{AdamStep, Costs, Inspection, Row, Terms};
use crate::error::{Error, Result};
use ndarray::{Array1, Array2, ArrayView2};

/// Adam steps whose numbers are sent at a time.
pub const STEPS_AT_A_TIME: usize = 64;

/// Resident members.
#[derive(Debug)]
pub struct Resident {
    store: Store,
    /// Their places in the store. Members that are given up keep theirs, so that nothing moves.
    places: Vec<u32>,
    /// `[P, control]`
    units: Array2<f64>,
}

/// Where resident members are kept between calls.
#[derive(Debug)]
pub struct Store {
    id: u64,
    /// x0, xb, and Adam's running means: `[4, site, stride]`.
    pub numbers: wgpu::Buffer,
    pub stride: usize,
    /// `[P, site]`
    pub units: wgpu::Buffer,
    /// Adam's numbers: `[STEPS_AT_A_TIME, 8]`.
    pub steps: wgpu::Buffer,
}

impl LoadedGpu {
    pub fn settle(
        &mut self,
        states: ArrayView2<f64>,
        backgrounds: ArrayView2<f64>,
        units: ArrayView2<f64>,
    ) -> Result<Resident> {
        let device = self.uploaded.engine.device.clone();
        let precision = self.uploaded.shape.precision;
        let (stride, sites) = states.dim();
        let number = precision.bytes();
        let zeros = Array2::zeros(states.dim());
        let arrays = [states, backgrounds, zeros.view(), zeros.view()];
        let numbers = arrays.iter().flat_map(|a| a.t().iter().copied().collect::<Vec<_>>());
        let (numbers, given_units) = (to_bytes(precision, numbers), to_bytes(precision, units.iter().copied()));
        let store = Store {
            id: crate::engine::resident::new_id(),
            numbers: storage(&device, "resident members", (4 * sites * stride * number) as u64)?,
            stride,
            units: storage(&device, "units", given_units.len() as u64)?,
            steps: storage(&device, "steps", (STEPS_AT_A_TIME * 8 * number) as u64)?,
        };
        device.queue.write_buffer(&store.numbers, 0, &numbers);
        device.queue.write_buffer(&store.units, 0, &given_units);
        self.counters.bytes_up += (numbers.len() + given_units.len()) as u64;
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
        let device = self.uploaded.engine.device.clone();
        let precision = self.uploaded.shape.precision;
        let (call, run) = self.resident_run(members, rows, amplitude, terms)?;
        for (sweep, own) in run.chunks.iter().zip(&run.resident) {
            let mut fetch = Some(&own.fetch);
            for steps in steps.chunks(STEPS_AT_A_TIME) {
                let numbers = to_bytes(precision, steps.iter().flat_map(AdamStep::numbers));
                device.queue.write_buffer(&members.store.steps, 0, &numbers);
                self.counters.bytes_up += numbers.len() as u64;
                let each = own.adam.iter().take(steps.len()).flat_map(|adam| sweep.iter().chain([adam]));
                self.submit(&run, fetch.take().into_iter().chain(each), &[], |_| ())?;
            }
        }
        device.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| Error::Device {
            message: e.to_string(),
            help: "try a smaller --memory, or --backend cpu".into(),
        })?;
        device.check()?;
        call.operation.count(&run.plan.segments, rows.len() * steps.len(), &mut self.counters);
        self.last = Some((call, run));
        Ok(())
    }

    pub fn inspect(&mut self, members: &Resident, rows: &[Row], amplitude: f64, terms: Terms) -> Result<Inspection> {
        let (sites, precision) = (self.uploaded.data.sites, self.uploaded.shape.precision);
        let (call, run) = self.resident_run(members, rows, amplitude, terms)?;
        let mut costs = Costs::empty(rows.len());
        let mut gradient = Array2::zeros((rows.len(), sites));
        for ((chunk, sweep), own) in run.plan.chunks.iter().zip(&run.chunks).zip(&run.resident) {
            let dispatches = [&own.fetch].into_iter().chain(sweep);
            let numbers = self.submit(&run, dispatches, &run.results, |bytes| from_bytes(precision, bytes))?;
            let chunk = Chunk { rows: chunk.clone(), capacity: run.plan.capacity, numbers };
            chunk.put_costs(&mut costs);
            chunk.put(3 * chunk.capacity, sites, gradient.as_slice_mut().expect("standard layout"));
        }
        self.uploaded.engine.device.check()?;
        call.operation.count(&run.plan.segments, rows.len(), &mut self.counters);
        self.last = Some((call, run));
        let norm = |(gradient, row): (ndarray::ArrayView1<f64>, &Row)| {
            let units = members.units.row(row.problem as usize);
            gradient.iter().zip(units).map(|(g, unit)| (g * unit).powi(2)).sum::<f64>().sqrt()
        };
        let gradient_norm: Array1<f64> = gradient.rows().into_iter().zip(rows).map(norm).collect();
        Ok(Inspection { costs, gradient_norm })
    }

    pub fn states(&mut self, members: &Resident) -> Result<Array2<f64>> {
        let device = self.uploaded.engine.device.clone();
        let (sites, stride) = (self.uploaded.data.sites, members.store.stride);
        let precision = self.uploaded.shape.precision;
        let bytes = (sites * stride * precision.bytes()) as u64;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = buffer(&device, "staging", bytes, usage)?;
        let mut encoder = device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(&members.store.numbers, 0, &staging, 0, bytes);
        device.queue.submit([encoder.finish()]);
        self.counters.submissions += 1;
        let numbers = self.read_back(&staging, bytes, |bytes| from_bytes(precision, bytes))?;
        device.check()?;
        Ok(Array2::from_shape_fn((members.places.len(), sites), |(k, i)| {
            numbers[i * stride + members.places[k] as usize]
        }))
    }

    /// The buffers and dispatches of a gradient of resident members, with the list sent.
    fn resident_run(&mut self, members: &Resident, rows: &[Row], amplitude: f64, terms: Terms) -> Result<(Call, Run)> {
        let perturbed = amplitude != 0.0 && terms.observation;
        let call = Call {
            operation: Operation::Gradient(terms),
            source: Source::Given,
            ownership: Ownership { listed: true, perturbed, own_background: true },
            count: rows.len(),
            store: Some(members.store.id),
        };
        let run = match self.last.take() {
            Some((last, run)) if last == call => run,
            _ => Run::new(&self.uploaded, call, Some(&members.store))?,
        };
        self.send_list(&run, rows, amplitude, members.places.iter().copied());
        Ok((call, run))
    }
}

impl Resident {
    pub fn gather(&mut self, keep: &[usize]) {
        self.places = keep.iter().map(|&k| self.places[k]).collect();
    }
}
