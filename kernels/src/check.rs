//! Whether a kernel's specification makes sense in itself.

use crate::kernel::product;
use crate::{Conv, Instr, Kernel, Map, MatMul, StoreKind, Take, Window};

impl Kernel {
    /// Refuses what no memory could satisfy. `inputs`, `outputs` and `workspace` may be asked afterwards only.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Map(map) => check_map(map),
            Self::MatMulPair(MatMul { accumulate, .. })
            | Self::ConvPair(Conv { accumulate, .. })
                if *accumulate =>
            {
                Err("a pair of products cannot be added in place".into())
            }
            Self::Conv(conv) | Self::ConvPair(conv) => {
                check_window([conv.h, conv.w], conv.window, conv.stride, conv.pad)?;
                if conv.batch > 0 && conv.n > 0 && conv.c > 0 && conv.out > 0 {
                    check_image([conv.h, conv.w])
                } else {
                    Ok(())
                }
            }
            Self::Window(_, window) => check_pooling(window),
            Self::Pad(_, pad) => {
                let axes = pad.extents.len();
                if pad.before.len() == axes && pad.after.len() == axes {
                    Ok(())
                } else {
                    Err(format!(
                        "{} and {} borders for {axes} axes",
                        pad.before.len(),
                        pad.after.len()
                    ))
                }
            }
            Self::Take(_, take) => check_take(take),
            Self::ArgMax(_, arg) if arg.n == 0 && product(&[arg.outer, arg.inner]) > 0 => {
                Err("the greatest of no numbers".into())
            }
            Self::ArgMax(_, arg) if arg.n > i32::MAX as usize => {
                Err(format!("{} does not fit an i32", arg.n))
            }
            Self::Random(random) if random.count / 2 > u32::MAX as usize => Err(format!(
                "{} random numbers under one key; at most 2³³",
                random.count
            )),
            Self::MatMul(_)
            | Self::MatMulPair(_)
            | Self::Concat(..)
            | Self::Rows(..)
            | Self::ArgMax(..)
            | Self::Random(_)
            | Self::Reversible(_) => Ok(()),
        }
    }
}

fn check_map(map: &Map) -> Result<(), String> {
    let axes = map.extents.len();
    for (i, load) in map.loads.iter().enumerate() {
        if load.strides.len() != axes {
            return Err(format!(
                "load {i} has {} strides for {axes} axes",
                load.strides.len()
            ));
        }
    }
    for (at, instr) in map.code.iter().enumerate() {
        check_instr(map, at, *instr).map_err(|reason| format!("instruction {at}: {reason}"))?;
    }
    let mut sums = None;
    for (i, store) in map.stores.iter().enumerate() {
        if store.value >= map.code.len() {
            return Err(format!(
                "store {i} of value {}, of {}",
                store.value,
                map.code.len()
            ));
        }
        let StoreKind::Sum(flags) = &store.kind else {
            continue;
        };
        if flags.len() != axes {
            return Err(format!(
                "store {i} has {} flags for {axes} axes",
                flags.len()
            ));
        }
        if sums.is_some_and(|sums| sums != flags) {
            return Err(format!(
                "store {i} sums over other axes than the store before it"
            ));
        }
        sums = Some(flags);
    }
    Ok(())
}

fn check_instr(map: &Map, at: usize, instr: Instr) -> Result<(), String> {
    let earlier = |operands: &[usize]| match operands.iter().find(|&&operand| operand >= at) {
        Some(operand) => Err(format!("value {operand} is not computed yet")),
        None => Ok(()),
    };
    match instr {
        Instr::Load(load) if load >= map.loads.len() => {
            Err(format!("load {load} of {}", map.loads.len()))
        }
        Instr::Iota(axis) if axis >= map.extents.len() => {
            Err(format!("axis {axis} of {}", map.extents.len()))
        }
        Instr::Load(_) | Instr::Iota(_) | Instr::Const(_) => Ok(()),
        Instr::Unary(_, x) => earlier(&[x]),
        Instr::Binary(_, x, y) => earlier(&[x, y]),
        Instr::Select(x, y, z) => earlier(&[x, y, z]),
    }
}

fn check_take(take: &Take) -> Result<(), String> {
    match take.index.iter().find(|&&index| index as usize >= take.n) {
        Some(index) => Err(format!("index {index} into an axis of {}", take.n)),
        None => Ok(()),
    }
}

fn check_pooling(window: &Window) -> Result<(), String> {
    let Window {
        n,
        h,
        w,
        c,
        window: [kh, kw],
        stride,
        pad,
        ..
    } = *window;
    check_window([h, w], [kh, kw], stride, pad)?;
    if product(&[kh, kw]) > 255 {
        return Err(format!("a window of {kh}×{kw} pixels; at most 255"));
    }
    if pad[0].max(pad[1]) >= kh || pad[2].max(pad[3]) >= kw {
        return Err(format!(
            "a border of {pad:?} is not less than the window {kh}×{kw}"
        ));
    }
    if n > 0 && c > 0 {
        check_image([h, w])
    } else {
        Ok(())
    }
}

fn check_image([h, w]: [usize; 2]) -> Result<(), String> {
    if h > 0 && w > 0 {
        Ok(())
    } else {
        Err(format!("an image of {h}×{w} pixels"))
    }
}

/// The padded image holds at least one window, and no sum of extents overflows.
fn check_window(
    image: [usize; 2],
    window: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 4],
) -> Result<(), String> {
    const LARGEST: usize = i32::MAX as usize;
    if window.contains(&0) || stride.contains(&0) {
        return Err(format!(
            "window {window:?} and stride {stride:?} must be at least 1"
        ));
    }
    if image
        .iter()
        .chain(&window)
        .chain(&stride)
        .chain(&pad)
        .any(|&n| n > LARGEST)
    {
        return Err(format!(
            "image {image:?}, window {window:?}, stride {stride:?}, border {pad:?}: too large"
        ));
    }
    let padded = [image[0] + pad[0] + pad[1], image[1] + pad[2] + pad[3]];
    if padded[0] < window[0] || padded[1] < window[1] {
        return Err(format!(
            "a window of {window:?} does not fit the padded image {padded:?}"
        ));
    }
    Ok(())
}
