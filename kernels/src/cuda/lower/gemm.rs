//! Launches of products: matrix products, and convolutions as products of patches. See `gemm.cuh`.

use super::{Divisor, Launch, Lowering, word};
use crate::{Conv, ConvKind, MatMul, Precision};
use bytemuck::{Pod, Zeroable};

/// Blocks that fill a large device once; splits of the inner index aim at twice as many.
const BLOCKS: usize = 132;

/// Inner indices of a split, at least.
const DEPTH: usize = 128;

/// Bytes of all partial sums of a product, at most: see `SCRATCH_BYTES`.
const PARTIAL_BYTES: usize = 4 << 20;

/// A convolution's numbers: `operands.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Geometry {
    w: Divisor,
    h: Divisor,
    c: Divisor,
    out_w: Divisor,
    out_h: Divisor,
    out: Divisor,
    window_w: Divisor,
    stride_y: Divisor,
    stride_x: Divisor,
    window_h: u32,
    pad_y: u32,
    pad_x: u32,
}
const _: () = assert!(size_of::<Geometry>() == 120, "as on the device");

/// `gemm.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct GemmArgs {
    a: u64,
    b: u64,
    second_a: u64,
    second_b: u64,
    c: u64,
    partials: u64,
    m: u32,
    n: u32,
    k: u32,
    accumulate: u32,
    tiles_m: u32,
    tiles_n: u32,
    splits: u32,
    depth: u32,
    parts: u32,
    rounds: u32,
    images: u32,
    pad: u32,
    geometry: Geometry,
}
const _: () = assert!(size_of::<GemmArgs>() == 216, "as on the device");

/// `gemm_combine.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct CombineArgs {
    partials: u64,
    output: u64,
    size: u32,
    splits: u32,
    batch: u32,
    accumulate: u32,
    products: u32,
    pad: u32,
}
const _: () = assert!(size_of::<CombineArgs>() == 40, "as on the device");

/// C [m, n] of an inner index of k, `batch` times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
}

impl Product {
    pub(super) fn of_matmul(matmul: &MatMul) -> Self {
        let MatMul { batch, m, n, k, .. } = *matmul;
        Self { batch, m, n, k }
    }

    pub(super) fn of_conv(conv: &Conv) -> Self {
        let (window, batch) = (conv.window[0] * conv.window[1], conv.batch);
        let (x, y) = (
            conv.n * conv.h * conv.w,
            conv.n * conv.out_h() * conv.out_w(),
        );
        let [m, n, k] = match conv.kind {
            ConvKind::Forward => [y, conv.out, window * conv.c],
            ConvKind::Input => [x, conv.c, window * conv.out],
            ConvKind::Weight => [conv.out, window * conv.c, y],
        };
        Self { batch, m, n, k }
    }
}

/// How a product is cut: a function of its sizes alone, so that the order of its sums is one, too.
#[derive(Clone, Copy, Debug)]
struct Cut {
    name: &'static str,
    tiles: [usize; 2],
    splits: usize,
    depth: usize,
}

impl Cut {
    /// The tile that leaves the fewest places empty, the larger of equals; unless smaller ones are needed
    /// to fill the device.
    fn new(product: &Product) -> Self {
        let &Product { batch, m, n, k } = product;
        let sizes = [("large", 128, 128), ("tall", 128, 64), ("small", 64, 64)];
        let places = |&(_, rows, columns): &(&str, usize, usize)| {
            m.next_multiple_of(rows) * n.next_multiple_of(columns)
        };
        let blocks = |&(_, rows, columns): &(&str, usize, usize)| {
            let splits = (k / (2 * DEPTH)).max(1);
            batch * m.div_ceil(rows) * n.div_ceil(columns) * splits
        };
        let full = |size: &&(&str, usize, usize)| blocks(size) >= BLOCKS || size.0 == "small";
        let (name, rows, columns) = *sizes
            .iter()
            .filter(full)
            .min_by_key(|size| places(size))
            .expect("the small tile is always allowed");
        let tiles = [m.div_ceil(rows), n.div_ceil(columns)];
        let alone = (batch * tiles[0] * tiles[1]).max(1);
        let room = PARTIAL_BYTES / (4 * batch * m * n).max(1);
        let wanted = if alone < BLOCKS {
            (2 * BLOCKS).div_ceil(alone)
        } else {
            1
        };
        let splits = wanted.min(k / DEPTH).min(room).max(1);
        let depth = k.div_ceil(splits).next_multiple_of(32);
        let splits = k.div_ceil(depth.max(1)).max(1);
        Self {
            name,
            tiles,
            splits,
            depth,
        }
    }
}

