// Sums of products on the pattern of S over blocks of 256 members of one problem: one workgroup per block and tile of a
// matrix. Its rows are g, then eps; its columns eps, of which those on and below the diagonals are kept, or Z' eps and then
// W' g, of which g (W' g)' is not. Members come in turns of sixteen, a sum over each turn, and the turns are added in
// order: whatever the chunk and the tile, a block has one sum. CPU: src/engine/cpu/sums.rs, `outer`.

//% include "member.wgsl"

const BLOCK: u32 = ${BLOCK_MEMBERS}u;
const TURN: u32 = 16u;
// Invocations over a tile, and the rows and columns that each has of it.
const DOWN: u32 = ${PATTERN_DOWN}u;
const ACROSS: u32 = ${PATTERN_ACROSS}u;
const EACH: u32 = ${PATTERN_EACH}u;
const ROWS: u32 = DOWN * EACH;
const COLUMNS: u32 = ACROSS * EACH;

// [block of the dispatch, number]
@group(0) @binding(4) var<storage, read_write> partials: array<real>;

struct Blocks {
    first_block: u32,        // of this dispatch, among all blocks of the batch
    blocks_per_problem: u32,
    count: u32,              // blocks of this dispatch
    tiles: u32,              // of the matrix
}
@group(0) @binding(5) var<uniform> blocks: Blocks;

// A turn of the tile's rows and columns. One number more than needed, so that members do not meet in a bank.
var<workgroup> rows: array<real, ${16 * (PATTERN_DOWN * PATTERN_EACH + 1)}>;
var<workgroup> columns: array<real, ${16 * (PATTERN_ACROSS * PATTERN_EACH + 1)}>;

// The number of a member among the states that is row r of the matrix, and the one that is column c.
fn row_at(r: u32) -> u32 {
    return select(params.epsilon * N + r - ${CONTROL}, params.cotangent * N + r, r < ${CONTROL});
}

fn column_at(c: u32) -> u32 {
    //% if LOWER_PATTERN
    return params.epsilon * N + c;
    //% else
    return params.projections * N + c;
    //% endif
}

// A number of a member, 0 of one that is left out.
fn number_of(sound: bool, at: u32) -> real {
    if (sound) {
        return states[at];
    }
    return ZERO;
}

@compute @workgroup_size(64)
fn sum_pattern(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    // Spare workgroups repeat the last one.
    let id = min(group.y * params.groups_x + group.x, blocks.count * blocks.tiles - 1u);
    let block = id / blocks.tiles;
    let tile = id % blocks.tiles;
    let index = blocks.first_block + block;
    let p = index / blocks.blocks_per_problem;
    let within = (index % blocks.blocks_per_problem) * BLOCK;
    let start = p * params.per_problem + within - params.first_row;
    let count = min(BLOCK, params.per_problem - within);
    //% if LOWER_PATTERN
    // The tiles of g, then those of eps: of each row of tiles those up to the diagonal.
    let each = blocks.tiles / 2u;
    let half = tile / each;
    var tile_row = 0u;
    var tile_column = tile % each;
    while (tile_column > tile_row) {
        tile_row++;
        tile_column -= tile_row;
    }
    let first_row = half * ${CONTROL} + tile_row * ROWS;
    let last_row = (half + 1u) * ${CONTROL} - 1u;
    let first_column = tile_column * COLUMNS;
    let last_column = ${CONTROL} - 1u;
    //% else
    let tiles_across = (2u * params.rank + COLUMNS - 1u) / COLUMNS;
    let first_row = (tile / tiles_across) * ROWS;
    let last_row = 2u * ${CONTROL} - 1u;
    let first_column = (tile % tiles_across) * COLUMNS;
    let last_column = 2u * params.rank - 1u;
    //% endif

    // Of a turn an invocation brings one member's numbers, every fourth row and column.
    let member = local % TURN;
    let bring = local / TURN;
    let first = start + member;
    //% for j in range(PATTERN_DOWN * PATTERN_EACH // 4)
    let row${j} = row_at(min(first_row + bring + ${4 * j}u, last_row)) * params.capacity + first;
    //% endfor
    //% for j in range(PATTERN_ACROSS * PATTERN_EACH // 4)
    let column${j} = column_at(min(first_column + bring + ${4 * j}u, last_column)) * params.capacity + first;
    //% endfor
    let own_row = (local / ACROSS) * EACH;
    let own_column = (local % ACROSS) * EACH;
    var total = array<real, ${PATTERN_EACH * PATTERN_EACH}>();
    for (var turn = 0u; turn < count; turn += TURN) {
        let k = min(turn + member, count - 1u);
        let sound = turn + member < count && costs[2u * params.capacity + start + k] == ZERO;
        workgroupBarrier();
        //% for j in range(PATTERN_DOWN * PATTERN_EACH // 4)
        rows[member * (ROWS + 1u) + bring + ${4 * j}u] = number_of(sound, row${j} + turn);
        //% endfor
        //% for j in range(PATTERN_ACROSS * PATTERN_EACH // 4)
        columns[member * (COLUMNS + 1u) + bring + ${4 * j}u] = number_of(sound, column${j} + turn);
        //% endfor
        workgroupBarrier();
        var sum = array<real, ${PATTERN_EACH * PATTERN_EACH}>();
        for (var k = 0u; k < TURN; k++) {
            //% for i in range(PATTERN_EACH)
            let r${i} = rows[k * (ROWS + 1u) + own_row + ${i}u];
            let c${i} = columns[k * (COLUMNS + 1u) + own_column + ${i}u];
            //% endfor
            //% for i in range(PATTERN_EACH)
            //% for j in range(PATTERN_EACH)
            sum[${i * PATTERN_EACH + j}] = fma(r${i}, c${j}, sum[${i * PATTERN_EACH + j}]);
            //% endfor
            //% endfor
        }
        //% for q in range(PATTERN_EACH * PATTERN_EACH)
        total[${q}] += sum[${q}];
        //% endfor
    }

    //% for i in range(PATTERN_EACH)
    //% for j in range(PATTERN_EACH)
    put(block, first_row + own_row + ${i}u, last_row, first_column + own_column + ${j}u, last_column, total[${i * PATTERN_EACH + j}]);
    //% endfor
    //% endfor
}

// Stores the sum in row r and column c, where it is one that is wanted.
fn put(block: u32, r: u32, last_row: u32, c: u32, last_column: u32, sum: real) {
    if (r > last_row || c > last_column) {
        return;
    }
    let half = r / ${CONTROL};
    let i = r % ${CONTROL};
    //% if LOWER_PATTERN
    // g eps', then eps eps', each [row, column up to the row].
    if (c <= i) {
        partials[block * params.pattern + half * (params.pattern / 2u) + i * (i + 1u) / 2u + c] = sum;
    }
    //% else
    // g (Z' eps)', eps (W' g)', eps (Z' eps)', each [control, rank].
    let left = c / params.rank;
    if (half >= left) {
        let matrix = 2u * half - left;
        partials[block * params.pattern + (matrix * ${CONTROL} + i) * params.rank + c % params.rank] = sum;
    }
    //% endif
}
