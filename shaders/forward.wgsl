// One segment of a forward sweep: one invocation per member and lane. Adds J_o along the way (OBSERVATION), stores
// the state at the stored times (STORE), and at the end of the window (LAST) adds J_b and says who diverged.
// CPU: src/engine/cpu/sweep.rs, `Sweep::forward`.

//% include "member.wgsl"
//% include MODEL ~ ".wgsl"
//% include "rk4.wgsl"
//% include "operator.wgsl"
//% include "cost.wgsl"

@compute @workgroup_size(${GROUP})
fn forward(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    place(local, group);
    var x = load(params.state);
    var cost: real = 0.0;
    if ((params.flags & FIRST) == 0u) {
        cost = costs[params.capacity + member];
    }
    for (var s = 0u; s < params.steps; s++) {
        let now = params.first_step + s;
        if (now % params.steps_per_time == 0u) {
            cost = at_time(now / params.steps_per_time, x, cost);
        }
        x = step(x);
    }
    if ((params.flags & LAST) != 0u) {
        cost = at_time((params.first_step + params.steps) / params.steps_per_time, x, cost);
        finish(x, cost);
    } else {
        store(params.next_state, x);
        if (live && lane == 0u) {
            costs[params.capacity + member] = cost;
        }
    }
}

fn at_time(t: u32, x: State, cost: real) -> real {
    if ((params.flags & STORE) != 0u) {
        store(params.at_times + t, x);
    }
    if ((params.flags & OBSERVATION) != 0u) {
        return cost + observation_cost(t, x);
    }
    return cost;
}

fn finish(x: State, observation: real) {
    var background: real = 0.0;
    if ((params.flags & BACKGROUND) != 0u) {
        let x0 = load(0u);
        background = background_cost(x0, background_gradient(x0));
    }
    let bad = over_lanes(out_of_range(x)) + select(real(1.0), ZERO, in_range(background) && in_range(observation));
    if (live && lane == 0u) {
        costs[member] = background;
        costs[params.capacity + member] = observation;
        costs[2u * params.capacity + member] = select(ZERO, real(1.0), bad > ZERO);
    }
}