impl Lowering<'_> {
    pub(super) fn matmul(&mut self, spec: &MatMul) -> Result<Vec<Launch>, String> {
        let name = match (spec.transpose_a, spec.transpose_b) {
            (false, false) => "matmul_nn",
            (false, true) => "matmul_nt",
            (true, false) => "matmul_tn",
            (true, true) => "matmul_tt",
        };
        self.product(name, Product::of_matmul(spec), spec.accumulate, None)
    }

    pub(super) fn conv(&mut self, spec: &Conv) -> Result<Vec<Launch>, String> {
        if spec.counts().contains(&0) {
            return Ok(if spec.accumulate {
                vec![]
            } else {
                self.zero(0)
            });
        }
        let name = match spec.kind {
            ConvKind::Forward => "conv_forward",
            ConvKind::Input => "conv_input",
            ConvKind::Weight => "conv_weight",
        };
        let product = Product::of_conv(spec);
        self.product(name, product, spec.accumulate, Some(spec))
    }

    fn product(
        &mut self,
        name: &str,
        product: Product,
        accumulate: bool,
        conv: Option<&Conv>,
    ) -> Result<Vec<Launch>, String> {
        let Product { batch, m, n, k } = product;
        if batch * m * n == 0 {
            return Ok(vec![]);
        }
        let cut = Cut::new(&product);
        // One, or the two of a pair; a block has both of them where nothing is split.
        let products = self.bound.inputs.len() / 2;
        let second = 2 * (products - 1);
        let [parts, rounds] = if cut.splits > 1 {
            [cut.splits * products, 1]
        } else {
            [1, products]
        };
        let blocks = batch * cut.tiles[0] * cut.tiles[1] * parts;
        let blocks = u32::try_from(blocks).map_err(|_| format!("{name}: {blocks} tiles"))?;
        let partials = match cut.splits {
            1 => 0,
            splits => self.scratch.partials(batch * m * n * splits * products)?,
        };
        let args = GemmArgs {
            a: self.input(0),
            b: self.input(1),
            second_a: self.input(second),
            second_b: self.input(second + 1),
            c: self.output(0),
            partials,
            m: word(m),
            n: word(n),
            k: word(k),
            accumulate: accumulate.into(),
            tiles_m: word(cut.tiles[0]),
            tiles_n: word(cut.tiles[1]),
            splits: word(cut.splits),
            depth: word(cut.depth),
            parts: word(parts),
            rounds: word(rounds),
            images: word(conv.map_or(0, images)),
            pad: 0,
            geometry: conv.map_or(Geometry::zeroed(), geometry),
        };
        let (precision, threads) = match self.precision {
            Precision::Fp32 => ("fp32", 256),
            Precision::Tf32 => ("tf32", 128),
            Precision::Bf16 => ("bf16", 128),
        };
        let function = format!("{name}_{}_{precision}", cut.name);
        let mut launches = vec![Launch::new(function, blocks, threads, &args)];
        if cut.splits > 1 {
            let args = CombineArgs {
                partials,
                output: self.output(0),
                size: word(m * n),
                splits: word(cut.splits),
                batch: word(batch),
                accumulate: accumulate.into(),
                products: word(products),
                pad: 0,
            };
            launches.extend(Launch::per_point("gemm_combine", batch * m * n, &args));
        }
        Ok(launches)
    }
}

/// Elements of the images that a convolution of the batch gets: of x, or where that is the result, of y.
fn images(conv: &Conv) -> usize {
    match conv.kind {
        ConvKind::Forward | ConvKind::Weight => conv.n * conv.h * conv.w * conv.c,
        ConvKind::Input => conv.n * conv.out_h() * conv.out_w() * conv.out,
    }
}

fn geometry(conv: &Conv) -> Geometry {
    Geometry {
        w: Divisor::new(conv.w),
        h: Divisor::new(conv.h),
        c: Divisor::new(conv.c),
        out_w: Divisor::new(conv.out_w()),
        out_h: Divisor::new(conv.out_h()),
        out: Divisor::new(conv.out),
        window_w: Divisor::new(conv.window[1]),
        stride_y: Divisor::new(conv.stride[0]),
        stride_x: Divisor::new(conv.stride[1]),
        window_h: word(conv.window[0]),
        pad_y: word(conv.pad[0]),
        pad_x: word(conv.pad[2]),
    }
}
