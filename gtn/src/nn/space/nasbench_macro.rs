//! The networks of NAS-Bench-Macro (Su et al. 2021, arXiv 2103.11922).
//!
//! A convolution to 32 channels; stages of 2, 3 and 3 layers with 64, 128 and 256 channels, the first of each with stride 2;
//! a convolution to 1,280, mean, classes. Digits are the layers: 0 identity (a convolution 1×1 where the shape changes), 1
//! an inverted residual block with a window of 3×3 and three times the channels inside, 2 one with 5×5 and six times.

use super::options::Options;

pub(super) const OPTIONS: Options = Options::published(32, None, false);

/// Layers of the stages.
const STAGES: [usize; 3] = [2, 3, 3];

pub(super) fn places() -> Vec<usize> {
    vec![3; STAGES.iter().sum()]
}

/// The same network with the identities moved to the end of each stage. The first layer stays, because it
/// changes the shape.
pub(super) fn usual(code: &[u8]) -> Vec<u8> {
    let (mut usual, mut rest) = (Vec::with_capacity(code.len()), code);
    for layers in STAGES {
        let (stage, others) = rest.split_at(layers);
        rest = others;
        usual.push(stage[0]);
        usual.extend(stage[1..].iter().filter(|&&layer| layer > 0));
        usual.extend(stage[1..].iter().filter(|&&layer| layer == 0));
    }
    usual
}

pub(super) fn text(code: &[u8], options: &Options) -> String {
    let stem = options.channels;
    let mut layers = vec![format!(
        "{}conv {stem} 3x3 no_bias | batch | relu",
        options.settings()
    )];
    let (mut from, mut rest) = (stem, code);
    for (i, count) in STAGES.into_iter().enumerate() {
        let to = stem * (2 << i);
        let (stage, others) = rest.split_at(count);
        rest = others;
        for (j, &layer) in stage.iter().enumerate() {
            layers.extend(block(layer, [from, to], if j == 0 { 2 } else { 1 }));
            from = to;
        }
    }
    layers.push(format!(
        "conv {} 1x1 no_bias | batch | relu | mean | dense",
        40 * stem
    ));
    layers.join(" | ")
}

fn block(layer: u8, [from, to]: [usize; 2], stride: usize) -> Option<String> {
    let (window, times) = match layer {
        0 if stride == 1 => return None,
        0 => return Some(format!("conv {to} 1x1 stride {stride} no_bias | batch")),
        1 => ("3x3", 3),
        _ => ("5x5", 6),
    };
    let block = format!(
        "conv {} 1x1 no_bias | batch | relu | depthwise {window} stride {stride} no_bias | batch | relu | \
         conv {to} 1x1 no_bias | batch",
        from * times
    );
    let shortcut = from == to && stride == 1;
    Some(if shortcut {
        format!("add({block})")
    } else {
        block
    })
}
