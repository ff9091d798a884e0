// Lorenz-63: dx/dt = sigma (y - x), dy/dt = x (rho - z) - y, dz/dt = x y - beta z. CPU: src/model/lorenz63.rs.
// Parameters 0, 1 and 2 are sigma, rho and beta. One lane has all three sites: there is no ring.

fn tendency(p: Ring) -> State {
    return State(
        model_parameters[0] * (p[1] - p[0]),
        fma(p[0], model_parameters[1] - p[2], -p[1]),
        fma(p[0], p[1], -model_parameters[2] * p[2]),
    );
}

//% if ESTIMATED and SWEEP == "tangent"
var<private> parameter_perturbation: array<real, 3>;

//% endif
fn tendency_tangent(p: Ring, d: Ring) -> State {
    var k = State(
        model_parameters[0] * (d[1] - d[0]),
        fma(model_parameters[1] - p[2], d[0], fma(-p[0], d[2], -d[1])),
        fma(p[0], d[1], fma(p[1], d[0], -model_parameters[2] * d[2])),
    );
    //% if ESTIMATED and SWEEP == "tangent"
    k[0] = fma(p[1] - p[0], parameter_perturbation[0], k[0]);
    k[1] = fma(p[0], parameter_perturbation[1], k[1]);
    k[2] = fma(-p[2], parameter_perturbation[2], k[2]);
    //% endif
    return k;
}

fn tendency_adjoint(p: Ring, w: Ring) -> State {
    let sigma_w = model_parameters[0] * w[0];
    return State(
        fma(p[1], w[2], fma(model_parameters[1] - p[2], w[1], -sigma_w)),
        fma(p[0], w[2], sigma_w - w[1]),
        fma(-p[0], w[1], -model_parameters[2] * w[2]),
    );
}
//% if ESTIMATED and SWEEP == "reverse"

// G' w with G = df/dparameters.
fn parameter_adjoint(p: Ring, w: State) -> array<real, 3> {
    return array<real, 3>((p[1] - p[0]) * w[0], p[0] * w[1], -p[2] * w[2]);
}
//% endif
