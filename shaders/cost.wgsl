// The terms of the cost and their forcing. CPU: src/engine/cpu/sweep.rs, `CostTerms`.

const OBSERVATIONS: u32 = ${N // BLOCK_SIZE}u;    // per time

fn observation_at(t: u32, j: u32) -> real {
    return problem[params.observation + problem_index * params.observation_stride + t * OBSERVATIONS + j];
}

fn observation_precision_at(t: u32, j: u32) -> real {
    return problem[params.observation_precision + problem_index * params.observation_precision_stride + t * OBSERVATIONS + j];
}

// H(x)_j - y_j for each block j that begins at a lane's place i.
//% for i in range(0, S, BLOCK_SIZE)
fn departure_${i}(t: u32, x: State) -> real {
    var sum: real = h(x[${i}]);
    //% for k in range(i + 1, i + BLOCK_SIZE)
    sum += h(x[${k}]);
    //% endfor
    return fma(sum, real(${1 / BLOCK_SIZE}), -observation_at(t, site(${i}u) / ${BLOCK_SIZE}u));
}
//% endfor

// J_o of time t.
fn observation_cost(t: u32, x: State) -> real {
    var sum: real = 0.0;
    //% for i in range(0, S, BLOCK_SIZE)
    if (owned(${i}u)) {
        let d = departure_${i}(t, x);
        sum = fma(d * d, observation_precision_at(t, site(${i}u) / ${BLOCK_SIZE}u), sum);
    }
    //% endfor
    return HALF * over_lanes(sum);
}

// w + dJ_o/dx_t
fn observation_forcing(t: u32, x: State, w: State) -> State {
    var forced: State;
    //% for i in range(0, S, BLOCK_SIZE)
    let f${i} = departure_${i}(t, x) * observation_precision_at(t, site(${i}u) / ${BLOCK_SIZE}u) * real(${1 / BLOCK_SIZE});
    //% for k in range(i, i + BLOCK_SIZE)
    forced[${k}] = fma(h_derivative(x[${k}]), f${i}, w[${k}]);
    //% endfor
    //% endfor
    return forced;
}

// B^-1 (x0 - xb)
fn background_gradient(x0: State) -> State {
    //% if FULL_BACKGROUND
    return load(params.background);
    //% else
    var g: State;
    //% for i in range(S)
    g[${i}] = problem[params.inverse + problem_index * params.inverse_stride + site(${i}u)] * (x0[${i}] - mean_at(${i}u));
    //% endfor
    return g;
    //% endif
}

fn mean_at(i: u32) -> real {
    return problem[params.mean + problem_index * params.mean_stride + site(i)];
}

// J_b = 1/2 (x0 - xb)' g, with g from `background_gradient`.
fn background_cost(x0: State, g: State) -> real {
    var sum: real = 0.0;
    //% for i in range(S)
    if (owned(${i}u)) {
        sum = fma(x0[${i}] - mean_at(${i}u), g[${i}], sum);
    }
    //% endfor
    return HALF * over_lanes(sum);
}
