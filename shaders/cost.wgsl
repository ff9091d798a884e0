// The terms of the cost and their forcing. CPU: src/engine/cpu/sweep.rs, `CostTerms`.

const OBSERVATIONS: u32 = ${N // BLOCK_SIZE}u;    // per time

fn observation_at(t: u32, j: u32) -> real {
    return problem[params.observation + problem_index * params.observation_stride + t * OBSERVATIONS + j];
}

fn observation_precision_at(t: u32, j: u32) -> real {
    return problem[params.observation_precision + problem_index * params.observation_precision_stride + t * OBSERVATIONS + j];
}

//% if PERTURBED
//% include "random.wgsl"

const OBSERVATIONS_PER_LANE: u32 = ${S // BLOCK_SIZE}u;

// Draws what the member's own y is above the problem's at time t, a sigma eps for each observation that a lane holds, into
// the slot `epsilon`: a loop that is not unrolled, or each observation would bring its own copy of the generator.
// CPU: src/engine/cpu/perturbed.rs.
fn draw_perturbations(t: u32) {
    let row = list[params.first_row + member];
    var quad = 0xffffffffu;
    var z: vec4<f32>;
    for (var l = 0u; l < OBSERVATIONS_PER_LANE; l++) {
        let j = (lane * OBSERVATIONS_PER_LANE + l) % OBSERVATIONS;
        if (live && observation_precision_at(t, j) != ZERO) {
            if (quad != j / 4u) {
                quad = j / 4u;
                z = normals(vec2<u32>(row.key_low, row.key_high), vec4<u32>(quad, row.member, t, ${PERTURBATION_STREAM}u));
            }
            let pair = select(z.xy, z.zw, (j & 2u) != 0u);
            let epsilon = real(select(pair.x, pair.y, (j & 1u) != 0u));
            let sigma = problem[params.deviation + problem_index * params.deviation_stride + t * OBSERVATIONS + j];
            states[perturbation_place(l)] = problem[3] * sigma * epsilon;
        }
    }
}

fn perturbation_place(l: u32) -> u32 {
    return (params.epsilon * N + lane * OBSERVATIONS_PER_LANE + l) * params.capacity + member;
}

// The draw of a lane's observation l, which is observation j.
fn perturbation(t: u32, j: u32, l: u32) -> real {
    if (observation_precision_at(t, j) == ZERO) {
        return ZERO;
    }
    return states[perturbation_place(l)];
}
//% endif

// 2 J_o of the lane's own observations, so far. A reverse sweep adds it on the way back, where its derivative is, so
// that each observation is read, and each perturbation drawn, once.
var<private> lane_cost: real;

// H(x)_j - y_j for each block j that begins at a lane's place i.
//% for i in range(0, S, BLOCK_SIZE)
fn departure_${i}(t: u32, x: State) -> real {
    var sum: real = h(x[${i}]);
    //% for k in range(i + 1, i + BLOCK_SIZE)
    sum += h(x[${k}]);
    //% endfor
    let j = site(${i}u) / ${BLOCK_SIZE}u;
    //% if PERTURBED
    return fma(sum, real(${1 / BLOCK_SIZE}), -observation_at(t, j)) - perturbation(t, j, ${i // BLOCK_SIZE}u);
    //% else
    return fma(sum, real(${1 / BLOCK_SIZE}), -observation_at(t, j));
    //% endif
}
//% endfor

// Adds J_o of time t.
fn observation_cost(t: u32, x: State) {
    //% if PERTURBED
    draw_perturbations(t);
    //% endif
    //% for i in range(0, S, BLOCK_SIZE)
    if (owned(${i}u)) {
        let d = departure_${i}(t, x);
        lane_cost = fma(d * d, observation_precision_at(t, site(${i}u) / ${BLOCK_SIZE}u), lane_cost);
    }
    //% endfor
}

// w + dJ_o/dx_t. Adds J_o of time t.
fn observation_forcing(t: u32, x: State, w: State) -> State {
    var forced: State;
    //% if PERTURBED
    draw_perturbations(t);
    //% endif
    //% for i in range(0, S, BLOCK_SIZE)
    let d${i} = departure_${i}(t, x);
    let r${i} = d${i} * observation_precision_at(t, site(${i}u) / ${BLOCK_SIZE}u);
    if (owned(${i}u)) {
        lane_cost = fma(d${i}, r${i}, lane_cost);
    }
    //% if BLOCK_SIZE == 1
    forced[${i}] = fma(h_derivative(x[${i}]), r${i}, w[${i}]);
    //% else
    let f${i} = r${i} * real(${1 / BLOCK_SIZE});
    //% for k in range(i, i + BLOCK_SIZE)
    forced[${k}] = fma(h_derivative(x[${k}]), f${i}, w[${k}]);
    //% endfor
    //% endif
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
    //% if OWN_BACKGROUND
    return states[(params.own_background * N + site(i)) * params.capacity + member];
    //% else
    return problem[params.mean + problem_index * params.mean_stride + site(i)];
    //% endif
}

// J_b = 1/2 (x0 - xb)' g, with g from `background_gradient`, and the same of whatever else the control holds.
fn background_cost(x0: State, g: State) -> real {
    var sum: real = 0.0;
    //% for i in range(S)
    if (owned(${i}u)) {
        sum = fma(x0[${i}] - mean_at(${i}u), g[${i}], sum);
    }
    //% endfor
    //% if EXTENDED
    sum += cost_beside_state();
    //% endif
    return HALF * over_lanes(sum);
}
