//! A generator as ONNX.

use super::Feed;
use super::graph::{Builder, Port, float, int, ints, word};
use crate::error::{Error, Result};
use crate::nn::layers::{BATCH_NORM_EPS, LEAK};
use crate::nn::{Generator, GeneratorConfig, Variant};
use tensor::Array;

/// The bytes of a model that makes `images` \[n, channels, rows, columns\] of noise `z` \[n, noise\] and
/// classes `y` \[n, classes\]. If the generator makes labels, `y` is a second output instead. Images are
/// normalised as learners take them. Norms are over the batch, so n should be the batch size of the run.
///
/// # Errors
/// If the parameters are not those of [`Generator::params`].
pub fn generator(of: &Generator, params: &[Array], about: String) -> Result<Vec<u8>> {
    let GeneratorConfig {
        variant,
        noise,
        classes,
        labels,
        image: [rows, columns, channels],
        channels: [small, _],
        ..
    } = *of.config();
    let plain = variant == Variant::Paper;
    let mut pass = Pass {
        graph: Builder::default(),
        params: Feed::of(params),
        plain,
    };
    let input = if labels {
        "z".to_owned()
    } else {
        pass.graph.node("Concat", &["z", "y"], vec![int("axis", 1)])
    };
    let x = pass.dense(&input, !plain)?;
    let features = pass.norm(&x, &[0], &[])?;
    let mut x = pass.dense(&features, !plain)?;
    let side = |extent: usize| extent.div_ceil(1 << of.stages());
    let shape = [0, side(rows) as i64, side(columns) as i64, small as i64];
    if plain {
        x = pass.norm(&x, &[0], &[])?;
    }
    let shape = pass.graph.whole(&shape);
    let image = pass.graph.node("Reshape", &[&x, &shape], vec![]);
    let channels_first = vec![ints("perm", &[0, 3, 1, 2])];
    let mut x = pass.graph.node("Transpose", &[&image], channels_first);
    if !plain {
        x = pass.norm(&x, &[0, 2, 3], &[1, 1])?;
    }
    for _ in 1..of.stages() {
        x = pass.doubled(&x, !plain)?;
        x = pass.norm(&x, &[0, 2, 3], &[1, 1])?;
    }
    // The bias does not depend on the place, so it can come before the cut.
    x = pass.doubled(&x, true)?;
    let [whole_rows, whole_columns] = [rows, columns].map(|extent| side(extent) << of.stages());
    let from = [(whole_rows - rows) / 2, (whole_columns - columns) / 2];
    if from != [0, 0] || [whole_rows, whole_columns] != [rows, columns] {
        x = pass.cut(&x, from, [rows, columns]);
    }
    x = pass.graph.node("Tanh", &[&x], vec![]);
    if plain {
        let two = pass.graph.number(2.0);
        x = pass.graph.node("Mul", &[&x, &two], vec![]);
    }
    let (z, y): (Port<'_>, Port<'_>) = (("z", &[noise]), ("y", &[classes]));
    let images: Port<'_> = ("images", &[channels, rows, columns]);
    if !labels {
        let outputs = [(x.as_str(), images)];
        return Ok(pass.graph.model(("generator", about), &[z, y], &outputs));
    }
    let logits = pass.dense(&features, true)?;
    let shares = pass.graph.node("Softmax", &[&logits], vec![]);
    let outputs = [(x.as_str(), images), (&shares, y)];
    Ok(pass.graph.model(("generator", about), &[z], &outputs))
}

struct Pass<'a> {
    graph: Builder,
    params: Feed<'a>,
    /// Mirrored borders, and no biases before a norm.
    plain: bool,
}

impl Pass<'_> {
    fn dense(&mut self, x: &str, biased: bool) -> Result<String> {
        let weights = self.params.weights(true)?;
        let bias = self.params.bias(biased)?;
        let turned = vec![int("transB", 1)];
        Ok(self.graph.weighted("Gemm", x, (&weights, bias), turned))
    }

    /// Doubles the image (nearest neighbour), pads it by one pixel, and applies a convolution.
    fn doubled(&mut self, x: &str, biased: bool) -> Result<String> {
        let kernel = self.params.weights(true)?;
        let kernel = kernel.permute(&[0, 3, 1, 2]).map_err(Error::engine)?;
        let graph = &mut self.graph;
        let scales = Array::new([4], vec![1.0f32, 1.0, 2.0, 2.0]).map_err(Error::engine)?;
        let scales = graph.constant(&scales);
        let nearest = vec![
            word("mode", "nearest"),
            word("nearest_mode", "floor"),
            word("coordinate_transformation_mode", "asymmetric"),
        ];
        let doubled = graph.node("Resize", &[x, "", &scales], nearest);
        let border = graph.whole(&[0, 0, 1, 1, 0, 0, 1, 1]);
        let mode = if self.plain { "reflect" } else { "constant" };
        let padded = graph.node("Pad", &[&doubled, &border], vec![word("mode", mode)]);
        let bias = self.params.bias(biased)?;
        Ok(graph.weighted("Conv", &padded, (&kernel, bias), vec![]))
    }

    /// Batch norm over some axes by the batch's own statistics, and the leaky rectifier. Parameters per
    /// channel get axes of size 1 for the image.
    fn norm(&mut self, x: &str, over: &[usize], image: &[usize]) -> Result<String> {
        let [gamma, beta] = [self.params.next()?, self.params.next()?];
        let graph = &mut self.graph;
        let mean = graph.node("ReduceMean", &[x], vec![ints("axes", over)]);
        let centred = graph.node("Sub", &[x, &mean], vec![]);
        let squares = graph.node("Mul", &[&centred, &centred], vec![]);
        let variance = graph.node("ReduceMean", &[&squares], vec![ints("axes", over)]);
        let eps = graph.number(BATCH_NORM_EPS);
        let variance = graph.node("Add", &[&variance, &eps], vec![]);
        let deviation = graph.node("Sqrt", &[&variance], vec![]);
        let unit = graph.node("Div", &[&centred, &deviation], vec![]);
        let mut per_channel = |array: &Array| -> Result<String> {
            let shape = [&array.shape()[..], image].concat();
            let array = array.clone().reshape(shape);
            Ok(graph.constant(&array.map_err(Error::engine)?))
        };
        let [gamma, beta] = [per_channel(gamma)?, per_channel(beta)?];
        let scaled = self.graph.node("Mul", &[&unit, &gamma], vec![]);
        let shifted = self.graph.node("Add", &[&scaled, &beta], vec![]);
        let leak = vec![float("alpha", LEAK)];
        Ok(self.graph.node("LeakyRelu", &[&shifted], leak))
    }

    fn cut(&mut self, x: &str, from: [usize; 2], size: [usize; 2]) -> String {
        let ends = [from[0] + size[0], from[1] + size[1]];
        let graph = &mut self.graph;
        let [from, ends] = [from, ends].map(|at| graph.whole(&at.map(|n| n as i64)));
        let axes = graph.whole(&[2, 3]);
        graph.node("Slice", &[x, &from, &ends, &axes], vec![])
    }
}
