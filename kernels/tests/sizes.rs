//! Programs with extents up to the greatest number, most of them beside a zero: they are refused, or run.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Layout, device};
use kernels::{
    ArgMax, Concat, Conv, ConvKind, Distribution, Float, Instr, Kernel, Load, Map, MatMul, Operand,
    Pad, Pair, Program, Random, Reversible, ReversibleKind, Rows, Slot, Step, Store, StoreKind,
    Take, Unary, Window, WindowKind,
};
use tensor::DType;

/// Draws numbers (Steele, Lea and Flood 2014: `SplitMix64`).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Zero, a few, or a power of two up to 2⁶³ and its neighbours.
    fn extent(&mut self) -> usize {
        match self.below(10) {
            0..3 => 0,
            3..7 => 1 + self.below(5),
            _ => (1_usize << (10 + self.below(54))).wrapping_add(self.of(&[0, 1, usize::MAX])),
        }
    }

    fn extents<const N: usize>(&mut self) -> [usize; N] {
        std::array::from_fn(|_| self.extent())
    }

    fn small<const N: usize>(&mut self) -> [usize; N] {
        let large = self.below(8) == 0;
        std::array::from_fn(|_| if large { self.extent() } else { self.below(4) })
    }

    fn kernel(&mut self) -> Kernel {
        let float = self.of(&[Float::F32, Float::F64]);
        match self.below(11) {
            0 | 1 => Kernel::Map(self.map(float)),
            2 => Kernel::MatMul(self.matmul(float)),
            3 => Kernel::MatMulPair(Pair(MatMul {
                accumulate: false,
                ..self.matmul(float)
            })),
            4 => Kernel::Conv(self.conv(float)),
            5 => Kernel::Window(self.window(float)),
            6 => self.pad_or_concat(float),
            7 => Kernel::Take(Take {
                float,
                outer: self.extent(),
                n: self.extent(),
                inner: self.extent(),
                index: vec![0; self.below(4)].into(),
                adjoint: self.flag(),
            }),
            8 => Kernel::Rows(Rows {
                float,
                rows: self.extent(),
                width: self.extent(),
                count: self.extent(),
                adjoint: self.flag(),
            }),
            9 => Kernel::ArgMax(ArgMax {
                float,
                outer: self.extent(),
                n: self.extent(),
                inner: self.extent(),
            }),
            _ => self.random_or_reversible(float),
        }
    }

    fn map(&mut self, float: Float) -> Map {
        let extents: Vec<usize> = (0..self.below(5)).map(|_| self.extent()).collect();
        let load = |draw: &mut Self| Load {
            dtype: float.into(),
            strides: extents.iter().map(|_| draw.extent()).collect(),
        };
        let loads = vec![load(self), load(self)];
        let flags: Vec<bool> = extents.iter().map(|_| self.flag()).collect();
        let kind = self.of(&[true, false]);
        let store = Store {
            value: 2,
            dtype: float.into(),
            kind: if kind {
                StoreKind::Full
            } else {
                StoreKind::Sum(flags)
            },
        };
        Map {
            float,
            extents,
            loads,
            code: vec![
                Instr::Load(0),
                Instr::Load(1),
                Instr::Unary(Unary::Neg, self.below(2)),
            ],
            stores: vec![store],
        }
    }

    fn matmul(&mut self, float: Float) -> MatMul {
        let [batch, m, n, k] = self.extents();
        MatMul {
            float,
            batch,
            m,
            n,
            k,
            transpose_a: self.flag(),
            transpose_b: self.flag(),
            accumulate: self.flag(),
        }
    }

    fn conv(&mut self, float: Float) -> Conv {
        let [batch, n, h, w, c, out] = self.extents();
        Conv {
            float,
            kind: self.of(&[ConvKind::Forward, ConvKind::Input, ConvKind::Weight]),
            batch,
            n,
            h,
            w,
            c,
            out,
            window: self.small(),
            stride: self.small(),
            pad: self.small(),
            accumulate: self.flag(),
        }
    }

    fn window(&mut self, float: Float) -> Window {
        let [n, h, w, c] = self.extents();
        let kinds = [WindowKind::ArgMax, WindowKind::Gather, WindowKind::Scatter];
        Window {
            float,
            kind: self.of(&kinds),
            n,
            h,
            w,
            c,
            window: self.small(),
            stride: self.small(),
            pad: self.small(),
        }
    }

    fn pad_or_concat(&mut self, float: Float) -> Kernel {
        let axes = self.below(4);
        let mut extents = || (0..axes).map(|_| self.extent()).collect();
        let (extents, before, after): (Vec<_>, Vec<_>, Vec<_>) = (extents(), extents(), extents());
        if self.flag() {
            return Kernel::Pad(Pad {
                dtype: float.into(),
                extents,
                before,
                after,
            });
        }
        Kernel::Concat(Concat {
            dtype: float.into(),
            outer: self.extent(),
            inner: extents,
        })
    }

    fn random_or_reversible(&mut self, float: Float) -> Kernel {
        let count = self.extent();
        if self.flag() {
            return Kernel::Random(Random {
                float,
                distribution: Distribution::Uniform,
                count,
                op: 0,
            });
        }
        let kinds = [
            ReversibleKind::Advance,
            ReversibleKind::Undo,
            ReversibleKind::Weight,
            ReversibleKind::Velocity,
        ];
        Kernel::Reversible(Reversible {
            float,
            count,
            kind: self.of(&kinds),
        })
    }
}

