//! Launches of products: matrix products, and convolutions as products of patches. See `gemm.cuh`.

use super::{Fields, Launch, Lowering};
use crate::{Conv, ConvKind, MatMul, Precision};

/// Blocks that fill a large device once; splits of the inner index aim at twice as many.
const BLOCKS: usize = 132;

/// Inner indices of a split, at least.
const DEPTH: usize = 128;

/// Bytes of all partial products, at most.
const PARTIAL_BYTES: usize = 1 << 22;

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

/// Bytes of the partial sums of one product.
pub(super) fn workspace(product: &Product) -> usize {
    let Product { batch, m, n, .. } = *product;
    if batch
        .checked_mul(m)
        .and_then(|x| x.checked_mul(n))
        .is_none_or(|x| x == 0 || x > super::MOST)
    {
        return 0;
    }
    match Cut::new(product).splits {
        1 => 0,
        splits => 4 * batch * m * n * splits,
    }
}

impl Lowering<'_> {
    pub(super) fn matmul(&self, spec: &MatMul) -> Result<Vec<Launch>, String> {
        let name = match (spec.transpose_a, spec.transpose_b) {
            (false, false) => "matmul_nn",
            (false, true) => "matmul_nt",
            (true, false) => "matmul_tn",
            (true, true) => "matmul_tt",
        };
        self.product(name, Product::of_matmul(spec), spec.accumulate, None)
    }

    pub(super) fn conv(&self, spec: &Conv) -> Result<Vec<Launch>, String> {
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
        &self,
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
        let partials = self.workspace();
        let args = Fields::default()
            .u64(self.input(0))
            .u64(self.input(1))
            .u64(self.input(second))
            .u64(self.input(second + 1))
            .u64(self.output(0))
            .u64(partials)
            .u32(m)
            .u32(n)
            .u32(k)
            .u32(usize::from(accumulate))
            .u32(cut.tiles[0])
            .u32(cut.tiles[1])
            .u32(cut.splits)
            .u32(cut.depth)
            .u32(parts)
            .u32(rounds)
            .u32(conv.map_or(0, images))
            .u32(0)
            .then(&geometry(conv));
        let (precision, threads) = match self.precision {
            Precision::Fp32 => ("fp32", 256),
            Precision::Tf32 => ("tf32", 128),
            Precision::Bf16 => ("bf16", 128),
        };
        let mut launches = vec![Launch {
            function: format!("{name}_{}_{precision}", cut.name),
            blocks,
            threads,
            shared: 0,
            args: args.words(216),
        }];
        if cut.splits > 1 {
            let args = Fields::default()
                .u64(partials)
                .u64(self.output(0))
                .u32(m * n)
                .u32(cut.splits)
                .u32(batch)
                .u32(usize::from(accumulate))
                .u32(products)
                .u32(0);
            launches.extend(Launch::per_point(
                "gemm_combine",
                batch * m * n,
                args.words(40),
            ));
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

/// `Geometry` in `operands.cuh`; zeros for a matrix product.
fn geometry(conv: Option<&Conv>) -> Fields {
    let Some(conv) = conv else {
        return Fields::default().zeros(120);
    };
    Fields::default()
        .divisor(conv.w)
        .divisor(conv.h)
        .divisor(conv.c)
        .divisor(conv.out_w())
        .divisor(conv.out_h())
        .divisor(conv.out)
        .divisor(conv.window[1])
        .divisor(conv.stride[0])
        .divisor(conv.stride[1])
        .u32(conv.window[0])
        .u32(conv.pad[0])
        .u32(conv.pad[2])
}
