//! Launches of products: matrix products, and convolutions as products of patches. See `gemm.cuh`.

use super::cut::{Cut, MMA_TILES, Product, Tile, WGMMA_TILES};
use super::{Divisor, Launch, Lowering, word};
use crate::{Conv, ConvKind, MatMul, Precision};
use bytemuck::{Pod, Zeroable};

/// A convolution's numbers: `operands.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Geometry {
    w: Divisor,
    h: Divisor,
    c: Divisor,
    out_w: Divisor,
    out_h: Divisor,
    out: Divisor,
    window_w: Divisor,
    stride_y: Divisor,
    stride_x: Divisor,
    class_w: Divisor,
    class_h: Divisor,
    taps_w: Divisor,
    window_h: u32,
    pad_y: u32,
    pad_x: u32,
    classes_x: u32,
}
const _: () = assert!(size_of::<Geometry>() == 160, "as on the device");

/// `product.cuh`.
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
    weights: u32,
    classes: u32,
    rows: u32,
    geometry: Geometry,
}
const _: () = assert!(size_of::<GemmArgs>() == 264, "as on the device");

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
    groups: u32,
}
const _: () = assert!(size_of::<CombineArgs>() == 40, "as on the device");

impl Lowering<'_> {
    pub(super) fn matmul(&mut self, spec: &MatMul) -> Result<Vec<Launch>, String> {
        let name = match (spec.transpose_a, spec.transpose_b) {
            (false, false) => "matmul_nn",
            (false, true) => "matmul_nt",
            (true, false) => "matmul_tn",
            (true, true) => "matmul_tt",
        };
        let product = Product::of_matmul(spec);
        let cut = Cut::new(&product, self.tiles(false));
        self.product(name, product, cut, spec.accumulate, None)
    }

    /// The tiles that there are kernels for. The largest tile of warpgroups has none with respect to a
    /// convolution's weight.
    fn tiles(&self, weight: bool) -> &'static [Tile] {
        if self.wgmma {
            &WGMMA_TILES[usize::from(weight)..]
        } else {
            MMA_TILES
        }
    }

    pub(super) fn conv(&mut self, spec: &Conv) -> Result<Vec<Launch>, String> {
        if spec.counts().contains(&0) {
            return Ok(if spec.accumulate {
                vec![]
            } else {
                self.zero(0)
            });
        }
        if let Some(launches) = self.few_input(spec) {
            return Ok(launches);
        }
        let name = match spec.kind {
            ConvKind::Forward => "conv_forward",
            ConvKind::Input => "conv_input",
            ConvKind::Weight => "conv_weight",
        };
        let product = Product::of_conv(spec);
        let weight = spec.kind == ConvKind::Weight;
        let few = Cut::few(&product).filter(|_| weight);
        let cut = few.unwrap_or_else(|| Cut::new(&product, self.tiles(weight)));
        self.product(name, product, cut, spec.accumulate, Some(spec))
    }

    fn product(
        &mut self,
        name: &str,
        product: Product,
        cut: Cut,
        accumulate: bool,
        conv: Option<&Conv>,
    ) -> Result<Vec<Launch>, String> {
        let Product {
            batch,
            classes,
            rows,
            m,
            n,
            k,
        } = product;
        if batch * m * n == 0 {
            return Ok(vec![]);
        }
        // One product, or the two of a pair. Where nothing is split, a block computes both.
        let products = self.bound.inputs.len() / 2;
        let second = 2 * (products - 1);
        let [parts, rounds] = if cut.splits > 1 {
            [cut.splits * products, 1]
        } else {
            [1, products]
        };
        let blocks = batch * classes * cut.tiles[0] * cut.tiles[1] * parts;
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
            weights: word(conv.map_or(0, |conv| conv.counts()[1] / batch)),
            classes: word(classes),
            rows: word(rows),
            geometry: conv.map_or(Geometry::zeroed(), geometry),
        };
        // Kernels of warpgroups have two threads for each row of the tile, and 128 that bring B.
        let (cores, on_cores) = if self.wgmma {
            ("_wgmma", 2 * word(cut.rows) + 128)
        } else {
            ("", 128)
        };
        let (function, threads) = match (cut.name, self.precision) {
            ("few", _) => (format!("{name}_few"), 256),
            (tile, Precision::Fp32) => (format!("{name}_{tile}_fp32"), 256),
            (tile, Precision::Tf32) => (format!("{name}_{tile}_tf32{cores}"), on_cores),
            (tile, Precision::Bf16) => (format!("{name}_{tile}_bf16{cores}"), on_cores),
        };
        let mut launches = vec![Launch::new(function, blocks, threads, &args)];
        if cut.splits > 1 {
            launches.extend(self.add_splits(&product, &cut, partials, accumulate));
        }
        Ok(launches)
    }

    /// Adds the partial sums of the splits: with several threads per element if there are many.
    fn add_splits(
        &self,
        product: &Product,
        cut: &Cut,
        partials: u64,
        accumulate: bool,
    ) -> Vec<Launch> {
        let &Product { batch, m, n, .. } = product;
        let groups = if cut.splits < 16 { 1 } else { 8 };
        let args = CombineArgs {
            partials,
            output: self.output(0),
            size: word(m * n),
            splits: word(cut.splits),
            batch: word(batch),
            accumulate: accumulate.into(),
            products: word(self.bound.inputs.len() / 2),
            groups: word(groups),
        };
        Launch::per_point("gemm_combine", batch * m * n * groups, &args)
    }
}

/// Elements of the images that a convolution of the batch gets: of x, or where that is the result, of y.
fn images(conv: &Conv) -> usize {
    match conv.kind {
        ConvKind::Forward | ConvKind::Weight => conv.n * conv.h * conv.w * conv.c,
        ConvKind::Input => conv.n * conv.out_h() * conv.out_w() * conv.out,
    }
}

pub(super) fn geometry(conv: &Conv) -> Geometry {
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
        class_w: Divisor::new(conv.w.div_ceil(conv.stride[1])),
        class_h: Divisor::new(conv.h.div_ceil(conv.stride[0])),
        taps_w: Divisor::new(conv.window[1].div_ceil(conv.stride[1])),
        window_h: word(conv.window[0]),
        pad_y: word(conv.pad[0]),
        pad_x: word(conv.pad[2]),
        classes_x: word(conv.stride[1].min(conv.w)),
    }
}
