// What a reverse sweep keeps of the forward one. Each invocation reads only what it wrote itself: no barrier, and spare
// invocations have their own.

var<private> kept_first: u32;

//% if TRAJECTORY == "workgroup"
// [state, place, GROUP]
var<workgroup> kept_states: array<real, ${STEPS_IN_GROUP * STATES_PER_STEP * S * GROUP}>;

fn place_kept(local: u32) {
    kept_first = local;
}
//% set store, apart = "kept_states", GROUP
//% else
// In `states`, in tiles of ${TILE} invocations, so that a tile's window lies together and its places a constant apart:
// [tile, state, place, ${TILE}].
fn place_kept(local: u32) {
    let window = params.steps * ${STATES_PER_STEP * S * TILE}u;
    kept_first = params.kept + invocation / ${TILE}u * window + invocation % ${TILE}u;
}
//% set store, apart = "states", TILE
//% endif

fn keep(k: u32, x: State) {
    let at = kept_first + k * ${S * apart}u;
    //% for i in range(S)
    ${store}[at + ${i * apart}u] = x[${i}];
    //% endfor
}

fn kept(k: u32) -> State {
    let at = kept_first + k * ${S * apart}u;
    var x: State;
    //% for i in range(S)
    x[${i}] = ${store}[at + ${i * apart}u];
    //% endfor
    return x;
}
