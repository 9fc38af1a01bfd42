//! The benchmark set-ups: fixed networks and sizes, with arrays that other engines start from as well.

use autograd::{Error, Result};
use gtn::nn::{Generator, GeneratorConfig, Learner, Network, Variant};
use tensor::{Array, ArrayError};

/// A fixed learner, generator and training length on 28×28 images of 10 classes.
///
/// Files of starting values keep images as \[…, c, h, w\] and convolution weights as \[out, in, kh, kw\];
/// [`from_file`](Self::from_file) and [`to_file`](Self::to_file) convert. They name parameters
/// `theta0.c1.v`, … (learner) and `meta.gen.g1.v`, … (generator); in a file of gradients `meta.` is left
/// out.
///
/// ```
/// use benches::Setup;
/// let setup = Setup::parse("A", false)?;
/// assert_eq!((setup.steps, setup.batch), (32, 128));
/// let weights: usize = setup.learner.params().iter().map(|p| p.shape.count()).sum();
/// assert_eq!(weights, 421_876);
/// # Ok::<(), autograd::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Setup {
    /// As on the command line.
    pub name: &'static str,
    /// Inner steps T.
    pub steps: usize,
    /// Inner batch B.
    pub batch: usize,
    /// Real images in the outer loss.
    pub outer_batch: usize,
    /// What is trained.
    pub learner: Learner,
    /// What makes the data.
    pub generator: Generator,
}

/// Widths of a learner.
#[derive(Clone, Copy)]
enum Widths {
    /// Two convolutions and a dense layer.
    Conv([usize; 3]),
    /// Two dense layers.
    Mlp([usize; 2]),
}

const SIDE: usize = 28;
const CLASSES: usize = 10;
/// Height and width after two halvings.
const SMALL: usize = SIDE / 4;

impl Setup {
    /// The names that [`parse`](Self::parse) knows: small and paper-sized convolutions, a perceptron, and
    /// tiny ones for exactness.
    pub const NAMES: [&'static str; 5] = ["A", "B", "C", "tiny", "tinymlp"];

    /// The set-up of a name; `bn` adds batch norm after the learner's convolutions.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn parse(name: &str, bn: bool) -> Result<Self> {
        let (full, tiny) = ((1024, [128, 64]), (8, [4, 3]));
        let (index, widths, [steps, batch, outer_batch], (hidden, channels)) = match name {
            "A" => (0, Widths::Conv([32, 64, 128]), [32, 128, 512], full),
            "B" => (1, Widths::Conv([64, 128, 128]), [32, 128, 512], full),
            "C" => (2, Widths::Mlp([128, 128]), [100, 64, 512], full),
            "tiny" => (3, Widths::Conv([3, 4, 6]), [6, 5, 7], tiny),
            "tinymlp" => (4, Widths::Mlp([6, 5]), [6, 5, 7], tiny),
            _ => {
                return Err(Error::Setting(format!(
                    "set-up `{name}`: there are {}",
                    Self::NAMES.join(", ")
                )));
            }
        };
        let image = [SIDE, SIDE, 1];
        Ok(Self {
            name: Self::NAMES[index],
            steps,
            batch,
            outer_batch,
            learner: widths.network(bn)?.learner(image, CLASSES)?,
            generator: Generator::new(GeneratorConfig {
                variant: Variant::Benchmark,
                hidden,
                channels,
                image,
                ..GeneratorConfig::default()
            })?,
        })
    }

    /// An array of a file in this program's order of axes.
    ///
    /// # Errors
    /// If its shape is not what its name says.
    pub fn from_file(&self, name: &str, array: &Array) -> Result<Array> {
        self.reorder(name, array, false)
    }

    /// An array of this program in the files' order of axes: undoes [`from_file`](Self::from_file).
    ///
    /// # Errors
    /// If its shape is not what its name says.
    pub fn to_file(&self, name: &str, array: &Array) -> Result<Array> {
        self.reorder(name, array, true)
    }

    fn reorder(&self, name: &str, array: &Array, to_file: bool) -> Result<Array> {
        let Some(Place { first, folded }) = self.image_axes(name, array.shape().len()) else {
            return Ok(array.clone());
        };
        let mut split = array.shape().to_vec();
        if folded {
            let mut image = [split[first] / (SMALL * SMALL), SMALL, SMALL];
            if to_file {
                image.rotate_left(1);
            }
            split.splice(first..=first, image);
        }
        let mut axes: Vec<usize> = (0..split.len()).collect();
        match &mut axes[first..first + 3] {
            hwc if to_file => hwc.rotate_right(1),
            chw => chw.rotate_left(1),
        }
        let reordered = || {
            let moved = array.clone().reshape(split)?.permute(&axes)?;
            if folded {
                moved.reshape(array.shape().clone())
            } else {
                Ok(moved)
            }
        };
        reordered().map_err(|e: ArrayError| Error::Setting(format!("array `{name}`: {e}")))
    }

    /// Where the array of this name has the axes (channels, height, width) of images or windows in files,
    /// and whether they are folded into one: in the dense layers that make and take small images.
    fn image_axes(&self, name: &str, rank: usize) -> Option<Place> {
        let after_convs = self.learner.params().iter().any(|p| p.name == "c1.v");
        let (first, folded) = match (name.strip_prefix("meta.").unwrap_or(name), rank) {
            ("x" | "xo", 3..) => (rank - 3, false),
            (weight, 4) if weight.ends_with(".v") => (1, false),
            ("theta0.d1.v", 2) if after_convs => (1, true),
            ("gen.g2.v" | "gen.g2.s" | "gen.g2.b", 1..) => (0, true),
            _ => return None,
        };
        Some(Place { first, folded })
    }
}

