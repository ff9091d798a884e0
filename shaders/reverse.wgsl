// One segment of a reverse sweep: one invocation per member and lane. Integrates the segment keeping the state before
// each step, then sweeps the adjoint back over it, adding J_o where its derivative is. The window's last segment runs
// first; its first runs last and adds the background.
// CPU: src/engine/cpu/sweep.rs, `Sweep::reverse`.

//% include "lanes.wgsl"
//% include "trajectory.wgsl"
//% include MODEL ~ ".wgsl"
//% include "rk4.wgsl"
//% if not FORCING
//% include "operator.wgsl"
//% include "cost.wgsl"
//% endif
//% if EXTENDED
//% include "control.wgsl"
//% endif

@compute @workgroup_size(${GROUP})
fn reverse(at: Invocation) {
    if (!has_members(at.group)) {
        return;
    }
    place(at);
    place_kept(at.local);
    let last = (params.flags & LAST) != 0u;
    var x = load(params.state);
    //% if ERRORS
    begin_errors();
    //% endif
    for (var s = 0u; s < params.steps; s++) {
        x = step_kept(s, x);
        //% if ERRORS
        x = with_error(x);
        //% endif
    }
    let end = params.first_step + params.steps;
    var t = end / params.steps_per_time;        // the next time on the way back, and the steps until then
    var until = end - t * params.steps_per_time;
    var w: State;
    //% if FORCING
    if (last) {
        w = load(params.at_times + t);
    } else {
        w = load(params.cotangent);
    }
    //% else
    var bad: real = 0.0;
    if (last) {
        bad = over_lanes(out_of_range(x));
        if ((params.flags & OBSERVATION) != 0u) {
            w = observation_forcing(t, x, w);
        }
    } else {
        bad = costs[2u * params.capacity + member];
        lane_cost = states[params.lane_costs + invocation];
        w = load(params.cotangent);
    }
    //% endif
    //% if ESTIMATED
    if (!last) {
        load_parameter_cotangent();
    }
    //% endif
    // The time at the segment's end, if there is one, is done: here, or by the segment that begins there.
    if (until == 0u) {
        until = params.steps_per_time;
        t -= 1u;
    }
    for (var s = params.steps; s > 0u; s--) {
        //% if ERRORS
        store_error_cotangent(w);
        //% endif
        x = kept(${STATES_PER_STEP}u * (s - 1u));
        w = step_adjoint(s - 1u, x, w);
        until -= 1u;
        if (until == 0u) {
            //% if FORCING
            w = axpy(real(1.0), load(params.at_times + t), w);
            //% else
            // There are no steps without J_o.
            w = observation_forcing(t, x, w);
            //% endif
            until = params.steps_per_time;
            t -= 1u;
        }
    }
    //% if ESTIMATED
    let bad_parameters = end_parameters();
    //% endif
    //% if not FORCING
    //% if ESTIMATED
    bad += bad_parameters;
    //% endif
    if ((params.flags & FIRST) != 0u) {
        var background: real = 0.0;
        if ((params.flags & BACKGROUND) != 0u) {
            // x is the initial state.
            let g = background_gradient(x);
            background = background_cost(x, g);
            w = axpy(real(1.0), g, w);
        }
        let cost = HALF * over_lanes(lane_cost);
        bad += over_lanes(out_of_range(w)) + select(real(1.0), ZERO, in_range(background) && in_range(cost));
        if (live && lane == 0u) {
            costs[member] = background;
            costs[params.capacity + member] = cost;
        }
    } else {
        states[params.lane_costs + invocation] = lane_cost;
    }
    if (live && lane == 0u) {
        costs[2u * params.capacity + member] = select(ZERO, real(1.0), bad > ZERO);
    }
    //% endif
    store(params.cotangent, w);
}
