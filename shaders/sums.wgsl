// Sums over blocks of 256 members of one problem: one workgroup per block, or several where a control may be long.
// Sixteen partial sums run side by side, each over every sixteenth member, and are added in order: whatever the chunk, a
// block has one sum.
// CPU: src/engine/cpu/sums.rs.

//% include "member.wgsl"

const BLOCK: u32 = ${BLOCK_MEMBERS}u;
const PARTS: u32 = 16u;
//% if EXTENDED
// Numbers of a control that one workgroup sums over: the workgroups of a block share it.
const COLUMNS: u32 = ${SUM_COLUMNS}u;
//% endif
// Per block: valid members, members, sum J_b, sum J_o, sum (J - mean)^2, then g, g^2, eps, eps^2, g eps: [5, control].

// [quantity, block]
@group(0) @binding(4) var<storage, read_write> partials: array<real>;

struct Blocks {
    first_block: u32,        // of this chunk, among all blocks of the batch
    blocks_per_problem: u32,
    count: u32,              // blocks of this chunk
    total: u32,              // blocks of the call
}
@group(0) @binding(5) var<uniform> blocks: Blocks;

var<workgroup> parts: array<real, 1280>;

fn put(q: u32, block: u32, value: real) {
    partials[q * blocks.total + blocks.first_block - params.call_block + block] = value;
}

@compute @workgroup_size(256)
fn sums(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    // Spare workgroups repeat the last block.
    //% if EXTENDED
    let runs = (params.control + COLUMNS - 1u) / COLUMNS;
    let id = min(group.y * params.groups_x + group.x, blocks.count * runs - 1u);
    let block = id / runs;
    let begin = (id % runs) * COLUMNS;
    let end = min(begin + COLUMNS, params.control);
    //% else
    let block = min(group.y * params.groups_x + group.x, blocks.count - 1u);
    //% endif
    let index = blocks.first_block + block;
    let p = index / blocks.blocks_per_problem;
    let within = (index % blocks.blocks_per_problem) * BLOCK;
    let start = p * params.per_problem + within - params.first_row;
    let count = min(BLOCK, params.per_problem - within);
    let part = local % PARTS;
    let column = local / PARTS;

    if (local < PARTS) {
        var s = array<real, 3>();
        for (var k = part; k < count; k += PARTS) {
            if (costs[2u * params.capacity + start + k] == ZERO) {
                s[0] += real(1.0);
                s[1] += costs[start + k];
                s[2] += costs[params.capacity + start + k];
            }
        }
        for (var q = 0u; q < 3u; q++) {
            parts[q * PARTS + part] = s[q];
        }
    }
    workgroupBarrier();
    var total = array<real, 3>();
    for (var q = 0u; q < 3u; q++) {
        for (var k = 0u; k < PARTS; k++) {
            total[q] += parts[q * PARTS + k];
        }
    }
    let mean = (total[1] + total[2]) / max(total[0], real(1.0));
    workgroupBarrier();
    if (local < PARTS) {
        var s: real = 0.0;
        for (var k = part; k < count; k += PARTS) {
            if (costs[2u * params.capacity + start + k] == ZERO) {
                let d = costs[start + k] + costs[params.capacity + start + k] - mean;
                s = fma(d, d, s);
            }
        }
        parts[part] = s;
    }
    workgroupBarrier();
    if (local == 0u) {
        var s: real = 0.0;
        for (var k = 0u; k < PARTS; k++) {
            s += parts[k];
        }
        put(0u, block, total[0]);
        put(1u, block, real(count));
        put(2u, block, total[1]);
        put(3u, block, total[2]);
        put(4u, block, s);
    }

    //% if EXTENDED
    for (var first = begin; first < end; first += PARTS) {
    //% else
    for (var first = 0u; first < N; first += PARTS) {
    //% endif
        let i = min(first + column, ${CONTROL} - 1u);
        var s = array<real, 5>();
        for (var k = part; k < count; k += PARTS) {
            if (costs[2u * params.capacity + start + k] == ZERO) {
                let g = states[(params.cotangent * N + i) * params.capacity + start + k];
                let e = states[(params.epsilon * N + i) * params.capacity + start + k];
                s[0] += g;
                s[1] = fma(g, g, s[1]);
                s[2] += e;
                s[3] = fma(e, e, s[3]);
                s[4] = fma(g, e, s[4]);
            }
        }
        workgroupBarrier();
        for (var q = 0u; q < 5u; q++) {
            parts[(q * PARTS + column) * PARTS + part] = s[q];
        }
        workgroupBarrier();
        // 80 sums: invocation (q, column) adds its sixteen parts.
        if (local < 80u && first + local % PARTS < ${CONTROL}) {
            var sum: real = 0.0;
            for (var k = 0u; k < PARTS; k++) {
                sum += parts[local * PARTS + k];
            }
            put(5u + (local / PARTS) * ${CONTROL} + first + local % PARTS, block, sum);
        }
    }
}
