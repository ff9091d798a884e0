// Adds the sums of a dispatch's blocks on the pattern of S to those of their runs, block after block: one invocation per
// number and run of blocks. CPU: `Moments::merge`.

//% include "member.wgsl"

// [block of the dispatch, number]
@group(0) @binding(4) var<storage, read_write> partials: array<real>;
// [run, number]
@group(0) @binding(5) var<storage, read_write> totals: array<real>;

struct Blocks {
    first_block: u32,        // of this dispatch, among all blocks of the batch
    blocks_per_problem: u32,
    count: u32,              // blocks of this dispatch
    tiles: u32,
}
@group(0) @binding(6) var<uniform> blocks: Blocks;

@compute @workgroup_size(64)
fn add_pattern(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let id = (group.y * params.groups_x + group.x) * 64u + local;
    let runs_per_problem = (blocks.blocks_per_problem + params.blocks_per_run - 1u) / params.blocks_per_run;
    let last_block = blocks.first_block + blocks.count - 1u;
    let number = id % params.pattern;
    let run = run_of(blocks.first_block, runs_per_problem) + id / params.pattern;
    if (run > run_of(last_block, runs_per_problem)) {
        return;
    }
    let p = run / runs_per_problem;
    let first = p * blocks.blocks_per_problem + (run % runs_per_problem) * params.blocks_per_run;
    let end = min(min(first + params.blocks_per_run, (p + 1u) * blocks.blocks_per_problem), last_block + 1u);
    var sum: real = 0.0;
    if (first < blocks.first_block) {
        sum = totals[(run - params.call_run) * params.pattern + number];
    }
    for (var block = max(first, blocks.first_block); block < end; block++) {
        sum += partials[(block - blocks.first_block) * params.pattern + number];
    }
    totals[(run - params.call_run) * params.pattern + number] = sum;
}

fn run_of(block: u32, runs_per_problem: u32) -> u32 {
    return block / blocks.blocks_per_problem * runs_per_problem + block % blocks.blocks_per_problem / params.blocks_per_run;
}
