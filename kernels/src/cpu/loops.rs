//! What the compiler made of the innermost loops: their sums must stay in registers.

use super::microkernel::{Element, Kernel};
use super::simd::{Simd, hold};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};
use std::slice;

/// Bytes that are decoded from the start of a kernel: more than a kernel has.
const CODE: usize = 3000;

/// Instructions of the longest innermost loop, roughly.
const LONGEST: usize = 150;

/// The instructions from the beginning of a kernel on.
fn code_of<T>(kernel: Kernel<T>) -> Vec<Instruction> {
    let start = kernel as usize;
    // SAFETY: code can be read, and much of it follows every kernel.
    let bytes = unsafe { slice::from_raw_parts(start as *const u8, CODE) };
    let decoder = Decoder::with_ip(64, bytes, start as u64, DecoderOptions::NONE);
    decoder.into_iter().collect()
}

/// Where a jump within the code goes.
fn target(code: &[Instruction], jump: &Instruction) -> Option<usize> {
    let near = matches!(
        jump.flow_control(),
        FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
    );
    let found = || {
        code.iter()
            .position(|i| i.ip() == jump.near_branch_target())
    };
    near.then(found).flatten()
}

/// Loops that contain no other.
fn innermost(code: &[Instruction]) -> Vec<&[Instruction]> {
    let jumps = code.iter().enumerate();
    let back = jumps.filter_map(|(end, jump)| Some((target(code, jump)?, end)));
    let back: Vec<_> = back.filter(|&(start, end)| start < end).collect();
    let holds_another = |&(start, end): &(usize, usize)| {
        let inside = |&(s, e): &(usize, usize)| (s, e) != (start, end) && start <= s && e <= end;
        back.iter().any(inside)
    };
    let short = back.iter().filter(|&&(start, end)| end - start < LONGEST);
    let loops = short.filter(|found| !holds_another(found));
    loops.map(|&(start, end)| &code[start..=end]).collect()
}

fn multiplies(instruction: &Instruction) -> bool {
    format!("{:?}", instruction.mnemonic()).starts_with("Vfmadd")
}

/// How many sums a loop writes to memory at every turn.
fn stores(product: &[Instruction]) -> usize {
    let multiplications = product.iter().filter(|i| multiplies(i));
    let sums: Vec<Register> = multiplications.map(Instruction::op0_register).collect();
    let stores = product
        .iter()
        .filter(|i| i.op0_kind() == OpKind::Memory && i.op_count() > 1);
    stores.filter(|i| sums.contains(&i.op1_register())).count()
}

fn check<T: Element>(name: &str) {
    let engine = T::engine();
    for rows in 1..=engine.rows() {
        for vectors in 1..=2 {
            let code = code_of(engine.kernel(rows, vectors * engine.lanes));
            let mut loops = innermost(&code);
            loops.retain(|found| found.iter().any(multiplies));
            assert!(
                !loops.is_empty(),
                "{name}, {rows} rows of {vectors} vectors"
            );
            for found in loops {
                assert_eq!(stores(found), 0, "{name}, {rows} rows of {vectors} vectors");
            }
        }
    }
}

#[test]
fn sums_of_products_stay_in_registers() {
    if cfg!(debug_assertions) {
        eprintln!(
            "skipped: code with debug assertions is other code; .ci/run runs this with --release"
        );
        return;
    }
    // The levels that fuse multiplications and additions. At the baseline, which does not, six rows need more
    // registers than there are.
    let levels = [Simd::Avx2, Simd::Avx512].into_iter();
    for level in levels.filter(|&level| level <= Simd::detected()) {
        hold(level);
        check::<f32>(&format!("{level}, f32"));
        check::<f64>(&format!("{level}, f64"));
    }
}