/// A step of the kernel on one slot that is too small for it.
fn refused(kernel: &Kernel, arrays: [usize; 2]) {
    let slots = vec![Slot {
        bytes: 64,
        writable: true,
    }];
    let at = Operand { slot: 0, offset: 0 };
    let step = Step {
        kernel: kernel.clone(),
        inputs: vec![at; arrays[0]],
        outputs: vec![at; arrays[1]],
        workspace: Some(at),
    };
    let error = Program::new(slots, vec![step]).unwrap_err().to_string();
    assert!(error.starts_with("step 0: "), "{kernel:?}: {error}");
}

#[test]
fn no_extent_wraps_and_nothing_divides_by_zero() {
    let devices = [device(1), device(2)];
    let mut ran = [0; 2];
    for seed in 0..60_000 {
        let mut draw = Draw(seed);
        let kernel = draw.kernel();
        if kernel.check().is_err() {
            refused(&kernel, [1, 1]);
            continue;
        }
        let (inputs, outputs) = (kernel.inputs(), kernel.outputs());
        let arrays = inputs.iter().chain(&outputs);
        let sizes = arrays.map(|&(dtype, n): &(DType, usize)| n.saturating_mul(dtype.size()));
        let total = sizes.fold(0, usize::saturating_add);
        let _ = (kernel.flops(), kernel.bytes());
        if total > 1 << 16 {
            refused(&kernel, [inputs.len(), outputs.len()]);
            continue;
        }
        // A map may visit many points of a few numbers.
        if kernel.workspace() > 1 << 20 || kernel.flops() > 1 << 24 {
            continue;
        }
        let empty = outputs.iter().all(|&(_, n)| n == 0);
        ran[usize::from(empty)] += 1;
        let zeros: Vec<Vec<u8>> = inputs.iter().map(|&(t, n)| vec![0; t.size() * n]).collect();
        for device in &devices {
            let found = Layout::new(kernel.clone()).run(device, &zeros);
            // Offsets of zero may point to a border.
            let fits = found.is_ok() || matches!(kernel, Kernel::Window(_));
            assert!(fits, "seed {seed}, {kernel:?}: {found:?}");
        }
    }
    assert!(ran.iter().all(|&count| count > 2000), "{ran:?} ran");
}
