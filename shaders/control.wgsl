// What sweeps do with the control beside x0: the model's errors, and its parameters where they are estimated.
// CPU: src/engine/cpu/sweep.rs.

//% if ERRORS
var<private> error: u32;          // errors so far
var<private> until_error: u32;    // steps until the next one

fn begin_errors() {
    error = params.first_step / params.error_interval;
    until_error = (error + 1u) * params.error_interval - params.first_step;
}

// Whether the step that was made is followed by an error: the last one so far.
fn error_follows() -> bool {
    until_error -= 1u;
    if (until_error > 0u) {
        return false;
    }
    until_error = params.error_interval;
    error += 1u;
    return error <= params.error_count;
}

// The result of a step with the error that follows it, if there is one.
fn with_error(x: State) -> State {
    if (error_follows()) {
        return axpy(real(1.0), load(params.errors + error - 1u), x);
    }
    return x;
}

// On the way back: stores the cotangent w of a step's result, which is that of the error that followed it.
fn store_error_cotangent(w: State) {
    if (until_error == params.error_interval) {
        if (error <= params.error_count) {
            store(params.error_cotangents + error - 1u, w);
        }
        error -= 1u;
        until_error = 0u;
    }
    until_error += 1u;
}
//% endif

//% if ESTIMATED
// The number of the control that parameter k is.
fn parameter_number(k: u32) -> u32 {
    return params.control - ${PARAMETERS}u + k;
}

fn parameter_mean(k: u32) -> real {
    let i = parameter_number(k);
    //% if OWN_BACKGROUND
    return states[(params.own_background * N + i) * params.capacity + member];
    //% else
    return problem[params.mean + problem_index * params.mean_stride + i];
    //% endif
}

fn parameter_precision(k: u32) -> real {
    return problem[params.prior_precision + problem_index * params.prior_precision_stride + parameter_number(k)];
}
//% endif

//% if ESTIMATED and SWEEP == "reverse"
// At the end of a segment: keeps the lanes' shares of the parameters' cotangents for the next, or at the first leaves
// the gradient, with the prior's part where it is wanted. The parameters of which it is out of range.
fn end_parameters() -> real {
    var bad: real = 0.0;
    //% for k in range(PARAMETERS)
    if ((params.flags & FIRST) != 0u) {
        var g = over_lanes(parameter_cotangent[${k}]);
        if ((params.flags & BACKGROUND) != 0u) {
            g = fma(parameter_precision(${k}u), model_parameters[${k}] - parameter_mean(${k}u), g);
        }
        bad += select(real(1.0), ZERO, in_range(g));
        if (live && lane == 0u) {
            states[(params.cotangent * N + parameter_number(${k}u)) * params.capacity + member] = g;
        }
    } else {
        states[params.lane_parameters + invocation * ${PARAMETERS}u + ${k}u] = parameter_cotangent[${k}];
    }
    //% endfor
    return bad;
}

fn load_parameter_cotangent() {
    //% for k in range(PARAMETERS)
    parameter_cotangent[${k}] = states[params.lane_parameters + invocation * ${PARAMETERS}u + ${k}u];
    //% endfor
}
//% endif

// 2 J_b of errors and parameters: a lane's share.
fn cost_beside_state() -> real {
    var sum: real = 0.0;
    //% if ERRORS
    //% if ESTIMATED
    // There may be as many parameters as sites.
    let last = (params.control - ${PARAMETERS}u) / N - 1u;
    //% else
    let last = params.control / N - 1u;
    //% endif
    for (var k = 1u; k <= last; k++) {
        let xi = load(k);
        //% if OWN_BACKGROUND
        let mean = load(params.own_background + k);
        //% endif
        //% for i in range(S)
        if (owned(${i}u)) {
            //% if OWN_BACKGROUND
            sum = fma(xi[${i}] - mean[${i}], xi[${i}] - mean[${i}], sum);
            //% else
            sum = fma(xi[${i}], xi[${i}], sum);
            //% endif
        }
        //% endfor
    }
    //% endif
    //% if ESTIMATED
    if (lane == 0u) {
        //% for k in range(PARAMETERS)
        let d${k} = model_parameters[${k}] - parameter_mean(${k}u);
        sum = fma(d${k} * d${k}, parameter_precision(${k}u), sum);
        //% endfor
    }
    //% endif
    return sum;
}