/// Where an array has the axes of images.
struct Place {
    /// The first of the three.
    first: usize,
    /// Whether they are one axis.
    folded: bool,
}

impl Widths {
    fn network(self, bn: bool) -> Result<Network> {
        let text = match self {
            Self::Conv([first, second, units]) => {
                let [first, second] = [conv(first, bn), conv(second, bn)];
                format!("{first} | {second} | dense {units} | leaky | dense")
            }
            Self::Mlp([first, second]) => {
                format!("dense {first} | leaky | dense {second} | leaky | dense")
            }
        };
        text.parse().map_err(Error::Setting)
    }
}

/// Rectifier and bias keep the order of numbers, so pooling may come first: it is the same function, with a
/// quarter of the work for both. Batch norm may reverse the order, so it comes before the pooling.
fn conv(filters: usize, bn: bool) -> String {
    if bn {
        format!("conv {filters} | batch | max 2 | leaky")
    } else {
        format!("conv {filters} no_bias | max 2 | bias | leaky")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::DType;

    fn counting(shape: &[usize]) -> Array {
        let count = shape.iter().product::<usize>();
        let numbers: Vec<f64> = (0..count).map(|i| i as f64).collect();
        Array::new(shape, numbers).unwrap()
    }

    /// Every array of a file of starting values, by its shape there.
    fn file_arrays(setup: &Setup) -> Vec<(String, Vec<usize>)> {
        let file_shape = |shape: &[usize]| match *shape {
            [o, h, w, i] => vec![o, i, h, w],
            _ => shape.to_vec(),
        };
        let learner = setup.learner.params().iter();
        let theta = learner.map(|p| (format!("theta0.{}", p.name), file_shape(&p.shape)));
        let generator = setup.generator.params().iter();
        let phi = generator.map(|p| (format!("meta.gen.{}", p.name), file_shape(&p.shape)));
        let (t, b) = (setup.steps, setup.batch);
        let rest = [
            ("meta.z", vec![t, b, 128]),
            ("meta.x", vec![t, b, 1, 28, 28]),
            ("xo", vec![setup.outer_batch, 1, 28, 28]),
            ("meta.lr", vec![t]),
            ("y", vec![t, b]),
        ];
        let rest = rest.map(|(name, shape)| (name.to_owned(), shape));
        theta.chain(phi).chain(rest).collect()
    }

    #[test]
    fn files_come_back_as_they_were() {
        for (name, bn) in [("tiny", false), ("tiny", true), ("tinymlp", false)] {
            let setup = Setup::parse(name, bn).unwrap();
            for (name, shape) in file_arrays(&setup) {
                let array = counting(&shape);
                let ours = setup.from_file(&name, &array).unwrap();
                assert_eq!(setup.to_file(&name, &ours).unwrap(), array, "{name}");
                let gradient = name.strip_prefix("meta.").unwrap_or(&name);
                assert_eq!(setup.to_file(gradient, &ours).unwrap(), array, "{name}");
            }
        }
    }

    #[test]
    fn file_arrays_fit_the_parameters() {
        let setup = Setup::parse("tiny", true).unwrap();
        let arrays = file_arrays(&setup);
        let specs = setup
            .learner
            .params()
            .iter()
            .chain(setup.generator.params());
        for ((name, shape), spec) in arrays.iter().zip(specs) {
            let ours = setup.from_file(name, &Array::zeros(DType::F32, &shape[..]));
            assert_eq!(*ours.unwrap().shape(), spec.shape, "{name}");
        }
    }

    #[test]
    fn channels_move_last() {
        let setup = Setup::parse("tiny", false).unwrap();
        let at = |name: &str, shape: &[usize], index: usize| {
            let ours = setup.from_file(name, &counting(shape)).unwrap();
            ours.to_f64_vec()[index] as usize
        };
        // Our element 1 is channel 1 of pixel (0, 0), where there are several channels.
        assert_eq!(at("theta0.c2.v", &[4, 3, 3, 3], 1), 9);
        assert_eq!(at("theta0.d1.v", &[6, 4 * 49], 1), 49);
        assert_eq!(at("theta0.d1.v", &[6, 4 * 49], 4), 1);
        assert_eq!(at("meta.gen.g2.v", &[4 * 49, 8], 8), 49 * 8);
        assert_eq!(at("meta.gen.g2.b", &[4 * 49], 1), 49);
        assert_eq!(at("meta.gen.g2.gamma", &[4], 1), 1);
        assert_eq!(at("theta0.d2.v", &[10, 6], 1), 1);
        let mlp = Setup::parse("tinymlp", false).unwrap();
        let (name, weight) = ("theta0.d1.v", counting(&[6, 784]));
        assert_eq!(mlp.from_file(name, &weight).unwrap(), weight);
    }

    #[test]
    fn mistakes_are_named() {
        let error = Setup::parse("D", false).unwrap_err().to_string();
        assert_eq!(error, "set-up `D`: there are A, B, C, tiny, tinymlp");
        let setup = Setup::parse("tiny", false).unwrap();
        let error = setup.from_file("theta0.d1.v", &counting(&[6, 50]));
        assert!(error.unwrap_err().to_string().contains("theta0.d1.v"));
    }
}
