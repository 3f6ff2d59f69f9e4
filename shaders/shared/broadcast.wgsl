// How products are made on software devices with subgroups of 8: a load costs them far more than a multiply-add
// (docs/performance.md), workgroup memory is not faster than a buffer, and registers are plenty. So each lane
// loads another row, all lanes get every row from there, and one load serves 32 vectors of multiply-adds.
#import accumulate

const LANES: u32 = 8u;

// 8 rows of this lane's column of vectors.
struct Sums {
    r0: vec4f,
    r1: vec4f,
    r2: vec4f,
    r3: vec4f,
    r4: vec4f,
    r5: vec4f,
    r6: vec4f,
    r7: vec4f,
}

// `sums` + the rows of which this lane holds four elements of its own, `a`, times this lane's columns `w`.
fn accumulate8(sums: Sums, a: vec4f, w: Weights) -> Sums {
    return Sums(
        accumulate(sums.r0, subgroupBroadcast(a, 0u), w),
        accumulate(sums.r1, subgroupBroadcast(a, 1u), w),
        accumulate(sums.r2, subgroupBroadcast(a, 2u), w),
        accumulate(sums.r3, subgroupBroadcast(a, 3u), w),
        accumulate(sums.r4, subgroupBroadcast(a, 4u), w),
        accumulate(sums.r5, subgroupBroadcast(a, 5u), w),
        accumulate(sums.r6, subgroupBroadcast(a, 6u), w),
        accumulate(sums.r7, subgroupBroadcast(a, 7u), w),
    );
}
