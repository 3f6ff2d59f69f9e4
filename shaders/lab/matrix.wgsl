// The most operations a second of cooperative matrices, f16 with sums in f32: each subgroup multiplies four matrices a
// with two matrices b, `rounds` times, and y = the eight sums. All subgroups have the same a and b.
//
// The sums are variables, not an array, so that they stay in registers; each waits only for its own last product.

struct Params {
    rounds: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f16>; // [6, MATRIX, MATRIX], a before b
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // [workgroups, 8, MATRIX, MATRIX]
@group(0) @binding(2) var<uniform> params: Params;

override LANES: u32 = 32u; // threads of a subgroup

const SUMS: u32 = 8u;

fn a(number: u32) -> MatrixA {
    return coopLoadT<MatrixA>(&x[number * MATRIX * MATRIX], MATRIX);
}

fn b(number: u32) -> MatrixB {
    return coopLoadT<MatrixB>(&x[(4u + number) * MATRIX * MATRIX], MATRIX);
}

fn keep(sum: MatrixC, group: u32, number: u32) {
    coopStoreT(sum, &y[(SUMS * group + number) * MATRIX * MATRIX], MATRIX);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u) {
    let a0 = a(0u);
    let a1 = a(1u);
    let a2 = a(2u);
    let a3 = a(3u);
    let b0 = b(0u);
    let b1 = b(1u);
    var s00 = MatrixC();
    var s01 = MatrixC();
    var s10 = MatrixC();
    var s11 = MatrixC();
    var s20 = MatrixC();
    var s21 = MatrixC();
    var s30 = MatrixC();
    var s31 = MatrixC();
    for (var round = 0u; round < params.rounds; round++) {
        s00 = coopMultiplyAdd(a0, b0, s00);
        s01 = coopMultiplyAdd(a0, b1, s01);
        s10 = coopMultiplyAdd(a1, b0, s10);
        s11 = coopMultiplyAdd(a1, b1, s11);
        s20 = coopMultiplyAdd(a2, b0, s20);
        s21 = coopMultiplyAdd(a2, b1, s21);
        s30 = coopMultiplyAdd(a3, b0, s30);
        s31 = coopMultiplyAdd(a3, b1, s31);
    }
    keep(s00, group.x, 0u);
    keep(s01, group.x, 1u);
    keep(s10, group.x, 2u);
    keep(s11, group.x, 3u);
    keep(s20, group.x, 4u);
    keep(s21, group.x, 5u);
    keep(s30, group.x, 6u);
    keep(s31, group.x, 7u);
}
