// Lists the members that may be kept: one workgroup per block of 256 members of one problem, one invocation per
// member. The histogram of all members so far says which bin holds the worst of the best; the host has a bound too.
// The list's order is of no account. CPU: src/engine/cpu/select.rs.

//% include "member.wgsl"
//% include "block.wgsl"

// Costs in each bin of all members so far: [problem, bin].
@group(0) @binding(5) var<storage, read_write> histogram: array<u32>;
// The largest criterion that may still be kept: [problem].
@group(0) @binding(6) var<storage, read> bounds: array<real>;
// How many are listed, then their rows among all members of the batch.
@group(0) @binding(7) var<storage, read_write> listed: array<atomic<u32>>;
// Their J_b and J_o: [listed, 2].
@group(0) @binding(8) var<storage, read_write> listed_costs: array<real>;

const BINS_EACH: u32 = ${BINS // BLOCK_MEMBERS}u;
var<workgroup> counts: array<u32, ${BLOCK_MEMBERS}>;
var<workgroup> worst_bin: u32;

@compute @workgroup_size(${BLOCK_MEMBERS})
fn gather(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let place = place_in_block(local, group);
    let bins = place.p * BINS;
    var count = 0u;
    for (var k = 0u; k < BINS_EACH; k++) {
        count += histogram[bins + local * BINS_EACH + k];
    }
    counts[local] = count;
    workgroupBarrier();
    if (local == 0u) {
        var below = 0u;
        var k = 0u;
        while (k < ${BLOCK_MEMBERS - 1}u && below + counts[k] < blocks.best) {
            below += counts[k];
            k++;
        }
        var bin = k * BINS_EACH;
        below += histogram[bins + bin];
        while (bin < BINS - 1u && below < blocks.best) {
            bin++;
            below += histogram[bins + bin];
        }
        worst_bin = bin;
    }
    workgroupBarrier();
    let background = costs[place.member];
    let observation = costs[params.capacity + place.member];
    let criterion = background + observation;
    if (place.sound && !place.spare && criterion <= bounds[place.p] && bin_of(criterion) <= worst_bin) {
        let k = atomicAdd(&listed[0], 1u);
        atomicStore(&listed[1u + k], params.first_row + place.member);
        listed_costs[2u * k] = background;
        listed_costs[2u * k + 1u] = observation;
    }
}
