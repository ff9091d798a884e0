// The classical Runge-Kutta step, its tangent and its exact adjoint. CPU: src/model/rk4.rs.
// problem[0..3] holds dt/2, dt, dt/6.

// The increments are summed before they meet the state, so that a step rounds the state once.
fn weighted(k1: State, k2: State, k3: State, k4: State) -> State {
    return axpy(real(1.0), k4, axpy(real(2.0), k3, axpy(real(2.0), k2, k1)));
}

fn step(x: State) -> State {
    let k1 = tendency(ring(x));
    let k2 = tendency(ring(axpy(problem[0], k1, x)));
    let k3 = tendency(ring(axpy(problem[0], k2, x)));
    let k4 = tendency(ring(axpy(problem[1], k3, x)));
    return axpy(problem[2], weighted(k1, k2, k3, k4), x);
}

//% if SWEEP == "tangent"
struct Pair {
    x: State,
    dx: State,
}

fn step_tangent(x: State, dx: State) -> Pair {
    let p1 = ring(x);
    let k1 = tendency(p1);
    let d1 = tendency_tangent(p1, ring(dx));
    let p2 = ring(axpy(problem[0], k1, x));
    let k2 = tendency(p2);
    let d2 = tendency_tangent(p2, ring(axpy(problem[0], d1, dx)));
    let p3 = ring(axpy(problem[0], k2, x));
    let k3 = tendency(p3);
    let d3 = tendency_tangent(p3, ring(axpy(problem[0], d2, dx)));
    let p4 = ring(axpy(problem[1], k3, x));
    let k4 = tendency(p4);
    let d4 = tendency_tangent(p4, ring(axpy(problem[1], d3, dx)));
    var next: Pair;
    next.x = axpy(problem[2], weighted(k1, k2, k3, k4), x);
    next.dx = axpy(problem[2], weighted(d1, d2, d3, d4), dx);
    return next;
}
//% endif

//% if SWEEP == "reverse"
// The cotangent of the step's start x, from the cotangent w of its result: shaped like RK4 in reverse.
fn step_adjoint(x: State, w: State) -> State {
    let p1 = ring(x);
    let p2 = ring(axpy(problem[0], tendency(p1), x));
    let p3 = ring(axpy(problem[0], tendency(p2), x));
    let p4 = ring(axpy(problem[1], tendency(p3), x));
    let g4 = tendency_adjoint(p4, ring(w));
    let g3 = tendency_adjoint(p3, ring(axpy(problem[0], g4, w)));
    let g2 = tendency_adjoint(p2, ring(axpy(problem[0], g3, w)));
    let g1 = tendency_adjoint(p1, ring(axpy(problem[1], g2, w)));
    return axpy(problem[2], weighted(g4, g3, g2, g1), w);
}
//% endif
