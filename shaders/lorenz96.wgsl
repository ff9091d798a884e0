// Lorenz-96: dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F on a ring of sites. CPU: src/model/lorenz96.rs.
// Site i of a Ring p is p[i + 2].

fn tendency(p: Ring) -> State {
    var k: State;
    //% for i in range(S)
    k[${i}] = fma(p[${i + 3}] - p[${i}], p[${i + 1}], model_parameters[0] - p[${i + 2}]);
    //% endfor
    return k;
}

//% if ESTIMATED and SWEEP == "tangent"
var<private> parameter_perturbation: array<real, 1>;

//% endif
fn tendency_tangent(p: Ring, d: Ring) -> State {
    var k: State;
    //% for i in range(S)
    //% if ESTIMATED and SWEEP == "tangent"
    k[${i}] = fma(p[${i + 3}] - p[${i}], d[${i + 1}], (d[${i + 3}] - d[${i}]) * p[${i + 1}] + (parameter_perturbation[0] - d[${i + 2}]));
    //% else
    k[${i}] = fma(p[${i + 3}] - p[${i}], d[${i + 1}], (d[${i + 3}] - d[${i}]) * p[${i + 1}] - d[${i + 2}]);
    //% endif
    //% endfor
    return k;
}

// g_i = w_{i-1} x_{i-2} - w_{i+2} x_{i+1} + w_{i+1} (x_{i+2} - x_{i-1}) - w_i
fn tendency_adjoint(p: Ring, w: Ring) -> State {
    var g: State;
    //% for i in range(S)
    g[${i}] = fma(-w[${i + 4}], p[${i + 3}], fma(w[${i + 1}], p[${i}], fma(w[${i + 3}], p[${i + 4}] - p[${i + 1}], -w[${i + 2}])));
    //% endfor
    return g;
}
//% if ESTIMATED and SWEEP == "reverse"

// G' w with G = df/dparameters, of the sites that a lane owns.
fn parameter_adjoint(p: Ring, w: State) -> array<real, 1> {
    var sum: real = 0.0;
    //% for i in range(S)
    sum += select(ZERO, w[${i}], owned(${i}u));
    //% endfor
    return array<real, 1>(sum);
}
//% endif
