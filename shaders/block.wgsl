// A block of 256 members of one problem, and the histogram's bins.

struct Blocks {
    first_block: u32,        // of this chunk, among all blocks of the batch
    blocks_per_problem: u32,
    count: u32,              // blocks of this chunk
    best: u32,               // members of each problem that may be kept
}
@group(0) @binding(4) var<uniform> blocks: Blocks;

const BINS: u32 = ${BINS}u;

struct Place {
    block: u32,      // within the chunk
    p: u32,          // problem
    member: u32,     // within the chunk
    sound: bool,     // false beyond the block's members and for a diverged one
    spare: bool,     // true in the spare workgroups, which repeat the last block
}

fn place_in_block(local: u32, group: vec3<u32>) -> Place {
    var place: Place;
    let wanted = group.y * params.groups_x + group.x;
    place.spare = wanted >= blocks.count;
    place.block = min(wanted, blocks.count - 1u);
    let index = blocks.first_block + place.block;
    place.p = index / blocks.blocks_per_problem;
    let within = (index % blocks.blocks_per_problem) * ${BLOCK_MEMBERS}u;
    let start = place.p * params.per_problem + within - params.first_row;
    let count = min(${BLOCK_MEMBERS}u, params.per_problem - within);
    place.member = start + min(local, count - 1u);
    // The flag, and the costs again: a compiler that assumes that there is no NaN may have lost one.
    place.sound = local < count && costs[2u * params.capacity + place.member] == ZERO
        && in_range(costs[place.member]) && in_range(costs[params.capacity + place.member]);
    return place;
}

// The bin of a cost: `CostHistogram::bin`.
fn bin_of(cost: real) -> u32 {
    return min(max(bitcast<u32>(f32(cost)) >> 19u, ${FIRST_BIN}u) - ${FIRST_BIN}u, BINS - 1u);
}
