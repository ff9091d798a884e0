// What is known of all members where only the best come down: one workgroup per block of 256 members of one problem,
// one invocation per member. Counts the criterion J_b + J_o into its problem's histogram, and sums the weights
// exp(-J_o) of the block and their squares as multiples of that of the least J_o, in a fixed order.
// CPU: src/engine/cpu/select.rs.

//% include "member.wgsl"
//% include "exponential.wgsl"
//% include "block.wgsl"

// Costs in each bin: [problem, bin].
@group(0) @binding(5) var<storage, read_write> histogram: array<atomic<u32>>;
// The least J_o, the sum and the sum of squares of each block of the chunk: [block, 3]. A sum of 0: all diverged.
@group(0) @binding(6) var<storage, read_write> partials: array<real>;

// e^-DEEP is the smallest weight that counts beside 1; the series ends soon after.
const DEEP: real = ${DEEPEST_EXPONENT}.0;

var<workgroup> parts: array<vec2<real>, ${BLOCK_MEMBERS}>;

@compute @workgroup_size(${BLOCK_MEMBERS})
fn select_block(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let place = place_in_block(local, group);
    let observation = costs[params.capacity + place.member];
    if (place.sound && !place.spare) {
        atomicAdd(&histogram[place.p * BINS + bin_of(costs[place.member] + observation)], 1u);
    }
    // No sound cost is as large.
    let none = real(1.0e18);
    parts[local] = vec2<real>(select(none, observation, place.sound), ZERO);
    //% for stride in BLOCK_STRIDES
    workgroupBarrier();
    if (local < ${stride}u) {
        parts[local].x = min(parts[local].x, parts[local + ${stride}u].x);
    }
    //% endfor
    workgroupBarrier();
    let least = parts[0].x;
    let depth = observation - least;
    var weight: real = 0.0;
    if (place.sound && depth < DEEP) {
        weight = exp_negative(-depth);
    }
    workgroupBarrier();
    parts[local] = vec2<real>(weight, weight * weight);
    //% for stride in BLOCK_STRIDES
    workgroupBarrier();
    if (local < ${stride}u) {
        parts[local] += parts[local + ${stride}u];
    }
    //% endfor
    if (local == 0u && !place.spare) {
        partials[3u * place.block] = least;
        partials[3u * place.block + 1u] = parts[0].x;
        partials[3u * place.block + 2u] = parts[0].y;
    }
}
