// The classical Runge-Kutta step, its tangent and its exact adjoint. CPU: src/model/rk4.rs.
// Every step makes an even number of exchanges, so that the next begins with turn 0 again.

// The increments are summed before they meet the state, so that a step rounds the state once.
fn weighted(k1: State, k2: State, k3: State, k4: State) -> State {
    return axpy(real(1.0), k4, axpy(real(2.0), k3, axpy(real(2.0), k2, k1)));
}

fn step(x: State) -> State {
    let k1 = tendency(ring_ahead(x, 0u));
    let k2 = tendency(ring_ahead(axpy(half_dt, k1, x), 1u));
    let k3 = tendency(ring_ahead(axpy(half_dt, k2, x), 0u));
    let k4 = tendency(ring_ahead(axpy(dt, k3, x), 1u));
    return axpy(sixth_dt, weighted(k1, k2, k3, k4), x);
}

//% if SWEEP == "tangent"
struct Pair {
    x: State,
    dx: State,
}

fn step_tangent(x: State, dx: State) -> Pair {
    let p1 = ring_ahead(x, 0u);
    let k1 = tendency(p1);
    let d1 = tendency_tangent(p1, ring_ahead(dx, 1u));
    let p2 = ring_ahead(axpy(half_dt, k1, x), 0u);
    let k2 = tendency(p2);
    let d2 = tendency_tangent(p2, ring_ahead(axpy(half_dt, d1, dx), 1u));
    let p3 = ring_ahead(axpy(half_dt, k2, x), 0u);
    let k3 = tendency(p3);
    let d3 = tendency_tangent(p3, ring_ahead(axpy(half_dt, d2, dx), 1u));
    let p4 = ring_ahead(axpy(dt, k3, x), 0u);
    let k4 = tendency(p4);
    let d4 = tendency_tangent(p4, ring_ahead(axpy(dt, d3, dx), 1u));
    var next: Pair;
    next.x = axpy(sixth_dt, weighted(k1, k2, k3, k4), x);
    next.dx = axpy(sixth_dt, weighted(d1, d2, d3, d4), dx);
    return next;
}
//% endif

//% if SWEEP == "reverse"
//% if ESTIMATED
// The cotangent of the parameters so far: a lane's share.
var<private> parameter_cotangent: array<real, ${PARAMETERS}>;

// Adds weight G' w, where G is df/dparameters at p.
fn add_parameter_adjoint(weight: real, p: Ring, w: State) {
    let g = parameter_adjoint(p, w);
    //% for k in range(PARAMETERS)
    parameter_cotangent[${k}] = fma(weight, g[${k}], parameter_cotangent[${k}]);
    //% endfor
}
//% endif
// Step s, keeping what the way back needs.
fn step_kept(s: u32, x: State) -> State {
    keep(${STATES_PER_STEP}u * s, x);
    //% if STATES_PER_STEP == 1
    return step(x);
    //% else
    let k1 = tendency(ring_ahead(x, 0u));
    let x2 = axpy(half_dt, k1, x);
    keep(4u * s + 1u, x2);
    let k2 = tendency(ring_ahead(x2, 1u));
    let x3 = axpy(half_dt, k2, x);
    keep(4u * s + 2u, x3);
    let k3 = tendency(ring_ahead(x3, 0u));
    let x4 = axpy(dt, k3, x);
    keep(4u * s + 3u, x4);
    let k4 = tendency(ring_ahead(x4, 1u));
    return axpy(sixth_dt, weighted(k1, k2, k3, k4), x);
    //% endif
}

// The cotangent of the start x of step s, from the cotangent w of its result: shaped like RK4 in reverse. Compilers
// see that the tendency and its adjoint share their differences.
fn step_adjoint(s: u32, x: State, w: State) -> State {
    let p1 = ring(x, 0u);
    //% if STATES_PER_STEP == 1
    let p2 = ring(axpy(half_dt, tendency(p1), x), 1u);
    let p3 = ring(axpy(half_dt, tendency(p2), x), 0u);
    let p4 = ring(axpy(dt, tendency(p3), x), 1u);
    //% else
    let p2 = ring(kept(4u * s + 1u), 1u);
    let p3 = ring(kept(4u * s + 2u), 0u);
    let p4 = ring(kept(4u * s + 3u), 1u);
    //% endif
    let g4 = tendency_adjoint(p4, ring_back(w, 0u));
    let g3 = tendency_adjoint(p3, ring_back(axpy(half_dt, g4, w), 1u));
    let g2 = tendency_adjoint(p2, ring_back(axpy(half_dt, g3, w), 0u));
    let g1 = tendency_adjoint(p1, ring_back(axpy(dt, g2, w), 1u));
    //% if ESTIMATED
    add_parameter_adjoint(sixth_dt, p4, w);
    add_parameter_adjoint(real(2.0) * sixth_dt, p3, axpy(half_dt, g4, w));
    add_parameter_adjoint(real(2.0) * sixth_dt, p2, axpy(half_dt, g3, w));
    add_parameter_adjoint(sixth_dt, p1, axpy(dt, g2, w));
    //% endif
    return axpy(sixth_dt, weighted(g4, g3, g2, g1), w);
}
//% endif
