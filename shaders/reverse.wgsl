// One segment of a reverse sweep: one invocation per member and lane. Integrates the segment keeping the state before
// each step, then sweeps the adjoint back over it. The window's last segment runs first and adds its J_o (the earlier
// ones' comes from forward.wgsl); its first runs last and adds the background.
// CPU: src/engine/cpu/sweep.rs, `Sweep::reverse`.

//% include "member.wgsl"
//% include MODEL ~ ".wgsl"
//% include "rk4.wgsl"
//% if not FORCING
//% include "operator.wgsl"
//% include "cost.wgsl"
//% endif

@compute @workgroup_size(${GROUP})
fn reverse(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    place(local, group);
    let last = (params.flags & LAST) != 0u;
    let first = (params.flags & FIRST) != 0u;
    let observation = (params.flags & OBSERVATION) != 0u;
    var x = load(params.state);
    var cost: real = 0.0;
    var bad: real = 0.0;
    if (!(first && last)) {
        cost = costs[params.capacity + member];
        bad = costs[2u * params.capacity + member];
    }
    for (var s = 0u; s < params.steps; s++) {
        //% if not (FORCING or PERTURBED)
        let now = params.first_step + s;
        if (last && observation && now % params.steps_per_time == 0u) {
            cost += observation_cost(now / params.steps_per_time, x);
        }
        //% endif
        store(params.kept + s, x);
        x = step(x);
    }
    var w: State;
    if (last) {
        bad = over_lanes(out_of_range(x));
        let t = (params.first_step + params.steps) / params.steps_per_time;
        //% if FORCING
        w = load(params.at_times + t);
        //% else
        if (observation) {
            //% if PERTURBED
            w = observation_forcing(t, x, w);
            cost += forcing_cost;
            //% else
            cost += observation_cost(t, x);
            w = observation_forcing(t, x, w);
            //% endif
        }
        //% endif
    } else {
        w = load(params.cotangent);
    }
    for (var s = params.steps; s > 0u; s--) {
        x = load(params.kept + s - 1u);
        w = step_adjoint(x, w);
        let now = params.first_step + s - 1u;
        if (now % params.steps_per_time == 0u) {
            //% if FORCING
            w = axpy(real(1.0), load(params.at_times + now / params.steps_per_time), w);
            //% else
            // There are no steps without J_o.
            w = observation_forcing(now / params.steps_per_time, x, w);
            //% if PERTURBED
            cost += forcing_cost;
            //% endif
            //% endif
        }
    }
    //% if not FORCING
    var background: real = 0.0;
    if (first) {
        if ((params.flags & BACKGROUND) != 0u) {
            let x0 = load(0u);
            let g = background_gradient(x0);
            background = background_cost(x0, g);
            w = axpy(real(1.0), g, w);
        }
        bad += over_lanes(out_of_range(w)) + select(real(1.0), ZERO, in_range(background) && in_range(cost));
    }
    if (live && lane == 0u) {
        costs[member] = background;
        costs[params.capacity + member] = cost;
        costs[2u * params.capacity + member] = select(ZERO, real(1.0), bad > ZERO);
    }
    //% endif
    store(params.cotangent, w);
}
