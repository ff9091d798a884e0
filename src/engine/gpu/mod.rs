//! stub
use super::*;
#[derive(Clone, Debug)]
pub struct GpuEngine {
    hardware: Hardware,
}
impl GpuEngine {
    pub(super) fn new(_s: &EngineSettings) -> Result<Self> {
        todo!()
    }
    pub(super) fn hardware(&self) -> &Hardware {
        &self.hardware
    }
    pub(super) fn load(&self, _p: &Problem) -> Result<LoadedGpu> {
        todo!()
    }
}
#[derive(Debug)]
pub(super) struct LoadedGpu;
impl LoadedGpu {
    pub(super) fn forecast(&mut self, _m: Members) -> Result<Array3<f64>> {
        todo!()
    }
    pub(super) fn cost(&mut self, _m: Members, _t: Terms) -> Result<Costs> {
        todo!()
    }
    pub(super) fn gradient(&mut self, _m: Members, _t: Terms) -> Result<Gradients> {
        todo!()
    }
    pub(super) fn moments(&mut self, _d: &Draw, _t: Terms) -> Result<Vec<Moments>> {
        todo!()
    }
    pub(super) fn tangent(&mut self, _m: Members, _d: ArrayView2<f64>) -> Result<Array3<f64>> {
        todo!()
    }
    pub(super) fn adjoint(&mut self, _m: Members, _f: ArrayView3<f64>) -> Result<Array2<f64>> {
        todo!()
    }
    pub(super) fn counters(&self) -> Counters {
        todo!()
    }
}
impl GpuEngine {
    pub(super) fn best_real(_s: &EngineSettings) -> Result<Option<Self>> {
        Ok(None)
    }
}
/// An adapter, as `vi4dvar devices` shows it.
#[derive(Clone, Debug)]
pub struct AdapterDescription {
    /// Name.
    pub name: String,
    /// "vulkan", "metal" or "dx12".
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// "discrete GPU", "integrated GPU", "software", ...
    pub kind: String,
    /// Whether f64 kernels run on it.
    pub f64: bool,
    /// Largest storage binding in bytes.
    pub largest_binding: u64,
}
/// All adapters, the one that would be used first.
pub fn adapters() -> Vec<AdapterDescription> {
    Vec::new()
}
