// One segment of a forward sweep: one invocation per member and lane. Adds J_o along the way (OBSERVATION), stores
// the state at the stored times (STORE), and at the end of the window (LAST) adds J_b and says who diverged.
// CPU: src/engine/cpu/sweep.rs, `Sweep::forward`.

//% include "lanes.wgsl"
//% include MODEL ~ ".wgsl"
//% include "rk4.wgsl"
//% include "operator.wgsl"
//% include "cost.wgsl"
//% if EXTENDED
//% include "control.wgsl"
//% endif

@compute @workgroup_size(${GROUP})
fn forward(at: Invocation) {
    if (!has_members(at.group)) {
        return;
    }
    place(at);
    var x = load(params.state);
    if ((params.flags & FIRST) == 0u) {
        lane_cost = states[params.lane_costs + invocation];
    }
    var t = params.first_step / params.steps_per_time;   // the last time, and the steps since then
    var since = params.first_step - t * params.steps_per_time;
    //% if ERRORS
    begin_errors();
    //% endif
    for (var s = 0u; s < params.steps; s++) {
        if (since == 0u) {
            at_time(t, x);
        }
        x = step(x);
        //% if ERRORS
        x = with_error(x);
        //% endif
        since += 1u;
        if (since == params.steps_per_time) {
            since = 0u;
            t += 1u;
        }
    }
    if ((params.flags & LAST) != 0u) {
        at_time(t, x);
        finish(x);
    } else {
        store(params.next_state, x);
        states[params.lane_costs + invocation] = lane_cost;
    }
}

fn at_time(t: u32, x: State) {
    if ((params.flags & STORE) != 0u) {
        store(params.at_times + t, x);
    }
    if ((params.flags & OBSERVATION) != 0u) {
        observation_cost(t, x);
    }
}

fn finish(x: State) {
    var background: real = 0.0;
    if ((params.flags & BACKGROUND) != 0u) {
        let x0 = load(0u);
        background = background_cost(x0, background_gradient(x0));
    }
    let observation = HALF * over_lanes(lane_cost);
    let bad = over_lanes(out_of_range(x)) + select(real(1.0), ZERO, in_range(background) && in_range(observation));
    if (live && lane == 0u) {
        costs[member] = background;
        costs[params.capacity + member] = observation;
        costs[2u * params.capacity + member] = select(ZERO, real(1.0), bad > ZERO);
    }
}
