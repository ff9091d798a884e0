//! stub
use super::*;
#[derive(Clone, Debug)]
pub struct CpuEngine {
    hardware: Hardware,
}
impl CpuEngine {
    pub(super) fn new(_s: &EngineSettings) -> Result<Self> {
        todo!()
    }
    pub(super) fn hardware(&self) -> &Hardware {
        &self.hardware
    }
    pub(super) fn load(&self, _p: &Problem) -> Result<LoadedCpu> {
        todo!()
    }
}
#[derive(Debug)]
pub(super) struct LoadedCpu;
impl LoadedCpu {
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
