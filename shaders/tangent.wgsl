// One segment of a tangent sweep: one invocation per member and lane. Carries a state and a perturbation, and stores
// the perturbation at the stored times. CPU: src/engine/cpu/sweep.rs, `Sweep::tangent`.

//% include "lanes.wgsl"
//% include MODEL ~ ".wgsl"
//% include "rk4.wgsl"
//% if EXTENDED
//% include "control.wgsl"
//% endif

@compute @workgroup_size(${GROUP})
fn tangent(at: Invocation) {
    if (!has_members(at.group)) {
        return;
    }
    place(at);
    var pair: Pair;
    pair.x = load(params.state);
    pair.dx = load(params.cotangent);
    var t = params.first_step / params.steps_per_time;   // the last time, and the steps since then
    var since = params.first_step - t * params.steps_per_time;
    //% if ERRORS
    begin_errors();
    //% endif
    //% for k in range(PARAMETERS if ESTIMATED else 0)
    parameter_perturbation[${k}] = states[(params.cotangent * N + parameter_number(${k}u)) * params.capacity + member];
    //% endfor
    for (var s = 0u; s < params.steps; s++) {
        if (since == 0u) {
            store(params.at_times + t, pair.dx);
        }
        pair = step_tangent(pair.x, pair.dx);
        //% if ERRORS
        if (error_follows()) {
            pair.x = axpy(real(1.0), load(params.errors + error - 1u), pair.x);
            pair.dx = axpy(real(1.0), load(params.error_cotangents + error - 1u), pair.dx);
        }
        //% endif
        since += 1u;
        if (since == params.steps_per_time) {
            since = 0u;
            t += 1u;
        }
    }
    if ((params.flags & LAST) != 0u) {
        store(params.at_times + t, pair.dx);
    }
    store(params.next_state, pair.x);
    store(params.cotangent, pair.dx);
}
